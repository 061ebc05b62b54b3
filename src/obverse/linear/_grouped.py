"""Groups of features and several outputs: the squared loss with a penalty on the norm of each group."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from ..errors import InvalidArgumentError
from ._design import Design
from ._group_path import GroupPath, Layout
from ._squared_rows import ABOVE, SquaredRows
from ._terms import Terms
from ._working_set import Folds

__all__ = ["GroupedProblem"]

Floats = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]

# Groups whose blocks are looked at together.
_BLOCKS = 16


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
            found = np.asarray(group).ravel()
            if found.size and found.dtype.kind not in "iu":
                raise InvalidArgumentError("groups must hold integers, the numbers of the features")
            members = found.astype(np.int64)
            if members.size and not (members.min() >= 0 and members.max() < features):
                raise InvalidArgumentError(f"groups name features outside 0 ... {features - 1}")
            if np.unique(members).size < members.size or (owner[members] >= 0).any():
                raise InvalidArgumentError("groups must be disjoint; a feature is named twice")
            owner[members] = number
        alone = np.flatnonzero(owner < 0)
        owner[alone] = len(groups) + np.arange(alone.size)
        return cls(owner, np.argsort(owner, kind="stable"))


class GroupedProblem(SquaredRows):
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
        self.several = y.ndim == 2
        super().__init__(design, y if self.several else y[:, None], folds, fit_intercept=fit_intercept)
        self.partition = _Partition.of(groups, design.columns)
        nothing = np.zeros((design.rows, self.outputs))
        self.start = [
            self.gradients(self.residuals(nothing, number)[0], number)[..., 0] for number in range(folds.count)
        ]

    def gradients(self, residuals: Floats, number: int) -> Floats:
        """Negative gradients of the loss for all features, (p, m, count)."""
        product = self.design.correlate(self.weighted(residuals, number))
        product /= self.totals[number]
        return np.moveaxis(product.reshape(self.design.columns, -1, self.outputs), 1, 2)

    def layout(self, number: int, terms: Terms) -> Layout:
        """The groups as one fold sees them; columns that do not vary there are left out."""
        spread, owner = self.training.spread(number), self.partition.owner
        unit = self.training.units(number, terms, self.y_scale)
        with np.errstate(over="ignore", under="ignore"):
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
        path = self.path(self.folds.count - 1, terms)
        path.solve_free(terms)
        layout = path.layout
        norm = layout.norms(path.gradient)
        groups = np.flatnonzero((layout.factor > 0) & (norm > 0))
        if groups.size == 0:
            return 0.0

        def leaving(groups: Integers, top: Floats) -> Floats:
            """The alpha at which these groups leave zero; it falls with the curvature."""
            unit = layout.unit[groups]
            with np.errstate(over="ignore"):
                z = norm[groups] / top * unit
                step = layout.factor[groups] / top * unit * unit / self.y_scale / self.y_scale
                return terms.leaving(z, step)

        above = leaving(groups, layout.low[groups])
        order = np.argsort(-above)
        largest = 0.0
        for first in range(0, groups.size, _BLOCKS):
            some = order[first : first + _BLOCKS]
            if above[some[0]] <= largest:
                break
            largest = max(largest, float(leaving(groups[some], path.curvatures(groups[some])).max()))
        return largest * ABOVE

    def path(self, number: int, terms: Terms) -> GroupPath:
        """The path of a fold."""
        if terms.positive:
            raise InvalidArgumentError(
                "positive=True goes with single features and one output; leave it out with groups or several outputs"
            )
        return GroupPath(self, number, terms)
