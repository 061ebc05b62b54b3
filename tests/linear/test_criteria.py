"""Information criteria and stability selection."""

from __future__ import annotations

from math import comb
from typing import Any

import numpy as np
import pytest
from sklearn.linear_model import LinearRegression

from obverse.linear import SparseClassifierCV, SparseRegressorCV
from obverse.linear._selection import cannot_reach, has_risen, one_standard_error


def data(n: int = 150, p: int = 60, seed: int = 0, noise: float = 1.0) -> tuple[Any, Any]:
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(n, p))
    return X, X[:, 1] * 2 - X[:, 4] + 0.7 * X[:, 9] + noise * rng.normal(size=n)


@pytest.mark.parametrize(("criterion", "gamma"), [("bic", 0.0), ("ebic", 0.5)])
def test_values_are_the_formula(criterion: Any, gamma: float) -> None:
    X, y = data()
    model = SparseRegressorCV("mcp", criterion=criterion, width="alpha").fit(X, y)
    for k in range(0, model.path_.alphas.size, 5):
        coef = model.path_.coef(k)
        residual = y - X @ coef - model.path_.intercepts[k]
        size = np.count_nonzero(coef)
        expected = y.size * np.log(np.mean(residual**2)) + size * np.log(y.size) + 2 * gamma * np.log(comb(60, size))
        here = model.criterion_values_[0, k]
        first = y.size * np.log(np.var(y))
        # But for a constant.
        assert here - model.criterion_values_[0, 0] == pytest.approx(expected - first)
    assert not hasattr(model, "cv_errors_")
    used = np.flatnonzero(model.coef_)
    assert {1, 4, 9} <= set(used)
    assert used.size <= 5


def test_classification_uses_the_deviance() -> None:
    X, y = data()
    labels = (y > 0).astype(int)
    model = SparseClassifierCV("lasso", criterion="bic").fit(X, labels)
    null = -2 * y.size * (labels.mean() * np.log(labels.mean()) + (1 - labels.mean()) * np.log(1 - labels.mean()))
    assert model.criterion_values_[0, 0] == pytest.approx(null, rel=1e-6)
    chosen = -2 * np.log(model.predict_proba(X)[np.arange(y.size), labels]).sum()
    size = np.count_nonzero(model.coef_)
    assert np.nanmin(model.criterion_values_) == pytest.approx(chosen + size * np.log(y.size), rel=1e-6)


def test_integer_weights_are_repeated_rows() -> None:
    X, y = data()
    counts = np.random.default_rng(1).integers(0, 3, y.size)
    weighted = SparseRegressorCV("mcp", criterion="ebic").fit(X, y, sample_weight=counts)
    repeated = SparseRegressorCV("mcp", criterion="ebic").fit(X.repeat(counts, 0), y.repeat(counts))
    np.testing.assert_allclose(weighted.criterion_values_, repeated.criterion_values_, rtol=1e-6)
    np.testing.assert_allclose(weighted.coef_, repeated.coef_, atol=1e-6)


def test_more_features_than_rows_do_not_saturate() -> None:
    X, y = data(n=40, p=300)
    for criterion in ("bic", "ebic"):
        model = SparseRegressorCV("log-sum", criterion=criterion, shapes="auto").fit(X, y)
        assert 0 < np.count_nonzero(model.coef_) < 20


def test_stable_features_are_fitted_without_penalty() -> None:
    X, y = data()
    model = SparseRegressorCV("lasso", criterion="stability", random_state=0).fit(X, y)
    stable = np.flatnonzero(model.selection_frequencies_ >= 0.7)
    assert {1, 4, 9} <= set(stable)
    assert stable.size <= 6
    plain = LinearRegression().fit(X[:, stable], y)
    np.testing.assert_allclose(model.coef_[stable], plain.coef_, atol=1e-6)
    assert np.count_nonzero(model.coef_) == stable.size
    assert model.alpha_ == 0
    assert model.selection_frequencies_.max() == 1
    again = SparseRegressorCV("lasso", criterion="stability", random_state=0).fit(X, y)
    np.testing.assert_array_equal(again.selection_frequencies_, model.selection_frequencies_)
    assert model.summary().rows[0]["frequency"] == 1
    other = SparseRegressorCV("lasso", criterion="stability", random_state=1).fit(X, y)
    assert (other.selection_frequencies_ != model.selection_frequencies_).any()


def test_noise_has_no_stable_features() -> None:
    X, _ = data()
    y = np.random.default_rng(5).normal(size=150)
    model = SparseRegressorCV("mcp", criterion="stability", random_state=0).fit(X, y)
    assert np.count_nonzero(model.coef_) <= 1
    assert model.predict(X).std() < 0.5


def test_stability_of_classes() -> None:
    X, y = data(n=300)
    model = SparseClassifierCV("lasso", criterion="stability", random_state=0).fit(X, np.where(y > 0, "a", "b"))
    assert {1, 4} <= set(np.flatnonzero(model.coef_[0]))
    with pytest.raises(ValueError, match="one penalty"):
        SparseClassifierCV(["lasso", "mcp"], criterion="stability").fit(X, y > 0)


def test_when_paths_end() -> None:
    falling = np.linspace(2, 1, 20)
    assert not has_risen(falling)
    assert has_risen(np.r_[falling, np.linspace(1, 2, 12)])
    assert not has_risen(np.r_[falling, np.linspace(1, 2, 5)])
    # Ever slower towards 1: it cannot reach 0.9 but may reach 1.05.
    slower = 1 + 0.8 ** np.arange(20)
    assert cannot_reach(slower, 25, 0.9)
    assert not cannot_reach(slower, 60, 1.01)
    assert not cannot_reach(np.linspace(2, 1.5, 20), 60, 0.9)
    assert not cannot_reach(slower[:5], 60, 0.9)
    # Ever faster: it may still reach anything.
    assert not cannot_reach(3 - 1.1 ** np.arange(10), 12, -5.0)


def test_one_standard_error_rule() -> None:
    errors = np.array([5.0, 3.0, 2.2, 2.0, 2.1, np.nan])
    features = np.arange(6)
    for error, place in ((0.3, 2), (1.0, 1), (0.0, 3)):
        assert one_standard_error(errors[None], np.full((1, 6), error), features[None]) == (0, place)
    # Another shape has fewer features, or as many and a lower error, or is too bad whatever it has.
    table, counts = np.stack([errors, errors + 0.05]), np.stack([features, features])
    assert one_standard_error(table, np.full((2, 6), 0.3), counts) == (0, 2)
    counts[1] = 1
    assert one_standard_error(table, np.full((2, 6), 0.3), counts) == (1, 2)
    assert one_standard_error(table, np.full((2, 6), 0.01), counts) == (0, 3)
