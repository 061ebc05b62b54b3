"""One alpha, reached from the largest by rough stations."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import scipy.sparse as sp

from obverse.linear import sparse_path
from obverse.linear._path import _approach, solve_at
from obverse.linear._problem import make_problem
from obverse.linear._squared import SquaredProblem
from obverse.linear._terms import Terms
from obverse.linear._working_set import Folds
from obverse.penalties import penalty as named

PENALTIES = ["lasso", "mcp", "scad", "log-sum", "l0.5", "variational-dropout"]


def data(n: int = 200, p: int = 600) -> tuple[Any, Any]:
    random = np.random.default_rng(0)
    X = random.normal(size=(n, p)) + random.normal(size=p)
    w = np.zeros(p)
    w[:10] = random.choice([-1.0, 1.0], 10) * random.uniform(0.5, 1.5, 10)
    return X, X @ w + random.normal(size=n)


@pytest.mark.parametrize("name", PENALTIES)
def test_the_solution_satisfies_the_conditions(name: str) -> None:
    X, y = data()
    penalty, terms = named(name), Terms(named(name), np.ones(600))
    problem = make_problem("squared", X, y, np.full(200, 1 / 200), fit_intercept=True)
    alpha = 0.1 * problem.largest_alpha(terms)
    solution = solve_at(problem, terms, alpha)
    assert solution.converged
    coef = np.zeros(600)
    coef[solution.index] = solution.coef
    centered = X - X.mean(axis=0)
    residual = y - X @ coef - solution.intercept
    gradient, gram = centered.T @ residual / 200, (centered**2).mean(axis=0)
    scale = np.abs(centered.T @ y / 200).max()
    on = coef != 0
    assert np.abs(gradient[on] - alpha * np.sign(coef[on]) * penalty.slope(coef[on])).max() < 1e-6 * scale
    moved = np.asarray(penalty.prox(np.abs(gradient[~on]) / gram[~on] * (1 - 1e-6), alpha / gram[~on]))
    assert np.abs(moved * gram[~on]).max() < 1e-6 * scale
    assert abs(residual.mean()) < 1e-10


@pytest.mark.parametrize("sparse", [False, True])
def test_stations_cost_one_product_each_and_change_no_lasso(sparse: bool) -> None:
    X, y = data()
    kept = sp.csc_array(X) if sparse else X
    terms = Terms(named("lasso"), np.ones(600))
    problem = make_problem("squared", kept, y, np.full(200, 1 / 200), fit_intercept=True)
    alpha = 0.01 * problem.largest_alpha(terms)
    stations = _approach(problem, terms, alpha)
    before = problem.design.passes
    solution = solve_at(problem, terms, alpha)
    assert stations.size > 10
    assert problem.design.passes - before < stations.size
    path = sparse_path(X, y, "lasso", alphas=np.append(stations, alpha))
    assert solution.objective == pytest.approx(path.objectives[-1], rel=1e-8)
    assert np.array_equal(solution.index, np.flatnonzero(path.coef(-1)))


def test_every_fold_is_led() -> None:
    X, y = data()
    held = [np.arange(0, 200, 2), np.zeros(0, np.int64)]
    terms = Terms(named("lasso"), np.ones(600))
    problem = make_problem("squared", X, y, np.full(200, 1 / 200), fit_intercept=True, folds=Folds(held, 200))
    assert isinstance(problem, SquaredProblem)
    alpha = 0.1 * problem.largest_alpha(terms)
    led = problem.solve_from(_approach(problem, terms, alpha), terms, np.array([alpha, alpha / 2]))
    for one, other in zip(led, problem.solve(terms, np.array([alpha, alpha / 2])), strict=True):
        assert [s.objective for s in one] == pytest.approx([s.objective for s in other], rel=1e-8)
        assert [s.held_out for s in one] == pytest.approx([s.held_out for s in other], rel=1e-5, abs=1e-12)
