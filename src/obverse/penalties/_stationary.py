"""Stationary points of (x - z)^2 / 2 + step * Omega(x), and the table of the best one for a single step."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt

from .._core.arrays import Array
from ._piecewise import Piecewise, tabulate

__all__ = ["ScalarProx", "bends", "best_point", "largest_root", "lower_hull", "smallest_root"]

Floats = npt.NDArray[np.float64]

_ITERATIONS = 60
_TRACED_ITERATIONS = 14
_MATRIX = 1 << 20  # objectives that are compared at a time


def largest_root(slope: Piecewise, z: Array, step: Array, limit: float, xp: Any) -> Array:
    """Largest x with x + step * slope(x) = z, for arrays of one shape; 0 where there is none.

    Up to the curvature ``limit`` there is but one root, which halving finds where Newton's method does not. In NumPy
    the result is NaN where the search did not end, which happens past the limit, near a fold.

    The map x <- z / (1 + step * slope(x) / x) falls from z to the largest root, because slope(x)/x is nonincreasing.
    Newton's step is taken where it stays between that map and a point known to lie below a root.
    """
    return _roots(slope, z, step, z, xp.zeros_like(z), True, limit, xp)


def smallest_root(slope: Piecewise, z: Array, step: Array, at_zero: float, xp: Any) -> Array:
    """Smallest such x; 0 where zero is stationary. The same map rises to it from below.

    Halving between two points of which one lies on either side always ends at a root.
    """
    if at_zero == math.inf:
        return xp.zeros_like(z)
    candidate = _roots(slope, z, step, 1e-9 * z, z, False, math.inf, xp)
    return xp.where(step * at_zero >= z, xp.zeros_like(z), candidate)


def _roots(
    slope: Piecewise, z: Array, step: Array, start: Array, other: Array, falling: bool, limit: float, xp: Any
) -> Array:
    """Safeguarded Newton from one side; ``safe`` never passes the wanted root, ``other`` is beyond it."""
    safe, other = start, other
    x = start
    eager = isinstance(z, np.ndarray)
    if eager:
        result = x.copy()
        pending = np.arange(z.size)
    known = xp.zeros_like(z)  # 1 where `other` is known to lie beyond the wanted root
    for _ in range(_ITERATIONS if eager else _TRACED_ITERATIONS):
        s, bend = slope.with_derivative(x, xp)
        positive = x > 0
        x1 = xp.where(positive, x, xp.ones_like(x))
        excess = x + step * s - z
        mapped = z / (1 + step * s / x1)
        on_side = excess >= 0 if falling else excess <= 0
        safe = xp.where(on_side, mapped, safe)
        known = xp.where(on_side, known, xp.ones_like(known))
        other = xp.where(on_side, other, x)
        denominator = 1 + step * bend
        newton = x - excess / xp.where(denominator > 1e-9, denominator, xp.ones_like(denominator))
        newton = xp.minimum(newton, safe) if falling else xp.maximum(newton, safe)
        usable = (newton >= other) if falling else (newton <= other)
        fallback = xp.where((known > 0) | (step <= limit), (safe + other) / 2, safe)
        following = xp.where(usable & (denominator > 1e-9) & positive, newton, fallback)
        settled = ~positive | (xp.abs(excess) <= 4e-16 * z)
        following = xp.where(settled, x, following)
        if not eager:
            x = following
            continue
        # Newton's error is squared by one more step, which is therefore the last; not so near a fold.
        quick = usable & (denominator > 0.05)
        done = np.abs(following - x) <= np.where(quick, 1e-10, 2e-15) * z
        result[pending] = following
        if done.all():
            return result
        keep = ~done
        pending = pending[keep]
        x, z, step, safe, other, known = (a[keep] for a in (following, z, step, safe, other, known))
    if eager:
        result[pending] = math.nan
    return result if eager else x


def bends(slope: Piecewise) -> Floats:
    """Points between which the slope of a penalty bends evenly, with both sides of every break; for `best_point`.

    Only a falling slope makes a second minimum, and only where the curvature varies do two lie close together: from 16
    points to the octave those are kept at which the negative curvature has changed by a fiftieth, and four to the
    octave besides.
    """
    grid = _edges(slope, 16)
    tilts = slope(grid, np)
    curvature = np.diff(tilts) / np.diff(grid)
    # Far below the natural scale the differences are rounding noise.
    falls = np.where(-curvature * grid[1:] > 1e-5 * tilts[:-1], -curvature, 0.0).tolist()
    apart = (np.diff(grid) > 1e-12 * grid[1:]).tolist()
    kept, last = [0], falls[0]
    for k in range(1, len(falls)):
        at_break = not apart[k] or not apart[k - 1]
        sparse = falls[k] > 0 and grid[k] > 1.2 * grid[kept[-1]]
        if at_break or sparse or abs(falls[k] - last) > 0.02 * max(falls[k], last):
            kept.append(k)
            last = falls[k]
    return grid[[*kept, grid.size - 1]]


def best_point(slope: Piecewise, value: Piecewise, points: Floats, z: Floats, step: Floats, largest: Floats) -> Floats:
    """Global minimizer of ``x^2/2 - z x + step * value(x)`` over x >= 0, however many minima there are.

    Between which ``points`` (see `bends`) the derivative rises through zero is read off for all at once. Where it does
    so once, that is at the ``largest`` stationary point, if the search for it ended there. Elsewhere Newton's method
    finds every minimum, and their objectives are compared.
    """
    # A minimizer that is smaller than z by another 45 octaves is zero to rounding.
    first, last = np.searchsorted(points, [np.ldexp(z.min(), -45), z.max()])
    grid = points[max(first - 1, 0) : last + 1]
    if last == points.size:  # beyond the table
        grid = np.append(grid, z.max())
    if grid.size == 0:
        return np.zeros_like(z)
    best = largest.copy()
    is_sure = np.abs(largest + step * slope(largest, np) - z) <= 1e-11 * z
    tilts = slope(grid, np)
    rows = max(_MATRIX // grid.size, 1)
    for start in range(0, z.size, rows):
        part = slice(start, start + rows)
        negative = step[part, None] * tilts < z[part, None] - grid
        row, column = np.nonzero(negative[:, :-1] & ~negative[:, 1:])
        within = (largest[part][row] >= grid[column]) & (largest[part][row] <= grid[column + 1])
        crossings = np.bincount(row, minlength=negative.shape[0])
        unknown = ~is_sure[part] | (crossings != 1) | (np.bincount(row, within, negative.shape[0]) == 0)
        chosen = unknown[row]
        row, column = row[chosen] + start, column[chosen]
        low, high = np.maximum(grid[column], np.ldexp(z[row], -45)), np.minimum(grid[column + 1], z[row])
        x = _between(slope, z[row], step[row], low, high)
        objective = (x / 2 - z[row]) * x + step[row] * value(x, np)
        lowest = np.zeros_like(z)
        np.minimum.at(lowest, row, objective)
        winner = objective <= lowest[row]
        best[part][unknown] = 0.0
        best[row[winner]] = x[winner]
    return best


def _between(slope: Piecewise, z: Floats, step: Floats, low: Floats, high: Floats) -> Floats:
    """A point between two others at which ``x + step * slope(x) - z`` rises through zero, by Newton's method."""
    result = x = (low + high) / 2
    pending = np.arange(z.size)
    for _ in range(_ITERATIONS):
        s, bend = slope.with_derivative(x, np)
        excess = x + step * s - z
        low, high = np.where(excess < 0, x, low), np.where(excess < 0, high, x)
        denominator = 1 + step * bend
        newton = x - excess / np.where(denominator > 1e-9, denominator, 1.0)
        inside = (newton > low) & (newton < high) & (denominator > 1e-9)
        following = np.where(inside, newton, (low + high) / 2)
        # Newton's error is squared by one more step, which is therefore the last; not so near a fold.
        done = np.abs(following - x) <= np.where(inside & (denominator > 0.05), 1e-9, 4e-16) * x
        result[pending] = following
        keep = np.flatnonzero(~done)
        if keep.size == 0:
            break
        pending = pending[keep]
        x, z, step, low, high = (a[keep] for a in (following, z, step, low, high))
    return result


class ScalarProx:
    """The proximal operator for one step: the table of x/z, exact about which stationary point is the best.

    With :math:`\\phi(x) = x^2/2 + t\\,\\Omega(x)` the minimizer of :math:`\\phi(x) - zx` runs along the lower
    convex hull of :math:`\\phi`: it jumps where the hull leaves the curve and solves :math:`\\phi'(x) = z` elsewhere.
    """

    def __init__(self, slope: Piecewise, value: Piecewise, at_zero: float, step: float) -> None:
        self.step = step
        self._slope, self._value, self._at_zero = slope, value, at_zero
        self.table: Piecewise | None = None
        if step > 0:
            self._branches()
            self._tabulate()

    def __call__(self, z: Array, xp: Any) -> Array:
        if self.table is None:
            return z + 0.0
        x = z * self.table(z, xp)
        return xp.where(xp.isinf(z), z, x) if hasattr(x, "isinf") else self._exact_where_rough(z, x)

    def _exact_where_rough(self, z: Any, x: Any) -> Any:
        assert self.table is not None
        if self.table.rough is None:
            return x
        low, high = self.table.rough
        inside = (z >= low) & (z < high)
        if inside.any():
            x = np.asarray(x)
            x[inside] = self.solve(np.asarray(z[inside], dtype=np.float64))
        return x

    # ------------------------------------------------------------------ where the hull leaves the curve
    def _phi(self, x: Floats) -> Floats:
        result: Floats = x * x / 2 + self.step * self._value(x, np)
        return result

    def _branches(self) -> None:
        """Jumps of the minimizer: thresholds of z, with the minimizers on either side."""
        x = _edges(self._slope)
        p = x + self.step * self._slope(x, np)
        drop = np.maximum.accumulate(p) - p
        self._x, self._p = x, p
        jumps: list[tuple[float, float, float]] = []
        at_zero = self.step * self._at_zero
        if (drop > 1e-9 * p).any() or at_zero > p[0] * (1 + 1e-9):
            points = np.concatenate([[0.0], x])
            heights = np.concatenate([[0.0], self._phi(x)])
            slopes = np.concatenate([[at_zero], p])
            for i, j in _hull_gaps(points, heights, slopes):
                jumps.append(self._refine(points, i, j))
        if not jumps or jumps[0][1] > 0:
            first = at_zero if at_zero > 0 and at_zero < math.inf else 0.0
            jumps.insert(0, (first, 0.0, 0.0))
        self.thresholds = np.array([z for z, _, _ in jumps])
        self._starts = np.array([right for _, _, right in jumps])
        self._ends = np.array([left for _, left, _ in jumps[1:]] + [math.inf])

    def _refine(self, points: Floats, i: int, j: int) -> tuple[float, float, float]:
        """The common tangent of the curve near points i and j, by repeated zoom."""
        a = points[i]
        left = (points[max(i - 1, 0)], points[i + 1]) if i > 0 else (0.0, 0.0)
        right = (points[j - 1], points[min(j + 1, points.size - 1)])
        b = points[j]
        for _ in range(9):
            xs = np.linspace(left[0], left[1], 33) if i > 0 else np.zeros(1)
            ys = np.linspace(right[0], right[1], 33)
            gaps = ys - xs[:, None]
            ok = gaps > 0
            slopes = np.where(ok, self._phi(ys) - self._phi(xs)[:, None], math.inf) / np.where(ok, gaps, 1.0)
            tangent = slopes.min(1)
            best = int(tangent.argmax())
            z, a, b = float(tangent[best]), float(xs[best]), float(ys[slopes[best].argmin()])
            reach = 1.5 * (ys[1] - ys[0])
            right = (max(b - reach, right[0]), min(b + reach, right[1]))
            if i > 0:
                reach = 1.5 * (xs[1] - xs[0])
                left = (max(a - reach, left[0]), min(a + reach, left[1]))
        return z, a, b

    # ------------------------------------------------------------------ along the curve
    def solve(self, z: Floats) -> Floats:
        """The minimizer at ``z > 0``, by Newton's method within its branch."""
        shape, z = z.shape, z.reshape(-1)
        branch = np.searchsorted(self.thresholds, z, side="left") - 1
        start, end = self._starts[np.maximum(branch, 0)], self._ends[np.maximum(branch, 0)]
        lower, upper = start * (1 - 1e-6), np.minimum(z, end * (1 + 1e-6))
        guess = np.interp(z, np.maximum.accumulate(self._p), self._x)
        x = np.clip(guess, lower, upper)
        x = np.where(x > 0, x, upper / 2)
        active = np.flatnonzero(branch >= 0)
        result = np.zeros_like(z)
        x, z, lower, upper = (a[active] for a in (x, z, lower, upper))
        for _ in range(80):
            s, bend = self._slope.with_derivative(x, np)
            excess = x + self.step * s - z
            lower, upper = np.where(excess < 0, x, lower), np.where(excess < 0, upper, x)
            bend = 1 + self.step * bend
            newton = x - excess / np.where(bend > 1e-9, bend, 1.0)
            inside = (newton >= lower) & (newton <= upper) & (bend > 1e-9)
            following = np.where(inside, newton, (lower + upper) / 2)
            following = np.where(np.abs(excess) <= 4e-16 * z, x, following)
            change = np.abs(following - x)
            x = following
            done = change <= np.where(inside & (bend > 0.05), 1e-10, 2e-15) * z
            result[active] = x
            if done.all():
                break
            keep = ~done
            active = active[keep]
            x, z, lower, upper = (a[keep] for a in (x, z, lower, upper))
        return result.reshape(shape)

    def _tabulate(self) -> None:
        first = float(self.thresholds[0])
        low = math.frexp(first)[1] - 1 if first > 0 else math.frexp(self._slope.low)[1]
        # Beyond this point the penalty changes z by less than its rounding.
        shrinkage = self.step * self._slope(self._x, np) / self._x
        negligible = np.flatnonzero(shrinkage < 1e-17)
        end = self._x[negligible[0]] if negligible.size else self._slope.high
        low = max(low, math.frexp(self._slope.low)[1] - 1)
        high = max(math.frexp(2 * max(end, first))[1] + 1, low + 2)

        # A point at the first threshold itself still goes to zero.
        breaks = [np.nextafter(t, math.inf) if k == 0 else t for k, t in enumerate(self.thresholds) if t > 0]
        for point in self._slope.breaks:
            # Where the slope jumps, so does the stationary point unless a jump of the minimizer hides it.
            for x in (np.nextafter(point, 0), point):
                breaks.append(float(x + self.step * self._slope(np.array([x]), np)[0]))
        self.table = self._attempt((low, high), breaks, (3, 6))
        if self.table.rough is not None:
            # A fold behind a jump bends the branch like a square root: pieces that shrink towards it resolve that.
            left, right = self.table.rough
            near = [
                t * (1 + sign * 0.06 * 0.35**k) for t in self.thresholds if t > 0 for k in range(6) for sign in (-1, 1)
            ]
            breaks += [z for z in near if left < z < right]
            self.table = self._attempt((low, high), breaks, (self.table.bits, self.table.bits))

    def _attempt(self, octaves: tuple[int, int], breaks: list[float], bits: tuple[int, int]) -> Piecewise:
        return tabulate(
            lambda z: self.solve(z) / z,
            octaves,
            breaks=sorted(set(map(float, breaks))),
            tolerance=1e-11,
            floor=lambda z: np.full_like(z, 1e-12),
            bits=bits,
            find_breaks=False,
            powers=(0.0, 0.0),
        )


def _edges(table: Piecewise, per_octave: int = 8) -> Floats:
    """Points along a table, with both sides of every break."""
    low, high = math.frexp(table.low)[1] - 1, math.frexp(table.high)[1] - 1
    points = (np.exp2(np.arange(low, high))[:, None] * (1 + np.arange(per_octave) / per_octave)).reshape(-1)
    sides = [x for point in table.breaks for x in (np.nextafter(point, 0), point)]
    return np.unique(np.concatenate([points, sides]))


def lower_hull(x: Floats, y: Floats) -> list[int]:
    """Indices of the lower convex hull of points with ascending ``x``."""
    xs, ys = x.tolist(), y.tolist()
    hull: list[int] = []
    for k in range(len(xs)):
        if hull and xs[k] == xs[hull[-1]]:
            if ys[k] >= ys[hull[-1]]:
                continue
            hull.pop()
        while len(hull) >= 2:
            i, j = hull[-2], hull[-1]
            if (ys[j] - ys[i]) * (xs[k] - xs[j]) >= (ys[k] - ys[j]) * (xs[j] - xs[i]):
                hull.pop()
            else:
                break
        hull.append(k)
    return hull


def _hull_gaps(x: Floats, y: Floats, slope: Floats) -> list[tuple[int, int]]:
    """Pairs of neighbors on the lower convex hull between which the slope of the curve really falls."""
    hull = lower_hull(x, y)
    gaps = []
    for i, j in pairwise(hull):
        part = slope[i : j + 1]
        if part[0] == math.inf or (np.maximum.accumulate(part) - part > 1e-9 * np.abs(part)).any():
            gaps.append((i, j))
    return gaps
