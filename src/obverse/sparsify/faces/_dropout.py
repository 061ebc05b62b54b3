"""The dropout face: the noise itself."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

import torch

from ...penalties import Standout as StandoutPenalty
from .._member import Member
from ._base import LARGEST_VARIANCE, Face, Handover

if TYPE_CHECKING:
    from .._forward import Forward

__all__ = ["Dropout", "Standout"]

# Weights with a lower keep probability are zero at the end of a stated strength, as for `LearnedEta`.
_LEAST_KEPT = 0.05


class Dropout(Face):
    """The noise itself: masks of mean one and variance ``strength / eta(w)``, fresh in every forward pass.

    The noise has the slope of the penalty everywhere but at zero, where it vanishes and the penalty has its kink. So at
    a stated strength, weights that the proximal operator of the step would zero are set to zero, as the reweighted face
    does: the first-order conditions decide which stay there. At the end those follow whose keep probability is so
    small that nearly nothing of them was seen.
    """

    name: ClassVar[str] = "dropout"
    acts_in_forward: ClassVar[bool] = True

    def attach(self, member: Member, forward: Forward, handed: Handover | None) -> None:
        member.memory = torch.zeros_like(member.magnitude())
        if handed is not None:
            self._remember(member, handed.variance)

    def spread(self, member: Member, weight: torch.Tensor) -> torch.Tensor | None:
        # A group's mask is one draw for all of it.
        if member.memory is None or member.group_size > 1:
            return None
        return weight.square() * member.memory

    def shown(self, member: Member, weight: torch.Tensor, forward: Forward) -> torch.Tensor:
        if member.memory is None:
            return weight
        return weight * member.grouping.spread(forward.mask(member.memory), weight)

    def renew(self, member: Member, strength: float) -> None:
        self._remember(member, strength / member.penalty.eta(member.penalized_magnitude()))

    def descend(self, member: Member, strength: float, steps: int) -> None:
        if _makes_zeros(member, strength):
            magnitude = member.penalized_magnitude()
            stays = member.penalty.prox(magnitude, member.steps(strength * steps)) > 0
            member.multiply(stays.to(magnitude.dtype))
        self.renew(member, strength)

    def settle(
        self, member: Member, magnitude: torch.Tensor, boundary: float, strength: float, pressure: float
    ) -> None:
        if boundary <= 0:
            return
        unit = magnitude / boundary
        member.multiply((unit > 1).to(unit.dtype))
        self._remember(member, strength / member.penalty.eta(unit))

    def alive(self, member: Member, strength: float) -> torch.Tensor | None:
        if not _makes_zeros(member, strength):
            return None
        magnitude = member.penalized_magnitude()
        is_seen = member.penalty.keep_probability(magnitude, strength) >= _LEAST_KEPT
        stays: torch.Tensor = is_seen & (member.penalty.prox(magnitude, member.steps(strength)) > 0)
        return stays

    def variance(self, member: Member, strength: float) -> torch.Tensor | None:
        return member.memory

    def _remember(self, member: Member, variance: torch.Tensor) -> None:
        assert member.memory is not None
        # Beyond 1 / rate the gradient of the noise would overshoot zero in a single step.
        largest = min(LARGEST_VARIANCE, 1 / member.rate) if member.rate > 0 else LARGEST_VARIANCE
        member.memory.copy_(torch.nan_to_num(variance, nan=0.0, posinf=largest).clamp_(max=largest))


def _makes_zeros(member: Member, strength: float) -> bool:
    """Whether the penalty has a kink at zero, and so exact zeros."""
    return strength > 0 and member.penalty.slope_at_zero > 0


class Standout(Dropout):
    """Dropout whose keep probability is a sigmoid of the weight's magnitude (Ba and Frey, 2013).

    The adaptive part of standout, as a noise on weights: the dropout face of the penalty `obverse.penalties.Standout`.
    """

    name: ClassVar[str] = "standout"
    own_penalty = StandoutPenalty()
