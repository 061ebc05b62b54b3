"""Coefficient paths: the solutions for a descending sequence of alphas."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import scipy.sparse as sp

from ..errors import InvalidArgumentError
from ..penalties import Penalty
from ..penalties import penalty as penalty_named
from ._code import makes_zeros
from ._problem import make_problem
from ._solution import Solution
from ._terms import Terms

__all__ = ["SparsePath", "log_alphas", "sparse_path"]

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class SparsePath:
    """Solutions along a path, from the strongest alpha to the weakest.

    Attributes
    ----------
    alphas : array of shape (n_alphas,)
        Those solved, descending.
    coefs : CSR array of shape (n_alphas, n_features), or dense array of shape (n_alphas, n_outputs, n_features)
    intercepts : array of shape (n_alphas,) or (n_alphas, n_outputs)
    objectives : array of shape (n_alphas,)
        Mean loss plus penalty.
    violations : array of shape (n_alphas,)
        Of the first-order conditions, relative to the largest gradient at zero.
    converged : bool array of shape (n_alphas,)
        Whether the violation is within the tolerance.
    passes : float
        Products with all of X, in columns of the right-hand side.
    """

    alphas: Floats
    coefs: Any
    intercepts: Floats
    objectives: Floats
    violations: Floats
    converged: npt.NDArray[np.bool_]
    passes: float

    @property
    def is_sparse(self) -> bool:
        """Whether ``coefs`` is a sparse array, as it is for one output."""
        return bool(sp.issparse(self.coefs))

    def coef(self, k: int) -> Floats:
        """Coefficients at the k-th alpha, (n_features,) or (n_outputs, n_features)."""
        part: Floats = self.coefs[[k]].toarray()[0] if self.is_sparse else self.coefs[k]
        return part

    @property
    def n_features(self) -> npt.NDArray[np.int64]:
        """Number of features with a nonzero coefficient at every alpha."""
        counts = np.diff(self.coefs.indptr) if self.is_sparse else (self.coefs != 0).any(axis=1).sum(axis=1)
        return np.asarray(counts, dtype=np.int64)


def sparse_path(
    X: Any,
    y: Any,
    penalty: str | Penalty = "log-sum",
    *,
    loss: str = "squared",
    alphas: Sequence[float] | Floats | None = None,
    n_alphas: int = 50,
    alpha_min_ratio: float = 0.02,
    width: Literal["fixed", "alpha"] = "fixed",
    sample_weight: Any = None,
    penalty_factor: Any = None,
    fit_intercept: bool = True,
    positive: bool = False,
    standardize: bool = False,
    max_features: int | None = None,
    tol: float = 1e-6,
    max_iter: int = 1000,
) -> SparsePath:
    chosen = penalty_named(penalty)
    X, y, weights = _checked(X, y, sample_weight)
    if not makes_zeros(chosen):
        raise InvalidArgumentError(f"{chosen!r} makes no exact zeros, so that it has no path of supports")
    factor = np.ones(X.shape[1]) if penalty_factor is None else np.asarray(penalty_factor, dtype=np.float64)
    terms = Terms(chosen, factor, width, fit_intercept, positive, standardize, tol, max_iter, max_features)
    problem = make_problem(loss, X, y, weights, fit_intercept=fit_intercept)
    grid = (
        log_alphas(problem.largest_alpha(terms), n_alphas, alpha_min_ratio) if alphas is None else np.sort(alphas)[::-1]
    )
    grid = np.ascontiguousarray(grid, dtype=np.float64)
    [solutions] = problem.solve(terms, grid)
    return assemble(solutions, grid, X.shape[1], problem.design.passes)


def log_alphas(largest: float, count: int, ratio: float) -> Floats:
    """Descending alphas, evenly spaced in their logarithm."""
    if largest <= 0 or not np.isfinite(largest):
        return np.ones(1)
    grid: Floats = largest * np.geomspace(1.0, ratio, count)
    return grid


def assemble(solutions: list[Solution], alphas: Floats, features: int, passes: float) -> SparsePath:
    """Solutions as one path."""
    count = len(solutions)
    pointer = np.concatenate([[0], np.cumsum([s.index.size for s in solutions])])
    empty = np.zeros(0)
    coefs = sp.csr_array(
        (
            np.concatenate([empty, *(s.coef for s in solutions)]),
            np.concatenate([empty.astype(np.int64), *(s.index for s in solutions)]),
            pointer,
        ),
        shape=(count, features),
    )
    return SparsePath(
        alphas=alphas[:count],
        coefs=coefs,
        intercepts=np.array([s.intercept for s in solutions]),
        objectives=np.array([s.objective for s in solutions]),
        violations=np.array([s.violation for s in solutions]),
        converged=np.array([s.converged for s in solutions], dtype=np.bool_),
        passes=passes,
    )


def _checked(X: Any, y: Any, sample_weight: Any) -> tuple[Any, Floats, Floats]:
    from sklearn.utils import check_X_y
    from sklearn.utils.validation import _check_sample_weight

    X, y = check_X_y(X, y, accept_sparse="csc", dtype=[np.float64, np.float32], y_numeric=True)
    weights = _check_sample_weight(sample_weight, X, dtype=np.float64, ensure_non_negative=True)
    return X, np.asarray(y, dtype=np.float64), weights / weights.sum()
