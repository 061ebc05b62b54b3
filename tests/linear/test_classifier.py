"""SparseClassifier: against scikit-learn, labels, probabilities."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import scipy.sparse as sp
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression

from obverse.linear import SparseClassifier, SparseClassifierCV


def data(classes: int = 2, n: int = 200, p: int = 15, seed: int = 0) -> tuple[Any, Any]:
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(n, p))
    W = np.zeros((p, classes))
    W[:4] = 1.5 * rng.normal(size=(4, classes))
    return X, (X @ W + rng.gumbel(size=(n, classes))).argmax(axis=1)


def objective(model: Any, X: Any, y: Any, alpha: float) -> float:
    chosen = model.predict_log_proba(X)[np.arange(y.size), y]
    return float(-chosen.mean() + alpha * np.abs(model.coef_).sum())


@pytest.mark.parametrize("classes", [2, 3])
def test_the_lasso_is_that_of_scikit_learn(classes: int) -> None:
    X, y = data(classes)
    alpha = 0.02
    ours = SparseClassifier("lasso", alpha=alpha).fit(X, y)
    theirs = LogisticRegression(C=1 / alpha / y.size, l1_ratio=1.0, solver="saga", tol=1e-9, max_iter=20_000).fit(X, y)
    assert ours.coef_.shape == ((1 if classes == 2 else 3), 15)
    assert objective(ours, X, y, alpha) <= objective(theirs, X, y, alpha) + 1e-9
    np.testing.assert_allclose(ours.predict_proba(X), theirs.predict_proba(X), atol=2e-3)
    assert ours.objective_ == pytest.approx(objective(ours, X, y, alpha))


@pytest.mark.parametrize("classes", [2, 3])
def test_labels_and_probabilities(classes: int) -> None:
    X, codes = data(classes)
    names = np.array(["wren", "owl", "finch"], dtype=object)[:classes]
    model = SparseClassifier("mcp", alpha=0.05, width="alpha").fit(X, names[codes])
    assert model.classes_.tolist() == sorted(names)
    probabilities = model.predict_proba(X)
    np.testing.assert_allclose(probabilities.sum(axis=1), 1)
    np.testing.assert_allclose(np.exp(model.predict_log_proba(X)), probabilities)
    predicted = model.predict(X)
    assert (predicted == model.classes_[probabilities.argmax(axis=1)]).all()
    assert np.mean(predicted == names[codes]) > 0.7
    scores = model.decision_function(X)
    assert scores.shape == ((200,) if classes == 2 else (200, 3))
    if classes == 2:
        np.testing.assert_allclose(scores, np.log(probabilities[:, 1] / probabilities[:, 0]))
    sparse = SparseClassifier("mcp", alpha=0.05, width="alpha").fit(sp.csr_array(X), names[codes])
    np.testing.assert_allclose(sparse.predict_proba(sp.csr_array(X)), probabilities, atol=1e-6)


def test_extreme_scores_have_finite_logarithms() -> None:
    X, y = data()
    model = SparseClassifier("lasso").fit(X, y)
    log_proba = model.predict_log_proba(1e4 * X)
    assert np.isfinite(log_proba).all()
    assert log_proba.min() < -1000
    assert np.isfinite(model.predict_proba(1e4 * X)).all()


def test_numbers_of_features_and_refit() -> None:
    X, y = data()
    model = SparseClassifier("lasso", target_features=3, refit=True).fit(X, y)
    used = np.flatnonzero(model.coef_[0])
    assert used.size == 3
    plain = LogisticRegression(C=np.inf, tol=1e-10).fit(X[:, used], y)
    np.testing.assert_allclose(model.coef_[:, used], plain.coef_, atol=1e-3)


def test_classes_keep_their_shares_in_folds() -> None:
    # Sorted labels: folds without stratification would train on one class only.
    X, y = data(n=120)
    order = np.argsort(y, kind="stable")
    model = SparseClassifierCV("lasso", n_alphas=10).fit(X[order], y[order])
    null = -np.log(np.bincount(y) / y.size) @ (np.bincount(y) / y.size)
    assert np.nanmin(model.cv_errors_) < 0.9 * null
    assert model.score(X, y) > 0.7


def test_faces_that_do_not_classify_say_so() -> None:
    X, y = data(3)
    with pytest.raises(ValueError, match="several classes need solver='auto'"):
        SparseClassifier("ridge").fit(X, y)
    with pytest.raises(ValueError, match="squared loss"):
        SparseClassifier(solver="dropout").fit(X, y > 0)


@pytest.mark.parametrize("classes", [2, 3])
def test_separated_classes_are_told_where_nothing_holds_them_back(classes: int) -> None:
    X = np.random.default_rng(0).normal(size=(60, 5))
    y = np.digitize(X[:, 0], [0.0] if classes == 2 else [-0.5, 0.5])
    for penalty in ("mcp", "scad"):
        with pytest.warns(ConvergenceWarning, match="the loss has no minimum there"):
            SparseClassifier(penalty, alpha=1e-3).fit(X, y)
    for penalty in ("lasso", "log-sum"):
        model = SparseClassifier(penalty, alpha=1e-3).fit(X, y)
        assert model.converged_
        assert model.score(X, y) == 1.0
