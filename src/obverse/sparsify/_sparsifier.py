"""The Sparsifier: trains a model toward zeros, through either face of a regularizer, in the user's own loop."""

from __future__ import annotations

import copy
import math
import sys
import weakref
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import nn

from .._core.checks import nonnegative, positive
from .._core.random import Seed, seed_number
from ..errors import InvalidArgumentError, NonFiniteError, StateError
from ..graph import Removable
from ..penalties import LogSum, Penalty
from ._aims import Aims, check_aims
from ._arguments import check_aim, check_steps, has_aim, penalty_of
from ._budget import Budget
from ._curvature import Curvature
from ._finite import check_finite
from ._forward import Forward, without_hooks
from ._joining import Joined, Share, learning_rate
from ._member import Member
from ._metric import Metric
from ._notes import Notes
from ._plan import Plan
from ._pool import Pool
from ._reach import Reach
from ._recruiting import pooled, recruit, release, take
from ._rules import Rule, as_budget
from ._scale import check_scale, natural_penalty, natural_strength
from ._shards import is_sharded, local, summed
from ._span import Span
from ._spanning import check_spans, hold_spans, recruit_spans
from ._state import VERSION, check_state, restored
from ._switching import leave
from ._zeros import is_held, keep_zeros
from .faces import Face, Handover, face_named

__all__ = ["Sparsifier"]

# More calls without any step of the optimizer than a window of accumulated gradients has.
_IDLE = 1000


class Sparsifier:
    r"""Trains a model toward sparsity by a penalty or by its dual dropout, to a stated budget or at a stated strength.

    Nothing of the model is wrapped or renamed. In the training loop::

        sparsifier = Sparsifier(model, optimizer, budget=Budget(sparsity=0.95), total_steps=steps)
        for x, y in loader:
            loss = criterion(model(x), y) + sparsifier.penalty()
            loss.backward()
            optimizer.step()
            sparsifier.step()
            optimizer.zero_grad()
        sparsifier.finish()

    Parameters
    ----------
    model : nn.Module
    optimizer : torch optimizer
        The one that trains ``model``; its learning rates and second moments set the steps of the penalty. Wrappers that
        keep it in an attribute, such as Accelerate's, are looked through. Where its class is not one of torch's, a
        stated strength measures the metric from what its steps do, which costs four numbers per weight.
    penalty : str or Penalty, optional
        A name of the catalogue or an object; by default the face's own where it has one, else ``"log-sum"``.
        With a budget its parameters are in units of the boundary weight (the
        largest that falls), so ``LogSum(0.1)`` has the same shape for any layer and initialization; with a strength
        they are in units of the weights.
    face : str or Face
        How the regularizer is run. ``"proximal"``, ``"reweighted"`` and ``"dropout"`` take any penalty, as does
        ``"learned-eta"``. Learned strategies have their own: ``"variational-dropout"``, ``"hard-concrete"``,
        ``"concrete-dropout"``; their parameters join the optimizer by `join`. So have ``"standout"``,
        ``"targeted-dropout"``, ``"magnitude"`` and ``"random"``. Objects of `obverse.sparsify` carry options.
    groups : {"weights", "units", "filters", "inputs", "heads", "hidden", "embedding", "channels"}
        What lives or dies together. Unless a rule names it, the last layer is left alone when whole units or filters
        fall: its units are the outputs. With ``example_inputs`` a group spans all tensors that belong to a unit, a
        filter, an attention head, a hidden unit of a recurrent layer or an embedding dimension; ``"channels"`` are
        all of these.
    budget : Budget or float, optional
        What the run must end with: a sparsity (a float is one), or parameters, multiply-accumulates, bytes or seconds
        of the whole model. Needs ``total_steps``.
    strength : float, optional
        :math:`\lambda` of ``loss + strength * penalty``, for those who want it instead of a budget.
    total_steps : int, optional
        Number of calls of `step` in the whole run.
    rules : sequence of Rule, optional
        Which parameters are treated differently, or left alone.
    every : int, optional
        Optimizer steps between applications. With a budget the default spreads 400 applications over ramp and hold;
        with a strength it is 1, for which the stationary points are exact.
    law : {"gaussian", "bernoulli"}
        Noise of the dropout face.
    seed : int, torch.Generator or numpy.random.Generator, default 0
        Seed of that noise. A generator contributes only its initial seed.
    curvature : {"optimizer", "gradients", "inputs", "none"}
        What makes weights of different layers comparable. ``"optimizer"``: budgets rank by the weight times the root
        of the optimizer's metric, stated strengths penalize the weights as they are. ``"gradients"`` and ``"inputs"``
        measure a curvature H, the root second moment of the gradient or the second moment of the layer's input,
        relative to its mean, and the penalty sees ``sqrt(H) * w`` in place of w, so that one strength serves all
        layers. ``"none"``: nothing is scaled.
    continuation : float, default 1.0
        How many times wider the penalty is at first; it narrows geometrically over the ramp of a budget, or over the
        first half of ``total_steps``.
    examples : int, optional
        Number of training examples. With neither budget nor strength the strength is ``noise / examples``, and the
        penalty is read in units of ``sqrt(noise / examples)``: the scale that variational inference has. It is also
        where the control of a learned strategy begins.
    noise : float, default 1.0
        Variance of the observations, 1 for a cross-entropy.
    example_inputs : Tensor or tuple of arguments, optional
        One batch, as the model takes it. One run on it is watched, and groups are what can be taken out whole
        afterwards: what writes a channel, its bias and normalization, and what reads it. Their magnitude is the root
        mean square over all of that, and a sparsity is the share of the removable parameters that fall, each counted
        once. For the faces that act on the weights.

    Raises
    ------
    InvalidArgumentError
        For arguments out of range, a parameter the optimizer does not train, or rules that match nothing.
    StateError
        If another Sparsifier holds one of the parameters.

    Notes
    -----
    *Strength and learning rate.* An optimizer whose update is ``rate * gradient / metric`` (rate: the learning rate
    times the gain of momentum; metric: Adam's bias-corrected root second moment, or 1) gets the proximal step
    ``strength * rate / metric`` per coordinate. The stationary points are then those of ``loss + strength * penalty``
    whatever the optimizer and the learning rate. With a budget the boundary is an order statistic of the weights and
    the learning rate plays no part; `strength` reports the value that would have had the same effect.

    References
    ----------
    LeJeune, Javadi and Baraniuk (2021) for the faces and their duality; preconditioned proximal step and the
    order-statistic budget: derived in docs/theory.md, sections 3.3 and 3.5.
    """

    def __init__(
        self,
        model: nn.Module,
        optimizer: Any,
        penalty: str | Penalty | None = None,
        face: str | Face = "proximal",
        groups: str = "weights",
        budget: Budget | float | None = None,
        strength: float | None = None,
        total_steps: int | None = None,
        rules: Sequence[Rule] | None = None,
        every: int | None = None,
        law: str = "gaussian",
        seed: Seed = 0,
        curvature: str = "optimizer",
        continuation: float = 1.0,
        examples: int | None = None,
        noise: float = 1.0,
        example_inputs: Any = None,
    ) -> None:
        self._face = face_named(face)
        budgets = [budget, *(rule.budget for rule in rules or ())]
        check_aim(
            self._face,
            [strength, *(rule.strength for rule in rules or ())],
            next((aim for aim in budgets if aim is not None), None),
        )
        rules = list(rules or ())
        check_scale(examples, noise)
        penalty = penalty_of(self._face, penalty)
        budget = None if budget is None else as_budget(budget)
        if budget is not None and strength is not None:
            raise InvalidArgumentError("give a budget or a strength, not both")
        if budget is None and strength is None and not any(has_aim(rule) for rule in rules):
            if examples is None:
                raise InvalidArgumentError(
                    "say what to aim for: budget=Budget(sparsity=0.95), or strength=1e-3, or examples=60_000 for the "
                    "strength that belongs to so many"
                )
            strength = natural_strength(examples, noise)
            if self._face.own_penalty is None:
                penalty = natural_penalty(penalty, examples, noise)
        if penalty is None:
            penalty = LogSum()
        for rule in rules:
            penalty_of(self._face, rule.penalty)
        for value in (strength, *(rule.strength for rule in rules)):
            if value is not None:
                nonnegative("strength", value)
        has_budget = any(aim is not None for aim in (budget, *(rule.budget for rule in rules)))
        check_steps(total_steps, every, continuation, has_budget=has_budget)

        self._total_steps = total_steps
        self._metric = Metric(optimizer)
        default = Rule(match="*", penalty=penalty, strength=strength, budget=budget, groups=groups)
        self._spans = example_inputs is not None
        check_aims(rules, spans=self._spans, budget=budget)
        self._removable: Removable | None = None
        self._members: list[Member]
        if self._spans:
            check_spans(self._face, curvature)
            spans, self._removable = recruit_spans(model, rules, default, self._metric, example_inputs)
            self._members = list(spans)
        else:
            self._members = recruit(model, rules, default, self._metric)
        if any(parameter.is_meta for parameter in model.parameters()):
            raise InvalidArgumentError("the model has parameters on the meta device; materialize them first")
        self._forward = Forward(law, seed_number(seed), model, self._members[0].parameter.device)
        self._forward.face = self._face
        self._pools = pooled(self._members, total_steps, every, natural_strength(examples, noise), float(continuation))
        if budget is not None and budget.costs:
            for pool in self._pools:
                pool.aims = Aims(budget, model, self._members, self._removable, example_inputs)
        if any(pool.budget is None for pool in self._pools):
            self._metric.check_strength()
        self._notes = Notes()
        for pool in self._pools:
            pool.notes = self._notes
            pool.check_reachable()
        self._model = weakref.ref(model)
        self._joined: Joined | None = None
        self._watched = [(name, p) for name, p in model.named_parameters() if p.requires_grad and p.numel() > 0]
        self._step = 0
        self._finished = self._keeps_zeros = False
        self._nonzero_at_end: int | None = None
        self._said_frozen: set[str] = set()
        self._plan: tuple[list[str], Plan] | None = None
        self._reach = Reach(self._members, self._watched)
        check_finite([*self.named_parameters(), *self._watched], self._step)
        self._stepped, self._idle = False, 0
        self._draws_seen = 3  # the step at which every layer must have drawn
        self._curvature = Curvature(curvature, self._members, self._metric.optimizer)
        hooks: list[torch.utils.hooks.RemovableHandle] = []
        try:
            self._attach([None] * len(self._members))
            self._measure()
            hooks.append(self._metric.optimizer.register_step_post_hook(_Stepped(self)))
            self._start()
        except BaseException:
            # Nothing of a Sparsifier that was not made stays on the model or the optimizer.
            self._metric.detach()
            _remove(self._forward.handles, self._curvature.handles, hooks)
            raise
        take(self._members, self)
        weakref.finalize(self, _remove, self._forward.handles, self._curvature.handles, hooks)

    # ------------------------------------------------------------------ the loop
    def penalty(self) -> torch.Tensor:
        """What to add to the loss: the cost of a learned strategy; zero for faces that act on the weights.

        Returns
        -------
        torch.Tensor of shape ()
            In the unit of a mean loss.
        """
        total: torch.Tensor | None = None
        if self._face.learns and not self._finished:
            for pool in self._pools:
                if pool.is_frozen:
                    continue
                for member in pool.active:
                    cost = self._face.cost(member, pool.coefficient)
                    if cost is not None:
                        total = cost if total is None else total + cost
        return torch.zeros_like(self._zero) if total is None else total

    # ------------------------------------------------------------------ learned parameters
    def named_parameters(self) -> Iterator[tuple[str, nn.Parameter]]:
        """What the face learns beside the model's weights, by name; empty for faces that learn nothing."""
        for member in self._members:
            for key, parameter in member.learned.items():
                yield f"{member.name}:{key}", parameter

    def parameters(self) -> Iterator[nn.Parameter]:
        """What the face learns beside the model's weights."""
        for _, parameter in self.named_parameters():
            yield parameter

    def join(self, optimizer: Any = None, lr: float | None = None) -> None:
        """Let the face's learned parameters be trained by an optimizer; without any, do nothing.

        Call it once, before a learning-rate schedule is made and before the optimizer's state is loaded. In a
        data-parallel run their gradients are averaged over the processes.

        Parameters
        ----------
        optimizer : torch optimizer, optional
            By default the model's own; the parameters become a group of it, without weight decay (several, where
            rules set strengths that need other rates). One that was made for them,
            ``torch.optim.Adam(sparsifier.parameters(), lr=1e-2)``, is taken as it is; step it too.
        lr : float, optional
            By default the optimizer's, or what lets a logarithm travel by 8 within ``total_steps`` if that is more;
            under an optimizer that is not adaptive, divided by the strength that scales the gradient, which is then
            bounded by it.

        Raises
        ------
        StateError
            If they have joined already.
        """
        parameters = list(self.parameters())
        if not parameters:
            return
        if self._joined is not None:
            raise StateError("the learned parameters have joined an optimizer already")
        if lr is not None:
            positive("lr", lr)
        target = self._metric.optimizer if optimizer is None else optimizer
        held = {id(p) for group in Metric(target).optimizer.param_groups for p in group["params"]}
        if lr is None and id(parameters[0]) in held:
            shares = [Share(parameters, 0.0)]  # not used: the optimizer holds them with a rate of its own
        elif lr is None:
            shares = [
                Share(
                    pool.learned,
                    *learning_rate(
                        Metric(target), self._total_steps, pool.strength, is_scaled=self._face.is_controlled
                    ),
                )
                for pool in self._pools
            ]
        else:
            shares = [Share(parameters, lr)]
        self._joined = Joined([share for share in shares if share.parameters], target)
        weakref.finalize(self, self._joined.leave)

    @torch.no_grad()
    def step(self) -> None:
        """Apply the regularizer once; call it after ``optimizer.step()``.

        Where the optimizer was not stepped since the last call (accumulated gradients, a step that a gradient scaler
        or Accelerate left out), nothing is done and nothing counted.

        Raises
        ------
        StateError
            After `finish`.
        NonFiniteError
            If a weight is NaN or infinite; names it and the step.
        """
        if self._finished:
            raise StateError("this Sparsifier is finished; make a new one to go on pruning")
        if self._joined is None and self._face.learns and not all(pool.is_frozen for pool in self._pools):
            raise StateError(
                f"face={self._face.name!r} learns parameters of its own, which no optimizer trains: call "
                "sparsifier.join() once, before the loop"
            )
        if self._waits():
            return
        self._step += 1
        if self._face.acts_in_forward:
            self._forward.restart(self._step)
            if self._step == self._draws_seen:
                self._check_drawn()
        if self._zero.device != self._members[0].parameter.device:
            raise StateError(
                f"the model was moved to {self._members[0].parameter.device} after the Sparsifier was made on "
                f"{self._zero.device}: move it first, then make the optimizer and the Sparsifier"
            )
        for member in self._members:
            self._face.project(member)
            for learned in member.learned.values():
                learned.grad = None  # also where only the model's gradients are cleared
        self._say_what_is_frozen()
        if self._reach.is_open:
            self._reach.see()
        due = [pool for pool in self._pools if pool.is_due(self._step)]
        if due or self._step % 16 == 0:
            check_finite([*self.named_parameters(), *self._watched], self._step)
        if due:
            self._curvature.update()
        for pool in due:
            pool.apply(self._step, self._face)
        for pool in self._pools:
            pool.hold_zeros()
            if self._face.learns:
                pool.charge(self._step, self._face)

    @torch.no_grad()
    def switch(self, face: str | Face, penalty: str | Penalty | None = None) -> None:
        """Go on through another face; what the noise was, eta stays.

        A learned strategy leaves its eta to the next face, and, at a stated strength, the penalty and the strength
        that have its objective. A face that learns begins where the weights, or the noise before it, are; its
        parameters have to `join` the optimizer. Call it after `step`, not between ``backward`` and it.

        Parameters
        ----------
        face : str or Face
        penalty : str or Penalty, optional
            Another penalty from now on.

        Raises
        ------
        StateError
            After `finish`.
        """
        if self._finished:
            raise StateError("this Sparsifier is finished; make a new one to go on pruning")
        after = face_named(face)
        if after is self._face:
            raise InvalidArgumentError("switch to another face object than the one in force")
        chosen = penalty_of(after, penalty)
        if self._spans:
            check_spans(after, self._curvature.kind)
        for pool in self._pools:
            check_aim(after, [None if pool.budget is not None else pool.strength], pool.budget)
        handed = leave(self._face, self._pools, self._forward, chosen)
        if self._joined is not None:
            self._joined.leave()
            self._joined = None
        self._face = self._forward.face = after
        self._forward.restart(self._step)
        self._attach([handed.get(member.name) for member in self._members])
        for member in self._members:
            member.drawn = member.support is not None
        self._draws_seen = self._step + 3
        self._measure()
        for pool in self._pools:
            pool.change_face(self._step, after)
        if after.acts_in_forward and "torch._dynamo" in sys.modules:
            # A compiled model does not look for hooks that were not there when it was traced.
            sys.modules["torch._dynamo"].reset()

    @torch.no_grad()
    def snapshot(self) -> nn.Module:
        """A plain copy of the model as evaluation sees it now: gates folded in, no hooks, the same keys.

        What to evaluate, export or average while training goes on; `copy.deepcopy` of the model copies the weights
        without the gates of a learned strategy.
        """
        model = self._model()
        if model is None:
            raise StateError("the model is gone")
        copied = without_hooks(copy.deepcopy(model))
        mine = dict(zip(model.parameters(), copied.parameters(), strict=True))
        for member in self._members:
            is_plain = member.support is not None or self._finished or not member.is_trained
            factor = None if is_plain else self._face.fold(member)
            if factor is not None:
                held = local(mine[member.parameter].detach())
                held.mul_(member.grouping.spread(member.held_part(factor), held))
        return copied

    @torch.no_grad()
    def finish(self, keep_zeros_after: bool = True) -> None:
        """End with exact zeros and a plain model; the budget is met even where the run was cut short.

        Parameters
        ----------
        keep_zeros_after : bool, default True
            Pruned weights get no gradient from now on, so that fine-tuning with an ordinary optimizer leaves them at
            zero; `release_zeros` undoes it.

        Raises
        ------
        StateError
            If it was called before.
        """
        if self._finished:
            raise StateError("this Sparsifier is finished already")
        check_finite([*self.named_parameters(), *self._watched], self._step)
        self._say_what_is_frozen()
        written = self._written_since_the_last_step()
        for pool in self._pools:
            early = pool.finish(self._step, self._face)
            if early:
                self._notes.say(
                    f"finished at step {self._step} of {self._total_steps}, before the fine-tune: the budget is met, "
                    "but the surviving weights were not trained to make up for it"
                )
        if written:
            self._notes.say(
                f"{written:,} pruned weights had been given values since the last sparsifier.step(), as an average of "
                "weights or an earlier checkpoint does: finish() has set them to zero again, so that the sparsity is "
                f"{self.sparsity:.4g}, but the model was not trained like this; evaluate it anew, or average and keep "
                "checkpoints of the fine-tune only"
            )
        if self._reach.line():
            self._notes.say(self._reach.line())
        for member in self._members:
            for parameter, mask in member.nonzero_masks():
                member.metric.forget(parameter, mask)
                local(parameter.detach()).add_(0.0)  # -0.0, the zero of a negative weight, would be stored as a number
        self._release(keep_zeros_after)
        self._nonzero_at_end = self._counts()[0]
        self._say_what_has_no_zeros()

    # ------------------------------------------------------------------ what it knows
    @property
    def sparsity(self) -> float:
        """Fraction of the regularized weights that are exactly zero now.

        Until the freeze of a budget, weights that fell may move again between two applications; the trajectory records
        the sparsity right after each. Of groups that span tensors, a weight that two groups share counts once, and the
        sparsity is the share that `obverse.compact` takes out. Weights that were frozen (``requires_grad=False``)
        before the support was fixed are not counted.
        """
        nonzero, weights = self._counts()
        if self._nonzero_at_end is not None and nonzero > self._nonzero_at_end and self._holds_zeros():
            self._notes.say(
                f"{nonzero - self._nonzero_at_end:,} pruned weights have been given values since finish(), as an "
                f"average of weights does that is written late: the sparsity is {1 - nonzero / weights:.4g}; "
                "write averages before finish()"
            )
        return 1 - nonzero / weights

    @property
    def notes(self) -> list[str]:
        """What there was to say about the run, such as a budget that was missed; each was a warning as well."""
        return list(self._notes.lines)

    @property
    def strength(self) -> float:
        r"""Strength :math:`\lambda` in force; with a budget, the one that has the same effect as the last application.

        Where rules set several aims, that of the largest pool.
        """
        return self._main.strength

    @strength.setter
    def strength(self, value: float) -> None:
        if self._main.budget is not None:
            raise StateError("the budget decides the strength of this Sparsifier; make it with strength= to set it")
        self._main.strength = nonnegative("strength", value)
        self._start()

    @property
    def boundary(self) -> float | None:
        """Magnitude of the largest weight that fell at the last application of a budget; None before, or without one.

        Where the optimizer has a metric the boundary differs from weight to weight; this is that of the median.
        """
        return self._main.boundary

    @property
    def phase(self) -> str:
        """``"warmup"``, ``"ramp"``, ``"hold"``, ``"finetune"``; ``"train"`` for a stated strength."""
        return self._main.phase(self._step)

    @property
    def target(self) -> float | None:
        """Sparsity asked for now; None for a stated strength. With several budgets, that of the largest pool."""
        return self._main.target(self._step)

    @property
    def trajectory(self) -> list[dict[str, Any]]:
        """Points of the largest pool: step, target, sparsity, strength, boundary and phase; at most about 1000."""
        return self._main.trajectory.points

    def layers(self) -> list[dict[str, Any]]:
        """Name, shape, number of weights and of nonzero weights of every regularized tensor; the sum is `sparsity`.

        Of groups that span tensors: of every family, by the tensor that names it, with the weights of all its groups.
        A weight that two families share belongs to the one along its first axis, the unit that it leads to.
        """
        return [
            {"name": member.name, "shape": list(member.parameter.shape), "weights": weights, "nonzero": nonzero}
            for member, weights, nonzero in self._rows()
        ]

    def largest_strength(self) -> float:
        r"""The first strength that empties every group at the current gradient.

        .. math:: \lambda_{\max} = \max_g \lVert \nabla_g \rVert / (\sqrt{m_g} \, \Omega'(0+))

        At zero weights this makes zero stationary (the network's counterpart of the largest alpha of a lasso path).
        Infinite for a penalty without exact zeros, 0 where the slope at zero is infinite.

        Raises
        ------
        StateError
            If there is no gradient; call it between ``backward()`` and ``zero_grad()``.
        NonFiniteError
            If a gradient is NaN or infinite.
        """
        largest = 0.0
        for member in self._members:
            pull = member.gradient_magnitude()
            if pull is None:
                raise StateError(
                    f"{member.name!r} has no gradient: call largest_strength() after backward(), before zero_grad()"
                )
            steepest = float(pull.max())
            if not math.isfinite(steepest):
                raise NonFiniteError(f"the gradient of {member.name!r} is not finite at step {self._step}")
            largest = max(largest, self._face.emptying_strength(member.penalty, steepest))
        return largest

    # ------------------------------------------------------------------ checkpoints
    def state_dict(self) -> dict[str, Any]:
        """Everything a checkpoint needs beside those of the model and the optimizer: tensors and plain values."""
        return {
            "version": VERSION,
            "face": self._face.name,
            "options": self._options(),
            "learned": {name: parameter.detach().clone() for name, parameter in self.named_parameters()},
            "curvature": self._curvature.state_dict(),
            "metric": self._metric.state_dict(),
            "curve": {m.name: m.curve.clone() for m in self._members if m.curve is not None},
            "step": self._step,
            "finished": self._finished,
            "keeps_zeros": self._keeps_zeros,
            "pools": [pool.state_dict() for pool in self._pools],
            "notes": self.notes,
            "memory": {m.name: m.memory.clone() for m in self._members if m.memory is not None},
            "support": {m.name: m.support.clone() for m in self._members if m.support is not None},
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take up the state of a Sparsifier made with the same arguments.

        Raises
        ------
        InvalidArgumentError
            If the state belongs to another model, face or set of rules; nothing is changed then.
        """
        mine = dict(self.named_parameters())
        expected = check_state(state, self._members, self._pools, self._face.name, mine, self._options())
        metric = state.get("metric", {})
        self._metric.check_state(metric)
        restored(self._curvature, self._pools, state)
        self._metric.load_state_dict(metric)
        memory, curve, support = state["memory"], state["curve"], state["support"]
        by_name = {member.name: member for member in self._members}
        for name, member in by_name.items():
            device = member.parameter.device
            member.memory = memory[name].to(device, copy=True) if name in memory else None
            member.curve = curve[name].to(device, copy=True) if name in curve else None
            member.support = support[name].to(device, copy=True) if name in support else None
            if member.support is not None:
                member.is_whole = False
                self._face.detach(member)
        with torch.no_grad():
            for name in expected:
                mine[name].copy_(state["learned"][name])
        self._step = int(state["step"])
        self._notes.lines = [str(line) for line in state.get("notes", ())]
        self._forward.restart(self._step)
        for pool in self._pools:
            pool.charge(self._step, self._face)
        if state["finished"] and not self._finished:
            self._release(bool(state["keeps_zeros"]))

    def __repr__(self) -> str:
        aims = ", ".join(str(pool) for pool in self._pools)
        return f"Sparsifier({len(self._members)} tensors, face={self._face.name!r}, {aims}, step={self._step})"

    def _options(self) -> dict[str, Any]:
        """What a state and its Sparsifier must have in common beside the pools."""
        return {
            "law": self._forward.law,
            "seed": self._forward.seed,
            "curvature": self._curvature.kind,
            "face options": {k: list(v) if isinstance(v, tuple) else v for k, v in self._face.options().items()},
        }

    # ------------------------------------------------------------------ making
    def _attach(self, handed: Sequence[Handover | None]) -> None:
        sees_all = self._face.acts_in_forward or self._face.learns
        for member, left in zip(self._members, handed, strict=True):
            if member.support is None:
                member.work_on_all(sees_all and is_sharded(member.parameter))
                own = left and Handover(member.part(left.variance), left.strength)
                self._face.attach(member, self._forward, own)
                if self._face.acts_in_forward:
                    self._forward.attach(member)
        self._zero = torch.zeros((), device=self._members[0].held.device)

    def _measure(self) -> None:
        """Measure the metric where a stated strength needs it and the optimizer's state does not tell it."""
        if not self._face.is_controlled:
            self._metric.measure(
                tensor for pool in self._pools if pool.budget is None for one in pool.members for tensor in one.tensors
            )

    def _rows(self) -> list[tuple[Member, int, int]]:
        """Every member that counts, with its weights and those that are not zero, shared ones once."""
        members = [member for pool in self._pools for member in pool.active]
        members.sort(key=self._members.index)
        spans = [member for member in members if isinstance(member, Span)]
        if not spans:
            return [(member, member.count, member.nonzero()) for member in members]
        plan = self._plan_of(spans)
        alive = [span.magnitude() != 0 for span in spans]
        whole = plan.shares([torch.ones_like(mask) for mask in alive])
        return list(zip(members, whole, plan.shares(alive), strict=True))

    def _counts(self) -> tuple[int, int]:
        """Weights that are not zero, and all."""
        rows = self._rows()
        return sum(nonzero for _, _, nonzero in rows), max(1, sum(weights for _, weights, _ in rows))

    @property
    def _main(self) -> Pool:
        return max(self._pools, key=lambda pool: pool.weights)

    def _start(self) -> None:
        """Tell the loss, and a face that draws noise, the strength in force."""
        with torch.no_grad():
            for pool in self._pools:
                pool.start(self._step, self._face)

    def _waits(self) -> bool:
        """Whether the optimizer has not stepped since the last call."""
        stepped, self._stepped = self._stepped, False
        self._idle = 0 if stepped else self._idle + 1
        if self._step == 0 and self._idle >= _IDLE:
            raise StateError(
                f"{_IDLE} calls of sparsifier.step(), and the optimizer it was made with never stepped: give it the "
                "optimizer that trains the model"
            )
        return not stepped

    def _plan_of(self, spans: Sequence[Span]) -> Plan:
        """How the groups of all pools are counted together."""
        names = [span.name for span in spans]
        if self._plan is None or self._plan[0] != names:
            self._plan = (names, Plan(spans))
        return self._plan[1]

    def _say_what_is_frozen(self) -> None:
        """Say once which weights the user has frozen since the Sparsifier was made; they are left alone."""
        frozen = [
            member.name
            for pool in self._pools
            if not pool.is_frozen
            for member in pool.members
            if not member.is_trained and member.name not in self._said_frozen
        ]
        if frozen:
            self._said_frozen.update(frozen)
            self._notes.say(
                f"{', '.join(map(repr, frozen))} {'was' if len(frozen) == 1 else 'were'} frozen (requires_grad=False) "
                "after the Sparsifier was made: left alone, and not counted in sparsity and budget until trained again"
            )

    def _written_since_the_last_step(self) -> int:
        """Pruned weights that are not zero though no optimizer moved them."""
        if self._stepped:
            return 0
        written = 0
        for pool in self._pools:
            if pool.is_frozen:
                before = self._nonzeros_of(pool)
                pool.hold_zeros()
                written += before - self._nonzeros_of(pool)
        return written

    def _nonzeros_of(self, pool: Pool) -> int:
        """Entries that are not zero in all tensors of a pool, each tensor once."""
        tensors = {id(p): p for member in pool.active for p in member.parameters}
        return sum(summed(int(torch.count_nonzero(local(p.detach()))), p) for p in tensors.values())

    def _holds_zeros(self) -> bool:
        """Whether the zeros that finish() left are still held, by none of the user's wishes released."""
        return self._keeps_zeros and all(is_held(p) for pool in self._pools for m in pool.active for p in m.parameters)

    def _say_what_has_no_zeros(self) -> None:
        """Say where a stated strength leaves no zeros, however strong, for its penalty has none."""
        for pool in self._pools:
            penalty = pool.members[0].penalty
            if pool.budget is None and pool.strength > 0 and penalty.slope_at_zero == 0:
                self._notes.say(
                    f"no weights were set to zero: the penalty of face={self._face.name!r}, "
                    f"{penalty.name or type(penalty).__name__}, has no exact zeros at any strength; say a budget, or "
                    "use a penalty whose slope at zero is positive, such as 'log-sum'"
                )

    def _release(self, keep: bool) -> None:
        """Let go of the model; its zeros are kept where asked."""
        self._forward.detach()
        self._curvature.detach()
        self._metric.detach()
        if self._joined is not None:
            self._joined.leave()
            self._joined = None
        # An optimizer that moves weights together, or may do so, needs more than gradients of zero.
        mixing = None if self._metric.is_known else self._metric.optimizer
        if keep and self._spans:
            hold_spans(self._members, mixing)
        for member in self._members:
            member.support = member.curve = None
            self._face.detach(member)
            if keep and not self._spans:
                keep_zeros(member.parameter, mixing)
            release(member)
        self._finished, self._keeps_zeros = True, keep

    def _check_drawn(self) -> None:
        silent = [member.name for member in self._members if not member.drawn and member.is_trained]
        if silent:
            self._notes.say(
                f"no noise was drawn for {', '.join(silent)}: the forward pass uses the weight without calling its "
                f"layer (or the model was in evaluation mode), so face={self._face.name!r} does not regularize it"
            )


class _Stepped:
    """An optimizer's hook that tells a Sparsifier of every step, and does not keep it alive."""

    def __init__(self, sparsifier: Sparsifier) -> None:
        self._sparsifier = weakref.ref(sparsifier)

    def __call__(self, optimizer: Any, *_: Any) -> None:
        sparsifier = self._sparsifier()
        # A gradient scaler lets fused optimizers find the overflow, and leave the step out, themselves.
        overflow = getattr(optimizer, "found_inf", None)
        if sparsifier is not None and (overflow is None or float(overflow) == 0):
            sparsifier._stepped = True


def _remove(*lists: list[torch.utils.hooks.RemovableHandle]) -> None:
    for handles in lists:
        for handle in handles:
            handle.remove()
