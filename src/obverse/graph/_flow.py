"""What is known about a tensor before any input is seen: its channels, and the values that no input can change."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import nn

from ._channels import WHOLE, Channels

__all__ = ["Even", "Flow", "Knowledge", "Move", "Read", "Scaled", "squeezed"]


def squeezed(tensor: torch.Tensor) -> torch.Tensor:
    """The same tensor with length 1 along every axis along which it does not change."""
    for axis in range(tensor.ndim):
        if tensor.shape[axis] > 1:
            first = tensor.narrow(axis, 0, 1)
            if tensor.stride(axis) == 0 or bool((tensor == first).all()):
                tensor = first
    return tensor


@dataclass(frozen=True)
class Flow:
    """A tensor as the analysis sees it.

    Its three tensors broadcast to the shape of the real one: they have length 1 along every axis along which they do
    not change, so that a feature map of any height and width costs as much as its channels.

    Attributes
    ----------
    shape : tuple of int
        Shape of the tensor on the example inputs.
    label : torch.Tensor
        The channel of every element, int64.
    value : torch.Tensor
        Its value in float64 where no input can change it, else 0.
    varying : torch.Tensor
        Where an input can change it, bool.
    stochastic : bool
        Whether every row along the last axis is nonnegative and sums to one (the output of a softmax).
    real : torch.Tensor or None
        The tensor itself, on the example inputs.
    """

    shape: tuple[int, ...]
    label: torch.Tensor
    value: torch.Tensor
    varying: torch.Tensor
    stochastic: bool = False
    real: torch.Tensor | None = None

    @classmethod
    def of(
        cls,
        shape: Sequence[int],
        label: torch.Tensor,
        value: torch.Tensor,
        varying: torch.Tensor,
        *,
        stochastic: bool = False,
    ) -> Flow:
        """A flow of tensors that broadcast to ``shape``, squeezed, with value 0 where it varies."""
        varying = squeezed(_aligned(varying, len(shape)))
        value = _aligned(value, len(shape))
        if bool(varying.all()):
            value = torch.zeros((1,) * len(shape), dtype=torch.float64)
        else:
            value = squeezed(value.double().masked_fill(varying, 0))
        return cls(tuple(shape), squeezed(_aligned(label, len(shape))), value, varying, stochastic)

    @property
    def ndim(self) -> int:
        """Number of axes."""
        return len(self.shape)

    def full(self, tensor: torch.Tensor) -> torch.Tensor:
        """One of the flow's tensors expanded to its shape, without a copy."""
        return tensor.expand(self.shape)

    def is_whole(self) -> bool:
        """Whether every element keeps its size: nothing of the tensor is a channel."""
        return self.label.numel() == 1 and int(self.label) == WHOLE

    def constant(self, axis: int) -> torch.Tensor:
        """The value of every channel along ``axis`` where it is one constant at all positions, else NaN; float64."""
        size = self.shape[axis]
        varying = self.varying.movedim(axis, 0).reshape(self.varying.shape[axis], -1).any(1)
        value = self.value.movedim(axis, 0).reshape(self.value.shape[axis], -1)
        same = (value == value[:, :1]).all(1)
        found = torch.where(same, value[:, 0], torch.nan)
        return torch.where(varying, torch.nan, found).expand(size)

    def varied_axes(self) -> list[int]:
        """Axes along which the channels differ."""
        return [axis for axis in range(self.ndim) if self.label.shape[axis] > 1]

    def with_label(self, label: torch.Tensor) -> Flow:
        """The same values under other channels."""
        return replace(self, label=squeezed(_aligned(label, self.ndim)), real=None)


def _aligned(tensor: torch.Tensor, ndim: int) -> torch.Tensor:
    return tensor.reshape((1,) * (ndim - tensor.ndim) + tuple(tensor.shape)) if tensor.ndim < ndim else tensor


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
        Sum over kernel positions, (rows, columns): what a constant input adds to the output.
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
    """An operation that only moves elements: what it read and wrote, and the module whose code it stands in.

    ``sizes`` has the axes of what it wrote whose lengths the code states as numbers.
    """

    name: str
    owner: str
    before: list[torch.Tensor]
    after: list[torch.Tensor]
    sizes: dict[int, int] = field(default_factory=dict)


@dataclass
class Even:
    """Sets of channels that must keep equally many, such as the groups of a grouped convolution."""

    sets: list[torch.Tensor]
    reason: str


@dataclass
class Scaled:
    """A norm by a mean over channels: removing zero channels is exact when weight and eps are rescaled.

    Attributes
    ----------
    owner : str
    labels : torch.Tensor
    eps : str
        Name of its attribute.
    offset : float
        The scale is the weight plus this.
    root : bool
        Whether the norm divides by the root of the mean; else by the mean itself.
    """

    owner: str
    labels: torch.Tensor
    eps: str = "eps"
    offset: float = 0.0
    root: bool = True


@dataclass(frozen=True)
class Source:
    """Where a tensor's numbers come from: a parameter or buffer, and which of its entries.

    Attributes
    ----------
    name : str
        First qualified name of the parameter.
    shape : tuple of int
        Shape of the parameter.
    index : torch.Tensor or None
        Flat index into the parameter of every element of the tensor; None where it is the parameter itself.
    axes : dict of int to int, optional
        Instead of an index: which axis of the parameter an axis of the tensor is.
    """

    name: str
    shape: tuple[int, ...]
    index: torch.Tensor | None = None
    axes: dict[int, int] | None = None

    def flat(self) -> torch.Tensor:
        """The flat index of every element."""
        if self.index is not None:
            return self.index
        count = 1
        for size in self.shape:
            count *= size
        return torch.arange(count).reshape(self.shape)

    def axis(self, axis: int, ndim: int) -> tuple[int, torch.Tensor | None] | None:
        """The parameter's axis that a tensor's axis runs along, and the index at every place; None where it is none."""
        axis %= ndim
        if self.axes is not None:
            return (self.axes[axis], None) if axis in self.axes else None
        if self.index is None:
            return axis, None
        rest = self.index
        stride = 1
        found: tuple[int, torch.Tensor] | None = None
        for own in range(len(self.shape) - 1, -1, -1):
            coordinate = squeezed(rest // stride % self.shape[own])
            stride *= self.shape[own]
            if coordinate.numel() > 1 and coordinate.shape[axis] == coordinate.numel():
                found = own, coordinate.reshape(-1)
        return found


def _covers(index: torch.Tensor, size: int) -> bool:
    """Whether an index has every place equally often in order, as a reshape leaves it."""
    if len(index) % size:
        return False
    every, times = torch.arange(size), len(index) // size
    return torch.equal(index, every.repeat_interleave(times)) or torch.equal(index, every.repeat(times))


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
    follows: set[tuple[str, int]] = field(default_factory=set)  # axes that are cut and need not be zero before
    fixed: dict[str, str] = field(default_factory=dict)  # parameters that keep their shape, and why
    assume_zeroed: bool = False  # what goes will have been zeroed with all that writes it

    def __post_init__(self) -> None:
        self._sources: dict[int, list[Source]] = {}
        self._held: list[torch.Tensor] = []  # ids are those of living tensors
        self.created: dict[int, tuple[str, dict[int, int]]] = {}  # constants: in whose code, and stated sizes
        self.joined: dict[int, tuple[int, list[torch.Tensor]]] = {}  # weights in a row along an axis
        self.opened: dict[int, torch.Tensor] = {}  # labels of constants whose size can be changed
        for name, tensor in [
            *self.model.named_parameters(remove_duplicate=False),
            *self.model.named_buffers(remove_duplicate=False),
        ]:
            self._sources.setdefault(id(tensor), [Source(name, tuple(tensor.shape))])

    def module(self, name: str) -> nn.Module | None:
        """The module of that qualified name, None where there is none."""
        try:
            return self.model.get_submodule(name)
        except AttributeError:
            return None

    def name_of(self, tensor: torch.Tensor) -> str | None:
        """The first name of a parameter or buffer: tied tensors have one. None for anything else."""
        sources = self._sources.get(id(tensor), [])
        return sources[0].name if len(sources) == 1 and sources[0].index is None and sources[0].axes is None else None

    def sources(self, tensor: torch.Tensor) -> list[Source]:
        """Where a tensor's numbers come from; empty for what is no parameter and not made of one."""
        if id(tensor) in self.joined:
            return [source for part in self.joined[id(tensor)][1] for source in self.sources(part)]
        return self._sources.get(id(tensor), [])

    def join(self, tensor: torch.Tensor, axis: int, parts: list[torch.Tensor]) -> None:
        """Remember that a tensor is made of weights that stand one behind the other along an axis."""
        self.joined[id(tensor)] = (axis % tensor.ndim, parts)
        self._held += [tensor, *parts]

    def derive(self, tensor: torch.Tensor, sources: list[Source]) -> None:
        """Remember what a tensor was made of."""
        self._sources[id(tensor)] = sources
        self._held.append(tensor)

    def create(self, tensor: torch.Tensor, owner: str, sizes: dict[int, int]) -> None:
        """Remember a constant that code makes, and which of its sizes the code states."""
        self.created[id(tensor)] = (owner, sizes)
        self._held.append(tensor)

    def snapshot(self, tensor: torch.Tensor) -> torch.Tensor:
        """A copy of a constant, of which everything is known that is known of it."""
        copy = tensor.detach().clone()
        if self.sources(tensor):
            self.derive(copy, self.sources(tensor))
        if id(tensor) in self.created:
            self.create(copy, *self.created[id(tensor)])
        self._held.append(copy)
        return copy

    def axis(self, tensor: torch.Tensor, axis: int, words: str, *, writes: bool = False) -> torch.Tensor:
        """The labels of a weight's indices along an axis; the same at every use, so tied tensors stay tied."""
        if id(tensor) in self.joined:
            along, parts = self.joined[id(tensor)]
            every = [self.axis(part, axis, words, writes=writes) for part in parts]
            if axis % tensor.ndim == along:
                return torch.cat(every)
            for other in every[1:]:
                self.channels.tie(every[0], other)
            return every[0]
        found: torch.Tensor | None = None
        for labels in self._labels(tensor, axis, words, writes):
            if found is None:
                found = labels
            else:
                self.channels.tie(found, labels)
        if found is None:
            # Nothing is known of what the numbers were made of along this axis.
            for source in self.sources(tensor):
                self.fix(source.name, f"{source.name} is rearranged before it is used")
            return torch.full((tensor.shape[axis],), WHOLE)
        return found

    def entries(self, name: str, size: int, words: str) -> torch.Tensor:
        """The labels of a parameter of one axis."""
        held = self.axes.setdefault(name, {})
        if 0 not in held:
            held[0] = self.channels.fresh(size)
        self.words.setdefault((name, 0), words)
        return held[0]

    def _labels(self, tensor: torch.Tensor, axis: int, words: str, writes: bool) -> Iterator[torch.Tensor]:
        for source in self.sources(tensor):
            place = source.axis(axis, tensor.ndim)
            if place is None:
                continue
            own, index = place
            held = self.axes.setdefault(source.name, {})
            if own not in held:
                held[own] = self.channels.fresh(source.shape[own])
            self.words.setdefault((source.name, own), words)
            if writes:
                self.writes.add((source.name, own))
            if index is not None and not _covers(index, source.shape[own]):
                self.fix(source.name, f"parts of {source.name} are used apart")
            yield held[own] if index is None else held[own][index]

    def keep_along(self, flow: Flow, axes: Sequence[int], reason: str) -> None:
        """Keep together what a function looks at together: all channels along these axes, or those of every head."""
        if not any(flow.label.shape[axis] > 1 for axis in axes):
            return
        within = {axis % flow.ndim for axis in axes}
        if all(axis in within for axis in flow.varied_axes()):
            self.channels.pin(flow.label, reason)
        else:
            self.boxes.append((flow.label, tuple(sorted(within)), reason))

    def fix(self, name: str, reason: str) -> None:
        """Keep the shape of a parameter."""
        self.fixed.setdefault(name, reason)

    def settle(self) -> None:
        """Pin the channels of everything that keeps its shape; the last step of an analysis."""
        for name, reason in self.fixed.items():
            for labels in self.axes.get(name, {}).values():
                self.channels.pin(labels, reason)

    def whole(self, like: torch.Tensor) -> Flow:
        """A flow of which nothing is known and nothing can be removed."""
        one = (1,) * like.ndim
        return Flow(
            tuple(like.shape),
            torch.full(one, WHOLE),
            torch.zeros(one, dtype=torch.float64),
            torch.ones(one, dtype=torch.bool),
        )
