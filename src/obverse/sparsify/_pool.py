"""Tensors that share one aim, and the control that brings them there."""

from __future__ import annotations

import math
import warnings
from typing import Any

import torch

from ._budget import Budget
from ._faces import Face
from ._member import Member
from ._selection import boundaries, keepers
from ._trajectory import Trajectory

__all__ = ["Pool"]

# Applications spread over ramp and hold: enough for the support to follow the weights, few enough to cost nothing.
_APPLICATIONS = 400
# A budget missed by more than this is said.
_WORTH_A_WARNING = 0.01


class Pool:
    """Members that land on one budget together, or are driven by one strength.

    With a budget, each application finds the boundary from the order statistics of the groups' curved magnitudes and
    lets the face settle; at the freeze exactly the target is zeroed, and from then on only the zeros are held.
    """

    def __init__(
        self,
        members: list[Member],
        budget: Budget | None,
        strength: float,
        total_steps: int | None,
        every: int | None,
    ) -> None:
        self.members = members
        self.budget = budget
        self.strength = strength
        self.boundary: float | None = None
        self.trajectory = Trajectory()
        self._frozen = False
        self._total_steps = total_steps
        if every is None:
            every = 1
            if budget is not None and total_steps is not None:
                active = budget.freeze_step(total_steps) - int(budget.warmup * total_steps)
                every = max(1, active // _APPLICATIONS)
        self._every = every

    def __str__(self) -> str:
        return f"budget={self.budget.sparsity:g}" if self.budget is not None else f"strength={self.strength:g}"

    @property
    def weights(self) -> int:
        return sum(member.parameter.numel() for member in self.members)

    def phase(self, step: int) -> str:
        if self.budget is None or self._total_steps is None:
            return "train"
        return "finetune" if self._frozen else self.budget.phase(step, self._total_steps)

    def target(self, step: int) -> float | None:
        if self.budget is None or self._total_steps is None:
            return None
        return self.budget.target(step, self._total_steps)

    def start(self, face: Face) -> None:
        """Let a face that acts in the forward pass know the strength before the first step."""
        if self.budget is None:
            for member in self.members:
                face.descend(member, self.strength, 1)

    def is_due(self, step: int) -> bool:
        if self._frozen:
            return False
        if self.budget is None or self._total_steps is None:
            return step % self._every == 0
        if step >= self.budget.freeze_step(self._total_steps):
            return True
        return step % self._every == 0 and self.budget.phase(step, self._total_steps) != "warmup"

    def apply(self, step: int, face: Face) -> None:
        """One application of the face, or the freeze."""
        if self.budget is None or self._total_steps is None:
            # What an adaptive optimizer has not trained yet has no metric, and no step of its own.
            waits = any(member.metric.has_state(member.parameter) for member in self.members)
            for member in self.members:
                if not waits or member.metric.has_state(member.parameter):
                    face.descend(member, self.strength, self._every)
            self._record(step)
        elif step >= self.budget.freeze_step(self._total_steps):
            self._freeze()
            self._record(step)
        else:
            self._settle(step, face)

    def hold_zeros(self) -> None:
        """After the freeze: put back to zero what the optimizer moved."""
        if self._frozen:
            supports = [member.grouping.spread(_known(member.support), member.parameter) for member in self.members]
            torch._foreach_mul_([member.parameter.detach() for member in self.members], supports)

    def finish(self, step: int, face: Face) -> bool:
        """End with exact zeros; True where a budget had to be met before its freeze."""
        early = False
        if self.budget is None:
            for member in self.members:
                face.finish(member, self.strength)
        elif self._frozen:
            self.hold_zeros()  # the weights may have moved, or been loaded, since the last step
        else:
            early = True
            self._freeze()
        self._record(step)
        return early

    def state_dict(self) -> dict[str, Any]:
        return {
            "strength": self.strength,
            "boundary": self.boundary,
            "frozen": self._frozen,
            "identity": self.identity(),
            "trajectory": self.trajectory.state_dict(),
        }

    def identity(self) -> dict[str, Any]:
        """What must agree between a state and the Sparsifier that takes it up."""
        return {
            "budget": None if self.budget is None else self.budget.to_dict(),
            "total_steps": self._total_steps,
            "every": self._every,
            "members": [[member.name, repr(member.penalty), member.group_size] for member in self.members],
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.strength, self._frozen = float(state["strength"]), bool(state["frozen"])
        self.boundary = None if state["boundary"] is None else float(state["boundary"])
        self.trajectory.load_state_dict(state["trajectory"])

    def _settle(self, step: int, face: Face) -> None:
        assert self.budget is not None
        assert self._total_steps is not None
        target = self.budget.target(step, self._total_steps)
        magnitudes = self._curved_magnitudes()
        sizes = [member.group_size for member in self.members]
        limits = boundaries(magnitudes, sizes, target, self.budget.layer_floor)
        pressure = min(1.0, self._every * self.budget.pressure_per_step(self._total_steps))
        for member, magnitude, limit in zip(self.members, magnitudes, limits, strict=True):
            face.settle(member, magnitude, limit, member.boundary_strength, pressure)
        # The strength that would do the same: penalty(w / boundary) scaled by boundary^2 per unit of step.
        member, limit = max(zip(self.members, limits, strict=True), key=lambda pair: pair[0].parameter.numel())
        rate = member.rate * self._every
        strength = member.boundary_strength
        self.strength = strength if face.name == "dropout" else _over(strength * pressure * limit**2, rate)
        self.boundary = limit / member.curvature() if limit > 0 else None
        self._record(step)

    def _freeze(self) -> None:
        assert self.budget is not None
        masks = keepers(
            self._curved_magnitudes(),
            [member.group_size for member in self.members],
            self.budget.sparsity,
            self.budget.layer_floor,
        )
        for member, mask in zip(self.members, masks, strict=True):
            member.memory = None
            member.support = mask.to(member.parameter.dtype)
            member.multiply(member.support)
            member.metric.forget(member.parameter, member.grouping.spread(member.support, member.parameter))
        self._frozen = True
        self.strength = 0.0
        kept = sum(int(_known(member.support).sum()) * member.group_size for member in self.members)
        reached = 1 - kept / self.weights
        if abs(reached - self.budget.sparsity) > _WORTH_A_WARNING:
            warnings.warn(
                f"the budget asks for a sparsity of {self.budget.sparsity:g}; {reached:.3f} is the nearest that whole "
                "groups and the floor of every layer allow; use smaller groups, a lower floor, or another budget",
                stacklevel=5,
            )

    def _curved_magnitudes(self) -> list[torch.Tensor]:
        """Curved magnitudes of all members in one unit: without state of its own, a tensor has the others' median."""
        magnitudes = [member.curved_magnitude() for member in self.members]
        fresh = [not member.metric.has_state(member.parameter) for member in self.members]
        if any(fresh) and not all(fresh):
            known = sorted(m.curvature() for m, is_fresh in zip(self.members, fresh, strict=True) if not is_fresh)
            for magnitude, is_fresh in zip(magnitudes, fresh, strict=True):
                if is_fresh:
                    magnitude.mul_(known[len(known) // 2])
        return magnitudes

    def _record(self, step: int) -> None:
        if not self.trajectory.takes_next():
            return
        nonzero = sum(member.nonzero() for member in self.members)
        self.trajectory.add(
            {
                "step": step,
                "target": self.target(step),
                "sparsity": 1 - nonzero / self.weights,
                "strength": self.strength if math.isfinite(self.strength) else None,
                "boundary": self.boundary,
                "phase": self.phase(step),
            }
        )


def _known(support: torch.Tensor | None) -> torch.Tensor:
    assert support is not None
    return support


def _over(amount: float, rate: float) -> float:
    return amount / rate if rate > 0 else math.inf
