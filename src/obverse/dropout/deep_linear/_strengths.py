"""Effective strength of each dropped layer: the numbers through which rates, widths and blocks enter the optimum.

A layer of ``d`` units dropped independently counts with ``c = lam/d``, one of ``K`` blocks of ``r`` with ``c = lam/K``
and room ``r`` for its allocation ``0 <= a <= 1, sum a = r`` (theory note 5.6, 5.10). Unequal rates count with
``c = 1 / sum_i (1/lam_i)`` and ask the units to carry energy in proportion to ``1/lam_i`` (3.7).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..._core.checks import count, is_integer
from ...errors import InvalidArgumentError
from .._blocks import Blocks
from .._connect import Connect
from .._finite import listed
from .._independent import Bernoulli, Gaussian, Rademacher
from .._law import MaskLaw
from ._noise import KeepProbabilities, check_keep_probability, per_layer

__all__ = ["LayerStrength", "check_widths", "layer_strengths"]


@dataclass(frozen=True)
class LayerStrength:
    """One hidden layer: ``strength`` c, ``block`` r, its width, and the ``shares`` of energy that its groups carry.

    ``noise`` is what `explicit_regularizer` takes for this layer.
    """

    strength: float
    block: int
    width: int
    shares: NDArray[np.float64]
    noise: Any

    @property
    def equal(self) -> bool:
        """Whether all groups have one rate, so that every spectrum can be spread over them."""
        return bool(np.all(self.shares == self.shares[0]))


def check_widths(widths: int | Sequence[int], depth: int | None = None) -> list[int]:
    """Widths of the hidden layers as a list; one number stands for all ``depth`` of them."""
    found = _counts("widths", widths, 1 if depth is None else depth)
    if depth is not None and len(found) != depth:
        raise InvalidArgumentError(f"{depth} hidden layers need {depth} widths, got {len(found)}")
    return found


def _counts(name: str, values: int | Sequence[int], layers: int) -> list[int]:
    """Positive integers, one for each layer; a single one stands for all."""
    if is_integer(values):
        return [count(name, values)] * layers
    return [count(name, value) for value in listed(name, values)]


def layer_strengths(
    keep_probability: KeepProbabilities, widths: Sequence[int], block_size: int | Sequence[int] = 1
) -> list[LayerStrength]:
    """The strength of every hidden layer, or an error when a law has none in closed form."""
    blocks = _counts("block_size", block_size, len(widths))
    if len(blocks) != len(widths):
        raise InvalidArgumentError(f"{len(widths)} hidden layers need {len(widths)} block sizes, got {len(blocks)}")
    entries = per_layer(keep_probability, len(widths))
    return [
        _strength(entry, width, block, layer)
        for layer, (entry, width, block) in enumerate(zip(entries, widths, blocks, strict=True), 1)
    ]


def _strength(entry: Any, width: int, block: int, layer: int) -> LayerStrength:
    noise = entry
    if width < 1:
        raise InvalidArgumentError(f"layer {layer} has no units")
    if isinstance(entry, Blocks):
        if block not in (1, entry.block_size):
            raise InvalidArgumentError(f"layer {layer}: block_size {block} contradicts {entry!r}")
        block, entry = entry.block_size, entry.keep_probability
    if width % block:
        raise InvalidArgumentError(f"layer {layer}: blocks of {block} do not divide {width} units")
    groups = width // block
    independent = isinstance(entry, (Bernoulli, Gaussian, Rademacher)) and not isinstance(entry, Connect)
    if independent and block == 1:
        variance = np.asarray(entry.variance((width,)), dtype=np.float64)
    elif isinstance(entry, MaskLaw):
        raise InvalidArgumentError(
            f"layer {layer}: no closed form for {entry!r}; give a keep probability, independent units or Blocks"
        )
    else:
        keep = check_keep_probability(1.0 if entry is None else entry, layer)
        if keep.ndim > 1 or (keep.ndim == 1 and keep.shape[0] not in (1, groups)):
            raise InvalidArgumentError(
                f"layer {layer} has {groups} masks, got keep probabilities of shape {keep.shape}"
            )
        variance = np.broadcast_to((1 - keep) / keep, (groups,)).astype(np.float64)
        if block > 1 and not isinstance(noise, Blocks):
            noise = Blocks(entry, block)
    if np.all(variance == 0):
        return LayerStrength(0.0, block, width, np.full(groups, 1.0 / groups), 1.0)
    if np.any(variance == 0):
        raise InvalidArgumentError(f"layer {layer}: drop all units with some probability or none of them")
    precision = 1.0 / variance
    return LayerStrength(float(1.0 / precision.sum()), block, width, precision / precision.sum(), noise)
