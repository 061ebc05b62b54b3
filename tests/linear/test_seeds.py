"""What ``random_state`` may be."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pytest
from sklearn.base import clone

from obverse.errors import InvalidArgumentError
from obverse.linear import SparseRegressor, SparseRegressorCV


def data() -> tuple[Any, Any]:
    rng = np.random.default_rng(7)
    X = rng.normal(size=(60, 12))
    return X, X[:, 0] + 0.5 * X[:, 1] + 2 * rng.normal(size=60)


@pytest.mark.parametrize(
    "model",
    [
        SparseRegressor("lasso", 0.05, solver="dropout", max_iter=5, tol=1e-12),
        SparseRegressorCV("lasso", criterion="stability", n_alphas=5),
    ],
    ids=["dropout", "stability"],
)
def test_what_random_state_may_be(model: Any) -> None:
    torch = pytest.importorskip("torch")
    X, y = data()

    def fitted(random_state: Any) -> Any:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            done = clone(model).set_params(random_state=random_state).fit(X, y)
        return getattr(done, "selection_frequencies_", done.coef_)

    for make in (
        lambda: 3,
        lambda: np.random.RandomState(3),
        lambda: np.random.default_rng(3),
        lambda: torch.Generator().manual_seed(3),
    ):
        np.testing.assert_array_equal(fitted(make()), fitted(make()))
        one = make()
        first = fitted(one)
        if not isinstance(one, int):
            assert not np.array_equal(first, fitted(one))  # a generator moves on
    for wrong in ("3", -1, 1.5):
        with pytest.raises(InvalidArgumentError, match="random_state must be"):
            fitted(wrong)
