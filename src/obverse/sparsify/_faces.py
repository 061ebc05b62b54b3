"""The three faces: how one regularizer acts on the weights after an optimizer step.

Each face has two verbs. `descend` takes one step of ``loss + strength * penalty`` for a stated strength. `settle`
works in the unit of a budget's boundary: magnitudes are divided by that of the boundary group, so the penalty's shape
follows the weights and its strength is a constant of the penalty, the one at which the boundary falls.
"""

from __future__ import annotations

from typing import ClassVar, Protocol, final

import torch

from ._member import Member
from ._noise import Noise

__all__ = ["FACES", "Dropout", "Face", "Proximal", "Reweighted"]

# Largest variance of the noise: keep probabilities below 1e-3 are not told apart.
_LARGEST_VARIANCE = 1e3
# A weight at zero is seen by eta as this fraction of a usual weight, so that it can come back.
_REENTRY = 1e-7


class Face(Protocol):
    """What a face does with a tensor's weights."""

    name: ClassVar[str]

    def attach(self, member: Member, noise: Noise) -> None: ...

    def descend(self, member: Member, strength: float, steps: int) -> None:
        """Apply a stated strength for the last ``steps`` optimizer steps."""
        ...

    def settle(
        self, member: Member, magnitude: torch.Tensor, boundary: float, strength: float, pressure: float
    ) -> None:
        """One step toward a budget.

        Groups whose curved ``magnitude`` is at most ``boundary`` fall; the others feel ``pressure``, a fraction in
        (0, 1], of the ``strength`` at which the boundary falls.
        """
        ...

    def finish(self, member: Member, strength: float) -> None:
        """Turn what the face keeps small into exact zeros."""
        ...


@final
class Proximal:
    """Optimizer step, then the exact proximal operator of ``strength * penalty`` in the optimizer's own metric."""

    name: ClassVar[str] = "proximal"

    def attach(self, member: Member, noise: Noise) -> None:
        pass

    def descend(self, member: Member, strength: float, steps: int) -> None:
        step = member.steps(strength * steps)
        if member.group_size == 1:
            weights = member.parameter.detach()
            weights.copy_(member.penalty.prox(weights, step))
            return
        magnitude = member.magnitude()
        member.multiply(_ratio(member.penalty.prox(magnitude, step), magnitude))

    def settle(
        self, member: Member, magnitude: torch.Tensor, boundary: float, strength: float, pressure: float
    ) -> None:
        def factor(magnitude: torch.Tensor) -> torch.Tensor:
            unit = magnitude / boundary
            return _ratio(member.penalty.prox(unit, strength * pressure), unit).mul_(unit > 1)

        if boundary > 0:
            member.shrink(factor, magnitude)

    def finish(self, member: Member, strength: float) -> None:
        pass


@final
class Reweighted:
    """Optimizer step, then the Tikhonov shrink ``eta / (eta + step * strength)`` with eta of the weights before it.

    Taking eta before the step makes the stationary points exact at any step size (with eta after it they move by the
    order of the step). eta sees ``sqrt(w**2 + delta**2)``, so that zero is left again when the gradient asks for it,
    and weights that the proximal operator of the same step would zero are set to zero: the first-order conditions
    decide, not a cut-off.
    """

    name: ClassVar[str] = "reweighted"

    def attach(self, member: Member, noise: Noise) -> None:
        pass

    def descend(self, member: Member, strength: float, steps: int) -> None:
        if member.memory is None:
            member.memory = self._eta(member)
        makes_zeros = member.penalty.slope_at_zero > 0

        def factor(eta: torch.Tensor, magnitude: torch.Tensor, step: float | torch.Tensor) -> torch.Tensor:
            keep = eta / (eta + step)
            keep.masked_fill_(eta.isinf(), 1.0)
            return keep.mul_(member.penalty.prox(magnitude, step) > 0) if makes_zeros else keep

        member.shrink(factor, member.memory, member.magnitude(), member.steps(strength * steps))
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

    def finish(self, member: Member, strength: float) -> None:
        member.memory = None

    def _eta(self, member: Member) -> torch.Tensor:
        # A fraction of the usual initial size of a weight, 1 / sqrt(fan in).
        fan_in = max(1, member.parameter.numel() // max(1, member.parameter.shape[0]))
        delta = _REENTRY * fan_in**-0.5
        eta: torch.Tensor = member.penalty.eta(member.magnitude().square_().add_(delta**2).sqrt_())
        return eta


@final
class Dropout:
    """The noise itself: masks of mean one and variance ``strength / eta(w)``, fresh in every forward pass."""

    name: ClassVar[str] = "dropout"

    def attach(self, member: Member, noise: Noise) -> None:
        member.memory = torch.zeros_like(member.magnitude())
        noise.attach(member)

    def descend(self, member: Member, strength: float, steps: int) -> None:
        self._remember(member, strength / member.penalty.eta(member.magnitude()))

    def settle(
        self, member: Member, magnitude: torch.Tensor, boundary: float, strength: float, pressure: float
    ) -> None:
        if boundary <= 0:
            return
        unit = magnitude / boundary
        member.multiply((unit > 1).to(unit.dtype))
        self._remember(member, strength / member.penalty.eta(unit))

    def finish(self, member: Member, strength: float) -> None:
        member.memory = None
        if strength > 0 and member.penalty.slope_at_zero > 0:
            # What lies within one proximal step of zero is at zero.
            stays = member.penalty.prox(member.magnitude(), member.steps(strength)) > 0
            member.multiply(stays.to(member.parameter.dtype))

    def _remember(self, member: Member, variance: torch.Tensor) -> None:
        assert member.memory is not None
        # Beyond 1 / rate the gradient of the noise would overshoot zero in a single step.
        largest = min(_LARGEST_VARIANCE, 1 / member.rate) if member.rate > 0 else _LARGEST_VARIANCE
        member.memory.copy_(torch.nan_to_num(variance, nan=0.0, posinf=largest).clamp_(max=largest))


FACES: dict[str, type[Proximal] | type[Reweighted] | type[Dropout]] = {
    "proximal": Proximal,
    "reweighted": Reweighted,
    "dropout": Dropout,
}


def _ratio(shrunk: torch.Tensor, magnitude: torch.Tensor) -> torch.Tensor:
    """shrunk / magnitude, 0 where the magnitude is 0."""
    return torch.where(magnitude > 0, shrunk / magnitude, 0.0)
