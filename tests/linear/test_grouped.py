"""Groups of features and several outputs: references, first-order conditions, units, folds, zeros of whole groups."""

from __future__ import annotations

import itertools
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import scipy.sparse as sp
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.linear_model import Lasso as LassoRegressor
from sklearn.linear_model import LinearRegression, MultiTaskLasso

from obverse.errors import InvalidArgumentError
from obverse.linear import SparseRegressor, SparseRegressorCV, sparse_path
from obverse.linear._block_descent import descend_groups
from obverse.linear._code import encode
from obverse.linear._grouped import GroupedProblem
from obverse.linear._path import log_alphas, solve_at
from obverse.linear._problem import make_problem
from obverse.linear._solution import Solution
from obverse.linear._terms import Terms
from obverse.linear._working_set import Folds
from obverse.penalties import L0, MCP, SCAD, CappedL1, Lasso, LogSum, Lp, Penalty

PENALTIES = [Lasso(), LogSum(0.5), MCP(3.0), SCAD(3.7), Lp(0.5), L0(), CappedL1(1.0)]


def data(seed: int, n: int = 80, p: int = 24, m: int = 1, correlation: float = 0.5) -> tuple[Any, Any, list[Any]]:
    """Correlated columns, two active groups of unequal sizes, and the groups."""
    rng = np.random.default_rng(seed)
    X = rng.standard_normal((n, p)) + np.sqrt(correlation) * rng.standard_normal((n, 1))
    sizes, groups, first = [3, 1, 5, 2, 4], [], 0
    shuffled = rng.permutation(p)
    while first < p:
        groups.append(shuffled[first : first + sizes[len(groups) % 5]])
        first += sizes[(len(groups) - 1) % 5]
    W = np.zeros((p, m))
    for group in groups[:2]:
        W[group] = rng.standard_normal((group.size, m))
    y = X @ W + 0.5 * rng.standard_normal((n, m)) + 2.0
    return X, y if m > 1 else y[:, 0], groups


def problem_of(X: Any, y: Any, groups: Any, *, weights: Any = None, folds: Any = None, intercept: bool = True) -> Any:
    weights = np.full(X.shape[0], 1.0) if weights is None else weights
    return make_problem(
        "squared", X, y, weights / weights.sum(), fit_intercept=intercept, folds=folds, groups=groups
    )  # fmt: skip


def dense(solution: Solution, p: int) -> Any:
    """Coefficients (p, m)."""
    coef = solution.coef if solution.coef.ndim == 2 else solution.coef[:, None]
    full = np.zeros((p, coef.shape[1]))
    full[solution.index] = coef
    return full


def parts(W: Any, groups: Any) -> Any:
    return np.array([np.linalg.norm(W[group]) for group in groups])


def objective(X: Any, y: Any, W: Any, groups: Any, penalty: Penalty, alpha: float) -> float:
    """With the best intercept."""
    residual = (y if y.ndim == 2 else y[:, None]) - X @ W
    residual = residual - residual.mean(axis=0)
    return float((residual**2).sum() / 2 / len(X) + alpha * np.sum(penalty.value(parts(W, groups))))


def violation(X: Any, y: Any, W: Any, groups: Any, penalty: Penalty, alpha: float) -> float:
    """Of the first-order conditions, relative to the largest group's gradient at zero."""
    centered = X - X.mean(axis=0)
    target = y if y.ndim == 2 else y[:, None]
    target = target - target.mean(axis=0)
    gradient = centered.T @ (target - centered @ W) / len(X)
    worst = 0.0
    for group in groups:
        norm, g = np.linalg.norm(W[group]), gradient[group]
        if norm > 0:
            worst = max(worst, np.linalg.norm(g - alpha * penalty.slope(norm) * W[group] / norm))
        elif penalty.slope_at_zero < np.inf:
            worst = max(worst, np.linalg.norm(g) - alpha * penalty.slope_at_zero)
    start = parts(centered.T @ target / len(X), groups).max()
    return float(worst / start)


def proximal_gradient(X: Any, y: Any, groups: Any, penalty: Penalty, alpha: float, W: Any, steps: int) -> Any:
    """Plain proximal gradient descent from ``W``, with one step for all."""
    centered = X - X.mean(axis=0)
    target = y if y.ndim == 2 else y[:, None]
    target = target - target.mean(axis=0)
    curvature = np.linalg.norm(centered, 2) ** 2 / len(X)
    for _ in range(steps):
        Z = W + centered.T @ (target - centered @ W) / len(X) / curvature
        norms = parts(Z, groups)
        kept = penalty.prox(norms, alpha / curvature)
        W = np.zeros_like(Z)
        for group, norm, new in zip(groups, norms, kept, strict=True):
            W[group] = Z[group] * (new / norm if norm > 0 else 0.0)
    return W


# ---------------------------------------------------------------------- references
@pytest.mark.parametrize("intercept", [True, False])
def test_several_outputs_with_a_lasso_are_the_multi_task_lasso(intercept: bool) -> None:
    X, Y, _ = data(1, m=3)
    path = sparse_path(X, Y, "lasso", n_alphas=6, fit_intercept=intercept, tol=1e-9)
    assert path.converged.all()
    for k, alpha in enumerate(path.alphas[1:], 1):
        reference = MultiTaskLasso(alpha=alpha, fit_intercept=intercept, tol=1e-13, max_iter=100_000).fit(X, Y)
        np.testing.assert_allclose(path.coef(k), reference.coef_, atol=1e-7)
        np.testing.assert_allclose(path.intercepts[k], reference.intercept_, atol=1e-7)
        held = np.square(Y - reference.predict(X)).sum() / 2 / len(X)
        total = held + alpha * np.linalg.norm(reference.coef_, axis=0).sum()
        assert path.objectives[k] == pytest.approx(total, rel=1e-9)


@pytest.mark.parametrize("m", [1, 3])
def test_group_lasso_is_no_worse_than_proximal_gradient(m: int) -> None:
    X, y, groups = data(2, m=m)
    problem = problem_of(X, y, groups)
    terms = Terms(Lasso(), np.ones(X.shape[1]), tol=1e-8)
    alphas = problem.largest_alpha(terms) * np.array([0.5, 0.1, 0.01])
    for alpha, solution in zip(alphas, problem.solve(terms, alphas)[0], strict=True):
        W = dense(solution, X.shape[1])
        reference = proximal_gradient(X, y, groups, Lasso(), alpha, np.zeros_like(W), 4000)
        best = objective(X, y, reference, groups, Lasso(), alpha)
        assert solution.objective <= best * (1 + 1e-8)
        assert solution.objective == pytest.approx(objective(X, y, W, groups, Lasso(), alpha), rel=1e-12)
        np.testing.assert_allclose(W, reference, atol=1e-4)
        assert violation(X, y, W, groups, Lasso(), alpha) <= 1e-6


@pytest.mark.parametrize("m", [1, 2])
@pytest.mark.parametrize("penalty", PENALTIES, ids=lambda p: p.name)
def test_solutions_are_stationary_and_proximal_gradient_cannot_leave_them(penalty: Penalty, m: int) -> None:
    X, y, groups = data(3, m=m)
    problem = problem_of(X, y, groups)
    terms = Terms(penalty, np.ones(X.shape[1]))
    alphas = log_alphas(problem.largest_alpha(terms), 12, 0.02)
    solutions = problem.solve(terms, alphas)[0]
    assert all(solution.converged for solution in solutions)
    assert solutions[-1].index.size > solutions[1].index.size >= 1
    for alpha, solution in zip(alphas, solutions, strict=True):
        W = dense(solution, X.shape[1])
        if penalty.curvature_limit > 0:
            assert violation(X, y, W, groups, penalty, alpha) <= 1.01e-6
        # Its steps are shorter than those of the groups: it may not go anywhere lower.
        reference = proximal_gradient(X, y, groups, penalty, alpha, W, 300)
        best = objective(X, y, reference, groups, penalty, alpha)
        assert solution.objective <= best * (1 + 1e-8)


@pytest.mark.slow
def test_group_mcp_path_beats_proximal_gradient_along_the_same_path() -> None:
    for penalty in (MCP(3.0), LogSum(0.3)):
        X, y, groups = data(4)
        problem = problem_of(X, y, groups)
        terms = Terms(penalty, np.ones(X.shape[1]))
        alphas = log_alphas(problem.largest_alpha(terms), 20, 0.05)
        solutions = problem.solve(terms, alphas)[0]
        W = np.zeros((X.shape[1], 1))
        for alpha, solution in zip(alphas, solutions, strict=True):
            W = proximal_gradient(X, y, groups, penalty, alpha, W, 1500)
            assert solution.objective <= objective(X, y, W, groups, penalty, alpha) * (1 + 1e-7)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10**6), st.sampled_from(PENALTIES), st.sampled_from([1, 2]), st.floats(0.02, 0.9))
def test_objective_never_rises_in_descent(seed: int, penalty: Penalty, m: int, share: float) -> None:
    rng = np.random.default_rng(seed)
    starts = np.array([0, 3, 4, 8, 12])
    A = rng.standard_normal((15, 12))
    for first, last in itertools.pairwise(starts):
        U, s, _ = np.linalg.svd(A[:, first:last], full_matrices=False)
        A[:, first:last] = U * s
    gram, linear = A.T @ A / 15, rng.standard_normal((m, 12))
    unit, weight = rng.uniform(0.5, 2, 4), share * rng.uniform(0.5, 2, 4)
    top = np.array([np.diagonal(gram)[a:b].max() for a, b in itertools.pairwise(starts)])
    v = rng.standard_normal((m, 12))
    r = linear - v @ gram

    def value() -> float:
        norms = np.array([np.linalg.norm(v[:, a:b]) for a, b in itertools.pairwise(starts)])
        return float(np.sum(v * (v @ gram)) / 2 - np.sum(v * linear) + weight @ penalty.value(unit * norms))

    before = value()
    for _ in range(30):
        descend_groups(encode(penalty), gram, starts, v, r, weight, unit, top, 1e-10, 1)
        after = value()
        assert after <= before + 1e-12 * max(1.0, abs(before))
        before = after
    np.testing.assert_allclose(r, linear - v @ gram, atol=1e-10)


# ---------------------------------------------------------------------- the same problem in other words
@pytest.mark.parametrize("penalty", PENALTIES, ids=lambda p: p.name)
@pytest.mark.parametrize("width", ["fixed", "alpha"])
@pytest.mark.parametrize("standardize", [False, True])
def test_groups_of_one_are_single_features(penalty: Penalty, width: Any, standardize: bool) -> None:
    X, y, _ = data(5)
    X = X * np.geomspace(0.5, 2, X.shape[1])
    factor = np.linspace(0.5, 1.5, X.shape[1])
    terms = Terms(penalty, factor, width=width, standardize=standardize, tol=1e-9)
    single, grouped = problem_of(X, y, None), problem_of(X, y, [[j] for j in range(X.shape[1])])
    largest = single.largest_alpha(terms)
    assert grouped.largest_alpha(terms) == pytest.approx(largest, rel=1e-9)
    alphas = largest * np.array([1.001, 0.9, 0.6])
    for one, other in zip(single.solve(terms, alphas)[0], grouped.solve(terms, alphas)[0], strict=True):
        assert one.objective == pytest.approx(other.objective, rel=1e-9)
        np.testing.assert_array_equal(one.index, other.index)
        np.testing.assert_allclose(one.coef, other.coef, atol=1e-6)
        assert one.intercept == pytest.approx(other.intercept, abs=1e-6)


@pytest.mark.parametrize("m", [1, 2])
def test_repeated_rows_are_weights(m: int) -> None:
    X, y, groups = data(6, m=m)
    counts = np.random.default_rng(0).integers(0, 4, len(X))
    terms = Terms(Lasso(), np.ones(X.shape[1]), tol=1e-9)
    weighted = problem_of(X, y, groups, weights=counts.astype(float))
    repeated = problem_of(np.repeat(X, counts, axis=0), np.repeat(y, counts, axis=0), groups)
    alphas = weighted.largest_alpha(terms) * np.array([0.5, 0.1, 0.02])
    assert repeated.largest_alpha(terms) == pytest.approx(weighted.largest_alpha(terms), rel=1e-12)
    for one, other in zip(weighted.solve(terms, alphas)[0], repeated.solve(terms, alphas)[0], strict=True):
        np.testing.assert_allclose(dense(one, X.shape[1]), dense(other, X.shape[1]), atol=1e-7)
        np.testing.assert_allclose(one.intercept, other.intercept, atol=1e-7)


@pytest.mark.parametrize("folded", [False, True])
def test_sparse_and_dense_agree(folded: bool) -> None:
    X, Y, groups = data(7, m=2)
    X[np.abs(X) < 1] = 0
    folds = Folds([np.arange(0, 80, 4), np.arange(1, 80, 4), np.zeros(0, np.int64)], 80) if folded else None
    terms = Terms(MCP(3.0), np.ones(X.shape[1]), tol=1e-9)
    first, second = (problem_of(A, Y, groups, folds=folds) for A in (X, sp.csc_array(X)))
    alphas = first.largest_alpha(terms) * np.array([0.8, 0.4, 0.2])
    assert second.largest_alpha(terms) == pytest.approx(first.largest_alpha(terms), rel=1e-10)
    for one, other in zip(first.solve(terms, alphas), second.solve(terms, alphas), strict=True):
        for a, b in zip(one, other, strict=True):
            np.testing.assert_allclose(dense(a, X.shape[1]), dense(b, X.shape[1]), atol=1e-7)
            assert a.held_out == pytest.approx(b.held_out, rel=1e-6, abs=1e-12)


@pytest.mark.parametrize("standardize", [False, True])
@pytest.mark.parametrize("penalty", [Lasso(), MCP(1.5), L0()], ids=lambda p: p.name)
@pytest.mark.parametrize("m", [1, 2])
def test_a_fold_is_a_fit_of_its_own(penalty: Penalty, m: int, standardize: bool) -> None:
    X, y, groups = data(8, m=m)
    weights = np.random.default_rng(1).uniform(0.5, 2, len(X))
    held = [np.arange(0, 80, 3), np.arange(1, 80, 3), np.zeros(0, np.int64)]
    terms = Terms(penalty, np.ones(X.shape[1]), standardize=standardize, tol=1e-9)
    problem = problem_of(X, y, groups, weights=weights, folds=Folds(held, len(X)))
    alphas = problem.largest_alpha(terms) * np.array([0.9, 0.6, 0.4, 0.2])
    for rows, solutions in zip(held, problem.solve(terms, alphas), strict=True):
        kept = np.setdiff1d(np.arange(len(X)), rows)
        alone = problem_of(X[kept], y[kept], groups, weights=weights[kept]).solve(terms, alphas)[0]
        for one, other in zip(solutions, alone, strict=True):
            W = dense(one, X.shape[1])
            np.testing.assert_allclose(W, dense(other, X.shape[1]), atol=1e-6)
            np.testing.assert_allclose(one.intercept, other.intercept, atol=1e-6)
            assert one.objective == pytest.approx(other.objective, rel=1e-8)
            error = (y if m > 1 else y[:, None])[rows] - X[rows] @ W - np.asarray(one.intercept)
            expected = weights[rows] / weights.sum() @ error**2 / 2
            assert one.held_out == pytest.approx(float(expected.sum()), rel=1e-9)


def test_held_out_rows_leave_no_trace() -> None:
    X, y, groups = data(9)
    held = [np.arange(20), np.zeros(0, np.int64)]
    terms = Terms(MCP(2.0), np.ones(X.shape[1]), tol=1e-9)
    changed, other = X.copy(), y.copy()
    changed[:20] = np.random.default_rng(5).standard_normal((20, X.shape[1]))
    other[:20] *= -1
    alphas = np.array([0.6, 0.3])
    first = problem_of(X, y, groups, folds=Folds(held, len(X))).solve(terms, alphas)[0]
    second = problem_of(changed, other, groups, folds=Folds(held, len(X))).solve(terms, alphas)[0]
    for one, two in zip(first, second, strict=True):
        np.testing.assert_allclose(dense(one, X.shape[1]), dense(two, X.shape[1]), atol=1e-7)


# ---------------------------------------------------------------------- units
@pytest.mark.parametrize("penalty", [Lasso(), MCP(3.0)], ids=lambda p: p.name)
def test_columns_of_mixed_scales_in_a_group_keep_the_original_norm(penalty: Penalty) -> None:
    X, y, groups = data(10)
    X = X * np.random.default_rng(0).choice([0.03, 1.0, 40.0], X.shape[1])
    problem = problem_of(X, y, groups)
    terms = Terms(penalty, np.ones(X.shape[1]), tol=1e-10)
    alphas = log_alphas(problem.largest_alpha(terms), 10, 0.01)
    for alpha, solution in zip(alphas, problem.solve(terms, alphas)[0], strict=True):
        W = dense(solution, X.shape[1])
        assert solution.objective == pytest.approx(objective(X, y, W, groups, penalty, alpha), rel=1e-10)
        assert violation(X, y, W, groups, penalty, alpha) <= 1e-8


@pytest.mark.parametrize("exponent", [-450, 450])
def test_huge_and_tiny_units(exponent: int) -> None:
    X, Y, groups = data(11, m=2)
    size = 2.0**exponent
    terms = Terms(Lasso(), np.ones(X.shape[1]), tol=1e-9)
    first, second = problem_of(X, Y, groups), problem_of(X * size, Y * size, groups)
    alpha = first.largest_alpha(terms) * 0.2
    # The gradient scales with the square of the unit, which leaves the range of a double only beyond 2^500.
    assert second.largest_alpha(terms) == pytest.approx(first.largest_alpha(terms) * size * size, rel=1e-12)
    [one], [other] = first.solve(terms, np.array([alpha]))[0], second.solve(terms, np.array([alpha * size * size]))[0]
    np.testing.assert_array_equal(one.index, other.index)
    np.testing.assert_allclose(one.coef, other.coef, rtol=1e-9)


def test_columns_that_no_norm_can_compare() -> None:
    X, y, _ = data(27, p=4)
    X = X * np.array([2.0**-500, 2.0**500, 1.0, 1.0])
    path = sparse_path(X, y, "lasso", groups=[[0, 1], [2, 3]], n_alphas=5)
    assert path.converged.all()
    # To the group's norm the coefficient of the tiny column would cost 2^1000 times as much: the group is the other.
    alone = sparse_path(X[:, 1:], y, "lasso", groups=[[0], [1, 2]], alphas=path.alphas)
    for k in range(5):
        np.testing.assert_allclose(path.coef(k)[1:], alone.coef(k), rtol=1e-6, atol=1e-12 * abs(alone.coef(k)).max())


def test_columns_that_share_a_direction_do_not_all_enter() -> None:
    rng = np.random.default_rng(28)
    X = rng.standard_normal((100, 600)) + 2 * rng.standard_normal((100, 1))
    groups = list(np.arange(600).reshape(200, 3))
    y = X[:, :6].sum(axis=1) + rng.standard_normal(100)
    for penalty in (Lasso(), MCP(3.0)):
        problem, terms = problem_of(X, y, groups), Terms(penalty, np.ones(600))
        alphas = log_alphas(problem.largest_alpha(terms), 15, 0.1)
        solutions = problem.solve(terms, alphas)[0]
        assert all(solution.converged for solution in solutions)
        assert problem.store.size < 300
        for alpha, solution in zip(alphas, solutions, strict=True):
            assert violation(X, y, dense(solution, 600), groups, penalty, alpha) <= 1.01e-6


def test_standardized_columns_are_scaled_columns() -> None:
    X, y, groups = data(12)
    X = X * np.geomspace(0.1, 10, X.shape[1])
    spread = X.std(axis=0)
    terms = Terms(Lasso(), np.ones(X.shape[1]), tol=1e-10)
    standardized = replace(terms, standardize=True)
    first, second = problem_of(X, y, groups), problem_of(X / spread, y, groups)
    alphas = second.largest_alpha(terms) * np.array([1.0, 0.3, 0.1])
    assert first.largest_alpha(standardized) == pytest.approx(alphas[0], rel=1e-10)
    for one, other in zip(first.solve(standardized, alphas)[0], second.solve(terms, alphas)[0], strict=True):
        np.testing.assert_allclose(dense(one, 24) * spread[:, None], dense(other, 24), atol=1e-7)


# ---------------------------------------------------------------------- zeros, alphas and factors
@pytest.mark.parametrize("m", [1, 3])
@pytest.mark.parametrize("width", ["fixed", "alpha"])
@pytest.mark.parametrize("penalty", [*PENALTIES, MCP(1.1), LogSum(0.01)], ids=repr)
def test_largest_alpha_is_where_the_first_group_leaves_zero(penalty: Penalty, width: Any, m: int) -> None:
    X, y, groups = data(13, m=m)
    factor = np.repeat(1.0, X.shape[1])
    factor[groups[0]] = 1.7
    problem = problem_of(X, y, groups)
    terms = Terms(penalty, factor, width=width)
    largest = problem.largest_alpha(terms)
    assert problem.solve(terms, np.array([largest]))[0][0].index.size == 0
    [below] = problem.solve(terms, np.array([largest * (1 - 1e-6)]))[0]
    assert below.index.size >= 1


def test_groups_live_and_die_together() -> None:
    X, Y, groups = data(14, m=2)
    problem = problem_of(X, Y, groups)
    terms = Terms(SCAD(3.7), np.ones(X.shape[1]))
    for solution in problem.solve(terms, log_alphas(problem.largest_alpha(terms), 15, 0.05))[0]:
        alive = np.zeros(X.shape[1], bool)
        alive[solution.index] = True
        assert np.all(np.diff(solution.index) > 0)
        assert np.all(solution.coef != 0)
        assert all(alive[group].all() or not alive[group].any() for group in groups)


def test_groups_without_a_penalty_are_least_squares_at_the_largest_alpha() -> None:
    X, y, groups = data(15)
    factor = np.ones(X.shape[1])
    free = np.concatenate([groups[2], groups[3]])
    factor[free] = 0
    problem, terms = problem_of(X, y, groups), Terms(MCP(3.0), factor, tol=1e-10)
    largest = problem.largest_alpha(terms)
    reference = LinearRegression().fit(X[:, free], y)
    [above, below] = problem.solve(terms, np.array([largest, largest * (1 - 1e-6)]))[0]
    np.testing.assert_allclose(dense(above, X.shape[1])[free, 0], reference.coef_, atol=1e-8)
    assert above.index.size == free.size < below.index.size


def test_without_strength_it_is_least_squares() -> None:
    X, Y, groups = data(16, m=2)
    [solution] = problem_of(X, Y, groups).solve(Terms(Lasso(), np.ones(24), tol=1e-10), np.zeros(1))[0]
    reference = LinearRegression().fit(X, Y)
    np.testing.assert_allclose(dense(solution, 24), reference.coef_.T, atol=1e-8)
    np.testing.assert_allclose(solution.intercept, reference.intercept_, atol=1e-8)


def test_the_factor_of_a_group_is_the_mean_of_its_features() -> None:
    X, y, groups = data(17)
    factor = np.random.default_rng(3).uniform(0.5, 2, X.shape[1])
    means = np.zeros(X.shape[1])
    for group in groups:
        means[group] = factor[group].mean()
    problem = problem_of(X, y, groups)
    one, other = (
        problem.solve(Terms(Lasso(), f, tol=1e-10), np.array([0.2]))[0][0] for f in (factor, means)
    )  # fmt: skip
    np.testing.assert_allclose(dense(one, 24), dense(other, 24), atol=1e-12)


def test_duplicate_and_constant_columns_in_groups() -> None:
    X, y, groups = data(18)
    group = groups[0]
    X[:, group[1]] = X[:, group[0]]
    X[:, groups[2][0]] = 7.0
    path = sparse_path(X, y, "lasso", groups=groups, n_alphas=8, tol=1e-8)
    assert path.converged.all()
    coef = path.coef(7)
    # Of two equal columns the norm is least where they share; a constant column takes no part.
    assert coef[group[0]] == pytest.approx(coef[group[1]], rel=1e-6)
    assert coef[groups[2][0]] == 0
    assert np.count_nonzero(coef[groups[2]]) in (0, groups[2].size - 1)


def test_a_path_ends_at_the_first_solution_with_too_many_features() -> None:
    X, y, groups = data(19)
    path = sparse_path(X, y, "lasso", groups=groups, n_alphas=50, max_features=6)
    assert len(path.alphas) < 50
    assert path.n_features[-1] > 6 >= path.n_features[:-1].max()


def test_stop_ends_all_folds() -> None:
    X, y, groups = data(20)
    problem = problem_of(X, y, groups)
    terms = Terms(Lasso(), np.ones(24))
    seen: list[int] = []

    def stop(solutions: list[list[Solution]]) -> bool:
        seen.append(len(solutions[0]))
        return len(seen) == 2

    solutions = problem.solve(terms, log_alphas(problem.largest_alpha(terms), 40, 0.1), stop=stop)
    assert len(solutions[0]) == seen[-1] < 40


def test_features_in_no_group_stand_alone() -> None:
    X, y, _ = data(21)
    path = sparse_path(X, y, "lasso", groups=[], alphas=[0.1], tol=1e-10)
    reference = LassoRegressor(alpha=0.1, tol=1e-12).fit(X, y)
    np.testing.assert_allclose(path.coef(0), reference.coef_, atol=1e-7)


def test_one_alpha_is_reached_by_continuation() -> None:
    X, y, groups = data(22)
    problem, terms = problem_of(X, y, groups), Terms(MCP(3.0), np.ones(24))
    solution = solve_at(problem, terms, 0.1)
    assert solution.converged
    assert violation(X, y, dense(solution, 24), groups, MCP(3.0), 0.1) <= 1.01e-6


def test_single_precision_data() -> None:
    X, Y, groups = data(23, m=2)
    low = sparse_path(X.astype(np.float32), Y, "lasso", groups=groups, alphas=[0.2], tol=1e-5)
    high = sparse_path(X, Y, "lasso", groups=groups, alphas=[0.2], tol=1e-9)
    np.testing.assert_allclose(low.coef(0), high.coef(0), atol=1e-4)


@pytest.mark.parametrize("penalty", [Lasso(), MCP(3.0)], ids=lambda p: p.name)
def test_many_more_features_than_rows(penalty: Penalty) -> None:
    rng = np.random.default_rng(24)
    X = rng.standard_normal((60, 400))
    groups = list(np.arange(400).reshape(100, 4))
    y = X[:, :8] @ rng.standard_normal(8) + 0.1 * rng.standard_normal(60)
    path = sparse_path(X, y, penalty, groups=groups, n_alphas=20, alpha_min_ratio=0.1)
    assert path.converged.all()
    for k, alpha in enumerate(path.alphas):
        assert violation(X, y, path.coef(k)[:, None], groups, penalty, alpha) <= 1.01e-6
        assert path.n_features[k] % 4 == 0


# ---------------------------------------------------------------------- what is refused
def test_bad_groups_and_signs_are_refused() -> None:
    X, y, groups = data(25)
    with pytest.raises(InvalidArgumentError, match="disjoint"):
        sparse_path(X, y, "lasso", groups=[[0, 1], [1, 2]])
    with pytest.raises(InvalidArgumentError, match="disjoint"):
        sparse_path(X, y, "lasso", groups=[[0, 0]])
    with pytest.raises(InvalidArgumentError, match="outside 0"):
        sparse_path(X, y, "lasso", groups=[[0, 24]])
    with pytest.raises(InvalidArgumentError, match="positive"):
        sparse_path(X, y, "lasso", groups=groups, positive=True)
    with pytest.raises(InvalidArgumentError, match="positive"):
        sparse_path(X, np.stack([y, y], axis=1), "lasso", alphas=[0.1], positive=True)


@pytest.mark.parametrize("target", [0.0, 3.0])
def test_a_constant_target_has_zero_coefficients(target: float) -> None:
    X, _, groups = data(26)
    problem = problem_of(X, np.full((80, 2), target), groups)
    assert isinstance(problem, GroupedProblem)
    terms = Terms(Lasso(), np.ones(24))
    assert problem.largest_alpha(terms) <= 1e-12
    [solution] = problem.solve(terms, np.ones(1))[0]
    assert solution.index.size == 0
    assert solution.converged
    np.testing.assert_allclose(solution.intercept, target)


# ---------------------------------------------------------------------- estimators
@pytest.mark.parametrize("chooses", [False, True])
def test_estimators_take_groups_and_several_outputs_together(chooses: bool) -> None:
    random = np.random.default_rng(27)
    X, groups = random.normal(size=(120, 12)), [[0, 1], [2, 3, 4], [5, 6]]
    true = np.zeros((2, 12))
    true[:, :2] = [[1.0, -2.0], [0.0, 3.0]]
    y = X @ true.T + 0.1 * random.normal(size=(120, 2))
    estimator: Any
    if chooses:
        estimator = SparseRegressorCV("mcp", width="alpha", groups=groups, rule="1se")
    else:
        estimator = SparseRegressor("mcp", 0.3, groups=groups)
    estimator.fit(X, y)
    assert estimator.coef_.shape == (2, 12)
    assert np.flatnonzero(estimator.coef_.any(axis=0)).tolist() == [0, 1]
    path = sparse_path(X, y, estimator.penalty_, alphas=[estimator.alpha_], width=estimator.width, groups=groups)
    np.testing.assert_allclose(estimator.coef_, path.coef(0), atol=1e-4)


def test_a_path_is_drawn() -> None:
    X, y, groups = data(28)
    for target, label in ((y, "coefficient"), (np.stack([y, -y], axis=1), "norm of the coefficients")):
        path = sparse_path(X, target, "mcp", groups=groups)
        ax = path.plot(chosen=float(path.alphas[3]), names=[f"feature {j}" for j in range(24)])
        assert ax.get_ylabel() == label
        ever = set()
        for k in range(path.alphas.size):
            ever |= set(np.flatnonzero(np.atleast_2d(path.coef(k)).any(axis=0)).tolist())
        assert len(ax.lines) == len(ever) + 2  # the line at zero and the marked alpha
        assert any(text.get_text().startswith("feature ") for text in ax.texts)
