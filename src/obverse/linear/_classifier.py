"""Sparse classification as a scikit-learn estimator."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from sklearn.base import ClassifierMixin
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import column_or_1d

from ..errors import InvalidArgumentError
from ..penalties import Penalty
from ._estimator import SparseEstimator
from ._single import SparseSingle

__all__ = ["Classification", "SparseClassifier"]

Floats = npt.NDArray[np.float64]


class Classification(ClassifierMixin, SparseEstimator):  # type: ignore[misc, unused-ignore]
    """What classification adds: labels, probabilities."""

    def _target(self, y: Any, weights: Floats) -> tuple[Floats, str]:
        y = column_or_1d(y, warn=True)
        check_classification_targets(y)
        self.classes_, codes = np.unique(y, return_inverse=True)
        if self.classes_.size < 2:
            raise InvalidArgumentError(f"y must hold at least 2 classes, got one class: {self.classes_[0]!r}")
        seen = np.unique(codes[weights > 0]).size
        if seen < 2:
            raise InvalidArgumentError(
                "y must hold at least 2 classes in rows of positive sample_weight, got one class"
            )
        return codes.astype(np.float64), "logistic" if self.classes_.size == 2 else "multinomial"

    def _outputs(self) -> int:
        return 1 if self.classes_.size == 2 else int(self.classes_.size)

    def decision_function(self, X: Any) -> Any:
        """``X w + b``: the log odds of the second of two classes, or one score for every class.

        Parameters
        ----------
        X : array, data frame or sparse matrix of shape (n_samples, n_features)

        Returns
        -------
        array of shape (n_samples,) or (n_samples, n_classes)
        """
        scores = self._decision(X)
        return scores[:, 0] if scores.shape[1] == 1 else scores

    def predict(self, X: Any) -> Any:
        """The class of the largest probability.

        Parameters
        ----------
        X : array, data frame or sparse matrix of shape (n_samples, n_features)

        Returns
        -------
        array of shape (n_samples,)
        """
        scores = self.decision_function(X)
        return self.classes_[(scores > 0).astype(np.int64) if scores.ndim == 1 else scores.argmax(axis=1)]

    def predict_log_proba(self, X: Any) -> Any:
        """Logarithms of `predict_proba`, exact also where that is 0 in floating point."""
        scores = self.decision_function(X)
        if scores.ndim == 1:
            scores = np.stack([np.zeros_like(scores), scores], axis=1)
        scores = scores - scores.max(axis=1, keepdims=True)
        return scores - np.log(np.exp(scores).sum(axis=1, keepdims=True))

    def predict_proba(self, X: Any) -> Any:
        """Probabilities of the classes, in the order of ``classes_``.

        Parameters
        ----------
        X : array, data frame or sparse matrix of shape (n_samples, n_features)

        Returns
        -------
        array of shape (n_samples, n_classes)
        """
        return np.exp(self.predict_log_proba(X))


class SparseClassifier(Classification, SparseSingle):
    r"""Sparse logistic regression, for two classes or more, with any penalty, convex or not.

    Minimizes

    .. math:: \frac{1}{\sum_i s_i} \sum_i s_i\,\ell(y_i, x_i^T w + b) + \alpha \sum_j f_j\,\Omega(w_j)

    with :math:`\ell` the negative logarithm of the probability of the row's class. With more than two classes there is
    a score for each, their probabilities are the softmax of the scores, and the penalty applies to every coefficient of
    every class.

    Parameters
    ----------
    penalty : str or Penalty, default "log-sum"
        A name such as "lasso", "mcp" or "log-sum:epsilon=0.1", or an object of `obverse.penalties`, one's own included.
        Its parameters are nested parameters of the estimator: ``penalty__epsilon``.
    alpha : float, default 0.01
        Strength of the penalty, positive; for the lasso, ``1 / (C n_samples)`` of scikit-learn's LogisticRegression.
        Gradients of this loss are at most half a column's spread, so that strengths around 1 leave no feature.
    width : {"fixed", "alpha"}
        Whether the penalty is ``alpha * Omega(w)`` or ``alpha**2 * Omega(w / alpha)``, the usual form of MCP and SCAD.
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
        ("auto"), or iterated ridge problems. Training under dropout is for the squared loss only.
    warm_start : bool, default False
        Whether to keep what can be used again: columns and their products while the data stay the same, and starting
        points for the other solvers.
    tol : float, default 1e-6
        Largest violation of the first-order conditions, relative to the largest gradient at zero.
    max_iter : int, default 1000
        Passes over the working set, or iterations.
    random_state : int, RandomState, numpy.random.Generator, torch.Generator or None
        Of the dropout solver.

    Attributes
    ----------
    classes_ : array of shape (n_classes,)
    coef_ : array of shape (1, n_features) or (n_classes, n_features)
    intercept_ : array of shape (1,) or (n_classes,)
    alpha_ : float
    penalty_ : Penalty
    n_iter_ : int
        Products with all of X, or iterations, by the solver.
    objective_, violation_ : float
        Before any ``refit``; with it, the larger violation of the two fits.
    converged_ : bool
    n_features_in_ : int
    feature_names_in_ : array of shape (n_features_in_,)

    Notes
    -----
    With a penalty that is not convex, the solution is continued from the largest alpha down to this one. Where the
    classes can be separated, small alphas have no solution at finite coefficients for bounded penalties such as MCP;
    ``converged_`` says so. Sources: as for `SparseRegressor`; the softmax with coefficients for all classes as in
    Friedman, Hastie and Tibshirani (2010).

    Examples
    --------
    >>> import numpy as np
    >>> from obverse.linear import SparseClassifier
    >>> X = np.random.default_rng(0).normal(size=(200, 20))
    >>> y = np.where(X[:, 3] + 0.5 * X[:, 7] > 0, "yes", "no")
    >>> np.flatnonzero(SparseClassifier("lasso", alpha=0.1).fit(X, y).coef_).tolist()
    [3, 7]
    """

    def __init__(
        self,
        penalty: str | Penalty = "log-sum",
        alpha: float = 0.01,
        *,
        width: Literal["fixed", "alpha"] = "fixed",
        penalty_factor: Any = None,
        fit_intercept: bool = True,
        positive: bool = False,
        standardize: bool = False,
        target_features: int | None = None,
        refit: bool = False,
        solver: Literal["auto", "reweighted", "dropout"] = "auto",
        warm_start: bool = False,
        tol: float = 1e-6,
        max_iter: int = 1000,
        random_state: Any = None,
    ) -> None:
        self.penalty = penalty
        self.alpha = alpha
        self.width = width
        self.penalty_factor = penalty_factor
        self.fit_intercept = fit_intercept
        self.positive = positive
        self.standardize = standardize
        self.target_features = target_features
        self.refit = refit
        self.solver = solver
        self.warm_start = warm_start
        self.tol = tol
        self.max_iter = max_iter
        self.random_state = random_state
