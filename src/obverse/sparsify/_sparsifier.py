"""The Sparsifier: trains a model toward zeros, through either face of a regularizer, in the user's own loop."""

from __future__ import annotations

import math
import warnings
import weakref
from collections.abc import Sequence
from typing import Any

import torch
from torch import nn
from torch.utils.weak import WeakIdKeyDictionary

from ..errors import InvalidArgumentError, NonFiniteError, StateError, UnknownNameError
from ..penalties import Penalty
from ..penalties import penalty as penalty_named
from ._budget import Budget, is_number
from ._faces import FACES, Face
from ._groups import grouping
from ._member import Member
from ._metric import Metric
from ._noise import Noise
from ._pool import Pool
from ._rules import Rule, as_budget, output_parameter, select
from ._zeros import keep_zeros

__all__ = ["Sparsifier"]

_ATTACHED: Any = WeakIdKeyDictionary()
_STATE_VERSION = 1


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
        The one that trains ``model``; its learning rates and second moments set the steps of the penalty.
    penalty : str or Penalty, default "log-sum"
        A name of the catalogue or an object. With a budget its parameters are in units of the boundary weight (the
        largest that falls), so ``LogSum(0.1)`` has the same shape for any layer and initialization; with a strength
        they are in units of the weights.
    face : {"proximal", "reweighted", "dropout"}
    groups : {"weights", "units", "filters"}
        What lives or dies together. Unless a rule names it, the last layer is left alone when whole units fall: its
        units are the outputs.
    budget : Budget or float, optional
        What the run must end with (a float is a sparsity). Needs ``total_steps``.
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
    seed : int or torch.Generator, default 0
        Source of that noise.

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
    order-statistic budget: derived, see the user guide.
    """

    def __init__(
        self,
        model: nn.Module,
        optimizer: Any,
        penalty: str | Penalty = "log-sum",
        face: str = "proximal",
        groups: str = "weights",
        budget: Budget | float | None = None,
        strength: float | None = None,
        total_steps: int | None = None,
        rules: Sequence[Rule] | None = None,
        every: int | None = None,
        law: str = "gaussian",
        seed: int | torch.Generator = 0,
    ) -> None:
        if face not in FACES:
            raise UnknownNameError("face", str(face), FACES)
        rules = list(rules or ())
        budget = None if budget is None else as_budget(budget)
        if budget is not None and strength is not None:
            raise InvalidArgumentError("give a budget or a strength, not both")
        if budget is None and strength is None and not any(_has_aim(rule) for rule in rules):
            raise InvalidArgumentError("say what to aim for: budget=Budget(sparsity=0.95), or strength=1e-3")
        for value in (strength, *(rule.strength for rule in rules)):
            if value is not None:
                _check_strength(value)
        if total_steps is None and any(aim is not None for aim in (budget, *(rule.budget for rule in rules))):
            raise InvalidArgumentError(
                "a budget needs total_steps, the number of sparsifier.step() calls in the whole run "
                "(epochs * steps per epoch), to know when to arrive"
            )
        if total_steps is not None and total_steps < 1:
            raise InvalidArgumentError(f"total_steps must be at least 1, got {total_steps}")
        if every is not None and every < 1:
            raise InvalidArgumentError(f"every must be at least 1, got {every}")

        self._face: Face = FACES[face]()
        self._total_steps = total_steps
        self._metric = Metric(optimizer)
        default = Rule(match="*", penalty=penalty, strength=strength, budget=budget, groups=groups)
        self._members = self._recruit(model, rules, default)
        if any(parameter.is_meta for parameter in model.parameters()):
            raise InvalidArgumentError("the model has parameters on the meta device; materialize them first")
        self._noise = Noise(law, _generator(seed, self._members[0].parameter.device), model)
        self._pools = self._pool(every)
        if not self._metric.is_diagonal and any(pool.budget is None for pool in self._pools):
            raise InvalidArgumentError(
                f"{type(self._metric.optimizer).__name__} does not move a weight by its own gradient, so no proximal "
                "step belongs to a stated strength; say a budget, or use an optimizer such as SGD or Adam"
            )
        self._watched = [(name, p) for name, p in model.named_parameters() if p.requires_grad and p.numel() > 0]
        self._step = 0
        self._finished = self._keeps_zeros = False
        self._check_finite()
        try:
            for member in self._members:
                self._face.attach(member, self._noise)
        except Exception:
            self._noise.detach()
            raise
        for member in self._members:
            _ATTACHED[member.parameter] = weakref.ref(self)
        self._stepped: bool | None = None  # None until the optimizer is seen stepping
        handle = self._metric.optimizer.register_step_post_hook(_Stepped(self))
        weakref.finalize(self, _remove, [*self._noise.handles, handle])
        self._start()

    # ------------------------------------------------------------------ the loop
    def penalty(self) -> torch.Tensor:
        """What to add to the loss: zero for these faces, which act on the weights or in the forward pass."""
        return self._members[0].parameter.new_zeros(())

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
        if self._waits():
            return
        self._step += 1
        if self._step == 3 and self._face.name == "dropout":
            self._check_drawn()
        due = [pool for pool in self._pools if pool.is_due(self._step)]
        if due or self._step % 16 == 0:
            self._check_finite()
        for pool in due:
            pool.apply(self._step, self._face)
        for pool in self._pools:
            pool.hold_zeros()

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
        self._check_finite()
        for pool in self._pools:
            early = pool.finish(self._step, self._face)
            if early:
                warnings.warn(
                    f"finished at step {self._step} of {self._total_steps}, before the fine-tune: the budget is met, "
                    "but the surviving weights were not trained to make up for it",
                    stacklevel=3,
                )
        for member in self._members:
            member.metric.forget(member.parameter, (member.parameter != 0).to(member.parameter.dtype))
        self._release(keep_zeros_after)

    # ------------------------------------------------------------------ what it knows
    @property
    def sparsity(self) -> float:
        """Fraction of the regularized weights that are exactly zero now.

        Until the freeze of a budget, weights that fell may move again between two applications; the trajectory records
        the sparsity right after each.
        """
        total = sum(member.parameter.numel() for member in self._members)
        return 1 - sum(member.nonzero() for member in self._members) / total

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
        _check_strength(value)
        self._main.strength = float(value)
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
        """Name, shape, number of weights and of nonzero weights of every regularized tensor."""
        return [
            {
                "name": member.name,
                "shape": list(member.parameter.shape),
                "weights": member.parameter.numel(),
                "nonzero": member.nonzero(),
            }
            for member in self._members
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
            gradient = member.parameter.grad
            if gradient is None:
                raise StateError(
                    f"{member.name!r} has no gradient: call largest_strength() after backward(), before zero_grad()"
                )
            slope = member.penalty.slope_at_zero
            if slope == 0:
                return math.inf
            steepest = float(member.grouping.magnitude(gradient.detach()).max())
            if not math.isfinite(steepest):
                raise NonFiniteError(f"the gradient of {member.name!r} is not finite at step {self._step}")
            largest = max(largest, steepest / slope)
        return largest

    # ------------------------------------------------------------------ checkpoints
    def state_dict(self) -> dict[str, Any]:
        """Everything a checkpoint needs beside those of the model and the optimizer: tensors and plain values."""
        return {
            "version": _STATE_VERSION,
            "face": self._face.name,
            "step": self._step,
            "finished": self._finished,
            "keeps_zeros": self._keeps_zeros,
            "pools": [pool.state_dict() for pool in self._pools],
            "memory": {m.name: m.memory.clone() for m in self._members if m.memory is not None},
            "support": {m.name: m.support.clone() for m in self._members if m.support is not None},
            "generator": self._noise.generator.get_state(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take up the state of a Sparsifier made with the same arguments.

        Raises
        ------
        InvalidArgumentError
            If the state belongs to another model, face or set of rules; nothing is changed then.
        """
        try:
            version, face, pools = state["version"], state["face"], state["pools"]
            memory, support, generator = state["memory"], state["support"], state["generator"]
        except (KeyError, TypeError) as error:
            raise InvalidArgumentError("this is not the state of a Sparsifier") from error
        if version != _STATE_VERSION:
            raise InvalidArgumentError(f"the state has version {version}; this Obverse reads {_STATE_VERSION}")
        if face != self._face.name:
            raise InvalidArgumentError(f"the state is of face {face!r}, this Sparsifier is of {self._face.name!r}")
        by_name = {member.name: member for member in self._members}
        if len(pools) != len(self._pools) or not set(memory) | set(support) <= set(by_name):
            raise InvalidArgumentError("the state is of a Sparsifier with other rules or another model")
        for name, tensor in [*memory.items(), *support.items()]:
            expected = by_name[name].magnitude().shape
            if tensor.shape != expected:
                raise InvalidArgumentError(
                    f"the state of {name!r} has shape {tuple(tensor.shape)}, expected {tuple(expected)}"
                )
        for pool, saved in zip(self._pools, pools, strict=True):
            for field, value in pool.identity().items():
                if saved["identity"][field] != value:
                    raise InvalidArgumentError(
                        f"the state was saved with {field} {saved['identity'][field]!r}, this Sparsifier has {value!r}"
                    )
        try:
            self._noise.generator.set_state(generator.cpu())
        except (RuntimeError, TypeError) as error:
            raise InvalidArgumentError(f"the state of the random generator does not fit: {error}") from error
        for pool, saved in zip(self._pools, pools, strict=True):
            pool.load_state_dict(saved)
        for name, member in by_name.items():
            device = member.parameter.device
            member.memory = memory[name].to(device, copy=True) if name in memory else None
            member.support = support[name].to(device, copy=True) if name in support else None
        self._step = int(state["step"])
        if state["finished"] and not self._finished:
            self._release(bool(state["keeps_zeros"]))

    def __repr__(self) -> str:
        aims = ", ".join(str(pool) for pool in self._pools)
        return f"Sparsifier({len(self._members)} tensors, face={self._face.name!r}, {aims}, step={self._step})"

    # ------------------------------------------------------------------ making
    def _recruit(self, model: nn.Module, rules: Sequence[Rule], default: Rule) -> list[Member]:
        members = []
        outputs = output_parameter(model)
        for selected in select(model, rules, default):
            rule, owner = selected.rule, selected.owners[0][0]
            if rule.budget is None and rule.strength is None:
                continue
            # Whole groups: without a rule that asks for it, layers that have no such groups are left alone, and so is
            # the last layer, whose units are the outputs themselves.
            if rule.groups != "weights" and rule == default:
                fits = rule.groups != "filters" or isinstance(owner, nn.modules.conv._ConvNd)
                if not fits or selected.parameter is outputs:
                    continue
            holder = _ATTACHED.get(selected.parameter)
            if holder is not None and holder() is not None:
                raise StateError(
                    f"{selected.name!r} is held by another Sparsifier: finish() that one first, or skip it with a Rule"
                )
            assert rule.penalty is not None
            assert rule.groups is not None
            members.append(
                Member(
                    selected=selected,
                    grouping=grouping(rule.groups, selected.name, selected.parameter, owner),
                    penalty=penalty_named(rule.penalty),
                    metric=self._metric,
                    option_group=self._metric.group(selected.parameter, selected.name),
                )
            )
        if not members:
            raise InvalidArgumentError(f"nothing to regularize with groups={default.groups!r}")
        return members

    def _pool(self, every: int | None) -> list[Pool]:
        pools: list[Pool] = []
        for member in self._members:
            rule = member.selected.rule
            for pool in pools:
                # The common aim, and every rule's own, is one object shared by its members.
                if (pool.budget is rule.budget) and (rule.budget is not None or pool.strength == rule.strength):
                    pool.members.append(member)
                    break
            else:
                assert not isinstance(rule.budget, float | int)
                pools.append(Pool([member], rule.budget, rule.strength or 0.0, self._total_steps, every))
        return pools

    @property
    def _main(self) -> Pool:
        return max(self._pools, key=lambda pool: pool.weights)

    def _start(self) -> None:
        """Tell a face that acts in the forward pass the strength in force."""
        if self._face.name == "dropout":
            with torch.no_grad():
                for pool in self._pools:
                    pool.start(self._face)

    def _waits(self) -> bool:
        """Whether the optimizer, once seen stepping, has not stepped since the last call."""
        if self._stepped is None:
            return False
        stepped, self._stepped = self._stepped, False
        return not stepped

    def _release(self, keep: bool) -> None:
        """Let go of the model; its zeros are kept where asked."""
        self._noise.detach()
        # An optimizer that moves weights together needs more than gradients of zero.
        mixing = None if self._metric.is_diagonal else self._metric.optimizer
        for member in self._members:
            if keep:
                keep_zeros(member.parameter, mixing)
            member.memory = member.support = None
            _ATTACHED.pop(member.parameter, None)
        self._finished, self._keeps_zeros = True, keep

    def _check_drawn(self) -> None:
        silent = [member.name for member in self._members if not member.drawn]
        if silent:
            warnings.warn(
                f"no noise was drawn for {', '.join(silent)}: the forward pass uses the weight without calling its "
                "layer (or the model was in evaluation mode), so the dropout face does not regularize it",
                stacklevel=4,
            )

    def _check_finite(self) -> None:
        norms = torch._foreach_norm([parameter.detach() for _, parameter in self._watched], math.inf)
        if bool(torch.stack([norm.float() for norm in norms]).isfinite().all()):
            return
        for (name, parameter), norm in zip(self._watched, norms, strict=True):
            if not math.isfinite(float(norm)):
                gradient = parameter.grad
                cause = (
                    "its gradient is not finite either"
                    if gradient is not None and not bool(gradient.isfinite().all())
                    else "its gradient is finite"
                )
                raise NonFiniteError(
                    f"parameter {name!r} holds NaN or infinite values at step {self._step} ({cause}); lower the "
                    "learning rate, clip gradients, or resume from the last checkpoint"
                )


class _Stepped:
    """An optimizer's hook that tells a Sparsifier of every step, and does not keep it alive."""

    def __init__(self, sparsifier: Sparsifier) -> None:
        self._sparsifier = weakref.ref(sparsifier)

    def __call__(self, *_: Any) -> None:
        sparsifier = self._sparsifier()
        if sparsifier is not None:
            sparsifier._stepped = True


def _remove(handles: list[torch.utils.hooks.RemovableHandle]) -> None:
    for handle in handles:
        handle.remove()


def _generator(seed: int | torch.Generator, device: torch.device) -> torch.Generator:
    if isinstance(seed, torch.Generator):
        return seed
    if not is_number(seed) or seed != int(seed):
        raise InvalidArgumentError(f"seed must be an integer or a torch.Generator, got {seed!r}")
    return torch.Generator(device).manual_seed(int(seed))


def _check_strength(value: float) -> None:
    if not (is_number(value) and 0 <= value < math.inf):
        raise InvalidArgumentError(f"strength must be at least 0 and finite, got {value!r}")


def _has_aim(rule: Rule) -> bool:
    return rule.budget is not None or rule.strength is not None
