"""Checks of constructor parameters, with one wording for all penalties."""

from __future__ import annotations

import math

from ..errors import InvalidArgumentError

__all__ = ["require_positive"]


def require_positive(**parameters: float) -> None:
    """Raise unless every named parameter is a positive, finite number."""
    for name, value in parameters.items():
        if isinstance(value, bool) or not isinstance(value, float | int) or not 0 < value < math.inf:
            raise InvalidArgumentError(f"{name} must be a positive, finite number, got {value!r}")
