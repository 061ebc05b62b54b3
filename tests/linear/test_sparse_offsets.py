"""Sparse features far from zero: the same numbers as with the dense array, whatever the offset."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import scipy.sparse as sp
from sklearn.model_selection import KFold

from obverse.linear import SparseClassifier, SparseClassifierCV, SparseRegressor, SparseRegressorCV, sparse_path
from obverse.linear._design import Design
from obverse.linear._offsets import canonical

ROWS, FEATURES = 120, 6
LOSSES = ["squared", "huber", "poisson", "logistic", "multinomial"]
OFFSETS = [0.0, 1e3, 1e6, 1e9]


def target(f: Any, loss: str) -> Any:
    rng = np.random.default_rng(1)
    if loss == "poisson":
        return rng.poisson(np.exp(0.5 * f)).astype(float)
    if loss == "logistic":
        return (f + rng.logistic(size=f.size) > 0).astype(float)
    if loss == "multinomial":
        return np.digitize(f + rng.logistic(size=f.size), [-0.7, 0.7]).astype(float)
    return f + 0.3 * rng.normal(size=f.size)


def data(offset: float, density: float, loss: str, rows: int = ROWS) -> tuple[Any, Any]:
    rng = np.random.default_rng(5)
    X = np.where(rng.random((rows, FEATURES)) < density, offset + rng.normal(size=(rows, FEATURES)), 0.0)
    X[0, :] = offset + 1  # no column is empty
    Z = np.clip((X - X.mean(axis=0)) / X.std(axis=0), -3, 3)
    return X, target(Z[:, 0] - 0.7 * Z[:, 2], loss)


def estimator(loss: str, **options: Any) -> Any:
    shared: dict[str, Any] = {"penalty": "lasso", "alpha": 0.02, "standardize": True, **options}
    return SparseRegressor(loss=loss, **shared) if loss in LOSSES[:3] else SparseClassifier(**shared)  # type: ignore[arg-type]


def same(sparse: Any, dense: Any, X: Any, rtol: float = 1e-6) -> None:
    """The same coefficients, predictions and diagnostics; both converged."""
    unit = X.std(axis=0)
    expected = np.atleast_2d(dense.coef_) * unit
    assert expected.any()
    np.testing.assert_allclose(np.atleast_2d(sparse.coef_) * unit, expected, rtol=rtol, atol=rtol * abs(expected).max())
    assert sparse.converged_
    assert sparse.objective_ == pytest.approx(dense.objective_, rel=rtol)
    f, g = (model.coef_ @ X.T + np.atleast_1d(model.intercept_)[:, None] for model in (sparse, dense))
    if f.shape[0] > 1:  # what is added to all classes says nothing
        f, g = f - f.mean(axis=0), g - g.mean(axis=0)
    size = np.abs(g - g.mean()).max()
    # The products of the prediction itself round at the offset.
    np.testing.assert_allclose(f, g, atol=rtol * size + 1e-14 * np.abs(expected).sum() * np.abs(X / unit).max())


@pytest.mark.parametrize("offset", OFFSETS)
@pytest.mark.parametrize("density", [1.0, 0.5, 0.01])
@pytest.mark.parametrize(
    ("loss", "solver"),
    [(loss, "auto") for loss in LOSSES] + [(loss, "reweighted") for loss in LOSSES[:4]] + [("squared", "dropout")],
)
def test_sparse_is_dense(loss: str, solver: str, density: float, offset: float) -> None:
    options: dict[str, Any] = {"solver": solver, "tol": 1e-7}
    if solver == "dropout":
        density = max(density, 0.5)  # columns of one entry take it very long
        options |= {"random_state": 0, "max_iter": 200}
    X, y = data(offset, density, loss)
    dense, sparse = (estimator(loss, **options).fit(Z, y) for Z in (X, sp.csr_array(X)))
    same(sparse, dense, X, 2e-5 if solver == "dropout" else 1e-6)


def test_a_column_near_thirty_million() -> None:
    rng = np.random.default_rng(0)
    X = 3e7 + rng.normal(size=(200, 5))
    y = 2 * (X[:, 1] - 3e7) + 0.1 * rng.normal(size=200)
    model = SparseRegressor("lasso", 0.01).fit(sp.csr_array(X), y)
    np.testing.assert_allclose(model.coef_, [0, 2, 0, 0, 0], atol=0.05)
    np.testing.assert_allclose(model.predict(sp.csr_array(X)), y, atol=0.5)


@pytest.mark.parametrize("offset", [1e6, 1e9])
@pytest.mark.parametrize("loss", LOSSES)
def test_cross_validation(loss: str, offset: float) -> None:
    X, y = data(offset, 1.0, loss)
    kind: Any = SparseRegressorCV if loss in LOSSES[:3] else SparseClassifierCV
    options = {"loss": loss} if loss in LOSSES[:3] else {}
    found = [kind("lasso", standardize=True, n_alphas=12, cv=4, **options).fit(Z, y) for Z in (X, sp.csr_array(X))]
    np.testing.assert_allclose(found[1].shape_alphas_, found[0].shape_alphas_, rtol=1e-6)
    np.testing.assert_allclose(found[1].cv_errors_, found[0].cv_errors_, rtol=1e-5)
    same(found[1], found[0], X, 1e-5)


def test_a_fold_may_hold_out_every_row_without_an_entry() -> None:
    """Over all rows the zeros spread the column; over the training rows of one fold it is far from zero."""
    X, y = data(1e9, 1.0, "squared")
    X[:30] = 0.0
    errors = [
        SparseRegressorCV("lasso", standardize=True, n_alphas=8, cv=KFold(4)).fit(Z, y).cv_errors_
        for Z in (X, sp.csr_array(X))
    ]
    np.testing.assert_allclose(errors[1], errors[0], rtol=1e-6)


def test_rows_without_weight_may_be_all_that_lack_an_entry() -> None:
    X, y = data(1e8, 1.0, "squared")
    X[::2] = 0.0
    s = (np.arange(ROWS) % 2).astype(float)
    for loss, solver in (("squared", "auto"), ("huber", "auto"), ("squared", "reweighted")):
        found = [
            estimator(loss, solver=solver, standardize=False, alpha=0.05).fit(Z, y, s) for Z in (X, sp.csr_array(X))
        ]
        assert np.any(found[0].coef_)
        np.testing.assert_allclose(found[1].coef_, found[0].coef_, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("groups", [None, [[0, 1], [2, 3, 4]]])
def test_groups_and_several_outputs(groups: Any) -> None:
    X, y = data(1e8, 1.0, "squared")
    for t in (y, np.column_stack([y, X[:, 3] - 1e8])):
        if groups is None and t.ndim == 1:
            continue
        found = [SparseRegressor("lasso", 0.05, groups=groups).fit(Z, t) for Z in (X, sp.csr_array(X))]
        np.testing.assert_allclose(found[1].coef_, found[0].coef_, rtol=1e-6, atol=1e-8)
        np.testing.assert_allclose(found[1].intercept_, found[0].intercept_, rtol=1e-6)


@pytest.mark.slow
def test_many_members_without_products() -> None:
    """Descent on residuals, which takes over from products of columns, with a few columns far from zero."""
    rng = np.random.default_rng(3)
    X = np.where(rng.random((400, 700)) < 0.02, rng.normal(size=(400, 700)), 0.0)
    X[:, :3] = 1e5 + rng.normal(size=(400, 3))
    y = X[:, :3].sum(axis=1) - 3e5 + X[:, 3:100].sum(axis=1) + rng.normal(size=400)
    paths = [sparse_path(Z, y, "lasso", alphas=[0.1, 0.01, 0.002], tol=1e-7) for Z in (X, sp.csr_array(X))]
    assert paths[1].converged.all()
    assert paths[1].n_features[-1] > 256
    np.testing.assert_allclose(paths[1].coefs.toarray(), paths[0].coefs.toarray(), atol=1e-5)


def unsorted(X: Any) -> Any:
    """The same matrix with the entries of every row in reverse order."""
    csr = sp.csr_array(X)
    parts = [np.arange(a, b)[::-1] for a, b in zip(csr.indptr[:-1], csr.indptr[1:], strict=True)]
    order = np.concatenate(parts)
    return sp.csr_array((csr.data[order], csr.indices[order], csr.indptr), shape=X.shape)


def doubled(X: Any) -> Any:
    """The same matrix with every entry stored as two halves."""
    csr = sp.csr_array(X)
    return sp.csr_array((np.repeat(csr.data / 2, 2), np.repeat(csr.indices, 2), 2 * csr.indptr), shape=X.shape)


def wide(X: Any) -> Any:
    csc = sp.csc_array(X)
    csc.indices, csc.indptr = csc.indices.astype(np.int64), csc.indptr.astype(np.int64)
    return csc


def explicit(X: Any) -> Any:
    """Every zero stored."""
    rows, _ = np.indices(X.shape)
    return sp.csc_array((X.T.ravel(), rows.T.ravel(), np.arange(0, X.size + 1, X.shape[0])), shape=X.shape)


@pytest.mark.parametrize(
    "form",
    [sp.csr_array, sp.csc_array, sp.coo_array, sp.csr_matrix, sp.lil_array, unsorted, doubled, wide, explicit],
    ids=lambda form: form.__name__,
)
@pytest.mark.parametrize("loss", LOSSES[:4])
def test_whatever_way_a_sparse_matrix_is_stored(form: Any, loss: str) -> None:
    for density in (1.0, 0.5):
        X, y = data(3e7, density, loss)
        matrix = form(X)
        before = [array.copy() for array in (matrix.data, getattr(matrix, "indices", matrix.data))]
        model = estimator(loss).fit(matrix, y)
        after = (matrix.data, getattr(matrix, "indices", matrix.data))
        for one, other in zip(before, after, strict=True):
            np.testing.assert_array_equal(one, other)
        same(model, estimator(loss).fit(X, y), X)
        if density == 0.5:
            reweighted = estimator(loss, solver="reweighted")
            same(reweighted.fit(matrix, y), estimator(loss, solver="reweighted").fit(X, y), X)


@pytest.mark.parametrize("dtype", [np.int32, np.int64, np.float32, np.bool_])
def test_other_types_of_numbers(dtype: Any) -> None:
    rng = np.random.default_rng(2)
    X = np.round(5 * rng.normal(size=(ROWS, FEATURES)) + (0 if dtype is np.bool_ else 4096)).astype(dtype)
    y = np.asarray(X[:, 0], dtype=float) - np.asarray(X[:, 2], dtype=float) + rng.normal(size=ROWS)
    dense, sparse = (SparseRegressor("lasso", 0.01).fit(Z, y) for Z in (X, sp.csr_array(X)))
    np.testing.assert_allclose(sparse.coef_, dense.coef_, rtol=1e-5, atol=1e-6)


def test_constant_columns_far_from_zero_stay_out() -> None:
    X, y = data(0.0, 1.0, "squared")
    X[:, 1] = 1e9
    X[:, 3] = 1e9 * (1 + 2e-16 * np.arange(ROWS))  # constant but for rounding
    for Z in (X, sp.csr_array(X)):
        model = SparseRegressor("lasso", 0.01).fit(Z, y)
        assert not model.coef_[[1, 3]].any()


def test_only_columns_far_from_zero_are_copied() -> None:
    X, _ = data(0.0, 0.5, "squared")
    matrix = sp.csc_array(X)
    weights = np.full(ROWS, 1 / ROWS)
    assert Design(matrix, weights, centered=True).X is matrix
    X[:, 2] += 1e6
    matrix = sp.csc_array(X)
    assert Design(matrix, weights, centered=False).X is matrix
    moved = Design(matrix, weights, centered=True)
    assert np.count_nonzero(moved.shift) == 1
    entries = np.diff(matrix.indptr)
    np.testing.assert_array_equal(np.diff(moved.X.indptr)[[0, 1, 3, 4, 5]], entries[[0, 1, 3, 4, 5]])
    assert canonical(matrix) is matrix


@pytest.mark.parametrize("form", [np.ascontiguousarray, np.asfortranarray, sp.csr_array])
@pytest.mark.parametrize("loss", ["squared", "huber"])
def test_violations_count_columns_far_from_zero_like_others(loss: str, form: Any) -> None:
    """A loose tolerance is as loose for a column ten million deviations away as for the same column near zero."""
    rng = np.random.default_rng(3)
    X = np.where(rng.random((150, 120)) < 0.1, rng.normal(size=(150, 120)), 0.0)
    X[:, :3] = 1e7 + rng.normal(size=(150, 3))
    near = X.copy()
    near[:, :3] -= 1e7
    y = near[:, :40].sum(axis=1) + rng.normal(size=150)
    found = [sparse_path(form(Z), y, "lasso", loss=loss, alphas=[0.1, 0.03, 0.01], tol=1e-4) for Z in (near, X)]
    np.testing.assert_allclose(found[1].coefs.toarray(), found[0].coefs.toarray(), atol=1e-11)
    np.testing.assert_allclose(found[1].violations, found[0].violations, rtol=1e-3, atol=1e-11)
