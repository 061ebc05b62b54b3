"""Newton steps on the support of groups, by conjugate gradients, compiled; see `_block_descent` for the problem."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numba import njit

from ._scalar import Code, curvature, slope, value

__all__ = ["newton_step", "norm_of", "subtract"]

_SHORTENINGS = 8
_CG_STEPS = 80
# Residual, relative to the first, at which the Newton system counts as solved.
_CG_SHARE = 0.02


@njit(cache=True, nogil=True)
def norm_of(v: Any, first: int, last: int) -> float:
    total = 0.0
    for o in range(v.shape[0]):
        for j in range(first, last):
            total += v[o, j] * v[o, j]
    return math.sqrt(total)


@njit(cache=True, nogil=True, fastmath={"contract", "reassoc"})
def subtract(row: Any, r: Any, k: int, change: float) -> None:
    for i in range(k):
        r[i] -= row[i] * change


@njit(cache=True, nogil=True)
def _apply(sub: Any, d: Any, places: Any, lam: Any, radial: Any, e: Any, result: Any) -> None:
    """The Hessian on the support times ``d``: gram, and each group's tangential and radial curvature."""
    result[:] = np.dot(d, sub)
    for g in range(lam.size):
        along = 0.0
        for o in range(d.shape[0]):
            for j in range(places[g], places[g + 1]):
                along += e[o, j] * d[o, j]
        for o in range(d.shape[0]):
            for j in range(places[g], places[g + 1]):
                result[o, j] += lam[g] * d[o, j] + radial[g] * along * e[o, j]


@njit(cache=True, nogil=True)
def _precondition(base: Any, places: Any, radial: Any, e: Any, right: Any, result: Any) -> None:
    """The groups' own blocks inverted; a block that is not positive is taken without its radial bend."""
    for g in range(radial.size):
        along, size = 0.0, 0.0
        for o in range(right.shape[0]):
            for j in range(places[g], places[g + 1]):
                along += e[o, j] * right[o, j] / base[j]
                size += e[o, j] * e[o, j] / base[j]
        below = 1 + radial[g] * size
        share = radial[g] * along / below if below > 1e-6 else 0.0
        for o in range(right.shape[0]):
            for j in range(places[g], places[g + 1]):
                result[o, j] = (right[o, j] - share * e[o, j]) / base[j]


@njit(cache=True, nogil=True)
def newton_step(
    code: Code, gram: Any, starts: Any, v: Any, r: Any, weight: Any, unit: Any, top: Any, tolerance: float
) -> bool:
    """One Newton step on the support by conjugate gradients, which end where the model bends down; whether taken."""
    k, outputs = starts[-1], v.shape[0]
    count, groups = 0, 0
    members = np.empty(starts.size - 1, np.int64)
    for g in range(starts.size - 1):
        if top[g] > 0 and norm_of(v, starts[g], starts[g + 1]) > 0:
            members[groups] = g
            groups += 1
            count += starts[g + 1] - starts[g]
    if groups == 0:
        return False
    places = np.zeros(groups + 1, np.int64)
    support = np.empty(count, np.int64)
    lam, radial = np.zeros(groups), np.zeros(groups)
    e, right = np.zeros((outputs, count)), np.empty((outputs, count))
    base, here = np.empty(count), np.empty((outputs, count))
    worst, place = 0.0, 0
    for a in range(groups):
        g = members[a]
        first, last = starts[g], starts[g + 1]
        n = norm_of(v, first, last)
        if weight[g] > 0:
            s = slope(code, unit[g] * n)
            lam[a] = weight[g] * unit[g] * s / n
            radial[a] = weight[g] * unit[g] * unit[g] * curvature(code, unit[g] * n) - lam[a]
        square = 0.0
        for j in range(first, last):
            support[place] = j
            base[place] = max(gram[j, j] + lam[a], 1e-12 * top[g])
            for o in range(outputs):
                here[o, place] = v[o, j]
                e[o, place] = v[o, j] / n if weight[g] > 0 else 0.0
                right[o, place] = r[o, j] - lam[a] * v[o, j]
                square += right[o, place] ** 2
            place += 1
        places[a + 1] = place
        worst = max(worst, math.sqrt(square))
    if worst <= tolerance or not math.isfinite(worst):
        return False
    sub = np.empty((count, count))
    for a in range(count):
        row = gram[support[a]]
        for b in range(count):
            sub[a, b] = row[support[b]]
    d, rest, image = np.zeros((outputs, count)), right.copy(), np.empty((outputs, count))
    ahead = np.empty((outputs, count))
    _precondition(base, places, radial, e, rest, ahead)
    scaled = ahead.copy()
    product = np.sum(rest * scaled)
    goal = _CG_SHARE * _CG_SHARE * np.sum(right * right)
    for step in range(_CG_STEPS):
        _apply(sub, ahead, places, lam, radial, e, image)
        bend = np.sum(ahead * image)
        if not (bend > 1e-14 * product):
            if step == 0:
                d[:] = ahead
            break
        length = product / bend
        d += length * ahead
        rest -= length * image
        if np.sum(rest * rest) <= goal:
            break
        _precondition(base, places, radial, e, rest, scaled)
        following = np.sum(rest * scaled)
        ahead[:] = scaled + (following / product) * ahead
        product = following
    # The quadratic part along d is known exactly; the penalties are evaluated.
    bend_along = np.sum(d * np.dot(d, sub))
    slope_along = 0.0
    for a in range(count):
        for o in range(outputs):
            slope_along += d[o, a] * r[o, support[a]]
    if not (math.isfinite(slope_along) and math.isfinite(bend_along)):
        return False
    length = 1.0
    for _ in range(_SHORTENINGS):
        change = length * (length * bend_along / 2 - slope_along)
        size = abs(change)
        for a in range(groups):
            g = members[a]
            if weight[g] > 0:
                before, after = 0.0, 0.0
                for o in range(outputs):
                    for j in range(places[a], places[a + 1]):
                        before += here[o, j] ** 2
                        after += (here[o, j] + length * d[o, j]) ** 2
                old, new = value(code, unit[g] * math.sqrt(before)), value(code, unit[g] * math.sqrt(after))
                change += weight[g] * (new - old)
                size += weight[g] * abs(new - old)
        if change <= 1e-15 * size:
            for a in range(count):
                for o in range(outputs):
                    v[o, support[a]] += length * d[o, a]
                    subtract(gram[support[a]], r[o], k, length * d[o, a])
            return True
        length /= 2
    return False
