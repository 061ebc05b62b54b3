"""Axes: where a value lies between the ends of its axis, and which values deserve a tick."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from typing import final

__all__ = ["Linear", "Logarithmic", "Scale", "finite"]


# Ends of an axis, between which a difference of two numbers is a finite one.
_FARTHEST = 1e300


def finite(values: Iterable[float | None]) -> list[float]:
    """The numbers among ``values``: neither missing, nor NaN, nor infinite."""
    return [value for value in values if value is not None and math.isfinite(value)]


class Scale(ABC):
    """A map from values to positions, 0 at the low end of the axis and 1 at the high end."""

    low: float
    high: float

    @abstractmethod
    def __call__(self, value: float | None) -> float | None:
        """Position of ``value``, or None where it has no place on this axis."""

    @abstractmethod
    def ticks(self, about: int = 5) -> list[float]:
        """Some ``about`` round values inside the axis, ascending."""


@final
class Linear(Scale):
    """Equal differences take equal room."""

    def __init__(self, low: float, high: float, *, whole: bool = False) -> None:
        self._least_stride = 1.0 if whole else 0.0
        if not high > low:
            # One single value: open the axis around it, so that it sits in the middle.
            margin = abs(low) * 0.5 or 0.5
            low, high = low - margin, low + margin
        self.low, self.high = max(low, -_FARTHEST), min(high, _FARTHEST)

    @classmethod
    def counting(cls, values: Iterable[float | None]) -> Linear:
        """An axis of epochs or steps, from the first to the last, with ticks at whole numbers only."""
        known = finite(values) or [0.0, 1.0]
        return cls(min(known), max(known), whole=True)

    @classmethod
    def around(cls, values: Iterable[float | None], margin: float = 0.06) -> Linear:
        """An axis from zero that holds ``values``, with air beyond them."""
        known = finite(values) or [0.0, 1.0]
        low, high = min(*known, 0.0), max(*known, 0.0)
        if low == high:
            return cls(0.0, 1.0)
        room = (high - low) * margin
        return cls(low - room if low < 0 else 0.0, high + room)

    def __call__(self, value: float | None) -> float | None:
        if value is None or not math.isfinite(value):
            return None
        return (value - self.low) / (self.high - self.low)

    def ticks(self, about: int = 5) -> list[float]:
        raw = max((self.high - self.low) / max(about, 1), self._least_stride)
        unit = 10.0 ** math.floor(math.log10(raw))
        stride = next(unit * m for m in (1, 2, 2.5, 5, 10) if unit * m >= raw * 0.75)
        first = math.ceil(self.low / stride - 1e-9)
        last = math.floor(self.high / stride + 1e-9)
        # Rounding removes the dust of the multiplication, and -0.
        digits = max(0, 2 - math.floor(math.log10(stride)))
        return [round(i * stride, digits) + 0.0 for i in range(first, last + 1)]


@final
class Logarithmic(Scale):
    """Equal ratios take equal room; zero and negative values have no place."""

    def __init__(self, low: float, high: float) -> None:
        if not high > low * (1 + 1e-9):
            low, high = low / 3, high * 3
        self.low, self.high = low, high

    @classmethod
    def around(cls, values: Sequence[float | None], margin: float = 0.06) -> Logarithmic | None:
        """An axis that holds the positive ones among ``values``; None if there is none."""
        known = [value for value in finite(values) if value > 0]
        if not known:
            return None
        low, high = min(known), max(known)
        # In logarithms: the ratio of the largest number to the smallest is not finite.
        room = math.exp(margin * (math.log(high) - math.log(low)))
        return cls(*(min(max(end, 1 / _FARTHEST), _FARTHEST) for end in (low / room, high * room)))

    def __call__(self, value: float | None) -> float | None:
        if value is None or not math.isfinite(value) or value <= 0:
            return None
        low = math.log(self.low)
        return (math.log(value) - low) / (math.log(self.high) - low)

    def ticks(self, about: int = 5) -> list[float]:
        first, last = math.floor(math.log10(self.low)), math.ceil(math.log10(self.high))
        first, last = max(first, -300), min(last, 300)
        decades = [10.0**k for k in range(first, last + 1) if self._holds(10.0**k)]
        if len(decades) >= 3:
            return decades[:: math.ceil(len(decades) / about)]
        for steps in ((1, 3), (1, 2, 5), (1, 1.5, 2, 3, 4, 5, 7)):
            found = [m * 10.0**k for k in range(first, last + 1) for m in steps if self._holds(m * 10.0**k)]
            if len(found) >= 3:
                return found[:: math.ceil(len(found) / (about + 1))]
        return Linear(self.low, self.high).ticks(about)

    def _holds(self, value: float) -> bool:
        return self.low * (1 - 1e-9) <= value <= self.high * (1 + 1e-9)
