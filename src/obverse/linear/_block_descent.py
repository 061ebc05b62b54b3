"""Coordinate descent over groups and Newton steps on their support, on the Gram matrix of a working set, compiled.

The problem, in coefficients V of k columns and m outputs, an array (m, k) with the columns of a group together, is

    min over V of  tr(V G V')/2 - <C, V> + sum_G weight_G Omega(unit_G ||V_G||)

and the state is V with the negative gradient R = C - V G of its quadratic part. The columns of every group are rotated
so that the group's own block of G is diagonal, which no norm notices: for a given norm the group's problem is then
solved by a division, and what remains is one equation for the norm.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numba import njit

from ._scalar import Code, curvature, entry, prox, slope, value

__all__ = ["certify", "descend_groups", "rotate", "screen_groups"]

_NORM_STEPS = 20
_SHORTENINGS = 8
_CG_STEPS = 80
# Residual, relative to the first, at which the Newton system counts as solved.
_CG_SHARE = 0.02
# Directions whose mean square is below this share of the largest of their group carry rounding errors only.
_FLAT = 1e-13


@njit(cache=True, nogil=True)
def rotate(matrix: Any, starts: Any, rotation: Any, transpose: bool) -> Any:
    """Multiply the rows of every group by the transpose of its rotation, or by the rotation itself.

    ``rotation`` holds the rotations of the groups one below the other, (k, largest group).
    """
    result = np.zeros_like(matrix)
    for g in range(starts.size - 1):
        first, size = starts[g], starts[g + 1] - starts[g]
        for a in range(size):
            for b in range(size):
                share = rotation[first + b, a] if transpose else rotation[first + a, b]
                if share != 0:
                    for c in range(matrix.shape[1]):
                        result[first + a, c] += share * matrix[first + b, c]
    return result


@njit(cache=True, nogil=True)
def _norm(v: Any, first: int, last: int) -> float:
    total = 0.0
    for o in range(v.shape[0]):
        for j in range(first, last):
            total += v[o, j] * v[o, j]
    return math.sqrt(total)


@njit(cache=True, nogil=True, fastmath={"contract", "reassoc"})
def _subtract(row: Any, r: Any, k: int, change: float) -> None:
    for i in range(k):
        r[i] -= row[i] * change


@njit(cache=True, nogil=True)
def _own(code: Code, v: Any, target: Any, own: Any, weight: float, unit: float) -> float:
    """The objective of a group's problem, of which ``target`` is the linear part."""
    total, square = 0.0, 0.0
    for o in range(v.shape[0]):
        for i in range(v.shape[1]):
            total += v[o, i] * (own[i] * v[o, i] / 2 - target[o, i])
            square += v[o, i] * v[o, i]
    return total + weight * value(code, unit * math.sqrt(square))


@njit(cache=True, nogil=True)
def _shrunken(target: Any, own: Any, s: float, n: float) -> tuple[float, float]:
    """||target / (own n + s)||^2 and sum target^2 own / (own n + s)^3."""
    total, along = 0.0, 0.0
    for o in range(target.shape[0]):
        for i in range(target.shape[1]):
            below = own[i] * n + s
            part = target[o, i] * target[o, i] / below / below
            total += part
            along += part * own[i] / below
    return total, along


@njit(cache=True, nogil=True)
def _group(code: Code, v: Any, target: Any, own: Any, top: float, weight: float, unit: float, new: Any) -> None:
    """The minimizer of a group's problem that one majorizing step from ``v`` leads to.

    The step decides between zero and not; away from zero the norm n solves
    ``||target / (own n + weight unit slope)|| = 1``.
    """
    outputs, size = v.shape
    square = 0.0
    for o in range(outputs):
        for i in range(size):
            new[o, i] = v[o, i] + (target[o, i] - own[i] * v[o, i]) / top
            square += new[o, i] * new[o, i]
    if weight == 0:
        for o in range(outputs):
            for i in range(size):
                new[o, i] = target[o, i] / own[i] if own[i] > _FLAT * top else v[o, i]
        return
    z = math.sqrt(square)
    n = prox(code, z * unit, weight * unit * unit / top) / unit if z > 0 else 0.0
    for o in range(outputs):
        for i in range(size):
            new[o, i] = new[o, i] / z * n if n > 0 else 0.0
    if n <= 0 or size == 1:
        return
    # Newton's method on 1/||.|| = 1, which is nearly linear in n.
    for _ in range(_NORM_STEPS):
        s = weight * unit * slope(code, unit * n)
        if not (s < math.inf):
            return
        total, along = _shrunken(target, own, s, n)
        if total <= 0 or not math.isfinite(total):
            return
        bend = weight * unit * unit * curvature(code, unit * n)
        rise = along
        if bend != 0:
            for o in range(outputs):
                for i in range(size):
                    below = own[i] * n + s
                    rise += target[o, i] * target[o, i] / below / below / below * bend
        if rise <= 0:
            return
        # 1/sqrt(total) - 1 and its derivative, rise / total^(3/2).
        change = total * (math.sqrt(total) - 1) / rise
        following = min(max(n + change, n / 4), 4 * n)
        done = abs(following - n) <= 1e-15 * n
        n = following
        if done:
            break
    s = weight * unit * slope(code, unit * n)
    other = np.empty_like(v)
    for o in range(outputs):
        for i in range(size):
            other[o, i] = target[o, i] / (own[i] + s / n)
    if _own(code, other, target, own, weight, unit) <= _own(code, new, target, own, weight, unit):
        new[:] = other


@njit(cache=True, nogil=True)
def _epoch(
    code: Code, gram: Any, starts: Any, v: Any, r: Any, weight: Any, unit: Any, top: Any, bound: Any, only: bool
) -> float:
    """One pass over all groups, or the nonzero ones; the largest violation met."""
    k = starts[-1]
    outputs = v.shape[0]
    largest = 0.0
    for g in range(starts.size - 1):
        first, last = starts[g], starts[g + 1]
        zero = True
        for o in range(outputs):
            for j in range(first, last):
                zero = zero and v[o, j] == 0
        if top[g] <= 0 or (zero and (only or _norm(r, first, last) <= bound[g])):
            continue
        own = np.empty(last - first)
        for i in range(last - first):
            own[i] = gram[first + i, first + i]
        old = v[:, first:last]
        target = r[:, first:last] + old * own
        new = np.empty_like(target)
        _group(code, old, target, own, top[g], weight[g], unit[g], new)
        moved = 0.0
        for i in range(last - first):
            for o in range(outputs):
                change = new[o, i] - old[o, i]
                if change != 0:
                    moved += (change * own[i]) ** 2
                    _subtract(gram[first + i], r[o], k, change)
                    v[o, first + i] = new[o, i]
        largest = max(largest, math.sqrt(moved))
    return largest


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
def _newton(
    code: Code, gram: Any, starts: Any, v: Any, r: Any, weight: Any, unit: Any, top: Any, tolerance: float
) -> bool:
    """One Newton step on the support by conjugate gradients, which end where the model bends down; whether taken."""
    k, outputs = starts[-1], v.shape[0]
    count, groups = 0, 0
    members = np.empty(starts.size - 1, np.int64)
    for g in range(starts.size - 1):
        if top[g] > 0 and _norm(v, starts[g], starts[g + 1]) > 0:
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
        n = _norm(v, first, last)
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
                    _subtract(gram[support[a]], r[o], k, length * d[o, a])
            return True
        length /= 2
    return False


@njit(cache=True, nogil=True)
def descend_groups(
    code: Code,
    gram: Any,
    starts: Any,
    v: Any,
    r: Any,
    weight: Any,
    unit: Any,
    top: Any,
    tolerance: float,
    epochs: int,
) -> float:
    """Minimize from where ``v`` and ``r`` stand, in place.

    Parameters
    ----------
    code : Code
    gram : array of shape (capacity, capacity)
        Symmetric, of rotated columns; its leading k rows and columns count.
    starts : integer array of shape (groups + 1,)
        Where each group begins; the last entry is k.
    v, r : arrays of shape (m, k)
        Coefficients, and the negative gradient of the quadratic part.
    weight, unit : arrays of shape (groups,)
        The penalty of a group is ``weight * Omega(unit * norm)``.
    top : array of shape (groups,)
        Largest diagonal entry of each group's block.
    tolerance : float
        Largest violation, in the unit of r.
    epochs : int
        At most so many full passes.

    Returns
    -------
    violation : float
        As met on the last pass.
    """
    bound = np.zeros(weight.size)
    least = math.inf
    for g in range(weight.size):
        if weight[g] > 0 and top[g] > 0:
            least = min(least, weight[g] * unit[g] * unit[g] / top[g])
    if least < math.inf:
        # A norm below the threshold of the smallest step surely stays zero.
        narrow = entry(code, least) * (1 - 1e-9)
        for g in range(weight.size):
            if weight[g] > 0:
                bound[g] = narrow / unit[g] * top[g]
    violation = math.inf
    for round_ in range(epochs):
        violation = _epoch(code, gram, starts, v, r, weight, unit, top, bound, False)
        if violation <= tolerance:
            break
        inner = violation
        for _ in range(2 if round_ == 0 else 1):
            if inner <= tolerance:
                break
            inner = _epoch(code, gram, starts, v, r, weight, unit, top, bound, True)
        for _ in range(3):
            if not _newton(code, gram, starts, v, r, weight, unit, top, 0.1 * tolerance):
                break
    return violation


@njit(cache=True, nogil=True)
def certify(code: Code, starts: Any, v: Any, r: Any, weight: Any, unit: Any, top: Any) -> float:
    """Largest violation of the first-order conditions by the working set's groups, from an exact ``r``."""
    largest = 0.0
    for g in range(starts.size - 1):
        first, last = starts[g], starts[g + 1]
        n, size = _norm(v, first, last), _norm(r, first, last)
        if top[g] <= 0:
            continue
        if n > 0 or weight[g] == 0:
            lam = weight[g] * unit[g] * slope(code, unit[g] * n) / n if weight[g] > 0 else 0.0
            square = 0.0
            for o in range(v.shape[0]):
                for j in range(first, last):
                    square += (r[o, j] - lam * v[o, j]) ** 2
            largest = max(largest, math.sqrt(square))
        else:
            step = weight[g] * unit[g] * unit[g] / top[g]
            if prox(code, size / top[g] * unit[g], step) > 0:
                largest = max(largest, size - entry(code, step) / unit[g] * top[g])
    return largest


@njit(cache=True, nogil=True)
def screen_groups(
    code: Code, norm: Any, weight: Any, unit: Any, low: Any, inside: Any, least: float, marked: Any
) -> float:
    """Mark the groups outside the working set that may leave zero; the largest violation of all.

    Parameters
    ----------
    norm : array of shape (groups,)
        Of each group's gradient.
    low : array of shape (groups,)
        At most the largest eigenvalue of each group's block, so that no group that would leave is missed.
    inside : bool array of shape (groups,)
        The working set, which is left out.
    least : float
        Entry threshold of the smallest step, below which a zero surely stays.
    marked : bool array of shape (groups,)
        Written to.
    """
    largest = 0.0
    for g in range(norm.size):
        marked[g] = False
        if inside[g] or low[g] <= 0 or norm[g] == 0:
            continue
        z = norm[g] / low[g] * unit[g]
        if weight[g] > 0 and z <= least:
            continue
        x = prox(code, z, weight[g] * unit[g] * unit[g] / low[g]) if weight[g] > 0 else z
        if x > 0:
            marked[g] = True
            largest = max(largest, x / unit[g] * low[g])
    return largest
