"""Which weights of a tensor live or die together.

A grouping reduces a tensor to one magnitude per group and spreads one factor per group back. The magnitude is the
root mean square of the group's weights, so that groups of any size are measured in the unit of a weight, and the
penalty of a group of m weights is ``m * Omega(rms)``: its slope, eta and proximal operator are then those of a
single weight of that magnitude (derived in docs/theory.md, section 2.5).
"""

from __future__ import annotations

from typing import Protocol

import torch
from torch import nn

from ..errors import InvalidArgumentError, UnknownNameError
from ._shards import is_sharded

__all__ = ["SPANNING", "Grouping", "grouping"]


class Grouping(Protocol):
    """How one tensor falls into groups; `SpanningGroups` has the same three verbs for a list of tensors."""

    def size(self, parameter: torch.Tensor) -> int:
        """Number of weights in each group."""
        ...

    def magnitude(self, weights: torch.Tensor) -> torch.Tensor:
        """Root mean square of each group, at least 0; a new tensor, one entry per group."""
        ...

    def spread(self, per_group: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
        """``per_group`` in a shape that broadcasts against ``weights``."""
        ...


class _Weights:
    """Every weight for itself."""

    def size(self, parameter: torch.Tensor) -> int:
        return 1

    def magnitude(self, weights: torch.Tensor) -> torch.Tensor:
        return weights.abs()

    def spread(self, per_group: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
        return per_group


class _Slices:
    """The slices of a tensor along one axis: a unit's incoming weights, a filter."""

    def __init__(self, axis: int) -> None:
        self.axis = axis

    def size(self, parameter: torch.Tensor) -> int:
        return parameter.numel() // max(1, parameter.shape[self.axis])

    def magnitude(self, weights: torch.Tensor) -> torch.Tensor:
        others = [axis for axis in range(weights.ndim) if axis != self.axis]
        norms: torch.Tensor = torch.linalg.vector_norm(weights, dim=others)
        root: float = self.size(weights) ** 0.5
        return norms / root

    def spread(self, per_group: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
        shape = [1] * weights.ndim
        shape[self.axis] = -1
        return per_group.reshape(shape)


_TRANSPOSED = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)
KINDS = ("weights", "units", "filters", "inputs")
SPANNING = ("heads", "hidden", "embedding", "channels")
"""Kinds of groups that span several tensors and need ``example_inputs``."""


def grouping(kind: str, name: str, parameter: torch.Tensor, owner: nn.Module) -> Grouping:
    """The grouping of ``parameter`` named by ``kind``.

    ``"weights"`` takes any tensor. ``"units"`` are output units of linear and recurrent layers, of an embedding its
    dimensions, and of a convolution its filters; ``"filters"`` are the output channels of convolutions. ``"inputs"``
    are what leaves one input: the columns of linear and recurrent layers, a convolution's input channels, the rows of
    an embedding.

    Raises
    ------
    UnknownNameError, InvalidArgumentError
        If there is no such grouping, or the tensor has no such groups.
    """
    if kind in SPANNING:
        raise InvalidArgumentError(
            f"groups={kind!r} span several tensors, which are found by tracing the model: give example_inputs, one "
            "batch as the model takes it"
        )
    if kind not in KINDS:
        raise UnknownNameError("groups", kind, (*KINDS, *SPANNING))
    if kind == "weights":
        return _Weights()
    convolution = isinstance(owner, nn.modules.conv._ConvNd)
    if parameter.ndim < 2 or (kind == "filters" and not convolution):
        raise InvalidArgumentError(
            f"groups={kind!r} does not fit {name!r} ({type(owner).__name__}, shape {tuple(parameter.shape)}): "
            f"{'only convolutions have filters' if kind == 'filters' else 'it needs two dimensions or more'}; "
            "choose other groups for it, or skip it, with a Rule"
        )
    if kind == "inputs" and convolution and owner.groups > 1:  # type: ignore[operator]
        raise InvalidArgumentError(
            f"{name!r} is a grouped convolution, whose input channels are not slices of its weight; leave it out with "
            "Rule(..., skip=True) or use other groups for it"
        )
    if isinstance(owner, _TRANSPOSED) and owner.groups > 1:
        raise InvalidArgumentError(
            f"{name!r} is a grouped transposed convolution, whose output channels are not slices of its weight; "
            "leave it out with Rule(..., skip=True) or use groups='weights' for it"
        )
    turned = isinstance(owner, (*_TRANSPOSED, nn.Embedding, nn.EmbeddingBag))
    axis = int(turned != (kind == "inputs"))
    if axis > 0 and is_sharded(parameter):
        raise InvalidArgumentError(
            f"groups={kind!r} of {name!r} are cut apart by its shards, which lie along the first axis; use other groups"
        )
    return _Slices(axis)
