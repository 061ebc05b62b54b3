"""The scalar problems of coordinate descent, compiled: value, slope, curvature, proximal operator, entry threshold.

A penalty reaches compiled code as a `code`: which closed form it is, its parameters, its width and height, and, where
it has no closed form, the tables of its slope and value. Everything here is for magnitudes ``w >= 0`` of numbers.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numba import njit

__all__ = ["ABSENT", "CODES", "Code", "curvature", "entries", "entry", "prox", "prox_near", "slope", "value"]

# which closed form; `TABLE` has none
LASSO, LP, LOG_SUM, MCP, SCAD, CAPPED, L0, EMPIRICAL_BAYES, TABLE = range(9)
CODES = {
    "lasso": LASSO,
    "lp": LP,
    "log-sum": LOG_SUM,
    "mcp": MCP,
    "scad": SCAD,
    "capped-l1": CAPPED,
    "l0": L0,
    "empirical-bayes": EMPIRICAL_BAYES,
}

# kind, parameters (a, b, width, height, ...), one row for every piece of slope and value, breaks,
# (first, bits, low, high, powers ...)
Code = tuple[int, Any, Any, Any, Any, Any]
ABSENT = np.zeros((1, 1))

_ROOT_STEPS = 100
# Steps from a point that is nearly right, before the search starts afresh.
_NEAR_STEPS = 8
# The error after one more step of Newton's method is about the square of the step, where the slope is not near a fold.
_LAST_STEP = 1e-9
_STEEP = 0.05
_GOLDEN = (math.sqrt(5) - 1) / 2


@njit(cache=True)
def _piece(rows: Any, breaks: Any, grid: Any, at: int, w: float) -> tuple[float, float]:
    """A piecewise polynomial and its derivative at ``w``, continued by power laws; see `penalties._piecewise`.

    Its grid stands in ``grid`` from ``at`` on.
    """
    low, high = grid[at + 2], grid[at + 3]
    inside = min(max(w, low), high * (1 - 2.0**-53))
    bits = int(grid[at + 1])
    word = np.float64(inside).view(np.int64)
    within = word & ((np.int64(1) << (52 - bits)) - 1)
    number = (word >> (52 - bits)) - (np.int64(1023) << bits) - np.int64(grid[at]) + 1
    for k in range(breaks.size):
        number += inside >= breaks[k]
    x = math.ldexp(float(within), bits - 51) - 1
    row = rows[number]
    result, rise = 0.0, 0.0
    for k in range(row.size - 1, -1, -1):
        rise = rise * x + result
        result = result * x + row[k]
    rise = math.ldexp(rise, 1024 + bits - int(word >> 52))
    if w < low or w >= high:
        power = grid[at + 4] if w < low else grid[at + 5]
        if w <= 0:
            return (result if power == 0 else (0.0 if power > 0 else math.inf)), 0.0
        result = result * (w / inside) ** power
        rise = power * result / w
    return result, rise


@njit(cache=True)
def _unit_slope(code: Code, w: float) -> tuple[float, float]:
    """Slope and curvature in unit width and height."""
    kind, parameters, slopes, _, breaks, grid = code
    a, b = parameters[0], parameters[1]
    if kind == LASSO:
        return 1.0, 0.0
    if kind == LP:
        if w <= 0:
            return math.inf, 0.0
        s = 1 / math.sqrt(w) if a == 0.5 else w ** (a - 1)
        return s, (a - 1) * s / w
    if kind == LOG_SUM:
        s = 1 / (w + 1)
        return s, -s * s
    if kind == MCP:
        return (1 - w / a, -1 / a) if w < a else (0.0, 0.0)
    if kind == SCAD:
        if w <= b:
            return 1.0, 0.0
        return ((a * b - w) / ((a - 1) * b), -1 / ((a - 1) * b)) if w < a * b else (0.0, 0.0)
    if kind == CAPPED:
        return (1.0, 0.0) if w < a else (0.0, 0.0)
    if kind == L0:
        return (math.inf, 0.0) if w <= 0 else (0.0, 0.0)
    if kind == EMPIRICAL_BAYES:
        root = math.sqrt(w * w + 4)
        return 2 / (root + w), (w / root - 1) / 2
    s, bend = _piece(slopes, breaks, grid, 0, w)
    return max(s, 0.0), bend


@njit(cache=True)
def _unit_value(code: Code, w: float) -> float:
    kind, parameters, _, values, breaks, grid = code
    a, b = parameters[0], parameters[1]
    if kind == LASSO:
        return w
    if kind == LP:
        return float(w**a / a)
    if kind == LOG_SUM:
        return math.log1p(w)
    if kind == MCP:
        bounded = min(w, a)
        return float(bounded * (1 - bounded / (2 * a)))
    if kind == SCAD:
        bounded = min(w, a * b)
        excess = max(bounded - b, 0.0)
        return float(bounded - excess * excess / (2 * (a - 1) * b))
    if kind == CAPPED:
        return float(min(w, a))
    if kind == L0:
        return 1.0 if w > 0 else 0.0
    if kind == EMPIRICAL_BAYES:
        return w / (w + math.sqrt(w * w + 4)) + math.asinh(w / 2)
    return _piece(values, breaks, grid, 6, w)[0] if w > 0 else 0.0


@njit(cache=True)
def _largest_root(code: Code, z: float, t: float) -> float:
    """Largest x with x + t slope(x) = z, 0 where there is none.

    The map x <- z / (1 + t slope(x)/x) falls to it, because slope(x)/x is nonincreasing; Newton's step is taken where
    it lies between that map and a point known to be beyond, which 0 is where t slope(0) is below z.
    """
    x, safe, beyond = z, z, 0.0
    known = t * code[1][4] < z
    for _ in range(_ROOT_STEPS):
        s, bend = _unit_slope(code, x)
        excess = x + t * s - z
        if abs(excess) <= 4e-16 * z:
            break
        if excess >= 0:
            safe = z / (1 + t * s / x)
        else:
            beyond, known = x, True
        steepness = 1 + t * bend
        following = min(x - excess / steepness, safe) if steepness > 1e-9 else -1.0
        enough = _LAST_STEP if steepness > _STEEP and following < safe else 2e-16
        if following < beyond or steepness <= 1e-9:
            following, enough = (safe + beyond) / 2 if known else safe, 2e-16
        if following <= 1e-300 * z or following <= 0:
            return 0.0
        if abs(following - x) <= enough * z:
            x = following
            break
        x = following
    return x


@njit(cache=True)
def _smallest_root(code: Code, z: float, t: float, above: float) -> float:
    """Smallest such x, at most ``above``: the same map rises to it from below, and Newton's step, which does not pass
    it where the slope is concave, is quicker.
    """
    x, safe, beyond = min(1e-9 * z, above / 2), 0.0, above
    for _ in range(4 * _ROOT_STEPS):
        s, bend = _unit_slope(code, x)
        excess = x + t * s - z
        if abs(excess) <= 4e-16 * z:
            return x
        if excess < 0:
            safe = z / (1 + t * s / x)
        else:
            beyond = x
        if safe >= beyond:
            return beyond
        steepness = 1 + t * bend
        following = x - excess / steepness if steepness > 1e-9 else safe
        if not safe < following < beyond:
            # A point past the root bounds bisection; before one is known, the map alone is sure not to pass it.
            following = (safe + beyond) / 2 if beyond < above else safe
        if abs(following - x) <= 2e-16 * z:
            return following
        x = following
    return above


@njit(cache=True)
def _unit_prox(code: Code, z: float, t: float) -> float:
    """argmin over x >= 0 of (x - z)^2/2 + t Omega(x), the global one, in unit width and height."""
    kind, parameters = code[0], code[1]
    a, b = parameters[0], parameters[1]
    if t == 0 or z <= 0:
        return max(z, 0.0)
    if kind == LASSO:
        return max(z - t, 0.0)
    if kind == MCP:
        if t >= a:
            return z if z * z > t * a else 0.0
        if z <= t:
            return 0.0
        return (z - t) * (a / (a - t)) if z < a else z
    if kind == L0:
        return z if z * z > 2 * t else 0.0
    if kind == CAPPED:
        if t >= 2 * a:
            return z if z * z > 2 * a * t else 0.0
        if z <= t:
            return 0.0
        return z if z >= a + t / 2 else z - t
    if kind == SCAD:
        end, width = a * b, (a - 1) * b
        if t >= z * max(z / (end + b), 1.0):
            return 0.0
        if z >= end and (t <= width or 2 * z >= end + b + t or t >= z):
            return z
        if t < width and z > b + t:
            return float((width * z - end * t) / (width - t))
        return max(z - t, 0.0)
    if kind == LOG_SUM:
        discriminant = (z + 1) * (z + 1) - 4 * t
        if t <= 1:
            if z <= t:
                return 0.0
        elif z <= 1 or discriminant <= 0:
            return 0.0
        x = z - 2 * t / (z + 1 + math.sqrt(max(discriminant, 0.0)))
        if x <= 0 or (t > 1 and (x / 2 - z) * x + t * math.log1p(x) >= 0):
            return 0.0
        return x
    if kind == LP:
        least = (2 * t * (1 - a) / a) ** (1 / (2 - a))
        if z <= least + t * least ** (a - 1):
            return 0.0
        # Convex on what remains: Newton falls to the larger root.
        x = z
        for _ in range(_ROOT_STEPS):
            s, bend = _unit_slope(code, x)
            change = (x + t * s - z) / (1 + t * bend)
            x = max(x - change, least)
            if abs(change) <= 4e-16 * z:
                break
        return x
    at_zero = parameters[4]
    folds = t > parameters[5]
    if not folds and t * at_zero >= z:
        return 0.0
    x = _largest_root(code, z, t)
    if x <= 0:
        return 0.0
    if folds:
        if kind == TABLE and t * at_zero < z:
            # A smaller stationary point besides, where the objective starts out convex.
            lower = _smallest_root(code, z, t, x)
            if lower < x:
                here = (x / 2 - z) * x + t * _unit_value(code, x)
                if (lower / 2 - z) * lower + t * _unit_value(code, lower) < here:
                    return lower
        if (x / 2 - z) * x + t * _unit_value(code, x) >= 0:
            return 0.0
    return x


@njit(cache=True)
def _unit_prox_near(code: Code, z: float, t: float, near: float) -> float:
    """The same, found from a point that is nearly right, where it is sure that this is the global minimizer.

    Up to the curvature limit x + t slope(x) does not fall, and there is but one root. Beyond, let the slope be convex
    from ``convex_from`` on. A root there at which the sum rises is the largest one. Before, the sum is at most ``t
    slope(0)`` and its ``excess`` over this at the limit, which for larger t is less: no root is there for z above that.
    """
    parameters = code[1]
    at_zero, limit, convex_from, excess_before = parameters[4], parameters[5], parameters[6], parameters[7]
    if t == 0 or z <= 0 or near <= 0:
        return _unit_prox(code, z, t)
    folds, from_zero = t > limit, t * at_zero
    if folds and from_zero < z and not z > from_zero + excess_before:
        return _unit_prox(code, z, t)
    if not folds and from_zero >= z:
        return 0.0
    x = near
    for _ in range(_NEAR_STEPS):
        s, bend = _unit_slope(code, x)
        steepness = 1 + t * bend
        if steepness <= _STEEP or (folds and x < convex_from):
            break
        step = (z - x - t * s) / steepness
        x += step
        if x <= 0:
            break
        if abs(step) <= _LAST_STEP * x:
            if folds and (x < convex_from or (from_zero >= z and (x / 2 - z) * x + t * _unit_value(code, x) >= 0)):
                break
            return x
    return _unit_prox(code, z, t)


@njit(cache=True)
def _unit_entry(code: Code, t: float) -> float:
    """Largest z that the proximal operator sends to zero: inf over x > 0 of x/2 + t Omega(x)/x."""
    kind, parameters = code[0], code[1]
    a, b = parameters[0], parameters[1]
    if t == 0:
        return 0.0
    if kind == LASSO:
        return t
    if kind == MCP:
        return t if t < a else math.sqrt(t * a)
    if kind == L0:
        return math.sqrt(2 * t)
    if kind == CAPPED:
        return t if t < 2 * a else math.sqrt(2 * a * t)
    if kind == SCAD:
        return t if t <= (a + 1) * b else math.sqrt(t * (a + 1) * b)
    if kind == LP:
        least = (2 * t * (1 - a) / a) ** (1 / (2 - a))
        return float(least + t * least ** (a - 1))
    at_zero = parameters[4]
    if t <= parameters[5]:
        return float(t * at_zero)
    # Past the curvature limit the operator jumps: Dinkelbach's method for the least ratio, which falls to it.
    z = t * at_zero if at_zero < math.inf else 1.0
    x = _unit_prox(code, z, t)
    while at_zero == math.inf and x == 0:
        z *= 2
        x = _unit_prox(code, z, t)
    for _ in range(_ROOT_STEPS):
        if x == 0:
            break
        lower = x / 2 + t * _unit_value(code, x) / x
        if not lower < z * (1 - 1e-15):
            break
        z = lower
        x = _unit_prox(code, z, t)
    return z


@njit(cache=True)
def value(code: Code, w: float) -> float:
    """Omega(w)."""
    width, height = code[1][2], code[1][3]
    return float(height * _unit_value(code, w / width))


@njit(cache=True)
def slope(code: Code, w: float) -> float:
    """Omega'(w)."""
    width, height = code[1][2], code[1][3]
    return float(height / width * _unit_slope(code, w / width)[0])


@njit(cache=True)
def curvature(code: Code, w: float) -> float:
    """Omega''(w), for w > 0."""
    width, height = code[1][2], code[1][3]
    return float(height / width / width * _unit_slope(code, w / width)[1])


@njit(cache=True)
def prox(code: Code, z: float, t: float) -> float:
    """argmin over x >= 0 of (x - z)^2/2 + t Omega(x), for z >= 0."""
    width, height = code[1][2], code[1][3]
    return float(width * _unit_prox(code, z / width, t * (height / width / width)))


@njit(cache=True)
def prox_near(code: Code, z: float, t: float, near: float) -> float:
    """The same; quicker where it takes a search and the result is near ``near``."""
    if code[0] < EMPIRICAL_BAYES:
        return prox(code, z, t)
    width, height = code[1][2], code[1][3]
    return float(width * _unit_prox_near(code, z / width, t * (height / width / width), near / width))


@njit(cache=True)
def entry(code: Code, t: float) -> float:
    """Largest z with ``prox(code, z, t) == 0``."""
    width, height = code[1][2], code[1][3]
    return float(width * _unit_entry(code, t * (height / width / width)))


@njit(cache=True)
def entries(code: Code, steps: Any) -> Any:
    """The entry threshold of every step."""
    result = np.empty(steps.size)
    for i in range(steps.size):
        result[i] = entry(code, steps[i])
    return result
