"""Faces that only select: gradual magnitude, random pruning, and targeted dropout, whose limit the first is."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, final

import torch

from ..._core.checks import is_number
from ...errors import InvalidArgumentError
from ...penalties import L0
from .._member import Member
from ._base import Face, Handover

if TYPE_CHECKING:
    from .._forward import Forward

__all__ = ["MagnitudePruning", "RandomPruning", "TargetedNoise"]


@final
class MagnitudePruning(Face):
    """Gradual magnitude pruning (Zhu and Gupta, 2017): the smallest weights are zero, along the budget's cubic ramp.

    A weight that fell comes back when its gradient lifts it above the boundary before the next application.
    """

    name: ClassVar[str] = "magnitude"
    own_penalty = L0()

    def descend(self, member: Member, strength: float, steps: int) -> None:
        magnitude = member.penalized_magnitude()
        member.multiply((member.penalty.prox(magnitude, member.steps(strength * steps)) > 0).to(magnitude.dtype))


@final
class RandomPruning(Face):
    """Zeroes groups at random, the same share of every tensor: the control every comparison needs."""

    name: ClassVar[str] = "random"
    needs_budget: ClassVar[bool] = True
    own_penalty = L0()

    def attach(self, member: Member, forward: Forward, handed: Handover | None) -> None:
        # An even and shuffled rank, so that every tensor loses the same share; zero is never given.
        magnitude = member.whole(member.magnitude())
        order = torch.randperm(magnitude.numel(), generator=forward.fixed).to(magnitude.device)
        rank = ((order + 1) / max(1, magnitude.numel())).to(magnitude.dtype).reshape(magnitude.shape)
        member.memory = member.part(rank)

    def score(self, member: Member) -> torch.Tensor:
        assert member.memory is not None
        return member.memory.clone()


@final
class TargetedNoise(Face):
    """Targeted dropout: the weights a budget would take are dropped at a fixed rate, until they are taken.

    The smallest groups, in number what the budget asks for now, are multiplied by 0 with probability ``rate`` and by 1
    otherwise; nothing is rescaled, and the others see no noise. At rate 1 this is gradual magnitude pruning. The form
    with a fixed threshold is the dropout face of `obverse.penalties.TargetedDropout` at a stated strength of
    ``rate / (1 - rate)``.

    Parameters
    ----------
    rate : float, default 0.5
        Probability with which a targeted weight is dropped, in (0, 1].

    References
    ----------
    Gomez, Zhang, Kamalakara, Madaan, Swersky, Gal and Hinton (2019); its penalty: derived, see theory note.
    """

    name: ClassVar[str] = "targeted-dropout"
    needs_budget: ClassVar[bool] = True
    acts_in_forward: ClassVar[bool] = True
    own_penalty = L0()

    def __init__(self, rate: float = 0.5) -> None:
        if not is_number(rate) or not 0 < rate <= 1:
            raise InvalidArgumentError(f"targeted dropout: rate must lie in (0, 1], got {rate!r}")
        self.rate = float(rate)

    def attach(self, member: Member, forward: Forward, handed: Handover | None) -> None:
        member.memory = torch.ones_like(member.magnitude())

    def shown(self, member: Member, weight: torch.Tensor, forward: Forward) -> torch.Tensor:
        if member.memory is None:
            return weight
        kept = forward.uniform(member.memory).lt(member.memory).to(weight.dtype)
        return weight * member.grouping.spread(kept, weight)

    def settle(
        self, member: Member, magnitude: torch.Tensor, boundary: float, strength: float, pressure: float
    ) -> None:
        assert member.memory is not None
        member.memory.fill_(1.0)
        if boundary > 0:
            member.memory.masked_fill_(magnitude <= boundary, 1 - self.rate)
