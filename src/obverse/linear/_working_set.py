"""Columns that take part in the solution, with their Gram matrices for all folds at once."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import numpy.typing as npt
import scipy.sparse as sp

from ._design import Design

__all__ = ["Folds", "WorkingSet"]

Floats = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]


class Folds:
    """Which rows each problem is trained on.

    Parameters
    ----------
    held : list of integer arrays
        Rows that are held out of each problem, disjoint; a problem that sees all rows holds none.
    rows : int
    """

    def __init__(self, held: list[Integers], rows: int) -> None:
        self.held = held
        self.rows = rows
        self.count = len(held)
        # Rows in an order in which every fold is a slice.
        taken = np.concatenate(held) if held else np.zeros(0, np.int64)
        rest = np.setdiff1d(np.arange(rows), taken, assume_unique=True)
        self.order = np.concatenate([taken, rest]).astype(np.int64)
        self.is_trivial = taken.size == 0
        ends = np.cumsum([0, *(part.size for part in held)])
        self.slices = [slice(int(a), int(b)) for a, b in itertools.pairwise(ends)]
        # Ends of the rows that each fold holds out, and of the rest.
        self.ends = [*(int(end) for end in ends), rows] if not self.is_trivial else [0, rows]
        self.parts = [slice(a, b) for a, b in itertools.pairwise(self.ends)]


class WorkingSet:
    """A store of columns and of their products, which grows and is shared by problems; each has its own membership.

    Products of the rows that every fold holds out are kept apart, so that the Gram matrix of a fold is the sum of the
    others: cross-validation costs no more of them than one fit.
    """

    def __init__(self, design: Design, folds: Folds, weights: Floats, *, centered: bool) -> None:
        self.design, self.folds, self.centered = design, folds, centered
        self.weights = weights[folds.order]
        self.uniform = bool(np.ptp(self.weights) <= 1e-14 * self.weights.max())
        self.place = np.full(design.columns, -1, np.int64)
        self.index: Integers = np.zeros(0, np.int64)
        self._columns: Any = None
        self._capacity = 0
        parts = len(folds.parts)
        self._products: list[Floats] = [np.zeros((0, 0)) for _ in range(parts)]
        self._sums: list[Floats] = [np.zeros(0) for _ in range(parts)]

    @property
    def size(self) -> int:
        return int(self.index.size)

    @property
    def columns(self) -> Any:
        """The columns in the order of the folds' rows: dense (n, k), or CSC without the center taken off."""
        return self._columns[:, : self.size] if not self.design.is_sparse else self._columns

    def require(self, wanted: Integers) -> None:
        """Take in those of ``wanted`` that are not there yet."""
        new = wanted[self.place[wanted] < 0]
        if new.size == 0:
            return
        old = self.size
        self.place[new] = np.arange(old, old + new.size)
        self.index = np.concatenate([self.index, new])
        self._reserve(self.size)
        if self.design.is_sparse:
            self._take_sparse(new)
        else:
            self._take_dense(new, old)

    def _reserve(self, size: int) -> None:
        if size <= self._capacity:
            return
        capacity = max(64, 2 * self._capacity, size)
        old = size if self._columns is None else self._capacity
        if not self.design.is_sparse:
            columns = np.empty((self.design.rows, capacity), order="F")
            if self._columns is not None:
                columns[:, :old] = self._columns[:, :old]
            self._columns = columns
        for part, product in enumerate(self._products):
            grown, totals = np.zeros((capacity, capacity)), np.zeros(capacity)
            k = product.shape[0]
            grown[:k, :k] = product
            totals[: self._sums[part].size] = self._sums[part]
            self._products[part], self._sums[part] = grown, totals
        self._capacity = capacity

    def _take_dense(self, new: Integers, old: int) -> None:
        block = self.design.dense(new)
        self._columns[:, old : self.size] = block if self.folds.is_trivial else block[self.folds.order]
        fresh = self._columns[:, old : self.size]
        weighted = fresh if self.uniform else fresh * self.weights[:, None]
        factor = float(self.weights[0]) if self.uniform else 1.0
        for part, rows in enumerate(self.folds.parts):
            product = self._columns[rows, : self.size].T @ weighted[rows]
            self._store(part, product * factor, old)
            self._sums[part][old : self.size] = weighted[rows].sum(axis=0) * factor

    def _take_sparse(self, new: Integers) -> None:
        old = self.size - new.size
        fresh: Any = sp.csc_array(self.design.X[:, new], dtype=np.float64)
        if not self.folds.is_trivial:
            fresh = fresh[self.folds.order]
        fresh = fresh.multiply(1 / self.design.scale[new]).tocsc()
        self._columns = fresh if self._columns is None else sp.hstack([self._columns, fresh], format="csc")
        center, fresh_center = self.design.center[self.index], self.design.center[new]
        weighted = fresh.multiply(self.weights[:, None]).tocsc()
        for part, rows in enumerate(self.folds.parts):
            whole = self.folds.is_trivial
            left = self._columns if whole else self._columns[rows]
            right = weighted if whole else weighted[rows]
            total = self.weights[rows].sum()
            sums = np.asarray(left.T @ self.weights[rows])
            product = (left.T @ right).toarray()
            # (x - center)' S (z - center'), multiplied out.
            product -= np.outer(center, sums[old:]) + np.outer(sums - center * total, fresh_center)
            self._store(part, product, old)
            self._sums[part][old : self.size] = sums[old:] - fresh_center * total

    def _store(self, part: int, product: Floats, old: int) -> None:
        self._products[part][: self.size, old : self.size] = product
        self._products[part][old : self.size, : self.size] = product.T

    def gram(self, fold: int, rows: Integers, columns: Integers) -> Floats:
        """Gram matrix of places ``rows`` by ``columns``, weighted mean over the rows that ``fold`` is trained on."""
        grid = np.ix_(rows, columns)
        if self.folds.is_trivial:
            matrix, total = self._products[0][grid], 1.0
            sums = self._sums[0]
        else:
            others = [part for part in range(len(self._products)) if part != fold]
            matrix = sum(self._products[part][grid] for part in others)  # type: ignore[assignment]
            sums = sum(self._sums[part] for part in others)  # type: ignore[assignment]
            total = 1 - float(self.weights[self.folds.slices[fold]].sum())
        if self.centered:
            # About the mean of these rows, which is near the center that was taken off.
            matrix = matrix - np.outer(sums[rows], sums[columns]) / total
        return matrix / total

    def product(self, places: Integers, coefficients: Floats) -> Floats:
        """``columns[:, places] @ coefficients`` in the order of the folds' rows, the center taken off."""
        if self.size == 0:
            return np.zeros((self.design.rows, coefficients.shape[1]))
        spread = np.zeros((self.size, coefficients.shape[1]))
        spread[places] = coefficients
        if self.design.is_sparse:
            result: Floats = np.asarray(self._columns @ spread)
            result -= self.design.center[self.index] @ spread
            return result
        return np.asarray(self.columns @ spread)
