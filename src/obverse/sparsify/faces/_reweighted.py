"""The reweighted face."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, final

import torch

from .._member import Member
from ._base import Face, Handover

if TYPE_CHECKING:
    from .._forward import Forward

__all__ = ["Reweighted"]

# A weight at zero is seen by eta as this fraction of a usual weight, so that it can come back.
_REENTRY = 1e-7


@final
class Reweighted(Face):
    """Optimizer step, then the Tikhonov shrink ``eta / (eta + step * strength)`` with eta of the weights before it.

    Taking eta before the step makes the stationary points exact at any step size (with eta after it they move by the
    order of the step). eta sees ``sqrt(w**2 + delta**2)``, so that zero is left again when the gradient asks for it,
    and weights that the proximal operator of the same step would zero are set to zero: the first-order conditions
    decide, not a cut-off.
    """

    name: ClassVar[str] = "reweighted"

    def attach(self, member: Member, forward: Forward, handed: Handover | None) -> None:
        if handed is not None and handed.strength > 0:
            member.memory = handed.eta

    def descend(self, member: Member, strength: float, steps: int) -> None:
        if member.memory is None:
            member.memory = self._eta(member)
        makes_zeros = member.penalty.slope_at_zero > 0

        def factor(eta: torch.Tensor, magnitude: torch.Tensor, step: float | torch.Tensor) -> torch.Tensor:
            keep = eta / (eta + step)
            keep.masked_fill_(eta.isinf(), 1.0)
            return keep.mul_(member.penalty.prox(magnitude, step) > 0) if makes_zeros else keep

        member.shrink(factor, member.memory, member.penalized_magnitude(), member.steps(strength * steps))
        member.memory = self._eta(member)

    def settle(
        self, member: Member, magnitude: torch.Tensor, boundary: float, strength: float, pressure: float
    ) -> None:
        def factor(magnitude: torch.Tensor) -> torch.Tensor:
            unit = magnitude / boundary
            keep: torch.Tensor = member.penalty.keep_probability(unit, strength * pressure)
            return keep.mul_(unit > 1)

        if boundary > 0:
            member.shrink(factor, magnitude)

    def _eta(self, member: Member) -> torch.Tensor:
        # A fraction of the usual initial size of a weight, 1 / sqrt(fan in).
        fan_in = max(1, member.parameter.numel() // max(1, member.parameter.shape[0]))
        delta = _REENTRY * fan_in**-0.5
        eta: torch.Tensor = member.penalty.eta(member.penalized_magnitude().square_().add_(delta**2).sqrt_())
        return eta
