"""Checks of arguments: the plain value comes back, anything else is refused with the name and what is allowed."""

from __future__ import annotations

import math
from collections.abc import Callable
from decimal import Decimal
from fractions import Fraction
from typing import Any

import numpy as np
import pytest

from obverse._core import checks
from obverse.errors import InvalidArgumentError

Check = Callable[[str, Any], Any]

NO_NUMBERS = (None, True, False, "1", b"1", 1j, [1], (), {}, object(), np.ones(1), np.bool_(True))
CHECKS: dict[str, tuple[Check, tuple[Any, ...], tuple[Any, ...]]] = {
    "finite": (checks.finite, (0, -1.5, 1e300), ()),
    "positive": (checks.positive, (1, 1e-300), (0, -0.0, -1)),
    "nonnegative": (checks.nonnegative, (0, 0.0, 2), (-1e-300, -1)),
    "at least 2": (lambda name, value: checks.at_least(name, value, 2), (2, 2.5), (1.99, 0)),
    "fraction": (checks.fraction, (0, 1, 0.5), (-0.1, 1.1)),
    "open fraction": (lambda name, value: checks.fraction(name, value, zero=False, one=False), (0.5,), (0, 1)),
    "count": (checks.count, (1, 7), (0, -1, 1.0, 1.5)),
    "count to 3": (lambda name, value: checks.count(name, value, 0, 3), (0, 3), (4, -1)),
}


@pytest.mark.parametrize("name", CHECKS)
def test_numbers_of_every_type_come_back_plain(name: str) -> None:
    check, allowed, _ = CHECKS[name]
    plain = int if name.startswith("count") else float
    for value in allowed:
        kinds = [value, np.int64(value)] if plain is int else [value, np.float64(value), Fraction(value)]
        for given in kinds:
            found = check("width", given)
            assert type(found) is plain
            assert found == value


@pytest.mark.parametrize("name", CHECKS)
def test_all_else_is_refused_in_one_line_with_the_name(name: str) -> None:
    check, _, refused = CHECKS[name]
    for value in (*NO_NUMBERS, math.nan, math.inf, -math.inf, Decimal("NaN"), np.full((9, 9), 1.5), *refused):
        with pytest.raises(InvalidArgumentError, match=r"^width must be [^\n]{1,250}$"):
            check("width", value)


def test_choices_are_listed() -> None:
    assert checks.choice("mode", "noise", ("noise", "quiet")) == "noise"
    for value in (None, 1, "loud", np.array(["noise", "quiet"]), ["noise"]):
        with pytest.raises(InvalidArgumentError, match=r"^mode must be 'noise', 'quiet' or 'none', got "):
            checks.choice("mode", value, ("noise", "quiet", "none"))
    with pytest.raises(InvalidArgumentError, match=r"^mode must be 'noise', got 1$"):
        checks.choice("mode", 1, iter(["noise"]))


def test_what_is_a_number() -> None:
    assert [value for value in NO_NUMBERS if checks.is_number(value) or checks.is_integer(value)] == []
    assert checks.is_number(np.float32(1))
    assert checks.is_integer(np.int8(1))
    assert not checks.is_integer(1.0)
