"""Paths for the multinomial logistic loss: one coefficient for every feature and class, each penalized alone."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt

from ._column_store import ColumnStore
from ._design import Design
from ._losses import softmax
from ._newton_path import largest_alpha, solve_folds
from ._prox_newton import Point, Snapshot
from ._solution import Solution
from ._terms import Terms
from ._training import TrainingColumns
from ._working_set import Folds

__all__ = ["MultinomialProblem"]

Floats = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]

_SETTLING_STEPS = 60
_HALVINGS = 20
# Intercept of the only class there is, beside those of classes that do not occur.
_LIMIT = 30.0


class _SoftmaxGram:
    """Gram matrix of pairs of a column and a class, weighted by the curvatures of the loss, intercepts eliminated."""

    def __init__(self, loss: _SoftmaxLoss, p: Floats, *, majorized: bool) -> None:
        self.loss = loss
        self.gram = np.zeros((0, 0))
        self.p = p
        s, classes = loss.s, loss.outputs
        if majorized:
            # Half of the identity less the mean lies above every covariance of a label (Böhning, 1992).
            own = np.repeat(s[:, None] * (1 - 1 / classes) / 2, classes, axis=1)
            shared = np.repeat(np.sqrt(s / (2 * classes))[:, None], classes, axis=1)
        else:
            own = s[:, None] * p * (1 - p)
            shared = np.sqrt(s)[:, None] * p
        self._own, self._shared = own, shared
        self._root = np.sqrt(own)
        self._inverse = _inverse(own, shared) if loss.fit_intercept else None
        self._classes: Integers = np.zeros(0, np.int64)
        self._left, self._right = np.zeros((0, s.size)), np.zeros((0, s.size))
        self._tied = np.zeros((0, classes))

    def drift(self, point: Point) -> float:
        bends = self.loss.s[:, None] * np.abs(point.bends - self.p)
        return float(bends.sum() / max(point.mean.sum(), 1e-300))

    def extend(self, coordinates: Integers) -> None:
        loss, classes = self.loss, coordinates % self.loss.outputs
        places = loss.store.place[coordinates // loss.outputs]
        columns = loss.store.columns[:, places]
        columns = (columns.toarray() if loss.store.design.is_sparse else columns).T
        left, right = columns * self._root.T[classes], columns * self._shared.T[classes]
        tied = -(right @ self._shared)
        own = (columns * self._own.T[classes]).sum(axis=1)
        tied[np.arange(classes.size), classes] = own
        old = self._classes.size
        self._left, self._right = np.concatenate([self._left, left]), np.concatenate([self._right, right])
        self._tied = np.concatenate([self._tied, tied])
        self._classes = np.concatenate([self._classes, classes])
        same = self._classes[:, None] == classes
        fresh = np.where(same, self._left @ left.T, -(self._right @ right.T))
        if self._inverse is not None:
            fresh -= self._tied @ (self._inverse @ tied.T)
        size = self._classes.size
        grown = np.zeros((size, size))
        grown[:old, :old] = self.gram
        grown[:, old:] = fresh
        grown[old:, :old] = fresh[:old].T
        # A column that only varies where the loss is flat has but rounding here.
        least = 1e-14 * loss.sizes(coordinates // loss.outputs) * self._own.sum(axis=0)[classes]
        flat = old + np.flatnonzero(np.diagonal(grown)[old:] <= least)
        grown[flat, :] = 0.0
        grown[:, flat] = 0.0
        self.gram = grown


def _inverse(own: Floats, shared: Floats) -> Floats:
    """Generalized inverse of the curvature by the intercepts, which are free up to a common constant."""
    matrix = -(shared.T @ shared)
    np.fill_diagonal(matrix, own.sum(axis=0))
    return np.asarray(np.linalg.pinv(matrix, rcond=1e-12, hermitian=True), dtype=np.float64)


class _SoftmaxLoss:
    """The loss over the rows of one fold."""

    levels = 1

    def __init__(
        self,
        store: ColumnStore,
        labels: Integers,
        weights: Floats,
        classes: int,
        sizes: Callable[[Integers], Floats],
        *,
        fit_intercept: bool,
    ) -> None:
        self.store, self.labels, self.s, self.outputs = store, labels, weights, classes
        self.sizes, self.fit_intercept = sizes, fit_intercept
        self.present = np.isin(np.arange(classes), labels[weights > 0])

    def evaluate(self, predictor: Floats) -> Point:
        p, r = np.empty_like(predictor), np.empty_like(predictor)
        loss = softmax(self.labels, predictor, self.s, p, r)
        intercept = np.zeros(self.outputs)
        if self.fit_intercept:
            # What classes that do not occur still ask for may be left.
            enough = np.where(self.present, 1e-14, 1e-9)
            for _ in range(_SETTLING_STEPS):
                rise = r.sum(axis=0)
                if (np.abs(rise) <= enough).all():
                    break
                step = _inverse(self.s[:, None] * p * (1 - p), np.sqrt(self.s)[:, None] * p) @ rise
                step /= max(1.0, float(np.abs(step).max()) / 5)
                before = loss
                for _ in range(_HALVINGS):
                    following = predictor + step
                    loss = softmax(self.labels, following, self.s, p, r)
                    if loss <= before * (1 + 1e-15):
                        break
                    step = step / 2
                predictor, intercept = following, intercept + step
                if np.abs(step).max() <= 1e-15 * max(1.0, np.abs(intercept).max()):
                    break
        mean = (self.s[:, None] * p * (1 - p)).sum(axis=0)
        return Point(predictor, intercept, loss, r, p, mean)

    def centered(self, direction: Floats, point: Point) -> tuple[Floats, Floats]:
        if not self.fit_intercept:
            return direction, np.zeros(self.outputs)
        p = point.bends
        along = p * (direction - (p * direction).sum(axis=1, keepdims=True))
        shared = np.sqrt(self.s)[:, None] * p
        shift = -_inverse(self.s[:, None] * p * (1 - p), shared) @ (self.s @ along)
        return direction + shift, shift

    def quadratic(self, point: Point, level: int) -> _SoftmaxGram:
        return _SoftmaxGram(self, point.bends, majorized=level > 0)

    def product(self, coordinates: Integers, coefficients: Floats) -> Floats:
        spread = np.zeros((self.store.size, self.outputs))
        spread[self.store.place[coordinates // self.outputs], coordinates % self.outputs] = coefficients
        return np.asarray(self.store.columns @ spread)

    def correlate(self, coordinates: Integers, residuals: Floats) -> Floats:
        if coordinates.size == 0:
            return np.zeros(0)
        product = np.asarray(self.store.columns.T @ residuals)
        return product[self.store.place[coordinates // self.outputs], coordinates % self.outputs]

    def is_degenerate(self) -> bool:
        """Whether only one class occurs."""
        return bool(self.fit_intercept and np.count_nonzero(self.present) < 2)

    def has_best_intercept(self) -> bool:
        """Whether every class occurs."""
        return bool(not self.fit_intercept or self.present.all())

    def limit(self) -> Point:
        """The loss near the limit of the intercept of the only class."""
        offset = np.where(self.present, _LIMIT, 0.0)
        predictor = np.tile(offset, (self.labels.size, 1))
        p, r = np.empty_like(predictor), np.empty_like(predictor)
        loss = softmax(self.labels, predictor, self.s, p, r)
        return Point(predictor, offset, loss, np.zeros_like(r), p, np.zeros(self.outputs))

    def is_separated(self, predictor: Floats) -> bool:
        """Whether every row is on its own side, so that larger coefficients fit better still."""
        rows = np.flatnonzero(self.s > 0)
        own = predictor[rows, self.labels[rows]]
        others = predictor[rows]
        others[np.arange(rows.size), self.labels[rows]] = -np.inf
        return bool((own > others.max(axis=1)).all())


class MultinomialProblem:
    """``sum_i s_i (log sum_c e^f_ic - f_{i, y_i}) + alpha sum_jc factor_j Omega(w_jc)``, ``f_ic = x_i w_c + b_c``.

    All classes have coefficients; the intercepts have sum zero.

    Parameters
    ----------
    design : Design
    y : array of shape (n,)
        Classes as 0 ... K-1.
    folds : Folds
    fit_intercept : bool

    Notes
    -----
    A solution's ``coef`` is (k, K), for the k features with any nonzero coefficient, and its ``intercept`` (K,).
    """

    def __init__(self, design: Design, y: Any, folds: Folds, *, fit_intercept: bool) -> None:
        self.design, self.folds, self.fit_intercept = design, folds, fit_intercept
        self.labels = np.asarray(y).astype(np.int64)
        self.outputs = int(self.labels.max()) + 1
        self.store, self.training = ColumnStore(design), TrainingColumns(design, folds)
        self.null, self.coef_scale = np.zeros((design.rows, self.outputs)), 1.0
        self.losses = []
        for number, held in enumerate(folds.held):
            weights = design.weights.copy()
            weights[held] = 0.0
            total = float(weights.sum())
            weights /= total if total > 0 else 1.0
            sizes = partial(self.training.sizes, number)
            self.losses.append(
                _SoftmaxLoss(self.store, self.labels, weights, self.outputs, sizes, fit_intercept=fit_intercept)
            )

    @property
    def objective_scale(self) -> tuple[float, float]:
        """Two factors that bring a scaled loss to the unit of the objective."""
        return 1.0, 1.0

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
        on = snapshot.u != 0
        features, classes = coordinates[on] // self.outputs, coordinates[on] % self.outputs
        index, rows = np.unique(features, return_inverse=True)
        values = np.zeros((index.size, self.outputs))
        values[rows, classes] = snapshot.u[on]
        held, held_loss = self.folds.held[number], 0.0
        if held.size:
            f = snapshot.point.predictor[held]
            room = np.empty_like(f)
            held_loss = softmax(self.labels[held], f, self.design.weights[held], room, np.empty_like(f))
        intercept = np.zeros(self.outputs)
        if self.fit_intercept:
            # Sparse columns are not centered in the predictor.
            taken = self.design.shift[index] if self.design.is_sparse else self.design.origin(index)
            intercept = snapshot.offset - taken @ values
            intercept = intercept - intercept.mean()
        penalized = np.abs(values) * self.training.units(number, terms)[index][:, None]
        factor = np.repeat(terms.factor[index], self.outputs)
        return Solution(
            index=index,
            coef=values / self.design.scale[index][:, None],
            intercept=intercept,
            objective=snapshot.point.loss + terms.value(penalized.ravel(), factor, alpha),
            violation=snapshot.violation,
            converged=converged,
            held_out=float(held_loss),
        )
