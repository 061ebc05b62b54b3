"""Checks of constructor parameters, with one wording for all penalties."""

from __future__ import annotations

import math

from ..errors import InvalidArgumentError

__all__ = ["require_finite", "require_positive"]


def require_positive(**parameters: float) -> None:
    """Raise unless every named parameter is a positive, finite number."""
    for name, value in parameters.items():
        if isinstance(value, bool) or not isinstance(value, float | int) or not 0 < value < math.inf:
            raise InvalidArgumentError(f"{name} must be a positive, finite number, got {value!r}")


def require_finite(**parameters: float) -> None:
    """Raise unless every named parameter is a finite number."""
    for name, value in parameters.items():
        if isinstance(value, bool) or not isinstance(value, float | int) or not math.isfinite(value):
            raise InvalidArgumentError(f"{name} must be a finite number, got {value!r}")
