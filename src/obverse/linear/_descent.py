"""Coordinate descent and Newton steps on the Gram matrix of a working set, compiled.

The problem, in scaled coefficients u of k columns, is

    min over u of  u'Gu/2 - c'u + sum_j weight_j Omega(unit_j |u_j|)

and the state is u with the negative gradient g = c - Gu of its quadratic part. One epoch sets every coefficient to the
global minimizer of its own scalar problem, so that a solution is a point that no coordinate can leave with profit;
Newton steps on the support make convergence quadratic, and never raise the objective.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numba import njit

from ._scalar import Code, curvature, entry, prox, prox_near, slope, value

__all__ = ["certify", "descend", "descend_block", "reach", "screen"]

# Newton systems beyond this size cost more than the epochs they save.
_LARGEST_NEWTON = 1500
_SHIFTS = 12
_ROUNDS = 20
_EPOCHS = 3
_NEWTON_STEPS = 4
# Full passes without progress after which there will be none.
_STALLED = 10
_HALVINGS = 8


@njit(cache=True, nogil=True)
def _update(code: Code, j: int, u: float, g: float, gram: float, weight: float, unit: float, positive: bool) -> float:
    """The minimizer of the j-th scalar problem."""
    if gram <= 0:
        return 0.0
    z = u + g / gram
    if weight == 0:
        return z if z > 0 or not positive else 0.0
    if z < 0 and positive:
        return 0.0
    near = abs(u) * unit if (u > 0) == (z > 0) else 0.0
    x = prox_near(code, abs(z) * unit, weight * unit * unit / gram, near) / unit
    return x if z >= 0 else -x


@njit(cache=True, nogil=True, fastmath={"contract", "reassoc"})
def _move(row: Any, g: Any, k: int, change: float) -> None:
    for i in range(k):
        g[i] -= row[i] * change


@njit(cache=True, nogil=True, fastmath={"contract", "reassoc"})
def _product(a: Any, b: Any, n: int) -> float:
    total = 0.0
    for i in range(n):
        total += a[i] * b[i]
    return total


@njit(cache=True, nogil=True)
def _epoch(
    code: Code, gram: Any, k: int, u: Any, g: Any, weight: Any, unit: Any, positive: bool, bound: Any, only: bool
) -> float:
    """One pass over all coefficients, or the nonzero ones; the largest violation met."""
    largest = 0.0
    for j in range(k):
        if u[j] == 0 and (only or abs(g[j]) <= bound[j]):
            continue
        new = _update(code, j, u[j], g[j], gram[j, j], weight[j], unit[j], positive)
        change = new - u[j]
        if new == 0 and u[j] == 0 and (not positive or g[j] > 0):
            # What sends this z to zero does so with every smaller one.
            bound[j] = max(bound[j], abs(g[j]))
        if change != 0:
            largest = max(largest, abs(change) * gram[j, j])
            _move(gram[j], g, k, change)
            u[j] = new
    return largest


@njit(cache=True, nogil=True)
def _factor(matrix: Any) -> tuple[bool, Any]:
    try:
        return True, np.linalg.cholesky(matrix)
    except Exception:
        return False, matrix


@njit(cache=True, nogil=True)
def _solve(lower: Any, right: Any) -> Any:
    """x with L L' x = right."""
    m = right.size
    x = right.copy()
    for i in range(m):
        x[i] = (x[i] - _product(lower[i], x, i)) / lower[i, i]
    for i in range(m - 1, -1, -1):
        x[i] /= lower[i, i]
        _move(lower[i], x, i, x[i])
    return x


@njit(cache=True, nogil=True)
def _newton(
    code: Code, gram: Any, k: int, u: Any, g: Any, weight: Any, unit: Any, positive: bool, tolerance: float
) -> int:
    """One Newton step on the support, with a shift where the model is not convex.

    Returns 0 where no step was taken, 1 where coefficients became zero on the way, and 2 for a full one.
    """
    m = 0
    for j in range(k):
        m += u[j] != 0
    if m == 0 or m > _LARGEST_NEWTON:
        return 0
    support = np.empty(m, np.int64)
    m = 0
    for j in range(k):
        if u[j] != 0:
            support[m] = j
            m += 1
    right, bend = np.empty(m), np.empty(m)
    worst, size, lowest = 0.0, 0.0, 0.0
    for a in range(m):
        j = support[a]
        w = unit[j] * abs(u[j])
        push = weight[j] * unit[j] * slope(code, w) if weight[j] > 0 else 0.0
        bend[a] = weight[j] * unit[j] * unit[j] * curvature(code, w) if weight[j] > 0 else 0.0
        right[a] = g[j] - (push if u[j] > 0 else -push)
        worst = max(worst, abs(right[a]))
        size = max(size, gram[j, j])
        lowest = min(lowest, gram[j, j] + bend[a])
    if worst <= tolerance or not math.isfinite(worst):
        return 0
    matrix = np.empty((m, m))
    for a in range(m):
        row = gram[support[a]]
        for b in range(m):
            matrix[a, b] = row[support[b]]
        matrix[a, a] += bend[a]
    # Past the curvature limit the model is not convex: Levenberg's shift makes it so.
    shift = 0.0 if lowest >= 0 else -2 * lowest
    added = 0.0
    done = False
    for _ in range(_SHIFTS):
        if shift > added:
            for a in range(m):
                matrix[a, a] += shift - added
            added = shift
        done, lower = _factor(matrix)
        if done:
            break
        shift = max(4 * shift, 1e-3 * size)
    if not done:
        return 0
    d = _solve(lower, right)
    for a in range(m):
        if not math.isfinite(d[a]):
            return 0
        matrix[a, a] -= bend[a] + added
    # First with every coefficient that would change sign set to zero, then only up to the first that would.
    ahead, move = np.empty(m), np.empty(m)
    length, first = 1.0, -1
    for a in range(m):
        here = u[support[a]]
        if here * d[a] < 0 and abs(d[a]) * length > abs(here) and (weight[support[a]] > 0 or positive):
            length, first = abs(here / d[a]), a
    along = 1.0 if first >= 0 else 0.0
    for _ in range(_HALVINGS):
        for a in range(m):
            here = u[support[a]]
            if along > 0:
                move[a] = along * d[a]
                if here * (here + move[a]) < 0 and (weight[support[a]] > 0 or positive):
                    move[a] = -here
            else:
                move[a] = -here if a == first else length * d[a]
        bend_along, slope_along = 0.0, 0.0
        for a in range(m):
            ahead[a] = _product(matrix[a], move, m)
            bend_along += move[a] * ahead[a]
            slope_along += move[a] * g[support[a]]
        change = bend_along / 2 - slope_along
        size_of_change = abs(bend_along / 2) + abs(slope_along)
        for a in range(m):
            j = support[a]
            if weight[j] > 0:
                delta = weight[j] * (value(code, unit[j] * abs(u[j] + move[a])) - value(code, unit[j] * abs(u[j])))
                change += delta
                size_of_change += abs(delta)
        if change <= 1e-15 * size_of_change:
            for a in range(m):
                j = support[a]
                if move[a] != 0:
                    _move(gram[j], g, k, move[a])
                    u[j] += move[a]
            return 1 if first >= 0 else 2
        if along > 0.25:
            along /= 2
        elif along > 0:
            along = 0.0
        else:
            length, first = length / 2, -1
    return 0


@njit(cache=True, nogil=True)
def _settle(
    code: Code,
    gram: Any,
    k: int,
    u: Any,
    g: Any,
    weight: Any,
    unit: Any,
    positive: bool,
    bound: Any,
    tolerance: float,
) -> None:
    """Solve for the coefficients of the support alone, on a copy of its part of the Gram matrix."""
    m = 0
    for j in range(k):
        m += u[j] != 0
    support = np.empty(m, np.int64)
    m = 0
    for j in range(k):
        if u[j] != 0:
            support[m] = j
            m += 1
    part = np.empty((m, m))
    for a in range(m):
        row = gram[support[a]]
        for b in range(m):
            part[a, b] = row[support[b]]
    x, h, w, c, limit = u[support], g[support], weight[support], unit[support], bound[support]
    for _ in range(_ROUNDS):
        for _ in range(_EPOCHS):
            inner = _epoch(code, part, m, x, h, w, c, positive, limit, False)
            if inner <= 0.3 * tolerance:
                break
        if inner <= 0.3 * tolerance:
            break
        for _ in range(_NEWTON_STEPS):
            # After one that ended at zeros, epochs find the support at less cost.
            if _newton(code, part, m, x, h, w, c, positive, 0.1 * tolerance) < 2:
                break
    for a in range(m):
        j = support[a]
        if x[a] != u[j]:
            _move(gram[j], g, k, x[a] - u[j])
            u[j] = x[a]
    for a in range(m):
        g[support[a]] = h[a]


@njit(cache=True, nogil=True)
def descend(
    code: Code,
    gram: Any,
    k: int,
    u: Any,
    g: Any,
    weight: Any,
    unit: Any,
    positive: bool,
    tolerance: float,
    epochs: int,
) -> tuple[int, float]:
    """Minimize from where u and g stand, in place.

    Parameters
    ----------
    code : Code
    gram : array of shape (capacity, capacity)
        Symmetric; its leading k rows and columns count.
    u, g : arrays of shape (capacity,)
    weight, unit : arrays of shape (capacity,)
        The penalty of a coefficient is ``weight * Omega(unit * |u|)``.
    positive : bool
        Whether coefficients may not be negative.
    tolerance : float
        Largest violation, in the unit of g.
    epochs : int
        At most so many full passes.

    Returns
    -------
    (passes, violation)
    """
    # |g| up to which a zero surely stays, by the smallest step of the working set.
    bound = np.zeros(k)
    least, narrow = math.inf, math.inf
    for j in range(k):
        if weight[j] > 0 and gram[j, j] > 0:
            step = weight[j] * unit[j] * unit[j] / gram[j, j]
            least = min(least, step)
    if least < math.inf:
        narrow = entry(code, least) * (1 - 1e-9)
        for j in range(k):
            if weight[j] > 0:
                bound[j] = narrow / unit[j] * gram[j, j]
    violation, best = math.inf, math.inf
    passes = stalled = support = 0
    for _ in range(epochs):
        violation = _epoch(code, gram, k, u, g, weight, unit, positive, bound, False)
        passes += 1
        if violation <= tolerance:
            break
        # Where rounding keeps the violation up, more passes would change nothing.
        nonzero = 0
        for j in range(k):
            nonzero += u[j] != 0
        stalled = stalled + 1 if nonzero == support and violation > 0.9 * best else 0
        support, best = nonzero, min(best, violation)
        if stalled > _STALLED:
            break
        _settle(code, gram, k, u, g, weight, unit, positive, bound, tolerance)
    return passes, violation


@njit(cache=True, nogil=True)
def descend_block(
    code: Code,
    parameters: Any,
    strengths: Any,
    gram: Any,
    k: int,
    u: Any,
    g: Any,
    factor: Any,
    unit: Any,
    positive: bool,
    tolerance: float,
    epochs: int,
    found: Any,
    most: int,
) -> int:
    """Solve for several strengths in turn, each from the solution before it.

    ``parameters`` holds one row of the code's parameters for each strength. The solutions become the rows of ``found``,
    (strengths, capacity). Returns how many were solved: fewer where more than ``most`` coefficients became nonzero.
    """
    weight = np.empty(k)
    for b in range(strengths.size):
        here = (code[0], parameters[b], code[2], code[3], code[4], code[5])
        for j in range(k):
            weight[j] = strengths[b] * factor[j]
        descend(here, gram, k, u, g, weight, unit, positive, tolerance, epochs)
        nonzero = 0
        for j in range(k):
            found[b, j] = u[j]
            nonzero += u[j] != 0
        if nonzero > most:
            return b + 1
    return int(strengths.size)


@njit(cache=True, nogil=True)
def screen(
    code: Code,
    strength: float,
    g: Any,
    gram: Any,
    factor: Any,
    unit: Any,
    positive: bool,
    inside: Any,
    steps: Any,
    bounds: Any,
    marked: Any,
) -> float:
    """Mark the columns outside the working set whose coefficient would leave zero; the largest violation of all.

    Parameters
    ----------
    g, gram : arrays of shape (p,)
        Negative gradient and mean square of every column.
    inside : bool array of shape (p,)
        The working set, which is left out.
    steps, bounds : arrays
        Ascending steps, and the entry threshold of each: below the threshold of a smaller step a zero surely stays.
    marked : bool array of shape (p,)
        Written to.
    """
    largest = 0.0
    for j in range(g.size):
        marked[j] = False
        if inside[j] or gram[j] <= 0:
            continue
        if positive and g[j] <= 0:
            continue
        weight = strength * factor[j]
        z = abs(g[j]) / gram[j] * unit[j]
        step = weight * unit[j] * unit[j] / gram[j]
        if z <= bounds[0]:
            continue
        i = min(np.searchsorted(steps, step, side="right") - 1, steps.size - 1)
        if i >= 0 and z <= bounds[i]:
            continue
        x = prox(code, z, step) if weight > 0 else z
        if x > 0:
            marked[j] = True
            largest = max(largest, x / unit[j] * gram[j])
    return largest


@njit(cache=True, nogil=True)
def certify(code: Code, strength: float, u: Any, g: Any, gram: Any, factor: Any, unit: Any, positive: bool) -> float:
    """Largest violation within the working set, from an exact gradient."""
    largest = 0.0
    for j in range(u.size):
        weight = strength * factor[j]
        if u[j] != 0:
            push = weight * unit[j] * slope(code, unit[j] * abs(u[j])) if weight > 0 else 0.0
            largest = max(largest, abs(g[j] - (push if u[j] > 0 else -push)))
        elif gram[j] > 0 and not (positive and g[j] <= 0):
            z = abs(g[j]) / gram[j] * unit[j]
            x = prox(code, z, weight * unit[j] * unit[j] / gram[j]) if weight > 0 else z
            if x > 0:
                # How far the gradient is past the threshold at which zero is left.
                past = abs(g[j]) - entry(code, weight * unit[j] * unit[j] / gram[j]) / unit[j] * gram[j]
                largest = max(largest, past)
    return largest


@njit(cache=True, nogil=True)
def reach(
    before: Any,
    after: Any,
    shares: Any,
    distances: Any,
    gram: Any,
    ratio: Any,
    unit: Any,
    positive: bool,
    inside: Any,
    ratios: Any,
    bounds: Any,
    between: Any,
    needed: Any,
) -> None:
    """Gradients of solutions between two whose gradients are known, and the columns where these do not suffice.

    Parameters
    ----------
    before, after : arrays of shape (p,)
        Exact gradients at two residuals.
    shares, distances : arrays of shape (m,)
        The residuals between are ``(1 - share) * before + share * after`` up to a rest, whose root of the weighted sum
        of squares is the distance: by the inequality of Cauchy and Schwarz no gradient is off by more than this times
        the root of its column's mean square.
    ratio : array of shape (p,)
        Of step and strength, for every column.
    inside : bool array of shape (p,)
        Columns that are needed in any case.
    ratios : array of shape (s,)
        Ascending ratios of step and strength.
    bounds : array of shape (m, s)
        Entry threshold of each, for the m strengths, below which a zero surely stays.
    between : array of shape (p, m)
    needed : bool array of shape (p,)
        Written to.
    """
    for j in range(gram.size):
        needed[j] = inside[j]
        if inside[j] or gram[j] <= 0:
            for b in range(shares.size):
                between[j, b] = 0.0
            continue
        i = max(0, min(np.searchsorted(ratios, ratio[j], side="right") - 1, ratios.size - 1))
        most, scale = math.sqrt(gram[j]), unit[j] / gram[j]
        for b in range(shares.size):
            here = before[j] + shares[b] * (after[j] - before[j])
            between[j, b] = here
            size = here if positive else abs(here)
            if (size + most * distances[b]) * scale * (1 + 1e-9) > bounds[b, i]:
                needed[j] = True
