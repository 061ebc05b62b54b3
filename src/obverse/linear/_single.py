"""A fit at one alpha, or at the weakest with so many features."""

from __future__ import annotations

import hashlib
import math
from dataclasses import replace
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from ..errors import InvalidArgumentError, UnknownNameError
from ._code import makes_zeros
from ._design import Design
from ._estimator import Data, SparseEstimator, require_alpha
from ._path import solve_at
from ._problem import Problem
from ._seeds import seed_of
from ._solution import Solution
from ._terms import Terms
from ._threads import single_threaded

__all__ = ["SOLVERS", "SparseSingle", "with_features"]

SOLVERS = ("auto", "reweighted", "dropout")

# Alphas of the first path, and how far down it goes.
_STATIONS = 60
_DEPTHS = (1e-2, 1e-4, 1e-8)
# Alphas into which an interval is divided, and the ratio at which its ends are the same.
_PARTS = 10
_CLOSE = 1 + 1e-6
_ROUNDS = 12


class SparseSingle(SparseEstimator):
    """Fits with ``alpha`` or ``target_features``."""

    alpha: Any
    solver: Any
    warm_start: Any

    @single_threaded
    def fit(self, X: Any, y: Any, sample_weight: Any = None) -> Self:
        """Fit.

        Parameters
        ----------
        X : array, data frame or sparse matrix of shape (n_samples, n_features)
        y : array of shape (n_samples,)
        sample_weight : array of shape (n_samples,), optional
            At least 0; a row of weight 2 counts as two rows.

        Returns
        -------
        self

        Raises
        ------
        ValueError
            Bad shapes, NaN or infinity, parameters that are not allowed.
        """
        if self.target_features is None:
            require_alpha(self.alpha)
        if self.solver not in SOLVERS:
            raise UnknownNameError("solver", str(self.solver), SOLVERS)
        penalty = self._penalty()
        data = self._data(X, y, sample_weight)
        terms = self._terms(penalty, data.X.shape[1])
        if self.solver == "auto" and makes_zeros(penalty):
            problem = self._problem(data)
            problem.design.require_range(standardize=terms.standardize)
            before = problem.design.passes
            if self.target_features is None:
                alpha, solution = float(self.alpha), solve_at(problem, terms, float(self.alpha))
            else:
                alpha, solution = with_features(problem, terms, min(int(self.target_features), data.X.shape[1]))
            passes = problem.design.passes - before
            self._store(data, problem.design, terms, solution, alpha, math.ceil(passes))
        else:
            self._fit_otherwise(data, terms)
        return self

    # ------------------------------------------------------------------ the faces
    def _fit_otherwise(self, data: Data, terms: Terms) -> None:
        """By reweighting, or by training under dropout."""
        if data.loss == "multinomial" or data.y.ndim == 2 or data.groups is not None:
            what = "several classes" if data.loss == "multinomial" else "groups" if data.groups else "several outputs"
            raise InvalidArgumentError(
                f"{what} need solver='auto' and a penalty that makes exact zeros; got solver={self.solver!r} "
                f"and {terms.penalty!r}"
            )
        if self.target_features is not None:
            raise InvalidArgumentError(
                "target_features needs solver='auto' and a penalty that makes exact zeros, because it walks along a "
                f"path; got solver={self.solver!r} and {terms.penalty!r}"
            )
        start = self._start(data)
        alpha = float(self.alpha)
        if self.solver == "dropout":
            from ._masked import masked_solution

            masked = masked_solution(
                data.X, data.y, data.weights, terms, alpha, seed=seed_of(self.random_state), loss=data.loss, start=start
            )
            solution, iterations = masked.solution, masked.epochs
        else:
            from ._reweighted import reweighted_solutions

            [found] = reweighted_solutions(
                data.loss, data.X, data.y, data.weights, terms, np.array([alpha]), start=start, delta=data.delta
            )
            solution, iterations = found.solution, found.iterations
        design = Design(data.X, data.weights, centered=data.fit_intercept)
        self._store(data, design, terms, solution, alpha, iterations)

    def _start(self, data: Data) -> tuple[npt.NDArray[np.float64], float] | None:
        coef = getattr(self, "coef_", None)
        if not self.warm_start or coef is None or coef.shape[-1] != data.X.shape[1] or coef.size != coef.shape[-1]:
            return None
        if not coef.any():
            return None
        return coef.ravel().astype(np.float64), float(np.ravel(self.intercept_)[0])

    # ------------------------------------------------------------------ warm starts
    def _problem(self, data: Data) -> Problem:
        """The problem, or the one of the last fit where that had the same data."""
        if not self.warm_start:
            self._kept: tuple[bytes, Problem] | None = None
            return data.problem()
        digest = _digest(data)
        kept = getattr(self, "_kept", None)
        if kept is None or kept[0] != digest:
            kept = digest, data.problem()
        self._kept = kept
        return kept[1]

    def __getstate__(self) -> dict[str, Any]:
        state: dict[str, Any] = super().__getstate__()
        state.pop("_kept", None)
        return state


def _digest(data: Data) -> bytes:
    """Of everything that a problem is made of."""
    found = hashlib.blake2b(digest_size=16)
    parts = [data.X.data, data.X.indices, data.X.indptr] if hasattr(data.X, "indptr") else [data.X]
    for part in (*parts, data.y, data.weights):
        array = part if part.flags.c_contiguous else part.T
        found.update(np.ascontiguousarray(array).data)
        found.update(repr((part.shape, part.dtype, part.flags.c_contiguous)).encode())
    groups = None if data.groups is None else [group.tolist() for group in data.groups]
    found.update(repr((data.X.shape, data.loss, groups, data.delta, data.fit_intercept)).encode())
    return found.digest()


def with_features(problem: Problem, terms: Terms, features: int) -> tuple[float, Solution]:
    """The weakest alpha whose solution has at most ``features`` features with nonzero coefficients, and that solution.

    The path is followed until it has more; then the interval in which that happens is divided again and again, each
    time continued along the path, until its ends agree to six digits. Unpenalized features count.
    """
    free = int(np.count_nonzero((terms.factor == 0) & (problem.design.spread > 0)))
    if free > features:
        raise InvalidArgumentError(
            f"target_features={features} is less than the {free} features that penalty_factor leaves unpenalized"
        )
    largest = problem.largest_alpha(terms)
    if not 0 < largest < math.inf:
        return 1.0, problem.solve(replace(terms, max_features=None), np.ones(1))[-1][-1]
    ended = replace(terms, max_features=features)
    for depth in _DEPTHS:
        grid = largest * np.geomspace(1.0, depth, _STATIONS)
        path = problem.solve(ended, grid)[-1]
        if path[-1].index.size > features:
            break
        if path[-1].index.size == min(features, problem.design.columns):
            return float(grid[len(path) - 1]), path[-1]
    else:
        return float(grid[-1]), path[-1]
    for _ in range(_ROUNDS):
        place = max(0, len(path) - 2)
        above, below = grid[place], grid[len(path) - 1]
        if above <= below * _CLOSE:
            break
        grid = np.concatenate([grid[:place], np.geomspace(above, below, _PARTS + 1)])
        path = problem.solve(ended, grid)[-1]
        if path[-1].index.size <= features:
            break
    last = len(path) - 1 if path[-1].index.size <= features else len(path) - 2
    return float(grid[max(last, 0)]), path[max(last, 0)]
