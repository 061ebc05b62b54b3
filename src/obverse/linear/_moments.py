"""Weighted means of columns and mean squares about them, for several sets of rows in one pass over the data."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import scipy.sparse as sp
from numba import njit

__all__ = ["Moments", "central", "column_moments"]

Floats = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]

# Columns of C-ordered data that are read at a time.
_BLOCK = 64
# Squares of columns whose peak has a larger exponent leave the range of a double.
_EXTREME = 300
# Share of its mean that a column's deviations must exceed, or they are rounding.
_NOISE = 1e-13


@njit(cache=True, nogil=True, fastmath={"contract", "reassoc"})
def _about_mean(x: Any, weights: Any, total: float) -> tuple[float, float]:
    mean, square = 0.0, 0.0
    if total > 0:
        for i in range(x.size):
            mean += weights[i] * x[i]
        mean /= total
        for i in range(x.size):
            square += weights[i] * (x[i] - mean) * (x[i] - mean)
    return mean, square


@njit(cache=True, nogil=True)
def _fortran_moments(
    X: Any, order: Any, ends: Any, weights: Any, totals: Any, mean: Any, square: Any, peak: Any
) -> None:
    """Fortran-ordered data, given as the transpose; a column stays in cache for all sets of rows."""
    columns, rows = X.shape
    several = totals.size > 1
    values = np.empty(rows if several else 0)
    for j in range(columns):
        column = X[j]
        if peak.size:
            top = 0.0
            for i in range(rows):
                top = max(top, abs(column[i]))
            peak[j] = top
        if not several:
            mean[0, j], square[0, j] = _about_mean(column, weights, totals[0])
            continue
        for i in range(rows):
            values[i] = column[order[i]]
        for k in range(totals.size):
            part = slice(ends[k], ends[k + 1])
            mean[k, j], square[k, j] = _about_mean(values[part], weights[part], totals[k])


@njit(cache=True, nogil=True, fastmath={"contract"})
def _dense_moments(X: Any, order: Any, ends: Any, weights: Any, totals: Any, mean: Any, square: Any, peak: Any) -> None:
    """C-ordered data; some columns at a time, so that the rows of a set stay in cache."""
    columns = X.shape[1]
    for start in range(0, columns, _BLOCK):
        stop = min(start + _BLOCK, columns)
        if peak.size:
            top = peak[start:stop]
            for i in range(X.shape[0]):
                x = X[i, start:stop]
                for j in range(x.size):
                    top[j] = max(top[j], abs(x[j]))
        for k in range(totals.size):
            if totals[k] <= 0:
                continue
            center, about = mean[k, start:stop], square[k, start:stop]
            for i in range(ends[k], ends[k + 1]):
                x, weight = X[order[i], start:stop], weights[i] / totals[k]
                for j in range(x.size):
                    center[j] += weight * x[j]
            for i in range(ends[k], ends[k + 1]):
                x, weight = X[order[i], start:stop], weights[i]
                for j in range(x.size):
                    about[j] += weight * (x[j] - center[j]) * (x[j] - center[j])


@njit(cache=True, nogil=True)
def _sparse_moments(
    data: Any,
    index: Any,
    pointer: Any,
    part: Any,
    sizes: Any,
    weights: Any,
    totals: Any,
    mean: Any,
    square: Any,
    peak: Any,
) -> None:
    """CSC data; ``part`` is the set that each row is in, ``weights`` are in the order of the data's rows."""
    several = totals.size > 1
    entries = np.empty(totals.size, np.int64)
    covered, center, about = np.empty(totals.size), np.empty(totals.size), np.empty(totals.size)
    for j in range(pointer.size - 1):
        covered[:], center[:], entries[:] = 0.0, 0.0, 0
        top = 0.0
        for at in range(pointer[j], pointer[j + 1]):
            row, x = index[at], data[at]
            k = part[row] if several else 0
            center[k] += weights[row] * x
            covered[k] += weights[row]
            entries[k] += 1
            top = max(top, abs(x))
        if peak.size:
            peak[j] = top
        for k in range(totals.size):
            if totals[k] > 0:
                center[k] /= totals[k]
            # Where every row has an entry, the difference would be rounding.
            absent = max(0.0, totals[k] - covered[k]) if entries[k] < sizes[k] else 0.0
            about[k] = absent * center[k] ** 2
        for at in range(pointer[j], pointer[j + 1]):
            row = index[at]
            k = part[row] if several else 0
            away = data[at] - center[k]
            about[k] += weights[row] * away * away
        mean[:, j], square[:, j] = center, about


@dataclass(frozen=True)
class Moments:
    """Moments of p columns over k sets of rows, in units of the scale.

    Attributes
    ----------
    scale : array of shape (p,)
        Powers of two.
    totals : array of shape (k,)
        Sum of the weights of each set.
    means : array of shape (k, p)
        Weighted means; 0 where the total is.
    squares : array of shape (k, p)
        Weighted sums of squared deviations from these means.
    shift : array of shape (p,) or float
        What was taken off the columns before; the noise of deviations is measured at the values as they were.
    """

    scale: Floats
    totals: Floats
    means: Floats
    squares: Floats
    shift: Floats | float = 0.0

    def joint(self, sets: npt.NDArray[np.bool_], *, centered: bool) -> tuple[Floats, Floats]:
        """Mean, and mean square about it or about zero, of every column over some of the sets together.

        With totals W_k, means m_k and squared deviations S_k the mean square about the joint mean m is
        ``sum_k S_k + W_k (m_k - m)^2`` over the sum of W_k: no difference is taken. It is 0 where a column is constant
        but for rounding.
        """
        weights, means = self.totals[sets], self.means[sets]
        total = float(weights.sum()) or 1.0
        mean = weights @ means / total
        square = (self.squares[sets].sum(axis=0) + weights @ (means - mean) ** 2) / total
        noise = _NOISE * np.abs(mean + self.shift)
        square[square <= noise * noise] = 0.0
        return mean, square if centered else square + mean**2

    def central(self) -> Floats:
        """The median of the sets' means, (p,)."""
        return central(self.means[self.totals > 0])


def central(means: Floats) -> Floats:
    """Of every column the median, one of the numbers themselves."""
    place = (means.shape[0] - 1) // 2
    return np.asarray(np.partition(means, place, axis=0)[place])


def column_moments(
    X: Any, weights: Floats, *, scale: Floats | None = None, order: Integers | None = None, ends: Any = None
) -> Moments:
    """Moments of every column over sets of rows.

    Parameters
    ----------
    X : C- or Fortran-ordered array, or CSC matrix, of shape (n, p)
        float32 or float64; neither copied nor changed.
    weights : array of shape (n,)
        At least 0.
    scale : array of shape (p,), optional
        By default the powers of two that bring the largest entry of each column near 1.
    order : integer array of shape (n,), optional
        Rows in an order in which every set is a slice; by default there is one set.
    ends : integer sequence of shape (k + 1,)
        With ``order``: set number i is ``order[ends[i]:ends[i + 1]]``.

    Notes
    -----
    Means come first and deviations from them second, while the column is in cache, so that nothing cancels, and what
    is found for one set does not depend on the other rows.
    """
    is_sparse = bool(sp.issparse(X))
    rows, columns = X.shape
    if order is None:
        order, ends, ordered = np.arange(rows), np.array([0, rows]), weights
    else:
        order, ends, ordered = np.asarray(order), np.asarray(ends, dtype=np.int64), weights[order]
    totals = np.array([float(ordered[a:b].sum()) for a, b in itertools.pairwise(ends)])
    means, squares = np.zeros((2, totals.size, columns))
    peak = np.zeros(columns if scale is None else 0)
    with np.errstate(all="ignore"):
        if is_sparse:
            part = np.empty(rows, np.int64)
            part[order] = np.repeat(np.arange(totals.size), np.diff(ends))
            sizes = np.diff(ends)
            _sparse_moments(X.data, X.indices, X.indptr, part, sizes, weights, totals, means, squares, peak)
        elif X.flags.f_contiguous:
            _fortran_moments(X.T, order, ends, ordered, totals, means, squares, peak)
        else:
            _dense_moments(X, order, ends, ordered, totals, means, squares, peak)
        if scale is None:
            scale = np.where(peak > 0, np.ldexp(1.0, np.frexp(peak)[1]), 1.0)
        means /= scale
        squares /= scale
        squares /= scale
    extreme = np.flatnonzero(np.abs(np.frexp(scale)[1]) > _EXTREME)
    if extreme.size:
        chosen: Any
        if is_sparse:
            chosen = sp.csc_array(X[:, extreme]).multiply(1 / scale[extreme]).tocsc()
        else:
            chosen = np.ascontiguousarray(X[:, extreme] / scale[extreme])
        again = column_moments(chosen, weights, scale=np.ones(extreme.size), order=order, ends=ends)
        means[:, extreme], squares[:, extreme] = again.means, again.squares
    return Moments(scale, totals, means, squares)
