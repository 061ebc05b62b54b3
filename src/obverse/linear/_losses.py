"""Losses of generalized linear models, compiled: value, derivative, curvature, and a quadratic that lies above.

A loss is a function of the linear predictor ``f`` of one row. Its *majorant* is the curvature of a parabola that
touches the loss at ``f`` and lies above it everywhere; a step that lowers this parabola lowers the loss.
"""

from __future__ import annotations

import math
from typing import Any

from numba import njit

__all__ = ["HUBER", "LOGISTIC", "LOSS_KINDS", "POISSON", "curvature", "derivative", "evaluate", "majorant", "majorants"]
__all__ += ["settle", "total", "value"]

LOGISTIC, POISSON, HUBER = range(3)
LOSS_KINDS = {"logistic": LOGISTIC, "poisson": POISSON, "huber": HUBER}

# Beyond it the exponential function leaves the range of a double.
_LARGEST_EXPONENT = 700.0
_SETTLING_STEPS = 100


@njit(cache=True, nogil=True)
def value(kind: int, y: float, f: float, delta: float) -> float:
    """The loss: log(1 + e^f) - y f, or e^f - y f + y log y - y, or Huber's of y - f; 0 where the fit is perfect."""
    if kind == LOGISTIC:
        return (max(f, 0.0) - y * f) + math.log1p(math.exp(-abs(f)))
    if kind == POISSON:
        constant = y * math.log(y) - y if y > 0 else 0.0
        return math.exp(min(f, _LARGEST_EXPONENT)) - y * f + constant
    r = abs(y - f)
    return r * r / 2 if r <= delta else delta * (r - delta / 2)


@njit(cache=True, nogil=True)
def derivative(kind: int, y: float, f: float, delta: float) -> float:
    """Its derivative by f."""
    if kind == LOGISTIC:
        e = math.exp(-abs(f))
        less = e / (1 + e)
        return (1 - y) - less if f >= 0 else less - y
    if kind == POISSON:
        return math.exp(min(f, _LARGEST_EXPONENT)) - y
    return -min(max(y - f, -delta), delta)


@njit(cache=True, nogil=True)
def curvature(kind: int, y: float, f: float, delta: float) -> float:
    """Its second derivative."""
    if kind == LOGISTIC:
        e = math.exp(-abs(f))
        return e / ((1 + e) * (1 + e))
    if kind == POISSON:
        return math.exp(min(f, _LARGEST_EXPONENT))
    return 1.0 if abs(y - f) <= delta else 0.0


@njit(cache=True, nogil=True)
def majorant(kind: int, y: float, f: float, delta: float) -> float:
    """Curvature of a parabola through the loss at f that lies above it; for Poisson, which has none, the curvature.

    Logistic: tanh(f/2)/(2f), at most 1/4 (Jaakkola and Jordan, 2000). Huber: min(1, delta/|r|), the weights of
    iteratively reweighted least squares.
    """
    if kind == LOGISTIC:
        return math.tanh(f / 2) / (2 * f) if abs(f) > 1e-4 else 0.25
    if kind == POISSON:
        return math.exp(min(f, _LARGEST_EXPONENT))
    r = abs(y - f)
    return 1.0 if r <= delta else delta / r


@njit(cache=True, nogil=True)
def _first_two(kind: int, y: float, f: float, delta: float) -> tuple[float, float]:
    """Derivative and curvature with one exponential."""
    if kind == LOGISTIC:
        e = math.exp(-abs(f))
        less = e / (1 + e)
        return ((1 - y) - less if f >= 0 else less - y), less / (1 + e)
    if kind == POISSON:
        e = math.exp(min(f, _LARGEST_EXPONENT))
        return e - y, e
    r = y - f
    return -min(max(r, -delta), delta), (1.0 if abs(r) <= delta else 0.0)


@njit(cache=True, nogil=True)
def total(kind: int, y: Any, f: Any, s: Any, delta: float) -> float:
    """Sum of s times the loss; rows of weight 0 do not count."""
    result = 0.0
    for i in range(y.size):
        if s[i] > 0:
            result += s[i] * value(kind, y[i], f[i], delta)
    return result


@njit(cache=True, nogil=True)
def evaluate(kind: int, y: Any, f: Any, s: Any, delta: float, r: Any, h: Any) -> tuple[float, float]:
    """Sum of s times the loss, and of s times the curvature.

    r becomes minus s times the derivative, h s times the curvature; rows of weight 0 do not count.
    """
    result, bends = 0.0, 0.0
    for i in range(y.size):
        r[i] = h[i] = 0.0
        if s[i] > 0:
            if kind == LOGISTIC:
                e = math.exp(-abs(f[i]))
                less = e / (1 + e)
                v = (max(f[i], 0.0) - y[i] * f[i]) + math.log1p(e)
                d, c = ((1 - y[i]) - less if f[i] >= 0 else less - y[i]), less / (1 + e)
            else:
                v = value(kind, y[i], f[i], delta)
                d, c = _first_two(kind, y[i], f[i], delta)
            result += s[i] * v
            r[i] = -s[i] * d
            h[i] = s[i] * c
            bends += h[i]
    return result, bends


@njit(cache=True, nogil=True)
def majorants(kind: int, y: Any, f: Any, s: Any, delta: float, out: Any) -> float:
    """s times the majorant; their sum."""
    result = 0.0
    for i in range(y.size):
        out[i] = s[i] * majorant(kind, y[i], f[i], delta) if s[i] > 0 else 0.0
        result += out[i]
    return result


@njit(cache=True, nogil=True)
def _poisson_shift(y: Any, f: Any, s: Any) -> float:
    top = -math.inf
    for i in range(y.size):
        if s[i] > 0:
            top = max(top, f[i])
    counts, fitted = 0.0, 0.0
    for i in range(y.size):
        if s[i] > 0:
            counts += s[i] * y[i]
            fitted += s[i] * math.exp(f[i] - top)
    return math.log(counts / fitted) - top


@njit(cache=True, nogil=True)
def settle(kind: int, y: Any, f: Any, s: Any, delta: float) -> float:
    """Add to f, in place, the constant that minimizes the loss; the constant.

    A minimum must exist: y of more than one class, or not all counts 0.
    """
    shift = 0.0
    if kind == POISSON:
        shift = _poisson_shift(y, f, s)
    else:
        low, high = -math.inf, math.inf
        if kind == HUBER:
            low, high = math.inf, -math.inf
            for i in range(y.size):
                if s[i] > 0:
                    low, high = min(low, y[i] - f[i]), max(high, y[i] - f[i])
            if low > 0 or high < 0:
                shift = (low + high) / 2
        for _ in range(_SETTLING_STEPS):
            rise, bends, size = 0.0, 0.0, 0.0
            for i in range(y.size):
                if s[i] > 0:
                    d, c = _first_two(kind, y[i], f[i] + shift, delta)
                    rise += s[i] * d
                    size += s[i] * abs(d)
                    bends += s[i] * c
            if abs(rise) <= 1e-15 * size:
                break
            if rise > 0:
                high = min(high, shift)
            else:
                low = max(low, shift)
            change = -rise / bends if bends > 1e-300 else math.copysign(math.inf, -rise)
            if kind == LOGISTIC:
                change = min(max(change, -4.0), 4.0)
            following = shift + change
            if not low < following < high:
                following = (low + high) / 2
            if following == shift or not math.isfinite(following):
                break
            # Newton's steps converge quadratically: after one so small nothing is left to do.
            done = kind == LOGISTIC and abs(following - shift) <= 1e-8 and following == shift + change
            shift = following
            if done:
                break
    for i in range(y.size):
        f[i] += shift
    return shift
