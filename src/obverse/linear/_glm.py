"""Paths for logistic, Poisson and Huber losses."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
import scipy.sparse as sp
from numba import njit

from . import _losses
from ._column_store import ColumnStore
from ._design import Design
from ._losses import HUBER, LOGISTIC, LOSS_KINDS, POISSON
from ._newton_path import largest_alpha, solve_folds
from ._prox_newton import Point, Snapshot
from ._solution import Solution
from ._terms import Terms
from ._training import TrainingColumns
from ._working_set import Folds

__all__ = ["GlmProblem"]

Floats = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]

# How often a model of the Poisson loss, which no parabola bounds, may be made four times steeper.
_STEEPENINGS = 12
# Share of the majorant that the mean curvature of the Huber loss is taken to be at least.
_HUBER_FLOOR = 0.25
# Intercept of data of one class, or without counts, for which none is best.
_LIMIT = 30.0


@njit(cache=True, nogil=True, fastmath={"contract", "reassoc"})
def _gather(columns: Any, places: Any, root: Any, h: Any, sum_h: float, centered: bool, out: Any, mean: Any) -> None:
    """Rows of ``out``: columns about their mean weighted by h, times the root of h. ``columns`` is (size, n)."""
    n = root.size
    for q in range(places.size):
        column = columns[places[q]]
        average = 0.0
        if centered and sum_h > 0:
            for i in range(n):
                average += h[i] * column[i]
            average /= sum_h
        mean[q] = average
        for i in range(n):
            out[q, i] = (column[i] - average) * root[i]


class _WeightedGram:
    """Gram matrix weighted by the curvatures of the loss, about the means that an intercept asks for."""

    def __init__(self, store: ColumnStore, h: Floats, sum_h: float, row: _RowLoss) -> None:
        self.store, self.h, self.sum_h, self.row = store, h, sum_h, row
        self.size = 0
        self.gram = np.zeros((0, 0))
        self._root = np.sqrt(h)
        self._rows: Any = None
        self._sums = np.zeros(0)

    def drift(self, point: Point) -> float:
        return float(np.abs(point.bends - self.h).sum() / max(self.sum_h, 1e-300))

    def extend(self, coordinates: Integers) -> None:
        places = self.store.place[coordinates]
        old, self.size = self.size, self.size + places.size
        if self.gram.shape[0] < self.size:
            capacity = max(32, self.size + self.size // 2)
            grown = np.zeros((capacity, capacity))
            grown[:old, :old] = self.gram[:old, :old]
            self.gram = grown
            if not self.store.design.is_sparse:
                rows = np.empty((capacity, self.h.size))
                if old:
                    rows[:old] = self._rows[:old]
                self._rows = rows
        fresh = self._sparse(places) if self.store.design.is_sparse else self._dense(places, old)
        self.gram[:old, old : self.size] = fresh[:old]
        self.gram[old : self.size, :old] = fresh[:old].T
        self.gram[old : self.size, old : self.size] = fresh[old:]
        # A column that only varies where the loss is flat has but rounding here.
        size = self.row.sizes(coordinates)
        flat = old + np.flatnonzero(np.diagonal(fresh[old:]) <= 1e-14 * self.sum_h * size)
        self.gram[flat, :] = 0.0
        self.gram[:, flat] = 0.0

    def _dense(self, places: Integers, old: int) -> Floats:
        columns = self.store.columns.T
        fresh = self._rows[old : self.size]
        _gather(
            columns, places, self._root, self.h, self.sum_h, self.row.fit_intercept, fresh, np.empty(places.size)
        )  # fmt: skip
        product = np.empty((self.size, places.size))
        if old:
            product[:old] = self._rows[:old] @ fresh.T
        product[old:] = fresh @ fresh.T
        return product

    def _sparse(self, places: Integers) -> Floats:
        fresh = self.store.columns[:, places]
        weighted = fresh.multiply(self.h[:, None]).tocsc()
        self._rows = fresh if self._rows is None else sp.hstack([self._rows, fresh], format="csc")
        product: Floats = (self._rows.T @ weighted).toarray()
        sums = np.asarray(weighted.sum(axis=0)).ravel()
        self._sums = np.concatenate([self._sums, sums])
        if self.row.fit_intercept and self.sum_h > 0:
            product -= np.outer(self._sums, sums / self.sum_h)
        return product


class _RowLoss:
    """A scalar loss over the rows of one fold."""

    outputs = 1

    def __init__(
        self,
        store: ColumnStore,
        kind: int,
        y: Floats,
        weights: Floats,
        delta: float,
        sizes: Callable[[Integers], Floats],
        *,
        fit_intercept: bool,
    ) -> None:
        self.store, self.kind, self.y, self.s, self.delta = store, kind, y, weights, delta
        self.sizes, self.fit_intercept = sizes, fit_intercept
        self.levels = _STEEPENINGS if kind == POISSON else 1

    def evaluate(self, predictor: Floats) -> Point:
        shift = 0.0
        if self.fit_intercept:
            shift = _losses.settle(self.kind, self.y, predictor, self.s, self.delta)
        r, h = np.empty(self.y.size), np.empty(self.y.size)
        loss, bends = _losses.evaluate(self.kind, self.y, predictor, self.s, self.delta, r, h)
        if self.kind == HUBER:
            # Where few rows are near their fit, coefficients that move meet others.
            room = np.empty(self.y.size)
            steep = _losses.majorants(self.kind, self.y, predictor, self.s, self.delta, room)
            bends = max(bends, _HUBER_FLOOR * steep)
        return Point(predictor, np.asarray(shift), loss, r, h, np.array([bends]))

    def centered(self, direction: Floats, point: Point) -> tuple[Floats, Floats]:
        total = float(point.bends.sum())
        if not self.fit_intercept or self.kind == POISSON or total <= 0:
            return direction, np.zeros(())
        shift = -(point.bends @ direction) / total
        return direction + shift, np.asarray(shift)

    def quadratic(self, point: Point, level: int) -> _WeightedGram:
        if level == 0:
            return _WeightedGram(self.store, point.bends, float(point.bends.sum()), self)
        h = np.empty(self.y.size)
        total = float(_losses.majorants(self.kind, self.y, point.predictor, self.s, self.delta, h))
        if self.kind == POISSON:
            h, total = h * 4.0**level, total * 4.0**level
        return _WeightedGram(self.store, h, total, self)

    def product(self, coordinates: Integers, coefficients: Floats) -> Floats:
        spread = np.zeros(self.store.size)
        spread[self.store.place[coordinates]] = coefficients
        return np.asarray(self.store.columns @ spread)

    def correlate(self, coordinates: Integers, residuals: Floats) -> Floats:
        if coordinates.size == 0:
            return np.zeros(0)
        return np.asarray(self.store.columns.T @ residuals)[self.store.place[coordinates]]

    # ------------------------------------------------------------------ what only binary or count data have
    def is_degenerate(self) -> bool:
        """Whether the intercept alone has no best value."""
        if not self.fit_intercept or self.kind == HUBER:
            return False
        seen = self.y[self.s > 0]
        return bool((seen == 0).all() or (self.kind == LOGISTIC and (seen == 1).all()))

    def has_best_intercept(self) -> bool:
        """Whether the intercept alone has a best value."""
        return not self.is_degenerate()

    def limit(self) -> Point:
        """The loss near the limit of such an intercept."""
        offset = np.asarray(_LIMIT if (self.y[self.s > 0] > 0).any() else -_LIMIT)
        predictor = np.full(self.y.size, offset)
        loss = float(_losses.total(self.kind, self.y, predictor, self.s, self.delta))
        nothing = np.zeros(self.y.size)
        return Point(predictor, offset, loss, nothing, nothing, np.zeros(1))

    def is_separated(self, predictor: Floats) -> bool:
        """Whether every row is on its own side, so that larger coefficients fit better still."""
        if self.kind != LOGISTIC:
            return False
        return bool((((2 * self.y - 1) * predictor)[self.s > 0] > 0).all())


class GlmProblem:
    """``sum_i s_i loss(y_i, x_i w + b) + alpha sum_j factor_j Omega(w_j)`` for several sets of rows.

    Parameters
    ----------
    design : Design
    y : array of shape (n,)
        0 and 1 (logistic); at least 0 (poisson).
    folds : Folds
    loss : {"logistic", "poisson", "huber"}
        log(1 + e^f) - y f; e^f - y f + y log y - y, half the deviance; r^2/2 up to ``delta`` and linear beyond.
    fit_intercept : bool
    delta : float
        Residual from which the Huber loss is linear, in the unit of y.

    Notes
    -----
    Columns are shared by the folds; each has its own working set. The intercept is at its best value all along.
    """

    outputs = 1

    def __init__(
        self, design: Design, y: Floats, folds: Folds, loss: str, *, fit_intercept: bool, delta: float = 1.35
    ) -> None:
        self.design, self.folds, self.fit_intercept = design, folds, fit_intercept
        self.kind = LOSS_KINDS[loss]
        self.store, self.training = ColumnStore(design), TrainingColumns(design, folds)
        self.loss_scale = self.coef_scale = 1.0
        self.null, self.shift, self.delta = np.zeros(design.rows), 0.0, 1.0
        if self.kind == HUBER:
            size = float(np.abs(y).max(initial=0.0))
            self.coef_scale = float(np.ldexp(1.0, int(np.frexp(size)[1]))) if size > 0 else 1.0
            self.delta = delta / self.coef_scale
            y = y / self.coef_scale
            self.shift = float(self.training.center(y[:, None])[0]) if fit_intercept else 0.0
            y = y - self.shift
        elif self.kind == POISSON:
            # e^f - y f is, but for a constant, the mean of y times the same of y and e^f over that mean.
            mean = float(design.weights @ y)
            self.loss_scale = mean if mean > 0 else 1.0
            y = y / self.loss_scale
            self.shift = float(np.log(self.loss_scale))
            if not fit_intercept:
                self.null = np.full(design.rows, -self.shift)
        self.y = np.ascontiguousarray(y, dtype=np.float64)
        self.losses = []
        for number, held in enumerate(folds.held):
            weights = design.weights.copy()
            weights[held] = 0.0
            total = float(weights.sum())
            weights /= total if total > 0 else 1.0
            sizes = partial(self.training.sizes, number)
            self.losses.append(
                _RowLoss(self.store, self.kind, self.y, weights, self.delta, sizes, fit_intercept=fit_intercept)
            )

    @property
    def objective_scale(self) -> tuple[float, float]:
        """Two factors that bring a scaled loss to the unit of the objective."""
        return (self.coef_scale, self.coef_scale) if self.kind == HUBER else (self.loss_scale, 1.0)

    def largest_alpha(self, terms: Terms) -> float:
        """Smallest alpha at which all penalized coefficients of the problem that holds nothing out are zero."""
        return largest_alpha(self, terms)

    def solve(
        self, terms: Terms, alphas: Floats, *, stop: Callable[[list[list[Solution]]], bool] | None = None
    ) -> list[list[Solution]]:
        """Solutions of every fold for descending ``alphas``; fewer where a fold ended early or ``stop`` says so."""
        return solve_folds(self, terms, alphas, stop)

    def solution(
        self, number: int, coordinates: Integers, snapshot: Snapshot, alpha: float, converged: bool, terms: Terms
    ) -> Solution:
        """A point of a fold's path in the units of the data."""
        u, point = snapshot.u, snapshot.point
        order = np.argsort(coordinates[u != 0])
        index, values = coordinates[u != 0][order], u[u != 0][order]
        first, second = self.objective_scale
        held, held_loss = self.folds.held[number], 0.0
        if held.size:
            held_loss = float(
                _losses.total(
                    self.kind, self.y[held], point.predictor[held], self.design.weights[held], self.delta
                )
            )  # fmt: skip
        intercept = 0.0
        if self.fit_intercept:
            # Sparse columns are not centered in the predictor.
            taken = self.design.shift[index] if self.design.is_sparse else self.design.origin(index)
            center = float(taken @ values)
            intercept = self.coef_scale * (float(snapshot.offset) + self.shift - center)
        unit = self.training.units(number, terms, self.coef_scale)[index]
        omega = terms.value(np.abs(values) * unit, terms.factor[index], alpha)
        return Solution(
            index=index,
            coef=values * self.coef_scale / self.design.scale[index],
            intercept=intercept,
            objective=point.loss * first * second + omega,
            violation=snapshot.violation,
            converged=converged,
            held_out=held_loss * first * second,
        )
