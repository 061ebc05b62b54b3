"""The data of a linear model, centered and scaled in the algebra, never as a copy."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import scipy.sparse as sp

from ..errors import InvalidArgumentError
from ._moments import Moments, column_moments
from ._offsets import FAR, VERY_FAR, far_columns, without_offsets
from ._products import by_columns, by_rows, by_sparse_columns

if TYPE_CHECKING:
    from ._working_set import Folds

__all__ = ["Design"]

Floats = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]

# Exponents of two of a column's scale beyond which a coefficient has no number, and beyond which its square has none.
_WIDEST, _WIDE = 1000, 505


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
        Whether columns are centered, as an intercept asks for.
    folds : Folds, optional
        Sets of rows to be held out; their moments are kept apart.
    exact : bool
        Whether dense columns that lie a hundred deviations from zero are copied as deviations, as sparse ones are in
        any case; otherwise only those ten thousand deviations away. Solvers that multiply by whole columns again and
        again lose digits sooner.

    Attributes
    ----------
    moments : Moments
        Of the rows that each fold holds out, and of the rest.
    mean, spread : arrays of shape (p,)
        Weighted mean, and mean square about the mean if columns are centered, in scaled units; 0 where a column that
        is centered does not vary.
    center : array of shape (p,)
        What is taken off columns: the mean, or with folds the median of the means of the rows they hold out, which is
        near the mean of all training rows but those that include far outliers. Others would lose digits to these.
    shift : array of shape (p,)
        What was taken off columns that lie far from zero, in scaled units; 0 for all others.
    passes : float
        Products with all of X so far, in columns of the right-hand side.
    """

    def __init__(
        self, X: Any, weights: Floats, *, centered: bool, folds: Folds | None = None, exact: bool = False
    ) -> None:
        self.is_sparse = sp.issparse(X)
        if not (self.is_sparse or X.flags.c_contiguous or X.flags.f_contiguous):
            X = np.asfortranarray(X)
        self.X = X
        self.weights = weights
        self.rows, self.columns = X.shape
        self.centered = centered
        self.moments = self._moments_of(folds)
        self.shift = np.zeros(self.columns)
        if centered:
            self._remove_offsets(folds, FAR if self.is_sparse or exact else VERY_FAR)
        self.scale = self.moments.scale
        self.mean, self.spread = self.moments.joint(np.ones(self.moments.totals.size, np.bool_), centered=centered)
        self.center = self.moments.central() if centered else np.zeros(self.columns)
        self.passes = 0.0

    def _moments_of(self, folds: Folds | None) -> Moments:
        order = None if folds is None or folds.is_trivial else folds.order
        return column_moments(self.X, self.weights, order=order, ends=None if folds is None else folds.ends)

    def _remove_offsets(self, folds: Folds | None, limit: float) -> None:
        """Put deviations in the place of columns that lie far from zero."""
        far = far_columns(self.moments, folds, limit)
        if not far.any():
            return
        reference = np.where(far, self.moments.central() * self.moments.scale, 0.0)
        self.X = without_offsets(self.X, far, reference)
        moments = self._moments_of(folds)
        self.shift = reference / moments.scale
        self.moments = replace(moments, shift=self.shift)

    def require_range(self, *, standardize: bool) -> None:
        """Raise where no alpha can compare the columns: their coefficients, or the squares of these, have no number.

        Beside columns of moderate size the penalty of a huge one is nothing, and a tiny one stays out, as it should.

        Raises
        ------
        InvalidArgumentError
        """
        varies = self.spread > 0
        extreme = np.abs(np.frexp(self.scale)[1]) > (_WIDEST if standardize else _WIDE)
        if varies.any() and extreme[varies].all():
            size = float(self.scale[np.flatnonzero(varies)[0]])
            way = "" if standardize else ", or take standardize=True"
            raise InvalidArgumentError(
                f"all features have numbers such as {size:.1g}, too far from 1 for a penalty on their coefficients; "
                f"give them in another unit{way}"
            )

    def squares(self, c: Floats) -> Floats:
        """``sum_i c_i x_ij^2`` of every column, about its mean under the same weights where columns are centered."""
        moments = column_moments(self.X, c, scale=self.scale)
        [mean], [square] = moments.means, moments.squares
        return np.asarray(square if self.centered else square + moments.totals[0] * mean**2)

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

    def origin(self, index: Integers) -> Floats:
        """What coefficients of the columns of ``index`` take off the intercept, each per unit, in scaled units."""
        return self.center[index] + self.shift[index]

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
