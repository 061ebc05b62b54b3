"""Checks the formulas of a penalty of the user's own, which nothing else has looked at."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from .._core.text import one_line
from ..errors import InvalidArgumentError, ObverseError
from ..penalties import Penalty, Rescaled, check_elementwise

__all__ = ["check_own"]

Floats = npt.NDArray[np.float64]

_POINTS = np.geomspace(1e-12, 1e12, 241)


def check_own(penalty: Penalty) -> None:
    """Raise unless the value and the slope of a penalty of the user's own are functions of each weight alone.

    Raises
    ------
    InvalidArgumentError
        A formula looks at other weights, is random, fails, or returns something else than one real number each.
    """
    while isinstance(penalty, Rescaled):
        penalty = penalty.penalty
    if type(penalty).__module__.split(".")[0] == "obverse":
        return
    for verb, method in (("value", penalty.value), ("slope", penalty.slope)):
        what = f"the {verb} of {type(penalty).__name__}"
        check_elementwise(_numbers_of(method, what), _POINTS, what=what)


def _numbers_of(method: Callable[[Any], Any], what: str) -> Callable[[Floats], Floats]:
    def function(w: Floats) -> Floats:
        try:
            values = np.asarray(method(w))
        except ObverseError:
            raise
        except Exception as error:  # the user's formula may fail in any way it likes
            raise InvalidArgumentError(f"{what} fails: {one_line(error)}") from error
        if values.dtype.kind not in "fiub" or values.shape != w.shape:
            found = f"{values.dtype} values of shape {values.shape} for {w.shape}"
            raise InvalidArgumentError(f"{what} must be one real number for each weight, got {found}")
        return values.astype(np.float64)

    return function
