"""Estimators that choose alpha, the penalty and its width by themselves."""

from __future__ import annotations

from typing import Any, Literal

from ..penalties import Penalty
from ._chooser import SparseChooser
from ._classifier import Classification
from ._regressor import Regression

__all__ = ["SparseClassifierCV", "SparseRegressorCV"]


class SparseRegressorCV(Regression, SparseChooser):
    r"""Sparse linear regression that chooses alpha, the penalty and its width by itself.

    Parameters
    ----------
    penalty : str, Penalty or list of them, default "log-sum"
        As for `SparseRegressor`; of several, the best is chosen.
    shapes : None, "auto" or sequence of float
        Widths to choose from for every penalty: none but its own; five that suit the data; or these multiples of its
        own. Powers and the lasso have but one shape.
    alphas : sequence of float, optional
        By default ``n_alphas`` for each shape, from the smallest at which all coefficients are zero down, evenly spaced
        in the logarithm of the entry threshold, the size at which a coefficient on its own is let in.
    n_alphas : int, default 50
    alpha_min_ratio : float, optional
        Last entry threshold relative to the first; by default 0.02, or 0.05 with no more rows than features.
    criterion : {"cv", "bic", "ebic", "stability"}
        Held-out loss; the Bayesian information criterion, or its extended form with gamma = 0.5, of the path on all
        rows, without folds; or features selected on at least ``threshold`` of 50 halves of the rows, fitted without a
        penalty.
    rule : {"min", "1se"}
        With "cv": the lowest held-out loss, or the fewest features within one standard error of it: of each shape the
        largest alpha that is, and of these shapes the sparsest.
    cv : int, splitter or iterable of (train, test), optional
        By default 5 folds without shuffling. Drawn once for each fit. Repeated rows may fall into different
        folds, where one row with a weight is in one.
    threshold : float, default 0.7
        Of stability selection; above 0.5.
    loss : {"squared", "huber", "poisson"}
    width : {"fixed", "alpha"}
        Whether the penalty is ``alpha * Omega(w)`` or ``alpha**2 * Omega(w / alpha)``, the usual form of MCP and SCAD.
    groups : sequence of integer arrays, optional
        Disjoint sets of features; the penalty applies to the norm of each set's coefficients. Squared loss only.
    penalty_factor : array of shape (n_features,), optional
        0 leaves a feature unpenalized. By default 1.
    fit_intercept, positive, standardize : bool
        As for `SparseRegressor`.
    target_features : int, optional
        Choose among solutions with at most so many nonzero coefficients.
    refit : bool, default False
        Whether the coefficients are those of an unpenalized fit on the support; ``coef_penalized_`` keeps the others.
        The choice is made before.
    delta : float, default 1.35
        Residual from which the Huber loss is linear, in the unit of y.
    tol, max_iter
        As for `SparseRegressor`.
    random_state : int, RandomState, numpy.random.Generator, torch.Generator or None
        Of the halves of stability selection.

    Attributes
    ----------
    coef_ : array of shape (n_features,) or (n_outputs, n_features)
    intercept_ : float or array of shape (n_outputs,)
    alpha_ : float
        0 after stability selection.
    penalty_ : Penalty
        The chosen one, in its chosen width.
    path_ : SparsePath
        On all rows, of the chosen shape.
    alphas_ : array of shape (n_solved,)
        Of ``path_``.
    shapes_ : list of Penalty
        All that were tried; ``shape_`` is the place of the chosen one.
    shape_alphas_ : array of shape (n_shapes, n_alphas)
    cv_errors_, cv_standard_errors_ : arrays of shape (n_shapes, n_alphas)
        Mean held-out loss (half the squared error, for the squared loss) and its standard error; NaN where a path had
        ended: its error had risen for ten alphas, or was falling too slowly to reach the lowest of another shape.
        Weights count here as well.
    criterion_values_ : array of shape (n_shapes, n_alphas)
        In place of these, with "bic" and "ebic".
    selection_frequencies_ : array of shape (n_features,)
        With "stability".
    n_iter_, objective_, violation_, converged_, n_features_in_, feature_names_in_
        As for `SparseRegressor`.

    Notes
    -----
    Folds are solved in lockstep on shared columns and products of columns, each with a membership of its own, so that
    none learns from the rows that it holds out; splits that overlap are solved one by one. The coefficients are those
    of the path on all rows, which is solved along.

    With ``shapes="auto"`` a penalty is made narrower and wider by one rule for all penalties, one's own included:
    ``Rescaled(penalty, width)``, or the same penalty with another parameter where that is a width. Its natural width is
    where its elasticity ``w Omega'(w) / Omega(w)`` is half way between small and large coefficients; it becomes 0.04
    to 4 times the largest coefficient that any feature has on its own, or, with ``width="alpha"``, 0.8 to 4, which is
    1.2 to 6 for the parameter of MCP.

    Sources: stability selection, Meinshausen and Buehlmann (2010) and Shah and Samworth (2013); extended BIC, Chen and
    Chen (2008); the rest derived.

    Examples
    --------
    >>> import numpy as np
    >>> from obverse.linear import SparseRegressorCV
    >>> random = np.random.default_rng(0)
    >>> X = random.normal(size=(100, 20))
    >>> y = 2 * X[:, 3] - X[:, 7] + 0.1 * random.normal(size=100)
    >>> np.flatnonzero(SparseRegressorCV(shapes="auto").fit(X, y).coef_).tolist()
    [3, 7]
    """

    def __init__(
        self,
        penalty: str | Penalty | list[str | Penalty] = "log-sum",
        *,
        shapes: Any = None,
        alphas: Any = None,
        n_alphas: int = 50,
        alpha_min_ratio: float | None = None,
        criterion: Literal["cv", "bic", "ebic", "stability"] = "cv",
        rule: Literal["min", "1se"] = "min",
        cv: Any = None,
        threshold: float = 0.7,
        loss: Literal["squared", "huber", "poisson"] = "squared",
        width: Literal["fixed", "alpha"] = "fixed",
        groups: Any = None,
        penalty_factor: Any = None,
        fit_intercept: bool = True,
        positive: bool = False,
        standardize: bool = False,
        target_features: int | None = None,
        refit: bool = False,
        delta: float = 1.35,
        tol: float = 1e-6,
        max_iter: int = 1000,
        random_state: Any = None,
    ) -> None:
        self.penalty = penalty
        self.shapes = shapes
        self.alphas = alphas
        self.n_alphas = n_alphas
        self.alpha_min_ratio = alpha_min_ratio
        self.criterion = criterion
        self.rule = rule
        self.cv = cv
        self.threshold = threshold
        self.loss = loss
        self.width = width
        self.groups = groups
        self.penalty_factor = penalty_factor
        self.fit_intercept = fit_intercept
        self.positive = positive
        self.standardize = standardize
        self.target_features = target_features
        self.refit = refit
        self.delta = delta
        self.tol = tol
        self.max_iter = max_iter
        self.random_state = random_state


class SparseClassifierCV(Classification, SparseChooser):
    r"""Sparse logistic regression, for two classes or more, that chooses alpha, the penalty and its width by itself.

    Parameters
    ----------
    penalty : str, Penalty or list of them, default "log-sum"
        As for `SparseClassifier`; of several, the best is chosen.
    shapes : None, "auto" or sequence of float
        Widths to choose from for every penalty: none but its own; five that suit the data; or these multiples of its
        own. Powers and the lasso have but one shape.
    alphas : sequence of float, optional
        By default ``n_alphas`` for each shape, from the smallest at which all coefficients are zero down, evenly spaced
        in the logarithm of the entry threshold, the size at which a coefficient on its own is let in.
    n_alphas : int, default 50
    alpha_min_ratio : float, optional
        Last entry threshold relative to the first; by default 0.02, or 0.05 with no more rows than features.
    criterion : {"cv", "bic", "ebic", "stability"}
        Held-out loss; the Bayesian information criterion, or its extended form with gamma = 0.5, of the path on all
        rows, without folds; or features selected on at least ``threshold`` of 50 halves of the rows, fitted without a
        penalty.
    rule : {"min", "1se"}
        With "cv": the lowest held-out loss, or the fewest features within one standard error of it: of each shape the
        largest alpha that is, and of these shapes the sparsest.
    cv : int, splitter or iterable of (train, test), optional
        By default 5 folds, each with the same shares of the classes, without shuffling. Drawn once for each fit.
        Repeated rows may fall into different folds, where one row with a weight is in one.
    threshold : float, default 0.7
        Of stability selection; above 0.5.
    width : {"fixed", "alpha"}
        Whether the penalty is ``alpha * Omega(w)`` or ``alpha**2 * Omega(w / alpha)``, the usual form of MCP and SCAD.
    penalty_factor : array of shape (n_features,), optional
        0 leaves a feature unpenalized. By default 1.
    fit_intercept, positive, standardize : bool
        As for `SparseClassifier`.
    target_features : int, optional
        Choose among solutions with at most so many nonzero coefficients.
    refit : bool, default False
        Whether the coefficients are those of an unpenalized fit on the support; ``coef_penalized_`` keeps the others.
        The choice is made before.
    tol, max_iter
        As for `SparseClassifier`.
    random_state : int, RandomState, numpy.random.Generator, torch.Generator or None
        Of the halves of stability selection.

    Attributes
    ----------
    classes_ : array of shape (n_classes,)
    coef_ : array of shape (1, n_features) or (n_classes, n_features)
    intercept_ : array of shape (1,) or (n_classes,)
    alpha_ : float
        0 after stability selection.
    penalty_ : Penalty
        The chosen one, in its chosen width.
    path_ : SparsePath
        On all rows, of the chosen shape.
    alphas_ : array of shape (n_solved,)
        Of ``path_``.
    shapes_ : list of Penalty
        All that were tried; ``shape_`` is the place of the chosen one.
    shape_alphas_ : array of shape (n_shapes, n_alphas)
    cv_errors_, cv_standard_errors_ : arrays of shape (n_shapes, n_alphas)
        Mean held-out loss and its standard error; NaN where a path had ended: its error had risen
        for ten alphas, or was falling too slowly to reach the lowest of another shape.
        Weights count here as well.
    criterion_values_ : array of shape (n_shapes, n_alphas)
        In place of these, with "bic" and "ebic".
    selection_frequencies_ : array of shape (n_features,)
        With "stability".
    n_iter_, objective_, violation_, converged_, n_features_in_, feature_names_in_
        As for `SparseClassifier`.

    Notes
    -----
    Folds are solved in lockstep on shared columns and products of columns, each with a membership of its own, so that
    none learns from the rows that it holds out; splits that overlap are solved one by one. The coefficients are those
    of the path on all rows, which is solved along.

    With ``shapes="auto"`` a penalty is made narrower and wider by one rule for all penalties, one's own included:
    ``Rescaled(penalty, width)``, or the same penalty with another parameter where that is a width. Its natural width is
    where its elasticity ``w Omega'(w) / Omega(w)`` is half way between small and large coefficients; it becomes 0.04
    to 4 times the largest coefficient that any feature has on its own, or, with ``width="alpha"``, 0.8 to 4, which is
    1.2 to 6 for the parameter of MCP.

    Sources: stability selection, Meinshausen and Buehlmann (2010) and Shah and Samworth (2013); extended BIC, Chen and
    Chen (2008); the rest derived.

    Examples
    --------
    >>> import numpy as np
    >>> from obverse.linear import SparseClassifierCV
    >>> random = np.random.default_rng(0)
    >>> X = random.normal(size=(300, 20))
    >>> y = np.where(2 * X[:, 3] - 2 * X[:, 7] + random.logistic(size=300) > 0, "yes", "no")
    >>> np.flatnonzero(SparseClassifierCV("mcp", width="alpha", rule="1se").fit(X, y).coef_).tolist()
    [3, 7]
    """

    def __init__(
        self,
        penalty: str | Penalty | list[str | Penalty] = "log-sum",
        *,
        shapes: Any = None,
        alphas: Any = None,
        n_alphas: int = 50,
        alpha_min_ratio: float | None = None,
        criterion: Literal["cv", "bic", "ebic", "stability"] = "cv",
        rule: Literal["min", "1se"] = "min",
        cv: Any = None,
        threshold: float = 0.7,
        width: Literal["fixed", "alpha"] = "fixed",
        penalty_factor: Any = None,
        fit_intercept: bool = True,
        positive: bool = False,
        standardize: bool = False,
        target_features: int | None = None,
        refit: bool = False,
        tol: float = 1e-6,
        max_iter: int = 1000,
        random_state: Any = None,
    ) -> None:
        self.penalty = penalty
        self.shapes = shapes
        self.alphas = alphas
        self.n_alphas = n_alphas
        self.alpha_min_ratio = alpha_min_ratio
        self.criterion = criterion
        self.rule = rule
        self.cv = cv
        self.threshold = threshold
        self.width = width
        self.penalty_factor = penalty_factor
        self.fit_intercept = fit_intercept
        self.positive = positive
        self.standardize = standardize
        self.target_features = target_features
        self.refit = refit
        self.tol = tol
        self.max_iter = max_iter
        self.random_state = random_state
