"""How a drop rate grows from nothing to its full value while training goes on.

A fixed rate hinders early training where whole regions are dropped; Ghiasi, Lin and Le (2018) lower the keep
probability linearly from one to its target.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from .._core.checks import count, is_integer
from .._core.text import brief
from ..errors import InvalidArgumentError

__all__ = ["ConstantSchedule", "CosineSchedule", "LinearSchedule", "Schedule", "as_schedule"]


@runtime_checkable
class Schedule(Protocol):
    """What a layer multiplies its drop rate by after a number of training steps."""

    def fraction(self, step: int) -> float:
        """Share of the full drop rate, in [0, 1], after ``step`` steps."""
        ...


@dataclass(frozen=True)
class ConstantSchedule:
    """The full rate from the first step on."""

    def fraction(self, step: int) -> float:
        """Always one."""
        return 1.0


@dataclass(frozen=True)
class LinearSchedule:
    """A rate that grows linearly: nothing up to step ``begin``, all of it ``steps`` later.

    Parameters
    ----------
    steps : int
        Training steps from no dropout to the full rate, at least 1.
    begin : int
        Steps without dropout before that.

    Notes
    -----
    ``fraction(t) = clip((t - begin) / steps, 0, 1)``. Source: Ghiasi, Lin and Le (2018), section 3 (there for the keep
    probability, which is the same).
    """

    steps: int
    begin: int = 0

    def __post_init__(self) -> None:
        _check(self.steps, self.begin)

    def fraction(self, step: int) -> float:
        """Share of the full drop rate after ``step`` steps."""
        return min(max((step - self.begin) / self.steps, 0.0), 1.0)


@dataclass(frozen=True)
class CosineSchedule:
    """A rate that grows along half a cosine: slow at both ends.

    Parameters
    ----------
    steps, begin : int
        As for `LinearSchedule`.

    Notes
    -----
    ``fraction(t) = (1 - cos(pi s)) / 2`` with ``s = clip((t - begin) / steps, 0, 1)``.
    """

    steps: int
    begin: int = 0

    def __post_init__(self) -> None:
        _check(self.steps, self.begin)

    def fraction(self, step: int) -> float:
        """Share of the full drop rate after ``step`` steps."""
        return (1.0 - math.cos(math.pi * min(max((step - self.begin) / self.steps, 0.0), 1.0))) / 2.0


def _check(steps: int, begin: int) -> None:
    count("steps", steps)
    count("begin", begin, 0)


def as_schedule(schedule: Schedule | int | None) -> Schedule | None:
    """The schedule that an argument means: a number of steps is a linear ramp over them."""
    if schedule is None or (isinstance(schedule, Schedule) and not isinstance(schedule, type)):
        return schedule
    if is_integer(schedule):
        return LinearSchedule(count("schedule", schedule))
    raise InvalidArgumentError(
        f"schedule must be None, a number of steps or an object with fraction(step), got {brief(schedule)}"
    )
