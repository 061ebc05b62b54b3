"""Tables and messages: columns in line, values and errors in one line."""

from __future__ import annotations

import numpy as np
import pytest

from obverse._core.text import aligned, brief, one_line
from obverse.errors import InvalidArgumentError


def test_columns_stand_in_line() -> None:
    rows = [("name", "value", "note"), ("a long name", "1", ""), ("b", "10.25", "x")]
    lines = aligned(rows, left=(0, 2)).splitlines()
    assert lines == ["name         value  note", "a long name      1", "b            10.25  x"]
    assert all(line == line.rstrip() for line in lines)
    assert aligned([]) == ""
    with pytest.raises(ValueError, match=r"shorter|longer"):
        aligned([("a", "b"), ("c",)])


@pytest.mark.parametrize("value", [1, "two\nlines", np.zeros((50, 50)), ["x" * 500], None], ids=type)
def test_values_are_shown_in_one_short_line(value: object) -> None:
    shown = brief(value)
    assert "\n" not in shown
    assert 0 < len(shown) <= 120
    assert shown.removesuffix("…")[:10] == repr(value)[: len(shown.removesuffix("…")[:10])]


def test_errors_are_said_in_one_line() -> None:
    assert one_line(InvalidArgumentError("\n first\nsecond")) == "first"
    assert one_line(OSError("disk full")) == "disk full"
    assert one_line(KeyError("x")) == "KeyError: 'x'"
    assert one_line(ValueError()) == "ValueError"
    assert len(one_line(ValueError("x" * 5000))) == 500
