"""Paths for the squared loss, for several sets of rows that share columns and their products."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from ._design import Design
from ._fold_path import FoldPath, Stretch
from ._scalar import entry
from ._solution import Solution
from ._terms import Terms
from ._working_set import Folds, WorkingSet

__all__ = ["SquaredProblem"]

Floats = npt.NDArray[np.float64]

# Strengths that all folds solve before ``stop`` is asked.
_STRETCH = 8

# Where a coefficient jumps, rounding must not decide whether the largest alpha is above or below.
_ABOVE = 1 + 1e-12


class SquaredProblem:
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
        self.design, self.folds, self.fit_intercept = design, folds, fit_intercept
        self.store = WorkingSet(design, folds, design.weights, centered=fit_intercept)
        size = float(np.abs(y).max(initial=0.0))
        # A power of two, so that dividing rounds nothing.
        self.y_scale = float(np.ldexp(1.0, int(np.frexp(size)[1]))) if size > 0 else 1.0
        scaled = y / self.y_scale
        self.y_mean = float(design.weights @ scaled) if fit_intercept else 0.0
        self.y = (scaled - self.y_mean)[folds.order]
        self.inverse = None if folds.is_trivial else np.argsort(folds.order)
        self.totals = np.array(
            [1 - float(self.store.weights[rows].sum()) if rows.stop > rows.start else 1.0 for rows in folds.slices]
        )
        starts = [self.residuals(np.zeros((design.rows, 1)), number)[0] for number in range(folds.count)]
        self.start_residuals = np.concatenate(starts, axis=1)
        weighted = np.concatenate([self.weighted(part, number) for number, part in enumerate(starts)], axis=1)
        self.start = design.correlate(weighted) / self.totals

    def residuals(self, fitted: Floats, number: int) -> tuple[Floats, Floats]:
        """Residuals for each column of ``fitted``, about the mean of the fold's own rows, and these means."""
        residuals = self.y[:, None] - fitted
        if not self.fit_intercept:
            return residuals, np.zeros(fitted.shape[1])
        rows, weights = self.folds.slices[number], self.store.weights
        offsets: Floats = (weights @ residuals - weights[rows] @ residuals[rows]) / self.totals[number]
        residuals -= offsets
        return residuals, offsets

    def weighted(self, residuals: Floats, number: int) -> Floats:
        """Residuals times weights, zero where the fold holds out, in the order of the data's rows."""
        weighted = residuals * self.store.weights[:, None]
        weighted[self.folds.slices[number]] = 0.0
        return weighted if self.inverse is None else weighted[self.inverse]

    def units(self, terms: Terms) -> Floats:
        """What scaled coefficients are multiplied by to give those that the penalty sees."""
        unit = np.full(self.design.columns, self.y_scale)
        if terms.standardize:
            return unit * np.sqrt(self.design.spread)
        with np.errstate(over="ignore", under="ignore"):
            return unit / self.design.scale

    def largest_alpha(self, terms: Terms) -> float:
        """Smallest alpha at which all penalized coefficients of the problem that holds nothing out are zero."""
        gram, unit = self.design.spread, self.units(terms)
        gradient = self.start[:, -1]
        usable = (gram > 0) & (terms.factor > 0) & ((gradient > 0) if terms.positive else (gradient != 0)) & (unit > 0)
        if not usable.any():
            return 0.0
        gram, unit, gradient, factor = gram[usable], unit[usable], np.abs(gradient[usable]), terms.factor[usable]
        z = gradient / gram * unit
        relative = unit / self.y_scale
        step = factor / gram * relative * relative
        if terms.width == "fixed":
            with np.errstate(over="ignore"):
                return float(np.max(np.asarray(terms.penalty.zeroing_step(z)) / step)) * _ABOVE
        code, _ = terms.codes(np.ones(1))
        # The penalty alpha^2 Omega(w / alpha) has the threshold alpha * entry(step).
        return float(max(point / entry(code, t) for point, t in zip(z, step, strict=True))) * _ABOVE

    def solve(
        self, terms: Terms, alphas: Floats, *, stop: Callable[[list[list[Solution]]], bool] | None = None
    ) -> list[list[Solution]]:
        """Solutions of every fold for descending ``alphas``; fewer where a fold ended early or ``stop`` says so."""
        code, parameters = terms.codes(alphas)
        unit = self.units(terms)
        paths = [FoldPath(self, number, terms, unit) for number in range(self.folds.count)]
        for first in range(0, alphas.size, _STRETCH):
            piece = slice(first, first + _STRETCH)
            strengths = alphas[piece] / self.y_scale / self.y_scale
            stretch = Stretch(code, parameters[piece], strengths, alphas[piece])
            for path in paths:
                path.advance(stretch)
            solutions = [path.solutions for path in paths]
            if all(path.ended for path in paths) or (stop is not None and stop(solutions)):
                break
        return [path.solutions for path in paths]
