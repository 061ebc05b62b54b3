"""Weighted ridge problems, each solved exactly, in as many unknowns as there are columns or rows: the fewer."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import scipy.linalg as sl
import scipy.sparse as sp

from ._design import Design

__all__ = ["Tikhonov", "forward"]

Floats = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]

# Columns that are read at a time.
_BLOCK = 512
# Below this share of its mean square, a diagonal is not inverted when the unknowns are the rows.
_LEAST = 1e-8


def forward(design: Design, index: Integers, v: Floats) -> Floats:
    """The centered and scaled columns of ``index`` times ``v``, in float64: (n,)."""
    if index.size == design.columns:
        product = design.X @ (v / design.scale)
    else:
        product = design.X[:, index] @ (v / design.scale[index])
    result: Floats = np.asarray(product, dtype=np.float64) - float(design.center[index] @ v)
    return result


class Tikhonov:
    """Solves ``min over (v, b) of 1/2 sum_i c_i (z_i - x_i v - b)^2 + push'v + 1/2 sum_j t_j v_j^2``.

    Parameters
    ----------
    design : Design
    intercept : bool
        Whether there is a b.
    constant : bool
        Whether the weights of the rows are the same every time, so that products of columns are kept.
    """

    def __init__(self, design: Design, *, intercept: bool, constant: bool) -> None:
        self.design, self.intercept, self.constant = design, intercept, constant
        self._index: Integers = np.zeros(0, np.int64)
        self._gram: Floats = np.zeros((0, 0))

    def solve(
        self, index: Integers, c: Floats, gradient: Floats, push: Floats, t: Floats, gram: Floats
    ) -> tuple[Floats, float] | None:
        """The minimizer (v, b) over the columns of ``index``; None where the matrix is not positive definite.

        Parameters
        ----------
        index : integer array of shape (k,)
        c, gradient : arrays of shape (n,)
            Weights, and ``-c_i z_i``, which is the derivative of the loss.
        push, t, gram : arrays of shape (k,)
            ``gram`` are the columns' mean squares under the weights, which set the scale of t.
        """
        if index.size <= self.design.rows:
            return self._by_columns(index, c, gradient, push, t)
        return self._by_rows(index, c, gradient, push, t, gram)

    # ------------------------------------------------------------------ as many unknowns as columns
    def _by_columns(
        self, index: Integers, c: Floats, gradient: Floats, push: Floats, t: Floats
    ) -> tuple[Floats, float] | None:
        k = index.size
        matrix = np.zeros((k + self.intercept, k + self.intercept))
        matrix[:k, :k] = self._products(index, c)
        matrix[np.arange(k), np.arange(k)] += t
        right = np.empty(k + self.intercept)
        right[:k] = -self._correlate(index, gradient) - push
        if self.intercept:
            matrix[:k, k] = matrix[k, :k] = self._correlate(index, c)
            matrix[k, k] = c.sum()
            right[k] = -gradient.sum()
        solution = _positive_solve(matrix, right)
        if solution is None:
            return None
        return solution[:k], float(solution[k]) if self.intercept else 0.0

    def _correlate(self, index: Integers, rows: Floats) -> Floats:
        if index.size == self.design.columns:
            return self.design.correlate(rows)
        product = np.asarray(self.design.X[:, index].T @ rows, dtype=np.float64) / self.design.scale[index]
        result: Floats = product - self.design.center[index] * rows.sum()
        return result

    def _products(self, index: Integers, c: Floats) -> Floats:
        """``sum_i c_i x_i x_i'``; cut from those of more columns where these are known."""
        if self.constant and self._index.size >= index.size:
            place = np.minimum(np.searchsorted(self._index, index), self._index.size - 1)
            if index.size and np.array_equal(self._index[place], index):
                return np.array(self._gram[np.ix_(place, place)])
        if self.design.is_sparse:
            columns: Any = sp.csc_array(self.design.X[:, index], dtype=np.float64)
            columns = columns.multiply(1 / self.design.scale[index]).tocsc()
            result = (columns.T @ columns.multiply(c[:, None])).toarray()
            center, sums = self.design.center[index], np.asarray(columns.T @ c)
            result -= np.outer(center, sums) + np.outer(sums - center * c.sum(), center)
        else:
            dense = self.design.dense(index) * np.sqrt(c)[:, None]
            result = dense.T @ dense
        if self.constant:
            self._index, self._gram = index.copy(), result
        return np.array(result)

    # ------------------------------------------------------------------ as many unknowns as rows
    def _by_rows(
        self, index: Integers, c: Floats, gradient: Floats, push: Floats, t: Floats, gram: Floats
    ) -> tuple[Floats, float] | None:
        """By Woodbury's identity; columns whose t is too small to be inverted are bordered to the matrix.

        With A = sqrt(c) X, rho = sqrt(c) z - A v: the columns with a t obey t v = A'rho - push, and what remains is
        ``(I + A A'/t) rho + B v_B = sqrt(c) z + A push/t`` with ``B' rho - t_B v_B = push_B`` for the bordered ones B.
        """
        root = np.sqrt(c)
        border = t < _LEAST * gram
        if int(border.sum()) > self.design.rows // 2:
            if (t < 0).any():
                return None
            # Too many of them: a little more t, as a proximal term would add.
            t = np.maximum(t, _LEAST * np.maximum(gram, 1e-300))
            border = np.zeros(t.size, np.bool_)
        inner, inverse = index[~border], 1 / t[~border]
        matrix = self._outer(inner, inverse)
        matrix *= root[:, None] * root
        matrix[np.diag_indices_from(matrix)] += 1.0
        try:
            factor = sl.cho_factor(matrix, lower=True, overwrite_a=True, check_finite=False)
        except np.linalg.LinAlgError:  # beyond what doubles resolve
            return None
        with np.errstate(divide="ignore", invalid="ignore"):
            target = np.where(c > 0, -gradient / root, 0.0)
        target = target + root * forward(self.design, inner, push[~border] * inverse)
        sides = self.design.dense(index[border]) * root[:, None]
        if self.intercept:
            sides = np.concatenate([sides, root[:, None]], axis=1)
        rho = sl.cho_solve(factor, target, check_finite=False)
        bordered = np.zeros(0)
        if sides.shape[1]:
            through = sl.cho_solve(factor, sides, check_finite=False)
            schur, right = sides.T @ through, through.T @ target
            count = int(border.sum())
            schur[np.arange(count), np.arange(count)] += t[border]
            right[:count] -= push[border]
            solution = _positive_solve((schur + schur.T) / 2, right)
            if solution is None:
                return None
            bordered = solution
            rho -= through @ bordered
        v = np.empty(index.size)
        v[~border] = (self._correlate(index, root * rho)[~border] - push[~border]) * inverse
        v[border] = bordered[: int(border.sum())]
        return v, float(bordered[-1]) if self.intercept else 0.0

    def _outer(self, index: Integers, inverse: Floats) -> Floats:
        """``sum_j x_j x_j' inverse_j``, (n, n)."""
        rows = self.design.rows
        result = np.zeros((rows, rows))
        for start in range(0, index.size, _BLOCK):
            part, scale = index[start : start + _BLOCK], inverse[start : start + _BLOCK]
            if self.design.is_sparse:
                columns: Any = sp.csc_array(self.design.X[:, part], dtype=np.float64)
                columns = columns.multiply(1 / self.design.scale[part]).tocsc()
                result += (columns.multiply(scale) @ columns.T).toarray()
                center = self.design.center[part]
                side = np.asarray(columns @ (scale * center))
                result += float(center @ (scale * center)) - side[:, None] - side
            else:
                dense = self.design.dense(part) * np.sqrt(scale)
                result += dense @ dense.T
        return result


def _positive_solve(matrix: Floats, right: Floats) -> Floats | None:
    """By Cholesky of the matrix scaled to a unit diagonal; None where it is not positive definite."""
    diagonal = np.diagonal(matrix)
    if not (diagonal > 0).all() or not np.isfinite(diagonal).all():
        return None
    scale = 1 / np.sqrt(diagonal)
    try:
        factor = sl.cho_factor(matrix * scale[:, None] * scale, lower=True, overwrite_a=True, check_finite=False)
    except np.linalg.LinAlgError:
        return None
    # A pivot that is mere rounding says that columns depend on each other.
    if right.size and float(np.abs(np.diagonal(factor[0])).min()) < 1e-7:
        return None
    solution: Floats = scale * sl.cho_solve(factor, scale * right, check_finite=False)
    return solution if np.isfinite(solution).all() else None
