"""The problems that are timed: three drawn at random and three from scikit-learn's data.

All are without intercept, so that every solver is given exactly the same problem: dense columns are centered, all are
scaled to mean square 1, and y so that the largest gradient at zero, the largest alpha of the lasso, is 1.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt
import scipy.sparse as sp

__all__ = ["NAMES", "Problem", "correlated", "load", "normalized"]

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Problem:
    """Data of a linear model: X dense in Fortran order or CSC, and y."""

    name: str
    X: Any
    y: Floats

    @property
    def is_sparse(self) -> bool:
        return bool(sp.issparse(self.X))


NAMES = {
    "a": "dense 1000 x 5000, correlation 0.5",
    "b": "dense 5000 x 1000, correlation 0.5",
    "c": "sparse 20000 x 100000, density 1e-3",
    "diabetes": "diabetes, polynomials of degree 4",
    "digits": "digits, 8 against the rest, polynomials of degree 2",
    "breast": "breast cancer, polynomials of degree 2",
}


@lru_cache(maxsize=1)
def load(name: str) -> Problem:
    """A problem by its short name; the last one is kept."""
    if name == "a":
        return normalized(name, *correlated(1000, 5000, 50, 0.5, 3.0, seed=0)[:2])
    if name == "b":
        return normalized(name, *correlated(5000, 1000, 50, 0.5, 3.0, seed=1)[:2])
    if name == "c":
        return normalized(name, *_zipf(20_000, 100_000, 1e-3, 50, 3.0, seed=2))
    return normalized(name, *_polynomials(name))


def correlated(
    n: int, p: int, k: int, rho: float, snr: float, seed: int, spread: float = 1.0
) -> tuple[Floats, Floats, Floats, float]:
    """Rows of an autoregressive process, k coefficients of size 1/2 to 3/2 at random places: X, y, truth, noise.

    ``snr`` is the variance of the signal over that of the noise; ``spread`` 0 gives coefficients of size 1.
    """
    random = np.random.default_rng(seed)
    X = random.standard_normal((p, n))
    for j in range(1, p):
        X[j] = rho * X[j - 1] + np.sqrt(1 - rho * rho) * X[j]
    X = X.T
    truth = np.zeros(p)
    places = random.choice(p, k, replace=False)
    truth[places] = random.choice([-1.0, 1.0], k) * (1 + spread * random.uniform(-0.5, 0.5, k))
    signal = X[:, places] @ truth[places]
    noise = float(np.sqrt(signal.var() / snr))
    return X, signal + noise * random.standard_normal(n), truth, noise


def normalized(name: str, X: Any, y: Floats) -> Problem:
    """Columns of mean square 1, centered where dense; y such that the largest gradient at zero is 1."""
    n = X.shape[0]
    if sp.issparse(X):
        X = sp.csc_matrix(X)
        size = np.sqrt(np.asarray(X.multiply(X).sum(axis=0)).ravel() / n)
        X.data /= np.repeat(size, np.diff(X.indptr))
    else:
        X = np.asfortranarray(X, dtype=np.float64)
        X -= X.mean(axis=0)
        size = np.sqrt((X * X).mean(axis=0))
        kept = size > 1e-10 * size.max()
        X = np.asfortranarray(X[:, kept] / size[kept])
        y = y - y.mean()
    return Problem(name, X, np.ascontiguousarray(y / np.abs(X.T @ y / n).max()))


def _zipf(n: int, p: int, density: float, k: int, snr: float, seed: int) -> tuple[Any, Floats]:
    """Columns whose number of entries falls as the inverse of their rank, from at most half of the rows to two."""
    random = np.random.default_rng(seed)
    low, high = 0.0, float(n * p)
    for _ in range(60):
        middle = (low + high) / 2
        counts = np.clip(middle / np.arange(1, p + 1), 2, n // 2).astype(np.int64)
        low, high = (middle, high) if counts.sum() < density * n * p else (low, middle)
    pointer = np.concatenate([[0], np.cumsum(counts)])
    index = np.concatenate([np.sort(random.choice(n, count, replace=False)) for count in counts]).astype(np.int32)
    X = sp.csc_matrix((random.standard_normal(index.size), index, pointer.astype(np.int32)), shape=(n, p))
    size = np.sqrt(np.asarray(X.multiply(X).sum(axis=0)).ravel() / n)
    truth = np.zeros(p)
    places = random.choice(p // 10, k, replace=False)
    truth[places] = random.choice([-1.0, 1.0], k) * random.uniform(0.5, 1.5, k) / size[places]
    signal = X @ truth
    return X, signal + np.sqrt(signal.var() / snr) * random.standard_normal(n)


def _polynomials(name: str) -> tuple[Floats, Floats]:
    from sklearn import datasets
    from sklearn.preprocessing import PolynomialFeatures

    if name == "diabetes":
        X, y = datasets.load_diabetes(return_X_y=True)
        degree = 4
    elif name == "digits":
        X, y = datasets.load_digits(return_X_y=True)
        y, degree = (y == 8).astype(np.float64), 2
    else:
        X, y = datasets.load_breast_cancer(return_X_y=True)
        degree = 2
    # Standardized before the powers are taken, without which these are nearly collinear.
    X = (X - X.mean(axis=0)) / np.where(X.std(axis=0) > 0, X.std(axis=0), 1.0)
    return PolynomialFeatures(degree, include_bias=False).fit_transform(X), np.asarray(y, dtype=np.float64)
