"""The table of losses: what each loss is, once, for compiled and NumPy code alike.

Every loss is a function of the linear predictor ``f`` of one row (of one predictor for each class, for the multinomial
loss), and 0 where the fit is perfect. Solvers, cross-validation, criteria, scores and reports all take their numbers
from here.

=========== ============================================== =============== ======================
loss        value                                          mean            unit of the value
=========== ============================================== =============== ======================
squared     (y - f)^2 / 2                                  f               that of y, squared
huber       r^2 / 2, or delta (|r| - delta/2) from delta on f             that of y, squared
poisson     e^f - y f + y log y - y, half the deviance     e^f             that of y
logistic    log(1 + e^f) - y f                             1 / (1 + e^-f)  nats
multinomial log sum_c e^f_c - f_y                          softmax         nats
=========== ============================================== =============== ======================

A *majorant* is the curvature of a parabola that touches the loss at ``f`` and lies above it everywhere; a step that
lowers this parabola lowers the loss.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numba import njit

__all__ = ["HUBER", "LOGISTIC", "LOSSES", "LOSS_KINDS", "POISSON", "SQUARED", "Loss", "curvature", "curvatures"]
__all__ += ["derivative", "derivatives", "evaluate", "half_squares", "majorant", "majorants", "settle", "softmax"]
__all__ += ["total", "value", "values"]

LOGISTIC, POISSON, HUBER, SQUARED = range(4)
LOSS_KINDS = {"logistic": LOGISTIC, "poisson": POISSON, "huber": HUBER, "squared": SQUARED}


@dataclass(frozen=True)
class Loss:
    """What is known of a loss beside its formulas.

    Attributes
    ----------
    task : {"regression", "classification"}
    link : {"identity", "log", "logit", "softmax"}
        Maps the mean of the target to the linear predictor.
    degree : int
        Power of the target's unit in which the value is measured.
    measure : str
        Name of the number that is shown for a mean loss.
    factor : float
        That number is ``factor`` times the mean loss.
    """

    task: Literal["regression", "classification"]
    link: Literal["identity", "log", "logit", "softmax"]
    degree: int
    measure: str
    factor: float


LOSSES = {
    "squared": Loss("regression", "identity", 2, "mean squared error", 2.0),
    "huber": Loss("regression", "identity", 2, "mean Huber loss", 1.0),
    "poisson": Loss("regression", "log", 1, "mean Poisson deviance", 2.0),
    "logistic": Loss("classification", "logit", 0, "log loss", 1.0),
    "multinomial": Loss("classification", "softmax", 0, "log loss", 1.0),
}

# Beyond it the exponential function leaves the range of a double.
_LARGEST_EXPONENT = 700.0
_SETTLING_STEPS = 100


# -------------------------------------------------------------------------------------------- one loss at a time
@njit(cache=True, nogil=True)
def _logistic_value(y: float, f: float, e: float) -> float:
    """With ``e = exp(-|f|)``."""
    return (max(f, 0.0) - y * f) + math.log1p(e)


@njit(cache=True, nogil=True)
def _logistic_slopes(y: float, f: float, e: float) -> tuple[float, float]:
    less = e / (1 + e)
    return ((1 - y) - less if f >= 0 else less - y), less / (1 + e)


@njit(cache=True, nogil=True)
def _poisson_value(y: float, f: float) -> float:
    if y <= 0:
        return math.exp(f)
    d = f - math.log(y)
    # Near the perfect fit the first form does not cancel; far above it the second does not overflow.
    return y * (math.expm1(d) - d) if d < 1 else math.exp(f) - y * (1 + d)


@njit(cache=True, nogil=True)
def _poisson_slopes(y: float, f: float) -> tuple[float, float]:
    e = math.exp(min(f, _LARGEST_EXPONENT))
    return e - y, e


@njit(cache=True, nogil=True)
def _huber_value(y: float, f: float, delta: float) -> float:
    r = abs(y - f)
    return r * r / 2 if r <= delta else delta * (r - delta / 2)


@njit(cache=True, nogil=True)
def _huber_slopes(y: float, f: float, delta: float) -> tuple[float, float]:
    r = y - f
    return -min(max(r, -delta), delta), (1.0 if abs(r) <= delta else 0.0)


@njit(cache=True, nogil=True)
def softmax(labels: Any, f: Any, s: Any, p: Any, r: Any) -> float:
    """Sum of s times the multinomial loss of predictors f (n, classes).

    p becomes the probabilities, r minus the gradient; rows of weight 0 have no r.
    """
    rows, classes = f.shape
    result = 0.0
    for i in range(rows):
        top = -math.inf
        for c in range(classes):
            top = max(top, f[i, c])
        whole = 0.0
        for c in range(classes):
            p[i, c] = math.exp(f[i, c] - top)
            whole += p[i, c]
        label = labels[i]
        others = 0.0
        for c in range(classes):
            p[i, c] /= whole
            r[i, c] = -s[i] * p[i, c]
            others += p[i, c] if c != label else 0.0
        r[i, label] = s[i] * others
        if s[i] > 0:
            result += s[i] * (math.log(whole) + top - f[i, label])
    return result


def half_squares(weights: Any, residuals: Any) -> float:
    """Sum of the weights (n,) times the squared loss of residuals (n,) or (n, outputs)."""
    return float(np.sum(weights @ residuals**2)) / 2


# ------------------------------------------------------------------------------------------------ loss by number
@njit(cache=True, nogil=True)
def value(kind: int, y: float, f: float, delta: float) -> float:
    """The loss; infinite where it overflows."""
    if kind == LOGISTIC:
        return _logistic_value(y, f, math.exp(-abs(f)))
    if kind == POISSON:
        return _poisson_value(y, f)
    return _huber_value(y, f, delta if kind == HUBER else math.inf)


@njit(cache=True, nogil=True)
def _first_two(kind: int, y: float, f: float, delta: float) -> tuple[float, float]:
    """Derivative and curvature with one exponential."""
    if kind == LOGISTIC:
        return _logistic_slopes(y, f, math.exp(-abs(f)))
    if kind == POISSON:
        return _poisson_slopes(y, f)
    return _huber_slopes(y, f, delta if kind == HUBER else math.inf)


@njit(cache=True, nogil=True)
def derivative(kind: int, y: float, f: float, delta: float) -> float:
    """The derivative of the loss by f."""
    return _first_two(kind, y, f, delta)[0]


@njit(cache=True, nogil=True)
def curvature(kind: int, y: float, f: float, delta: float) -> float:
    """The second derivative of the loss by f."""
    return _first_two(kind, y, f, delta)[1]


@njit(cache=True, nogil=True)
def majorant(kind: int, y: float, f: float, delta: float) -> float:
    """Curvature of a parabola through the loss at f that lies above it; for Poisson, which has none, the curvature.

    Logistic: tanh(f/2)/(2f), at most 1/4 (Jaakkola and Jordan, 2000). Huber: min(1, delta/|r|), the weights of
    iteratively reweighted least squares.
    """
    if kind == LOGISTIC:
        return math.tanh(f / 2) / (2 * f) if abs(f) > 1e-4 else 0.25
    if kind == POISSON:
        return _poisson_slopes(y, f)[1]
    if kind == SQUARED:
        return 1.0
    r = abs(y - f)
    return 1.0 if r <= delta else delta / r


# ---------------------------------------------------------------------------------------------------- many rows
@njit(cache=True, nogil=True)
def values(kind: int, y: Any, f: Any, delta: float) -> Any:
    """The loss of every row, (n,)."""
    out = np.empty(y.size)
    for i in range(y.size):
        out[i] = value(kind, y[i], f[i], delta)
    return out


@njit(cache=True, nogil=True)
def derivatives(kind: int, y: Any, f: Any, delta: float) -> Any:
    """The derivative of every row's loss, (n,)."""
    out = np.empty(y.size)
    for i in range(y.size):
        out[i] = derivative(kind, y[i], f[i], delta)
    return out


@njit(cache=True, nogil=True)
def curvatures(kind: int, y: Any, f: Any, delta: float) -> Any:
    """The second derivative of every row's loss, (n,)."""
    out = np.empty(y.size)
    for i in range(y.size):
        out[i] = curvature(kind, y[i], f[i], delta)
    return out


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
                v = _logistic_value(y[i], f[i], e)
                d, c = _logistic_slopes(y[i], f[i], e)
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
