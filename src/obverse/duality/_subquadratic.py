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
from ._own_penalty import check_own

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
        With the interval of magnitudes where it fails; also where the value of a penalty is not 0 at 0, or does not
        grow by the integral of the slope.
    InvalidArgumentError
        A function of the user's own looks at other weights or is random.

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
    check_own(penalty)
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
    _check_value(penalty, w, ratio)
    at_zero = float(penalty.slope_at_zero)
    return SubquadraticReport(at_zero, at_zero > 0, _tail(penalty), float(penalty.curvature_limit), (low, high))


def _check_value(penalty: Penalty, w: Any, ratio: Any) -> None:
    """Raise unless the value starts at zero and grows by the integral of the slope.

    With slope(w)/w nonincreasing, the growth from a to b lies between its values at b and at a, times (b^2 - a^2)/2.
    """
    value = np.asarray(penalty.value(np.concatenate([[0.0], w])), dtype=np.float64)
    if value[0] != 0 or not np.isfinite(value).all():
        found = value[~np.isfinite(value)][0] if value[0] == 0 else value[0]
        raise NotSubquadraticError(f"not subquadratic: its value must be 0 at 0 and finite, got {found:.6g}")
    value = value[1:]
    growth, square = np.diff(value), np.diff(w * w) / 2
    least, most = ratio[1:] * square, ratio[:-1] * square
    slack = 1e-6 * most + 1e-10 * np.abs(value[1:])
    wrong = (growth < least - slack) | (growth > most + slack)
    if wrong.any():
        marked = np.append(wrong, False) | np.append(False, wrong)
        raise _failure(w, marked, "its value does not grow by the integral of its slope")


def _failure(w: Any, marked: Any, reason: str) -> NotSubquadraticError:
    index = np.flatnonzero(marked)
    end = int(np.argmax(np.append(np.diff(index) > 1, True)))
    left, right = float(w[index[0]]), float(w[index[end]])
    return NotSubquadraticError(f"not subquadratic: {reason}, for |w| in [{left:.6g}, {right:.6g}]", (left, right))


def _tail(penalty: Penalty) -> str:
    # Far beyond the width of any penalty, unless a formula overflows there.
    for near, far in ((1e117, 1e120), (1e9, 1e12)):
        slopes = np.asarray(penalty.slope(np.array([near, far])), dtype=np.float64)
        values = np.asarray(penalty.value(np.array([near, far])), dtype=np.float64)
        if np.isfinite(slopes).all() and np.isfinite(values).all():
            break
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
