"""One regularized tensor: its groups, its penalty, and the unit in which its weights are compared."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import repeat

import torch
from torch import nn

from ..penalties import Penalty, Rescaled, boundary_strength
from ._groups import Grouping
from ._metric import Metric
from ._own_penalty import tabulated
from ._rules import Selected
from ._shards import gathered, local, local_part, summed, traced

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
        The penalty in the width of the moment, see `widen`; tabulated where it has no formulas of its own.
    metric : Metric
        Reads the optimizer.
    option_group : int
        Index of the optimizer's parameter group.
    memory : torch.Tensor or None
        What the face remembers, one number per group: eta of the last weights (reweighted) or the variance of the
        noise (dropout).
    learned : dict of str to nn.Parameter
        What the face learns, one number per group.
    curve : torch.Tensor or None
        Root of the loss's curvature, relative, in a shape that broadcasts against the weights; None where weights are
        compared as they are.
    support : torch.Tensor or None
        Once the support is frozen, 1 for every group that is kept and 0 for the others.
    drawn : bool
        Whether a forward pass has drawn noise for it.
    is_whole : bool
        Whether all processes work on the whole of a tensor that is sharded over them, as the forward pass does.
    """

    selected: Selected
    grouping: Grouping
    penalty: Penalty
    metric: Metric
    option_group: int
    memory: torch.Tensor | None = None
    learned: dict[str, nn.Parameter] = field(default_factory=dict)
    curve: torch.Tensor | None = None
    support: torch.Tensor | None = None
    drawn: bool = False
    is_whole: bool = False

    def __post_init__(self) -> None:
        self.width = 1.0
        self._boundary_strength: float | None = None
        self.replace_penalty(self.penalty)

    @property
    def name(self) -> str:
        return self.selected.name

    @property
    def parameter(self) -> nn.Parameter:
        return self.selected.parameter

    @property
    def held(self) -> torch.Tensor:
        """The weights held by this process, detached; writing to them writes to the parameter."""
        return local(self.parameter.detach())

    @property
    def weights(self) -> torch.Tensor:
        """The weights that the face works on, detached: those held here, or a copy of all."""
        return gathered(self.held, self.parameter) if self.is_whole else self.held

    @property
    def traced(self) -> torch.Tensor:
        """The same, for a cost to be differentiated."""
        return traced(self.parameter)

    @property
    def boundary_strength(self) -> float:
        """Strength of the penalty at which magnitude 1, the boundary's, falls: a constant of the penalty."""
        if self._boundary_strength is None:
            self._boundary_strength = boundary_strength(self.penalty)
        return self._boundary_strength

    def widen(self, width: float) -> None:
        """Make the penalty ``Omega(w / width)``."""
        if width != self.width:
            self.width = width
            penalty = tabulated(self.given)
            self.penalty = penalty if width == 1 else Rescaled(penalty, width=width)
            self._boundary_strength = None

    def replace_penalty(self, penalty: Penalty) -> None:
        """Regularize by another penalty from now on."""
        self.given, self.penalty = penalty, tabulated(penalty)
        self.width = 1.0
        self._boundary_strength = None

    @property
    def parameters(self) -> list[nn.Parameter]:
        """All tensors that have weights of its groups."""
        return [self.parameter]

    @property
    def is_trained(self) -> bool:
        """Whether all of them are trained; what the user has frozen is left alone."""
        return all(parameter.requires_grad for parameter in self.parameters)

    @property
    def group_size(self) -> int:
        """Number of weights in each group."""
        return self.grouping.size(self.parameter)

    def group_shape_of(self, *, is_held: bool) -> torch.Size:
        """Shape of what has one entry for each group held here, or that the face works on."""
        return self.grouping.magnitude(self.held if is_held else self.weights).shape

    @property
    def count(self) -> int:
        """Number of weights in all groups."""
        return self.parameter.numel()

    @property
    def tensors(self) -> list[tuple[str, nn.Parameter, int]]:
        """All tensors that have weights of its groups: their names, and indices of the optimizer's groups."""
        return [(self.name, self.parameter, self.option_group)]

    @property
    def is_measured(self) -> bool:
        """Whether the optimizer's metric is measured, so that it is not known before the first steps."""
        return any(self.metric.is_measured(parameter) for parameter in self.parameters)

    @property
    def has_state(self) -> bool:
        """Whether the optimizer has taken a step that it remembers."""
        return self.metric.has_state(self.parameter)

    @property
    def rate(self) -> float:
        return self.metric.rate(self.option_group)

    def work_on_all(self, is_whole: bool) -> None:
        """Let the face work on the whole tensor, or on what this process holds."""
        if is_whole != self.is_whole and self.curve is not None and self.curve.ndim:
            self.curve = (local_part if self.is_whole else gathered)(self.curve, self.parameter)
        self.is_whole = is_whole

    def magnitude(self) -> torch.Tensor:
        """Magnitude of every group, in the unit of a weight."""
        return self.grouping.magnitude(self.weights)

    def penalized_magnitude(self) -> torch.Tensor:
        """What a stated strength penalizes: the magnitude, times the root of the curvature where that is known."""
        if self.curve is None:
            return self.magnitude()
        return self.grouping.magnitude(self.curve * self.weights)

    def curved_magnitude(self) -> torch.Tensor:
        """What a budget ranks: magnitude of every group times the square root of the optimizer's metric.

        In this unit the metric is 1: the proximal step of ``Omega(sqrt(metric) * w)`` in that metric is the plain
        one, and comparing weights is comparing ``metric * w**2``, their first-order saliency. A curvature that is
        measured takes the place of the metric.
        """
        root = self._root()
        return self.magnitude() if root is None else self.grouping.magnitude(root * self.weights)

    def root_metric(self) -> torch.Tensor:
        """What a group's magnitude is multiplied by to be ranked: the root of the curvature, or of the metric."""
        root = self._root()
        if root is None:
            return torch.ones((), device=self.weights.device)
        return self.grouping.magnitude(root.expand_as(self.weights)) if self.group_size > 1 else root

    def _root(self) -> torch.Tensor | None:
        """The root of every weight's curvature, or of its metric; None where that is 1."""
        if self.curve is not None:
            return self.curve
        scale = self._scale()
        return None if scale is None else scale.sqrt_()

    def _scale(self) -> torch.Tensor | None:
        """The optimizer's metric, a new tensor; None where that is 1."""
        scale = self.metric.scale(self.parameter, self.option_group)
        return gathered(scale, self.parameter) if scale is not None and self.is_whole else scale

    def curvature(self) -> float:
        """Root of the optimizer's metric at the median weight: from a curved magnitude to one of weights."""
        if self.curve is not None:
            return float(self.curve.median())
        scale = self._scale()
        return 1.0 if scale is None else float(scale.flatten()[:: max(1, scale.numel() >> 12)].median().sqrt())

    def steps(self, strength: float) -> float | torch.Tensor:
        """Proximal step of every group: ``strength * rate / metric``; of a group, its mean metric.

        In the unit of `penalized_magnitude`, where a curvature multiplies it.
        """
        scale = self._scale()
        if self.curve is not None:
            curvature = self.curve.square().expand_as(self.weights)
            inverse = curvature if scale is None else curvature / scale
            if self.group_size > 1:
                inverse = self.grouping.magnitude(inverse)
            return inverse * (strength * self.rate)
        if scale is None:
            return strength * self.rate
        if self.group_size > 1:
            scale = self.grouping.magnitude(scale)
        return scale.reciprocal_().mul_(strength * self.rate)

    def shrink(self, factor: Callable[..., torch.Tensor], *per_group: torch.Tensor | float) -> None:
        """Multiply every group by ``factor(*per_group)``; single weights in blocks that stay in the fast cache."""
        weights = self.held
        if self.is_whole or self.group_size > 1 or not weights.is_contiguous() or weights.device.type != "cpu":
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
        held = self.held
        held.mul_(self.grouping.spread(self.held_part(factor), held))

    def masks(self, support: torch.Tensor) -> list[tuple[nn.Parameter, torch.Tensor]]:
        """Every tensor with what its entries are multiplied by to hold a support of the groups held here."""
        return [(self.parameter, self.grouping.spread(support, self.held))]

    def nonzero_masks(self) -> list[tuple[nn.Parameter, torch.Tensor]]:
        """Every tensor with a mask of the entries that are not zero, those outside the groups included."""
        return [(self.parameter, self.held != 0)]

    def gradient_magnitude(self) -> torch.Tensor | None:
        """Magnitude of every group of the gradient, in the unit that the penalty sees; None without a gradient."""
        gradient = self.parameter.grad
        if gradient is None:
            return None
        pull = local(gradient.detach())
        if self.curve is not None:
            pull = pull / self.held_part(self.curve.expand_as(self.weights))
        return self.grouping.magnitude(pull)

    def nonzero(self) -> int:
        """Number of weights that are not zero, in all processes."""
        return summed(int(torch.count_nonzero(self.held)), self.parameter)

    def whole(self, per_group: torch.Tensor) -> torch.Tensor:
        """One entry for every group of the tensor, where the face works on a part of them."""
        return per_group if self.is_whole else gathered(per_group, self.parameter)

    def held_part(self, per_group: torch.Tensor) -> torch.Tensor:
        """The entries of the groups that this process holds, of those that the face works on."""
        return local_part(per_group, self.parameter) if self.is_whole else per_group

    def part(self, per_group: torch.Tensor) -> torch.Tensor:
        """The entries of the groups that the face works on."""
        return per_group if self.is_whole else local_part(per_group, self.parameter)
