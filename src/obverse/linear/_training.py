"""What the columns are like over the rows that each fold is trained on."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from ._design import Design
from ._moments import Moments, column_moments, varying
from ._terms import Terms
from ._working_set import Folds

__all__ = ["TrainingColumns"]

Floats = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]


class TrainingColumns:
    """Means, mean squares and units of the columns over the rows that each fold is trained on, in scaled units.

    Parameters
    ----------
    design : Design
    folds : Folds

    Notes
    -----
    The moments of the rows that each fold holds out, and of the rest, are taken in one pass over the data when they
    are first needed. Those of a fold's training rows are put together from the others', without a difference: with
    weights W_k, means m_k and squared deviations S_k, about the joint mean m there are ``sum_k S_k + W_k (m_k - m)^2``.
    """

    def __init__(self, design: Design, folds: Folds) -> None:
        self.design, self.folds = design, folds
        self._parts: Moments | None = None
        self._known: dict[int, tuple[Floats, Floats]] = {}

    def _moments(self, number: int) -> tuple[Floats, Floats]:
        if self.folds.held[number].size == 0:
            return self.design.mean, self.design.spread
        if number not in self._known:
            if self._parts is None:
                design, folds = self.design, self.folds
                ends = [0, *(rows.stop for rows in folds.slices), folds.rows]
                self._parts = column_moments(
                    design.X, design.weights, scale=design.scale, order=folds.order, ends=ends
                )  # fmt: skip
            parts = self._parts
            others = np.arange(parts.totals.size) != number
            weights, means = parts.totals[others], parts.means[others]
            total = float(weights.sum()) or 1.0
            mean = weights @ means / total
            square = (parts.squares[others].sum(axis=0) + weights @ (means - mean) ** 2) / total
            spread = varying(mean, square)
            self._known[number] = mean, spread if self.design.centered else spread + mean**2
        return self._known[number]

    def mean(self, number: int) -> Floats:
        """Weighted mean of every column, (p,)."""
        return self._moments(number)[0]

    def spread(self, number: int) -> Floats:
        """Mean square of every column, (p,): about its mean where there is an intercept, 0 where it does not vary."""
        return self._moments(number)[1]

    def sizes(self, number: int, index: Integers) -> Floats:
        """Mean squares of some columns as a `ColumnStore` keeps them: dense ones less the design's center."""
        mean, spread = self._moments(number)
        if not self.design.centered:
            return spread[index]
        origin = 0.0 if self.design.is_sparse else self.design.center[index]
        return np.asarray(spread[index] + (mean[index] - origin) ** 2)

    def units(self, number: int, terms: Terms, size: float = 1.0) -> Floats:
        """What scaled coefficients, in units of ``size``, are multiplied by to give those that the penalty sees, (p,).

        With ``standardize`` the columns' own deviations count, over the rows that the fold is trained on.
        """
        with np.errstate(over="ignore", under="ignore"):
            return size * np.sqrt(self.spread(number)) if terms.standardize else size / self.design.scale
