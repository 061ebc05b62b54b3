"""Whether a penalty or a keep probability has another face."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..errors import InvalidArgumentError, NotSubquadraticError
from ..penalties import Penalty
from ..penalties import penalty as penalty_named
from ._adaptive import AdaptiveDropout
from ._effective import effective_penalty

__all__ = ["SubquadraticReport", "check_subquadratic"]


@dataclass(frozen=True)
class SubquadraticReport:
    """What `check_subquadratic` found.

    Attributes
    ----------
    slope_at_zero : float
        Infinite, positive or 0.
    exact_zeros : bool
        Whether the proximal operator makes zeros: the slope at zero is positive.
    tail : str
        Growth for large weights: "constant", "logarithmic", "power q", "linear" or "quadratic".
    curvature_limit : float
        Largest step of a continuous proximal operator.
    interval : pair of float
        Magnitudes that were checked.
    subquadratic : bool
        True; a penalty that is not raises.
    """

    slope_at_zero: float
    exact_zeros: bool
    tail: str
    curvature_limit: float
    interval: tuple[float, float]
    subquadratic: bool = True


def check_subquadratic(
    penalty: str | Penalty | Callable[[Any], Any] | AdaptiveDropout, strength: float = 1.0
) -> SubquadraticReport:
    r"""Check that :math:`\Omega'(w)/w` is nonincreasing, which is when a penalty has a dropout face.

    Parameters
    ----------
    penalty : Penalty, str or callable
        A penalty or its name, an `AdaptiveDropout`, or a keep probability of magnitudes.
    strength : float, default 1
        Strength of the penalty, for a keep probability.

    Returns
    -------
    SubquadraticReport

    Raises
    ------
    NotSubquadraticError
        With the interval of magnitudes where it fails.

    Notes
    -----
    Checked on 32 points per octave from 1e-12 to 1e12, to a relative 1e-9: a bump narrower than that passes.
    """
    if isinstance(penalty, str):
        penalty = penalty_named(penalty)
    if isinstance(penalty, AdaptiveDropout) or not isinstance(penalty, Penalty):
        if not callable(penalty) and not isinstance(penalty, AdaptiveDropout):
            raise InvalidArgumentError(f"give a Penalty or a callable, got {type(penalty).__name__}")
        penalty = effective_penalty(penalty, strength)
    low, high = 1e-12, 1e12
    w = np.geomspace(low, high, 2560)
    slope = np.asarray(penalty.slope(w), dtype=np.float64)
    wrong = ~((slope >= 0) & np.isfinite(slope))
    if wrong.any():
        raise _failure(w, wrong, "its slope is negative or not finite")
    ratio = slope / w
    # Digits lost to a slope that has nearly vanished are not a failure.
    rises = np.diff(ratio) > 1e-9 * ratio[1:] + 1e-13 * ratio[0] * (ratio[1:] < 1e-13 * ratio.max())
    if rises.any():
        marked = np.zeros(w.size, dtype=bool)
        marked[:-1] |= rises
        marked[1:] |= rises
        raise _failure(w, marked, "slope(w)/w rises, so that the penalty grows faster than a square")
    at_zero = float(penalty.slope_at_zero)
    return SubquadraticReport(at_zero, at_zero > 0, _tail(penalty), float(penalty.curvature_limit), (low, high))


def _failure(w: Any, marked: Any, reason: str) -> NotSubquadraticError:
    index = np.flatnonzero(marked)
    end = int(np.argmax(np.append(np.diff(index) > 1, True)))
    left, right = float(w[index[0]]), float(w[index[end]])
    return NotSubquadraticError(f"not subquadratic: {reason}, for |w| in [{left:.6g}, {right:.6g}]", (left, right))


def _tail(penalty: Penalty) -> str:
    near, far = 1e9, 1e12
    slopes = np.asarray(penalty.slope(np.array([near, far])), dtype=np.float64)
    values = np.asarray(penalty.value(np.array([near, far])), dtype=np.float64)
    if slopes[1] * far <= 1e-6 * values[1] or values[1] <= values[0]:
        return "constant"
    power = 1 + math.log(slopes[1] / slopes[0]) / math.log(far / near)
    if abs(power) < 2e-3:
        return "logarithmic"
    if abs(power - 1) < 2e-3:
        return "linear"
    if abs(power - 2) < 2e-3:
        return "quadratic"
    return "constant" if power < 0 else f"power {power:.3g}"
