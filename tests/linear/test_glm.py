"""Logistic, Poisson and Huber losses: first-order conditions, other solvers, weights, folds, data without a minimum."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.optimize
import scipy.sparse as sp
from scipy.special import expit, xlogy
from sklearn.datasets import load_breast_cancer
from sklearn.linear_model import HuberRegressor, LogisticRegression, PoissonRegressor
from sklearn.preprocessing import PolynomialFeatures

from obverse.linear import _losses
from obverse.linear._design import Design
from obverse.linear._glm import GlmProblem
from obverse.linear._terms import Terms
from obverse.linear._working_set import Folds
from obverse.penalties import L0, MCP, SCAD, Lasso, LogSum, Lp, VariationalDropout

LOSSES = ("logistic", "poisson", "huber")
DELTA = 0.7


def make(loss, n=150, p=40, seed=0, strength=1.0):
    generator = np.random.default_rng(seed)
    X = generator.normal(size=(n, p)) * generator.uniform(0.5, 3, p) + generator.normal(size=p)
    w = np.zeros(p)
    w[:5] = strength * np.array([1.0, -1, 0.8, -0.6, 0.5])
    f = (X - X.mean(0)) @ w
    if loss == "logistic":
        return X, (generator.uniform(size=n) < expit(f)).astype(float)
    if loss == "poisson":
        return X, generator.poisson(np.exp(np.clip(0.4 * f, -4, 3) + 0.5)).astype(float)
    return X, f + generator.standard_t(2, size=n)


def problem(loss, X, y, weights=None, *, intercept=True, folds=None):
    weights = np.full(y.size, 1 / y.size) if weights is None else weights / weights.sum()
    folds = Folds(folds or [np.zeros(0, np.int64)], y.size)
    design = Design(X, weights, centered=intercept, folds=folds)
    return GlmProblem(design, y, folds, loss, fit_intercept=intercept, delta=DELTA)


def terms_of(penalty, p, **options):
    return Terms(penalty, options.pop("factor", np.ones(p)), **options)


def loss_of(loss, y, f, weights):
    if loss == "logistic":
        return float(weights @ (np.logaddexp(0, f) - y * f))
    if loss == "poisson":
        return float(weights @ (np.exp(f) - y * f + xlogy(y, y) - y))
    r = np.abs(y - f)
    return float(weights @ np.where(r <= DELTA, r * r / 2, DELTA * r - DELTA**2 / 2))


def slope_of(loss, y, f):
    if loss == "logistic":
        return expit(f) - y
    if loss == "poisson":
        return np.exp(f) - y
    return -np.clip(y - f, -DELTA, DELTA)


def dense(solution, p):
    w = np.zeros(p)
    w[solution.index] = solution.coef
    return w


def check(loss, X, y, solution, alpha, penalty, *, weights=None, factor=None, positive=False, unit=None, width="fixed"):
    """Largest violation of the first-order conditions relative to the largest gradient at zero, in NumPy alone."""
    n, p = X.shape
    weights = np.full(n, 1 / n) if weights is None else weights / weights.sum()
    factor = np.ones(p) if factor is None else factor
    unit = np.ones(p) if unit is None else unit
    scale = np.abs(X).max(axis=0)
    w = dense(solution, p)
    slopes = weights * slope_of(loss, y, X @ w + solution.intercept)
    g = -(X.T @ slopes)
    seen = np.abs(w) * unit
    if width == "alpha":
        push = alpha * factor * unit * penalty.slope(seen / alpha)
        at_zero = alpha * factor * unit * penalty.slope_at_zero
    else:
        push = alpha * factor * unit * penalty.slope(seen)
        at_zero = alpha * factor * unit * (penalty.slope_at_zero if penalty.slope_at_zero < np.inf else 1e300)
    on = w != 0
    violation = np.abs(g[on] - push[on] * np.sign(w[on])) / scale[on]
    away = (g if positive else np.abs(g)) - at_zero
    if positive:
        assert (w >= 0).all()
    base = null(loss, y, weights)
    start = np.abs((X - weights @ X).T @ (weights * slope_of(loss, y, base))) / scale
    off = (away / scale)[~on]
    total = max(violation.max(initial=0), off.max(initial=0)) / start.max()
    return total, abs(slopes.sum()) / (weights @ np.abs(slope_of(loss, y, base)))


def null(loss, y, weights):
    if loss == "logistic":
        mean = weights @ y
        return np.full(y.size, np.log(mean / (1 - mean)))
    if loss == "poisson":
        return np.full(y.size, np.log(weights @ y))
    best = scipy.optimize.minimize_scalar(
        lambda b: loss_of(loss, y, np.full(y.size, b), weights), bounds=(y.min(), y.max()), options={"xatol": 1e-10}
    )
    return np.full(y.size, best.x)


@pytest.mark.parametrize("loss", LOSSES)
def test_derivatives_are_those_of_the_value_and_majorants_lie_above(loss):
    kind = _losses.LOSS_KINDS[loss]
    points = np.array([-30.0, -3.1, -0.4, 0.0, 0.2, 2.3, 6.0])
    for y in (0.0, 1.0):
        for f in points:
            h = 1e-6
            ahead, behind = _losses.value(kind, y, f + h, DELTA), _losses.value(kind, y, f - h, DELTA)
            assert _losses.derivative(kind, y, f, DELTA) == pytest.approx((ahead - behind) / (2 * h), abs=2e-6)
            rise = _losses.derivative(kind, y, f + h, DELTA) - _losses.derivative(kind, y, f - h, DELTA)
            assert _losses.curvature(kind, y, f, DELTA) == pytest.approx(rise / (2 * h), abs=2e-6)
            assert _losses.value(kind, y, f, DELTA) == pytest.approx(loss_of(loss, y, np.array([f]), np.ones(1)))
            if loss != "poisson":
                away = points - f
                above = _losses.value(kind, y, f, DELTA) + away * _losses.derivative(kind, y, f, DELTA)
                above += _losses.majorant(kind, y, f, DELTA) * away**2 / 2
                assert all(_losses.value(kind, y, x, DELTA) <= v + 1e-12 for x, v in zip(points, above, strict=True))
    assert _losses.value(_losses.POISSON, 3.0, np.log(3.0), 1.0) == pytest.approx(0, abs=1e-15)


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize(
    ("penalty", "width"),
    [
        (Lasso(), "fixed"),
        (MCP(3.0), "alpha"),
        (MCP(6.0), "alpha"),
        (SCAD(3.7), "alpha"),
        (LogSum(0.3), "fixed"),
        (LogSum(0.03), "fixed"),
        (Lp(0.5), "fixed"),
        (L0(), "fixed"),
        (VariationalDropout(), "fixed"),
    ],
    ids=str,
)
def test_paths_satisfy_the_first_order_conditions(loss, penalty, width):
    X, y = make(loss)
    terms = terms_of(penalty, X.shape[1], width=width, tol=1e-7)
    here = problem(loss, X, y)
    alphas = here.largest_alpha(terms) * np.geomspace(1.0, 0.1, 12)
    [solutions] = here.solve(terms, alphas)
    assert len(solutions) == 12
    assert solutions[0].index.size == 0
    assert solutions[-1].index.size > 0
    for alpha, solution in zip(alphas, solutions, strict=True):
        assert solution.converged
        violation, intercept = check(loss, X, y, solution, alpha, penalty, width=width)
        assert violation <= 3e-7
        assert intercept <= 1e-10
        w = dense(solution, X.shape[1])
        value = loss_of(loss, y, X @ w + solution.intercept, np.full(y.size, 1 / y.size))
        omega = alpha**2 * penalty.value(w / alpha).sum() if width == "alpha" else alpha * penalty.value(w).sum()
        assert solution.objective == pytest.approx(value + omega, rel=1e-9)


@pytest.mark.parametrize("loss", LOSSES)
def test_the_largest_alpha_is_where_the_first_coefficient_enters(loss):
    X, y = make(loss)
    for penalty, width in ((Lasso(), "fixed"), (MCP(4.0), "alpha"), (LogSum(0.5), "fixed")):
        terms = terms_of(penalty, X.shape[1], width=width)
        here = problem(loss, X, y)
        largest = here.largest_alpha(terms)
        [solutions] = here.solve(terms, np.array([1.0001 * largest, 0.99 * largest]))
        assert solutions[0].index.size == 0
        assert solutions[1].index.size >= 1


def test_logistic_lasso_agrees_with_liblinear_without_an_intercept():
    X, y = make("logistic")
    terms = terms_of(Lasso(), X.shape[1], tol=1e-9)
    here = problem("logistic", X, y, intercept=False)
    alpha = 0.1 * here.largest_alpha(terms)
    [[solution]] = here.solve(terms, np.array([alpha]))
    reference = LogisticRegression(
        l1_ratio=1,
        solver="liblinear",
        C=1 / (alpha * y.size),
        fit_intercept=False,
        tol=1e-8,
        max_iter=20000,
        random_state=0,
    ).fit(X, y)
    np.testing.assert_allclose(dense(solution, X.shape[1]), reference.coef_[0], atol=2e-5)
    assert solution.intercept == 0


def test_unpenalized_fits_agree_with_scikit_learn():
    for loss in ("logistic", "poisson"):
        X, y = make(loss, p=6)
        terms = terms_of(Lasso(), 6, factor=np.zeros(6), tol=1e-9)
        [[solution]] = problem(loss, X, y).solve(terms, np.array([1.0]))
        if loss == "logistic":
            reference = LogisticRegression(C=np.inf, solver="newton-cholesky", tol=1e-12, max_iter=1000).fit(X, y)
        else:
            reference = PoissonRegressor(alpha=0, solver="newton-cholesky", tol=1e-12, max_iter=1000).fit(X, y)
        np.testing.assert_allclose(solution.coef, reference.coef_.ravel(), rtol=1e-6)
        assert solution.intercept == pytest.approx(np.ravel(reference.intercept_)[0], rel=1e-6)


def test_huber_agrees_with_scikit_learn_at_its_own_scale():
    X, y = make("huber", p=5)
    reference = HuberRegressor(epsilon=1.35, alpha=0, tol=1e-10, max_iter=5000).fit(X, y)
    weights = np.full(y.size, 1 / y.size)
    here = GlmProblem(
        Design(X, weights, centered=True), y, Folds([np.zeros(0, np.int64)], y.size), "huber",
        fit_intercept=True, delta=1.35 * reference.scale_,
    )  # fmt: skip
    [[solution]] = here.solve(terms_of(Lasso(), 5, factor=np.zeros(5), tol=1e-10), np.array([1.0]))
    np.testing.assert_allclose(solution.coef, reference.coef_, rtol=1e-4)


@pytest.mark.parametrize("loss", LOSSES)
def test_repeating_a_row_is_weighting_it(loss):
    X, y = make(loss)
    counts = np.random.default_rng(1).integers(0, 4, y.size)
    repeated = np.repeat(np.arange(y.size), counts)
    for penalty, width in ((Lasso(), "fixed"), (MCP(3.0), "alpha")):
        terms = terms_of(penalty, X.shape[1], width=width, tol=1e-9)
        one, two = problem(loss, X, y, counts.astype(float)), problem(loss, X[repeated], y[repeated])
        assert one.largest_alpha(terms) == pytest.approx(two.largest_alpha(terms), rel=1e-8)
        alphas = one.largest_alpha(terms) * np.array([0.5, 0.3, 0.2])
        for left, right in zip(one.solve(terms, alphas)[0], two.solve(terms, alphas)[0], strict=True):
            np.testing.assert_array_equal(left.index, right.index)
            np.testing.assert_allclose(left.coef, right.coef, rtol=1e-4, atol=1e-7)
            assert left.intercept == pytest.approx(right.intercept, abs=1e-6)
            assert left.objective == pytest.approx(right.objective, rel=1e-10)


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("intercept", [True, False])
def test_sparse_and_float32_data_give_the_same(loss, intercept):
    X, y = make(loss)
    X = np.where(np.abs(X) > 1.5, X, 0.0).astype(np.float32).astype(np.float64)
    terms = terms_of(MCP(5.0), X.shape[1], width="alpha", tol=1e-7)
    here = problem(loss, X, y, intercept=intercept)
    alphas = here.largest_alpha(terms) * np.geomspace(0.8, 0.2, 6)
    [first] = here.solve(terms, alphas)
    others = [sp.csc_array(X), X.astype(np.float32), sp.csc_array(X.astype(np.float32)), np.asfortranarray(X)]
    for other in others:
        [second] = problem(loss, other, y, intercept=intercept).solve(terms, alphas)
        for left, right in zip(first, second, strict=True):
            np.testing.assert_array_equal(left.index, right.index)
            np.testing.assert_allclose(left.coef, right.coef, rtol=1e-3, atol=1e-5)
            assert left.intercept == pytest.approx(right.intercept, abs=1e-5)
            assert left.objective == pytest.approx(right.objective, rel=1e-8)


@pytest.mark.parametrize("loss", LOSSES)
def test_options_are_honored(loss):
    X, y = make(loss)
    p = X.shape[1]
    factor = np.random.default_rng(2).uniform(0.5, 2, p)
    factor[[7, 11]] = 0
    spread = X.std(axis=0)
    for penalty, width in ((Lasso(), "fixed"), (MCP(3.0), "alpha")):
        terms = terms_of(penalty, p, factor=factor, positive=True, standardize=True, width=width, tol=1e-7)
        here = problem(loss, X, y)
        alphas = here.largest_alpha(terms) * np.array([1.00001, 0.4, 0.2])
        solutions = here.solve(terms, alphas)[0]
        assert set(solutions[0].index) <= {7, 11}
        for alpha, solution in zip(alphas, solutions, strict=True):
            assert solution.converged
            violation, _ = check(
                loss, X, y, solution, alpha, penalty, factor=factor, positive=True, unit=spread, width=width
            )
            assert violation <= 3e-7
        few = terms_of(penalty, p, width=width, max_features=3)
        ended = here.solve(few, here.largest_alpha(few) * np.geomspace(1, 0.01, 40))[0]
        assert len(ended) < 40
        assert ended[-1].index.size > 3 >= ended[-2].index.size


@pytest.mark.parametrize("loss", LOSSES)
def test_folds_are_separate_fits_and_count_their_own_errors(loss):
    X, y = make(loss)
    held = [np.arange(0, 50), np.arange(50, 100), np.arange(100, 150), np.zeros(0, np.int64)]
    weights = np.random.default_rng(3).uniform(0.5, 2, y.size)
    weights /= weights.sum()
    for penalty, width in ((Lasso(), "fixed"), (MCP(3.0), "alpha")):
        terms = terms_of(penalty, X.shape[1], width=width, tol=1e-8)
        together = problem(loss, X, y, weights, folds=held)
        alphas = together.largest_alpha(terms) * np.geomspace(0.9, 0.2, 6)
        solved = together.solve(terms, alphas)
        for rows, solutions in zip(held, solved, strict=True):
            kept = np.setdiff1d(np.arange(y.size), rows)
            alone = problem(loss, X[kept], y[kept], weights[kept]).solve(terms, alphas)[0]
            for left, right in zip(solutions, alone, strict=True):
                np.testing.assert_array_equal(left.index, right.index)
                np.testing.assert_allclose(left.coef, right.coef, rtol=1e-4, atol=1e-6)
                f = X[rows] @ dense(left, X.shape[1]) + left.intercept
                assert left.held_out == pytest.approx(loss_of(loss, y[rows], f, weights[rows]), rel=1e-6, abs=1e-12)
    asked = []
    together.solve(terms, alphas, stop=lambda found: asked.append([len(part) for part in found]) or True)
    assert asked == [[4, 4, 4, 4]]


def test_separable_data_end_with_an_honest_flag():
    generator = np.random.default_rng(0)
    X = generator.normal(size=(60, 100))
    y = (X[:, 0] > 0).astype(float)
    lasso = terms_of(Lasso(), 100)
    here = problem("logistic", X, y)
    alphas = here.largest_alpha(lasso) * np.geomspace(1, 1e-3, 20)
    solutions = here.solve(lasso, alphas)[0]
    assert all(solution.converged for solution in solutions)
    assert check("logistic", X, y, solutions[-1], alphas[-1], Lasso())[0] <= 2e-6
    # A bounded penalty has no minimum there: coefficients could grow for ever.
    mcp = terms_of(MCP(3.0), 100, width="alpha")
    solutions = here.solve(mcp, alphas)[0]
    assert len(solutions) == 20
    assert not solutions[-1].converged
    assert all(np.isfinite(solution.coef).all() and np.isfinite(solution.objective) for solution in solutions)
    free = here.solve(terms_of(Lasso(), 100, factor=np.r_[0.0, np.ones(99)]), alphas[:1])[0]
    assert not free[0].converged


@pytest.mark.parametrize(
    ("loss", "y"), [("logistic", np.zeros(20)), ("logistic", np.ones(20)), ("poisson", np.zeros(20))]
)
def test_data_whose_intercept_has_no_best_value_do_not_pretend_to_converge(loss, y):
    X = np.random.default_rng(0).normal(size=(20, 3))
    here = problem(loss, X, y)
    assert here.largest_alpha(terms_of(Lasso(), 3)) == 0
    [[solution]] = here.solve(terms_of(Lasso(), 3), np.array([0.1]))
    assert solution.index.size == 0
    assert not solution.converged
    assert np.isfinite(solution.intercept)
    assert solution.objective == pytest.approx(0, abs=1e-10)


@pytest.mark.parametrize("loss", ["poisson", "huber"])
@pytest.mark.parametrize("size", [1e-150, 1e150])
def test_units_of_the_target_do_not_matter(loss, size):
    X, y = make(loss)
    w = np.full(y.size, 1 / y.size)

    def build(factor):
        return GlmProblem(
            Design(X, w, centered=True), y * factor, Folds([np.zeros(0, np.int64)], y.size), loss,
            fit_intercept=True, delta=DELTA * factor,
        )  # fmt: skip

    plain, scaled = build(1.0), build(size)
    terms = terms_of(Lasso(), X.shape[1], tol=1e-8)
    assert scaled.largest_alpha(terms) == pytest.approx(plain.largest_alpha(terms) * size, rel=1e-9)
    [[one]] = plain.solve(terms, np.array([0.3 * plain.largest_alpha(terms)]))
    [[two]] = scaled.solve(terms, np.array([0.3 * scaled.largest_alpha(terms)]))
    np.testing.assert_allclose(two.coef, one.coef * (size if loss == "huber" else 1.0), rtol=1e-6)
    assert two.converged


@pytest.mark.parametrize("size", [1e-150, 1e150])
def test_units_of_the_features_do_not_matter(size):
    X, y = make("logistic")
    terms = terms_of(Lasso(), X.shape[1], tol=1e-8)
    plain, scaled = problem("logistic", X, y), problem("logistic", X * size, y)
    [[one]] = plain.solve(terms, np.array([0.3 * plain.largest_alpha(terms)]))
    [[two]] = scaled.solve(terms, np.array([0.3 * scaled.largest_alpha(terms)]))
    np.testing.assert_allclose(two.coef * size, one.coef, rtol=1e-6)


def test_constant_and_repeated_columns_do_no_harm():
    X, y = make("logistic", p=10)
    X = np.column_stack([X, np.full(y.size, 3.0), np.zeros(y.size), X[:, 0]])
    terms = terms_of(MCP(3.0), 13, width="alpha")
    here = problem("logistic", X, y)
    solutions = here.solve(terms, here.largest_alpha(terms) * np.geomspace(1, 0.1, 10))[0]
    assert all(solution.converged for solution in solutions)
    assert not {10, 11} & set(solutions[-1].index)


@pytest.mark.parametrize("loss", LOSSES)
def test_zeros_are_minimizers_of_their_own_problems(loss):
    """No zero can be left with profit by one coefficient alone, as far as the curvature of the loss tells."""
    X, y = make(loss, p=15)
    penalty = L0()
    terms = terms_of(penalty, 15, tol=1e-8)
    here = problem(loss, X, y)
    alpha = 0.2 * here.largest_alpha(terms)
    [[solution]] = here.solve(terms, np.array([alpha]))
    w, weights = dense(solution, 15), np.full(y.size, 1 / y.size)
    base = X @ w + solution.intercept
    g = X.T @ (weights * slope_of(loss, y, base))
    for j in np.flatnonzero(w == 0):
        size = 0.05 * abs(g[j])
        best = min(
            loss_of(loss, y, base + t * (X[:, j] - X[:, j].mean()), weights)
            for t in np.sign(-g[j]) * np.geomspace(0.01, 1, 60) * max(20 * size, 1e-12) * 10
        )
        assert best + alpha >= loss_of(loss, y, base, weights) - 1e-3 * alpha


def test_one_pass_at_most_says_that_it_did_not_get_there():
    X, y = make("logistic", strength=3.0)
    terms = terms_of(Lasso(), X.shape[1], max_iter=1, tol=1e-12)
    here = problem("logistic", X, y)
    [[solution]] = here.solve(terms, np.array([0.02 * here.largest_alpha(terms)]))
    assert not solution.converged
    assert solution.violation > 1e-12


@pytest.mark.parametrize("penalty", [Lasso(), MCP(3.0)], ids=str)
def test_huber_moves_where_every_row_is_an_outlier(penalty):
    X, _ = make("huber")
    y = 1e4 * np.random.default_rng(0).standard_cauchy(150)
    terms = terms_of(penalty, X.shape[1], width="alpha")
    here = problem("huber", X, y)
    assert here.largest_alpha(terms) > 0
    alphas = here.largest_alpha(terms) * np.array([1.0, 0.8, 0.5])
    solutions = here.solve(terms, alphas)[0]
    assert solutions[-1].index.size > 0
    assert all(solution.converged for solution in solutions)
    assert solutions[-1].objective < solutions[0].objective


@pytest.mark.parametrize(("penalty", "width"), [(Lasso(), "fixed"), (MCP(6.0), "alpha")], ids=str)
def test_paths_on_nearly_collinear_separable_data_finish(penalty, width):
    X, y = load_breast_cancer(return_X_y=True)
    X = PolynomialFeatures(2, include_bias=False).fit_transform((X - X.mean(0)) / X.std(0))
    X = np.asfortranarray((X - X.mean(0)) / X.std(0))
    terms = terms_of(penalty, X.shape[1], width=width)
    here = problem("logistic", X, y.astype(float))
    alphas = here.largest_alpha(terms) * np.geomspace(1, 0.02, 30)
    solutions = here.solve(terms, alphas)[0]
    assert len(solutions) == 30
    assert max(solution.violation for solution in solutions) <= 1e-6
    for alpha, solution in list(zip(alphas, solutions, strict=True))[::5]:
        assert check("logistic", X, y, solution, alpha, penalty, width=width)[0] <= 1e-5
