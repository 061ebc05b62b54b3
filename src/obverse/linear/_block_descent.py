"""Coordinate descent over groups, with Newton steps on their support, on a working set's Gram matrix, compiled.

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

from ._block_newton import newton_step, norm_of, subtract
from ._scalar import Code, curvature, entry, prox, slope, value

__all__ = ["certify", "descend_groups", "rotate", "screen_groups"]

_NORM_STEPS = 20
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
        if top[g] <= 0 or (zero and (only or norm_of(r, first, last) <= bound[g])):
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
                    subtract(gram[first + i], r[o], k, change)
                    v[o, first + i] = new[o, i]
        largest = max(largest, math.sqrt(moved))
    return largest


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
            if not newton_step(code, gram, starts, v, r, weight, unit, top, 0.1 * tolerance):
                break
    return violation


@njit(cache=True, nogil=True)
def certify(code: Code, starts: Any, v: Any, r: Any, weight: Any, unit: Any, top: Any) -> float:
    """Largest violation of the first-order conditions by the working set's groups, from an exact ``r``."""
    largest = 0.0
    for g in range(starts.size - 1):
        first, last = starts[g], starts[g + 1]
        n, size = norm_of(v, first, last), norm_of(r, first, last)
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
