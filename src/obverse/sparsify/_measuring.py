"""Measures the metric of an optimizer whose class is not known, from what it does to the weights.

Each step of the optimizer is compared with the gradient that it was given. With ``u`` the descent of a weight in units
of the learning rate and ``g`` its gradient, the model is

    u(t) = beta * u(t-1) + c * g(t),

which is exact for gradient descent with momentum in a diagonal metric that changes slowly, and thus for Adam and its
relatives. The response ``c`` is fitted for every weight, the memory ``beta`` once for each parameter group. A constant
gradient of 1 then moves a weight by ``c / (1 - beta)`` per step. The slow parts of the measured and the fitted descent
are compared as well, and their ratio corrects that gain where the model is not exact, as for signs of averages (Lion).
(Least squares; derived, see the user guide.)
"""

from __future__ import annotations

import math
import weakref
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

from .._core import distributed
from .._core.arrays import wide
from ..errors import InvalidArgumentError, StateError
from ._shards import is_sharded, local

__all__ = ["Measurement"]

# Horizons of the averages: the newest step has at least this share.
_SHARE = 0.03
_SLOW_SHARE = 0.004
# Number of weights of each tensor that what is common to a group is estimated from.
_SAMPLE = 4096
_LONGEST_MEMORY = 0.98
_LARGEST_CORRECTION = 30.0
_RIDGE = 1e-4
# From this step on, weight decay is taken to act elsewhere where that leaves less than this share of the misfit.
_SETTLED = 6
_CLEARLY = 0.8
# A response below this fraction of the usual one is taken for noise.
_FLOOR = 0.05
# Steps after which an optimizer that cannot be measured is refused.
_PATIENCE = 20
_WAY_OUT = (
    "so no proximal step belongs to a stated strength; use budget=, which works with every optimizer, or an optimizer "
    "of torch.optim such as SGD or Adam"
)


@dataclass(eq=False)
class _Track:
    """The averages of one tensor.

    Attributes
    ----------
    name : str
    parameter : nn.Parameter
    group : int
        Index of the optimizer's parameter group.
    averages : dict of str to torch.Tensor
        Shaped like the part of the parameter held here: ``last`` descent, and the averages ``square`` of g g, ``now``
        of u(t) g(t) and ``before`` of u(t-1) g(t). For a sample of the weights: the fitted ``descent``, the slow
        averages ``slow_move`` and ``slow_descent``, and, for weight decay beside the gradient and inside it, the last
        pair ``seen`` of (u, g) and the average ``moments`` of all products of (u(t), u(t-1), g(t), g(t-1)).
    decay : int
        Where weight decay acts: 0 beside the gradient, 1 inside it.
    steps : int
        Number of steps measured.
    decided : int
        The step at which ``decay`` was decided.
    is_known : bool
        Whether any weight of the sample moves down its gradient.
    unseen : int
        Number of steps that moved the weights although no gradient was there to be seen.
    start : pair of torch.Tensor or None
        During a step of the optimizer, the weights and gradients before it.
    """

    name: str
    parameter: nn.Parameter
    group: int
    averages: dict[str, torch.Tensor] = field(default_factory=dict)
    decay: int = 0
    steps: int = 0
    decided: int = 0
    is_known: bool = False
    unseen: int = 0
    start: tuple[torch.Tensor, torch.Tensor | None] | None = None

    def begin(self) -> None:
        """Make the averages, at zero."""
        weights = wide(local(self.parameter.detach()))
        for key in ("last", "square", "now", "before"):
            self.averages[key] = torch.zeros_like(weights)
        sample = self.sampled(weights)
        for key in ("descent", "slow_move", "slow_descent"):
            self.averages[key] = torch.zeros_like(sample)
        self.averages["seen"] = sample.new_zeros(2, 2, len(sample))
        self.averages["moments"] = sample.new_zeros(2, 4, 4, len(sample))

    def decide(self, decay: int) -> None:
        """Take weight decay to act elsewhere, and begin again what rests on it."""
        self.decay, self.decided = decay, self.steps
        for key in ("last", "square", "now", "before", "descent", "slow_move", "slow_descent"):
            self.averages[key].zero_()

    def sampled(self, tensor: torch.Tensor) -> torch.Tensor:
        """An even sample of the entries, flat."""
        return tensor.reshape(-1)[:: max(1, tensor.numel() // _SAMPLE)]

    def average(self, key: str, value: torch.Tensor, share: float) -> None:
        self.averages[key].lerp_(value, max(share, 1 / (self.steps - self.decided)))

    def response(self, beta: float) -> torch.Tensor:
        """The response of the sample to the gradient of the same step; not a number where there was none."""
        now, before, square = (self.sampled(self.averages[key]) for key in ("now", "before", "square"))
        return (now - beta * before) / square

    def responses(self, beta: float) -> torch.Tensor:
        """The responses ``c`` and ``d`` of the sample to this gradient and the last; (2, sample)."""
        moments = self.averages["moments"][self.decay]
        return _solved(moments[2:, 2:], moments[0, 2:] - beta * moments[1, 2:])

    def memory_sums(self, decay: int | None = None) -> torch.Tensor:
        """What the gradients do not explain: the mean products of u(t), u(t-1); of u(t-1) twice; of u(t) twice."""
        moments = self.averages["moments"][self.decay if decay is None else decay]
        explained = [_solved(moments[2:, 2:], moments[one, 2:]) for one in (0, 1)]
        left = [moments[a, b] - (explained[a] * moments[b, 2:]).sum(0) for a, b in ((0, 1), (1, 1), (0, 0))]
        return (self.weight() * torch.stack(left)).sum(1)

    def misfit(self, decay: int) -> float:
        """What neither the gradients nor the last descent explain, relative."""
        lagged, lags, moves = (float(value) for value in self.memory_sums(decay))
        return moves - (lagged**2 / lags if lags > 0 else 0.0)

    def slow_sums(self) -> torch.Tensor:
        """Products of the slow parts, measured and fitted, and of the fitted ones."""
        slow, move = self.averages["slow_descent"], self.averages["slow_move"]
        return torch.stack([slow * move, slow.square()]).sum(1)

    def ratios(self, beta: float) -> torch.Tensor:
        """Both responses over that to the gradient of the same step, where this one is positive."""
        usual = self.response(beta)
        return (self.responses(beta).sum(0) / usual)[usual > 0]

    def weight(self) -> torch.Tensor:
        """One over the mean squared descent, so that all weights of the sample that have a gradient count alike."""
        moves, square = self.averages["moments"][0, 0, 0], self.averages["moments"][0, 2, 2]
        return torch.where((moves > 0) & (square > 0), 1 / moves, 0.0).nan_to_num_(posinf=0.0)


def _over_processes(sums: torch.Tensor, track: _Track) -> list[float]:
    """The sums over all processes where the tensor is sharded."""
    if is_sharded(track.parameter):
        distributed.add(sums)
    total: list[float] = sums.tolist()
    return total


def _solved(gram: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
    """The solutions of symmetric systems of two equations, with a little ridge; (2, 2, n) and (2, n)."""
    ridge = _RIDGE * (gram[0, 0] + gram[1, 1])
    first, second, mixed = gram[0, 0] + ridge, gram[1, 1] + ridge, gram[0, 1]
    determinant = first * second - mixed.square()
    solution = torch.stack([second * right[0] - mixed * right[1], first * right[1] - mixed * right[0]])
    return torch.where(determinant > 0, solution / determinant, 0.0)


class Measurement:
    """What an optimizer does to some tensors, measured step by step.

    It costs six numbers per weight during a step of the optimizer, and four between steps.

    Parameters
    ----------
    optimizer : torch.optim.Optimizer
    tensors : iterable of (str, nn.Parameter, int)
        Names, parameters and the indices of their parameter groups.
    """

    def __init__(self, optimizer: torch.optim.Optimizer, tensors: Iterable[tuple[str, nn.Parameter, int]]) -> None:
        self._optimizer = optimizer
        self._tracks = {id(parameter): _Track(name, parameter, group) for name, parameter, group in tensors}
        self._common: dict[int, tuple[float, float]] = {}
        self.handles = [optimizer.register_step_pre_hook(_Before(self))]
        self.handles.append(optimizer.register_step_post_hook(_After(self)))

    def __contains__(self, parameter: nn.Parameter) -> bool:
        return id(parameter) in self._tracks

    def detach(self) -> None:
        """Stop measuring."""
        for handle in self.handles:
            handle.remove()
        self.handles.clear()

    # ------------------------------------------------------------------ around a step
    @torch.no_grad()
    def before_step(self) -> None:
        """Remember the weights and the gradients."""
        scale = getattr(self._optimizer, "grad_scale", None)  # a gradient scaler that leaves unscaling to the optimizer
        for track in self._tracks.values():
            gradient, pull = track.parameter.grad, None
            if gradient is not None and not gradient.is_sparse:
                pull = wide(local(gradient)).clone() if scale is None else wide(local(gradient)) / float(scale)
            track.start = (wide(local(track.parameter.detach())).clone(), pull)

    @torch.no_grad()
    def after_step(self, *, is_evaluated_inside: bool) -> None:
        """Take in what the step has done."""
        moved: list[tuple[_Track, torch.Tensor]] = []
        for track in self._tracks.values():
            if track.start is None:
                continue
            (before, pull), gradient = track.start, track.parameter.grad
            track.start = None
            if is_evaluated_inside and gradient is not None and not gradient.is_sparse:
                pull = wide(local(gradient))  # the closure has computed it
            if pull is None:
                track.unseen += not torch.equal(before, wide(local(track.parameter.detach())))
            else:
                seen = self._take(track, before, pull)
                if seen is not None:
                    moved.append((track, seen))
        for group in sorted({track.group for track, _ in moved}):
            self._fit(group, [(track, seen) for track, seen in moved if track.group == group])
        self._check()

    def _take(self, track: _Track, before: torch.Tensor, gradient: torch.Tensor) -> torch.Tensor | None:
        """Average over one step of a tensor; the gradient of the sample, None where the step shows nothing."""
        options = self._optimizer.param_groups[track.group]
        rate = float(options.get("lr") or 0.0) if "lr" in options else 1.0
        descent = before - wide(local(track.parameter.detach()))
        if rate <= 0 or not bool(descent.isfinite().all() and gradient.isfinite().all()):
            return None
        descent.div_(rate)
        gradient = -gradient if options.get("maximize") else gradient
        if not track.averages:
            track.begin()
        track.steps += 1
        averages = track.averages
        decay = float(options.get("weight_decay") or 0.0)
        before.mul_(decay)
        ways = [(descent - before, gradient), (descent, gradient + before)]
        seen = torch.stack([torch.stack([track.sampled(u), track.sampled(g)]) for u, g in ways])
        both = torch.stack([seen[:, 0], averages["seen"][:, 0], seen[:, 1], averages["seen"][:, 1]], 1)
        averages["moments"].lerp_(both[:, :, None] * both[:, None, :], max(_SHARE, 1 / track.steps))
        averages["seen"].copy_(seen)
        if decay and track.steps >= _SETTLED and track.misfit(1 - track.decay) < _CLEARLY * track.misfit(track.decay):
            track.decide(1 - track.decay)
            track.steps += 1
        descent, gradient = ways[track.decay]
        track.average("square", gradient.square(), _SHARE)
        track.average("now", descent * gradient, _SHARE)
        track.average("before", averages["last"] * gradient, _SHARE)
        # Relative to the usual descent of the time: the long way of the first steps does not outweigh all later ones.
        track.average("slow_move", seen[track.decay, 0] * track.weight().sqrt_(), _SLOW_SHARE)
        averages["last"].copy_(descent)
        return both[track.decay, 2:]

    def _fit(self, group: int, moved: list[tuple[_Track, torch.Tensor]]) -> None:
        """The memory of a group, and the correction of its gain."""
        beta = 0.0
        sums = self._summed(moved, _Track.memory_sums)
        if sums[1] > 0:
            beta = min(_LONGEST_MEMORY, max(0.0, sums[0] / sums[1]))
        for track, gradients in moved:
            descent = track.averages["descent"]
            descent.mul_(beta).add_((track.responses(beta) * gradients).sum(0))
            track.average("slow_descent", descent * track.weight().sqrt_(), _SLOW_SHARE)
            track.is_known = _over_processes((track.response(beta) > 0).sum()[None], track)[0] > 0
        slow, fitted = self._summed(moved, _Track.slow_sums)
        correction = min(_LARGEST_CORRECTION, slow / fitted) if fitted > 0 else 0.0
        ratios = torch.cat([track.ratios(beta) for track, _ in moved])
        middle = ratios.median() if len(ratios) else ratios.new_zeros(())
        # Over several processes, the mean of their medians.
        part, count = _over_processes(torch.stack([middle * len(ratios), middle.new_tensor(len(ratios))]), moved[0][0])
        self._common[group] = (beta, correction * part / count / (1 - beta) if count else 0.0)

    @staticmethod
    def _summed(moved: list[tuple[_Track, torch.Tensor]], sums_of: Callable[[_Track], torch.Tensor]) -> list[float]:
        """The sums over all tensors."""
        return _over_processes(torch.stack([sums_of(track).double() for track, _ in moved]).sum(0), moved[0][0])

    # ------------------------------------------------------------------ what is known
    def has_measured(self, parameter: nn.Parameter) -> bool:
        """Whether the metric of a tensor is known."""
        track = self._tracks[id(parameter)]
        return track.is_known and self._common.get(track.group, (0.0, 0.0))[1] > 0

    def scale(self, parameter: nn.Parameter) -> torch.Tensor | None:
        """The metric, a new tensor shaped like the part of the parameter held here; None where it is not known yet.

        The learning rate over it is how far a constant gradient of 1 moves a weight per step. Where there was no
        gradient at all, the metric is the smallest of the tensor.
        """
        if not self.has_measured(parameter):
            return None
        track = self._tracks[id(parameter)]
        beta, gain = self._common[track.group]
        averages = track.averages
        square = averages["square"]
        known = square > 0
        response = (averages["now"] - beta * averages["before"]).div_(square)
        usual = track.response(beta)
        size = track.sampled(square).sqrt()
        seen = usual > 0
        if not bool(seen.any()):  # the parts of other processes show something
            return torch.full_like(square, math.inf)
        # Noise makes some responses small or negative: at least a fraction of that of gradient descent and of signs.
        by_size = square.sqrt().reciprocal_().mul_(float((usual * size)[seen].median()))
        response = torch.maximum(response, _FLOOR * by_size.clamp_(max=float(usual[seen].median())))
        largest = torch.where(known, response, 0.0).max()
        response = torch.where(known, response, largest)
        return response.mul_(gain).reciprocal_()

    def _check(self) -> None:
        """Raise where nothing can be measured.

        Raises
        ------
        StateError
        """
        for track in self._tracks.values():
            kind = type(self._optimizer).__name__
            if track.steps == 0 and track.unseen >= _PATIENCE:
                raise StateError(f"{kind} moves {track.name!r} by gradients that are not in .grad, {_WAY_OUT}")
            has_moved = bool((track.weight() > 0).any()) if track.steps >= _PATIENCE else False
            if has_moved and not self.has_measured(track.parameter):
                raise StateError(f"{kind} does not move {track.name!r} down its own gradient, {_WAY_OUT}")

    # ------------------------------------------------------------------ checkpoints
    def state_dict(self) -> dict[str, Any]:
        return {
            "common": {str(group): list(values) for group, values in self._common.items()},
            "tensors": {
                track.name: {
                    "steps": track.steps,
                    "decay": [track.decay, track.decided],
                    "averages": {key: value.clone() for key, value in track.averages.items()},
                }
                for track in self._tracks.values()
                if track.averages
            },
        }

    def check_state(self, state: dict[str, Any]) -> None:
        """Raise unless a state fits these tensors.

        Raises
        ------
        InvalidArgumentError
        """
        by_name = {track.name: track for track in self._tracks.values()}
        try:
            tensors, groups = state["tensors"], {track.group for track in by_name.values()}
            fits = set(tensors) <= set(by_name) and {int(group) for group in state["common"]} <= groups
            fits = fits and all(len(pair) == 2 for pair in state["common"].values())
            for name, saved in tensors.items() if fits else ():
                fresh = _Track(name, by_name[name].parameter, by_name[name].group)
                fresh.begin()
                shapes = {key: value.shape for key, value in fresh.averages.items()}
                fits = fits and {key: value.shape for key, value in saved["averages"].items()} == shapes
                fits = fits and int(saved["steps"]) > 0 and len(saved["decay"]) == 2
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise InvalidArgumentError(f"the measured metric of the state is broken: {error!r}") from error
        if not fits:
            raise InvalidArgumentError("the measured metric of the state belongs to another model or optimizer")

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take up a state that `check_state` has let through."""
        self._common = {int(group): (float(beta), float(gain)) for group, (beta, gain) in state["common"].items()}
        for track in self._tracks.values():
            saved = state["tensors"].get(track.name)
            track.steps, track.decay, track.decided, track.averages, track.is_known = 0, 0, 0, {}, False
            if saved is not None:
                track.begin()
                track.steps = int(saved["steps"])
                track.decay, track.decided = (int(value) for value in saved["decay"])
                for key, value in saved["averages"].items():
                    track.averages[key].copy_(value)
                beta = self._common.get(track.group, (0.0, 0.0))[0]
                track.is_known = bool((track.response(beta) > 0).any())


class _Before:
    """An optimizer's hook that does not keep the measurement alive."""

    def __init__(self, measurement: Measurement) -> None:
        self._measurement = weakref.ref(measurement)

    def __call__(self, *_: Any) -> None:
        measurement = self._measurement()
        if measurement is not None:
            measurement.before_step()


class _After:
    def __init__(self, measurement: Measurement) -> None:
        self._measurement = weakref.ref(measurement)

    def __call__(self, _: Any, arguments: tuple[Any, ...], named: dict[str, Any]) -> None:
        measurement = self._measurement()
        if measurement is not None:
            # The first argument is the optimizer itself.
            closure = named.get("closure", arguments[1] if len(arguments) > 1 else None)
            measurement.after_step(is_evaluated_inside=closure is not None)
