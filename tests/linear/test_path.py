"""Paths for the squared loss: against conditions checked by other code, other solvers, the same said in other ways."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import scipy.sparse as sp
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.linear_model import Lasso as SklearnLasso

from obverse.linear import sparse_path
from obverse.linear._design import Design
from obverse.linear._path import solve_at
from obverse.linear._problem import make_problem
from obverse.linear._terms import Terms
from obverse.linear._working_set import Folds
from obverse.penalties import Penalty
from obverse.penalties import penalty as named

PENALTIES = ["lasso", "mcp", "scad", "log-sum", "l0.5", "capped-l1", "empirical-bayes", "variational-dropout"]


def data(n: int = 90, p: int = 150, seed: int = 0, correlation: float = 0.5) -> tuple[Any, Any]:
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(n, p))
    for j in range(1, p):
        X[:, j] = correlation * X[:, j - 1] + np.sqrt(1 - correlation**2) * X[:, j]
    w = np.zeros(p)
    w[rng.choice(p, 6, replace=False)] = rng.uniform(0.5, 2, 6) * rng.choice([-1, 1], 6)
    return X + rng.normal(size=p), X @ w + 0.3 * rng.normal(size=n) + 2.0


def violation(X: Any, y: Any, coef: Any, intercept: float, penalty: Penalty, alpha: float) -> float:
    """Of the first-order conditions on the support, and of global scalar minima at the zeros, in NumPy alone."""
    residual = y - X @ coef - intercept
    gradient = X.T @ residual / len(y)
    at_zero = np.abs((X - X.mean(0)).T @ (y - y.mean()) / len(y)).max()
    on = coef != 0
    worst = np.abs(gradient[on] - alpha * np.sign(coef[on]) * np.asarray(penalty.slope(coef[on]))).max(initial=0.0)
    gram = ((X - X.mean(0)) ** 2).mean(0)
    moved = np.asarray(penalty.prox(gradient[~on] / gram[~on] * (1 - 1e-7), alpha / gram[~on]))
    worst = max(worst, np.abs(moved * gram[~on]).max(initial=0.0), abs(residual.mean()))
    return float(worst / at_zero)


@pytest.mark.parametrize("name", PENALTIES)
@pytest.mark.parametrize("shape", [(90, 150), (150, 60)])
def test_solutions_satisfy_conditions_checked_by_other_code(name: str, shape: tuple[int, int]) -> None:
    X, y = data(*shape)
    path = sparse_path(X, y, name, n_alphas=25, alpha_min_ratio=0.05)
    assert path.converged.all()
    assert sparse_path(X, y, name, alphas=[1.0001 * path.alphas[0]]).n_features[0] == 0
    assert path.n_features[-1] >= 6
    for k in range(len(path.alphas)):
        assert violation(X, y, path.coef(k), path.intercepts[k], named(name), path.alphas[k]) < 1e-6


def test_the_lasso_is_that_of_scikit_learn() -> None:
    X, y = data()
    path = sparse_path(X, y, "lasso", n_alphas=12)
    for k in (3, 7, 11):
        other = SklearnLasso(path.alphas[k], tol=1e-12, max_iter=100_000).fit(X, y)
        assert np.abs(path.coef(k) - other.coef_).max() < 1e-6
        assert abs(path.intercepts[k] - other.intercept_) < 1e-6


@pytest.mark.parametrize("name", ["lasso", "mcp", "log-sum"])
@pytest.mark.parametrize("keep", ["C", "F", "csr", "strided", "float32"])
def test_all_kinds_of_data_give_the_same_path(name: str, keep: str) -> None:
    X, y = data()
    X[np.abs(X) < 0.8] = 0.0
    X = X.astype(np.float32).astype(np.float64)
    kinds = {
        "C": np.ascontiguousarray(X),
        "F": np.asfortranarray(X),
        "csr": sp.csr_array(X),
        "strided": np.repeat(X, 2, axis=1)[:, ::2],
        "float32": X.astype(np.float32),
    }
    one, other = (sparse_path(kind, y, name, n_alphas=15) for kind in (X, kinds[keep]))
    assert abs(one.coefs - other.coefs).max() < 1e-8


@pytest.mark.parametrize("order", ["C", "F", "csc"])
@pytest.mark.parametrize("count", [1, 3, 4, 6])
@pytest.mark.parametrize("rows", [7, 2500])
def test_products_of_chosen_columns(order: str, count: int, rows: int) -> None:
    rng = np.random.default_rng(count)
    X = rng.normal(size=(rows, 13))
    kept = sp.csc_array(X) if order == "csc" else np.asarray(X, order=order)  # type: ignore[call-overload]
    design = Design(kept, np.full(rows, 1 / rows), centered=True)
    right = rng.normal(size=(rows, count))
    columns = (X - X.mean(0)) / design.scale
    index = np.array([12, 0, 5, 6, 7])
    assert np.allclose(design.correlate(right), columns.T @ right, atol=1e-10)
    assert np.allclose(design.correlate(right, index), columns[:, index].T @ right, atol=1e-10)
    assert np.allclose(design.correlate(right[:, 0]), columns.T @ right[:, 0], atol=1e-10)
    assert design.passes == pytest.approx(count + count * 5 / 13 + 1)


def test_a_row_of_weight_two_is_two_rows() -> None:
    X, y = data()
    weights = np.random.default_rng(1).integers(0, 4, len(y))
    weighted = sparse_path(X, y, "mcp", width="alpha", sample_weight=weights, n_alphas=15)
    repeated = sparse_path(np.repeat(X, weights, axis=0), np.repeat(y, weights), "mcp", width="alpha", n_alphas=15)
    assert np.allclose(weighted.alphas, repeated.alphas)
    assert abs(weighted.coefs - repeated.coefs).max() < 1e-8


@pytest.mark.parametrize("name", PENALTIES)
def test_a_fold_solved_with_others_is_the_fold_solved_alone(name: str) -> None:
    X, y = data(120, 200)
    held = [np.arange(0, 120, 3), np.arange(1, 120, 3), np.zeros(0, np.int64)]
    terms = Terms(named(name), np.ones(200), width="alpha" if name == "mcp" else "fixed")
    weights = np.full(120, 1 / 120)
    together = make_problem("squared", X, y, weights, fit_intercept=True, folds=Folds(held, 120))
    alphas = together.largest_alpha(terms) * np.geomspace(1, 0.1, 20)
    solutions = together.solve(terms, alphas)
    for fold, rows in enumerate(held[:2]):
        kept = np.setdiff1d(np.arange(120), rows)
        alone = make_problem("squared", X[kept], y[kept], np.full(80, 1 / 80), fit_intercept=True)
        [expected] = alone.solve(terms, alphas)
        for one, other in zip(solutions[fold], expected, strict=True):
            assert one.index.tolist() == other.index.tolist()
            assert np.allclose(one.coef, other.coef, atol=1e-6)
            errors = y[rows] - X[rows][:, one.index] @ one.coef - one.intercept
            assert one.held_out == pytest.approx(float(np.sum(errors**2)) / 240)


def test_one_alpha_is_that_of_the_path() -> None:
    X, y = data()
    path = sparse_path(X, y, "lasso", n_alphas=20)
    terms = Terms(named("lasso"), np.ones(X.shape[1]))
    problem = make_problem("squared", X, y, np.full(len(y), 1 / len(y)), fit_intercept=True)
    solution = solve_at(problem, terms, float(path.alphas[13]))
    assert np.allclose(path.coef(13)[solution.index], solution.coef, atol=1e-6)


@pytest.mark.parametrize("width", ["fixed", "alpha"])
def test_alpha_zero_is_least_squares(width: Any) -> None:
    X, y = data(80, 12)
    path = sparse_path(X, y, "mcp", width=width, alphas=[0.1, 0.0])
    least = np.linalg.lstsq(X - X.mean(0), y - y.mean(), rcond=None)[0]
    assert np.allclose(path.coef(1), least, atol=1e-8)


def test_options_mean_what_they_say() -> None:
    X, y = data(80, 20)
    free = sparse_path(X, y, "lasso", penalty_factor=[0.0, *[1.0] * 19], n_alphas=5)
    assert free.coef(0)[0] != 0
    assert free.n_features[0] <= 2
    assert (sparse_path(X, y, "lasso", positive=True, n_alphas=10).coefs.toarray() >= 0).all()
    assert sparse_path(X, y, "lasso", max_features=3).n_features[:-1].max() <= 3
    deviation = X.std(0)
    scaled = sparse_path(X / deviation, y, "mcp", n_alphas=10)
    itself = sparse_path(X, y, "mcp", standardize=True, n_alphas=10)
    assert np.abs(scaled.coefs.toarray() / deviation - itself.coefs.toarray()).max() < 1e-8


@settings(max_examples=25, deadline=None)
@given(st.integers(-150, 150), st.integers(-150, 150), st.sampled_from(["lasso", "l0.5"]))
def test_units_change_nothing_but_units(of_x: int, of_y: int, name: str) -> None:
    X, y = data(40, 12)
    plain = sparse_path(X, y, name, n_alphas=6)
    scaled = sparse_path(X * 10.0**of_x, y, name, n_alphas=6)
    assert np.allclose(scaled.coefs.toarray() * 10.0**of_x, plain.coefs.toarray(), rtol=1e-6, atol=1e-9)
    scaled = sparse_path(X, y * 10.0**of_y, name, n_alphas=6)
    assert np.allclose(scaled.coefs.toarray() / 10.0**of_y, plain.coefs.toarray(), rtol=1e-6, atol=1e-9)
    assert scaled.converged.all()


def test_columns_of_very_different_scales() -> None:
    X, y = data(80, 10)
    scales = 10.0 ** np.linspace(-8, 8, 10)
    factor = 1 / scales
    plain = sparse_path(X, y, "lasso", n_alphas=10)
    mixed = sparse_path(X / factor, y, "lasso", penalty_factor=1 / factor, n_alphas=10)
    assert np.allclose(mixed.coefs.toarray() / factor, plain.coefs.toarray(), rtol=1e-6, atol=1e-9)


def test_degenerate_data() -> None:
    X, y = data(30, 8)
    X[:, 3] = 5.0
    X[:, 4] = X[:, 5]
    path = sparse_path(X, y, "mcp")
    assert path.converged.all()
    assert (path.coefs.toarray()[:, 3] == 0).all()
    assert sparse_path(X[:1], y[:1], "lasso").n_features.max() == 0
    assert sparse_path(X, np.full(30, 7.0), "lasso").intercepts == pytest.approx(7.0)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"penalty": "ridge"}, "no exact zeros"),
        ({"penalty": "lassso"}, "lasso"),
        ({"alphas": [-1.0]}, "at least 0"),
        ({"alphas": []}, "there must be one"),
        ({"penalty_factor": [1.0]}, "20 finite numbers"),
        ({"sample_weight": -np.ones(40)}, "egative"),
        ({"loss": "squares"}, "squared"),
    ],
)
def test_bad_input_is_refused(change: dict[str, Any], message: str) -> None:
    X, y = data(40, 20)
    with pytest.raises(ValueError, match=message):
        sparse_path(X, y, **change)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_numbers_that_are_none_are_refused(bad: float) -> None:
    X, y = data(40, 20)
    X[3, 2] = bad
    with pytest.raises(ValueError, match=r"NaN|infinity"):
        sparse_path(X, y)
