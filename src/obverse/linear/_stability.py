"""Stability selection: how often a feature is selected on halves of the rows."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from ..errors import InvalidArgumentError
from ._estimator import Data
from ._shapes import path_alphas
from ._terms import Terms
from ._working_set import Folds

__all__ = ["selection_frequencies"]

Floats = npt.NDArray[np.float64]


def selection_frequencies(
    data: Data,
    terms: Terms,
    random: np.random.RandomState | np.random.Generator,
    *,
    pairs: int = 25,
    n_alphas: int = 50,
    ratio: float = 0.02,
    features: int | None = None,
) -> Floats:
    """Share of halves of the rows on which every feature is among the first to enter the path.

    Parameters
    ----------
    data : Data
    terms : Terms
    random : numpy.random.RandomState or Generator
    pairs : int
        Complementary pairs of halves.
    n_alphas, ratio
        Of the paths.
    features : int, optional
        A path ends once it has so many; by default ``sqrt(0.8 p)``, with which, at a threshold of 0.7, the expected
        number of features of less than average selection is at most 1 or so.

    Returns
    -------
    array of shape (p,)
        In [0, 1].

    Raises
    ------
    InvalidArgumentError
        No half has rows of positive weight, both held out and left.

    Notes
    -----
    Both halves of a pair are solved in lockstep. Source: Meinshausen and Buehlmann (2010), with the complementary
    pairs of Shah and Samworth (2013).
    """
    rows, columns = data.X.shape
    most = features or max(1, math.ceil(math.sqrt(0.8 * columns)))
    counts = np.zeros(columns)
    halves = 0
    ended = replace(terms, max_features=most)
    for _ in range(pairs):
        order = random.permutation(rows)
        held = [np.sort(order[: rows // 2]), np.sort(order[rows // 2 : 2 * (rows // 2)])]
        shares = [float(data.weights[part].sum()) for part in held]
        if min(shares) <= 0 or max(shares) >= 1 - 1e-12:
            continue
        problem = data.problem(Folds(held, rows))
        alphas = path_alphas(problem, terms, n_alphas, ratio)
        for solutions in problem.solve(ended, alphas):
            halves += 1
            kept = [solution for solution in solutions if solution.index.size <= most] or solutions[:1]
            counts[kept[-1].index] += 1
    if halves == 0:
        raise InvalidArgumentError(
            f"criterion='stability' needs halves of the rows with positive weight in both, and got {rows} rows"
        )
    return counts / halves
