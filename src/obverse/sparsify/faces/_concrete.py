"""Concrete dropout: drop probabilities learned through a relaxed Bernoulli, against their entropy."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, ClassVar, final

import torch
from torch import nn

from ..._core.arrays import wide
from ..._core.checks import is_number
from ...errors import InvalidArgumentError
from ...penalties import ConcreteDropout, Penalty
from .._member import Member
from ._base import Face, Handover

if TYPE_CHECKING:
    from .._forward import Forward

__all__ = ["ConcreteNoise"]

_LARGEST = 12.0


@final
class ConcreteNoise(Face):
    r"""Concrete dropout: every group has a drop probability, learned; the loss rewards its entropy.

    The loss is ``mean loss + strength * sum (log 2 - H(p))`` with H the entropy in nats; the mask is relaxed, so that
    p has a gradient, and has mean one to about a percent. Minimized over p this is the penalty
    `obverse.penalties.ConcreteDropout` of cost ``strength``; it has no exact zeros, so that a budget selects by
    magnitude.

    Parameters
    ----------
    initial : float, default 0.1
        Drop probability at the start, in (0, 1).
    temperature : float, default 0.1
        Of the relaxed Bernoulli, in (0, 0.1]: a softer mask no longer has the mean and variance of one that is 0 or 1.

    References
    ----------
    Gal, Hron and Kendall (2017), whose probabilities are one per layer; per group here.
    """

    name: ClassVar[str] = "concrete-dropout"
    acts_in_forward: ClassVar[bool] = True
    learns: ClassVar[bool] = True
    is_controlled: ClassVar[bool] = True
    bounds: ClassVar[dict[str, tuple[float, float]]] = {"logit_drop": (-_LARGEST, _LARGEST)}

    def __init__(self, initial: float = 0.1, temperature: float = 0.1) -> None:
        if not is_number(initial) or not 0 < initial < 1:
            raise InvalidArgumentError(f"initial must lie in (0, 1), got {initial!r}")
        if not is_number(temperature) or not 0 < temperature <= 0.1:
            raise InvalidArgumentError(f"temperature must lie in (0, 0.1], got {temperature!r}")
        self.initial, self.temperature = float(initial), float(temperature)
        self.own_penalty = ConcreteDropout()

    def attach(self, member: Member, forward: Forward, handed: Handover | None) -> None:
        magnitude = wide(member.magnitude())
        logit = torch.full_like(magnitude, math.log(self.initial / (1 - self.initial)))
        if handed is not None:
            variance = wide(handed.variance)
            logit = torch.logit(variance / (1 + variance), eps=1e-4)
        member.learned["logit_drop"] = nn.Parameter(logit)

    def shown(self, member: Member, weight: torch.Tensor, forward: Forward) -> torch.Tensor:
        logit = member.learned["logit_drop"]
        u = forward.uniform(logit).clamp(1e-6, 1 - 1e-6)
        dropped = torch.sigmoid((logit + torch.log(u) - torch.log1p(-u)) / self.temperature)
        mask = (1 - dropped) / torch.sigmoid(-logit)
        return weight * member.grouping.spread(mask, weight)

    def cost(self, member: Member, strength: torch.Tensor) -> torch.Tensor | None:
        logit = member.learned["logit_drop"]
        drop = torch.sigmoid(logit)
        # H = log(1 + e^logit) - p logit
        entropy = nn.functional.softplus(logit) - drop * logit
        return strength * member.group_size * (math.log(2) - entropy).sum()

    def variance(self, member: Member, strength: float) -> torch.Tensor | None:
        with torch.no_grad():
            return member.learned["logit_drop"].exp()

    def fallen(self, member: Member) -> float:
        # Nothing falls by itself; the strength stays as it is.
        return math.nan

    def emptying_strength(self, penalty: Penalty, gradient: float) -> float:
        return math.inf  # no strength makes zeros

    def dual(self, penalty: Penalty, strength: float) -> tuple[Penalty, float]:
        return ConcreteDropout(strength), 1.0
