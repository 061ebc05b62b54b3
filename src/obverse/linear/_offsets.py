"""Columns that lie far from zero, stored as deviations from a reference value.

Centering in the algebra subtracts products of means from products of columns. Where a column is stored in nearly every
row and its mean is large beside its spread, that difference is rounding. Such a column is filled up and a reference
value is taken off its entries, so that its mean is small; it needs as much memory as a dense column. With an intercept
the model is the same, and the intercept takes the reference back.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import scipy.sparse as sp
from numba import njit

from ._moments import Moments

if TYPE_CHECKING:
    from ._working_set import Folds

__all__ = ["FAR", "VERY_FAR", "canonical", "far_columns", "without_offsets"]

Floats = npt.NDArray[np.float64]

# Squared mean relative to the mean square about it, from which digits of products are missed.
FAR = 1e4
# The same, from which a dense column's own part of the violation is lost beside that of other columns.
VERY_FAR = 1e8


def canonical(X: Any) -> Any:
    """A CSC matrix with sorted rows and one entry at a place: duplicates added up, in a copy where there are any."""
    is_sparse: bool = sp.issparse(X)
    if is_sparse and not X.has_canonical_format:
        X = X.copy()
        X.sum_duplicates()
    return X


def far_columns(moments: Moments, folds: Folds | None, limit: float = FAR) -> npt.NDArray[np.bool_]:
    """Which columns lie far from zero, over all rows or over the rows that a fold is trained on, (p,).

    Parameters
    ----------
    moments : Moments
    folds : Folds, optional
    limit : float
        Squared mean relative to the mean square about it.
    """
    sets = np.ones((1, moments.totals.size), np.bool_)
    if folds is not None and not folds.is_trivial:
        sets = np.concatenate([sets, ~np.eye(len(folds.held), moments.totals.size, dtype=np.bool_)])
    far = np.zeros(moments.scale.size, np.bool_)
    for some in sets:
        mean, square = moments.joint(some, centered=True)
        far |= (square > 0) & (mean * mean > limit * square)
    return far


def without_offsets(X: Any, far: npt.NDArray[np.bool_], reference: Floats) -> Any:
    """A copy of X less the ``reference`` (p,), 0 for all but the ``far`` columns; sparse ones of them are filled."""
    is_sparse: bool = sp.issparse(X)
    if not is_sparse:
        return np.asfortranarray(X - reference)
    rows = X.shape[0]
    sizes = np.where(far, rows, np.diff(X.indptr))
    pointer = np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)
    index = np.empty(int(pointer[-1]), X.indices.dtype)
    data = np.empty(int(pointer[-1]))
    _fill(X.data, X.indices, X.indptr, far, reference, pointer, index, data)
    small = pointer[-1] <= np.iinfo(X.indptr.dtype).max
    return sp.csc_array((data, index, pointer.astype(X.indptr.dtype) if small else pointer), shape=X.shape)


@njit(cache=True, nogil=True)
def _fill(data: Any, rows: Any, pointer: Any, far: Any, reference: Any, starts: Any, index: Any, out: Any) -> None:
    for j in range(far.size):
        first = starts[j]
        if far[j]:
            for i in range(starts[j + 1] - first):
                index[first + i], out[first + i] = i, -reference[j]
            for at in range(pointer[j], pointer[j + 1]):
                out[first + rows[at]] = data[at] - reference[j]
        else:
            for k in range(pointer[j + 1] - pointer[j]):
                index[first + k], out[first + k] = rows[pointer[j] + k], data[pointer[j] + k]
