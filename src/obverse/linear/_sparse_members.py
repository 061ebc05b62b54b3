"""The members of a working set of sparse columns, without their products: descent on residuals."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import scipy.sparse as sp

from ._residual_descent import descend_residuals, sparse_moments

if TYPE_CHECKING:
    from ._fold_path import Stretch
    from ._squared import SquaredProblem
    from ._terms import Terms

__all__ = ["SparseMembers"]

Floats = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]


class SparseMembers:
    """Columns in the order in which they became members, scaled, rows in the order of the data.

    Parameters
    ----------
    problem : SquaredProblem
        With sparse features.
    number : int
        The fold, whose held-out rows have the weight zero.
    """

    def __init__(self, problem: SquaredProblem, number: int) -> None:
        self.problem, self.number = problem, number
        rows = problem.design.rows
        self.weights = np.ascontiguousarray(problem.weighted(np.ones((rows, 1)), number)[:, 0] / problem.totals[number])
        self.index: Integers = np.zeros(0, np.int64)
        self.mean, self.gram = np.zeros(0), np.zeros(0)
        self.columns: Any = sp.csc_array((rows, 0))

    def take(self, index: Integers) -> None:
        """Make columns members."""
        design = self.problem.design
        chosen: Any = sp.csc_array(design.X[:, index], dtype=np.float64)
        data = chosen.data / np.repeat(design.scale[index], np.diff(chosen.indptr))
        fresh = sp.csc_array((data, chosen.indices, chosen.indptr), shape=chosen.shape)
        mean, gram = sparse_moments(*_compiled(fresh), self.weights, self.problem.fit_intercept)
        self.columns = fresh if self.index.size == 0 else sp.hstack([self.columns, fresh], format="csc")
        self.index = np.concatenate([self.index, index])
        self.mean, self.gram = np.concatenate([self.mean, mean]), np.concatenate([self.gram, gram])

    def keep(self, kept: Integers) -> None:
        """Leave out all members but those at these places."""
        self.columns = self.columns[:, kept]
        self.index, self.mean, self.gram = self.index[kept], self.mean[kept], self.gram[kept]

    def descend(
        self, stretch: Stretch, terms: Terms, u: Floats, residual: Floats, factor: Floats, unit: Floats,
        tolerance: float, found: Floats, most: int,
    ) -> int:  # fmt: skip
        """Solve for the strengths of a stretch from u and its residual; see `descend_residuals`."""
        rho = self.problem.weighted(residual[:, None], self.number)[:, 0] / self.problem.totals[self.number]
        columns = (*_compiled(self.columns), self.mean, self.gram, self.weights)
        return int(
            descend_residuals(
                stretch.code, stretch.parameters, stretch.strengths, columns, u, np.ascontiguousarray(rho),
                factor, unit, terms.positive, tolerance, terms.max_iter, found, most,
            )
        )  # fmt: skip

    def product(self, coefficients: Floats) -> Floats:
        """Columns times coefficients, (n, m) in the order of the folds' rows, the center taken off."""
        fitted: Floats = np.asarray(self.columns @ coefficients)
        fitted -= self.problem.design.center[self.index] @ coefficients
        folds = self.problem.folds
        return fitted if folds.is_trivial else fitted[folds.order]


def _compiled(columns: Any) -> tuple[Floats, Any, Integers]:
    """Entries, rows and starts in the types that code is compiled for, whatever those of the data."""
    small = columns.shape[0] < 2**31
    return columns.data, columns.indices.astype(np.int32 if small else np.int64), columns.indptr.astype(np.int64)
