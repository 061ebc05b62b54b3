"""One regularized tensor: its groups, its penalty, and the unit in which its weights are compared."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from itertools import repeat

import torch
from torch import nn

from ..penalties import Penalty, boundary_strength
from ._groups import Grouping
from ._metric import Metric
from ._rules import Selected

__all__ = ["Member"]

_BLOCK = 1 << 15


@dataclass(eq=False)
class Member:
    """A regularized tensor.

    Attributes
    ----------
    selected : Selected
        The parameter, its names and owners.
    grouping : Grouping
    penalty : Penalty
    metric : Metric
        Reads the optimizer.
    option_group : int
        Index of the optimizer's parameter group.
    memory : torch.Tensor or None
        What the face remembers, one number per group: eta of the last weights (reweighted) or the variance of the
        noise (dropout).
    support : torch.Tensor or None
        Once the support is frozen, 1 for every group that is kept and 0 for the others.
    drawn : bool
        Whether a forward pass has drawn noise for it.
    """

    selected: Selected
    grouping: Grouping
    penalty: Penalty
    metric: Metric
    option_group: int
    memory: torch.Tensor | None = None
    support: torch.Tensor | None = None
    drawn: bool = False

    @property
    def name(self) -> str:
        return self.selected.name

    @property
    def parameter(self) -> nn.Parameter:
        return self.selected.parameter

    @cached_property
    def boundary_strength(self) -> float:
        """Strength of the penalty at which magnitude 1, the boundary's, falls: a constant of the penalty."""
        return boundary_strength(self.penalty)

    @property
    def group_size(self) -> int:
        return self.grouping.size(self.parameter)

    @property
    def rate(self) -> float:
        return self.metric.rate(self.option_group)

    def magnitude(self) -> torch.Tensor:
        """Magnitude of every group, in the unit of a weight."""
        return self.grouping.magnitude(self.parameter.detach())

    def curved_magnitude(self) -> torch.Tensor:
        """Magnitude of every group times the square root of the optimizer's metric.

        In this unit the metric is 1: the proximal step of ``Omega(sqrt(metric) * w)`` in that metric is the plain
        one, and comparing weights is comparing ``metric * w**2``, their first-order saliency.
        """
        scale = self.metric.scale(self.parameter, self.option_group)
        if scale is None:
            return self.magnitude()
        return self.grouping.magnitude(scale.sqrt_().mul_(self.parameter.detach()))

    def curvature(self) -> float:
        """Root of the optimizer's metric at the median weight: from a curved magnitude to one of weights."""
        scale = self.metric.scale(self.parameter, self.option_group)
        return 1.0 if scale is None else float(scale.flatten()[:: max(1, scale.numel() >> 12)].median().sqrt())

    def steps(self, strength: float) -> float | torch.Tensor:
        """Proximal step of every group: ``strength * rate / metric``; of a group, its mean metric."""
        scale = self.metric.scale(self.parameter, self.option_group)
        if scale is None:
            return strength * self.rate
        if self.group_size > 1:
            scale = self.grouping.magnitude(scale)
        return scale.reciprocal_().mul_(strength * self.rate)

    def shrink(self, factor: Callable[..., torch.Tensor], *per_group: torch.Tensor | float) -> None:
        """Multiply every group by ``factor(*per_group)``; single weights in blocks that stay in the fast cache."""
        weights = self.parameter.detach()
        if self.group_size > 1 or not weights.is_contiguous() or weights.device.type != "cpu":
            self.multiply(factor(*per_group))
            return
        pieces = torch.split(weights.view(-1), _BLOCK)
        columns = [
            torch.split(value.reshape(-1), _BLOCK) if isinstance(value, torch.Tensor) else repeat(value, len(pieces))
            for value in per_group
        ]
        for piece, *arguments in zip(pieces, *columns, strict=True):
            piece.mul_(factor(*arguments))

    def multiply(self, factor: torch.Tensor) -> None:
        """Multiply every group by its factor, in place."""
        self.parameter.detach().mul_(self.grouping.spread(factor, self.parameter))

    def nonzero(self) -> int:
        return int(torch.count_nonzero(self.parameter.detach()))
