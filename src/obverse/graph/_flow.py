"""What is known about a tensor before any input is seen: its channels, and the values that no input can change."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import nn

from ._channels import WHOLE, Channels

__all__ = ["Even", "Flow", "Knowledge", "Move", "Read", "Scaled"]


@dataclass(frozen=True)
class Flow:
    """A tensor as the analysis sees it.

    Attributes
    ----------
    label : torch.Tensor
        The channel of every element, int64, in the shape of the tensor on the example inputs.
    value : torch.Tensor
        Its value in float64 where no input can change it, else 0; same shape.
    varying : torch.Tensor
        Where an input can change it; bool, same shape.
    stochastic : bool
        Whether every row along the last axis is nonnegative and sums to one (the output of a softmax).
    """

    label: torch.Tensor
    value: torch.Tensor
    varying: torch.Tensor
    stochastic: bool = False

    def constant(self, axis: int) -> torch.Tensor:
        """The value of every channel along ``axis`` where it is one constant at all positions, else NaN; float64."""
        size = self.value.shape[axis]
        value = self.value.movedim(axis, 0).reshape(size, -1)
        varying = self.varying.movedim(axis, 0).reshape(size, -1)
        same = ~varying.any(1) & (value == value[:, :1]).all(1)
        return torch.where(same, value[:, 0], torch.nan)


@dataclass
class Read:
    """A layer that reads channels through weights: ``out_i = sum_j weight[i, j] in_j + bias_i``.

    Attributes
    ----------
    owner : str
        Qualified name of the layer.
    rows, columns : torch.Tensor
        Labels of what it writes and reads.
    weight : torch.Tensor
        Sum over kernel positions, float64, (rows, columns): what a constant input adds to the output.
    nonzero : torch.Tensor
        Where any weight is different from zero, bool, (rows, columns).
    constant : torch.Tensor
        Value of every column where it can be folded exactly, else NaN; (columns,).
    settled : torch.Tensor
        Rows whose output is constant whatever the columns do, bool, (rows,).
    bias : str or None
        Qualified name of the parameter that takes up constants.
    why : str
        Why constants that are not zero cannot be folded here, empty where they can.
    """

    owner: str
    rows: torch.Tensor
    columns: torch.Tensor
    weight: torch.Tensor
    nonzero: torch.Tensor
    constant: torch.Tensor
    settled: torch.Tensor
    bias: str | None
    why: str = ""


@dataclass
class Move:
    """An operation that only moves elements: what it read and wrote, and the module whose code it stands in."""

    name: str
    owner: str
    before: list[torch.Tensor]
    after: list[torch.Tensor]
    sizes: tuple[int, ...] = ()


@dataclass
class Even:
    """Sets of channels that must keep equally many, such as the groups of a grouped convolution."""

    sets: list[torch.Tensor]
    reason: str


@dataclass
class Scaled:
    """A root-mean-square norm: removing zero channels is exact when weight and eps are rescaled."""

    owner: str
    labels: torch.Tensor


@dataclass
class Knowledge:
    """Everything the analysis of one model found out."""

    model: nn.Module
    channels: Channels = field(default_factory=Channels)
    axes: dict[str, dict[int, torch.Tensor]] = field(default_factory=dict)  # parameter -> axis -> labels
    words: dict[tuple[str, int], str] = field(default_factory=dict)
    reads: list[Read] = field(default_factory=list)
    moves: list[Move] = field(default_factory=list)
    evens: list[Even] = field(default_factory=list)
    scaled: list[Scaled] = field(default_factory=list)
    boxes: list[tuple[torch.Tensor, tuple[int, ...], str]] = field(default_factory=list)  # labels, whole axes, reason
    kinds: dict[str, list[torch.Tensor]] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    writes: set[tuple[str, int]] = field(default_factory=set)  # the axes along which a layer writes channels
    assume_zeroed: bool = False  # what goes will have been zeroed with all that writes it

    def __post_init__(self) -> None:
        self._first: dict[int, str] = {}
        for name, tensor in [
            *self.model.named_parameters(remove_duplicate=False),
            *self.model.named_buffers(remove_duplicate=False),
        ]:
            self._first.setdefault(id(tensor), name)

    def name_of(self, tensor: torch.Tensor) -> str | None:
        """The first name of a parameter or buffer: tied tensors have one."""
        return self._first.get(id(tensor))

    def axis(self, tensor: torch.Tensor, axis: int, words: str, *, writes: bool = False) -> torch.Tensor:
        """The labels of a parameter's indices along an axis; the same at every use, so tied tensors stay tied."""
        name = self._first[id(tensor)]
        if writes:
            self.writes.add((name, axis))
        held = self.axes.setdefault(name, {})
        if axis not in held:
            held[axis] = self.channels.fresh(tensor.shape[axis])
        self.words.setdefault((name, axis), words)
        return held[axis]

    def whole(self, like: torch.Tensor) -> Flow:
        """A flow of which nothing is known and nothing can be removed."""
        shape = like.shape
        return Flow(
            torch.full(shape, WHOLE), torch.zeros(shape, dtype=torch.float64), torch.ones(shape, dtype=torch.bool)
        )
