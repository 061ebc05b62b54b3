"""What the columns are like over the rows that each fold is trained on."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from ._design import Design
from ._moments import central
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
        Those of the design.

    Raises
    ------
    ValueError
        The design knows of other folds.

    Notes
    -----
    They are put together from the design's moments of the rows that the other folds hold out, and of the rest, so that
    what is held out never enters.
    """

    def __init__(self, design: Design, folds: Folds) -> None:
        if design.moments.totals.size != len(folds.parts):
            raise ValueError("the design must be made with the same folds")
        self.design, self.folds = design, folds
        self._known: dict[int, tuple[Floats, Floats]] = {}

    def _moments(self, number: int) -> tuple[Floats, Floats]:
        if self.folds.held[number].size == 0:
            return self.design.mean, self.design.spread
        if number not in self._known:
            others = np.arange(self.design.moments.totals.size) != number
            self._known[number] = self.design.moments.joint(others, centered=self.design.centered)
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

    def center(self, values: Floats) -> Floats:
        """What to take off values of the rows (n, m) as the design's center is off columns, (m,)."""
        weights, rows = self.design.weights[self.folds.order], self.folds.order
        totals = [(part, float(weights[part].sum())) for part in self.folds.parts]
        means = [weights[part] @ values[rows[part]] / total for part, total in totals if total > 0]
        return central(np.stack(means))

    def units(self, number: int, terms: Terms, size: float = 1.0) -> Floats:
        """What scaled coefficients, in units of ``size``, are multiplied by to give those that the penalty sees, (p,).

        With ``standardize`` the columns' own deviations count, over the rows that the fold is trained on.
        """
        with np.errstate(over="ignore", under="ignore"):
            return size * np.sqrt(self.spread(number)) if terms.standardize else size / self.design.scale
