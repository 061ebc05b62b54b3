"""Sparse regression as a scikit-learn estimator."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from sklearn.base import RegressorMixin
from sklearn.utils.validation import column_or_1d

from ..errors import InvalidArgumentError, UnknownNameError
from ..penalties import Penalty
from ..penalties import penalty as penalty_named
from ._code import makes_zeros
from ._estimator import SparseEstimator
from ._single import SparseSingle

__all__ = ["Regression", "SparseRegressor"]

Floats = npt.NDArray[np.float64]

_LOSSES = ("squared", "huber", "poisson")
# Targets beyond it, or all below its inverse, leave no room for the numbers of a solver.
_LARGEST = 1e300


class Regression(RegressorMixin, SparseEstimator):  # type: ignore[misc, unused-ignore]
    """What regression adds: numbers in y, predictions and scores."""

    loss: Any
    delta: Any

    @property
    def _several_outputs(self) -> bool:  # type: ignore[override]
        if self.loss != "squared" or getattr(self, "solver", "auto") != "auto":
            return False
        try:
            return all(makes_zeros(penalty_named(one)) for one in _listed(self.penalty))
        except InvalidArgumentError:
            return False

    def _target(self, y: Any, weights: Floats) -> tuple[Floats, str]:
        if self.loss not in _LOSSES:
            raise UnknownNameError("loss", str(self.loss), _LOSSES)
        y = np.asarray(y)
        if y.dtype.kind not in "fiub":
            try:
                if y.dtype.kind in "Mm":
                    raise TypeError
                y = y.astype(np.float64)
            except (TypeError, ValueError):
                raise InvalidArgumentError(
                    f"y must hold numbers for a regression, got an array of {y.dtype}; SparseClassifier takes classes"
                ) from None
        y = y.astype(np.float64)
        if not self._several_outputs:
            y = column_or_1d(y, warn=True)
        size = float(np.abs(y).max(initial=0.0))
        if size > _LARGEST or 0 < size < 1 / _LARGEST:
            raise InvalidArgumentError(f"y has numbers of about {size:.1g}, too far from 1; give it in another unit")
        if self.loss == "poisson":
            if (y < 0).any():
                raise InvalidArgumentError(f"loss='poisson' takes y of at least 0, got {y.min()}")
            if not weights @ y > 0:
                raise InvalidArgumentError("loss='poisson' needs a positive y in a row of positive weight")
        self._columns_of_y = y.shape[1] if y.ndim == 2 else 0
        return (y[:, 0] if self._columns_of_y == 1 else y), self.loss

    def _outputs(self) -> int:
        return int(self._columns_of_y)

    def predict(self, X: Any) -> Any:
        """Predictions: ``X w + b``, and for the Poisson loss its exponential.

        Parameters
        ----------
        X : array, data frame or sparse matrix of shape (n_samples, n_features)

        Returns
        -------
        array of shape (n_samples,) or (n_samples, n_outputs)
        """
        decision = self._decision(X)
        if self.loss != "poisson":
            return decision
        with np.errstate(over="ignore"):
            return np.exp(decision)

    def score(self, X: Any, y: Any, sample_weight: Any = None) -> float:
        """R^2; for the Poisson loss D^2, the share of the deviance that is explained, as for PoissonRegressor.

        Parameters
        ----------
        X : array, data frame or sparse matrix of shape (n_samples, n_features)
        y : array of shape (n_samples,) or (n_samples, n_outputs)
        sample_weight : array of shape (n_samples,), optional
        """
        if self.loss != "poisson":
            return float(super().score(X, y, sample_weight))
        from sklearn.metrics import d2_tweedie_score

        predicted = np.clip(self.predict(X), np.finfo(np.float64).tiny, None)
        return float(d2_tweedie_score(y, predicted, sample_weight=sample_weight, power=1))

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.target_tags.multi_output = self._several_outputs
        tags.target_tags.single_output = True
        tags.target_tags.positive_only = self.loss == "poisson"
        return tags


def _listed(penalty: Any) -> list[Any]:
    return list(penalty) if isinstance(penalty, list | tuple) else [penalty]


class SparseRegressor(Regression, SparseSingle):
    r"""Sparse linear regression with any penalty, convex or not.

    Minimizes

    .. math:: \frac{1}{\sum_i s_i} \sum_i s_i\,\ell(y_i, x_i^T w + b) + \alpha \sum_j f_j\,\Omega(w_j)

    with the squared loss :math:`\ell = (y - \hat y)^2 / 2`, the Huber loss, or the Poisson loss, half the deviance at
    :math:`\exp(\hat y)`.

    Parameters
    ----------
    penalty : str or Penalty, default "log-sum"
        A name such as "lasso", "mcp" or "log-sum:epsilon=0.1", or an object of `obverse.penalties`, one's own included.
        Its parameters are nested parameters of the estimator: ``penalty__epsilon``.
    alpha : float, default 1.0
        Strength of the penalty, positive. For the lasso it is that of `sklearn.linear_model.Lasso`.
    loss : {"squared", "huber", "poisson"}
    width : {"fixed", "alpha"}
        Whether the penalty is ``alpha * Omega(w)`` or ``alpha**2 * Omega(w / alpha)``, the usual form of MCP and SCAD.
    groups : sequence of integer arrays, optional
        Disjoint sets of features; the penalty applies to the norm of each set's coefficients. Squared loss only.
    penalty_factor : array of shape (n_features,), optional
        :math:`f_j`; 0 leaves a feature unpenalized. By default 1.
    fit_intercept : bool, default True
        The intercept is not penalized.
    positive : bool, default False
        Whether coefficients may not be negative.
    standardize : bool, default False
        Whether the penalty applies to coefficients times their columns' standard deviation.
    target_features : int, optional
        Ask for a number of features in place of ``alpha``, which is ignored then: the weakest alpha with at most so
        many nonzero coefficients, with exactly so many wherever the path has such a solution; ``alpha_`` says which.
    refit : bool, default False
        Whether the coefficients are those of an unpenalized fit on the support; ``coef_penalized_`` keeps the others.
    solver : {"auto", "reweighted", "dropout"}
        Coordinate descent on working sets for penalties that make exact zeros and iterated ridge problems for others
        ("auto"), iterated ridge problems, or training under adaptive dropout, the other face of the penalty.
    warm_start : bool, default False
        Whether to keep what can be used again: columns and their products while the data stay the same, and starting
        points for the other solvers.
    delta : float, default 1.35
        Residual from which the Huber loss is linear, in the unit of y.
    tol : float, default 1e-6
        Largest violation of the first-order conditions, relative to the largest gradient at zero.
    max_iter : int, default 1000
        Passes over the working set, iterations or epochs.
    random_state : int, RandomState, numpy.random.Generator, torch.Generator or None
        Of the dropout solver.

    Attributes
    ----------
    coef_ : array of shape (n_features,) or (n_outputs, n_features)
    intercept_ : float or array of shape (n_outputs,)
    alpha_ : float
    penalty_ : Penalty
    n_iter_ : int
        Products with all of X, iterations or epochs, by the solver.
    objective_, violation_ : float
        Before any ``refit``; with it, the larger violation of the two fits.
    converged_ : bool
    n_features_in_ : int
    feature_names_in_ : array of shape (n_features_in_,)

    Notes
    -----
    With a penalty that is not convex, the solution is continued from the largest alpha down to this one. It is a point
    that no single coefficient can leave with profit. Sources: derived; Lasso and its scale as in scikit-learn, MCP
    (Zhang 2010), SCAD (Fan and Li 2001), log-sum (Candes, Wakin and Boyd 2008).

    Examples
    --------
    >>> import numpy as np
    >>> from obverse.linear import SparseRegressor
    >>> X = np.random.default_rng(0).normal(size=(100, 20))
    >>> y = 2 * X[:, 3] - X[:, 7]
    >>> np.flatnonzero(SparseRegressor("mcp", alpha=0.1).fit(X, y).coef_).tolist()
    [3, 7]
    """

    def __init__(
        self,
        penalty: str | Penalty = "log-sum",
        alpha: float = 1.0,
        *,
        loss: Literal["squared", "huber", "poisson"] = "squared",
        width: Literal["fixed", "alpha"] = "fixed",
        groups: Any = None,
        penalty_factor: Any = None,
        fit_intercept: bool = True,
        positive: bool = False,
        standardize: bool = False,
        target_features: int | None = None,
        refit: bool = False,
        solver: Literal["auto", "reweighted", "dropout"] = "auto",
        warm_start: bool = False,
        delta: float = 1.35,
        tol: float = 1e-6,
        max_iter: int = 1000,
        random_state: Any = None,
    ) -> None:
        self.penalty = penalty
        self.alpha = alpha
        self.loss = loss
        self.width = width
        self.groups = groups
        self.penalty_factor = penalty_factor
        self.fit_intercept = fit_intercept
        self.positive = positive
        self.standardize = standardize
        self.target_features = target_features
        self.refit = refit
        self.solver = solver
        self.warm_start = warm_start
        self.delta = delta
        self.tol = tol
        self.max_iter = max_iter
        self.random_state = random_state
