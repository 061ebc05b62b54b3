"""Checks the constants of a penalty and stores them as plain numbers, the same way for all penalties."""

from __future__ import annotations

from typing import Any

from .._core.checks import finite, positive
from ..errors import InvalidArgumentError

__all__ = ["store_constant", "store_exponent"]

# Between these the squares of constants, and their products with weights, stay inside float64.
_SMALLEST, _LARGEST = 1e-100, 1e100


def store_constant(penalty: Any, *names: str) -> None:
    """Check that constants of a frozen penalty are positive and in the range of its formulas, and keep them as floats.

    Raises
    ------
    InvalidArgumentError
        A constant is not a positive number from 1e-100 to 1e100.
    """
    for name in names:
        value = positive(name, getattr(penalty, name))
        if not _SMALLEST <= value <= _LARGEST:
            raise InvalidArgumentError(f"{name} must be between {_SMALLEST:g} and {_LARGEST:g}, got {value!r}")
        object.__setattr__(penalty, name, value)


def store_exponent(penalty: Any, name: str, most: float) -> None:
    """The same for a constant whose exponential enters, which may have either sign.

    Raises
    ------
    InvalidArgumentError
        The constant is not a number from ``-most`` to ``most``.
    """
    value = finite(name, getattr(penalty, name))
    if not abs(value) <= most:
        raise InvalidArgumentError(f"{name} must be between {-most:g} and {most:g}, got {value!r}")
    object.__setattr__(penalty, name, value)
