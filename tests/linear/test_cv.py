"""Cross-validation: against scikit-learn and against fits of every fold on its own, splits of all kinds, shapes."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from sklearn.linear_model import LassoCV
from sklearn.model_selection import KFold, LeaveOneGroupOut, RepeatedKFold, ShuffleSplit

from obverse.errors import InvalidArgumentError, UnknownNameError
from obverse.linear import SparseClassifierCV, SparseRegressor, SparseRegressorCV
from obverse.linear._problem import make_problem
from obverse.linear._shapes import natural_width, path_alphas, reference_size, resized_penalty
from obverse.linear._terms import Terms
from obverse.penalties import L0, MCP, SCAD, CappedL1, EmpiricalBayes, Lasso, LogSum, Lp, Rescaled, VariationalDropout


def data(n: int = 120, p: int = 40, seed: int = 0, noise: float = 1.0) -> tuple[Any, Any]:
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(n, p)) + 0.5 * rng.normal(size=(n, 1))
    return X, X[:, 1] * 2 - X[:, 4] + 0.7 * X[:, 9] + 3 + noise * rng.normal(size=n)


def test_the_lasso_is_that_of_scikit_learn() -> None:
    X, y = data()
    alphas = np.geomspace(1.5, 0.02, 12)
    ours = SparseRegressorCV("lasso", alphas=alphas).fit(X, y)
    theirs = LassoCV(alphas=alphas, cv=5, tol=1e-10, max_iter=100_000).fit(X, y)
    solved = np.isfinite(ours.cv_errors_[0])
    np.testing.assert_allclose(
        2 * ours.cv_errors_[0, solved], theirs.mse_path_.mean(axis=1)[solved], rtol=1e-5
    )  # the folds are of one size
    assert ours.alpha_ == theirs.alpha_
    np.testing.assert_allclose(ours.coef_, theirs.coef_, atol=1e-6)
    assert ours.intercept_ == pytest.approx(theirs.intercept_, abs=1e-5)


def test_errors_are_those_of_folds_fitted_alone() -> None:
    # In lockstep no fold may learn from its held-out rows.
    X, y = data(n=60, p=80)
    weights = np.random.default_rng(1).uniform(0.5, 2, 60)
    alphas = [0.3, 0.1, 0.05]
    model = SparseRegressorCV("mcp", alphas=alphas, cv=4).fit(X, y, sample_weight=weights)
    for k, alpha in enumerate(alphas):
        total = 0.0
        for train, test in KFold(4).split(X):
            # The same continuation as on the path.
            one = SparseRegressorCV("mcp", alphas=alphas[: k + 1], criterion="bic").fit(
                X[train], y[train], sample_weight=weights[train]
            )
            assert one.path_.alphas[k] == alpha
            predicted = X[test] @ one.path_.coef(k) + one.path_.intercepts[k]
            total += weights[test] @ (y[test] - predicted) ** 2 / 2
        assert model.cv_errors_[0, k] == pytest.approx(total / weights.sum(), rel=1e-5)


@pytest.mark.parametrize("loss", ["huber", "poisson"])
def test_errors_of_other_losses(loss: Any) -> None:
    X, y = data(n=60, p=10)
    y = np.round(np.exp(y / 6)) if loss == "poisson" else y
    model = SparseRegressorCV("lasso", alphas=[0.1], cv=3, loss=loss, delta=0.8).fit(X, y)
    losses = []
    for train, test in KFold(3).split(X):
        fold = SparseRegressor("lasso", alpha=0.1, loss=loss, delta=0.8).fit(X[train], y[train])
        f = X[test] @ fold.coef_ + fold.intercept_
        if loss == "poisson":
            with np.errstate(divide="ignore", invalid="ignore"):
                logs = np.where(y[test] > 0, y[test] * np.log(y[test]), 0.0)
            losses.append(np.mean(np.exp(f) - y[test] * f + logs - y[test]))
        else:
            r = np.abs(y[test] - f)
            losses.append(np.mean(np.where(r <= 0.8, r * r / 2, 0.8 * (r - 0.4))))
    assert model.cv_errors_[0, 0] == pytest.approx(np.mean(losses), rel=1e-5)
    assert model.cv_standard_errors_[0, 0] == pytest.approx(np.std(losses) / np.sqrt(2), rel=1e-4)


def test_separate_splits_are_like_lockstep_ones() -> None:
    X, y = data()
    together = SparseRegressorCV("log-sum", cv=KFold(4)).fit(X, y)
    # One split more, which overlaps the others, takes all of them out of lockstep.
    splits = list(KFold(4).split(X))
    apart = SparseRegressorCV("log-sum", cv=splits + splits).fit(X, y)
    count = min(together.alphas_.size, apart.alphas_.size)
    np.testing.assert_allclose(apart.cv_errors_[0, :count], together.cv_errors_[0, :count], rtol=1e-4)
    assert apart.alpha_ == together.alpha_
    np.testing.assert_allclose(apart.coef_, together.coef_, atol=1e-5)


@pytest.mark.parametrize(
    "cv",
    [
        3,
        KFold(3, shuffle=True, random_state=0),
        ShuffleSplit(3, random_state=0),
        RepeatedKFold(n_splits=3, n_repeats=2, random_state=0),
    ],
)
def test_all_kinds_of_splits_find_the_signal(cv: Any) -> None:
    X, y = data()
    model = SparseRegressorCV("mcp", width="alpha", cv=cv).fit(X, y)
    assert {1, 4, 9} <= set(np.flatnonzero(model.coef_))
    assert model.score(X, y) > 0.7
    again = SparseRegressorCV("mcp", width="alpha", cv=cv).fit(X, y)
    np.testing.assert_array_equal(again.cv_errors_, model.cv_errors_)


def test_masks_and_negative_rows_are_rows() -> None:
    X, y = data(n=30)
    held = np.zeros(30, bool)
    held[:10] = True
    masks = [(~held, held), (held, ~held)]
    numbers = [(np.arange(10, 30), np.arange(-30, -20)), (np.arange(10), np.arange(10, 30))]
    a, b = (SparseRegressorCV("lasso", cv=cv).fit(X, y) for cv in (masks, numbers))
    np.testing.assert_allclose(a.cv_errors_, b.cv_errors_)


@pytest.mark.parametrize("penalty", ["lasso", "log-sum:epsilon=3", "mcp", "log-sum", "scad", "l0.5", "capped-l1"])
def test_weights_are_repeated_rows_of_one_fold(penalty: str) -> None:
    X, y = data(n=45)
    counts = np.random.default_rng(2).integers(0, 4, 45)
    groups = np.arange(45) % 3
    options: Any = {"penalty": penalty, "n_alphas": 15}
    split = list(LeaveOneGroupOut().split(X, groups=groups))
    weighted = SparseRegressorCV(cv=split, **options).fit(X, y, sample_weight=counts)
    X2, y2, groups2 = (part.repeat(counts, axis=0) for part in (X, y, groups))
    repeated = SparseRegressorCV(cv=list(LeaveOneGroupOut().split(X2, groups=groups2)), **options).fit(X2, y2)
    np.testing.assert_allclose(weighted.cv_errors_, repeated.cv_errors_, rtol=1e-6)
    np.testing.assert_allclose(weighted.coef_, repeated.coef_, atol=1e-6)


def test_the_last_fit_costs_nothing_more() -> None:
    X, y = data()
    model = SparseRegressorCV("lasso").fit(X, y)
    single = SparseRegressor("lasso", alpha=model.alpha_).fit(X, y)
    np.testing.assert_allclose(model.coef_, single.coef_, atol=1e-6)
    place = int(np.flatnonzero(model.alphas_ == model.alpha_)[0])
    np.testing.assert_array_equal(model.path_.coef(place), model.coef_)


def test_one_standard_error_is_sparser() -> None:
    X, y = data()
    least, sparse = (SparseRegressorCV("lasso", rule=rule).fit(X, y) for rule in ("min", "1se"))
    assert sparse.alpha_ > least.alpha_
    assert np.count_nonzero(sparse.coef_) < np.count_nonzero(least.coef_)
    best = int(np.nanargmin(least.cv_errors_[0]))
    place = int(np.flatnonzero(sparse.alphas_ == sparse.alpha_)[0])
    limit = least.cv_errors_[0, best] + least.cv_standard_errors_[0, best]
    assert sparse.cv_errors_[0, place] <= limit < sparse.cv_errors_[0, place - 1]


# ---------------------------------------------------------------------------------------------- shapes
def test_the_best_of_several_penalties() -> None:
    X, y = data(noise=0.3)
    model = SparseRegressorCV(["lasso", "mcp", LogSum(epsilon=0.05)]).fit(X, y)
    assert model.shapes_ == [Lasso(), MCP(), LogSum(epsilon=0.05)]
    assert model.penalty_ == model.shapes_[model.shape_]
    row, column = np.unravel_index(np.nanargmin(model.cv_errors_), model.cv_errors_.shape)
    assert model.shape_ == row
    assert model.alpha_ == model.shape_alphas_[row, column]
    # Shrunk coefficients predict worse than these.
    assert model.shape_ != 0
    assert np.nanmin(model.cv_errors_[0]) > np.nanmin(model.cv_errors_)


def test_shapes_do_not_depend_on_units() -> None:
    X, y = data()
    plain = SparseRegressorCV("log-sum", shapes="auto").fit(X, y)
    scaled = SparseRegressorCV("log-sum", shapes="auto").fit(X * 8, y * 1024)
    np.testing.assert_allclose(scaled.cv_errors_, plain.cv_errors_ * 1024.0**2, rtol=1e-6)
    np.testing.assert_allclose(scaled.coef_, plain.coef_ * 128, rtol=1e-6)
    assert scaled.penalty_.epsilon == pytest.approx(128 * plain.penalty_.epsilon)


def test_paths_given_up_were_not_the_best() -> None:
    X, y = data(n=80, p=60)
    model = SparseRegressorCV("log-sum", shapes="auto").fit(X, y)
    assert np.isnan(model.cv_errors_).any()
    for shape, alphas in zip(model.shapes_, model.shape_alphas_, strict=True):
        whole = SparseRegressorCV(shape, alphas=alphas).fit(X, y)
        assert np.nanmin(whole.cv_errors_) >= np.nanmin(model.cv_errors_) * (1 - 1e-9)


@pytest.mark.parametrize(
    ("penalty", "width"),
    [(LogSum(epsilon=0.3), 0.3), (MCP(kappa=3.0), 3.0), (CappedL1(threshold=2.0), 2.0), (SCAD(), 1.0),
     (EmpiricalBayes(), 1.0), (VariationalDropout(), 1.0), (Rescaled(MCP(kappa=3.0), width=2.0), 6.0)],
)  # fmt: skip
def test_natural_widths_go_with_the_penalty(penalty: Any, width: float) -> None:
    own = natural_width(penalty)
    assert own is not None
    assert 0.1 * width < own < 10 * width
    for factor in (0.01, 7.0):
        resized = resized_penalty(penalty, factor)
        # A jump of the slope is found to within a step of the grid.
        assert natural_width(resized) == pytest.approx(factor * own, rel=0.02 if penalty.curvature_limit > 0 else 0.13)
        w = np.array([1e-4, 0.1, 1.0, 5.0])
        # The same shape in another width, whatever the class.
        expected = penalty.value(w)
        np.testing.assert_allclose(
            np.asarray(resized.value(factor * w)) / resized.value(factor), expected / penalty.value(1.0), rtol=1e-6
        )


@pytest.mark.parametrize("penalty", [Lasso(), Lp(0.5), L0()])
def test_powers_have_one_shape(penalty: Any) -> None:
    assert natural_width(penalty) is None


def test_alphas_follow_the_entry_threshold() -> None:
    X, y = data()
    problem = make_problem("squared", X, y, np.full(y.size, 1 / y.size), fit_intercept=True)
    for penalty, power in ((Lasso(), 1.0), (L0(), 2.0), (Lp(0.5), 1.5)):
        terms = Terms(penalty, np.ones(X.shape[1]))
        alphas = path_alphas(problem, terms, 21, 0.01)
        np.testing.assert_allclose(alphas / alphas[0], np.geomspace(1, 0.01**power, 21), rtol=1e-6)
    gram = ((X - X.mean(0)) ** 2).mean(axis=0)
    z = np.abs((X - X.mean(0)).T @ y / y.size) / gram
    assert 0.5 * z.max() < reference_size(problem, Terms(Lasso(), np.ones(X.shape[1]))) < 2 * z.max()


def test_given_widths_are_multiples() -> None:
    X, y = data()
    model = SparseRegressorCV(MCP(kappa=2.0), shapes=[0.5, 2]).fit(X, y)
    assert model.shapes_ == [MCP(kappa=1.0), MCP(kappa=4.0)]


def test_at_most_so_many_features() -> None:
    X, y = data()
    model = SparseRegressorCV("lasso", target_features=2).fit(X, y)
    assert np.count_nonzero(model.coef_) <= 2
    classes = SparseClassifierCV("lasso", target_features=2, n_alphas=20).fit(X, y > np.median(y))
    assert np.count_nonzero(classes.coef_) <= 2


# ---------------------------------------------------------------------------------------------- bad choices
@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"criterion": "aic"}, UnknownNameError),
        ({"rule": "max"}, UnknownNameError),
        ({"n_alphas": 0}, InvalidArgumentError),
        ({"alpha_min_ratio": 1.5}, InvalidArgumentError),
        ({"alphas": []}, InvalidArgumentError),
        ({"alphas": [0.1, 0.0]}, InvalidArgumentError),
        ({"alphas": [np.nan]}, InvalidArgumentError),
        ({"shapes": "many"}, InvalidArgumentError),
        ({"shapes": [0.0]}, InvalidArgumentError),
        ({"penalty": []}, InvalidArgumentError),
        ({"penalty": ["lasso", "ridge"]}, InvalidArgumentError),
        ({"penalty": "lassso"}, UnknownNameError),
        ({"threshold": 0.3}, InvalidArgumentError),
        ({"cv": 1}, ValueError),
        ({"cv": [(np.arange(100), np.arange(100, 120))]}, InvalidArgumentError),
        ({"cv": [(np.arange(100), np.arange(90, 120))] * 2}, InvalidArgumentError),
        ({"cv": [(np.arange(100), np.arange(100, 130))] * 2}, InvalidArgumentError),
    ],
)
def test_choices_that_are_none(options: dict[str, Any], error: type[Exception]) -> None:
    X, y = data()
    with pytest.raises(error):
        SparseRegressorCV(**options).fit(X, y)


def test_folds_without_weight_are_refused() -> None:
    X, y = data(n=20)
    weights = np.r_[np.ones(10), np.zeros(10)]
    with pytest.raises(InvalidArgumentError, match="sample_weight 0"):
        SparseRegressorCV("lasso", cv=2).fit(X, y, sample_weight=weights)
