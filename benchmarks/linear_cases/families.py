"""Families of penalties in plain NumPy: what the checker knows, written apart from the library that is measured.

A family gives ``penalty(w, alpha)`` and its slope in magnitudes ``w >= 0``, and the threshold of entry: the gradient up
to which a coefficient at zero is the global minimizer of its own scalar problem in a column of mean square 1,

    min over x > 0 of penalty(x) / x + x / 2.

The shapes are those of the anchors: MCP 3, SCAD 3.7, log-sum of width 0.3, variational dropout of width 0.3.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import numpy.typing as npt

__all__ = ["FAMILIES", "Family"]

Floats = npt.NDArray[np.float64]
Formula = Callable[[Floats, float], Floats]

MCP_GAMMA, SCAD_GAMMA, LOG_SUM_WIDTH, DROPOUT_WIDTH = 3.0, 3.7, 0.3, 0.3


@dataclass(frozen=True)
class Family:
    """A penalty with a fixed shape.

    Attributes
    ----------
    name : str
    spec : str
        How the library measured is asked for it.
    width : {"fixed", "alpha"}
        Its convention there.
    value, slope : callables of (w, alpha)
    bar : float
        Largest ratio of times to the best rival that is aimed at in every cell with a path.
    """

    name: str
    spec: str
    width: str
    value: Formula
    slope: Formula
    bar: float

    def slope_at_zero(self, alpha: float) -> float:
        with np.errstate(divide="ignore"):
            return float(self.slope(np.zeros(1), alpha)[0])

    def entry(self, alpha: float) -> float:
        """Threshold of entry; at most the slope at zero."""
        x = np.geomspace(1e-8, 1e2, 4001)
        at = int(np.argmin(self.value(x, alpha) / x + x / 2))
        low, high = x[max(at - 1, 0)], x[min(at + 1, x.size - 1)]
        for _ in range(4):
            x = np.linspace(low, high, 401)
            at = int(np.argmin(self.value(x, alpha) / x + x / 2))
            low, high = x[max(at - 1, 0)], x[min(at + 1, x.size - 1)]
        return min(float(self.value(x[at : at + 1], alpha)[0] / x[at] + x[at] / 2), self.slope_at_zero(alpha))

    def largest_alpha(self, gradient: float = 1.0) -> float:
        """Smallest alpha at which a gradient of this size at zero does not leave it."""
        low, high = 0.0, 1.0
        while self.entry(high) < gradient:
            high *= 2
        for _ in range(60):
            middle = (low + high) / 2
            low, high = (middle, high) if self.entry(middle) < gradient else (low, middle)
        return high


def _mcp(w: Floats, alpha: float) -> Floats:
    inner = np.minimum(w, MCP_GAMMA * alpha)
    return alpha * inner - inner**2 / (2 * MCP_GAMMA)


def _mcp_slope(w: Floats, alpha: float) -> Floats:
    return np.maximum(alpha - w / MCP_GAMMA, 0.0)


def _scad(w: Floats, alpha: float) -> Floats:
    inner = np.minimum(w, SCAD_GAMMA * alpha)
    middle = (2 * SCAD_GAMMA * alpha * inner - inner**2 - alpha**2) / (2 * (SCAD_GAMMA - 1))
    return np.where(inner <= alpha, alpha * inner, middle)


def _scad_slope(w: Floats, alpha: float) -> Floats:
    return np.clip((SCAD_GAMMA * alpha - w) / (SCAD_GAMMA - 1), 0.0, alpha)


def _power(q: float) -> tuple[Formula, Formula]:
    """alpha |w|^q / q."""
    return lambda w, alpha: alpha * w**q / q, lambda w, alpha: alpha * w ** (q - 1)


def _log_sum(w: Floats, alpha: float) -> Floats:
    return alpha * np.log1p(w / LOG_SUM_WIDTH)


def _log_sum_slope(w: Floats, alpha: float) -> Floats:
    return alpha / (w + LOG_SUM_WIDTH)


@lru_cache(maxsize=1)
def dropout_table() -> tuple[Floats, Floats, Floats]:
    """log w, w/eta and value of the variational-dropout penalty in unit width, along eta.

    With Dawson's function D, w^2 = sqrt(2) eta^(3/2) D(sqrt(eta/2)) and the slope is w/eta; the value is the integral
    of the slope.
    """
    from scipy.special import dawsn

    eta = np.exp(np.linspace(-30, 60, 400_001))
    with np.errstate(under="ignore"):
        w = np.sqrt(np.sqrt(2) * eta**1.5 * dawsn(np.sqrt(eta / 2)))
    slope = w / eta
    steps = np.diff(np.log(w)) * ((w * slope)[1:] + (w * slope)[:-1]) / 2
    return np.log(w), slope, np.concatenate([[w[0]], w[0] + np.cumsum(steps)])


def _dropout(w: Floats, alpha: float) -> Floats:
    log_w, _, value = dropout_table()
    with np.errstate(divide="ignore"):
        position = np.log(w / DROPOUT_WIDTH)
    small = position < log_w[0]
    return alpha * np.where(small, w / DROPOUT_WIDTH, np.interp(position, log_w, value))


def _dropout_slope(w: Floats, alpha: float) -> Floats:
    log_w, slope, _ = dropout_table()
    with np.errstate(divide="ignore"):
        return alpha / DROPOUT_WIDTH * np.interp(np.log(w / DROPOUT_WIDTH), log_w, slope)


FAMILIES: dict[str, Family] = {
    family.name: family
    for family in (
        Family("lasso", "lasso", "fixed", lambda w, alpha: alpha * w, lambda w, alpha: alpha + 0 * w, 1.0),
        Family("mcp", f"mcp:kappa={MCP_GAMMA}", "alpha", _mcp, _mcp_slope, 0.33),
        Family("scad", f"scad:a={SCAD_GAMMA}", "alpha", _scad, _scad_slope, 0.33),
        Family("l0.5", "l0.5", "fixed", *_power(0.5), 0.2),
        Family("l2/3", f"lp:p={2 / 3}", "fixed", *_power(2 / 3), 0.2),
        Family("log-sum", f"log-sum:epsilon={LOG_SUM_WIDTH}", "fixed", _log_sum, _log_sum_slope, 0.2),
        Family(
            "variational-dropout", f"variational-dropout:scale={1 / DROPOUT_WIDTH}", "fixed", _dropout, _dropout_slope,
            0.2,
        ),
    )
}  # fmt: skip
