"""The reweighted and the dropout face of linear models: references, descent, and one point for all three faces."""

from __future__ import annotations

import itertools
import subprocess
import sys
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
import scipy.sparse as sp
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize
from sklearn.linear_model import LogisticRegression, PoissonRegressor
from sklearn.linear_model import Ridge as RidgeRegressor

from obverse.duality import adaptive_dropout
from obverse.errors import InvalidArgumentError, UnknownNameError
from obverse.linear import sparse_path
from obverse.linear._design import Design
from obverse.linear._masked import _Training, masked_solution
from obverse.linear._reweighted import ReweightedProblem, reweighted_solutions
from obverse.linear._terms import Terms
from obverse.linear._tikhonov import Tikhonov
from obverse.penalties import (
    L0,
    MCP,
    SCAD,
    CappedL1,
    ConcreteDropout,
    EmpiricalBayes,
    HardConcrete,
    Lasso,
    Log2Sum,
    LogSum,
    Lp,
    Penalty,
    Ridge,
    Standout,
    TargetedDropout,
    VariationalDropout,
)

ROOT = Path(__file__).parents[2]
SMOOTH = [Ridge(), Standout(), Log2Sum(0.5), ConcreteDropout(), TargetedDropout(), Lp(1.5)]
SPARSE = [
    *(Lasso(), LogSum(1.0), MCP(3.0), SCAD(), Lp(0.5), CappedL1(1.0)),
    *(VariationalDropout(), EmpiricalBayes(), HardConcrete()),
]


def named(penalty: Penalty) -> str:
    return type(penalty).__name__


def data(n: int, p: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Columns off center, a response with five features in it, and equal weights."""
    random = np.random.default_rng(seed)
    X = random.standard_normal((n, p)) * np.linspace(0.7, 1.3, p) + 1
    y = X[:, :5] @ np.array([2, -1, 1, 0.5, -3])[:p] + 0.5 * random.standard_normal(n) + 4
    return X, y, np.full(n, 1 / n)


def response(loss: str, y: np.ndarray) -> np.ndarray:
    """A response that suits the loss, from a real one."""
    score = (y - y.mean()) / y.std()
    if loss == "logistic":
        return (score + np.random.default_rng(1).standard_normal(y.size) > 0).astype(float)
    return np.random.default_rng(1).poisson(np.exp(0.7 * score)).astype(float) if loss == "poisson" else y


def full(solution, p: int) -> np.ndarray:
    w = np.zeros(p)
    w[solution.index] = solution.coef
    return w


def reweighted(X, y, weights, penalty, alpha, loss="squared", start=None, delta=1.35, factor=None, **options):
    factor = np.ones(X.shape[1]) if factor is None else factor
    terms = Terms(penalty, factor, **options)
    [found] = reweighted_solutions(loss, X, y, weights, terms, np.array([alpha]), start=start, delta=delta)
    return found


def never_rises(history: np.ndarray) -> bool:
    return bool((np.diff(history) <= 1e-14 * np.abs(history[0])).all())


# ---------------------------------------------------------------------- the ridge problem
@pytest.mark.parametrize(("n", "p"), [(80, 12), (20, 60)])
@pytest.mark.parametrize("kind", ["dense", "sparse", "float32"])
@pytest.mark.parametrize("fit_intercept", [True, False])
def test_ridge_takes_one_step_and_is_that_of_scikit_learn(n: int, p: int, kind: str, fit_intercept: bool) -> None:
    X, y, _ = data(n, p)
    s = np.random.default_rng(2).integers(1, 5, n).astype(float)
    given = {"dense": X, "sparse": sp.csc_array(X), "float32": X.astype(np.float32)}[kind]
    reference = RidgeRegressor(alpha=0.3 * s.sum(), fit_intercept=fit_intercept, solver="cholesky")
    reference.fit(np.asarray(given.todense() if kind == "sparse" else given, dtype=np.float64), y, sample_weight=s)
    found = reweighted(given, y, s / s.sum(), Ridge(), 0.3, fit_intercept=fit_intercept, tol=1e-5)
    assert found.iterations == 1
    tolerance = 1e-4 if kind == "float32" else 1e-10
    np.testing.assert_allclose(full(found.solution, p), reference.coef_, rtol=tolerance, atol=tolerance)
    assert abs(found.solution.intercept - reference.intercept_) < 10 * tolerance


@pytest.mark.parametrize("is_sparse", [False, True])
@pytest.mark.parametrize(("n", "p"), [(30, 10), (10, 30)])
def test_the_step_solves_the_bordered_normal_equations(n: int, p: int, is_sparse: bool) -> None:
    X, _, weights = data(n, p)
    random = np.random.default_rng(3)
    design = Design(sp.csc_array(X) if is_sparse else X, weights, centered=True)
    columns = X / design.scale - design.center
    c, gradient, push = random.random(n) + 0.1, random.standard_normal(n), random.standard_normal(p)
    t = 10.0 ** random.uniform(-2, 3, p)
    # Columns without a ridge, and one that bends the other way, as Newton's step meets them.
    t[:2], t[2] = 0.0, -0.01
    wide = np.concatenate([columns, np.ones((n, 1))], axis=1)
    matrix = wide.T @ (c[:, None] * wide) + np.diag([*t, 0.0])
    expected = np.linalg.solve(matrix, -wide.T @ gradient - np.append(push, 0.0))
    found = Tikhonov(design, intercept=True, constant=False).solve(
        np.arange(p), c, gradient, push, t, np.einsum("ij,i,ij->j", columns, c, columns)
    )
    if np.linalg.eigvalsh(matrix).min() <= 0:
        assert found is None
        return
    v, b = found
    np.testing.assert_allclose(np.append(v, b), expected, rtol=1e-7, atol=1e-7)


def test_a_matrix_that_is_not_positive_definite_is_refused() -> None:
    X, _, weights = data(30, 6)
    design = Design(X, weights, centered=True)
    solver = Tikhonov(design, intercept=True, constant=True)
    assert solver.solve(np.arange(6), weights, weights, np.zeros(6), np.full(6, -1e3), design.spread) is None


def test_no_matrix_of_features_by_features_where_these_are_many() -> None:
    X, y, weights = data(20, 6000)
    tracemalloc.start()
    found = reweighted(X, y, weights, Log2Sum(0.5), 0.5)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert found.solution.converged
    # A tenth of what 6000 x 6000 numbers take.
    assert peak < 6000 * 6000 * 8 / 10


# ---------------------------------------------------------------------- penalties without exact zeros
@pytest.mark.parametrize("loss", ["logistic", "poisson"])
@pytest.mark.parametrize(("n", "p"), [(150, 10), (40, 80)])
def test_other_losses_with_a_ridge_are_those_of_scikit_learn(loss: str, n: int, p: int) -> None:
    X, y, weights = data(n, p)
    y = response(loss, y)
    if loss == "poisson":
        reference = PoissonRegressor(alpha=0.1, tol=1e-10, solver="newton-cholesky", max_iter=1000).fit(X, y)
    else:
        reference = LogisticRegression(C=10 / n, tol=1e-10, solver="newton-cholesky", max_iter=1000).fit(X, y)
    found = reweighted(X, y, weights, Ridge(), 0.1, loss, tol=1e-10)
    assert found.solution.converged
    np.testing.assert_allclose(full(found.solution, p), reference.coef_.ravel(), atol=1e-7)
    assert abs(found.solution.intercept - float(np.ravel(reference.intercept_)[0])) < 1e-6


def test_the_huber_loss_with_a_ridge_is_that_of_a_general_minimizer() -> None:
    X, y, weights = data(60, 5)
    y = y + 30 * (np.arange(60) % 10 == 0)

    def objective(w: np.ndarray) -> float:
        size = np.abs(y - X @ w[:5] - w[5])
        inside = np.minimum(size, 2.0)
        return float((inside * (size - inside / 2)).mean() + 0.05 * (w[:5] ** 2).sum())

    reference = minimize(objective, np.zeros(6), method="BFGS", options={"gtol": 1e-9})
    found = reweighted(X, y, weights, Ridge(), 0.1, "huber", delta=2.0, tol=1e-9)
    assert found.solution.converged
    assert abs(found.solution.objective - reference.fun) < 1e-9
    np.testing.assert_allclose(full(found.solution, 5), reference.x[:5], atol=1e-5)


@pytest.mark.parametrize("penalty", SMOOTH, ids=named)
@pytest.mark.parametrize(("n", "p"), [(100, 15), (30, 70)])
def test_without_zeros_the_gradient_vanishes(penalty: Penalty, n: int, p: int) -> None:
    X, y, weights = data(n, p)
    factor = np.ones(p)
    factor[0] = 0.0
    found = reweighted(X, y, weights, penalty, 0.2, factor=factor)
    w = full(found.solution, p)
    residual = y - X @ w - found.solution.intercept
    gradient = X.T @ residual / n - 0.2 * factor * np.sign(w) * penalty.slope(w)
    largest = np.abs((X - X.mean(0)).T @ (y - y.mean()) / n).max()
    assert found.solution.converged
    assert np.abs(gradient).max() < 3e-6 * largest
    assert abs(residual.mean()) < 1e-9
    objective = (residual**2).mean() / 2 + 0.2 * (factor * penalty.value(w)).sum()
    assert abs(found.solution.objective - objective) < 1e-10 * objective
    assert never_rises(found.history)


def test_a_path_is_continued() -> None:
    X, y, weights = data(100, 15)
    terms = Terms(Log2Sum(0.5), np.ones(15))
    along = reweighted_solutions("squared", X, y, weights, terms, np.array([0.5, 0.4, 0.3]))
    alone = reweighted(X, y, weights, Log2Sum(0.5), 0.3)
    assert along[-1].iterations <= alone.iterations
    np.testing.assert_allclose(along[-1].solution.coef, alone.solution.coef, atol=1e-4)


# ---------------------------------------------------------------------- penalties with exact zeros
@pytest.mark.parametrize("newton", [True, False])
@pytest.mark.parametrize("penalty", SPARSE, ids=named)
def test_reweighting_ends_where_coordinate_descent_does(penalty: Penalty, newton: bool) -> None:
    X, y, weights = data(120, 15)
    path = sparse_path(X, y, penalty, alphas=[0.05])
    problem = ReweightedProblem("squared", X, y, weights, fit_intercept=True)
    [found] = problem.solve(Terms(penalty, np.ones(15)), np.array([0.05]), newton=newton)
    assert found.solution.converged
    assert never_rises(found.history)
    np.testing.assert_array_equal(found.solution.index, np.flatnonzero(path.coef(0)))
    np.testing.assert_allclose(full(found.solution, 15), path.coef(0), atol=1e-5)
    assert abs(found.solution.objective - path.objectives[0]) < 1e-9


@pytest.mark.parametrize("is_sparse", [False, True])
@pytest.mark.parametrize("penalty", [Lasso(), LogSum(1.0), MCP(3.0)], ids=named)
def test_the_conventions_are_those_of_the_path(penalty: Penalty, is_sparse: bool) -> None:
    X, y, _ = data(40, 90)
    s = np.random.default_rng(4).integers(0, 4, 40).astype(float)
    factor = np.ones(90)
    factor[:2] = [0.0, 2.0]
    given = sp.csc_array(X) if is_sparse else X
    for fit_intercept, standardize, width in itertools.product((True, False), (True, False), ("fixed", "alpha")):
        options = {"fit_intercept": fit_intercept, "standardize": standardize, "width": width}
        path = sparse_path(given, y, penalty, alphas=[0.3], penalty_factor=factor, sample_weight=s, **options)
        start = (path.coef(0) + 1e-3, path.intercepts[0])
        found = reweighted(given, y, s / s.sum(), penalty, 0.3, factor=factor, start=start, **options)
        assert found.solution.converged
        np.testing.assert_allclose(full(found.solution, 90), path.coef(0), atol=2e-5)
        assert abs(found.solution.objective - path.objectives[0]) < 1e-8 * path.objectives[0]


@pytest.mark.parametrize("loss", ["logistic", "poisson", "huber"])
@pytest.mark.parametrize("penalty", [Lasso(), LogSum(1.0), MCP(3.0), Log2Sum(0.5)], ids=named)
@pytest.mark.parametrize(("n", "p"), [(150, 10), (40, 80)])
def test_no_step_raises_the_objective_of_other_losses(loss: str, penalty: Penalty, n: int, p: int) -> None:
    X, y, weights = data(n, p)
    found = reweighted(X, response(loss, y), weights, penalty, 0.1, loss)
    assert found.solution.converged
    assert len(found.history) == found.iterations + 1
    assert found.history[-1] < found.history[0]
    assert never_rises(found.history)


def test_a_logistic_lasso_is_that_of_scikit_learn() -> None:
    X, y, weights = data(100, 10)
    y = response("logistic", y)
    reference = LogisticRegression(l1_ratio=1.0, C=1 / (100 * 0.05), solver="saga", tol=1e-10, max_iter=20000).fit(X, y)
    found = reweighted(X, y, weights, Lasso(), 0.05, "logistic")
    np.testing.assert_array_equal(found.solution.index, np.flatnonzero(reference.coef_[0]))
    np.testing.assert_allclose(full(found.solution, 10), reference.coef_[0], atol=1e-4)


def test_zeros_that_violate_their_rule_are_let_in_again() -> None:
    X, y, weights = data(120, 15)
    start = (np.where(np.arange(15) == 9, 0.3, 0.0), 0.0)
    found = reweighted(X, y, weights, LogSum(1.0), 0.1, start=start)
    assert found.solution.converged
    np.testing.assert_allclose(
        full(found.solution, 15), sparse_path(X, y, LogSum(1.0), alphas=[0.1]).coef(0), atol=1e-5
    )


def test_a_start_at_zero_is_left_where_no_zero_is_a_solution() -> None:
    X, y, weights = data(100, 10)
    for penalty in (Lp(1.5), Log2Sum(0.5), Ridge()):
        found = reweighted(X, y, weights, penalty, 0.2, start=(np.zeros(10), 0.0))
        assert found.solution.converged
        expected = reweighted(X, y, weights, penalty, 0.2).solution
        np.testing.assert_allclose(full(found.solution, 10), full(expected, 10), atol=1e-4)


def test_at_the_solution_nothing_is_left_to_do() -> None:
    X, y, weights = data(120, 15)
    path = sparse_path(X, y, MCP(3.0), alphas=[0.1], tol=1e-9)
    found = reweighted(X, y, weights, MCP(3.0), 0.1, start=(path.coef(0), path.intercepts[0]))
    assert found.iterations == 0
    assert found.solution.converged
    np.testing.assert_allclose(full(found.solution, 15), path.coef(0), rtol=1e-12)


def test_a_solver_that_was_stopped_says_so() -> None:
    X, y, weights = data(40, 90)
    found = reweighted(X, y, weights, LogSum(1.0), 0.3, max_iter=2)
    assert found.iterations == 2
    assert not found.solution.converged
    assert found.solution.violation > 1e-6


@given(st.sampled_from([*SMOOTH[:5], *SPARSE]), st.floats(1e-3, 1e3), st.floats(1e-3, 1e3))
@settings(max_examples=100, deadline=None)
def test_the_ridge_bounds_the_penalty_from_above(penalty: Penalty, w: float, v: float) -> None:
    eta = float(penalty.eta(v))
    bound = float(penalty.value(v)) + ((w - v) * (w + v) / (2 * eta) if eta < np.inf else 0.0)
    assert float(penalty.value(w)) <= bound + 1e-9 * (1 + abs(bound))


def test_repeating_a_row_equals_weighting_it() -> None:
    X, y, _ = data(60, 12)
    s = np.random.default_rng(5).integers(0, 4, 60)
    X2, y2 = np.repeat(X, s, axis=0), np.repeat(y, s)
    for penalty in (LogSum(1.0), Log2Sum(0.5)):
        weighted = reweighted(X, y, s / s.sum(), penalty, 0.1, tol=1e-9)
        repeated = reweighted(X2, y2, np.full(y2.size, 1 / y2.size), penalty, 0.1, tol=1e-9)
        np.testing.assert_allclose(full(weighted.solution, 12), full(repeated.solution, 12), atol=1e-8)


@pytest.mark.parametrize(("x_size", "y_size"), [(1e-150, 1e150), (1e150, 1e-150), (1e150, 1e150), (1.0, 1e100)])
@pytest.mark.parametrize(("n", "p"), [(60, 12), (20, 50)])
def test_units_do_not_matter(x_size: float, y_size: float, n: int, p: int) -> None:
    X, y, weights = data(n, p)
    plain = reweighted(X, y, weights, Lasso(), 0.3)
    scaled = reweighted(X * x_size, y * y_size, weights, Lasso(), 0.3 * x_size * y_size)
    assert scaled.solution.converged
    np.testing.assert_allclose(full(scaled.solution, p) / y_size * x_size, full(plain.solution, p), atol=1e-6)


def test_degenerate_data_have_their_answers() -> None:
    X, y, weights = data(30, 6)
    for penalty in (Ridge(), LogSum(1.0)):
        flat = reweighted(X, np.full(30, 3.0), weights, penalty, 0.1)
        assert flat.solution.converged
        np.testing.assert_allclose(full(flat.solution, 6), 0.0, atol=1e-12)
        assert abs(flat.solution.intercept - 3) < 1e-12
        nothing = reweighted(X, np.zeros(30), weights, penalty, 0.1)
        assert not full(nothing.solution, 6).any()
        one_row = reweighted(X[:1], y[:1], np.ones(1), penalty, 0.1)
        assert abs(one_row.solution.intercept - y[0]) < 1e-12
        assert one_row.solution.index.size == 0
        no_columns = reweighted(X[:, :0], y, weights, penalty, 0.1)
        assert abs(no_columns.solution.intercept - y.mean()) < 1e-12
    odd = np.concatenate([X, np.ones((30, 1)), X[:, :2]], axis=1)
    for factor in (np.ones(9), np.array([0.0, *np.ones(6), 0.0, 1.0])):
        found = reweighted(odd, y, weights, Ridge(), 0.1, factor=factor)
        assert found.solution.converged
        assert full(found.solution, 9)[6] == 0


def test_separable_classes_end_with_finite_coefficients() -> None:
    X, _, weights = data(40, 5)
    for penalty in (LogSum(1.0), MCP(3.0)):
        found = reweighted(X, (X[:, 0] > 1).astype(float), weights, penalty, 0.01, "logistic", max_iter=60)
        assert np.isfinite(found.solution.coef).all()
        assert never_rises(found.history)


# ---------------------------------------------------------------------- masks
def training(X, y, weights, penalty, alpha, law="bernoulli", **options) -> _Training:
    problem = ReweightedProblem("squared", X, y, weights, fit_intercept=True)
    run = problem.run(Terms(penalty, np.ones(X.shape[1]), **options), alpha)
    run.place(*problem.scaled(np.full(X.shape[1], 0.8), 0.0))
    return _Training(problem, run, law, y.size, np.random.default_rng(0))


@pytest.mark.parametrize("penalty", [Ridge(), Lasso(), LogSum(1.0), MCP(3.0), Standout()], ids=named)
def test_the_mean_gradient_over_all_masks_is_that_of_the_penalized_loss(penalty: Penalty) -> None:
    X, y, _ = data(9, 4)
    s = np.arange(1.0, 10)
    task = training(X, y, s / s.sum(), penalty, 0.3)
    v, rows = task.v, np.arange(9)
    variance = task.variance(v)
    keep = 1 / (1 + variance)
    total = np.zeros(4)
    for kept in itertools.product((True, False), repeat=4):
        likelihood = np.prod(np.where(kept, keep, 1 - keep))
        # Numbers below the keep probability keep, those at 1 drop.
        noise = np.tile(np.where(kept, 0.0, 1.0), (9, 1))
        total += likelihood * task.sampled(task.rows.take(rows), rows, noise, v, variance)
    np.testing.assert_allclose(total, task.expected(v), atol=1e-10)
    # In the coefficients of the data, by hand.
    weights, w = s / s.sum(), np.full(4, 0.8)
    centered = X - weights @ X
    residual = y - weights @ y - centered @ w
    by_hand = -centered.T @ (weights * residual) + 0.3 * penalty.slope(w)
    size = np.sqrt(weights @ centered**2)
    np.testing.assert_allclose(total * task.problem.y_scale * size, by_hand, atol=1e-9)


def test_keep_probabilities_are_those_of_adaptive_dropout() -> None:
    X, y, weights = data(50, 6)
    X = (X - X.mean(0)) / X.std(0)
    task = training(X, y, weights, LogSum(0.5), 0.2)
    expected = adaptive_dropout(LogSum(0.5), 0.2).keep_probability(np.full(6, 0.8))
    np.testing.assert_allclose(1 / (1 + task.variance(task.v)), expected, rtol=1e-12)


def test_gaussian_masks_have_the_same_mean_gradient() -> None:
    X, y, weights = data(40, 5)
    task = training(X, y, weights, LogSum(1.0), 0.3, law="gaussian")
    rows, variance = np.arange(40), task.variance(task.v)
    x = task.rows.take(rows)
    draws = np.array([task.sampled(x, rows, task.draw(x.shape), task.v, variance) for _ in range(4000)])
    error = draws.std(axis=0) / np.sqrt(len(draws))
    assert (np.abs(draws.mean(axis=0) - task.expected(task.v)) < 5 * error).all()


@pytest.mark.parametrize("penalty", [Lasso(), LogSum(1.0), MCP(3.0), Lp(0.5), VariationalDropout()], ids=named)
def test_the_three_faces_reach_one_point(penalty: Penalty) -> None:
    X, y, weights = data(200, 20)
    path = sparse_path(X, y, penalty, alphas=[0.2], tol=1e-9)
    terms = Terms(penalty, np.ones(20), tol=1e-8)
    points = [reweighted(X, y, weights, penalty, 0.2, tol=1e-8).solution]
    points += [
        masked_solution(X, y, weights, terms, 0.2, seed=0, gradient=gradient, law=law).solution
        for gradient, law in (("expected", "gaussian"), ("controlled", "gaussian"), ("controlled", "bernoulli"))
    ]
    for solution in points:
        assert solution.converged
        np.testing.assert_array_equal(solution.index, np.flatnonzero(path.coef(0)))
        assert np.abs(full(solution, 20) - path.coef(0)).max() < 1e-6
        assert abs(solution.intercept - path.intercepts[0]) < 1e-6


@pytest.mark.parametrize("law", ["gaussian", "bernoulli"])
def test_training_without_control_comes_near(law: str) -> None:
    X, y, weights = data(200, 20)
    path = sparse_path(X, y, LogSum(1.0), alphas=[0.2])
    terms = Terms(LogSum(1.0), np.ones(20))
    found = masked_solution(X, y, weights, terms, 0.2, seed=0, gradient="sampled", law=law)
    w = full(found.solution, 20)
    assert np.linalg.norm(w - path.coef(0)) < 1e-2 * np.linalg.norm(path.coef(0))
    assert found.solution.violation < 0.05
    # It does not claim more than it reached.
    assert found.solution.converged == (found.solution.violation <= terms.tol)


@pytest.mark.parametrize("penalty", [Ridge(), Standout(), Log2Sum(0.5), LogSum(1.0)], ids=named)
@pytest.mark.parametrize("is_sparse", [False, True])
def test_dropout_knows_weights_factors_and_sparse_data(penalty: Penalty, is_sparse: bool) -> None:
    X, y, _ = data(150, 12)
    s = np.random.default_rng(6).integers(0, 4, 150).astype(float)
    factor = np.ones(12)
    factor[0] = 0.0
    given = sp.csc_array(X) if is_sparse else X
    terms = Terms(penalty, factor, standardize=True)
    found = masked_solution(given, y, s / s.sum(), terms, 0.2, seed=0)
    expected = reweighted(X, y, s / s.sum(), penalty, 0.2, factor=factor, standardize=True)
    assert found.solution.converged
    np.testing.assert_allclose(full(found.solution, 12), full(expected.solution, 12), atol=1e-4)


def test_dropout_with_more_features_than_rows() -> None:
    X, y, weights = data(60, 120)
    terms = Terms(LogSum(1.0), np.ones(120))
    expected = reweighted(X, y, weights, LogSum(1.0), 0.6)
    for gradient in ("expected", "controlled"):
        found = masked_solution(X, y, weights, terms, 0.6, seed=0, gradient=gradient)
        assert found.solution.violation < 1e-4
        assert found.solution.objective < expected.solution.objective * 1.01


def test_a_seed_repeats_the_training_and_leaves_the_global_generator_alone() -> None:
    X, y, weights = data(60, 8)
    terms = Terms(LogSum(1.0), np.ones(8), max_iter=20)
    state = np.random.get_state()[1].copy()  # noqa: NPY002

    def run(seed) -> np.ndarray:
        return full(masked_solution(X, y, weights, terms, 0.2, seed=seed, gradient="sampled").solution, 8)

    np.testing.assert_array_equal(run(1), run(1))
    np.testing.assert_array_equal(run(1), run(np.random.default_rng(1)))
    assert (run(1) != run(2)).any()
    np.testing.assert_array_equal(np.random.get_state()[1], state)  # noqa: NPY002


def test_dropout_of_degenerate_data() -> None:
    X, y, weights = data(30, 6)
    terms = Terms(LogSum(1.0), np.ones(6))
    for gradient in ("sampled", "controlled", "expected"):
        flat = masked_solution(X, np.full(30, 3.0), weights, terms, 0.1, seed=0, gradient=gradient)
        assert flat.solution.index.size == 0
        assert abs(flat.solution.intercept - 3) < 1e-12
        one = masked_solution(X[:1], y[:1], np.ones(1), terms, 0.1, seed=0, gradient=gradient)
        assert abs(one.solution.intercept - y[0]) < 1e-12
        none = masked_solution(X[:, :0], y, weights, Terms(LogSum(1.0), np.ones(0)), 0.1, seed=0, gradient=gradient)
        assert none.solution.index.size == 0


# ---------------------------------------------------------------------- bad arguments
def test_what_a_face_cannot_do_is_refused_in_words() -> None:
    X, y, weights = data(30, 4)
    terms, bounded = Terms(LogSum(1.0), np.ones(4)), Terms(LogSum(1.0), np.ones(4), positive=True)
    with pytest.raises(InvalidArgumentError, match=r"positive=True.*solver='reweighted'"):
        reweighted_solutions("squared", X, y, weights, bounded, np.array([0.1]))
    with pytest.raises(InvalidArgumentError, match=r"positive=True.*solver='dropout'"):
        masked_solution(X, y, weights, bounded, 0.1)
    with pytest.raises(InvalidArgumentError, match="flat but at zero"):
        reweighted(X, y, weights, L0(), 0.1)
    with pytest.raises(InvalidArgumentError, match="both classes"):
        reweighted(X, np.ones(30), weights, Lasso(), 0.1, "logistic")
    with pytest.raises(InvalidArgumentError, match="squared loss"):
        masked_solution(X, y, weights, terms, 0.1, loss="logistic")
    with pytest.raises(UnknownNameError, match="gaussian"):
        masked_solution(X, y, weights, terms, 0.1, law="gausian")
    with pytest.raises(UnknownNameError, match="controlled"):
        masked_solution(X, y, weights, terms, 0.1, gradient="exact")
    with pytest.raises(UnknownNameError, match="huber"):
        reweighted(X, y, weights, Lasso(), 0.1, "hubber")


# ---------------------------------------------------------------------- the example
@pytest.mark.slow
def test_the_faces_agree_in_the_example(tmp_path: Path) -> None:
    target = tmp_path / "figure.png"
    done = subprocess.run(
        [sys.executable, str(ROOT / "examples" / "linear_faces.py"), str(target)],
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    distances = [float(line.split()[-1]) for line in done.stdout.splitlines()[1:5]]
    assert max(distances[:3]) < 1e-6
    assert distances[3] < 0.2
    assert target.stat().st_size > 10_000
