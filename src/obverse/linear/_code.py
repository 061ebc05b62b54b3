"""A penalty as compiled code reads it."""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Any

import numpy as np

from ..errors import InvalidArgumentError
from ..penalties import (
    L0,
    MCP,
    SCAD,
    CappedL1,
    EmpiricalBayes,
    Lasso,
    LogSum,
    Lp,
    Penalty,
    Piecewise,
    Rescaling,
    TabulatedPenalty,
)
from . import _scalar

__all__ = ["encode", "makes_zeros", "resized"]

_NO_TABLE: tuple[Any, ...] = (_scalar.ABSENT, _scalar.ABSENT, np.zeros(0), np.zeros(12))


def makes_zeros(penalty: Penalty) -> bool:
    """Whether the proximal operator of the penalty makes exact zeros."""
    return penalty.slope_at_zero > 0


def encode(penalty: Penalty) -> _scalar.Code:
    """The code of a penalty; one without a closed form known here is tabulated by its slope.

    Parameters are ``(a, b, width, height, slope at zero, curvature limit, start of convexity, excess)``, the last four
    in unit width and height: from where on the slope is convex, and by how much ``x + limit * slope(x)`` is before that
    larger than at zero.

    Raises
    ------
    InvalidArgumentError
        The penalty has no table of its slope, because it jumps at zero or is not finite.
    """
    if isinstance(penalty, Rescaling):
        width, height = penalty._shape
        return resized(encode(penalty._unit), width, height)
    closed: dict[type[Penalty], Any] = {
        Lasso: lambda p: (_scalar.LASSO, 0.0, 0.0, 1.0, math.inf),
        LogSum: lambda p: (_scalar.LOG_SUM, 0.0, 0.0, p.epsilon, 1.0),
        MCP: lambda p: (_scalar.MCP, p.kappa, 0.0, 1.0, p.kappa),
        SCAD: lambda p: (_scalar.SCAD, p.a, p.threshold, 1.0, (p.a - 1) * p.threshold),
        CappedL1: lambda p: (_scalar.CAPPED, p.threshold, 0.0, 1.0, 0.0),
        L0: lambda p: (_scalar.L0, 0.0, 0.0, 1.0, 0.0),
        EmpiricalBayes: lambda p: (_scalar.EMPIRICAL_BAYES, 0.0, 0.0, 1 / math.sqrt(p.precision), 2.0),
        Lp: lambda p: (_scalar.LP, p.p, 0.0, 1.0, 0.0),
    }
    if type(penalty) in closed and not (isinstance(penalty, Lp) and penalty.p >= 1):
        kind, a, b, width, limit = closed[type(penalty)](penalty)
        at_zero = math.inf if kind in (_scalar.LP, _scalar.L0) else 1.0
        return (kind, np.array([a, b, width, 1.0, at_zero, limit, 0.0, 0.0]), *_NO_TABLE)
    if isinstance(penalty, Lp) and penalty.p == 1:
        return encode(Lasso())
    return _tabulated(penalty)


def resized(code: _scalar.Code, width: float, height: float) -> _scalar.Code:
    """The code of ``height * Omega(w / width)``."""
    kind, parameters, *tables = code
    parameters = parameters.copy()
    parameters[2] *= width
    parameters[3] *= height
    return (kind, parameters, *tables)


def _tabulated(penalty: Penalty) -> _scalar.Code:
    table = penalty if isinstance(penalty, TabulatedPenalty) else _table_of(penalty)
    slopes, values = table._slope_table, table._value_table
    grid = [
        coordinate
        for part in (slopes, values)
        for coordinate in (part.first, part.bits, part.low, part.high, *part.powers)
    ]
    at_zero, limit = table.slope_at_zero, table.curvature_limit
    parameters = np.array([0.0, 0.0, 1.0, 1.0, at_zero, limit, *_convexity(slopes, at_zero, limit)])
    rows = [np.ascontiguousarray(part.rows.T, dtype=np.float64) for part in (slopes, values)]
    breaks = np.asarray(slopes.breaks, dtype=np.float64)
    return (_scalar.TABLE, parameters, rows[0], rows[1], breaks, np.array(grid, dtype=np.float64))


def _convexity(slopes: Piecewise, at_zero: float, limit: float) -> tuple[float, float]:
    """From where on a slope is convex, and how far ``x + limit * slope(x)`` rises above its start before."""
    w = np.geomspace(slopes.low, slopes.high * (1 - 1e-12), 1 + 32 * round(math.log2(slopes.high / slopes.low)))
    slope, bend = slopes(w, np), slopes.derivative(w, np)
    falls = np.diff(bend) < -1e-7 * np.abs(bend[1:]) - 1e-12 * np.abs(slope[1:] / w[1:])
    places = np.flatnonzero(falls) + 1
    start = float(w[places[-1] + 1]) if places.size and places[-1] + 1 < w.size else float(w[0])
    if places.size and places[-1] + 1 >= w.size:
        return math.inf, 0.0
    if slopes.breaks:
        start = max(start, slopes.breaks[-1])
    if at_zero == math.inf or limit == math.inf:
        return start, 0.0
    before = w <= start
    if (slope[before] > at_zero * (1 + 1e-9)).any():
        return math.inf, 0.0
    return start, max(0.0, float((w + limit * (slope - at_zero))[before].max(initial=0.0)))


@lru_cache(maxsize=32)
def _table_of(penalty: Penalty) -> TabulatedPenalty:
    probe = np.array([0.0, 1e-300])
    if float(np.diff(penalty.value(probe))[0]) > 1e-100 * float(penalty.value(np.float64(1.0))):
        raise InvalidArgumentError(
            f"{penalty!r} jumps at zero, which only l0 may in a linear model; give a penalty with a slope, or 'l0'"
        )
    at_zero = penalty.slope_at_zero
    return TabulatedPenalty(
        lambda w: np.asarray(penalty.slope(w), dtype=np.float64),
        label=repr(penalty),
        slope_at_zero=float(at_zero),
        curvature_limit=float(penalty.curvature_limit),
    )
