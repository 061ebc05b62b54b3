"""The data of a linear model, centered and scaled in the algebra, never as a copy."""

from __future__ import annotations

from typing import Any, cast

import numpy as np
import numpy.typing as npt
import scipy.sparse as sp
from numba import njit

from ._products import by_columns, by_rows, by_sparse_columns

__all__ = ["Design"]

Floats = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]


@njit(cache=True, nogil=True)
def _dense_moments(X: Any, weights: Any, mean: Any, square: Any, peak: Any) -> None:
    """Weighted mean and mean square about it of every column, and its largest magnitude; one column at a time."""
    rows, columns = X.shape
    block = 16  # columns at a time, so that rows of C-ordered data are read in whole cache lines
    for start in range(0, columns, block):
        stop = min(start + block, columns)
        for i in range(rows):
            for j in range(start, stop):
                mean[j] += weights[i] * X[i, j]
                peak[j] = max(peak[j], abs(X[i, j]))
        for i in range(rows):
            for j in range(start, stop):
                square[j] += weights[i] * (X[i, j] - mean[j]) * (X[i, j] - mean[j])


@njit(cache=True, nogil=True, fastmath={"contract", "reassoc"})
def _fortran_moments(X: Any, weights: Any, mean: Any, square: Any, peak: Any) -> None:
    """The same for Fortran-ordered data, given as the transpose."""
    columns, rows = X.shape
    for j in range(columns):
        column = X[j]
        total, top = 0.0, 0.0
        for i in range(rows):
            total += weights[i] * column[i]
        for i in range(rows):
            top = max(top, abs(column[i]))
        mean[j], peak[j] = total, top
        about = 0.0
        for i in range(rows):
            about += weights[i] * (column[i] - total) * (column[i] - total)
        square[j] = about


@njit(cache=True, nogil=True)
def _sparse_moments(data: Any, index: Any, pointer: Any, weights: Any, mean: Any, square: Any, peak: Any) -> None:
    for j in range(pointer.size - 1):
        covered = 0.0
        for k in range(pointer[j], pointer[j + 1]):
            mean[j] += weights[index[k]] * data[k]
            covered += weights[index[k]]
            peak[j] = max(peak[j], abs(data[k]))
        for k in range(pointer[j], pointer[j + 1]):
            square[j] += weights[index[k]] * (data[k] - mean[j]) ** 2
        square[j] += max(0.0, 1 - covered) * mean[j] ** 2


class Design:
    """Features with weights of the rows.

    The model works with columns ``(X[:, j] - center[j]) / scale[j]``; the scale is a power of two, so that scaling
    rounds nothing, and brings the largest entry near 1.

    Parameters
    ----------
    X : dense array or CSC matrix of shape (n, p)
        float32 or float64, finite.
    weights : array of shape (n,)
        At least 0, of sum 1.
    centered : bool
        Whether columns are centered at their weighted means, as an intercept asks for.

    Attributes
    ----------
    mean, spread : arrays of shape (p,)
        Weighted mean and mean square about the center, in scaled units.
    passes : float
        Products with all of X so far, in columns of the right-hand side.
    """

    def __init__(self, X: Any, weights: Floats, *, centered: bool) -> None:
        self.is_sparse = sp.issparse(X)
        if not (self.is_sparse or X.flags.c_contiguous or X.flags.f_contiguous):
            X = np.asfortranarray(X)
        self.X = X
        self.weights = weights
        self.rows, self.columns = X.shape
        mean, square, peak = (np.zeros(self.columns) for _ in range(3))
        with np.errstate(all="ignore"):
            self._moments(X, weights, mean, square, peak)
            exponent = np.frexp(peak)[1]
            self.scale = np.where(peak > 0, np.ldexp(1.0, exponent), 1.0)
            extreme = np.flatnonzero((np.abs(exponent) > 300) & (peak > 0))
            square /= self.scale
            square /= self.scale
        if extreme.size:
            # Squares of such columns leave the range of a double.
            part = (
                sp.csc_array(X[:, extreme]).multiply(1 / self.scale[extreme]).tocsc()
                if self.is_sparse
                else (np.ascontiguousarray(X[:, extreme] / self.scale[extreme]))
            )
            inner = [np.zeros(extreme.size) for _ in range(3)]
            self._moments(part, weights, *inner)
            mean[extreme], square[extreme] = inner[0] * self.scale[extreme], inner[1]
        self.mean = mean / self.scale
        # A column that does not vary about its mean but for rounding is constant.
        noise = 1e-13 * np.abs(self.mean)
        square[square <= noise * noise] = 0.0
        self.center = self.mean.copy() if centered else np.zeros(self.columns)
        self.spread = square if centered else square + self.mean**2
        self.passes = 0.0

    @staticmethod
    def _moments(X: Any, weights: Floats, mean: Floats, square: Floats, peak: Floats) -> None:
        if sp.issparse(X):
            X = cast(Any, X)
            _sparse_moments(X.data, X.indices, X.indptr, weights, mean, square, peak)
        elif X.flags.f_contiguous:
            _fortran_moments(X.T, weights, mean, square, peak)
        else:
            _dense_moments(X, weights, mean, square, peak)

    def correlate(self, residuals: Floats, index: Integers | None = None) -> Floats:
        """``columns' residuals``: (n,) or (n, m) gives (p,) or (p, m), or one row for each column of ``index``."""
        right = residuals if residuals.ndim == 2 else residuals[:, None]
        chosen = np.arange(self.columns) if index is None else index
        self.passes += right.shape[1] * chosen.size / max(1, self.columns)
        product: Floats
        if self.is_sparse:
            product = by_sparse_columns(self.X.data, self.X.indices, self.X.indptr, chosen, np.ascontiguousarray(right))
        elif self.X.flags.f_contiguous:
            product = by_columns(self.X.T, chosen, np.ascontiguousarray(right.T))
        else:
            product = by_rows(self.X if index is None else self.X[:, index], np.ascontiguousarray(right)).T
        total = right.sum(axis=0)
        product = product / self.scale[chosen, None]
        if np.any(total != 0):
            product -= self.center[chosen, None] * total
        return product if residuals.ndim == 2 else product[:, 0]

    def dense(self, index: Integers) -> Floats:
        """The columns of ``index``, centered and scaled, Fortran-ordered (n, m)."""
        block = self.X[:, index]
        block = block.toarray(order="F") if self.is_sparse else block
        result = np.asfortranarray(block, dtype=np.float64)
        if result is block and not self.is_sparse and np.shares_memory(result, self.X):
            result = result.copy(order="F")
        result /= self.scale[index]
        if self.center[index].any():
            result -= self.center[index]
        return result
