"""What a penalty with only a value and a slope gets: everything else, numerically and safeguarded.

All searches run in float64 and are vectorized over the weights, so that a penalty of a few lines works on a
whole layer. A closed form is faster; none of the catalogue depends on the two most expensive functions here,
`prox` and `dual`.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from .._core.arrays import Array, np_namespace

if TYPE_CHECKING:
    from ._base import Penalty

__all__ = ["curvature_limit", "dual", "eta", "prox", "slope_at_zero", "zeroing_step"]

# Weights are searched for between these magnitudes; their squares stay inside float64.
_SMALLEST, _LARGEST = 1e-150, 1e150
# The same where no square is formed.
_TINIEST, _HUGEST = 1e-290, 1e305
# Elements handled at once: the temporaries of a search then stay in cache.
_CHUNK = 1 << 15
# Candidates for the minimizer as fractions of z, dense at both ends: small steps leave it near z, large ones
# near 0.
_FRACTIONS = (
    0.0,
    *np.geomspace(1e-9, 0.05, 48).tolist(),
    *np.linspace(0.06, 0.94, 31).tolist(),
    *(1 - np.geomspace(0.05, 1e-6, 12)).tolist(),
    1.0,
)
_BISECTIONS = 60
_GOLDEN = (math.sqrt(5) - 1) / 2
# Table of `zeroing_step`: spacing in log z, and the number of nodes it may have.
_SPACING, _MOST_NODES = 0.002, 1 << 16


def eta(penalty: Penalty, w: Array, xp: Any) -> Array:
    """w / Omega'(w), with the limit at zero and infinity where the slope vanishes."""
    return xp.where(w == 0, _eta_at_zero(penalty), _eta(penalty, w, xp))


def dual(penalty: Penalty, eta: Array, xp: Any) -> Array:
    """max over w of 2 Omega(w) - w^2 / eta: the maximizer is where eta_hat crosses eta, found by bisection in log w."""
    given = eta
    eta = _wide(eta, xp)
    low = xp.full_like(eta, math.log(_SMALLEST))
    high = xp.full_like(eta, math.log(_LARGEST))
    out_of_reach = eta >= _eta(penalty, xp.exp(high), xp)
    for _ in range(_BISECTIONS):
        middle = (low + high) / 2
        above = _eta(penalty, xp.exp(middle), xp) > eta
        low, high = xp.where(above, low, middle), xp.where(above, middle, high)
    w = xp.exp(high)
    value = 2 * penalty._value(w, xp) - w * (w / eta)
    value = xp.where(value > 0, value, xp.zeros_like(value))
    # Beyond every eta_hat the maximum is the supremum of Omega where that is flat, and infinite otherwise. A
    # maximum that is attained everywhere, as for ridge at its own eta, is a matter of rounding: hence the
    # slack.
    farthest = xp.full_like(eta, _LARGEST)
    flat = penalty._slope(farthest, xp) == 0
    attained = eta <= _eta(penalty, farthest, xp) * (1 + 1e-12)
    beyond = xp.where(flat, 2 * penalty._value(farthest, xp), xp.where(attained & (eta < math.inf), value, math.inf))
    value = xp.where(out_of_reach, beyond, value)
    value = xp.where(eta == 0, xp.zeros_like(value), value)
    return xp.astype(xp.where(xp.isnan(eta), eta, value), given.dtype)


def prox(penalty: Penalty, z: Array, step: Array, xp: Any) -> Array:
    """Global minimizer over [0, z]: a scan of candidates, then bisection on the derivative around the best."""
    shape = (z + 0 * step).shape
    points = xp.reshape(_wide(xp.broadcast_to(xp.asarray(z), shape), xp), (-1,))
    steps = xp.zeros_like(points) + (
        step if isinstance(step, (float, int)) else xp.reshape(xp.broadcast_to(_wide(step, xp), shape), (-1,))
    )
    parts = [
        _prox(penalty, points[i : i + _CHUNK], steps[i : i + _CHUNK], xp)
        for i in range(0, max(points.shape[0], 1), _CHUNK)
    ]
    return xp.astype(xp.reshape(xp.concat(parts), shape), z.dtype)


def zeroing_step(penalty: Penalty, z: Array, xp: Any) -> Array:
    """sup over 0 < x <= z of x (z - x/2) / Omega(x), by search; of many weights, through a table in log z."""
    flat = xp.reshape(_wide(xp.asarray(z), xp), (-1,))
    if penalty.slope_at_zero == 0:
        result = xp.where(flat > 0, math.inf, flat)
    else:
        usual = (flat > _TINIEST) & (flat < _HUGEST)
        inside = xp.where(usual, flat, xp.ones_like(flat))
        result = _tabulated_zeroing_step(penalty, inside, xp)
        # Tiny weights see only the slope at zero, if anything.
        result = xp.where(usual, result, xp.where(flat <= _TINIEST, flat / penalty.slope_at_zero, flat))
    return xp.astype(xp.reshape(result, z.shape), z.dtype)


def slope_at_zero(penalty: Penalty) -> float:
    """Omega'(0+), infinite also where Omega jumps at zero."""
    with np.errstate(all="ignore"):
        tiny = np.asarray([_SMALLEST])
        if float(penalty._value(tiny, np_namespace)[0]) > math.sqrt(_SMALLEST):
            return math.inf
        slope = float(penalty._slope(np.zeros(1), np_namespace)[0])
        return slope if not math.isnan(slope) else float(penalty._slope(tiny, np_namespace)[0])


def curvature_limit(penalty: Penalty) -> float:
    """1 / sup(-Omega''), from divided differences of the slope on a grid around the scale of the penalty."""
    with np.errstate(all="ignore"):
        return _curvature_limit(penalty)


# ---------------------------------------------------------------------------------------------- the searches
def _wide(x: Array, xp: Any) -> Array:
    """``x`` in float64, where its device has that."""
    return x if "mps" in str(getattr(x, "device", "")) else xp.astype(x, xp.float64)


def _eta(penalty: Penalty, w: Array, xp: Any) -> Array:
    slope = penalty._slope(w, xp)
    flat = slope == 0
    return xp.where(flat, math.inf, w / xp.where(flat, xp.ones_like(slope), slope))


def _eta_at_zero(penalty: Penalty) -> float:
    """The limit of eta_hat at zero, from a tiny weight or extrapolated from two small ones."""
    slope = penalty.slope_at_zero
    if slope > 0:
        return 0.0
    with np.errstate(all="ignore"):
        tiny, near, far = (float(_eta(penalty, np.asarray([w]), np_namespace)[0]) for w in (1e-100, 1e-7, 2e-7))
    if tiny < math.inf:
        return tiny
    # The slope of a tiny weight was rounded to zero.
    return 2 * near - far if far < math.inf else math.inf


def _prox(penalty: Penalty, z: Array, step: Array, xp: Any) -> Array:
    unit = xp.clip(z, 1.0, None)  # by which the objective is divided, so that squares stay in range

    def objective(x: Array) -> Array:
        # Relative to its value at zero, so that a small minimizer is not lost in the rounding of z^2 / 2.
        return x / unit * (x / 2 - z) + step / unit * penalty._value(x, xp)

    def derivative(x: Array) -> Array:
        return x - z + step * penalty._slope(x, xp)

    zero = xp.zeros_like(z)
    best, lowest = zero, zero
    low, high = zero, _FRACTIONS[1] * z
    for left, fraction, right in zip(_FRACTIONS, _FRACTIONS[1:], (*_FRACTIONS[2:], 1.0), strict=False):
        candidate = fraction * z
        value = objective(candidate)
        better = value < lowest
        best, lowest = xp.where(better, candidate, best), xp.where(better, value, lowest)
        low, high = xp.where(better, left * z, low), xp.where(better, right * z, high)
    rising = derivative(best) > 0
    low, high = xp.where(rising | (best == 0), low, best), xp.where(rising & (best > 0), best, high)
    for _ in range(_BISECTIONS):
        middle = (low + high) / 2
        rising = derivative(middle) > 0
        low, high = xp.where(rising, low, middle), xp.where(rising, middle, high)
    refined = (low + high) / 2
    # The derivative locates a minimizer better than the objective can: it wins ties up to rounding.
    slack = 1e-14 * z * (z / unit)
    best = xp.where(objective(refined) <= lowest + slack, refined, best)
    best = xp.where(objective(best) < 0, best, zero)
    best = xp.where(step == 0, z, best)
    return xp.where(xp.isnan(z) | xp.isnan(step), z + step, best)


def _searched_zeroing_step(penalty: Penalty, z: Array, xp: Any) -> tuple[Array, Array]:
    """The supremum and where it is attained, by a scan and a golden-section search in log x."""

    def ratio(x: Array) -> Array:
        value = penalty._value(x, xp)
        positive = value > 0
        return xp.where(positive, x / xp.where(positive, value, xp.ones_like(value)) * (z - x / 2), xp.zeros_like(x))

    fractions = np.geomspace(1e-6, 1.0, 49)
    spread = float(fractions[1] / fractions[0])
    best, highest = fractions[0] * z, ratio(fractions[0] * z)
    for fraction in fractions[1:].tolist():
        value = ratio(fraction * z)
        better = value > highest
        best, highest = xp.where(better, fraction * z, best), xp.where(better, value, highest)
    low, high = xp.log(best / spread), xp.log(xp.minimum(best * spread, z))
    for _ in range(40):
        left, right = high - _GOLDEN * (high - low), low + _GOLDEN * (high - low)
        down = ratio(xp.exp(left)) >= ratio(xp.exp(right))
        low, high = xp.where(down, low, left), xp.where(down, right, high)
    refined = xp.exp((low + high) / 2)
    value = ratio(refined)
    best, highest = xp.where(value > highest, refined, best), xp.where(value > highest, value, highest)
    # In the convex range the supremum is the limit at zero.
    limit = z / penalty.slope_at_zero
    return xp.where(limit >= highest, limit, highest), xp.where(limit >= highest, xp.zeros_like(best), best)


def _tabulated_zeroing_step(penalty: Penalty, z: Array, xp: Any) -> Array:
    if z.shape[0] == 0:
        return z
    start, stop = math.log(float(xp.min(z))), math.log(float(xp.max(z)))
    nodes = min(max(math.ceil((stop - start) / _SPACING), 2), _MOST_NODES) + 1
    if z.shape[0] <= nodes or stop == start:
        return _searched_zeroing_step(penalty, z, xp)[0]
    # By the envelope theorem d log t / d log z = z / (z - x/2), which makes a cubic Hermite table of log t
    # exact to fourth order.
    spacing = (stop - start) / (nodes - 1)
    at = xp.exp(start + spacing * xp.astype(xp.arange(nodes, device=z.device), z.dtype))
    step, x = _searched_zeroing_step(penalty, at, xp)
    height, tilt = xp.log(step), spacing * at / (at - x / 2)
    place = (xp.log(z) - start) / spacing
    cell = xp.clip(xp.astype(place, xp.int64), 0, nodes - 2)
    t = place - xp.astype(cell, z.dtype)
    rise = xp.take(height[1:] - height[:-1], cell)
    left, right = xp.take(tilt, cell), xp.take(tilt, cell + 1)
    return xp.exp(
        xp.take(height, cell) + t * (left + t * (3 * rise - 2 * left - right + t * (left + right - 2 * rise)))
    )


def _curvature_limit(penalty: Penalty) -> float:
    def slope(w: Any) -> Any:
        return penalty._slope(np.asarray(w, dtype=np.float64), np_namespace)

    at_zero = penalty.slope_at_zero
    if at_zero == math.inf:
        return 0.0
    # The scale is where the penalty first bends away from a lasso (or, smooth at zero, from a ridge).
    wide = np.geomspace(1e-30, 1e30, 6001)
    bend = slope(wide) / at_zero if at_zero > 0 else _eta_at_zero(penalty) * slope(wide) / wide
    bent = np.flatnonzero(np.abs(bend - 1) > 0.01)
    if at_zero == 0:
        bent = bent[wide[bent] > 1e-7]
    if bent.size == 0:
        return math.inf
    scale = float(wide[bent[0]])
    grid = np.concatenate([[0.0], np.geomspace(1e-3 * scale, 1e6 * scale, 4001)])
    steepest, left, right = _steepest_fall(slope, grid)
    # One-sided third-order formula for the curvature at zero, where many penalties bend most.
    h = 0.1 * scale  # small against the curvature: the slope has changed by a hundredth at `scale`
    near = slope([0.0, h, 2 * h, 3 * h])
    at_origin = -float(-11 * near[0] + 18 * near[1] - 9 * near[2] + 2 * near[3]) / (6 * h)
    if at_origin > steepest and at_origin < 1.01 * steepest:
        steepest = at_origin
    noise = 1e-6 * float(np.max(np.abs(slope(grid[grid <= 10 * scale])))) / scale
    if not steepest > noise:
        return math.inf
    # Zoom in: at a kink the divided difference grows without end, elsewhere it has converged up to a narrow
    # peak.
    zoomed = steepest
    for _ in range(3):
        zoomed, left, right = _steepest_fall(slope, np.linspace(left, right, 101))
    if zoomed > 1000 * steepest:
        return 0.0
    return 1 / (zoomed if zoomed > 1.001 * steepest else steepest)


def _steepest_fall(slope: Callable[[Any], Any], grid: Any) -> tuple[float, float, float]:
    """The largest divided difference of -Omega' on a grid, and an interval that holds it and its neighbors."""
    fall = -np.diff(slope(grid)) / np.diff(grid)
    best = int(np.nanargmax(fall))
    return float(fall[best]), float(grid[max(best - 1, 0)]), float(grid[min(best + 2, len(grid) - 1)])
