"""What a face is: how one regularizer acts on the weights, in the forward pass, in the loss, or after a step."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import torch

from ...penalties import Penalty

if TYPE_CHECKING:
    from .._forward import Forward
    from .._member import Member

__all__ = ["LARGEST_VARIANCE", "Face", "Handover", "ratio"]

# Largest variance of a noise: keep probabilities below 1e-3 are not told apart.
LARGEST_VARIANCE = 1e3


@dataclass(frozen=True)
class Handover:
    """What one face leaves to the next: the noise it had on every group of a tensor.

    Attributes
    ----------
    variance : torch.Tensor
        Of the mask of mean one; strength / eta.
    strength : float
    """

    variance: torch.Tensor
    strength: float

    @property
    def eta(self) -> torch.Tensor:
        return self.strength / self.variance.clamp_min(1e-12)


class Face:
    """One way to run a regularizer; the base class does nothing anywhere.

    After an optimizer step a face has two verbs. `descend` takes one step of ``loss + strength * penalty`` for a stated
    strength. `settle` works toward a budget, in the unit of its boundary: magnitudes are divided by that of the
    boundary group, so the penalty's shape follows the weights and its strength is a constant of the penalty, the one
    at which the boundary falls. Faces that act in the forward pass show the layers another weight, or another output;
    faces that learn hold parameters of their own, one number per group, and add a cost to the loss.
    """

    name: ClassVar[str]
    acts_in_forward: ClassVar[bool] = False
    learns: ClassVar[bool] = False
    # Whether the strength of a budget is found by control (else it follows from the boundary).
    is_controlled: ClassVar[bool] = False
    # Whether a stated strength means nothing to it.
    needs_budget: ClassVar[bool] = False
    # Range of what is learned, by name: held after every step, so that no entry ends where it has no gradient.
    bounds: ClassVar[dict[str, tuple[float, float]]] = {}
    # The penalty where it is the face's own; None where it takes any.
    own_penalty: Penalty | None = None

    # ------------------------------------------------------------------ attaching
    def attach(self, member: Member, forward: Forward, handed: Handover | None) -> None:
        """Take up a tensor, and the noise that another face leaves to this one."""

    def detach(self, member: Member) -> None:
        """Let go of a tensor; what the face remembers of it is lost."""
        member.memory = None
        member.learned.clear()

    # ------------------------------------------------------------------ the forward pass
    def spread(self, member: Member, weight: torch.Tensor) -> torch.Tensor | None:
        """Variance of the noise on every weight, where the layer's output may take it up; None: show a weight."""
        return None

    def shown(self, member: Member, weight: torch.Tensor, forward: Forward) -> torch.Tensor:
        """The weight that a training forward pass sees."""
        return weight

    def at_rest(self, member: Member, weight: torch.Tensor) -> torch.Tensor | None:
        """The weight that evaluation sees; None where it is the weight itself."""
        return None

    # ------------------------------------------------------------------ the loss
    def cost(self, member: Member, strength: torch.Tensor) -> torch.Tensor | None:
        """What the loss pays; None for nothing."""
        return None

    # ------------------------------------------------------------------ after an optimizer step
    def score(self, member: Member) -> torch.Tensor:
        """What a budget ranks groups by."""
        return member.curved_magnitude()

    def fallen(self, member: Member) -> float:
        """Share of the groups that the strategy itself has switched off; for faces under control."""
        return 0.0

    def renew(self, member: Member, strength: float) -> None:
        """Draw the noise of a stated strength from now on; the weights stay as they are."""

    def descend(self, member: Member, strength: float, steps: int) -> None:
        """Apply a stated strength for the last ``steps`` optimizer steps."""

    def settle(
        self, member: Member, magnitude: torch.Tensor, boundary: float, strength: float, pressure: float
    ) -> None:
        """One step toward a budget.

        Groups whose score ``magnitude`` is at most ``boundary`` fall; the others feel ``pressure``, a fraction in
        (0, 1], of the ``strength`` at which the boundary falls.
        """
        if boundary > 0:
            member.multiply((magnitude > boundary).to(member.parameter.dtype))

    def fold(self, member: Member, kept: torch.Tensor | None = None) -> torch.Tensor | None:
        """The factor of every group that makes the plain weight what evaluation sees; None for one.

        Positive for the groups that are ``kept`` whatever the face thinks of them.
        """
        return None

    def alive(self, member: Member, strength: float) -> torch.Tensor | None:
        """Which groups a stated strength keeps at the end; None where the zeros are there already."""
        return None

    # ------------------------------------------------------------------ changing face
    def variance(self, member: Member, strength: float) -> torch.Tensor | None:
        """Variance of the noise on every group now: strength / eta; None where it is a function of the weights."""
        return None

    def dual(self, penalty: Penalty, strength: float) -> tuple[Penalty, float]:
        """The penalty and the strength at which other faces have the same objective as this one at ``strength``."""
        return penalty, strength

    def emptying_strength(self, penalty: Penalty, gradient: float) -> float:
        """The strength at which zero is stationary against a gradient of this size."""
        slope = penalty.slope_at_zero
        return gradient / slope if slope > 0 else math.inf

    def options(self) -> dict[str, Any]:
        """Plain options, by which a state is told to belong to another face object."""
        return {
            name: value
            for name, value in vars(self).items()
            if not name.startswith("_") and isinstance(value, bool | int | float | str | tuple)
        }

    def project(self, member: Member) -> None:
        """Hold what is learned in its range."""
        for name, parameter in member.learned.items():
            parameter.detach().clamp_(*self.bounds[name])


def ratio(shrunk: torch.Tensor, magnitude: torch.Tensor) -> torch.Tensor:
    """shrunk / magnitude, 0 where the magnitude is 0; what is not a number stays so, to be found."""
    return torch.where(magnitude == 0, 0.0, shrunk / magnitude)
