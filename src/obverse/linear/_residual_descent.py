"""Coordinate descent and Newton steps on the residuals of sparse columns, compiled.

The problem is that of `_descent`, with the Gram matrix left implicit: columns ``z_j - mean_j`` with weights v of the
rows, of sum 1 (zero where a row is held out), have the products ``G_jl = sum_i v_i (z_ij - mean_j) (z_il - mean_l)``.
The state is u with the weighted residuals ``rho_i = v_i (y_i - sum_j u_j z_ij)`` and their sum, so that

    g_j = sum_i z_ij rho_i - mean_j sum_i rho_i

costs as much as the column has entries, however many columns there are, and centering costs nothing more. Newton steps
on the support are solved by conjugate gradients, whose steps cost about one epoch each.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numba import njit

from ._descent import _update
from ._scalar import Code, curvature, entry, slope, value

__all__ = ["Columns", "descend_residuals", "sparse_moments"]

# entries, their rows, where columns start, means, mean squares about these, weights of the rows
Columns = tuple[Any, Any, Any, Any, Any, Any]

_ROUNDS = 20
_EPOCHS = 3
_NEWTON_STEPS = 4
_HALVINGS = 8
# Conjugate gradients end at this share of the residual they start from, or after so many steps.
_SHARE = 0.03
_STEPS = 60


@njit(cache=True, nogil=True)
def sparse_moments(data: Any, rows: Any, pointer: Any, v: Any, centered: bool) -> tuple[Any, Any]:
    """Means of columns under the weights v, 0 unless ``centered``, and mean squares about these."""
    mean, square = np.zeros(pointer.size - 1), np.zeros(pointer.size - 1)
    for j in range(pointer.size - 1):
        covered = 0.0
        if centered:
            for q in range(pointer[j], pointer[j + 1]):
                mean[j] += v[rows[q]] * data[q]
                covered += v[rows[q]]
        for q in range(pointer[j], pointer[j + 1]):
            square[j] += v[rows[q]] * (data[q] - mean[j]) ** 2
        square[j] += max(0.0, 1 - covered) * mean[j] ** 2
    return mean, square


@njit(cache=True, nogil=True, fastmath={"contract", "reassoc"})
def _against(columns: Columns, j: int, vector: Any) -> float:
    data, rows, pointer = columns[0], columns[1], columns[2]
    total = 0.0
    for q in range(pointer[j], pointer[j + 1]):
        total += data[q] * vector[rows[q]]
    return total


@njit(cache=True, nogil=True)
def _sweep(
    code: Code, columns: Columns, which: Any, m: int, u: Any, rho: Any, rest: Any, weight: Any, unit: Any,
    positive: bool, bound: Any,
) -> float:  # fmt: skip
    """One pass over the first m columns of ``which``; the largest violation met. ``rest`` holds the sum of rho."""
    data, rows, pointer, mean, gram, v = columns
    largest, total = 0.0, rest[0]
    for a in range(m):
        j = which[a]
        g = _against(columns, j, rho) - total * mean[j]
        if u[j] == 0 and abs(g) <= bound[j]:
            continue
        new = _update(code, j, u[j], g, gram[j], weight[j], unit[j], positive)
        change = new - u[j]
        if change != 0:
            largest = max(largest, abs(change) * gram[j])
            for q in range(pointer[j], pointer[j + 1]):
                rho[rows[q]] -= change * data[q] * v[rows[q]]
            total -= change * mean[j]
            u[j] = new
    rest[0] = total
    return largest


@njit(cache=True, nogil=True)
def _combined(columns: Columns, support: Any, m: int, move: Any, fitted: Any) -> float:
    """``fitted_i = sum_a move_a z_ia``; its weighted mean."""
    data, rows, pointer, mean = columns[0], columns[1], columns[2], columns[3]
    fitted[:] = 0.0
    middle = 0.0
    for a in range(m):
        j, x = support[a], move[a]
        if x != 0:
            middle += x * mean[j]
            for q in range(pointer[j], pointer[j + 1]):
                fitted[rows[q]] += x * data[q]
    return middle


@njit(cache=True, nogil=True)
def _conjugate(
    columns: Columns, support: Any, m: int, diagonal: Any, added: Any, right: Any, enough: float, fitted: Any
) -> Any:
    """About the solution of ``(G + added) d = right`` on the support; ends where the model is not convex.

    Every iterate is a direction of descent.
    """
    v, mean = columns[5], columns[3]
    d, left, p = np.zeros(m), right.copy(), right / diagonal
    ahead = np.empty(m)
    along = 0.0
    for a in range(m):
        along += left[a] * p[a]
    for step in range(_STEPS):
        middle = _combined(columns, support, m, p, fitted)
        for i in range(fitted.size):
            fitted[i] *= v[i]
        bend = 0.0
        for a in range(m):
            j = support[a]
            ahead[a] = _against(columns, j, fitted) - middle * mean[j] + added[a] * p[a]
            bend += p[a] * ahead[a]
        if bend <= 0 or not math.isfinite(bend):
            if step == 0:
                d[:] = p
            break
        length, largest, following = along / bend, 0.0, 0.0
        for a in range(m):
            d[a] += length * p[a]
            left[a] -= length * ahead[a]
            largest = max(largest, abs(left[a]))
            following += left[a] * left[a] / diagonal[a]
        if largest <= enough:
            break
        for a in range(m):
            p[a] = left[a] / diagonal[a] + following / along * p[a]
        along = following
    return d


@njit(cache=True, nogil=True)
def _newton(
    code: Code, columns: Columns, support: Any, m: int, u: Any, rho: Any, rest: Any, weight: Any, unit: Any,
    positive: bool, tolerance: float, fitted: Any,
) -> int:  # fmt: skip
    """One inexact Newton step on the support, with a shift where the model is not convex.

    Returns 0 where no step was taken, 1 where coefficients became zero on the way, and 2 for a full one.
    """
    mean, gram, v = columns[3], columns[4], columns[5]
    g, right, added, diagonal = np.empty(m), np.empty(m), np.empty(m), np.empty(m)
    worst, lowest = 0.0, 0.0
    for a in range(m):
        j = support[a]
        w = unit[j] * abs(u[j])
        push = weight[j] * unit[j] * slope(code, w) if weight[j] > 0 else 0.0
        added[a] = weight[j] * unit[j] * unit[j] * curvature(code, w) if weight[j] > 0 else 0.0
        g[a] = _against(columns, j, rho) - rest[0] * mean[j]
        right[a] = g[a] - (push if u[j] > 0 else -push)
        worst = max(worst, abs(right[a]))
        diagonal[a] = gram[j] + added[a]
        lowest = min(lowest, diagonal[a])
    if worst <= tolerance or not math.isfinite(worst):
        return 0
    for a in range(m):
        # Past the curvature limit the model is not convex: Levenberg's shift makes its diagonal so.
        added[a] -= 2 * lowest
        diagonal[a] = max(diagonal[a] - 2 * lowest, 1e-9 * gram[support[a]])
        if diagonal[a] <= 0:
            return 0
    d = _conjugate(columns, support, m, diagonal, added, right, max(_SHARE * worst, 0.3 * tolerance), fitted)
    length, first = 1.0, -1
    for a in range(m):
        if not math.isfinite(d[a]):
            return 0
        here = u[support[a]]
        if here * d[a] < 0 and abs(d[a]) * length > abs(here) and (weight[support[a]] > 0 or positive):
            length, first = abs(here / d[a]), a
    # First with every coefficient that would change sign set to zero, then only up to the first that would.
    along = 1.0 if first >= 0 else 0.0
    move = np.empty(m)
    for _ in range(_HALVINGS):
        for a in range(m):
            here = u[support[a]]
            if along > 0:
                move[a] = along * d[a]
                if here * (here + move[a]) < 0 and (weight[support[a]] > 0 or positive):
                    move[a] = -here
            else:
                move[a] = -here if a == first else length * d[a]
        middle = _combined(columns, support, m, move, fitted)
        bend, slope_along, change, size = 0.0, 0.0, 0.0, 0.0
        for i in range(fitted.size):
            bend += v[i] * (fitted[i] - middle) ** 2
        for a in range(m):
            j = support[a]
            slope_along += move[a] * g[a]
            if weight[j] > 0:
                delta = weight[j] * (value(code, unit[j] * abs(u[j] + move[a])) - value(code, unit[j] * abs(u[j])))
                change += delta
                size += abs(delta)
        change += bend / 2 - slope_along
        if change <= 1e-15 * (size + bend / 2 + abs(slope_along)):
            for i in range(fitted.size):
                rho[i] -= v[i] * fitted[i]
            rest[0] -= middle
            for a in range(m):
                u[support[a]] += move[a]
            return 1 if first >= 0 else 2
        if along > 0.25:
            along /= 2
        elif along > 0:
            along = 0.0
        else:
            length, first = length / 2, -1
    return 0


@njit(cache=True, nogil=True)
def _nonzero(u: Any, k: int, support: Any) -> int:
    m = 0
    for j in range(k):
        if u[j] != 0:
            support[m] = j
            m += 1
    return m


@njit(cache=True, nogil=True)
def _solve(
    code: Code, columns: Columns, k: int, u: Any, rho: Any, rest: Any, weight: Any, unit: Any, positive: bool,
    tolerance: float, epochs: int, fitted: Any,
) -> None:  # fmt: skip
    """Passes over all columns, and between them epochs and Newton steps on the support alone."""
    gram = columns[4]
    # |g| up to which a zero surely stays, by the smallest step of the working set.
    bound = np.zeros(k)
    least = math.inf
    for j in range(k):
        if weight[j] > 0 and gram[j] > 0:
            least = min(least, weight[j] * unit[j] * unit[j] / gram[j])
    if least < math.inf:
        narrow = entry(code, least) * (1 - 1e-9)
        for j in range(k):
            if weight[j] > 0:
                bound[j] = narrow / unit[j] * gram[j]
    every, support = np.arange(k), np.empty(k, np.int64)
    for _ in range(epochs):
        if _sweep(code, columns, every, k, u, rho, rest, weight, unit, positive, bound) <= tolerance:
            break
        for _ in range(_ROUNDS):
            m = _nonzero(u, k, support)
            inner = 0.0
            for _ in range(_EPOCHS):
                inner = _sweep(code, columns, support, m, u, rho, rest, weight, unit, positive, bound)
                if inner <= 0.3 * tolerance:
                    break
            if inner <= 0.3 * tolerance:
                break
            for _ in range(_NEWTON_STEPS):
                m = _nonzero(u, k, support)
                # After one that ended at zeros, epochs find the support at less cost.
                if (
                    _newton(
                        code, columns, support, m, u, rho, rest, weight, unit, positive, 0.1 * tolerance, fitted
                    ) < 2
                ):  # fmt: skip
                    break


@njit(cache=True, nogil=True)
def descend_residuals(
    code: Code, parameters: Any, strengths: Any, columns: Columns, u: Any, rho: Any, factor: Any, unit: Any,
    positive: bool, tolerance: float, epochs: int, found: Any, most: int,
) -> int:  # fmt: skip
    """Solve for several strengths in turn, each from the solution before it.

    Parameters
    ----------
    code : Code
    parameters : array of shape (strengths, parameters)
        Of the code, one row for each strength.
    strengths : array
    columns : Columns
        Of the working set, k of them, in scaled units.
    u : array of shape (k,) or more
        Written to.
    rho : array of shape (n,)
        Weighted residuals at u. Written to.
    factor, unit : arrays of shape (k,)
        The penalty of a coefficient is ``strength * factor * Omega(unit * |u|)``.
    positive : bool
        Whether coefficients may not be negative.
    tolerance : float
        Largest violation, in the unit of the gradient.
    epochs : int
        At most so many full passes for one strength.
    found : array of shape (strengths, k)
        Written to: the solutions.
    most : int

    Returns
    -------
    int
        How many were solved: fewer where more than ``most`` coefficients became nonzero.
    """
    k = columns[2].size - 1
    weight, fitted, rest = np.empty(k), np.empty(rho.size), np.array([rho.sum()])
    for b in range(strengths.size):
        here = (code[0], parameters[b], code[2], code[3], code[4], code[5])
        for j in range(k):
            weight[j] = strengths[b] * factor[j]
        _solve(here, columns, k, u, rho, rest, weight, unit, positive, tolerance, epochs, fitted)
        nonzero = 0
        for j in range(k):
            found[b, j] = u[j]
            nonzero += u[j] != 0
        if nonzero > most:
            return b + 1
    return int(strengths.size)
