"""The proximal face."""

from __future__ import annotations

from typing import ClassVar, final

import torch

from .._member import Member
from ._base import Face, ratio

__all__ = ["Proximal"]


@final
class Proximal(Face):
    """Optimizer step, then the exact proximal operator of ``strength * penalty`` in the optimizer's own metric."""

    name: ClassVar[str] = "proximal"

    def descend(self, member: Member, strength: float, steps: int) -> None:
        step = member.steps(strength * steps)
        if member.group_size == 1 and member.curve is None:
            weights = member.weights
            weights.copy_(member.penalty.prox(weights, step))
            return
        magnitude = member.penalized_magnitude()
        member.multiply(ratio(member.penalty.prox(magnitude, step), magnitude))

    def settle(
        self, member: Member, magnitude: torch.Tensor, boundary: float, strength: float, pressure: float
    ) -> None:
        def factor(magnitude: torch.Tensor) -> torch.Tensor:
            unit = magnitude / boundary
            return ratio(member.penalty.prox(unit, strength * pressure), unit).mul_(unit > 1)

        if boundary > 0:
            member.shrink(factor, magnitude)
