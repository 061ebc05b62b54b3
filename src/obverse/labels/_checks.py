"""Numbers that criteria are constructed with, checked in one wording."""

from __future__ import annotations

import math
from typing import Any

from ..errors import InvalidArgumentError

__all__ = ["classes", "count", "fraction", "nonnegative", "positive"]


def fraction(name: str, value: Any, *, below_one: bool = False) -> float:
    """A number in [0, 1], or in [0, 1)."""
    upper = "1)" if below_one else "1]"
    number = _number(name, value, f"in [0, {upper}")
    if not 0.0 <= number <= 1.0 or (below_one and number == 1.0):
        raise InvalidArgumentError(f"{name} must be in [0, {upper}, got {value!r}")
    return number


def nonnegative(name: str, value: Any) -> float:
    """A finite number of at least 0."""
    number = _number(name, value, "finite and at least 0")
    if not (math.isfinite(number) and number >= 0.0):
        raise InvalidArgumentError(f"{name} must be finite and at least 0, got {value!r}")
    return number


def positive(name: str, value: Any) -> float:
    """A finite number above 0."""
    number = _number(name, value, "finite and above 0")
    if not (math.isfinite(number) and number > 0.0):
        raise InvalidArgumentError(f"{name} must be finite and above 0, got {value!r}")
    return number


def count(name: str, value: Any, least: int = 1) -> int:
    """An integer of at least ``least``."""
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise InvalidArgumentError(f"{name} must be an integer of at least {least}, got {value!r}")
    return value


def classes(value: Any, least: int = 2) -> int:
    """A number of classes."""
    return count("num_classes", value, least)


def _number(name: str, value: Any, allowed: str) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise InvalidArgumentError(f"{name} must be a number {allowed}, got {value!r}")
    return float(value)
