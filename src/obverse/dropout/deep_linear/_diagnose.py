"""How far a deep linear network is from what its dropout asks for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import reduce

import numpy as np
from numpy.typing import NDArray

from ..._core.arrays import Array, numbers
from ..._core.text import aligned
from .._finite import finite_numbers, listed
from ._bounds import nuclear_norm_bound
from ._explicit import explicit_regularizer
from ._induced import induced_regularizer
from ._noise import KeepProbabilities
from ._objective import objective
from ._optimum import global_optimum

__all__ = ["Diagnosis", "diagnose"]


@dataclass(frozen=True, eq=False)
class Diagnosis:
    """Result of `diagnose`; ``print`` it for a table.

    Attributes
    ----------
    layer_values : array (k,)
        Share of every hidden layer in the explicit regularizer (last-dropped split).
    regularizer : float
        Explicit regularizer R.
    bound, strength : float
        ``nu ||W C^{1/2}||_*^2`` and nu.
    ratio : float
        ``regularizer / bound``, at least 1; NaN when the bound is 0.
    induced : float
        Least regularizer of any network with the same product.
    equalization_gap : float
        ``regularizer - induced``, at least 0 up to rounding: 0 when the factorization is the best for its product.
    singular_values : array (n,)
        Of ``W C^{1/2}``.
    effective_rank : float
        Exponential of the entropy of the normalized singular values (Roy and Vetterli, 2007).
    predicted_singular_values : array (n,) or None
        Those of the global optimum; None without ``cross_covariance``, like the two below.
    predicted_rank : int or None
    optimality_gap : float or None
        Expected loss minus the global minimum.
    """

    layer_values: NDArray[np.float64]
    regularizer: float
    bound: float
    strength: float
    ratio: float
    induced: float
    equalization_gap: float
    singular_values: NDArray[np.float64]
    effective_rank: float
    predicted_singular_values: NDArray[np.float64] | None
    predicted_rank: int | None
    optimality_gap: float | None

    def __str__(self) -> str:
        rows = [("regularizer R", self.regularizer)]
        rows += [(f"  layer {layer}", value) for layer, value in enumerate(self.layer_values, 1)]
        rows += [
            ("nuclear-norm bound", self.bound),
            ("  strength nu", self.strength),
            ("  R / bound", self.ratio),
            ("least R for this product", self.induced),
            ("equalization gap", self.equalization_gap),
            ("effective rank", self.effective_rank),
        ]
        if self.predicted_rank is not None and self.optimality_gap is not None:
            rows += [("predicted rank", self.predicted_rank), ("optimality gap", self.optimality_gap)]
        columns = {"actual": self.singular_values, "predicted": self.predicted_singular_values}
        shown = {name: column for name, column in columns.items() if column is not None}
        values = [
            [f"  {index + 1}", *(f"{column[index]:.6g}" for column in shown.values())]
            for index in range(len(self.singular_values))
        ]
        table = aligned([(name, f"{value:.6g}") for name, value in rows])
        return f"{table}\n\n{aligned([['singular value', *shown], *values])}"


def diagnose(
    weights: Sequence[Array],
    keep_probability: KeepProbabilities,
    covariance: Array | None = None,
    cross_covariance: Array | None = None,
) -> Diagnosis:
    """Compare a network's regularizer with its bounds, and the network with the global optimum (theory note 5.9).

    Parameters
    ----------
    weights : sequence of k + 1 arrays
    keep_probability : float, `Blocks`, law of independent units, or a sequence with one of these per hidden layer
    covariance : array (d_0, d_0), optional
        Second moment of the inputs, default the identity.
    cross_covariance : array (d_{k+1}, d_0), optional
        ``C_yx``; with it, predicted singular values, rank and the optimality gap.

    Returns
    -------
    Diagnosis

    Raises
    ------
    InvalidArgumentError
        When shapes do not fit or a law has no closed form.
    """
    matrices = [
        finite_numbers(f"weight layer {layer}", weight) for layer, weight in enumerate(listed("weights", weights), 1)
    ]
    moment = None if covariance is None else finite_numbers("covariance", covariance)
    split = explicit_regularizer(matrices, keep_probability, moment, per_layer=True)
    regularizer = float(split.sum())
    bound, strength = nuclear_norm_bound(matrices, keep_probability, moment)
    widths = [len(matrix) for matrix in matrices[:-1]]
    product = reduce(lambda below, matrix: matrix @ below, matrices)
    induced = induced_regularizer(product, keep_probability, widths, moment)
    singular = induced.singular_values
    total = float(singular.sum())
    shares = singular[singular > 0] / total if total > 0 else np.ones(0)
    predicted = predicted_rank = optimality_gap = None
    if cross_covariance is not None:
        optimum = global_optimum(moment, cross_covariance, keep_probability=keep_probability, widths=widths)
        predicted, predicted_rank = optimum.singular_values, optimum.rank
        loss = float(objective(matrices, keep_probability, moment, numbers(cross_covariance)))
        optimality_gap = loss - optimum.value
    return Diagnosis(
        layer_values=np.asarray(split[:-1]),
        regularizer=regularizer,
        bound=float(bound),
        strength=strength,
        ratio=regularizer / float(bound) if bound > 0 else float("nan"),
        induced=float(induced.value),
        equalization_gap=regularizer - float(induced.value),
        singular_values=singular,
        effective_rank=float(np.exp(-(shares * np.log(shares)).sum())) if total > 0 else 0.0,
        predicted_singular_values=predicted,
        predicted_rank=predicted_rank,
        optimality_gap=optimality_gap,
    )
