"""What every solver offers, and which one a loss asks for."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from ..errors import InvalidArgumentError, UnknownNameError
from ._design import Design
from ._losses import LOSSES
from ._solution import Solution
from ._squared import SquaredProblem
from ._terms import Terms
from ._working_set import Folds

__all__ = ["Problem", "Stop", "make_problem"]

Floats = npt.NDArray[np.float64]
Stop = Callable[[list[list[Solution]]], bool]


class Problem(Protocol):
    """Data and a loss, ready to be solved for several penalties; one solution for each fold and alpha.

    The objective is ``sum_i s_i loss(y_i, x_i w + b) / sum_i s_i + alpha sum_j factor_j Omega(w_j)`` over the rows that
    a fold does not hold out.
    """

    design: Design
    folds: Folds

    def largest_alpha(self, terms: Terms) -> float:
        """Smallest alpha at which all penalized coefficients are zero, in the last fold, which holds nothing out."""

    def solve(self, terms: Terms, alphas: Floats, *, stop: Stop | None = None) -> list[list[Solution]]:
        """Solutions of every fold for descending ``alphas``.

        A fold has fewer where its path ended at ``terms.max_features``; ``stop`` is asked from time to time with all
        solutions so far, and ends the path of all folds.
        """


def make_problem(
    loss: str,
    X: Any,
    y: Floats,
    weights: Floats,
    *,
    fit_intercept: bool,
    folds: Folds | None = None,
    groups: Sequence[Any] | None = None,
    delta: float = 1.35,
) -> Problem:
    """The problem for a loss.

    Parameters
    ----------
    loss : {"squared", "huber", "poisson", "logistic", "multinomial"}
    X : dense array or CSC matrix of shape (n, p)
        float32 or float64, finite.
    y : array of shape (n,), or (n, m) for the squared loss with m outputs
        Classes as 0 and 1 (logistic) or 0 ... K-1 (multinomial).
    weights : array of shape (n,)
        At least 0, of sum 1.
    fit_intercept : bool
    folds : Folds, optional
        By default one problem on all rows.
    groups : sequence of integer arrays, optional
        Disjoint sets of features whose penalty applies to the norm of their coefficients.
    delta : float
        Residual from which the Huber loss is linear, in the unit of y.

    Raises
    ------
    UnknownNameError
        Another loss.
    InvalidArgumentError
        Groups or several outputs with a loss that is not squared.
    """
    if loss not in LOSSES:
        raise UnknownNameError("loss", loss, LOSSES)
    folds = folds or Folds([np.zeros(0, np.int64)], X.shape[0])
    several = y.ndim == 2
    if loss != "squared" and (several or groups is not None):
        what = "several outputs" if several else "groups"
        raise InvalidArgumentError(f"{what} go with the squared loss only; got loss={loss!r}")
    design = Design(X, weights, centered=fit_intercept, folds=folds)
    # The other solvers are imported where they are needed, because their compiled code takes time to load.
    if several or groups is not None:
        from ._grouped import GroupedProblem

        return GroupedProblem(design, y, folds, groups, fit_intercept=fit_intercept)
    if loss == "squared":
        return SquaredProblem(design, y, folds, fit_intercept=fit_intercept)
    if loss == "multinomial":
        from ._multinomial import MultinomialProblem

        return MultinomialProblem(design, y, folds, fit_intercept=fit_intercept)
    from ._glm import GlmProblem

    return GlmProblem(design, y, folds, loss, fit_intercept=fit_intercept, delta=delta)
