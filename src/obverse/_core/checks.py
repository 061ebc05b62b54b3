"""Checks arguments, with one wording for each kind: what was given, and what is allowed.

Every function takes the argument's name and value, returns the value in its plain type, and raises
`InvalidArgumentError` otherwise. Truth values are no numbers; NumPy's scalars are.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from numbers import Integral, Real
from typing import Any

from ..errors import InvalidArgumentError
from .text import brief

__all__ = [
    "at_least",
    "choice",
    "count",
    "finite",
    "fraction",
    "integer",
    "is_integer",
    "is_number",
    "nonnegative",
    "positive",
]


def is_number(value: object) -> bool:
    """Whether ``value`` is a real number of any type, and not a truth value."""
    return isinstance(value, Real) and not isinstance(value, bool)


def is_integer(value: object) -> bool:
    """Whether ``value`` is an integer of any type, and not a truth value."""
    return isinstance(value, Integral) and not isinstance(value, bool)


def finite(name: str, value: Any) -> float:
    """A finite number."""
    return _number(name, value, "a finite number", -math.inf < value < math.inf if is_number(value) else False)


def positive(name: str, value: Any) -> float:
    """A finite number above 0."""
    return _number(name, value, "a positive, finite number", 0 < value < math.inf if is_number(value) else False)


def nonnegative(name: str, value: Any) -> float:
    """A finite number of at least 0."""
    return at_least(name, value, 0)


def at_least(name: str, value: Any, least: float) -> float:
    """A finite number of at least ``least``."""
    allowed = f"a finite number of at least {least:g}"
    return _number(name, value, allowed, least <= value < math.inf if is_number(value) else False)


def fraction(name: str, value: Any, *, zero: bool = True, one: bool = True) -> float:
    """A number between 0 and 1, with or without either end."""
    allowed = f"a number in {'[' if zero else '('}0, 1{']' if one else ')'}"
    inside = is_number(value) and (0 < value < 1 or (zero and value == 0) or (one and value == 1))
    return _number(name, value, allowed, inside)


def count(name: str, value: Any, least: int = 1, most: int | None = None) -> int:
    """An integer of at least ``least``, and at most ``most``."""
    if not is_integer(value) or value < least or (most is not None and value > most):
        allowed = f"an integer of at least {least}" if most is None else f"an integer from {least} to {most}"
        raise InvalidArgumentError(f"{name} must be {allowed}, got {brief(value)}")
    return int(value)


def integer(name: str, value: Any) -> int:
    """An integer of either sign."""
    if not is_integer(value):
        raise InvalidArgumentError(f"{name} must be an integer, got {value!r}")
    return int(value)


def choice(name: str, value: Any, allowed: Iterable[str]) -> str:
    """One of several words."""
    words = tuple(allowed)
    if not isinstance(value, str) or value not in words:
        quoted = [repr(word) for word in words]
        listed = quoted[0] if len(quoted) == 1 else f"{', '.join(quoted[:-1])} or {quoted[-1]}"
        raise InvalidArgumentError(f"{name} must be {listed}, got {brief(value)}")
    return str(value)


def _number(name: str, value: Any, allowed: str, is_allowed: bool) -> float:
    if not is_allowed:
        raise InvalidArgumentError(f"{name} must be {allowed}, got {brief(value)}")
    return float(value)
