"""Cross-validation: every fold's path, solved together where folds hold disjoint rows out."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import numpy.typing as npt

from ..errors import InvalidArgumentError
from ._estimator import Data
from ._problem import Problem
from ._selection import cannot_reach, has_risen
from ._solution import Solution
from ._terms import Terms
from ._working_set import Folds

__all__ = ["CrossValidation"]

Floats = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]


class CrossValidation:
    """A fit on all rows, and the folds beside it.

    Parameters
    ----------
    data : Data
    splits : iterable of (train, test) index arrays

    Attributes
    ----------
    problem : Problem
        Its last fold is that of all rows.
    shares : array of shape (n_folds,)
        Weight of the rows that each fold holds out.

    Notes
    -----
    Folds that partition some rows, and train on all others, share columns and products of columns; each has its own
    membership, so that no fold learns from another's rows. Other splits, such as repeated ones, are problems of their
    own.
    """

    def __init__(self, data: Data, splits: Iterable[tuple[Any, Any]]) -> None:
        rows = data.X.shape[0]
        pairs = [(_rows(train, rows), _rows(test, rows)) for train, test in splits]
        if len(pairs) < 2:
            raise InvalidArgumentError(f"cv must give at least 2 splits, got {len(pairs)}")
        nothing = np.zeros(0, np.int64)
        self.shares = np.array([float(data.weights[test].sum()) for _, test in pairs])
        if not (self.shares > 0).any():
            raise InvalidArgumentError("all rows that cv holds out have sample_weight 0")
        for train, _ in pairs:
            if not data.weights[train].sum() > 0:
                raise InvalidArgumentError("all rows that a fold trains on have sample_weight 0; use other folds")
        self.separate: list[Problem] = []
        if _is_partition(pairs, rows):
            self.problem = data.problem(Folds([*(np.sort(test) for _, test in pairs), nothing], rows))
            return
        self.problem = data.problem()
        for train, test in pairs:
            if np.intersect1d(train, test).size:
                raise InvalidArgumentError("cv gives a split whose training and test rows overlap")
            part = data.rows(np.concatenate([train, test]))
            held = np.arange(train.size, train.size + test.size)
            self.separate.append(part.problem(Folds([held], train.size + test.size)))
        self.inner = [float(p.design.weights[p.folds.held[0]].sum()) for p in self.separate]

    def solve(self, terms: Terms, alphas: Floats, best: float) -> tuple[list[Solution], Floats, npt.NDArray[np.bool_]]:
        """The path on all rows, the mean held-out loss of every fold, (n_folds, n_solved), and what all folds solved.

        The path ends early once the mean error has risen for long, or falls too slowly to get below ``best``.
        """

        def stop(found: list[list[Solution]]) -> bool:
            errors = self._mean(found[:-1])
            return has_risen(errors) or cannot_reach(errors, alphas.size, best)

        if not self.separate:
            *folds, whole = self.problem.solve(terms, alphas, stop=stop)
            errors = self._errors(folds)
        else:
            folds = [problem.solve(terms, alphas)[0] for problem in self.separate]
            count = min(len(fold) for fold in folds)
            errors = np.array(
                [[s.held_out / share for s in fold[:count]] for fold, share in zip(folds, self.inner, strict=True)]
            )
            [whole] = self.problem.solve(terms, alphas[:count])
        count = min(errors.shape[1], len(whole))
        solved = np.array([all(fold[k].converged for fold in folds) for k in range(count)], dtype=np.bool_)
        return whole[:count], errors[:, :count], solved

    def mean(self, errors: Floats) -> tuple[Floats, Floats]:
        """Mean error over the folds, weighted by the rows that they hold out, and its standard error."""
        share = self.shares / self.shares.sum()
        mean = share @ errors
        used = int((share > 0).sum())
        # Squares of losses may leave the range of a double.
        size = float(np.abs(errors - mean).max(initial=0.0)) or 1.0
        spread = share @ ((errors - mean) / size) ** 2
        return mean, np.sqrt(spread / max(used - 1, 1)) * size

    def _errors(self, folds: list[list[Solution]]) -> Floats:
        count = min(len(fold) for fold in folds)
        shares = np.where(self.shares > 0, self.shares, 1.0)
        return np.array([[s.held_out / share for s in fold[:count]] for fold, share in zip(folds, shares, strict=True)])

    def _mean(self, folds: list[list[Solution]]) -> Floats:
        return self.mean(self._errors(folds))[0]


def _rows(index: Any, rows: int) -> Integers:
    found = np.asarray(index)
    if found.dtype == np.bool_:
        found = np.flatnonzero(found)
    if found.ndim != 1 or (found.size and (found.min() < -rows or found.max() >= rows)):
        raise InvalidArgumentError(f"cv gives rows outside 0 ... {rows - 1}")
    return np.asarray(np.where(found < 0, found + rows, found), dtype=np.int64)


def _is_partition(pairs: list[tuple[Integers, Integers]], rows: int) -> bool:
    """Whether tests are disjoint and every fold trains on all rows that it does not hold out."""
    together = np.concatenate([test for _, test in pairs])
    if np.unique(together).size < together.size:
        return False
    for train, test in pairs:
        inside = np.zeros(rows, np.bool_)
        inside[train] = True
        if train.size != rows - test.size or not inside.any() or inside.sum() != train.size or inside[test].any():
            return False
    return True
