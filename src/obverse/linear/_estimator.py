"""What all estimators share: data and parameters checked, solved, and stored as scikit-learn stores them."""

from __future__ import annotations

import warnings
from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import scipy.sparse as sp
from sklearn.utils.validation import check_is_fitted, validate_data

from .._core import checks
from ..errors import InvalidArgumentError, UnknownNameError
from ..penalties import Lasso, Penalty
from ..penalties import penalty as penalty_named
from ._design import Design
from ._offsets import canonical
from ._path import checked_factor, checked_weights
from ._penalty_parameters import PenaltyParameters
from ._problem import Problem, make_problem
from ._solution import Solution
from ._terms import MOST_ITERATIONS, Terms
from ._working_set import Folds

if TYPE_CHECKING:
    from ._summary import Summary

__all__ = ["Data", "SparseEstimator", "require_alpha", "unpenalized"]

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Data:
    """Checked data of a fit.

    Attributes
    ----------
    X : dense array or CSC matrix of shape (n, p)
    y : array of shape (n,) or (n, m)
        As the solvers take it.
    weights : array of shape (n,)
        Of sum 1.
    total : float
        Sum of the weights as given: the number of rows, where rows were repeated instead.
    loss : str
    groups : list of integer arrays, or None
    delta : float
    fit_intercept : bool
    """

    X: Any
    y: Floats
    weights: Floats
    total: float
    loss: str
    groups: Sequence[Any] | None
    delta: float
    fit_intercept: bool

    def problem(self, folds: Folds | None = None) -> Problem:
        """The problem on these data."""
        return make_problem(
            self.loss,
            self.X,
            self.y,
            self.weights,
            fit_intercept=self.fit_intercept,
            folds=folds,
            groups=self.groups,
            delta=self.delta,
        )

    def rows(self, index: Any) -> Data:
        """Some of the rows, in the order given."""
        weights = self.weights[index]
        total = float(weights.sum())
        if not total > 0:
            raise InvalidArgumentError("all rows of a fold have sample_weight 0; use fewer folds or other weights")
        return replace(self, X=self.X[index], y=self.y[index], weights=weights / total, total=self.total * total)

    def columns(self, index: Any) -> Data:
        """Some of the features, each on its own."""
        return replace(self, X=self.X[:, index], groups=None)


def require_alpha(alpha: Any, name: str = "alpha") -> float:
    """``alpha`` as a number.

    Raises
    ------
    InvalidArgumentError
        Not positive and finite.
    """
    if checks.is_number(alpha) and alpha == 0:
        raise InvalidArgumentError(
            f"{name} must be a positive, finite number, got {alpha!r}; without a penalty this is "
            "sklearn.linear_model's LinearRegression, PoissonRegressor(alpha=0) or LogisticRegression(C=inf)"
        )
    return checks.positive(name, alpha)


def unpenalized(data: Data, terms: Terms, index: npt.NDArray[np.int64]) -> Solution | None:
    """The fit of some features without a penalty; None where there are none."""
    if index.size == 0:
        return None
    part = data.columns(index)
    free = replace(terms, penalty=Lasso(), factor=np.zeros(index.size), width="fixed", max_features=None)
    solution = part.problem().solve(free, np.ones(1))[-1][-1]
    return replace(solution, index=index[solution.index])


class SparseEstimator(PenaltyParameters):
    """Shared by regression and classification, at one alpha and over a path.

    Subclasses give `_target`, which checks y, and `_place`, which stores coefficients in their shape.
    """

    penalty: Any
    width: Any
    groups: Any
    penalty_factor: Any
    fit_intercept: Any
    positive: Any
    standardize: Any
    target_features: Any
    refit: Any
    tol: Any
    max_iter: Any
    random_state: Any

    _several_outputs = False

    # ------------------------------------------------------------------ for subclasses
    @abstractmethod
    def _target(self, y: Any, weights: Floats) -> tuple[Floats, str]:
        """y as the solvers take it, and the loss."""

    @abstractmethod
    def _outputs(self) -> int:
        """Rows of ``coef_``; 0 where it has one dimension."""

    # ------------------------------------------------------------------ checking
    def _data(self, X: Any, y: Any, sample_weight: Any) -> Data:
        self._check_parameters()
        X, y = validate_data(
            self,
            X,
            y,
            accept_sparse="csc",
            dtype=[np.float64, np.float32],
            multi_output=self._several_outputs,
            y_numeric=False,
        )
        X = canonical(X)
        weights, total = checked_weights(sample_weight, X)
        target, loss = self._target(y, weights)
        delta = getattr(self, "delta", 1.35)
        return Data(
            X, target, weights, total, loss, self._groups(X.shape[1]), float(delta),
            bool(self.fit_intercept),
        )  # fmt: skip

    def _check_parameters(self) -> None:
        if self.width not in ("fixed", "alpha"):
            raise UnknownNameError("width", str(self.width), ("fixed", "alpha"))
        for name in ("fit_intercept", "positive", "standardize", "refit"):
            if not isinstance(getattr(self, name), bool | np.bool_ | int):
                raise InvalidArgumentError(f"{name} must be True or False, got {getattr(self, name)!r}")
        checks.positive("tol", self.tol)
        checks.count("max_iter", self.max_iter)
        if self.target_features is not None:
            checks.count("target_features", self.target_features)
        checks.positive("delta", getattr(self, "delta", 1.35))

    def _groups(self, features: int) -> Sequence[Any] | None:
        if getattr(self, "groups", None) is None:
            return None
        found = [np.asarray(group) for group in self.groups]
        together = np.concatenate([group.ravel() for group in found]) if found else np.zeros(0, np.int64)
        if together.size and not np.issubdtype(together.dtype, np.integer):
            raise InvalidArgumentError("groups must hold integers, the numbers of the features")
        if together.size and (together.min() < 0 or together.max() >= features):
            raise InvalidArgumentError(f"groups name features outside 0 ... {features - 1}")
        if np.unique(together).size < together.size:
            raise InvalidArgumentError("groups must be disjoint; a feature is named twice")
        return [group.ravel().astype(np.int64) for group in found]

    def _terms(self, penalty: Penalty, features: int) -> Terms:
        return Terms(
            penalty,
            checked_factor(self.penalty_factor, features),
            self.width,
            bool(self.fit_intercept),
            bool(self.positive),
            bool(self.standardize),
            float(self.tol),
            min(int(self.max_iter), MOST_ITERATIONS),
        )

    def _penalty(self) -> Penalty:
        return penalty_named(self.penalty)

    # ------------------------------------------------------------------ storing
    def _store(
        self, data: Data, design: Design, terms: Terms, solution: Solution, alpha: float, iterations: int
    ) -> None:
        """Keep a solution, after the unpenalized fit of its support where that is asked for."""
        self.alpha_ = alpha
        self.penalty_ = terms.penalty
        self.n_iter_ = max(1, iterations)
        self.objective_ = solution.objective
        self.violation_ = solution.violation
        self.converged_ = solution.converged
        self._deviation = _deviation(design)
        self._size = np.sqrt(design.spread) * design.scale
        self._loss = data.loss
        self.coef_, self.intercept_ = self._placed(data, solution)
        if self.refit:
            self.coef_penalized_, self.intercept_penalized_ = self.coef_, self.intercept_
            again = unpenalized(data, terms, solution.index)
            if again is not None:
                self.coef_, self.intercept_ = self._placed(data, again)
                self.converged_ = self.converged_ and again.converged
                self.violation_ = max(self.violation_, again.violation)
        if not self.converged_:
            self._warn()

    def _placed(self, data: Data, solution: Solution) -> tuple[Any, Any]:
        features, outputs, dtype = data.X.shape[1], self._outputs(), data.X.dtype
        coef = np.zeros((max(outputs, 1), features))
        coef[:, solution.index] = solution.coef.T
        intercept = np.asarray(solution.intercept, dtype=np.float64)
        if outputs == 0:
            return coef[0].astype(dtype), float(intercept)
        return coef.astype(dtype), np.broadcast_to(np.atleast_1d(intercept), (outputs,)).astype(dtype)

    def _warn(self) -> None:
        from sklearn.exceptions import ConvergenceWarning

        name = type(self).__name__
        if self.violation_ <= self.tol:
            # The conditions hold only because the gradient fades as the scores grow: there is no minimum nearby.
            message = (
                f"{name} meets the first-order conditions (violation {self.violation_:.1e}, tol={self.tol:g}), but the "
                "loss has no minimum there: coefficients or intercept would keep growing, as the classes can be "
                "separated or one is missing, or all counts are zero, and the penalty does not hold them back. Use a "
                "penalty that grows without bound, such as 'lasso' or 'log-sum', or leave out refit or the intercept."
            )
        else:
            message = (
                f"{name} stopped at a violation of the first-order conditions of {self.violation_:.1e}, above "
                f"tol={self.tol:g}. Raise max_iter (now {self.max_iter}) or alpha, or accept a larger tol; columns "
                "that nearly depend on each other and classes that can be separated make small alphas hard."
            )
        warnings.warn(
            message,
            ConvergenceWarning,
            stacklevel=3,
        )

    # ------------------------------------------------------------------ using
    def _decision(self, X: Any) -> Any:
        """``X w + b``, (n,) or (n, outputs)."""
        check_is_fitted(self)
        X = validate_data(self, X, accept_sparse="csr", dtype=[np.float64, np.float32], reset=False)
        product: Any = X @ self.coef_.T
        is_sparse: bool = sp.issparse(product)
        return np.asarray(product.toarray() if is_sparse else product) + self.intercept_

    def summary(self) -> Summary:
        """The fit as a table: coefficients, their importance, keep probabilities of the dual dropout.

        Returns
        -------
        Summary
            Prints as text and, in a notebook, as HTML; ``to_dict()`` gives plain values.
        """
        from ._summary import summarize

        check_is_fitted(self)
        return summarize(self)

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.sparse = True
        return tags


def _deviation(design: Design) -> Floats:
    """Standard deviation of every column, weighted."""
    variance = design.spread if design.centered else np.clip(design.spread - design.mean**2, 0.0, None)
    return np.asarray(np.sqrt(variance) * design.scale)
