"""Networks with the same product and less to lose: equalizing the units of every layer by rotation."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from ..._core.arrays import Array, numbers
from ...errors import InvalidArgumentError
from ._explicit import admit_network, inner_moments, outer_moments
from ._noise import KeepProbabilities, Noise, Units, layer_noises
from ._rotation import equalizing_rotation

__all__ = ["equalize"]

_NEGLIGIBLE = 1e-30  # share of a layer's energy below which a unit counts as silent


def equalize(
    weights: Sequence[Array], keep_probability: KeepProbabilities, covariance: Array | None = None
) -> list[Array]:
    """The same linear map with all units of a layer equally active: every ``diag H_l`` is constant.

    Layer by layer, units are first rescaled so that activity and outgoing energy balance, which changes neither the
    product nor the regularizer, then turned by `equalizing_rotation`. The explicit regularizer never grows; where it
    was not equalized it falls (Mianjy, Arora and Vidal, 2018, for one hidden layer; derived for any depth, theory note
    5.3). The gap to the least possible value (`induced_regularizer`) may remain.

    Parameters
    ----------
    weights : sequence of k + 1 arrays
    keep_probability : float or sequence of k floats
        One rate per layer.
    covariance : array (d_0, d_0), optional

    Returns
    -------
    list of k + 1 arrays
        In the kind and dtype of the weights, detached.

    Raises
    ------
    InvalidArgumentError
        When shapes do not fit, or rates differ within a layer or masks are structured.
    """
    matrices, moment, back = admit_network(weights, covariance)
    like = matrices[0]
    wide = [matrix.detach().double() for matrix in matrices]
    noises = layer_noises(keep_probability, wide)
    for layer, noise in enumerate(noises, 1):
        if noise is not None and not (isinstance(noise, Units) and noise.variance.numel() == 1):
            raise InvalidArgumentError(f"layer {layer}: equalizing takes one keep probability per layer")
    inner = moment.detach().double()
    for layer in range(len(wide) - 1):
        below: list[Noise | None] = noises[layer : layer + 1]
        clean = (wide[layer] @ inner @ wide[layer].mT).diagonal()
        outer = outer_moments(wide, noises)[layer + 1].diagonal()
        scale = (_floored(outer) / _floored(clean)) ** 0.25
        incoming, outgoing = wide[layer] * scale.unsqueeze(-1), wide[layer + 1] / scale
        turn = equalizing_rotation(incoming @ inner @ incoming.mT)
        wide[layer], wide[layer + 1] = turn.mT @ incoming, outgoing @ turn
        inner = inner_moments(wide[layer : layer + 1], below, inner)[0][-1]
    return [back(matrix.to(like.dtype)) for matrix in wide]


def _floored(energy: torch.Tensor) -> torch.Tensor:
    """Energies of units, silent ones raised to a negligible share so that they can be rescaled like the others."""
    total = float(numbers(energy).sum())
    return energy.clamp(min=total * _NEGLIGIBLE if total > 0 else float(np.finfo(np.float64).tiny))
