"""What dropout does to second moments, one weight layer at a time.

Behind weight layer ``W`` the second moment ``G`` of its inputs becomes ``W G W' + D``: ``D`` is the covariance that the
mask adds. Every form of the regularizer is a sum over layers of ``<D, ...>``; each kind of mask states ``D`` and its
adjoint ``<Q, D(G)> = <A(Q), G>``. Keep probabilities and laws of masks are read here.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from ..._core.text import brief
from ...errors import InvalidArgumentError
from .._connect import Connect
from .._law import MaskLaw, real_numbers

__all__ = ["KeepProbabilities", "Noise", "check_keep_probability", "layer_noises"]

# One keep probability or law for all hidden layers, or one per layer.
KeepProbabilities = Any


class Noise(Protocol):
    """The mask of one weight layer: after it (dropout of its outputs) or on it (DropConnect)."""

    def added(self, weight: Tensor, moment: Tensor, clean: Tensor) -> Tensor:
        """Covariance that the mask adds, (d, d) or its diagonal (d,), given ``moment`` G and ``clean = W G W'``."""

    def adjoint(self, weight: Tensor, outer: Tensor) -> Tensor:
        """``A(Q)`` (d_in, d_in) with ``<Q, D(G)> = <A(Q), G>``."""

    def weight_gradient(self, weight: Tensor, moment: Tensor, outer: Tensor) -> Tensor:
        """Half the derivative of ``<Q, D>`` with respect to the weight."""


@dataclass(frozen=True)
class Units:
    """Independent masks of the output units: ``D = diag(lam o diag H)``."""

    variance: Tensor  # () or (d,)

    def added(self, weight: Tensor, moment: Tensor, clean: Tensor) -> Tensor:
        return self.variance * clean.diagonal()

    def adjoint(self, weight: Tensor, outer: Tensor) -> Tensor:
        return (weight.mT * (self.variance * outer.diagonal())) @ weight

    def weight_gradient(self, weight: Tensor, moment: Tensor, outer: Tensor) -> Tensor:
        return (self.variance * outer.diagonal()).unsqueeze(-1) * (weight @ moment)


@dataclass(frozen=True)
class Structured:
    """Any law of the output units' masks: ``D = Cbar o H``."""

    law: MaskLaw

    def added(self, weight: Tensor, moment: Tensor, clean: Tensor) -> Tensor:
        result: Tensor = self.law.hadamard(clean)
        return result

    def adjoint(self, weight: Tensor, outer: Tensor) -> Tensor:
        result: Tensor = weight.mT @ self.law.hadamard(outer) @ weight
        return result

    def weight_gradient(self, weight: Tensor, moment: Tensor, outer: Tensor) -> Tensor:
        result: Tensor = self.law.hadamard(outer) @ weight @ moment
        return result


@dataclass(frozen=True)
class Weights:
    """Independent masks of the weights (DropConnect): ``D = diag((V o W o W) diag G)``, ``V`` the masks' variances."""

    variance: Tensor  # () or (d_out, d_in)

    def added(self, weight: Tensor, moment: Tensor, clean: Tensor) -> Tensor:
        return (self.variance * weight.square()) @ moment.diagonal()

    def adjoint(self, weight: Tensor, outer: Tensor) -> Tensor:
        return ((self.variance * weight.square()).mT @ outer.diagonal()).diag_embed()

    def weight_gradient(self, weight: Tensor, moment: Tensor, outer: Tensor) -> Tensor:
        return self.variance * weight * outer.diagonal().unsqueeze(-1) * moment.diagonal()


def check_keep_probability(value: Any, layer: int) -> np.ndarray[Any, np.dtype[np.float64]]:
    """``value`` as float64 numbers in (0, 1], or an error that names the layer."""
    try:
        keep = real_numbers(value, "keep_probability")
    except InvalidArgumentError:
        raise InvalidArgumentError(f"layer {layer}: not a keep probability or a law of masks: {brief(value)}") from None
    if not np.all((keep > 0) & (keep <= 1)):
        raise InvalidArgumentError(f"layer {layer}: keep probabilities lie in (0, 1], got {brief(value)}")
    return keep


def per_layer(keep_probability: KeepProbabilities, layers: int, *, output: bool = False) -> list[Any]:
    """One entry per hidden layer; with ``output`` one for each weight layer, None behind the last unless given."""
    if isinstance(keep_probability, (str, bytes)):
        raise InvalidArgumentError(f"not a keep probability: {keep_probability!r}")
    array = keep_probability if isinstance(keep_probability, (np.ndarray, Tensor)) else None
    if isinstance(keep_probability, Sequence) or (array is not None and array.ndim > 0):
        entries = list(keep_probability)
        if output and len(entries) == layers + 1:
            return entries
        if len(entries) != layers:
            raise InvalidArgumentError(f"{layers} hidden layers need {layers} keep probabilities, got {len(entries)}")
    else:
        if isinstance(keep_probability, Connect):
            # A mask on weights alone: every weight layer has one.
            return [keep_probability] * (layers + output)
        entries = [keep_probability] * layers
    return [*entries, None] if output else entries


def layer_noises(keep_probability: KeepProbabilities, weights: Sequence[Tensor]) -> list[Noise | None]:
    """The mask of each weight layer, None where nothing is dropped."""
    entries = per_layer(keep_probability, len(weights) - 1, output=True)
    return [_noise(entry, weight, layer) for layer, (entry, weight) in enumerate(zip(entries, weights, strict=True), 1)]


def _noise(entry: Any, weight: Tensor, layer: int) -> Noise | None:
    if entry is None:
        return None
    if isinstance(entry, Connect):
        variance = entry.variance(tuple(weight.shape))
        return Weights(torch.as_tensor(variance, dtype=weight.dtype, device=weight.device))
    if isinstance(entry, MaskLaw):
        return Structured(entry)
    keep = check_keep_probability(entry, layer)
    if keep.ndim > 1 or (keep.ndim == 1 and keep.shape[0] not in (1, weight.shape[0])):
        raise InvalidArgumentError(
            f"layer {layer} has {weight.shape[0]} units, got keep probabilities of shape {keep.shape}"
        )
    if np.all(keep == 1):
        return None
    return Units(torch.as_tensor((1 - keep) / keep, dtype=weight.dtype, device=weight.device))
