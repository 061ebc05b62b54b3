"""Paths for the squared loss, for several sets of rows that share columns and their products."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from ._design import Design
from ._fold_path import FoldPath
from ._solution import Solution
from ._squared_rows import ABOVE, SquaredRows
from ._stations import lead
from ._terms import Terms
from ._working_set import Folds

__all__ = ["SquaredProblem"]

Floats = npt.NDArray[np.float64]


class SquaredProblem(SquaredRows):
    """``min 1/(2 sum s) sum_i s_i (y_i - x_i w - b)^2 + alpha sum_j factor_j Omega(w_j)`` for several sets of rows.

    Parameters
    ----------
    design : Design
    y : array of shape (n,)
    folds : Folds
    fit_intercept : bool

    Notes
    -----
    Columns, their products and the gradient at zero are kept, so that solving for another penalty costs less.
    """

    def __init__(self, design: Design, y: Floats, folds: Folds, *, fit_intercept: bool) -> None:
        super().__init__(design, y[:, None], folds, fit_intercept=fit_intercept)
        starts = [self.residuals(np.zeros((design.rows, 1)), number)[0] for number in range(folds.count)]
        self.start_residuals = np.concatenate(starts, axis=1)
        weighted = np.concatenate([self.weighted(part, number) for number, part in enumerate(starts)], axis=1)
        self.start = design.correlate(weighted) / self.totals

    def largest_alpha(self, terms: Terms) -> float:
        """Smallest alpha at which all penalized coefficients of the problem that holds nothing out are zero."""
        last = self.folds.count - 1
        gram, unit = self.training.spread(last), self.training.units(last, terms, self.y_scale)
        gradient = self.start[:, last]
        usable = (gram > 0) & (terms.factor > 0) & ((gradient > 0) if terms.positive else (gradient != 0)) & (unit > 0)
        if not usable.any():
            return 0.0
        gram, unit, gradient, factor = gram[usable], unit[usable], np.abs(gradient[usable]), terms.factor[usable]
        relative = unit / self.y_scale
        return float(terms.leaving(gradient / gram * unit, factor / gram * relative * relative).max()) * ABOVE

    def path(self, number: int, terms: Terms) -> FoldPath:
        """The path of a fold."""
        return FoldPath(self, number, terms)

    def solve_from(self, stations: Floats, terms: Terms, alphas: Floats) -> list[list[Solution]]:
        """Solutions of every fold for descending ``alphas``, reached by way of larger ones, which are not solved."""
        paths = [self.path(number, terms) for number in range(self.folds.count)]
        stretch = self.stretch(terms, alphas)
        if stations.size:
            for path in paths:
                lead(path, stations, float(alphas[0]))
        return self.follow(paths, stretch, None)
