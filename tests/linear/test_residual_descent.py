"""Sparse features: descent on residuals, against descent on products and the first-order conditions."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import scipy.sparse as sp

from obverse.linear import _fold_path, sparse_path
from obverse.linear._path import log_alphas
from obverse.linear._problem import make_problem
from obverse.linear._residual_descent import descend_residuals, sparse_moments
from obverse.linear._solution import Solution
from obverse.linear._sparse_members import SparseMembers
from obverse.linear._terms import Terms
from obverse.linear._working_set import Folds
from obverse.penalties import penalty as named

PENALTIES = ["lasso", "mcp", "scad", "log-sum", "l0.5", "l0", "variational-dropout"]


def data(n: int = 300, p: int = 200, seed: int = 0) -> tuple[Any, Any]:
    """Sparse columns of very different density and size, one of them constant, and weights of the rows."""
    random = np.random.default_rng(seed)
    X = random.normal(1.0, 1.0, (n, p)) * (random.random((n, p)) < np.geomspace(0.6, 0.02, p))
    X[:, 3] = 2.0
    X *= np.geomspace(0.2, 5.0, p)[random.permutation(p)]
    w = np.zeros(p)
    w[4:16] = random.choice([-2.0, 2.0], 12) / X.std(axis=0)[4:16]
    y = X @ w + random.normal(size=n) + 5.0
    return sp.csc_array(X), y


def solve(monkeypatch: Any, residuals: bool, X: Any, y: Any, **options: Any) -> Any:
    """A path that forms no products, or that forms them whatever the shape."""
    monkeypatch.setattr(_fold_path, "_PRODUCTS", -1 if residuals else 10**9)
    monkeypatch.setattr(_fold_path, "_ENTRIES", 0)
    return sparse_path(X, y, **{"n_alphas": 15, "alpha_min_ratio": 0.05} | options)


def test_members_are_sparse_where_they_are_many_and_have_few_entries(monkeypatch: Any) -> None:
    taken: list[int] = []
    take = SparseMembers.take

    def counted(self: SparseMembers, index: Any) -> None:
        taken.append(index.size)
        take(self, index)

    monkeypatch.setattr(SparseMembers, "take", counted)
    random = np.random.default_rng(0)
    y = random.normal(size=500)
    thin = sp.random_array((500, 2000), density=0.01, rng=random, format="csc")
    path = sparse_path(thin, y, "lasso", n_alphas=10, alpha_min_ratio=0.1)
    assert path.converged.all()
    assert path.n_features[-1] > 100
    assert taken
    taken.clear()
    full = sp.csc_array(random.normal(size=(500, 300)))
    sparse_path(full, y, "lasso", n_alphas=10, alpha_min_ratio=0.01)
    assert not taken


@pytest.mark.parametrize("positive", [False, True])
@pytest.mark.parametrize("intercept", [False, True])
@pytest.mark.parametrize("name", ["lasso", "elastic"])
def test_convex_solutions_are_those_by_products(monkeypatch: Any, name: str, intercept: bool, positive: bool) -> None:
    X, y = data()
    random = np.random.default_rng(1)
    # The "elastic" problem is a lasso with rows of its own for a ridge.
    if name == "elastic":
        X, y = sp.csc_array(sp.vstack([X, sp.eye_array(200) * 3.0])), np.append(y, np.zeros(200))
    options = {
        "penalty": "lasso", "alpha_min_ratio": 1e-3, "tol": 1e-9, "fit_intercept": intercept, "positive": positive,
        "sample_weight": random.integers(0, 3, y.size), "penalty_factor": random.choice([0.5, 1.0, 2.0], 200),
    }  # fmt: skip
    one, other = (solve(monkeypatch, residuals, X, y, **options) for residuals in (True, False))
    assert one.converged.all()
    assert one.n_features[-1] > 10
    assert np.allclose(one.objectives, other.objectives, rtol=1e-9)
    fitted = [X @ path.coefs.toarray().T + path.intercepts for path in (one, other)]
    assert np.abs(fitted[0] - fitted[1])[options["sample_weight"] > 0].max() < 1e-6


@pytest.mark.parametrize("intercept", [False, True])
@pytest.mark.parametrize("name", PENALTIES)
def test_solutions_satisfy_conditions_checked_by_other_code(monkeypatch: Any, name: str, intercept: bool) -> None:
    X, y = data()
    penalty = named(name)
    weights = np.random.default_rng(2).integers(0, 3, y.size)
    path = solve(monkeypatch, True, X, y, penalty=name, fit_intercept=intercept, sample_weight=weights)
    assert path.converged.all()
    assert path.n_features[-1] >= 5
    v, dense = weights / weights.sum(), X.toarray()
    centered = dense - v @ dense if intercept else dense
    gram = v @ centered**2
    scale = np.abs(centered.T @ (v * (y - intercept * (v @ y)))).max()
    varies = gram > 1e-20
    for k, alpha in enumerate(path.alphas):
        coef = path.coef(k)
        residual = y - dense @ coef - path.intercepts[k]
        gradient = centered.T @ (v * residual)
        on = coef != 0
        inner = gradient[on] - alpha * np.sign(coef[on]) * np.asarray(penalty.slope(coef[on]))
        assert np.abs(inner).max(initial=0.0) < 1e-6 * scale
        assert not on[~varies].any()
        off = ~on & varies
        moved = np.asarray(penalty.prox(np.abs(gradient[off]) / gram[off] * (1 - 1e-6), alpha / gram[off]))
        assert np.abs(moved * gram[off]).max(initial=0.0) < 1e-6 * scale
        loss = v @ residual**2 / 2 + alpha * np.asarray(penalty.value(coef)).sum()
        assert path.objectives[k] == pytest.approx(loss, rel=1e-9)


@pytest.mark.parametrize("name", PENALTIES)
def test_every_step_lowers_the_objective(name: str) -> None:
    X, y = data()
    random = np.random.default_rng(3)
    v = np.where(random.random(300) < 0.2, 0.0, random.random(300))
    v /= v.sum()
    mean, gram = sparse_moments(X.data, X.indices, X.indptr, v, True)
    dense = X.toarray() - v @ X.toarray()
    assert np.allclose(mean, v @ X.toarray())
    assert np.allclose(gram, v @ dense**2)
    terms = Terms(named(name), np.ones(200), positive=False)
    penalty, y = terms.penalty, y - v @ y
    largest = np.abs(dense.T @ (v * y)).max()
    alpha = 0.05 * largest
    code, parameters = terms.codes(np.array([alpha]))
    unit, columns = np.ones(200), (X.data, X.indices, X.indptr, mean, gram, v)
    u, objectives = np.zeros(200), []
    for _ in range(12):
        residual = y - dense @ u
        objectives.append(v @ residual**2 / 2 + alpha * np.asarray(penalty.value(np.abs(u))).sum())
        found = np.zeros((1, 200))
        descend_residuals(
            code, parameters, np.array([alpha]), columns, u, v * residual, np.ones(200), unit, False,
            1e-9 * largest, 1, found, 200,
        )  # fmt: skip
        assert np.array_equal(found[0], u)
    assert (np.diff(objectives) <= 1e-12 * objectives[0]).all()
    assert objectives[-1] < objectives[0]


@pytest.mark.parametrize("name", ["lasso", "mcp", "l0.5"])
def test_folds_are_solved_as_if_alone(monkeypatch: Any, name: str) -> None:
    monkeypatch.setattr(_fold_path, "_PRODUCTS", -1)
    monkeypatch.setattr(_fold_path, "_ENTRIES", 0)
    X, y = data()
    held = [np.arange(0, 300, 3), np.arange(1, 300, 3), np.zeros(0, np.int64)]
    weights = np.random.default_rng(4).random(300)
    weights /= weights.sum()
    terms = Terms(named(name), np.ones(200), tol=1e-8)
    together = make_problem("squared", X, y, weights, fit_intercept=True, folds=Folds(held, 300))
    alphas = log_alphas(together.largest_alpha(terms), 12, 0.1)
    for solutions, out in zip(together.solve(terms, alphas), held, strict=True):
        kept = np.setdiff1d(np.arange(300), out)
        share = weights[kept].sum()
        alone = make_problem("squared", X[kept], y[kept], weights[kept] / share, fit_intercept=True)
        [expected] = alone.solve(terms, alphas)
        for one, other in zip(solutions, expected, strict=True):
            assert one.converged
            if name == "lasso":  # of the others' minima there are several
                assert one.objective == pytest.approx(other.objective, rel=1e-9)
            missed = y[out] - X[out] @ dense_of(one) - one.intercept
            assert one.held_out == pytest.approx(weights[out] @ missed**2 / 2, rel=1e-9, abs=1e-12)


def dense_of(solution: Solution) -> Any:
    coef = np.zeros(200)
    coef[solution.index] = solution.coef
    return coef
