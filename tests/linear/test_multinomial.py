"""The multinomial loss: first-order conditions, other solvers, weights, folds, classes that do not occur."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.sparse as sp
from scipy.special import logsumexp, softmax
from sklearn.linear_model import LogisticRegression

from obverse.linear._design import Design
from obverse.linear._glm import GlmProblem
from obverse.linear._multinomial import MultinomialProblem
from obverse.linear._terms import Terms
from obverse.linear._working_set import Folds
from obverse.penalties import L0, MCP, SCAD, Lasso, LogSum, Lp


def make(n=180, p=20, classes=4, seed=0):
    generator = np.random.default_rng(seed)
    X = generator.normal(size=(n, p)) * generator.uniform(0.5, 2, p) + generator.normal(size=p)
    w = np.zeros((p, classes))
    w[:4] = generator.normal(size=(4, classes))
    f = (X - X.mean(0)) @ w + generator.gumbel(size=(n, classes))
    return X, f.argmax(axis=1)


def problem(X, y, weights=None, *, intercept=True, folds=None):
    weights = np.full(y.size, 1 / y.size) if weights is None else weights / weights.sum()
    folds = Folds(folds or [np.zeros(0, np.int64)], y.size)
    return MultinomialProblem(Design(X, weights, centered=intercept, folds=folds), y, folds, fit_intercept=intercept)


def terms_of(penalty, p, **options):
    return Terms(penalty, options.pop("factor", np.ones(p)), **options)


def dense(solution, p):
    w = np.zeros((p, solution.intercept.size))
    w[solution.index] = solution.coef
    return w


def loss_of(y, f, weights):
    return float(weights @ (logsumexp(f, axis=1) - f[np.arange(y.size), y]))


def check(X, y, solution, alpha, penalty, width="fixed"):
    n, p = X.shape
    w = dense(solution, p)
    slopes = (softmax(X @ w + solution.intercept, axis=1) - np.eye(w.shape[1])[y]) / n
    g = -(X.T @ slopes)
    size = np.abs(w) / alpha if width == "alpha" else np.abs(w)
    on = w != 0
    push = alpha * penalty.slope(size[on])
    violation = np.abs(g[on] - push * np.sign(w[on])).max(initial=0)
    away = (np.abs(g) - alpha * penalty.slope_at_zero)[~on].max(initial=0)
    start = np.abs((X - X.mean(0)).T @ (np.bincount(y, minlength=w.shape[1]) / n - np.eye(w.shape[1])[y]) / n)
    return max(violation, away) / start.max(), np.abs(slopes.sum(axis=0)).max()


@pytest.mark.parametrize(
    ("penalty", "width"),
    [
        (Lasso(), "fixed"),
        (MCP(3.0), "alpha"),
        (MCP(6.0), "alpha"),
        (SCAD(3.7), "alpha"),
        (LogSum(0.3), "fixed"),
        (Lp(0.5), "fixed"),
        (L0(), "fixed"),
    ],
    ids=str,
)
def test_paths_satisfy_the_first_order_conditions(penalty, width):
    X, y = make()
    terms = terms_of(penalty, X.shape[1], width=width, tol=1e-7)
    here = problem(X, y)
    alphas = here.largest_alpha(terms) * np.geomspace(1.0, 0.15, 10)
    [solutions] = here.solve(terms, alphas)
    assert len(solutions) == 10
    assert solutions[0].index.size == 0
    assert solutions[-1].index.size > 0
    for alpha, solution in zip(alphas, solutions, strict=True):
        assert solution.converged
        assert solution.coef.shape == (solution.index.size, 4)
        violation, intercept = check(X, y, solution, alpha, penalty, width)
        assert violation <= 1e-6
        assert intercept <= 1e-9
        w = dense(solution, X.shape[1])
        omega = alpha**2 * penalty.value(w / alpha).sum() if width == "alpha" else alpha * penalty.value(w).sum()
        value = loss_of(y, X @ w + solution.intercept, np.full(y.size, 1 / y.size)) + omega
        assert solution.objective == pytest.approx(value, rel=1e-9)


def test_lasso_agrees_with_saga():
    X, y = make(n=120, p=8)
    X = (X - X.mean(0)) / X.std(0)
    terms = terms_of(Lasso(), 8, tol=1e-8)
    here = problem(X, y)
    alpha = 0.2 * here.largest_alpha(terms)
    [[solution]] = here.solve(terms, np.array([alpha]))
    saga = LogisticRegression(
        l1_ratio=1, solver="saga", C=1 / (alpha * y.size), tol=1e-7, max_iter=20000, random_state=0
    ).fit(X, y)
    value = (
        loss_of(y, X @ saga.coef_.T + saga.intercept_, np.full(y.size, 1 / y.size)) + alpha * np.abs(saga.coef_).sum()
    )
    assert solution.objective == pytest.approx(value, rel=1e-6)
    assert solution.objective <= value + 1e-10
    # Both are defined up to one constant for each feature, of which the sparsest is chosen.
    w, reference = dense(solution, 8), saga.coef_.T
    np.testing.assert_allclose(w - w.mean(1)[:, None], reference - reference.mean(1)[:, None], atol=2e-3)
    assert (w == 0).any(axis=1).all()


def test_two_classes_are_the_logistic_loss_of_half_the_coefficients():
    X, y = make(classes=2)
    weights = np.full(y.size, 1 / y.size)
    design = Design(X, weights, centered=True)
    terms = terms_of(Lasso(), X.shape[1], tol=1e-9)
    folds = Folds([np.zeros(0, np.int64)], y.size)
    binary = GlmProblem(design, y.astype(float), folds, "logistic", fit_intercept=True)
    both = problem(X, y)
    assert both.largest_alpha(terms) == pytest.approx(binary.largest_alpha(terms))
    alpha = 0.2 * binary.largest_alpha(terms)
    [[one]], [[two]] = binary.solve(terms, np.array([alpha])), both.solve(terms, np.array([alpha]))
    w = dense(two, X.shape[1])
    # A difference of coefficients costs the same however it is shared between the classes.
    np.testing.assert_allclose((w[:, 1] - w[:, 0])[one.index], one.coef, rtol=1e-5)
    assert two.objective == pytest.approx(one.objective, rel=1e-9)
    assert two.intercept[1] - two.intercept[0] == pytest.approx(one.intercept, rel=1e-5)


def test_repeating_a_row_is_weighting_it_and_sparse_data_are_dense():
    # With an odd number of classes the constant of each feature is unique, their median.
    X, y = make(classes=3)
    X = np.where(np.abs(X) > 1, X, 0.0)
    counts = np.random.default_rng(1).integers(0, 4, y.size)
    rows = np.repeat(np.arange(y.size), counts)
    for penalty, width in ((Lasso(), "fixed"), (MCP(4.0), "alpha")):
        terms = terms_of(penalty, X.shape[1], width=width, tol=1e-9)
        one = problem(X, y, counts.astype(float))
        alphas = one.largest_alpha(terms) * np.array([0.5, 0.3, 0.2])
        [first] = one.solve(terms, alphas)
        for other in (
            problem(X[rows], y[rows]),
            problem(sp.csc_array(X), y, counts.astype(float)),
            problem(np.asfortranarray(X), y, counts.astype(float)),
        ):
            for left, right in zip(first, other.solve(terms, alphas)[0], strict=True):
                assert left.objective == pytest.approx(right.objective, rel=1e-9)
                np.testing.assert_allclose(left.coef, right.coef, atol=1e-5)
                np.testing.assert_allclose(left.intercept, right.intercept, atol=1e-5)


def test_folds_are_separate_fits_and_count_their_own_errors():
    X, y = make(classes=3)
    held = [np.arange(0, 60), np.arange(60, 120), np.zeros(0, np.int64)]
    weights = np.full(y.size, 1 / y.size)
    for penalty, width in ((Lasso(), "fixed"), (MCP(3.0), "alpha")):
        terms = terms_of(penalty, X.shape[1], width=width, tol=1e-9)
        together = problem(X, y, folds=held)
        alphas = together.largest_alpha(terms) * np.geomspace(0.9, 0.3, 4)
        for rows, solutions in zip(held, together.solve(terms, alphas), strict=True):
            kept = np.setdiff1d(np.arange(y.size), rows)
            for left, right in zip(solutions, problem(X[kept], y[kept]).solve(terms, alphas)[0], strict=True):
                np.testing.assert_allclose(left.coef, right.coef, atol=1e-5)
                f = X[rows] @ dense(left, X.shape[1]) + left.intercept
                assert left.held_out == pytest.approx(loss_of(y[rows], f, weights[rows]), abs=1e-9)


def test_options_are_honored():
    X, y = make()
    factor = np.ones(20)
    factor[5] = 0
    terms = terms_of(MCP(3.0), 20, factor=factor, width="alpha", positive=True, standardize=True)
    here = problem(X, y)
    alphas = here.largest_alpha(terms) * np.array([1.0001, 0.3])
    [solutions] = here.solve(terms, alphas)
    assert set(solutions[0].index) <= {5}
    assert all(solution.converged and (solution.coef >= 0).all() for solution in solutions)
    scaled = problem(X * np.geomspace(0.01, 100, 20), y).solve(terms, alphas)[0]
    assert scaled[1].objective == pytest.approx(solutions[1].objective, rel=1e-6)
    ended = here.solve(terms_of(Lasso(), 20, max_features=3), alphas[0] * np.geomspace(3, 0.01, 40))[0]
    assert ended[-1].index.size > 3
    assert all(solution.index.size <= 3 for solution in ended[:-1])
    bare = problem(X, y, intercept=False).solve(terms_of(Lasso(), 20), np.array([0.05]))[0][0]
    assert bare.converged
    assert not bare.intercept.any()


def test_separated_classes_and_classes_that_do_not_occur():
    generator = np.random.default_rng(0)
    X = generator.normal(size=(60, 30))
    y = np.digitize(X[:, 0], [-0.5, 0.5])
    here = problem(X, y)
    lasso, mcp = terms_of(Lasso(), 30), terms_of(MCP(3.0), 30, width="alpha")
    alphas = here.largest_alpha(lasso) * np.geomspace(1, 0.01, 10)
    assert all(solution.converged for solution in here.solve(lasso, alphas)[0])
    bounded = here.solve(mcp, alphas)[0]
    assert len(bounded) == 10
    assert all(np.isfinite(solution.coef).all() for solution in bounded)
    assert not bounded[-1].converged
    # The only rows of class 2 are held out.
    rows = np.flatnonzero(y == 2)
    first, second = problem(X, y, folds=[rows, np.zeros(0, np.int64)]).solve(lasso, alphas[:4])
    assert all(not solution.converged and np.isfinite(solution.held_out) for solution in first)
    assert all(solution.converged for solution in second)
    single = problem(X, np.full(60, 2)).solve(lasso, alphas[:1])[0][0]
    assert single.index.size == 0
    assert not single.converged
    assert single.intercept.argmax() == 2
