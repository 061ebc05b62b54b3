"""How alpha, the penalty and its width are chosen."""

from __future__ import annotations

import math
import warnings
from dataclasses import replace
from typing import Any, Self

import numpy as np
import numpy.typing as npt
from sklearn.base import is_classifier
from sklearn.exceptions import ConvergenceWarning
from sklearn.utils.validation import check_is_fitted

from .._core import checks
from ..errors import InvalidArgumentError, UnknownNameError
from ..penalties import Lasso
from ..penalties import penalty as penalty_named
from ._estimator import Data, SparseEstimator, unpenalized
from ._losses import LOSSES
from ._path import assemble
from ._seeds import random_source
from ._selection import cannot_reach, extended_bic, has_risen, one_standard_error
from ._shapes import candidates, path_alphas
from ._solution import Solution
from ._splits import CrossValidation
from ._stability import selection_frequencies
from ._terms import Terms
from ._threads import single_threaded

__all__ = ["SparseChooser"]

Floats = npt.NDArray[np.float64]

_CRITERIA = ("cv", "bic", "ebic", "stability")
_RULES = ("min", "1se")
_GAMMA = {"bic": 0.0, "ebic": 0.5}
# Entry threshold of the last alpha relative to that of the first.
_RATIO = {True: 0.02, False: 0.05}
# Targets beyond it, or all below its inverse, have squares that cannot be added up.
_LARGEST = 1e150


class SparseChooser(SparseEstimator):
    """Shared by the estimators that choose."""

    shapes: Any
    alphas: Any
    n_alphas: Any
    alpha_min_ratio: Any
    criterion: Any
    rule: Any
    cv: Any
    threshold: Any

    @single_threaded
    def fit(self, X: Any, y: Any, sample_weight: Any = None) -> Self:
        """Choose and fit.

        Parameters
        ----------
        X : array, data frame or sparse matrix of shape (n_samples, n_features)
        y : array of shape (n_samples,)
        sample_weight : array of shape (n_samples,), optional
            At least 0; a row of weight 2 counts as two rows, both in the same fold.

        Returns
        -------
        self

        Raises
        ------
        ValueError
            Bad shapes, NaN or infinity, parameters that are not allowed.
        """
        self._check_choices()
        data = self._data(X, y, sample_weight)
        if self.criterion == "stability":
            self._fit_stable(data)
            return self
        if self.criterion == "cv":
            _require_squares(data)
            from sklearn.model_selection import check_cv

            splitter = check_cv(self.cv, data.y, classifier=is_classifier(self))
            self._validation: CrossValidation | None = CrossValidation(data, splitter.split(data.X, data.y))
            problem = self._validation.problem
        else:
            self._validation = None
            problem = data.problem()
        problem.design.require_range(standardize=bool(self.standardize))
        try:
            self._choose(data, problem)
        finally:
            del self._validation
            self.__dict__.pop("_solved", None)
        return self

    def _check_choices(self) -> None:
        if self.criterion not in _CRITERIA:
            raise UnknownNameError("criterion", str(self.criterion), _CRITERIA)
        if self.rule not in _RULES:
            raise UnknownNameError("rule", str(self.rule), _RULES)
        checks.count("n_alphas", self.n_alphas)
        if self.alpha_min_ratio is not None:
            checks.fraction("alpha_min_ratio", self.alpha_min_ratio, zero=False, one=False)
        if self.alphas is not None:
            grid = np.asarray(self.alphas, dtype=np.float64)
            if grid.ndim != 1 or grid.size == 0 or not (np.isfinite(grid).all() and (grid > 0).all()):
                raise InvalidArgumentError(f"alphas must hold positive, finite numbers, got {self.alphas!r}")
        if not checks.is_number(self.threshold) or not 0.5 < float(self.threshold) <= 1:
            raise InvalidArgumentError(f"threshold must be above 0.5 and at most 1, got {self.threshold!r}")

    # ------------------------------------------------------------------ over shapes and alphas
    def _choose(self, data: Data, problem: Any) -> None:
        features = data.X.shape[1]
        first = self.penalty[0] if isinstance(self.penalty, list | tuple) and self.penalty else self.penalty
        # Candidates refuse an empty list, and then put their own penalty in its place.
        terms = self._terms(Lasso() if isinstance(first, list | tuple) else penalty_named(first), features)
        shapes = candidates(self.penalty, self.shapes, problem, terms)
        before = problem.design.passes
        self._solved: list[npt.NDArray[np.bool_]] = []
        found: list[tuple[Terms, Floats, list[Solution], Floats, Floats]] = []
        for shape in shapes:
            here = self._limited(replace(terms, penalty=shape))
            alphas = self._grid(problem, here, data)
            # Where the number of features is bounded, the lowest value of another shape may be one of too many.
            best = self._needed(found) if self.target_features is None else math.inf
            solutions, errors, spread = self._measured(data, problem, here, alphas, best)
            found.append((here, alphas, solutions, errors, spread))
        width = max(alphas.size for _, alphas, _, _, _ in found)
        self.shapes_ = shapes
        self.shape_alphas_ = np.stack([_padded(alphas, width) for _, alphas, _, _, _ in found])
        table = np.stack([_padded(errors, width) for _, _, _, errors, _ in found])
        spreads = np.stack([_padded(spread, width) for _, _, _, _, spread in found])
        if self.criterion == "cv":
            self.cv_errors_, self.cv_standard_errors_ = table, spreads
        else:
            self.criterion_values_ = table
        allowed = self._allowed(found, table)
        if not np.isfinite(allowed).any():
            raise InvalidArgumentError(
                "no alpha has a finite value to choose by: losses leave the range of a double, or every path has too "
                "many features; give y or X in another unit, or other alphas"
            )
        self.shape_, place = (int(part) for part in np.unravel_index(int(np.nanargmin(allowed)), allowed.shape))
        if self.criterion == "cv" and self.rule == "1se":
            features_of = np.zeros(table.shape, np.int64)
            for row, (_, _, solutions, _, _) in enumerate(found):
                features_of[row, : len(solutions)] = [solution.index.size for solution in solutions]
            self.shape_, place = one_standard_error(allowed, spreads, features_of)
        here, alphas, solutions, _, _ = found[self.shape_]
        self.path_ = assemble(solutions, alphas, features, problem.design.passes)
        self.alphas_ = alphas[: len(solutions)]
        passes = math.ceil(problem.design.passes - before)
        self._store(data, problem.design, here, solutions[place], float(alphas[place]), passes)
        if self._solved and not self._solved[self.shape_][place]:
            warnings.warn(
                f"the cross-validated error of the chosen alpha={self.alpha_:.4g} rests on folds that were not solved "
                f"to tol={self.tol:g}: their rows lack a class or all counts, or need more than {self.max_iter} "
                "iterations; use stratified or fewer folds, or raise max_iter",
                ConvergenceWarning,
                stacklevel=3,
            )

    def _needed(self, found: Any) -> float:
        """The value that another shape must get below to be chosen."""
        lowest, spread = min(
            ((float(errors.min()), float(spread[errors.argmin()])) for _, _, _, errors, spread in found),
            default=(math.inf, 0.0),
        )
        return lowest + spread if self.criterion == "cv" and self.rule == "1se" else lowest

    def _limited(self, terms: Terms) -> Terms:
        """Folds may have some more features than are wanted in the end."""
        if self.target_features is None:
            return terms
        wanted = min(int(self.target_features), terms.factor.size)
        return replace(terms, max_features=max(2 * wanted, wanted + 10))

    def _grid(self, problem: Any, terms: Terms, data: Data) -> Floats:
        if self.alphas is not None:
            return np.sort(np.asarray(self.alphas, dtype=np.float64))[::-1].copy()
        ratio = self.alpha_min_ratio
        if ratio is None:
            ratio = _RATIO[data.X.shape[0] > data.X.shape[1]]
        return path_alphas(problem, terms, int(self.n_alphas), float(ratio))

    def _measured(
        self, data: Data, problem: Any, terms: Terms, alphas: Floats, best: float
    ) -> tuple[list[Solution], Floats, Floats]:
        """The path on all rows, the values to choose by, and their standard errors."""
        if self._validation is not None:
            solutions, errors, solved = self._validation.solve(terms, alphas, best)
            self._solved.append(solved)
            return solutions, *self._validation.mean(errors)
        gamma = _GAMMA[self.criterion]
        most = max(1, int(min(data.X.shape[0], data.total)) // 2)
        limit = most if terms.max_features is None else min(most, terms.max_features)
        features = data.X.shape[1]

        def values(solutions: list[Solution]) -> Floats:
            return extended_bic(data, assemble(solutions, alphas, features, 0.0), gamma)

        def stop(solutions: list[list[Solution]]) -> bool:
            so_far = values(solutions[0])
            return has_risen(so_far) or cannot_reach(so_far, alphas.size, best)

        [solutions] = problem.solve(replace(terms, max_features=limit), alphas, stop=stop)
        result = values(solutions)
        return solutions, result, np.full(result.size, np.nan)

    def _allowed(self, found: Any, table: Floats) -> Floats:
        """The values to choose by, without those of too many features."""
        if self.target_features is None:
            return table
        allowed = table.copy()
        for row, (_, _, solutions, _, _) in enumerate(found):
            for k, solution in enumerate(solutions):
                if solution.index.size > self.target_features:
                    allowed[row, k] = np.nan
        if np.isnan(allowed).all():
            raise InvalidArgumentError(
                f"no solution on the path has at most target_features={self.target_features} features; ask for more, "
                "or give larger alphas"
            )
        return allowed

    # ------------------------------------------------------------------ stability
    def _fit_stable(self, data: Data) -> None:
        if self.shapes is not None or isinstance(self.penalty, list | tuple):
            raise InvalidArgumentError("criterion='stability' takes one penalty, and shapes=None")
        features = data.X.shape[1]
        problem = data.problem()
        problem.design.require_range(standardize=bool(self.standardize))
        terms = self._terms(candidates(self.penalty, None, problem, None)[0], features)  # type: ignore[arg-type]
        ratio = self.alpha_min_ratio or _RATIO[data.X.shape[0] > features]
        self.selection_frequencies_ = selection_frequencies(
            data, terms, random_source(self.random_state), n_alphas=int(self.n_alphas), ratio=float(ratio)
        )
        stable = np.flatnonzero((self.selection_frequencies_ >= self.threshold) | (terms.factor == 0))
        if self.target_features is not None and stable.size > self.target_features:
            order = np.argsort(-self.selection_frequencies_[stable], kind="stable")
            stable = np.sort(stable[order[: self.target_features]])
        alphas = self._grid(problem, terms, data)
        [solutions] = problem.solve(replace(terms, max_features=max(1, features // 2)), alphas)
        self.path_ = assemble(solutions, alphas, features, problem.design.passes)
        self.alphas_ = self.path_.alphas
        chosen = unpenalized(data, terms, stable)
        if chosen is None:
            chosen, alpha = solutions[0], float(alphas[0])
        else:
            alpha = 0.0
        self._store(data, problem.design, terms, chosen, alpha, math.ceil(problem.design.passes))

    # ------------------------------------------------------------------ looking
    def plot(self, ax: Any = None) -> Any:
        """Draw the coefficients along ``path_`` and mark the chosen alpha; needs matplotlib.

        Parameters
        ----------
        ax : matplotlib Axes, optional
            By default those of a new figure, which ``ax.figure`` is.

        Returns
        -------
        matplotlib Axes
        """
        from ._plot import plot_path

        check_is_fitted(self)
        return plot_path(self.path_, ax, chosen=self.alpha_, names=getattr(self, "feature_names_in_", None))


def _require_squares(data: Data) -> None:
    """Raise where held-out losses that go with the square of y leave the range of a double."""
    size = float(np.abs(data.y).max(initial=0.0))
    if LOSSES[data.loss].degree == 2 and (size > _LARGEST or 0 < size < 1 / _LARGEST):
        raise InvalidArgumentError(
            f"y has numbers of about {size:.1g}, whose squares leave the range of a double, so that errors cannot be "
            "compared; give y in another unit"
        )


def _padded(values: Floats, width: int) -> Floats:
    result = np.full(width, np.nan)
    result[: values.size] = values
    return result
