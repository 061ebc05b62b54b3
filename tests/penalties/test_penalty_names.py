"""Names and parameters."""

from __future__ import annotations

import math
from typing import Any

import pytest

import obverse.penalties as room
from obverse.errors import InvalidArgumentError, UnknownNameError
from obverse.penalties import L0, MCP, SCAD, LogSum, Lp, Penalty, Standout, catalogue, penalty


def test_every_name_gives_its_class_with_defaults() -> None:
    assert len(catalogue()) == 15
    for name, cls in catalogue().items():
        assert penalty(name) == cls()
        assert cls.name == name
        assert getattr(room, cls.__name__) is cls


def test_catalogue_is_a_copy() -> None:
    catalogue().clear()
    assert "log-sum" in catalogue()


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        ("l0", L0()),
        ("l0.5", Lp(0.5)),
        ("l1", Lp(1.0)),
        ("l2", Lp(2.0)),
        ("log-sum:epsilon=0.1", LogSum(0.1)),
        ("scad:a=3, threshold=0.5", SCAD(3.0, 0.5)),
        (MCP(0.3), MCP(0.3)),
    ],
)
def test_specifications(spec: Any, expected: Penalty) -> None:
    assert penalty(spec) == expected


def test_parameters_as_keywords_win() -> None:
    assert penalty("log-sum:epsilon=0.1", epsilon=2.0) == LogSum(2.0)


def test_unknown_names_suggest_near_ones() -> None:
    with pytest.raises(UnknownNameError, match="did you mean 'log-sum'"):
        penalty("logsum")
    with pytest.raises(UnknownNameError):
        penalty("")


@pytest.mark.parametrize(
    "spec", ["log-sum:epsilon", "log-sum:epsilon=x", "log-sum:width=1", "ridge:p=2", "l3", "lp:p=0", 3]
)
def test_bad_specifications_are_refused(spec: Any) -> None:
    with pytest.raises(InvalidArgumentError):
        penalty(spec)


def test_an_object_takes_no_parameters() -> None:
    with pytest.raises(InvalidArgumentError, match="already"):
        penalty(LogSum(), epsilon=2.0)


@pytest.mark.parametrize("bad", [0.0, -1.0, math.nan, math.inf, "1", True, None])
def test_bad_parameters_are_refused(bad: Any) -> None:
    for cls, name in [
        (LogSum, "epsilon"),
        (MCP, "kappa"),
        (SCAD, "threshold"),
        (Standout, "gain"),
        (Lp, "p"),
    ]:
        with pytest.raises(InvalidArgumentError, match=name):
            cls(**{name: bad})


def test_ranges_of_parameters() -> None:
    with pytest.raises(InvalidArgumentError, match="at most 2"):
        Lp(2.1)
    with pytest.raises(InvalidArgumentError, match="above 1"):
        SCAD(a=1.0)
    with pytest.raises(InvalidArgumentError, match="bias"):
        Standout(bias=math.inf)
