"""Groups that span several tensors: a channel with all that writes it, all that belongs to it and all that reads it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch
from torch import nn

from .._core.arrays import wide
from ._member import Member

__all__ = ["Part", "Span", "SpanningGroups"]


@dataclass(frozen=True)
class Part:
    """A tensor that has slices of spanning groups.

    Attributes
    ----------
    name : str
    parameter : nn.Parameter
    option_group : int
        Index of the optimizer's parameter group.
    axes : dict of int to torch.Tensor
        Of one axis or two: the group of every index, the number of groups where it is in none; int64, (size,).
    """

    name: str
    parameter: nn.Parameter
    option_group: int
    axes: dict[int, torch.Tensor]


class SpanningGroups:
    """The three verbs of a grouping, over the list of the tensors that groups span.

    An entry that a group reaches along two axes, such as the diagonal of a recurrent matrix, counts once.
    """

    def __init__(self, parts: Sequence[Part], count: int) -> None:
        self.parts, self.count = tuple(parts), count
        self._both = [_both(part, count) for part in self.parts]
        first = self._sums([torch.ones_like(part.parameter, dtype=torch.float32) for part in self.parts])
        self._size = int(first[0])

    def size(self, parameter: torch.Tensor) -> int:
        """Number of weights in each group, in all tensors together."""
        return self._size

    def magnitude(self, weights: Sequence[torch.Tensor]) -> torch.Tensor:
        """Root mean square of each group over the tensors that it spans; (groups,)."""
        return self._sums([wide(one).square() for one in weights]).div_(self._size).sqrt_()

    def spread(self, per_group: torch.Tensor, weights: Sequence[torch.Tensor]) -> list[torch.Tensor]:
        """For every tensor the factor of its entries, in a shape that broadcasts against it; 1 outside the groups."""
        padded = torch.cat([per_group, per_group.new_ones(1)])
        factors = []
        for part, both, weight in zip(self.parts, self._both, weights, strict=True):
            ends = [padded[index].reshape(_along(axis, weight.ndim)) for axis, index in part.axes.items()]
            factor = ends[0] if len(ends) == 1 else ends[0] * ends[1]
            if both is not None:  # once, not for each of the two axes
                factor = torch.where(both, ends[0], factor)
            factors.append(factor.to(weight.dtype))
        return factors

    def _sums(self, entries: Sequence[torch.Tensor]) -> torch.Tensor:
        total = torch.zeros(self.count + 1, dtype=entries[0].dtype, device=entries[0].device)
        for part, both, entry in zip(self.parts, self._both, entries, strict=True):
            for axis, index in part.axes.items():
                others = [one for one in range(entry.ndim) if one != axis]
                total.index_add_(0, index, (entry.sum(others) if others else entry).to(total.dtype))
            if both is not None:
                axis, index = next(iter(part.axes.items()))
                twice = entry * both
                total.index_add_(0, index, -twice.sum([one for one in range(entry.ndim) if one != axis]))
        return total[: self.count]


def _along(axis: int, dimensions: int) -> list[int]:
    return [-1 if one == axis else 1 for one in range(dimensions)]


def _both(part: Part, count: int) -> torch.Tensor | None:
    """Where a group reaches an entry along two axes; None where nowhere."""
    if len(part.axes) < 2:
        return None
    (first, one), (second, two) = part.axes.items()
    dimensions = part.parameter.ndim
    one, two = one.reshape(_along(first, dimensions)), two.reshape(_along(second, dimensions))
    both = (one == two) & (one < count)
    return both if bool(both.any()) else None


@dataclass(eq=False)
class Span(Member):
    """A family of groups that span several tensors; its own parameter is the first one that writes the channels.

    Attributes
    ----------
    parts : tuple of Part
    roots : torch.Tensor
        What the graph calls the groups, (groups,).
    label : str
        Name of the family: that of its own parameter, numbered where several families have the same.
    """

    parts: tuple[Part, ...] = ()
    roots: torch.Tensor = field(default_factory=lambda: torch.empty(0, dtype=torch.long))
    label: str = ""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.groups = SpanningGroups(self.parts, len(self.roots))

    @property
    def name(self) -> str:
        return self.label

    @property
    def parameters(self) -> list[nn.Parameter]:
        return [part.parameter for part in self.parts]

    @property
    def group_size(self) -> int:
        return self.groups.size(self.parameter)

    def group_shape_of(self, *, is_held: bool) -> torch.Size:
        return torch.Size([self.groups.count])

    @property
    def count(self) -> int:
        return self.groups.count * self.group_size

    @property
    def has_state(self) -> bool:
        return any(self.metric.has_state(parameter) for parameter in self.parameters)

    def magnitude(self) -> torch.Tensor:
        return self.groups.magnitude(self._all_held)

    def penalized_magnitude(self) -> torch.Tensor:
        return self.magnitude()

    def curved_magnitude(self) -> torch.Tensor:
        scales = self._scales()
        weights = self._all_held
        return self.groups.magnitude(
            [w if s is None else w * s.sqrt() for w, s in zip(weights, scales, strict=True)],
        )

    def gradient_magnitude(self) -> torch.Tensor | None:
        pulls = []
        for part in self.parts:
            gradient = part.parameter.grad
            pulls.append(torch.zeros_like(part.parameter) if gradient is None else gradient.detach())
        return None if self.parameter.grad is None else self.groups.magnitude(pulls)

    def steps(self, strength: float) -> float | torch.Tensor:
        """Proximal step of every group: strength and mean rate over the root mean square of the metric."""
        sizes = [part.parameter.numel() for part in self.parts]
        rates = [self.metric.rate(part.option_group) for part in self.parts]
        rate = sum(size * one for size, one in zip(sizes, rates, strict=True)) / sum(sizes)
        scales = self._scales()
        if all(scale is None for scale in scales):
            return strength * rate
        weights = self._all_held
        known = [torch.ones_like(w) if s is None else s for w, s in zip(weights, scales, strict=True)]
        return self.groups.magnitude(known).reciprocal_().mul_(strength * rate)

    def shrink(self, factor: Callable[..., torch.Tensor], *per_group: torch.Tensor | float) -> None:
        self.multiply(factor(*per_group))

    def multiply(self, factor: torch.Tensor) -> None:
        for weight, one in zip(self._all_held, self.groups.spread(factor, self._all_held), strict=True):
            weight.mul_(one)

    def nonzero(self) -> int:
        """Weights in groups that are not zero; those that two groups share count for both."""
        return int(torch.count_nonzero(self.magnitude())) * self.group_size

    def masks(self, support: torch.Tensor) -> list[tuple[nn.Parameter, torch.Tensor]]:
        return list(zip(self.parameters, self.groups.spread(support, self._all_held), strict=True))

    def nonzero_masks(self) -> list[tuple[nn.Parameter, torch.Tensor]]:
        return self.masks((self.magnitude() != 0).to(self.parameter.dtype))

    @property
    def _all_held(self) -> list[torch.Tensor]:
        return [parameter.detach() for parameter in self.parameters]

    def _scales(self) -> list[torch.Tensor | None]:
        return [self.metric.scale(part.parameter, part.option_group) for part in self.parts]
