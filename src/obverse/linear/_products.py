"""Products of chosen columns of the data with a few vectors, compiled.

BLAS multiplies thin matrices at a fraction of the speed of memory, and only whole ones. These read each chosen column
once for four vectors, and add up in double precision whatever the data's own.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit

__all__ = ["by_columns", "by_rows", "by_sparse_columns"]

# Vectors of so many rows stay in the first cache, four at a time.
_ROWS = 1024
_COLUMNS = 1024


@njit(cache=True, nogil=True, fastmath={"contract", "reassoc"})
def _four(data: Any, index: Any, first: Any, second: Any, third: Any, fourth: Any, out: Any, m: int) -> None:
    rows = data.shape[1]
    for start in range(0, rows, _ROWS):
        stop = min(rows, start + _ROWS)
        r0, r1, r2, r3 = first[start:stop], second[start:stop], third[start:stop], fourth[start:stop]
        for q in range(0, index.size - 1, 2):
            # Two columns at once halve what is read of the vectors.
            x, y = data[index[q], start:stop], data[index[q + 1], start:stop]
            a, b, c, d, e, f, g, h = 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0
            for i in range(stop - start):
                v, w = x[i], y[i]
                a += v * r0[i]
                b += v * r1[i]
                c += v * r2[i]
                d += v * r3[i]
                e += w * r0[i]
                f += w * r1[i]
                g += w * r2[i]
                h += w * r3[i]
            out[q, m] += a
            out[q, m + 1] += b
            out[q, m + 2] += c
            out[q, m + 3] += d
            out[q + 1, m] += e
            out[q + 1, m + 1] += f
            out[q + 1, m + 2] += g
            out[q + 1, m + 3] += h
        if index.size % 2 == 1:
            q = index.size - 1
            x = data[index[q], start:stop]
            a, b, c, d = 0.0, 0.0, 0.0, 0.0
            for i in range(stop - start):
                a += x[i] * r0[i]
                b += x[i] * r1[i]
                c += x[i] * r2[i]
                d += x[i] * r3[i]
            out[q, m] += a
            out[q, m + 1] += b
            out[q, m + 2] += c
            out[q, m + 3] += d


@njit(cache=True, nogil=True, fastmath={"contract", "reassoc"})
def _one(data: Any, index: Any, vector: Any, out: Any, m: int) -> None:
    rows = data.shape[1]
    whole = index.size // 4 * 4
    for start in range(0, rows, 2 * _ROWS):
        stop = min(rows, start + 2 * _ROWS)
        r = vector[start:stop]
        for q in range(0, whole, 4):
            x, y = data[index[q], start:stop], data[index[q + 1], start:stop]
            z, w = data[index[q + 2], start:stop], data[index[q + 3], start:stop]
            a, b, c, d = 0.0, 0.0, 0.0, 0.0
            for i in range(stop - start):
                a += x[i] * r[i]
                b += y[i] * r[i]
                c += z[i] * r[i]
                d += w[i] * r[i]
            out[q, m] += a
            out[q + 1, m] += b
            out[q + 2, m] += c
            out[q + 3, m] += d
        for q in range(whole, index.size):
            x = data[index[q], start:stop]
            a = 0.0
            for i in range(stop - start):
                a += x[i] * r[i]
            out[q, m] += a


@njit(cache=True, nogil=True)
def by_columns(data: Any, index: Any, vectors: Any) -> Any:
    """``data[index] @ vectors.T`` for Fortran-ordered features given as their transpose.

    ``data`` (p, n), ``index`` (k,), ``vectors`` (m, n), all C-ordered; the result is (k, m).
    """
    out = np.zeros((index.size, vectors.shape[0]))
    m = 0
    while m + 4 <= vectors.shape[0]:
        _four(data, index, vectors[m], vectors[m + 1], vectors[m + 2], vectors[m + 3], out, m)
        m += 4
    while m < vectors.shape[0]:
        _one(data, index, vectors[m], out, m)
        m += 1
    return out


@njit(cache=True, nogil=True, fastmath={"contract", "reassoc"})
def by_rows(data: Any, vectors: Any) -> Any:
    """``data.T @ vectors`` for C-ordered features, (n, p) and (n, m); the result is (m, p)."""
    rows, columns = data.shape
    count = vectors.shape[1]
    out = np.zeros((count, columns))
    for start in range(0, columns, _COLUMNS):
        stop = min(columns, start + _COLUMNS)
        width = stop - start
        m = 0
        while m + 4 <= count:
            o0, o1, o2, o3 = (
                out[m, start:stop],
                out[m + 1, start:stop],
                out[m + 2, start:stop],
                out[m + 3, start:stop],
            )
            for i in range(0, rows - 1, 2):
                x, y = data[i, start:stop], data[i + 1, start:stop]
                a, b, c, d = vectors[i, m], vectors[i, m + 1], vectors[i, m + 2], vectors[i, m + 3]
                e, f, g, h = vectors[i + 1, m], vectors[i + 1, m + 1], vectors[i + 1, m + 2], vectors[i + 1, m + 3]
                for j in range(width):
                    v, w = x[j], y[j]
                    o0[j] += a * v + e * w
                    o1[j] += b * v + f * w
                    o2[j] += c * v + g * w
                    o3[j] += d * v + h * w
            if rows % 2 == 1:
                x = data[rows - 1, start:stop]
                a, b, c, d = (
                    vectors[rows - 1, m],
                    vectors[rows - 1, m + 1],
                    vectors[rows - 1, m + 2],
                    vectors[rows - 1, m + 3],
                )
                for j in range(width):
                    o0[j] += a * x[j]
                    o1[j] += b * x[j]
                    o2[j] += c * x[j]
                    o3[j] += d * x[j]
            m += 4
        while m < count:
            o0 = out[m, start:stop]
            for i in range(rows):
                x, a = data[i, start:stop], vectors[i, m]
                for j in range(width):
                    o0[j] += a * x[j]
            m += 1
    return out


@njit(cache=True, nogil=True)
def by_sparse_columns(data: Any, rows: Any, pointer: Any, index: Any, vectors: Any) -> Any:
    """``columns.T @ vectors`` for the columns of ``index`` of a CSC matrix, (n, m) to (k, m)."""
    count = vectors.shape[1]
    out = np.zeros((index.size, count))
    for q in range(index.size):
        j = index[q]
        m = 0
        while m + 4 <= count:
            a, b, c, d = 0.0, 0.0, 0.0, 0.0
            for k in range(pointer[j], pointer[j + 1]):
                v, i = data[k], rows[k]
                a += v * vectors[i, m]
                b += v * vectors[i, m + 1]
                c += v * vectors[i, m + 2]
                d += v * vectors[i, m + 3]
            out[q, m], out[q, m + 1], out[q, m + 2], out[q, m + 3] = a, b, c, d
            m += 4
        while m < count:
            total = 0.0
            for k in range(pointer[j], pointer[j + 1]):
                total += data[k] * vectors[rows[k], m]
            out[q, m] = total
            m += 1
    return out
