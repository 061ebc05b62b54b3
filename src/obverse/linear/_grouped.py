"""Groups of features and several outputs: the squared loss with a penalty on the norm of each group."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from ..errors import InvalidArgumentError
from ._design import Design
from ._group_path import GroupPath, Layout, Stretch
from ._scalar import entry
from ._solution import Solution
from ._terms import Terms
from ._working_set import Folds, WorkingSet

__all__ = ["GroupedProblem"]

Floats = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]

# Strengths that all folds solve before ``stop`` is asked.
_STRETCH = 8
# Columns whose mean squares are taken at a time, and groups whose blocks are.
_COLUMNS, _BLOCKS = 256, 16
# Share of a column's mean square that counts as variation within a fold.
_VARIES = 1e-12
# Where a group jumps, rounding must not decide whether the largest alpha is above or below.
_ABOVE = 1 + 1e-12


@dataclass(frozen=True)
class _Partition:
    """Which group each feature belongs to, and the features ordered by group."""

    owner: Integers
    order: Integers

    @classmethod
    def of(cls, groups: Sequence[Any] | None, features: int) -> _Partition:
        """Groups as given, and after them the features in none of them, each alone."""
        if groups is None:
            return cls(np.arange(features), np.arange(features))
        owner = np.full(features, -1, np.int64)
        for number, group in enumerate(groups):
            members = np.asarray(group, dtype=np.int64).ravel()
            if members.size and not (members.min() >= 0 and members.max() < features):
                raise InvalidArgumentError(f"groups name features outside 0 ... {features - 1}")
            if np.unique(members).size < members.size or (owner[members] >= 0).any():
                raise InvalidArgumentError("groups must be disjoint; a feature is named twice")
            owner[members] = number
        alone = np.flatnonzero(owner < 0)
        owner[alone] = len(groups) + np.arange(alone.size)
        return cls(owner, np.argsort(owner, kind="stable"))


class GroupedProblem:
    """The squared loss for several sets of rows, with a penalty on the norms of groups.

    The objective is ``1/(2 sum s) sum_i s_i ||y_i - x_i W - b||^2 + alpha sum_G factor_G Omega(||W_G||)``. The norm
    is Euclidean, over the features of a group and all outputs.

    Parameters
    ----------
    design : Design
    y : array of shape (n,) or (n, m)
    folds : Folds
    groups : sequence of integer arrays, or None
        Disjoint sets of features; those in none of them stand alone, as all do with None.
    fit_intercept : bool

    Raises
    ------
    InvalidArgumentError
        Groups that overlap or name features that are not there; ``positive`` when solving.

    Notes
    -----
    The factor of a group is the mean of its features' ``penalty_factor``; no factor for the group's size is added. With
    ``standardize`` each column counts times its standard deviation over the rows that the fold trains on.

    A group is zero where zero is the global minimizer of its quadratic majorizer (curvature: the largest eigenvalue of
    the group's own Gram matrix), which for a convex penalty is the usual condition on the gradient's norm.
    """

    def __init__(
        self, design: Design, y: Floats, folds: Folds, groups: Sequence[Any] | None, *, fit_intercept: bool
    ) -> None:
        self.design, self.folds, self.fit_intercept = design, folds, fit_intercept
        self.partition = _Partition.of(groups, design.columns)
        self.store = WorkingSet(design, folds, design.weights, centered=fit_intercept)
        # Products with no columns at all have no store to come from; one column is always there.
        self.store.require(np.zeros(1, np.int64))
        self.several = y.ndim == 2
        size = float(np.abs(y).max(initial=0.0))
        # A power of two, so that dividing rounds nothing.
        self.y_scale = float(np.ldexp(1.0, int(np.frexp(size)[1]))) if size > 0 else 1.0
        scaled = (y if self.several else y[:, None]) / self.y_scale
        self.outputs = scaled.shape[1]
        self.y_mean: Floats = design.weights @ scaled if fit_intercept else np.zeros(self.outputs)
        self.y = (scaled - self.y_mean)[folds.order]
        self.inverse = None if folds.is_trivial else np.argsort(folds.order)
        self.totals = [
            1 - float(self.store.weights[rows].sum()) if rows.stop > rows.start else 1.0 for rows in folds.slices
        ]
        self._spreads: list[Floats] | None = None
        nothing = np.zeros((design.rows, self.outputs))
        self.start = [
            self.gradients(self.residuals(nothing, number)[0], number)[..., 0] for number in range(folds.count)
        ]

    # ------------------------------------------------------------------ residuals and gradients
    def residuals(self, fitted: Floats, number: int) -> tuple[Floats, Floats]:
        """Residuals of ``fitted`` (n, count * m), about the means of the fold's own rows, and these means."""
        residuals = np.tile(self.y, (1, fitted.shape[1] // self.outputs)) - fitted
        if not self.fit_intercept:
            return residuals, np.zeros(fitted.shape[1])
        rows, weights = self.folds.slices[number], self.store.weights
        offsets: Floats = (weights @ residuals - weights[rows] @ residuals[rows]) / self.totals[number]
        residuals -= offsets
        return residuals, offsets

    def gradients(self, residuals: Floats, number: int) -> Floats:
        """Negative gradients of the loss for all features, (p, m, count)."""
        weighted = residuals * self.store.weights[:, None]
        weighted[self.folds.slices[number]] = 0.0
        product = self.design.correlate(weighted if self.inverse is None else weighted[self.inverse])
        product /= self.totals[number]
        return np.moveaxis(product.reshape(self.design.columns, -1, self.outputs), 1, 2)

    # ------------------------------------------------------------------ units
    def spread(self, number: int) -> Floats:
        """Mean square of every column over the rows that a fold trains on, 0 where it does not vary there."""
        if self.folds.is_trivial:
            return self.design.spread
        if self._spreads is None:
            self._spreads = self._fold_spreads()
        return self._spreads[number]

    def _fold_spreads(self) -> list[Floats]:
        sums = np.zeros((2, self.folds.count, self.design.columns))
        for first in range(0, self.design.columns, _COLUMNS):
            index = np.arange(first, min(first + _COLUMNS, self.design.columns))
            block = self.design.dense(index)[self.folds.order]
            for number, rows in enumerate(self.folds.slices):
                sums[0, number, index] = self.store.weights[rows] @ block[rows]
                sums[1, number, index] = self.store.weights[rows] @ block[rows] ** 2
        result = []
        for number, total in enumerate(self.totals):
            spread = (self.design.spread - sums[1, number]) / total
            if self.fit_intercept:
                spread -= (sums[0, number] / total) ** 2
            result.append(np.where(spread > _VARIES * self.design.spread, spread, 0.0))
        return result

    def layout(self, number: int, terms: Terms) -> Layout:
        """The groups as one fold sees them; columns that do not vary there are left out."""
        spread, owner = self.spread(number), self.partition.owner
        with np.errstate(over="ignore", under="ignore"):
            unit = self.y_scale * np.sqrt(spread) if terms.standardize else self.y_scale / self.design.scale
            order = self.partition.order
            members = order[(spread[order] > 0) & (unit[order] > 0)]
            if members.size == 0:
                return Layout.empty()
            names, firsts = np.unique(owner[members], return_index=True)
            factor = (np.bincount(owner, terms.factor) / np.maximum(np.bincount(owner), 1))[names]
            least = np.minimum.reduceat(unit[members], firsts)
            starts = np.append(firsts, members.size).astype(np.int64)
            sizes = np.diff(starts)
            # Without a penalty columns may keep units of their own.
            ratio = np.where(np.repeat(factor, sizes) > 0, unit[members] / np.repeat(least, sizes), 1.0)
            low = np.maximum.reduceat(spread[members] / ratio / ratio, firsts)
        return Layout(members, starts, ratio, least, factor, low)

    # ------------------------------------------------------------------ solving
    def largest_alpha(self, terms: Terms) -> float:
        """Smallest alpha at which all penalized groups of the problem that holds nothing out are zero."""
        path = self._path(self.folds.count - 1, terms)
        path.solve_free(terms)
        layout = path.layout
        norm = layout.norms(path.gradient)
        groups = np.flatnonzero((layout.factor > 0) & (norm > 0))
        if groups.size == 0:
            return 0.0
        code, _ = terms.codes(np.ones(1))

        def leaving(groups: Integers, top: Floats) -> Floats:
            """The alpha at which these groups leave zero; it falls with the curvature."""
            unit = layout.unit[groups]
            with np.errstate(over="ignore"):
                z = norm[groups] / top * unit
                step = layout.factor[groups] / top * unit * unit / self.y_scale / self.y_scale
                if terms.width == "fixed":
                    return np.asarray(terms.penalty.zeroing_step(z)) / step
            # The penalty alpha^2 Omega(w / alpha) has the threshold alpha * entry(step).
            return np.array([point / entry(code, t) for point, t in zip(z, step, strict=True)])

        above = leaving(groups, layout.low[groups])
        order = np.argsort(-above)
        largest = 0.0
        for first in range(0, groups.size, _BLOCKS):
            some = order[first : first + _BLOCKS]
            if above[some[0]] <= largest:
                break
            largest = max(largest, float(leaving(groups[some], path.curvatures(groups[some])).max()))
        return largest * _ABOVE

    def solve(
        self, terms: Terms, alphas: Floats, *, stop: Callable[[list[list[Solution]]], bool] | None = None
    ) -> list[list[Solution]]:
        """Solutions of every fold for descending ``alphas``; fewer where a fold ended early or ``stop`` says so."""
        code, parameters = terms.codes(alphas)
        paths = [self._path(number, terms) for number in range(self.folds.count)]
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

    def _path(self, number: int, terms: Terms) -> GroupPath:
        if terms.positive:
            raise InvalidArgumentError(
                "positive=True goes with single features and one output; leave it out with groups or several outputs"
            )
        return GroupPath(self, number, terms)
