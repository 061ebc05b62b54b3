"""The variational-dropout penalty as a user of skglm would write it: the way to a rival where no package offers one."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numba import float64
from skglm.penalties.base import BasePenalty

from .families import DROPOUT_WIDTH, dropout_table

__all__ = ["penalty"]


class _Dropout(BasePenalty):
    """alpha * Omega(w / width), by tables of slope and value that are even in the logarithm of the weight."""

    def __init__(self, alpha: float, width: float, first: float, step: float, slopes: Any, values: Any) -> None:
        self.alpha = alpha
        self.width = width
        self.first = first
        self.step = step
        self.slopes = slopes
        self.values = values

    def get_spec(self) -> Any:
        numbers = [(name, float64) for name in ("alpha", "width", "first", "step")]
        return (*numbers, ("slopes", float64[:]), ("values", float64[:]))

    def params_to_dict(self) -> Any:
        names = ("alpha", "width", "first", "step", "slopes", "values")
        return {name: getattr(self, name) for name in names}

    def at(self, table: Any, w: float) -> float:
        """Linear interpolation; the table begins where both formulas are those of the lasso."""
        t = (math.log(w) - self.first) / self.step
        i = min(max(int(t), 0), table.size - 2)
        return table[i] + (t - i) * (table[i + 1] - table[i])

    def slope(self, size: float) -> float:
        w = size / self.width
        return self.alpha / self.width * (1.0 if w < 1e-9 else self.at(self.slopes, w))

    def cost(self, size: float) -> float:
        w = size / self.width
        return self.alpha * (w if w < 1e-9 else self.at(self.values, w))

    def value(self, w: Any) -> float:
        total = 0.0
        for j in range(w.size):
            if w[j] != 0:
                total += self.cost(abs(w[j]))
        return total

    def prox_1d(self, value: float, stepsize: float, j: int) -> float:
        # Up to the curvature limit, 4.5 width^2, and alphas here stay below it: x + step * slope(x) = z has one root.
        z = abs(value)
        low, high = 0.0, z
        if z <= stepsize * self.slope(0.0):
            return 0.0
        x = z - stepsize * self.slope(z)
        if x <= 0:
            x = z / 2
        for _ in range(100):
            excess = x + stepsize * self.slope(x) - z
            if excess > 0:
                high = x
            else:
                low = x
            wide = 1e-7 * x
            bend = 1 + stepsize * (self.slope(x + wide) - self.slope(x)) / wide
            new = x - excess / bend
            if not low < new < high:
                new = (low + high) / 2
            if abs(new - x) <= 1e-14 * z:
                break
            x = new
        return x if value > 0 else -x

    def subdiff_distance(self, w: Any, grad: Any, ws: Any) -> Any:
        distance = np.zeros_like(grad)
        for i, j in enumerate(ws):
            push = self.slope(abs(w[j]))
            distance[i] = max(0.0, abs(grad[i]) - push) if w[j] == 0 else abs(grad[i] + np.sign(w[j]) * push)
        return distance

    def is_penalized(self, n_features: int) -> Any:
        return np.ones(n_features, np.bool_)

    def generalized_support(self, w: Any) -> Any:
        return w != 0


def penalty() -> Any:
    """The penalty with alpha 1."""
    log_w, slopes, values = dropout_table()
    grid = np.linspace(math.log(1e-9), math.log(1e9), 200_001)
    step = float(grid[1] - grid[0])
    return _Dropout(
        1.0, DROPOUT_WIDTH, float(grid[0]), step, np.interp(grid, log_w, slopes), np.interp(grid, log_w, values)
    )
