"""Where the proximal operator jumps away from zero, for a step given as one number."""

from __future__ import annotations

import math
from collections.abc import Callable

__all__ = ["jump"]

_GOLDEN = (math.sqrt(5) - 1) / 2


def jump(value: Callable[[float], float], step: float, high: float) -> float:
    """Largest z that the proximal operator sends to zero: the minimum over 0 < x <= high of x/2 + step Omega(x) / x.

    The objective at x is below that at 0 when x^2/2 - x z + step Omega(x) < 0. Golden-section search locates
    x to half the digits, which gives all digits of the minimum.
    """

    def needed(x: float) -> float:
        return x / 2 + step * (value(x) / x)

    low = 0.0
    left, right = high - _GOLDEN * high, _GOLDEN * high
    at_left, at_right = needed(left), needed(right)
    for _ in range(42):
        if at_left <= at_right:
            high, right, at_right = right, left, at_left
            left = high - _GOLDEN * (high - low)
            at_left = needed(left)
        else:
            low, left, at_left = left, right, at_right
            right = low + _GOLDEN * (high - low)
            at_right = needed(right)
    return min(at_left, at_right)
