"""Bad input and extreme data: errors as scikit-learn's, or the answer that mathematics gives."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pytest
import scipy.sparse as sp
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from sklearn.base import clone
from sklearn.exceptions import ConvergenceWarning
from sklearn.model_selection import KFold

from obverse.errors import InvalidArgumentError, ObverseError
from obverse.linear import SparseClassifier, SparseClassifierCV, SparseRegressor, SparseRegressorCV, sparse_path

ALL = [
    SparseRegressor("lasso", alpha=0.1),
    SparseRegressorCV("lasso", cv=3),
    SparseClassifier("lasso"),
    SparseClassifierCV("lasso", cv=3),
]


def data(n: int = 40, p: int = 8, seed: int = 0) -> tuple[Any, Any]:
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(n, p))
    return X, np.where(X[:, 1] - X[:, 2] + 0.5 * rng.normal(size=n) > 0, 1.0, 0.0)


@pytest.mark.parametrize("model", ALL, ids=lambda m: type(m).__name__)
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_numbers_that_are_none(model: Any, bad: float) -> None:
    X, y = data()
    for broken in ("X", "sparse", "y", "weights"):
        Z, t, s = X.copy(), y.copy(), np.ones(y.size)
        target = {"X": Z[0], "sparse": Z[0], "y": t, "weights": s}[broken]
        target[1] = bad
        with pytest.raises(ValueError, match=r"NaN|infinity|inf"):
            model.fit(sp.csr_array(Z) if broken == "sparse" else Z, t, sample_weight=s)


@pytest.mark.parametrize("model", ALL, ids=lambda m: type(m).__name__)
def test_shapes_that_do_not_fit(model: Any) -> None:
    X, y = data()
    for Z, t, s in (
        (X[:, :0], y, None),
        (X[:0], y[:0], None),
        (X, y[1:], None),
        (X[0], y, None),
        (X, y, np.ones(3)),
        (X, y, -np.ones(y.size)),
        (X, y, np.zeros(y.size)),
    ):
        with pytest.raises(ValueError):
            model.fit(Z, t, sample_weight=s)


@pytest.mark.parametrize("model", ALL, ids=lambda m: type(m).__name__)
def test_constant_and_duplicate_columns(model: Any) -> None:
    X, y = data()
    plain = model.fit(X, y)
    expected = plain.predict(X)
    odd = np.column_stack([X, np.zeros(40), np.full(40, 7.3), X[:, 1]])
    again = model.fit(odd, y)
    assert not again.coef_[..., 8:10].any()
    np.testing.assert_allclose(again.predict(odd), expected, atol=1e-5)


@pytest.mark.parametrize("penalty", ["lasso", "mcp", "log-sum", "l0", "ridge"])
def test_regression_without_information(penalty: str) -> None:
    X, y = data()
    for Z, t in ((X[:1], y[:1] + 3), (X, np.zeros(40)), (X, np.full(40, -2.5)), (np.ones((40, 3)), y)):
        model = SparseRegressor(penalty, alpha=0.1).fit(Z, t)
        assert not model.coef_.any()
        assert model.converged_
        assert model.intercept_ == pytest.approx(t.mean())
        np.testing.assert_allclose(model.predict(Z), t.mean())
    for t in (np.zeros(40), np.full(40, -2.5)):
        assert not SparseRegressorCV("lasso").fit(X, t).coef_.any()
        assert not SparseRegressor("lasso", target_features=3).fit(X, t).coef_.any()


def test_one_class() -> None:
    X, y = data()
    for model in (SparseClassifier(), SparseClassifierCV()):
        with pytest.raises(InvalidArgumentError, match="one class"):
            model.fit(X, np.ones(40))
        with pytest.raises(InvalidArgumentError, match="positive sample_weight"):
            model.fit(X, y, sample_weight=y)
        with pytest.raises(ValueError, match="Unknown label type"):
            model.fit(X, X[:, 0])


def test_a_rare_class_is_missing_in_a_fold() -> None:
    X, _ = data(n=60)
    y = np.r_[np.zeros(30), np.ones(27), np.full(3, 2)]
    with pytest.warns(UserWarning, match="least populated class"):
        model = SparseClassifierCV("lasso", n_alphas=10).fit(X, y)
    assert np.isfinite(model.coef_).all()
    assert model.coef_.shape == (3, 8)


def test_separable_classes_have_finite_coefficients() -> None:
    X, _ = data()
    y = (X[:, 1] > 0).astype(int)
    model = SparseClassifier("lasso", alpha=1e-3).fit(X, y)
    assert model.converged_
    assert np.isfinite(model.coef_).all()
    assert model.score(X, y) == 1


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"loss": "absolute"}, "unknown loss"),
        ({"solver": "magic"}, "unknown solver"),
        ({"width": "beta"}, "unknown width"),
        ({"penalty": "lassso"}, "did you mean 'lasso'"),
        ({"penalty": 3}, "name or a Penalty"),
        ({"tol": 0}, "tol"),
        ({"tol": None}, "tol"),
        ({"max_iter": 0}, "max_iter"),
        ({"max_iter": 1.5}, "max_iter"),
        ({"target_features": 0}, "target_features"),
        ({"delta": -1.0}, "delta"),
        ({"penalty_factor": [1.0]}, "penalty_factor"),
        ({"penalty_factor": [-1.0] * 8}, "penalty_factor"),
        ({"groups": [[0, 1], [1, 2]]}, "disjoint"),
        ({"groups": [[0, 99]]}, "outside"),
        ({"groups": [[0.5]]}, "integers"),
        ({"groups": [[0, 1]], "loss": "huber"}, "squared loss"),
        ({"loss": "poisson", "alpha": 0.0}, "alpha"),
        ({"penalty": "ridge", "positive": True}, "positive"),
        ({"penalty": "ridge", "target_features": 2}, "target_features"),
        ({"penalty": "l0", "solver": "reweighted"}, "flat"),
    ],
)
def test_parameters_that_are_none(options: dict[str, Any], match: str) -> None:
    X, y = data()
    model = SparseRegressor(**options)
    with pytest.raises(ObverseError, match=match) as caught:
        model.fit(X, y)
    assert isinstance(caught.value, ValueError)
    assert not hasattr(model, "coef_")


def test_counts_are_not_negative() -> None:
    X, y = data()
    with pytest.raises(InvalidArgumentError, match="at least 0"):
        SparseRegressor(loss="poisson").fit(X, y - 1)
    with pytest.raises(InvalidArgumentError, match="positive y"):
        SparseRegressor(loss="poisson").fit(X, 0 * y)
    with pytest.raises(InvalidArgumentError, match="numbers for a regression"):
        SparseRegressor().fit(X, np.array(["a", "b"])[y.astype(int)])


@settings(max_examples=60, deadline=None)
@given(
    st.integers(-150, 150),
    st.integers(-150, 150),
    st.sampled_from(["lasso", "l0.5", "mcp", "scad"]),
    st.booleans(),
)
def test_coefficients_go_with_the_units(of_x: int, of_y: int, penalty: str, standardize: bool) -> None:
    # With coefficients of size t/s the lasso's alpha goes with s t; with alpha**2 Omega(w / alpha) in standard
    # deviations, alpha goes with t.
    X, y = data()
    s, t = 10.0**of_x, 10.0**of_y
    if penalty in ("mcp", "scad"):
        options: Any = {"penalty": penalty, "width": "alpha", "standardize": True}
        scale = t
    else:
        power = 1.0 if penalty == "lasso" else 0.5
        options = {"penalty": penalty, "standardize": standardize}
        # t^2 = alpha (t/s)^power, or alpha t^power where the penalty sees standardized coefficients.
        exponent = 2 * of_y - power * (of_y - (0 if standardize else of_x))
        # Data of any such size, whose coefficients are within the same range.
        assume(abs(exponent) <= 290 and abs(of_y - of_x) <= 150)
        scale = 10.0**exponent
    plain = SparseRegressor(alpha=0.02, **options).fit(X, y)
    scaled = SparseRegressor(alpha=0.02 * scale, **options).fit(X * s, y * t)
    assert scaled.converged_
    assert plain.coef_.any()
    np.testing.assert_allclose(scaled.coef_ / 10.0 ** (of_y - of_x), plain.coef_, rtol=1e-5, atol=1e-7)
    np.testing.assert_allclose(scaled.intercept_ / t, plain.intercept_, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize(("of_x", "of_y"), [(-120, 20), (130, 140), (0, -145)])
def test_choices_go_with_the_units(of_x: int, of_y: int) -> None:
    X, y = data()
    s, t = 10.0**of_x, 10.0**of_y
    for options in ({"cv": 3}, {"criterion": "ebic"}):
        plain = SparseRegressorCV("lasso", **options).fit(X, y)  # type: ignore[arg-type]
        scaled = SparseRegressorCV("lasso", **options).fit(X * s, y * t)  # type: ignore[arg-type]
        assert scaled.alpha_ / s / t == pytest.approx(plain.alpha_, rel=1e-6)
        np.testing.assert_allclose(scaled.coef_ / t * s, plain.coef_, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize(
    ("loss", "y", "match"),
    [
        ("logistic", [-1.0, 1.0], "takes y of 0 and 1"),
        ("logistic", [0.0, 0.5], "takes y of 0 and 1"),
        ("multinomial", [-1.0, 1.0], "takes y of 0 ... K-1"),
        ("multinomial", [0.0, 1.5], "takes y of 0 ... K-1"),
        ("poisson", [-1.0, 1.0], "takes y of at least 0"),
    ],
)
def test_paths_refuse_targets_of_another_loss(loss: str, y: list[float], match: str) -> None:
    X, _ = data()
    with pytest.raises(InvalidArgumentError, match=match):
        sparse_path(X, np.array(y)[np.arange(40) % 2], "lasso", loss=loss)


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"width": "beta"}, "unknown width"),
        ({"tol": 0.0}, "tol"),
        ({"max_iter": 0}, "max_iter"),
        ({"n_alphas": 0}, "n_alphas"),
        ({"alpha_min_ratio": 2.0}, "alpha_min_ratio"),
        ({"max_features": -1}, "max_features"),
        ({"delta": np.nan}, "delta"),
        ({"groups": [[0.5, 1]]}, "integers"),
        ({"groups": [[True, False]]}, "integers"),
    ],
)
def test_paths_refuse_parameters_that_are_none(options: dict[str, Any], match: str) -> None:
    X, y = data()
    with pytest.raises(InvalidArgumentError, match=match):
        sparse_path(X, y, "lasso", **options)


@pytest.mark.parametrize("scale", [1e200, 1e-200, 1e160, 1e-170])
def test_numbers_that_no_choice_can_compare_are_refused(scale: float) -> None:
    """Squared errors of such targets are infinite or 0, whichever model made them."""
    X, y = data()
    y = y + 0.5
    with pytest.raises(InvalidArgumentError, match="whose squares leave the range"):
        SparseRegressorCV("lasso", cv=3).fit(X, y * scale)
    with pytest.raises(InvalidArgumentError, match="too far from 1 for a penalty"):
        SparseRegressorCV("lasso", cv=3).fit(X * scale, y)
    with pytest.raises(InvalidArgumentError, match="too far from 1 for a penalty"):
        SparseRegressor("lasso", 0.1).fit(sp.csr_array(X * scale), y)
    with pytest.raises(InvalidArgumentError, match="too far from 1; give it"):
        SparseRegressor("lasso", 0.1).fit(X, y * (1e-305 if scale < 1 else 2e300))


def test_integers_beyond_compiled_code_are_no_bound() -> None:
    X, y = data()
    expected = SparseRegressor("lasso", 0.1).fit(X, y).coef_
    np.testing.assert_array_equal(SparseRegressor("lasso", 0.1, max_iter=10**21).fit(X, y).coef_, expected)
    for model in (SparseRegressor("lasso", target_features=10**21), SparseRegressorCV(target_features=10**21, cv=3)):
        assert np.count_nonzero(model.fit(X, y).coef_) <= 8
    assert sparse_path(X, y, "lasso", max_features=10**21).n_features.max() <= 8


def test_weights_whose_sum_overflows_are_refused() -> None:
    X, y = data()
    with pytest.raises(InvalidArgumentError, match="sum of sample_weight"):
        SparseRegressorCV("lasso", criterion="bic").fit(X, y, sample_weight=np.full(40, 1e308))
    fit = [SparseRegressor("lasso", 0.1).fit(X, y, sample_weight=np.full(40, s)).coef_ for s in (1.0, 1e-300, 1e300)]
    np.testing.assert_allclose(fit[1:], [fit[0]] * 2, rtol=1e-12)


@pytest.mark.parametrize("name", ["fit_intercept", "positive", "standardize", "refit"])
def test_switches_are_true_or_false(name: str) -> None:
    X, y = data()
    with pytest.raises(InvalidArgumentError, match=f"{name} must be True or False, got 'False'"):
        SparseRegressor("lasso", 0.1, **{name: "False"}).fit(X, y)  # type: ignore[arg-type]


def test_dates_are_no_numbers() -> None:
    X, _ = data()
    days = np.datetime64("2020-01-01") + np.arange(40)
    with pytest.raises(InvalidArgumentError, match="numbers for a regression"):
        SparseRegressor("lasso", 0.1).fit(X, days)


def test_stability_selection_needs_halves() -> None:
    X, y = data()
    with pytest.raises(InvalidArgumentError, match="needs halves"):
        SparseRegressorCV("lasso", criterion="stability").fit(X[:1], y[:1])


@pytest.mark.parametrize("several", [False, True])
def test_a_fold_that_lacks_a_class_is_said(several: bool) -> None:
    """Sorted classes and folds without shuffling: no fold has seen the class that it is tested on."""
    X, _ = data(n=60)
    y = np.repeat([0, 1, 2] if several else [0, 1], 20 if several else 30)
    with pytest.warns(ConvergenceWarning, match="rests on folds that were not solved"):
        SparseClassifierCV("lasso", cv=KFold(3 if several else 2), n_alphas=5).fit(X, y)


@pytest.mark.parametrize(
    "model", [*ALL, SparseRegressor("lasso", 0.1, solver="dropout")], ids=lambda m: type(m).__name__
)
@pytest.mark.parametrize("form", [np.ascontiguousarray, np.asfortranarray, sp.csc_array, sp.csr_array])
def test_fit_leaves_its_input_alone(model: Any, form: Any) -> None:
    X, y = data()
    X = X + 1e5
    given, target, weights = form(X), y.copy(), np.linspace(0.5, 2, 40)
    kept = weights.copy()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        clone(model).fit(given, target, sample_weight=weights)
    np.testing.assert_array_equal(given.toarray() if sp.issparse(given) else given, X)
    np.testing.assert_array_equal(target, y)
    np.testing.assert_array_equal(weights, kept)


def test_keep_probabilities_of_a_summary_do_not_overflow() -> None:
    X, y = data()
    y = y + X[:, 3]
    for options in ({"standardize": True}, {"standardize": True, "width": "alpha"}):
        found = []
        for scale in (1.0, 1e200, 1e-200):
            model = SparseRegressor("mcp", 0.05, **options).fit(X * scale, y)  # type: ignore[arg-type]
            found.append([row["keep_probability"] for row in model.summary().rows])
        np.testing.assert_allclose(found[1], found[0], rtol=1e-6)
        np.testing.assert_allclose(found[2], found[0], rtol=1e-6)
    X = X + 3
    model = SparseRegressor("lasso", 0.05, standardize=True, fit_intercept=False).fit(X, y)
    sizes = np.sqrt(np.mean(X**2, axis=0))
    expected = [1 / (1 + 0.05 / (abs(w) * s)) for w, s in zip(model.coef_, sizes, strict=True) if w]
    assert sorted(row["keep_probability"] for row in model.summary().rows) == pytest.approx(sorted(expected))
