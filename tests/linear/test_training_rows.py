"""Folds know nothing but their training rows: moments, fits of these rows alone, changes of the rows held out."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import scipy.sparse as sp

from obverse.linear import sparse_path
from obverse.linear._design import Design
from obverse.linear._problem import make_problem
from obverse.linear._reweighted import reweighted_solutions
from obverse.linear._terms import Terms
from obverse.linear._training import TrainingColumns
from obverse.linear._working_set import Folds
from obverse.penalties import penalty as named

HELD = [np.arange(0, 90, 3), np.arange(1, 90, 3), np.zeros(0, np.int64)]
PENALTIES = ["lasso", "mcp", "log-sum:epsilon=0.05", "l0.5", "scad"]
TIGHT = 1e-10


def data(loss: str = "squared", seed: int = 0, n: int = 90, p: int = 24) -> tuple[Any, Any, Any]:
    """Columns that are mostly zero with means and scales of their own, a target for the loss, weights."""
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(n, p)) * rng.uniform(0.3, 3, p) + rng.normal(size=p)
    X[rng.random((n, p)) < 0.4] = 0.0
    signal = X[:, [2, 5, 7, 11]] @ [1.0, -0.8, 0.6, 0.5] + rng.normal(size=n)
    if loss == "logistic":
        y = (signal + rng.logistic(size=n) > np.median(signal)).astype(float)
    elif loss == "multinomial":
        y = np.digitize(signal, np.quantile(signal, [0.3, 0.6])).astype(float)
    elif loss == "poisson":
        y = rng.poisson(np.exp(signal / signal.std() / 2)).astype(float)
    elif loss == "outputs":
        y = np.stack([signal, X[:, 5] + rng.normal(size=n)], axis=1)
    else:
        y = signal + 4.0
    weights = rng.uniform(0.5, 2.0, n)
    return X, y, weights / weights.sum()


def kept(X: Any, keep: str) -> Any:
    kinds = {
        "C": np.ascontiguousarray,
        "F": np.asfortranarray,
        "csc": sp.csc_array,
        "float32": lambda X: np.asfortranarray(X, dtype=np.float32),
    }
    return kinds[keep](X)


def problem_of(X: Any, y: Any, weights: Any, loss: str, *, folds: Any = HELD, groups: Any = None) -> Any:
    known = "squared" if loss in ("outputs", "groups") else loss
    groups = [[0, 1, 2], [5, 6], [7, 8, 9, 10]] if loss == "groups" else groups
    return make_problem(
        known, X, y, weights, fit_intercept=True, folds=Folds(folds, X.shape[0]), groups=groups, delta=0.8
    )


@pytest.mark.parametrize("keep", ["C", "F", "csc", "float32"])
@pytest.mark.parametrize("centered", [True, False])
@pytest.mark.parametrize("exponent", [0, 160])
def test_moments_are_those_of_the_training_rows(keep: str, centered: bool, exponent: int) -> None:
    X, _, weights = data(p=150)
    # Constant but for the rows that the first fold holds out.
    X[:, 3] = 0.1
    X[HELD[0], 3] = 7.0
    X[:, 4] = 0.0
    if keep != "float32":
        X[:, 6] *= 10.0**exponent
    X = kept(X, keep)
    plain = X.toarray() if keep == "csc" else X.astype(np.float64)
    folds = Folds(HELD, 90)
    design = Design(X, weights, centered=centered, folds=folds)
    training = TrainingColumns(design, folds)
    for number, rows in enumerate(HELD):
        inside = np.setdiff1d(np.arange(90), rows)
        scaled, share = plain[inside] / design.scale, weights[inside] / weights[inside].sum()
        mean = share @ scaled
        np.testing.assert_allclose(training.mean(number), mean, rtol=1e-12, atol=1e-15)
        spread = share @ (scaled - mean * centered) ** 2
        np.testing.assert_allclose(training.spread(number), spread, rtol=1e-12, atol=1e-25)
    if centered:
        assert training.spread(0)[3] == 0 < training.spread(1)[3]
        assert training.spread(0)[4] == 0


@pytest.mark.parametrize("keep", ["F", "csc"])
@pytest.mark.parametrize("standardize", [False, True])
@pytest.mark.parametrize("name", PENALTIES)
def test_a_fold_is_the_path_of_its_training_rows(name: str, standardize: bool, keep: str) -> None:
    X, y, weights = data()
    terms = Terms(named(name), np.ones(24), standardize=standardize)
    problem = problem_of(kept(X, keep), y, weights, "squared")
    alphas = problem.largest_alpha(terms) * np.geomspace(0.99, 0.02, 20)
    for rows, solutions in zip(HELD, problem.solve(terms, alphas), strict=True):
        inside = np.setdiff1d(np.arange(90), rows)
        alone = sparse_path(
            kept(X[inside], keep),
            y[inside],
            name,
            alphas=alphas,
            sample_weight=weights[inside],
            standardize=standardize,
        )
        for k, solution in enumerate(solutions):
            np.testing.assert_allclose(dense(solution, 24), alone.coef(k), rtol=1e-9, atol=1e-10)
            assert solution.intercept == pytest.approx(alone.intercepts[k], rel=1e-9)
            assert solution.objective == pytest.approx(alone.objectives[k], rel=1e-10)


def dense(solution: Any, p: int) -> Any:
    result = np.zeros((p, *solution.coef.shape[1:]))
    result[solution.index] = solution.coef
    return result


@pytest.mark.parametrize("standardize", [False, True])
@pytest.mark.parametrize("name", ["lasso", "mcp", "log-sum:epsilon=0.05"])
@pytest.mark.parametrize("loss", ["squared", "groups", "outputs", "logistic", "multinomial", "poisson", "huber"])
@pytest.mark.parametrize("keep", ["F", "csc"])
@pytest.mark.parametrize("far", [20.0, pytest.param(1e5, marks=pytest.mark.slow)])
def test_other_rows_in_place_of_those_held_out_change_nothing(
    loss: str, name: str, standardize: bool, keep: str, far: float
) -> None:
    X, y, weights = data(loss)
    rng, rows = np.random.default_rng(9), HELD[0]
    X2, y2 = X.copy(), y.copy()
    X2[rows] = far * rng.normal(size=(rows.size, 24)) + far
    y2[rows] = rng.permutation(y[rows]) if loss in ("logistic", "multinomial") else far * np.abs(y[rows]).round()
    # Columns are scaled by all rows, by powers of two, and the tolerance is in that scale: solved to rounding.
    terms = Terms(named(name), np.ones(24), standardize=standardize, tol=1e-13)
    alphas = problem_of(X, y, weights, loss).largest_alpha(terms) * np.geomspace(0.8, 0.1, 8)
    # Counts far from any model keep the folds that see them busy for long.
    folds = HELD[:1] if loss == "poisson" else HELD
    one, other = (
        problem_of(kept(A, keep), b, weights, loss, folds=folds).solve(terms, alphas)[0] for A, b in ((X, y), (X2, y2))
    )
    assert len(one) == len(other)
    for left, right in zip(one, other, strict=True):
        np.testing.assert_array_equal(left.index, right.index)
        np.testing.assert_allclose(left.coef, right.coef, rtol=1e-9, atol=TIGHT)
        np.testing.assert_allclose(left.intercept, right.intercept, rtol=1e-9, atol=TIGHT)
        assert left.objective == pytest.approx(right.objective, rel=1e-12)
    assert one[-1].index.size > 0


@pytest.mark.parametrize("loss", ["squared", "huber", "logistic", "poisson"])
@pytest.mark.parametrize("standardize", [False, True])
def test_reweighting_does_not_look_at_rows_without_weight(loss: str, standardize: bool) -> None:
    X, y, weights = data(loss)
    weights[HELD[0]] = 0.0
    weights /= weights.sum()
    X2, y2 = X.copy(), y.copy()
    X2[HELD[0]] = 20.0 * np.random.default_rng(9).normal(size=(30, 24))
    y2[HELD[0]] = 1 - y[HELD[0]] if loss == "logistic" else 20.0 * y[HELD[0]].round()
    terms = Terms(named("log-sum"), np.ones(24), standardize=standardize, tol=1e-12)
    [one], [other] = (
        reweighted_solutions(loss, A, b, weights, terms, np.array([0.02]), delta=0.8) for A, b in ((X, y), (X2, y2))
    )
    np.testing.assert_allclose(
        dense(one.solution, 24), dense(other.solution, 24), rtol=1e-8, atol=1e-9
    )  # fmt: skip
    assert one.solution.index.size > 0
