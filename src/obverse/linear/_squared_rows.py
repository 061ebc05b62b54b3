"""What squared losses share: outputs, their scale and mean, residuals of several sets of rows, the way down a path."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from ._design import Design
from ._fold_path import Stretch
from ._solution import Solution
from ._terms import Terms
from ._training import TrainingColumns
from ._working_set import Folds, WorkingSet

__all__ = ["ABOVE", "SquaredRows"]

Floats = npt.NDArray[np.float64]

# Strengths that all folds solve before ``stop`` is asked.
_STRETCH = 8
# Where a coefficient jumps, rounding must not decide whether the largest alpha is above or below.
ABOVE = 1 + 1e-12


class SquaredRows:
    """Shared by the problems with a squared loss.

    Parameters
    ----------
    design : Design
    y : array of shape (n, m)
    folds : Folds
    fit_intercept : bool
    """

    def __init__(self, design: Design, y: Floats, folds: Folds, *, fit_intercept: bool) -> None:
        self.design, self.folds, self.fit_intercept = design, folds, fit_intercept
        self.training = TrainingColumns(design, folds)
        self.store = WorkingSet(design, folds, design.weights, centered=fit_intercept)
        size = float(np.abs(y).max(initial=0.0))
        # A power of two, so that dividing rounds nothing.
        self.y_scale = float(np.ldexp(1.0, int(np.frexp(size)[1]))) if size > 0 else 1.0
        scaled = y / self.y_scale
        self.outputs = scaled.shape[1]
        self.y_mean: Floats = self.training.center(scaled) if fit_intercept else np.zeros(self.outputs)
        self.y = (scaled - self.y_mean)[folds.order]
        self._inverse = None if folds.is_trivial else np.argsort(folds.order)
        self.totals = np.array(
            [1 - float(self.store.weights[rows].sum()) if rows.stop > rows.start else 1.0 for rows in folds.slices]
        )

    def shares(self, number: int) -> Floats:
        """Weights of the rows in the folds' order, of sum 1 over those of one fold, and 0 where it holds out."""
        shares: Floats = self.store.weights / self.totals[number]
        shares[self.folds.slices[number]] = 0.0
        return shares

    def residuals(self, fitted: Floats, number: int) -> tuple[Floats, Floats]:
        """Residuals of ``fitted`` (n, count * m), about the means of the fold's own rows, and these means."""
        residuals = np.tile(self.y, (1, fitted.shape[1] // self.outputs)) - fitted
        if not self.fit_intercept:
            return residuals, np.zeros(fitted.shape[1])
        offsets: Floats = self.shares(number) @ residuals
        residuals -= offsets
        return residuals, offsets

    def weighted(self, residuals: Floats, number: int) -> Floats:
        """Residuals times weights, zero where the fold holds out, in the order of the data's rows."""
        weighted = residuals * self.store.weights[:, None]
        weighted[self.folds.slices[number]] = 0.0
        return weighted if self._inverse is None else weighted[self._inverse]

    @abstractmethod
    def path(self, number: int, terms: Terms) -> Any:
        """The path of a fold, which has ``advance(stretch)``, ``solutions`` and ``ended``."""

    def stretch(self, terms: Terms, alphas: Floats) -> Stretch:
        """Strengths as paths take them."""
        code, parameters = terms.codes(alphas)
        return Stretch(code, parameters, alphas / self.y_scale / self.y_scale, alphas)

    def solve(
        self, terms: Terms, alphas: Floats, *, stop: Callable[[list[list[Solution]]], bool] | None = None
    ) -> list[list[Solution]]:
        """Solutions of every fold for descending ``alphas``; fewer where a fold ended early or ``stop`` says so."""
        paths = [self.path(number, terms) for number in range(self.folds.count)]
        return self.follow(paths, self.stretch(terms, alphas), stop)

    @staticmethod
    def follow(
        paths: list[Any], stretch: Stretch, stop: Callable[[list[list[Solution]]], bool] | None
    ) -> list[list[Solution]]:
        """Go down paths in step."""
        for first in range(0, stretch.alphas.size, _STRETCH):
            for path in paths:
                path.advance(stretch.part(first, first + _STRETCH))
            solutions = [path.solutions for path in paths]
            if all(path.ended for path in paths) or (stop is not None and stop(solutions)):
                break
        return [path.solutions for path in paths]
