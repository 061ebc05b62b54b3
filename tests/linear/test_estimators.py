"""SparseRegressor as a scikit-learn estimator: its checks, nested parameters, targets, refit, faces, summaries."""

from __future__ import annotations

import json
import pickle
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import scipy.sparse as sp
import sklearn
from sklearn.base import clone
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import Lasso, LinearRegression, MultiTaskLasso, PoissonRegressor
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import parametrize_with_checks

from obverse.errors import InvalidArgumentError
from obverse.linear import SparseClassifier, SparseClassifierCV, SparseRegressor, SparseRegressorCV, sparse_path
from obverse.penalties import LogSum, Penalty, Rescaled


def data(n: int = 80, p: int = 30, seed: int = 0, noise: float = 0.3) -> tuple[Any, Any]:
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(n, p)) + 0.5 * rng.normal(size=(n, 1))
    return X, X[:, 1] * 2 - X[:, 4] + 0.5 * X[:, 5] + 3 + noise * rng.normal(size=n)


@parametrize_with_checks(
    [
        SparseRegressor(),
        SparseRegressor("mcp", width="alpha"),
        SparseRegressor("lasso", alpha=0.01, refit=True),
        SparseRegressor(loss="poisson"),
        SparseRegressor("ridge"),
        SparseClassifier(),
        SparseClassifier("lasso"),
        SparseRegressorCV(),
        SparseClassifierCV(n_alphas=8, cv=3),  # its default takes minutes in all checks together
    ]
)
@pytest.mark.filterwarnings("ignore::sklearn.exceptions.SkipTestWarning")
def test_checks_of_scikit_learn(estimator: Any, check: Any) -> None:
    check(estimator)


def test_the_lasso_is_that_of_scikit_learn() -> None:
    X, y = data()
    ours = SparseRegressor("lasso", alpha=0.1).fit(X, y)
    theirs = Lasso(alpha=0.1, tol=1e-12, max_iter=100_000).fit(X, y)
    np.testing.assert_allclose(ours.coef_, theirs.coef_, atol=1e-7)
    assert ours.intercept_ == pytest.approx(theirs.intercept_, abs=1e-6)
    assert ours.converged_
    assert ours.violation_ <= ours.tol
    assert ours.score(X, y) == pytest.approx(theirs.score(X, y))


@pytest.mark.parametrize("make", [np.asfortranarray, sp.csr_matrix, sp.csc_array])
def test_all_kinds_of_data_give_one_model(make: Any) -> None:
    X, y = data()
    X[np.abs(X) < 0.4] = 0
    dense = SparseRegressor("mcp", alpha=0.1).fit(X, y)
    other = SparseRegressor("mcp", alpha=0.1).fit(make(X), y)
    np.testing.assert_allclose(other.coef_, dense.coef_, atol=1e-8)
    np.testing.assert_allclose(other.predict(make(X)), dense.predict(X), atol=1e-7)


def test_float32_stays() -> None:
    X, y = data()
    model = SparseRegressor("lasso", alpha=0.1).fit(X.astype(np.float32), y)
    assert model.coef_.dtype == np.float32
    np.testing.assert_allclose(model.coef_, SparseRegressor("lasso", alpha=0.1).fit(X, y).coef_, atol=1e-5)


def test_weights_count_as_repeated_rows() -> None:
    X, y = data(40)
    weights = np.random.default_rng(1).integers(0, 4, 40)
    for loss in ("squared", "huber", "poisson"):
        target = np.round(np.exp(y / 8)) if loss == "poisson" else y
        weighted = SparseRegressor("mcp", alpha=0.05, loss=loss).fit(X, target, sample_weight=weights)
        repeated = SparseRegressor("mcp", alpha=0.05, loss=loss).fit(X.repeat(weights, 0), target.repeat(weights))
        np.testing.assert_allclose(weighted.coef_, repeated.coef_, atol=1e-6)
        # The size of the weights does not matter.
        large = SparseRegressor("mcp", alpha=0.05, loss=loss).fit(X, target, sample_weight=weights * 1e-300)
        np.testing.assert_allclose(large.coef_, weighted.coef_, atol=1e-6)


# ---------------------------------------------------------------------------------------------- parameters
def test_parameters_of_the_penalty_are_nested_parameters() -> None:
    given = LogSum(epsilon=0.3)
    model = SparseRegressor(given)
    assert model.get_params()["penalty__epsilon"] == 0.3
    assert "penalty__epsilon" not in model.get_params(deep=False)
    model.set_params(penalty__epsilon=0.7, alpha=2.0)
    assert model.penalty == LogSum(epsilon=0.7)
    assert model.alpha == 2.0
    assert given == LogSum(epsilon=0.3)
    named = SparseRegressor("log-sum").set_params(penalty__epsilon=0.2)
    assert named.penalty == LogSum(epsilon=0.2)
    inner = SparseRegressor(Rescaled(LogSum(epsilon=1.0), width=2.0)).set_params(penalty__penalty__epsilon=3.0)
    assert inner.penalty == Rescaled(LogSum(epsilon=3.0), width=2.0)
    copy = clone(inner)
    assert copy.penalty == inner.penalty
    with pytest.raises(ValueError, match="takes: epsilon"):
        SparseRegressor("log-sum").set_params(penalty__kappa=1.0)
    with pytest.raises(ValueError, match="Invalid parameter"):
        SparseRegressor().set_params(nonsense=1)


def test_grid_search_over_a_parameter_of_the_penalty() -> None:
    X, y = data()
    search = GridSearchCV(
        make_pipeline(StandardScaler(), SparseRegressor(LogSum(epsilon=1.0), alpha=0.05)),
        {"sparseregressor__penalty__epsilon": [0.02, 0.2, 2.0]},
        cv=3,
    ).fit(X, y)
    scores = search.cv_results_["mean_test_score"]
    assert np.ptp(scores) > 1e-4
    assert search.best_estimator_[-1].penalty_ == LogSum(epsilon=search.best_params_.popitem()[1])


@dataclass(frozen=True)
class Cubic(Penalty):
    """A user's own penalty, 1 - (1 - w/c)^3 up to c."""

    c: float = 1.0

    def _value(self, w: Any, xp: Any) -> Any:
        return 1 - xp.clip(1 - w / self.c, 0.0, None) ** 3

    def _slope(self, w: Any, xp: Any) -> Any:
        return 3 / self.c * xp.clip(1 - w / self.c, 0.0, None) ** 2


def test_a_penalty_of_ones_own() -> None:
    X, y = data()
    model = SparseRegressor(Cubic(), alpha=0.05).fit(X, y)
    used = np.flatnonzero(model.coef_)
    residual = y - model.predict(X)
    gradient = X.T @ residual / y.size
    push = 0.05 * np.sign(model.coef_) * Cubic().slope(model.coef_)
    np.testing.assert_allclose(gradient[used], push[used], atol=1e-5)
    assert 3 <= used.size < 30
    chosen = SparseRegressorCV(Cubic(), shapes="auto").fit(X, y)
    assert len({repr(shape) for shape in chosen.shapes_}) == 5
    assert SparseRegressor(Cubic()).set_params(penalty__c=2.0).penalty == Cubic(2.0)


def test_pickle_and_routing() -> None:
    X, y = data()
    model = SparseRegressor("mcp", alpha=0.1, warm_start=True).fit(X, y)
    again = pickle.loads(pickle.dumps(model))
    np.testing.assert_array_equal(again.predict(X), model.predict(X))
    assert not hasattr(again, "_kept")
    with sklearn.config_context(enable_metadata_routing=True):
        request = SparseRegressor().set_fit_request(sample_weight=True).get_metadata_routing()
        assert request.fit.requests["sample_weight"] is True


# ---------------------------------------------------------------------------------------------- targets and refits
@pytest.mark.parametrize("penalty", ["lasso", "mcp", "log-sum", "l0.5"])
@pytest.mark.parametrize("wanted", [1, 3, 8])
def test_a_number_of_features(penalty: str, wanted: int) -> None:
    X, y = data()
    model = SparseRegressor(penalty, target_features=wanted).fit(X, y)
    assert np.count_nonzero(model.coef_) == wanted
    if penalty == "lasso":
        weaker = SparseRegressor(penalty, alpha=model.alpha_ * (1 - 1e-4)).fit(X, y)
        assert np.count_nonzero(weaker.coef_) > wanted
        np.testing.assert_allclose(SparseRegressor(penalty, model.alpha_).fit(X, y).coef_, model.coef_, atol=1e-6)


def test_more_features_than_there_are() -> None:
    X, y = data(p=6)
    assert np.count_nonzero(SparseRegressor("lasso", target_features=100).fit(X, y).coef_) == 6
    with pytest.raises(ValueError, match="unpenalized"):
        SparseRegressor("lasso", target_features=1, penalty_factor=[0, 0, 1, 1, 1, 1]).fit(X, y)


def test_refit_is_least_squares_on_the_support() -> None:
    X, y = data()
    model = SparseRegressor("lasso", alpha=0.3, refit=True).fit(X, y)
    used = np.flatnonzero(model.coef_penalized_)
    plain = LinearRegression().fit(X[:, used], y)
    np.testing.assert_allclose(model.coef_[used], plain.coef_, atol=1e-6)
    assert model.intercept_ == pytest.approx(plain.intercept_, abs=1e-6)
    assert np.abs(model.coef_[used]).sum() > np.abs(model.coef_penalized_[used]).sum()
    # Nothing to fit again.
    empty = SparseRegressor("lasso", alpha=1e3, refit=True).fit(X, y)
    assert not empty.coef_.any()
    assert empty.intercept_ == pytest.approx(y.mean())


# ---------------------------------------------------------------------------------------------- solvers and losses
def test_faces_agree() -> None:
    X, y = data()
    model = SparseRegressor("log-sum", alpha=0.02).fit(X, y)
    other = SparseRegressor("log-sum", alpha=0.02, solver="reweighted", warm_start=True)
    other.coef_, other.intercept_ = model.coef_, model.intercept_
    other.fit(X, y)
    np.testing.assert_allclose(other.coef_, model.coef_, atol=1e-6)
    assert other.objective_ == pytest.approx(model.objective_, rel=1e-9)


def test_reweighting_knows_one_output_only() -> None:
    X, y = several_outputs()
    for options in ({"penalty": "ridge"}, {"solver": "reweighted"}, {"loss": "huber"}):
        with pytest.raises(ValueError, match="1d array"):
            SparseRegressor(**options).fit(X, y)  # type: ignore[arg-type]
    with pytest.raises(InvalidArgumentError, match="groups need solver='auto'"):
        SparseRegressor("ridge", groups=[[0, 1]]).fit(X, y[:, 0])


def test_ridge_has_a_closed_form() -> None:
    X, y = data()
    model = SparseRegressor("ridge", alpha=0.5).fit(X, y)
    centered = X - X.mean(0)
    expected = np.linalg.solve(centered.T @ centered / y.size + 0.5 * np.eye(30), centered.T @ y / y.size)
    np.testing.assert_allclose(model.coef_, expected, atol=1e-6)


def test_poisson_predicts_counts_and_scores_deviance() -> None:
    X, y = data()
    counts = np.round(np.exp(y / 4))
    ours = SparseRegressor("ridge", alpha=0.1, loss="poisson").fit(X, counts)
    theirs = PoissonRegressor(alpha=0.1, tol=1e-10, max_iter=1000).fit(X, counts)
    np.testing.assert_allclose(ours.predict(X), theirs.predict(X), rtol=1e-4)
    assert ours.score(X, counts) == pytest.approx(theirs.score(X, counts), abs=1e-6)


def several_outputs() -> tuple[Any, Any]:
    rng = np.random.default_rng(0)
    X, W = rng.normal(size=(80, 30)), np.zeros((30, 3))
    W[[1, 4, 9]] = rng.normal(size=(3, 3))
    return X, X @ W + 0.3 * rng.normal(size=(80, 3))


def test_several_outputs_share_their_features() -> None:
    X, Y = several_outputs()
    ours = SparseRegressor("lasso", alpha=0.1).fit(X, Y)
    theirs = MultiTaskLasso(alpha=0.1, tol=1e-12, max_iter=100_000).fit(X, Y)
    np.testing.assert_allclose(ours.coef_, theirs.coef_, atol=1e-7)
    np.testing.assert_allclose(ours.intercept_, theirs.intercept_, atol=1e-7)
    np.testing.assert_allclose(ours.predict(X), theirs.predict(X), atol=1e-6)
    few = SparseRegressor("mcp", target_features=3, refit=True).fit(X, Y)
    assert np.flatnonzero(few.coef_.any(axis=0)).tolist() == [1, 4, 9]
    plain = LinearRegression().fit(X[:, [1, 4, 9]], Y)
    np.testing.assert_allclose(few.coef_[:, [1, 4, 9]], plain.coef_, atol=1e-6)
    # One column of y keeps its shape.
    one = SparseRegressor("lasso", alpha=0.1).fit(X, Y[:, :1])
    assert one.coef_.shape == (1, 30)
    assert one.predict(X).shape == (80, 1)
    np.testing.assert_allclose(one.coef_[0], SparseRegressor("lasso", alpha=0.1).fit(X, Y[:, 0]).coef_)


@pytest.mark.parametrize("criterion", ["cv", "bic", "ebic", "stability"])
def test_all_criteria_choose_for_several_outputs(criterion: Any) -> None:
    X, Y = several_outputs()
    options: Any = {} if criterion == "stability" else {"shapes": "auto", "rule": "1se"}
    model = SparseRegressorCV("mcp", criterion=criterion, random_state=0, **options).fit(X, Y)
    used = np.flatnonzero(model.coef_.any(axis=0))
    assert {1, 4, 9} <= set(used)
    assert used.size <= 6
    assert model.score(X, Y) > 0.9


def test_groups_live_or_die_together() -> None:
    X, y = data()
    groups = [[0, 1, 2], [3, 4, 5], [6, 7, 8], [10, 11]]
    model = SparseRegressor("lasso", alpha=0.3, groups=groups).fit(X, y)
    alive = [np.count_nonzero(model.coef_[group]) for group in groups]
    assert alive == [3, 3, 0, 0]
    residual = (y - model.predict(X)) / y.size
    for group in groups[:2]:
        w = model.coef_[group]
        np.testing.assert_allclose(X[:, group].T @ residual, 0.3 * w / np.linalg.norm(w), atol=1e-5)
    chosen = SparseRegressorCV("mcp", width="alpha", groups=groups).fit(X, y)
    assert np.count_nonzero(chosen.coef_[[0, 1, 2]]) == 3
    again = SparseRegressor("lasso", alpha=0.3, groups=groups, refit=True).fit(X, y)
    assert "keep_probability" not in again.summary().rows[0]


def test_warm_starts_change_nothing_and_notice_other_data() -> None:
    X, y = data()
    warm = SparseRegressor("mcp", alpha=0.5, warm_start=True)
    for alpha in (0.5, 0.1):
        warm.set_params(alpha=alpha).fit(X, y)
        np.testing.assert_allclose(warm.coef_, SparseRegressor("mcp", alpha=alpha).fit(X, y).coef_, atol=1e-7)
    kept = warm._kept[1]
    assert warm.fit(X, y)._kept[1] is kept
    X[0, 0] += 1
    warm.fit(X, y)
    assert warm._kept[1] is not kept
    np.testing.assert_allclose(warm.coef_, SparseRegressor("mcp", alpha=0.1).fit(X, y).coef_, atol=1e-7)


def test_a_fit_that_did_not_get_there_warns() -> None:
    X, y = data(n=40, p=200, noise=2.0)
    with pytest.warns(ConvergenceWarning, match="Raise max_iter"):
        model = SparseRegressor("ridge", alpha=0.01, loss="poisson", max_iter=1).fit(X, np.round(np.exp(y / 3)))
    assert not model.converged_
    assert model.violation_ > model.tol


# ---------------------------------------------------------------------------------------------- looking
def test_summary_names_features_and_dropout() -> None:
    pandas = pytest.importorskip("pandas")
    X, y = data()
    frame = pandas.DataFrame(X, columns=[f"<f{j}>" for j in range(30)])
    model = SparseRegressor("log-sum", alpha=0.02).fit(frame, y)
    found = model.summary()
    plain = json.loads(json.dumps(found.to_dict()))
    rows = plain["rows"]
    assert rows[0]["feature"] == "<f1>"
    assert len(rows) == np.count_nonzero(model.coef_)
    j = 1
    w, gram = abs(model.coef_[j]), X[:, j].var()
    assert rows[0]["importance"] == pytest.approx(w * np.sqrt(gram))
    eta = w * (w + 0.1)
    assert rows[0]["keep_probability"] == pytest.approx(eta / (eta + 0.02 / gram), rel=1e-5)
    assert "<f1>" in str(found)
    assert "&lt;f1&gt;" in found._repr_html_()
    assert "<f1>" not in found._repr_html_()


def test_summary_of_standardized_penalties() -> None:
    # Width in units of alpha, coefficients in units of the columns: the dropout is the same in any units.
    X, y = data()
    options: Any = {"width": "alpha", "standardize": True}
    plain = SparseRegressor("log-sum:epsilon=1", alpha=0.2, **options).fit(X, y).summary().rows
    scaled = SparseRegressor("log-sum:epsilon=1", alpha=0.2, **options).fit(X * 8, y).summary().rows
    assert [row["keep_probability"] for row in plain] == pytest.approx([row["keep_probability"] for row in scaled])
    assert all(0 < row["keep_probability"] < 1 for row in plain)


def test_plot_draws_the_path() -> None:
    pytest.importorskip("matplotlib")
    X, y = data()
    model = SparseRegressorCV("mcp", width="alpha").fit(X, y)
    ax = model.plot()
    drawn = [line for line in ax.get_lines() if len(line.get_xdata()) == model.path_.alphas.size]
    assert len(drawn) == np.unique(model.path_.coefs.indices).size
    assert any(np.allclose(line.get_xdata(), model.alpha_) for line in ax.get_lines())


def test_single_fit_is_on_the_path() -> None:
    X, y = data()
    path = sparse_path(X, y, "lasso", alphas=[0.2, 0.1])
    np.testing.assert_allclose(SparseRegressor("lasso", 0.1).fit(X, y).coef_, path.coef(1), atol=1e-7)


@pytest.mark.parametrize("alpha", [0, -1.0, np.nan, np.inf, True, "1", None])
def test_alphas_that_are_none(alpha: Any) -> None:
    X, y = data()
    with pytest.raises(InvalidArgumentError, match="alpha must be a positive"):
        SparseRegressor(alpha=alpha).fit(X, y)


def test_alpha_zero_names_the_alternative() -> None:
    X, y = data()
    with pytest.raises(InvalidArgumentError, match="LinearRegression"):
        SparseRegressor(alpha=0.0).fit(X, y)
