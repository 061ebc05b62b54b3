"""One value of every loss: objectives of all solvers, errors, criteria and scores against formulas written out here."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
from scipy.special import gammaln, logsumexp, xlogy
from sklearn.model_selection import KFold, StratifiedKFold

from obverse.linear import (
    SparseClassifier,
    SparseClassifierCV,
    SparseRegressor,
    SparseRegressorCV,
    sparse_path,
)
from obverse.linear._measures import measures
from obverse.linear._model import linear_model
from obverse.penalties import penalty as penalty_named

ROWS, FEATURES, DELTA = 60, 7, 0.8
LOSSES = ["squared", "huber", "poisson", "logistic", "multinomial"]
REGRESSIONS = LOSSES[:3]
PENALTIES = ["lasso", "log-sum", "mcp", "l0.5", "scad"]
FACTOR = np.array([1.0, 0.5, 2.0, 1.0, 0.0, 1.0, 3.0])


def data(loss: str) -> tuple[Any, Any, Any]:
    """Features of different size and mean, a target, weights of the rows."""
    rng = np.random.default_rng(LOSSES.index(loss))
    X = rng.normal(size=(ROWS, FEATURES)) * np.geomspace(0.5, 2, FEATURES) + np.linspace(-1, 1, FEATURES)
    f = 0.6 * X[:, 0] - 0.4 * X[:, 3] + 0.3 * X[:, 4]
    if loss == "poisson":
        y = rng.poisson(np.exp(f + 0.5)).astype(float)
    elif loss == "logistic":
        y = (f + rng.logistic(size=ROWS) > 0).astype(float)
    elif loss == "multinomial":
        y = np.digitize(f + rng.logistic(size=ROWS), [-0.7, 0.7]).astype(float)
    else:
        y = 3 * f + rng.standard_t(3, size=ROWS) + 5
    return X, y, rng.integers(0, 4, ROWS).astype(float)


def row_losses(loss: str, y: Any, f: Any) -> Any:
    """The documented loss of every row at its linear predictor."""
    if loss == "squared":
        return (y - f) ** 2 / 2
    if loss == "huber":
        r = np.abs(y - f)
        return np.where(r <= DELTA, r**2 / 2, DELTA * (r - DELTA / 2))
    if loss == "poisson":
        return np.exp(f) - y * f + xlogy(y, y) - y
    if loss == "logistic":
        return np.logaddexp(0, np.where(y > 0, -f, f))
    return logsumexp(f, axis=1) - f[np.arange(y.size), y.astype(int)]


def omega(model: Any, X: Any, s: Any, coef: Any, alpha: float, penalty: Any) -> float:
    """The documented penalty."""
    share = s / s.sum()
    unit = np.ones(FEATURES)
    if model.get("standardize"):
        center = share @ X if model.get("fit_intercept", True) else 0.0
        unit = np.sqrt(share @ (X - center) ** 2)
    factor = np.ones(FEATURES) if model.get("penalty_factor") is None else model["penalty_factor"]
    w = np.abs(np.atleast_2d(coef)) * unit
    if model.get("width") == "alpha":
        return float(alpha**2 * (penalty.value(w / alpha) * factor).sum())
    return float(alpha * (penalty.value(w) * factor).sum())


def reference(loss: str, X: Any, y: Any, s: Any, coef: Any, intercept: Any) -> float:
    f = X @ np.atleast_2d(coef).T + np.asarray(intercept)
    return float(s / s.sum() @ row_losses(loss, y, f if loss == "multinomial" else f[:, 0]))


OPTIONS: list[dict[str, Any]] = [
    {},
    {"fit_intercept": False},
    {"standardize": True},
    {"standardize": True, "fit_intercept": False},
    {"penalty_factor": FACTOR},
    {"positive": True},
    {"width": "alpha", "penalty_factor": FACTOR, "standardize": True},
]


def fitted(loss: str, penalty: str, solver: str, options: dict[str, Any], s: Any) -> tuple[Any, Any, Any]:
    X, y, _ = data(loss)
    alpha = 0.6 if options.get("width") == "alpha" else 0.05
    shared: dict[str, Any] = {"penalty": penalty, "alpha": alpha, "solver": solver, **options}
    if loss in REGRESSIONS:
        return SparseRegressor(loss=loss, delta=DELTA, random_state=0, **shared).fit(X, y, s), X, y  # type: ignore[arg-type]
    return SparseClassifier(random_state=0, **shared).fit(X, y, s), X, y


@pytest.mark.parametrize("weighted", [False, True], ids=["plain", "weighted"])
@pytest.mark.parametrize("options", OPTIONS, ids=lambda o: "-".join(o) or "default")
@pytest.mark.parametrize(
    ("loss", "solver"),
    [(loss, "auto") for loss in LOSSES] + [(loss, "reweighted") for loss in LOSSES[:4]] + [("squared", "dropout")],
)
def test_objectives_of_all_solvers(loss: str, solver: str, options: dict[str, Any], weighted: bool) -> None:
    s = data(loss)[2] if weighted else np.ones(ROWS)
    for penalty in PENALTIES:
        if options.get("positive") and solver != "auto":
            continue
        if solver == "dropout" and penalty not in ("lasso", "log-sum"):
            continue
        model, X, y = fitted(loss, penalty, solver, options, s if weighted else None)
        expected = reference(loss, X, y, s, model.coef_, model.intercept_)
        expected += omega(options, X, s, model.coef_, model.alpha_, model.penalty_)
        assert model.objective_ == pytest.approx(expected, rel=1e-9, abs=1e-12), penalty
        assert model.objective_ > 0
        assert model.converged_, penalty


@pytest.mark.parametrize("penalty", ["lasso", "mcp"])
@pytest.mark.parametrize("loss", LOSSES[:4])
def test_solvers_agree_on_the_objective_of_one_point(loss: str, penalty: str) -> None:
    auto, _, _ = fitted(loss, penalty, "auto", {}, None)
    other, _, _ = fitted(loss, penalty, "reweighted", {}, None)
    np.testing.assert_allclose(other.coef_, auto.coef_, atol=1e-4)
    assert other.objective_ == pytest.approx(auto.objective_, rel=1e-7)


@pytest.mark.parametrize("options", OPTIONS, ids=lambda o: "-".join(o) or "default")
@pytest.mark.parametrize("loss", LOSSES)
def test_objectives_along_paths(loss: str, options: dict[str, Any]) -> None:
    X, y, s = data(loss)
    path = sparse_path(X, y, "mcp", loss=loss, sample_weight=s, n_alphas=8, delta=DELTA, **options)
    for k, alpha in enumerate(path.alphas):
        expected = reference(loss, X, y, s, path.coef(k), path.intercepts[k])
        expected += omega(options, X, s, path.coef(k), alpha, penalty_named("mcp"))
        assert path.objectives[k] == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("groups", [None, [[0, 1], [2, 3, 4]]])
@pytest.mark.parametrize("standardize", [False, True])
def test_objectives_of_groups_and_several_outputs(groups: Any, standardize: bool) -> None:
    X, y, s = data("squared")
    Y = np.column_stack([y, -y + X[:, 1]])
    share = s / s.sum()
    unit = np.sqrt(share @ (X - share @ X) ** 2) if standardize else np.ones(FEATURES)
    sets = [[0, 1], [2, 3, 4], [5], [6]] if groups else [[j] for j in range(FEATURES)]
    for target in (y, Y):
        model = SparseRegressor("lasso", 0.1, groups=groups, standardize=standardize).fit(X, target, s)
        coef = np.atleast_2d(model.coef_)
        r = np.atleast_2d(target.T) - coef @ X.T - np.atleast_1d(model.intercept_)[:, None]
        expected = float((r**2 / 2 @ share).sum())
        expected += 0.1 * sum(float(np.linalg.norm(coef[:, group] * unit[group])) for group in sets)
        assert model.objective_ == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("weighted", [False, True], ids=["plain", "weighted"])
@pytest.mark.parametrize("loss", LOSSES)
def test_errors_of_cross_validation(loss: str, weighted: bool) -> None:
    X, y, s = data(loss)
    s = s if weighted else np.ones(ROWS)
    alphas = [0.2, 0.1, 0.05]
    if loss in REGRESSIONS:
        splits = list(KFold(4).split(X))
        model: Any = SparseRegressorCV("lasso", alphas=alphas, cv=splits, loss=loss, delta=DELTA)  # type: ignore[arg-type]
    else:
        splits = list(StratifiedKFold(4).split(X, y))
        model = SparseClassifierCV("lasso", alphas=alphas, cv=splits)
    model.fit(X, y, sample_weight=s)
    errors, shares = [], []
    for train, test in splits:
        path = sparse_path(
            X[train], y[train], "lasso", loss=loss, alphas=alphas, sample_weight=s[train], delta=DELTA
        )  # fmt: skip
        errors.append([reference(loss, X[test], y[test], s[test], path.coef(k), path.intercepts[k]) for k in range(3)])
        shares.append(s[test].sum())
    weights = np.array(shares) / np.sum(shares)
    mean = weights @ np.array(errors)
    np.testing.assert_allclose(model.cv_errors_[0], mean, rtol=1e-5)
    spread = np.sqrt(weights @ (np.array(errors) - mean) ** 2 / 3)
    np.testing.assert_allclose(model.cv_standard_errors_[0], spread, rtol=1e-4, atol=1e-12)
    expected = reference(loss, X, y, s, model.coef_, model.intercept_)
    expected += omega({}, X, s, model.coef_, model.alpha_, model.penalty_)
    assert model.objective_ == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize(("loss", "criterion"), list(itertools.product(LOSSES, ["bic", "ebic"])))
def test_criteria(loss: str, criterion: str) -> None:
    X, y, s = data(loss)
    alphas = [0.2, 0.1, 0.05]
    model: Any
    if loss in REGRESSIONS:
        model = SparseRegressorCV("lasso", alphas=alphas, criterion=criterion, loss=loss, delta=DELTA)  # type: ignore[arg-type]
    else:
        model = SparseClassifierCV("lasso", alphas=alphas, criterion=criterion)  # type: ignore[arg-type]
    model.fit(X, y, sample_weight=s)
    n = s.sum()
    found = []
    for k in range(3):
        coef = model.path_.coef(k)
        mean = reference(loss, X, y, s, coef, model.path_.intercepts[k])
        size = np.abs(y).max()
        fit = n * np.log(2 * mean / size**2) if loss in ("squared", "huber") else 2 * n * mean
        used, count = int(np.atleast_2d(coef).any(axis=0).sum()), int(np.count_nonzero(coef))
        choices = gammaln(FEATURES + 1) - gammaln(used + 1) - gammaln(FEATURES - used + 1)
        found.append(fit + count * np.log(n) + (choices if criterion == "ebic" else 0.0))
    np.testing.assert_allclose(model.criterion_values_[0], found, rtol=1e-9)


@pytest.mark.parametrize("weighted", [False, True], ids=["plain", "weighted"])
def test_scores_and_measures_of_counts_are_shares_of_the_same_deviance(weighted: bool) -> None:
    X, y, s = data("poisson")
    s = s if weighted else np.ones(ROWS)
    model = SparseRegressor("lasso", 0.05, loss="poisson").fit(X, y, s)
    null = reference("poisson", X, y, s, np.zeros(FEATURES), np.log(s @ y / s.sum()))
    mean = reference("poisson", X, y, s, model.coef_, model.intercept_)
    assert model.score(X, y, s) == pytest.approx(1 - mean / null, rel=1e-9)
    [row, *_] = measures(linear_model(model), X, y, s, y, s)
    assert (row["name"], row["model"]) == ("mean Poisson deviance", pytest.approx(2 * mean, rel=1e-9))
    assert row["null"] == pytest.approx(2 * null, rel=1e-9)


@pytest.mark.parametrize("solver", ["auto", "reweighted"])
@pytest.mark.parametrize("scale", [1e-12, 1.0, 1e12])
def test_the_deviance_of_a_nearly_perfect_fit_of_counts_is_not_lost(solver: str, scale: float) -> None:
    """Half a deviance of tiny residuals, which a difference of large numbers would drown."""
    x = np.linspace(-1, 1, 50)[:, None]
    y = scale * np.exp(0.3 * x[:, 0] + 1e-5 * np.sin(20 * x[:, 0]))
    model = SparseRegressor("lasso", 1e-14 * scale, loss="poisson", solver=solver, tol=1e-9).fit(x, y)  # type: ignore[arg-type]
    f = 0.3 * x[:, 0] + 1e-5 * np.sin(20 * x[:, 0])
    d = x[:, 0] * model.coef_[0] + model.intercept_ - np.log(scale) - f
    expected = scale * np.mean(np.exp(f) * d**2 / 2)
    assert model.objective_ == pytest.approx(expected, rel=1e-3)


@pytest.mark.parametrize("loss", ["squared", "huber", "poisson"])
def test_the_unit_of_the_target_goes_with_the_objective(loss: str) -> None:
    X, y, _ = data(loss)
    degree = 1 if loss == "poisson" else 2
    for solver in ("auto", "reweighted"):
        found = []
        for scale in (1.0, 2.0**20, 2.0**-20):
            model = SparseRegressor("lasso", 0.05 * scale, loss=loss, solver=solver, delta=DELTA * scale)  # type: ignore[arg-type]
            found.append(model.fit(X, y * scale).objective_ / scale**degree)
        np.testing.assert_allclose(found, found[0], rtol=1e-7)
