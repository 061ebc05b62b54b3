"""Coefficient paths: the solutions for a descending sequence of alphas."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import scipy.sparse as sp

from .._core import checks
from ..errors import InvalidArgumentError, UnknownNameError
from ..penalties import Penalty
from ..penalties import penalty as penalty_named
from ._code import makes_zeros
from ._offsets import canonical
from ._problem import Problem, make_problem
from ._solution import Solution
from ._squared import SquaredProblem
from ._terms import MOST_ITERATIONS, Terms
from ._threads import single_threaded

__all__ = ["SparsePath", "assemble", "checked_factor", "checked_weights", "log_alphas", "solve_at", "sparse_path"]

Floats = npt.NDArray[np.float64]

# Stations per decade on the way to a single alpha.
_STATIONS = 8
# So near to the largest no station is needed.
_NEAR = 0.7


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

    def plot(self, ax: Any = None, *, chosen: float | None = None, names: Any = None) -> Any:
        """Draw the coefficients against alpha; of several outputs, the norms of the features' coefficients.

        Parameters
        ----------
        ax : matplotlib Axes, optional
            By default those of a new figure.
        chosen : float, optional
            An alpha to mark.
        names : sequence of str, optional
            Of the features.

        Returns
        -------
        matplotlib Axes
        """
        from ._plot import plot_path

        return plot_path(self, ax, chosen=chosen, names=names)


@single_threaded
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
    groups: Sequence[Any] | None = None,
    max_features: int | None = None,
    delta: float = 1.35,
    tol: float = 1e-6,
    max_iter: int = 1000,
) -> SparsePath:
    """Solutions of ``mean loss + alpha * sum_j factor_j Omega(w_j)`` for a descending sequence of alphas.

    The mean is weighted by ``sample_weight``; the loss is half the squared error, or one of the other losses.

    Parameters
    ----------
    X : array or CSR/CSC matrix of shape (n_samples, n_features)
        float32 or float64; neither copied, centered nor scaled.
    y : array of shape (n_samples,) or (n_samples, n_outputs)
        With several outputs the penalty applies to the norm of each feature's row of coefficients.
    penalty : str or Penalty
        One that makes exact zeros.
    loss : {"squared", "huber", "poisson", "logistic", "multinomial"}
        Classes are 0 and 1 (logistic), or 0 ... K-1 (multinomial).
    alphas : sequence of float, optional
        At least 0; solved from the largest to the smallest. By default ``n_alphas``, evenly spaced in their logarithm,
        from the smallest at which all coefficients are zero down to ``alpha_min_ratio`` of it.
    width : {"fixed", "alpha"}
        ``alpha * Omega(w)``, or ``alpha**2 * Omega(w / alpha)``, which is the usual convention for MCP and SCAD.
    sample_weight : array of shape (n_samples,), optional
    penalty_factor : array of shape (n_features,), optional
        Multiplies each feature's penalty; 0 leaves it unpenalized.
    fit_intercept : bool
        The intercept is not penalized.
    positive : bool
        Whether coefficients may not be negative.
    standardize : bool
        Whether the penalty applies to coefficients times their columns' standard deviation.
    groups : sequence of integer arrays, optional
        Disjoint sets of features; the penalty applies to the norm of each set's coefficients. Features in none of them
        stand alone.
    max_features : int, optional
        The path ends at the first solution with more nonzero coefficients.
    delta : float
        Residual from which the Huber loss is linear, in the unit of y.
    tol : float
        Largest violation of the first-order conditions, relative to the largest gradient at zero.
    max_iter : int
        Passes over the working set for one alpha.

    Returns
    -------
    SparsePath

    Raises
    ------
    ValueError
        Bad shapes, NaN or infinity, negative weights or alphas, a penalty without exact zeros, an unknown name.

    Notes
    -----
    A solution is a point that no single coefficient can leave with profit: every zero is the global minimizer of its
    own scalar problem, which for penalties that jump (a large alpha, a narrow width) is stricter than a small gradient.
    Between neighbors on the path solutions are continued, working sets grow by screening against the exact gradient,
    and descent alternates coordinate epochs with damped Newton steps on the support. Source: derived; the rule on zeros
    and the working sets' Gram matrices follow the measurements in the documentation of the benchmarks.
    """
    checks.positive("tol", tol)
    checks.positive("delta", delta)
    checks.count("max_iter", max_iter)
    if width not in ("fixed", "alpha"):
        raise UnknownNameError("width", str(width), ("fixed", "alpha"))
    chosen = penalty_named(penalty)
    if not makes_zeros(chosen):
        raise InvalidArgumentError(
            f"{chosen!r} makes no exact zeros, so that it has no path of supports; SparseRegressor fits it at one alpha"
        )
    X, y, weights = _checked(X, y, sample_weight, loss)
    factor = checked_factor(penalty_factor, X.shape[1])
    if max_features is not None:
        max_features = min(checks.count("max_features", max_features), X.shape[1])
    terms = Terms(
        penalty=chosen,
        factor=factor,
        width=width,
        fit_intercept=bool(fit_intercept),
        positive=bool(positive),
        standardize=bool(standardize),
        tol=float(tol),
        max_iter=min(int(max_iter), MOST_ITERATIONS),
        max_features=max_features,
    )
    problem = make_problem(loss, X, y, weights, fit_intercept=fit_intercept, groups=groups, delta=delta)
    problem.design.require_range(standardize=terms.standardize)
    if alphas is None:
        checks.count("n_alphas", n_alphas)
        checks.fraction("alpha_min_ratio", alpha_min_ratio, zero=False, one=False)
        grid = log_alphas(problem.largest_alpha(terms), n_alphas, alpha_min_ratio)
    else:
        grid = np.sort(np.asarray(alphas, dtype=np.float64).ravel())[::-1].copy()
        if grid.size == 0 or not (np.isfinite(grid).all() and grid[-1] >= 0):
            raise InvalidArgumentError(f"alphas must be finite and at least 0, and there must be one; got {alphas!r}")
    [solutions] = _continued(problem, terms, grid) if max_features is None else problem.solve(terms, grid)
    return assemble(solutions, grid, X.shape[1], problem.design.passes)


def checked_factor(penalty_factor: Any, features: int) -> Floats:
    """The factors as an array, 1 where none are given.

    Raises
    ------
    InvalidArgumentError
        Not one number for every feature, or one that is negative or not finite.
    """
    if penalty_factor is None:
        return np.ones(features)
    factor = np.array(penalty_factor, dtype=np.float64)
    if factor.shape != (features,) or not (np.isfinite(factor).all() and (factor >= 0).all()):
        raise InvalidArgumentError(
            f"penalty_factor must hold {features} finite numbers, at least 0, one for every feature; "
            f"got an array of shape {factor.shape}"
        )
    return factor


def checked_weights(sample_weight: Any, X: Any) -> tuple[Floats, float]:
    """Weights of sum 1, one for each row, and their sum as given.

    Raises
    ------
    ValueError
        Not one finite number, at least 0, for every row, or none that is positive.
    """
    from sklearn.utils.validation import _check_sample_weight

    weights = _check_sample_weight(sample_weight, X, dtype=np.float64, ensure_non_negative=True)
    size = float(weights.max())
    if not size > 0:
        raise InvalidArgumentError("sample_weight must hold a positive number")
    total = float((weights / size).sum())
    if total * size == math.inf:
        raise InvalidArgumentError("the sum of sample_weight leaves the range of a double; divide the weights")
    return weights / size / total, total * size


def solve_at(problem: Problem, terms: Terms, alpha: float) -> Solution:
    """The solution for one alpha, continued from the largest."""
    return _continued(problem, replace(terms, max_features=None), np.array([alpha]))[-1][-1]


def _continued(problem: Problem, terms: Terms, alphas: Floats) -> list[list[Solution]]:
    """Solutions of every fold for descending ``alphas``, the first continued from the largest alpha."""
    before = _approach(problem, terms, float(alphas[0]))
    if isinstance(problem, SquaredProblem):
        return problem.solve_from(before, terms, alphas)
    return [part[before.size :] for part in problem.solve(terms, np.concatenate([before, alphas]))]


def _approach(problem: Problem, terms: Terms, alpha: float) -> Floats:
    """Alphas on the way from the largest to ``alpha``, both excluded; none where the way is short."""
    largest = problem.largest_alpha(terms)
    if not 0 < alpha < largest * _NEAR or not largest < math.inf:
        return np.zeros(0)
    return np.geomspace(largest, alpha, 1 + math.ceil(_STATIONS * math.log10(largest / alpha)))[1:-1]


def log_alphas(largest: float, count: int, ratio: float) -> Floats:
    """Descending alphas, evenly spaced in their logarithm."""
    if largest <= 0 or not np.isfinite(largest):
        return np.ones(1)
    grid: Floats = largest * np.geomspace(1.0, ratio, count)
    return grid


def assemble(solutions: list[Solution], alphas: Floats, features: int, passes: float) -> SparsePath:
    """Solutions as one path."""
    count = len(solutions)
    intercepts = np.array([s.intercept for s in solutions])
    coefs: Any
    if intercepts.ndim == 1:
        pointer = np.concatenate([[0], np.cumsum([s.index.size for s in solutions])])
        index, values = (np.concatenate(parts) for parts in zip(*((s.index, s.coef) for s in solutions), strict=True))
        coefs = sp.csr_array((values, index, pointer), shape=(count, features))
    else:
        coefs = np.zeros((count, intercepts.shape[1], features))
        for k, solution in enumerate(solutions):
            coefs[k][:, solution.index] = solution.coef.T
    return SparsePath(
        alphas=alphas[:count],
        coefs=coefs,
        intercepts=intercepts,
        objectives=np.array([s.objective for s in solutions]),
        violations=np.array([s.violation for s in solutions]),
        converged=np.array([s.converged for s in solutions], dtype=np.bool_),
        passes=passes,
    )


def _checked(X: Any, y: Any, sample_weight: Any, loss: str) -> tuple[Any, Floats, Floats]:
    from sklearn.utils import check_X_y

    X, y = check_X_y(X, y, accept_sparse="csc", dtype=[np.float64, np.float32], y_numeric=True, multi_output=True)
    y = np.asarray(y, dtype=np.float64)
    if loss == "logistic" and not np.isin(y, (0.0, 1.0)).all():
        raise InvalidArgumentError("loss='logistic' takes y of 0 and 1; SparseClassifier takes any two classes")
    if loss == "multinomial" and not ((y >= 0) & (y == np.floor(y)) & (y < y.size)).all():
        raise InvalidArgumentError("loss='multinomial' takes y of 0 ... K-1; SparseClassifier takes any classes")
    if loss == "poisson" and (y < 0).any():
        raise InvalidArgumentError(f"loss='poisson' takes y of at least 0, got {y.min()}")
    return canonical(X), y, checked_weights(sample_weight, X)[0]
