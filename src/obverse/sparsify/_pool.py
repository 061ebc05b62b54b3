"""Tensors that share one aim, and the control that brings them there."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from ..errors import InvalidArgumentError
from ._aims import ALL, Aims
from ._budget import Budget
from ._member import Member
from ._missed import EMPTY, NOTHING_TRAINS, missed_costs, missed_sparsity
from ._notes import Notes
from ._plan import Plan
from ._selection import Bounds, boundaries, keepers
from ._shards import local
from ._span import Span
from ._trajectory import Trajectory
from .faces import Face

__all__ = ["Pool"]

# Applications spread over ramp and hold: enough for the support to follow the weights, few enough to cost nothing.
_APPLICATIONS = 400
# How often on the way the sparsity that meets the costs of a budget is found anew.
_ESTIMATES = 4
# Control of a learned strategy's strength: its logarithm moves by this times the sparsity that is missing, per
# application, within these bounds around the first one.
_GAIN = 0.05
_REACH = (1e-2, 30.0)
# Share of the run over which a learned strategy under control comes in: a network that has learned nothing yet has
# nothing to say about what it needs.
_ENTRANCE = 0.2
# A floor that keeps one group.
_SOME = 1e-12
# How often a sparsity is raised where what it keeps costs a little too much still.
_STEEPER = 10
# Stages in which a wide penalty becomes narrow.
_STAGES = 20


class Pool:
    """Members that land on one budget together, or are driven by one strength.

    With a budget, each application finds the boundary from the order statistics of the groups' scores and lets the
    face settle; at the freeze exactly the target is zeroed, and from then on only the zeros are held.

    Parameters
    ----------
    members : list of Member
    budget : Budget or None
    strength : float
        The stated one; with a budget, where control of a learned strategy begins.
    total_steps, every : int or None
    continuation : float
        How many times wider the penalty is at first.
    """

    def __init__(
        self,
        members: list[Member],
        budget: Budget | None,
        strength: float,
        total_steps: int | None,
        every: int | None,
        continuation: float = 1.0,
    ) -> None:
        self.notes = Notes()
        self.members = members
        self.budget = budget
        self.strength = self._first_strength = strength
        # What the loss pays; a tensor, so that a compiled graph reads it anew.
        self.coefficient = torch.zeros((), device=members[0].held.device)
        self._continuation = continuation
        self._plans: dict[tuple[str, ...], Plan] = {}
        # Members whose weights the user had frozen when the support was fixed.
        self._left_out: set[str] = set()
        self._closed = False
        # What the costs of a budget come to, as found last and when.
        self.aims: Aims | None = None
        self.final = 0.0 if budget is None or budget.sparsity is None else budget.sparsity
        self._resolved = -1
        self.boundary: float | None = None
        self.trajectory = Trajectory()
        self._frozen = False
        self._overshot = False
        self._total_steps = total_steps
        if every is None:
            every = 1
            if budget is not None and total_steps is not None:
                active = budget.freeze_step(total_steps) - int(budget.warmup * total_steps)
                every = max(1, active // _APPLICATIONS)
        self._every = every

    def __str__(self) -> str:
        if self.budget is None:
            return f"strength={self.strength:g}"
        return f"budget={self.budget.sparsity:g}" if not self.budget.costs else f"budget({self.budget})"

    @property
    def active(self) -> list[Member]:
        """Members that the aim is about: those that train, and once the support is fixed, those that trained then."""
        if self._closed:
            return [member for member in self.members if member.name not in self._left_out]
        return [member for member in self.members if member.is_trained]

    def plan(self, members: Sequence[Member]) -> Plan | None:
        """How groups that span tensors are counted; None for groups within a tensor."""
        spans = [member for member in members if isinstance(member, Span)]
        key = tuple(span.name for span in spans)
        if spans and key not in self._plans:
            self._plans[key] = Plan(spans)
        return self._plans.get(key)

    @property
    def weights(self) -> int:
        """Number of weights that the aim is a share of."""
        plan = self.plan(self.active)
        return sum(member.count for member in self.active) if plan is None else plan.total

    def nonzero(self) -> int:
        """Number of these weights that are not zero."""
        plan = self.plan(self.active)
        if plan is None:
            return sum(member.nonzero() for member in self.active)
        return plan.kept([member.magnitude() != 0 for member in self.active])

    def check_reachable(self) -> None:
        """Raise where the budget asks for less than groups and floors leave.

        A stated floor that does not go with a stated sparsity comes first; what is missed then is said at the freeze.

        Raises
        ------
        InvalidArgumentError
        """
        if self.budget is None:
            return
        if self.aims is not None:
            self.aims.check_floor(self.members, self._least(self._bounds(self.members, ALL)))
        if self.budget.sparsity is not None:
            sparsity = self.budget.sparsity
            floors = [Bounds(min(bound.floor, _SOME)) for bound in self._bounds(self.members, sparsity)]
            least, wanted = self._left(self.members, self._least(floors)), (1 - sparsity) * self.weights
            if least - wanted > max(member.group_size for member in self.members):
                raise InvalidArgumentError(
                    f"a sparsity of {sparsity:.7g} keeps {wanted:,.6g} of {self.weights:,} weights, and one group in "
                    f"every layer has {least:,} together: the budget cannot be met beyond a sparsity of "
                    f"{1 - least / self.weights:.4g}"
                )

    def _least(self, bounds: Sequence[Bounds]) -> list[torch.Tensor]:
        """Masks with as many groups as bounds leave at least, whichever they are."""
        masks = []
        for member, bound in zip(self.members, bounds, strict=True):
            groups = member.count // member.group_size
            least = max(bound.of(groups)[0], int(isinstance(member, Span)))
            masks.append(torch.arange(groups) < least)
        return masks

    @property
    def learned(self) -> list[nn.Parameter]:
        """What the face learns for the members."""
        return [parameter for member in self.members for parameter in member.learned.values()]

    def phase(self, step: int) -> str:
        if self.budget is None or self._total_steps is None:
            return "train"
        return "finetune" if self._frozen else self.budget.phase(step, self._total_steps)

    def target(self, step: int) -> float | None:
        if self.budget is None or self._total_steps is None:
            return None
        return self.budget.target(step, self._total_steps, self.final)

    @property
    def is_frozen(self) -> bool:
        """Whether the support is fixed."""
        return self._frozen

    def start(self, step: int, face: Face) -> None:
        """Let the loss, and a face that draws noise by the strength, know it before the next step."""
        self._narrow(step)
        if self.budget is None:
            for member in self.active:
                face.renew(member, self.strength)
        self.charge(step, face)

    def change_face(self, step: int, face: Face) -> None:
        """Begin with another face, which has taken up what the one before it left."""
        self._overshot = False
        if self.budget is not None and (face.is_controlled or not math.isfinite(self.strength)):
            self.strength = 0.0 if self._frozen else self._first_strength
        self._narrow(step)
        self.charge(step, face)

    def charge(self, step: int, face: Face) -> None:
        """Set what the loss pays for a learned strategy after ``step``."""
        begin, end = getattr(face, "warmup", (0, 0))
        share = 1.0 if step >= end else max(0.0, (step - begin) / (end - begin))
        if self.budget is not None and self._total_steps is not None and face.is_controlled:
            share *= min(1.0, step / (_ENTRANCE * self._total_steps))
        waits = self._overshot or (self.budget is not None and self.phase(step) == "warmup")
        strength = 0.0 if self._frozen or waits or not math.isfinite(self.strength) else self.strength
        self.coefficient.fill_(share * strength)

    def _narrow(self, step: int) -> None:
        """Narrow the penalty toward its own width: over the ramp of a budget, or the first half of the run."""
        if self._continuation == 1 or self._total_steps is None:
            return
        until = 0.5 if self.budget is None else self.budget.warmup + self.budget.ramp
        progress = min(1.0, step / max(1.0, until * self._total_steps))
        stage = math.floor(progress * _STAGES) / _STAGES
        for member in self.members:
            member.widen(self._continuation ** (1 - stage))

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
        self._narrow(step)
        if self.budget is None or self._total_steps is None:
            # What an adaptive optimizer has not trained yet has no metric, and no step of its own.
            waits = any(member.has_state or member.is_measured for member in self.active)
            for member in self.active:
                if not waits or member.has_state:
                    face.descend(member, self.strength, self._every)
            self._record(step)
        elif step >= self.budget.freeze_step(self._total_steps):
            self._freeze(face)
            self._record(step)
        else:
            self._settle(step, face)

    def hold_zeros(self) -> None:
        """After the freeze: put back to zero what the optimizer moved."""
        if self._frozen and self.active:
            pairs = [pair for member in self.active for pair in member.masks(_known(member.support))]
            torch._foreach_mul_([local(parameter.detach()) for parameter, _ in pairs], [mask for _, mask in pairs])

    def finish(self, step: int, face: Face) -> bool:
        """End with exact zeros; True where a budget had to be met before its freeze."""
        early = False
        if self.budget is None:
            self._close()
            for member in self.active:
                alive, factor = face.alive(member, self.strength), face.fold(member)
                for share in (alive, factor):
                    if share is not None:
                        member.multiply(share.to(member.parameter.dtype))
        elif self._frozen:
            self.hold_zeros()  # the weights may have moved, or been loaded, since the last step
        else:
            self._freeze(face)
            early = bool(self.active)
        self._record(step)
        return early

    def _close(self) -> None:
        """From now on the members that train are those of the aim, whatever is frozen or thawed later."""
        self._left_out = {member.name for member in self.members if not member.is_trained}
        self._closed = True

    def state_dict(self) -> dict[str, Any]:
        return {
            "strength": self.strength,
            "boundary": self.boundary,
            "frozen": self._frozen,
            "closed": self._closed,
            "left_out": sorted(self._left_out),
            "overshot": self._overshot,
            "final": self.final,
            "resolved": self._resolved,
            "width": self.members[0].width,
            "identity": self.identity(),
            "trajectory": self.trajectory.state_dict(),
        }

    def identity(self) -> dict[str, Any]:
        """What must agree between a state and the Sparsifier that takes it up."""
        return {
            "budget": None if self.budget is None else self.budget.to_dict(),
            "total_steps": self._total_steps,
            "every": self._every,
            "continuation": self._continuation,
            "members": [[member.name, repr(member.given), member.group_size] for member in self.members],
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.strength, self._frozen = float(state["strength"]), bool(state["frozen"])
        self._overshot = bool(state["overshot"])
        self._closed = bool(state.get("closed", self._frozen))
        self._left_out = set(state.get("left_out", ()))
        self.final, self._resolved = float(state["final"]), int(state["resolved"])
        for member in self.members:
            member.widen(float(state["width"]))
        if self._frozen:
            self.coefficient.zero_()
        self.boundary = None if state["boundary"] is None else float(state["boundary"])
        self.trajectory.load_state_dict(state["trajectory"])

    def _settle(self, step: int, face: Face) -> None:
        assert self.budget is not None
        assert self._total_steps is not None
        members = self.active
        if not members:  # all are frozen for now
            self._record(step)
            return
        magnitudes = self._scores(face, members)
        sizes = [member.group_size for member in members]
        everywhere = [member.whole(part) for member, part in zip(members, magnitudes, strict=True)]
        stage = _ESTIMATES * step // max(1, self.budget.freeze_step(self._total_steps))
        if stage != self._resolved:
            self._resolve(stage, members, everywhere)
        target = self.budget.target(step, self._total_steps, self.final)
        bounds = self._bounds(members, self.final)
        plan = self.plan(members)
        if plan is not None:
            limits = plan.boundaries(magnitudes, target, bounds)
        else:
            limits = boundaries(everywhere, sizes, target, bounds)
        pressure = min(1.0, self._every * self.budget.pressure_per_step(self._total_steps))
        for member, magnitude, limit in zip(members, magnitudes, limits, strict=True):
            face.settle(member, magnitude, limit, member.boundary_strength, pressure)
        member, limit = max(zip(members, limits, strict=True), key=lambda pair: pair[0].count)
        strength = member.boundary_strength
        if face.is_controlled:
            self._control(target, face)
        elif face.acts_in_forward:
            self.strength = strength
        else:
            # The strength that would do the same: penalty(w / boundary) scaled by boundary^2 per unit of step.
            self.strength = _over(strength * pressure * limit**2, member.rate * self._every)
        self.boundary = None
        if limit > 0:
            # A score of its own kind has no magnitude that belongs to it.
            self.boundary = limit if face.is_controlled else limit / member.curvature()
        self._record(step)

    def _control(self, target: float, face: Face) -> None:
        """Move the strength of a learned strategy so that it switches off itself what the budget takes, and not more.

        What is learned has inertia: where more has fallen than the budget asks for, the strategy costs nothing until
        the loss has brought it back.
        """
        fallen = sum(face.fallen(member) * member.count for member in self.active) / self.weights
        if math.isfinite(fallen):
            low, high = (bound * self._first_strength for bound in _REACH)
            self.strength = min(high, max(low, self.strength * math.exp(_GAIN * (target - fallen))))
            self._overshot = fallen > target

    def _freeze(self, face: Face) -> None:
        assert self.budget is not None
        self._close()
        members = self.active
        masks = self._final_masks(face, members) if members else []
        missed = self._what_was_missed(members, masks)
        kept_by = dict(zip((member.name for member in members), masks, strict=True))
        masks.clear()  # each is let go once its member has the support
        for member in self.members:
            mask = kept_by.pop(member.name, None)
            # What the user has frozen keeps all it has.
            kept = torch.ones_like(face.score(member), dtype=torch.bool) if mask is None else member.part(mask)
            factor = None if mask is None else face.fold(member, kept)
            if factor is not None:
                member.multiply(factor)
            member.support = member.held_part(kept).to(member.parameter.dtype)
            member.work_on_all(False)
            if mask is not None:
                member.multiply(member.support)
            face.detach(member)
            if mask is not None:
                for parameter, share in member.masks(member.support):
                    member.metric.forget(parameter, share)
        self._frozen = True
        self.strength = 0.0
        self.coefficient.zero_()
        for line in missed:
            self.notes.say(line)

    def _final_masks(self, face: Face, members: Sequence[Member]) -> list[torch.Tensor]:
        """What stays of every member, in all processes."""
        scores = [member.whole(part) for member, part in zip(members, self._scores(face, members), strict=True)]
        self._resolve(_ESTIMATES, members, scores)
        masks = self._kept(members, scores, self.final)
        if self.aims is None:
            return masks
        aims, plan, sparsity = self.aims, self.plan(members), self.final
        for doubling in range(_STEEPER):  # several aims, or groups of many sizes, may leave one of them just missed
            if aims.fits(members, masks):
                break
            sparsity = min(ALL, 1 - (1 - sparsity) * (1 - 1e-3 * 2**doubling))
            masks = self._kept(members, scores, sparsity)
        if plan is None or "latency" in aims.budget.costs:
            return masks
        most = (1 - (aims.budget.sparsity or 0.0)) * plan.total

        def fits(more: Sequence[torch.Tensor]) -> bool:
            return plan.kept(more) <= most and aims.fits(members, more)

        return plan.filled(scores, masks, self._bounds(members, self.final), fits)

    def _resolve(self, stage: int, members: Sequence[Member], scores: list[torch.Tensor]) -> None:
        """Find the sparsity that the costs of the budget come to, with the groups ranked as they are now."""
        self._resolved = stage
        if self.aims is not None:
            self.final = self.aims.sparsity(members, lambda sparsity: self._kept(members, scores, sparsity))

    def _what_was_missed(self, members: Sequence[Member], masks: Sequence[torch.Tensor]) -> list[str]:
        assert self.budget is not None
        if not members:
            return [NOTHING_TRAINS]
        if self.aims is not None:
            lines = missed_costs(self.budget, self.aims.costs(members, masks))
        else:
            largest = max(member.group_size for member in members)
            lines = missed_sparsity(self.final, self._left(members, masks), self.weights, largest)
        empty = [m.name for m, mask in zip(members, masks, strict=True) if not bool(mask.any())]
        return lines + [EMPTY.format(name) for name in empty]

    def _kept(self, members: Sequence[Member], scores: list[torch.Tensor], sparsity: float) -> list[torch.Tensor]:
        """Masks of the groups, of all processes, that a sparsity keeps; where costs bound it, no more than these."""
        bounds, plan = self._bounds(members, sparsity), self.plan(members)
        if plan is not None:
            return plan.select(scores, sparsity, bounds, is_exact=True)
        sizes = [member.group_size for member in members]
        return keepers(scores, sizes, sparsity, bounds, at_most=self.aims is not None)

    def _left(self, members: Sequence[Member], masks: Sequence[torch.Tensor]) -> int:
        """Weights in the groups that masks keep."""
        plan = self.plan(members)
        if plan is not None:
            return plan.kept(masks)
        return sum(
            int(torch.count_nonzero(mask)) * member.group_size for mask, member in zip(masks, members, strict=True)
        )

    def _bounds(self, members: Sequence[Member], sparsity: float) -> list[Bounds]:
        """What every member keeps at least and at most."""
        assert self.budget is not None
        floor, ceiling = self.budget.floor_at(sparsity), self.budget.ceiling
        rules = [member.selected.rule for member in members]
        return [
            Bounds(
                (floor if rule.floor is None else rule.floor) if sparsity > 0 else 0.0,
                (ceiling if rule.ceiling is None else rule.ceiling) if sparsity > 0 else 1.0,
            )
            for rule in rules
        ]

    def _scores(self, face: Face, members: Sequence[Member]) -> list[torch.Tensor]:
        """Scores of the members in one unit: without a metric of its own, a tensor has the others' median."""
        magnitudes = [face.score(member) for member in members]
        if face.is_controlled or any(member.curve is not None for member in members):
            return magnitudes
        fresh = [not member.has_state for member in members]
        if any(fresh) and not all(fresh):
            known = sorted(m.curvature() for m, is_fresh in zip(members, fresh, strict=True) if not is_fresh)
            for magnitude, is_fresh in zip(magnitudes, fresh, strict=True):
                if is_fresh:
                    magnitude.mul_(known[len(known) // 2])
        return magnitudes

    def _record(self, step: int) -> None:
        if not self.trajectory.takes_next() or not self.active:
            return
        self.trajectory.add(
            {
                "step": step,
                "target": self.target(step),
                "sparsity": 1 - self.nonzero() / self.weights,
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
