"""Rank against rate: where dropout removes one direction after the other."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import brentq

from ..._core.arrays import Array
from ..._core.checks import count
from ...errors import InvalidArgumentError
from .._finite import finite_numbers
from ._noise import check_keep_probability
from ._spectrum import best_spectrum
from ._strengths import LayerStrength, check_widths, layer_strengths

__all__ = ["Phase", "phases", "predicted_ranks", "rank_one_keep_probability"]

_RANGE = (-30.0, 30.0)  # log of lam = (1 - keep)/keep between which transitions are sought


@dataclass(frozen=True, eq=False)
class Phase:
    """One step of the predicted rank.

    Attributes
    ----------
    rank_above, rank_below : int
        Rank at a keep probability just above and just below.
    keep_probability : float
        Where the rank of the global optimum falls.
    relaxed_keep_probability : float
        Where the convex relaxation (squared nuclear norm of strength nu) would place the fall to ``rank_below``.
    singular_values_above, singular_values_below : array (n,)
        Of the optimum on both sides.
    continuous : bool
        Whether singular values meet at the step. With two or more dropped layers they jump.
    """

    rank_above: int
    rank_below: int
    keep_probability: float
    relaxed_keep_probability: float
    singular_values_above: NDArray[np.float64]
    singular_values_below: NDArray[np.float64]
    continuous: bool


def predicted_ranks(
    singular_values: Array, keep_probabilities: Array, depth: int, widths: int | Sequence[int], block_size: int = 1
) -> NDArray[np.int64]:
    """Rank of the global optimum at each keep probability, one rate for all layers.

    Parameters
    ----------
    singular_values : array (n,)
        ``m``, of ``C_yx C^{-1/2}`` (`GlobalOptimum.target_singular_values`).
    keep_probabilities : array (t,)
    depth : int
        Number of dropped hidden layers k.
    widths : int or sequence of k ints
    block_size : int

    Returns
    -------
    array (t,) of int

    Raises
    ------
    InvalidArgumentError
        When singular values are negative, or a keep probability is outside (0, 1].
    """
    wanted, sizes = _checked(singular_values, depth, widths)
    rates: Iterable[Any] = check_keep_probability(keep_probabilities, 1).reshape(-1)
    return np.array(
        [best_spectrum(wanted, _layers(float(rate), sizes, block_size)).rank for rate in rates], dtype=np.int64
    )


def phases(singular_values: Array, depth: int, widths: int | Sequence[int], block_size: int = 1) -> list[Phase]:
    """The keep probabilities at which the rank of the global optimum falls, from the largest down.

    Bisection on the rank of `global_optimum`'s singular values, to a relative precision of 1e-9 in ``lam``. Steps that
    no rate reaches (equal singular values with one hidden layer) are absent. Derived, theory note 5.7.

    Parameters
    ----------
    singular_values, depth, widths, block_size
        As in `predicted_ranks`.

    Returns
    -------
    list of Phase

    Raises
    ------
    InvalidArgumentError
        As in `predicted_ranks`.
    """
    wanted, sizes = _checked(singular_values, depth, widths)

    def rank(log_rate: float) -> int:
        return best_spectrum(wanted, _layers(_keep(log_rate), sizes, block_size)).rank

    result = []
    low = _RANGE[0]
    current = rank(low)
    last = rank(_RANGE[1])
    while current > last:
        inside, outside = low, _RANGE[1]
        while outside - inside > 1e-9:
            middle = (inside + outside) / 2
            inside, outside = (middle, outside) if rank(middle) >= current else (inside, middle)
        above = best_spectrum(wanted, _layers(_keep(inside), sizes, block_size))
        below = best_spectrum(wanted, _layers(_keep(outside), sizes, block_size))
        jump = float(np.abs(above.kept - below.kept).max())
        result.append(
            Phase(
                rank_above=above.rank,
                rank_below=below.rank,
                keep_probability=_keep((inside + outside) / 2),
                relaxed_keep_probability=_relaxed_keep(wanted, below.rank + 1, sizes, block_size),
                singular_values_above=above.kept,
                singular_values_below=below.kept,
                continuous=jump <= 1e-4 * float(wanted[0]),
            )
        )
        low, current = outside, below.rank
    return result


def rank_one_keep_probability(singular_values: Array, depth: int, widths: int | Sequence[int]) -> float:
    """Keep probability below which the convex relaxation has rank one and is the proven global optimum; 0 if never.

    ``nu (m_1 - m_2) >= m_2`` with ``nu = prod_l (1 + lam/d_l) - 1``, the large-dropout regime of Mianjy and Arora
    (2019; condition derived, theory note 5.5).

    Parameters
    ----------
    singular_values, depth, widths
        As in `predicted_ranks`.
    """
    wanted, sizes = _checked(singular_values, depth, widths)
    return _relaxed_keep(wanted, 2, sizes, 1) if np.count_nonzero(wanted) > 1 else 1.0


def _checked(singular_values: Array, depth: int, widths: int | Sequence[int]) -> tuple[NDArray[np.float64], list[int]]:
    wanted = np.sort(finite_numbers("singular_values", singular_values, squared=True).reshape(-1))[::-1].copy()
    if not len(wanted) or wanted[-1] < 0:
        raise InvalidArgumentError("singular values are finite, nonnegative and at least one")
    return wanted, check_widths(widths, count("depth", depth))


def _layers(keep: float, widths: Sequence[int], block_size: int) -> list[LayerStrength]:
    return layer_strengths(keep, widths, block_size)


def _keep(log_rate: float) -> float:
    return float(1.0 / (1.0 + np.exp(log_rate)))


def _relaxed_keep(wanted: NDArray[np.float64], rank: int, widths: Sequence[int], block_size: int) -> float:
    """Where the relaxation drops direction ``j = rank``, counted from 1: nu = m_j / (sum_{i<=j} m_i - j m_j)."""
    if block_size > 1:
        return float("nan")
    excess = float(wanted[:rank].sum() - rank * wanted[rank - 1])
    if excess <= 1e-12 * float(wanted[0]):
        return 0.0
    limit = np.log1p(float(wanted[rank - 1]) / excess)
    log_rate = brentq(lambda value: float(np.log1p(np.exp(value) / np.array(widths)).sum()) - limit, -700.0, 700.0)
    return _keep(float(log_rate))
