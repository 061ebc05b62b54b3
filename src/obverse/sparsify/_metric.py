"""How far an optimizer moves a weight per unit of gradient: the step of the proximal operator that belongs to it.

An optimizer whose stationary update is ``rate * gradient / metric`` does gradient descent in the diagonal metric, so
the proximal step that leaves the stationary points of ``loss + strength * penalty`` untouched, whatever the learning
rate, is ``strength * rate / metric`` per coordinate.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterable
from typing import Any

import torch
from torch import nn

from ..errors import InvalidArgumentError
from ._measuring import Measurement
from ._shards import local

__all__ = ["Metric", "unwrapped"]


class Metric:
    """Reads rates and metrics off an optimizer, or measures them where its class is not one of torch's.

    It holds no tensors of its own unless something is measured.
    """

    def __init__(self, optimizer: Any) -> None:
        self.optimizer = unwrapped(optimizer)
        self._measurement: Measurement | None = None
        # Whether the class is one whose metric can be read off its state.
        self.is_known = any(
            isinstance(self.optimizer, kind) and inspect.unwrap(type(self.optimizer).step) is inspect.unwrap(kind.step)
            for kind in _KNOWN
        )

    @property
    def is_diagonal(self) -> bool:
        """Whether a weight moves by its own gradient over a metric that is read off the optimizer's state."""
        return not isinstance(self.optimizer, _NOT_DIAGONAL)

    def check_strength(self) -> None:
        """Raise where no proximal step belongs to a stated strength.

        Raises
        ------
        InvalidArgumentError
        """
        for kind, reason in _WITHOUT_STRENGTH.items():
            if isinstance(self.optimizer, kind):
                raise InvalidArgumentError(
                    f"{type(self.optimizer).__name__} {reason}, so no proximal step belongs to a stated strength; say "
                    "a budget, or use an optimizer such as SGD or Adam"
                )

    # ------------------------------------------------------------------ measuring
    def measure(self, tensors: Iterable[tuple[str, nn.Parameter, int]]) -> None:
        """Measure the metric of these tensors from now on, unless it is known; what is measured already goes on.

        Parameters
        ----------
        tensors : iterable of (str, nn.Parameter, int)
            Names, parameters and the indices of their parameter groups.
        """
        tensors = list(tensors)
        if tensors and self._measurement is None and not self.is_known:
            self._measurement = Measurement(self.optimizer, tensors)

    def is_measured(self, parameter: nn.Parameter) -> bool:
        """Whether the metric of a parameter is measured."""
        return self._measurement is not None and parameter in self._measurement

    @property
    def handles(self) -> list[Any]:
        """The hooks that measure."""
        return [] if self._measurement is None else self._measurement.handles

    def detach(self) -> None:
        """Stop measuring."""
        if self._measurement is not None:
            self._measurement.detach()
            self._measurement = None

    def state_dict(self) -> dict[str, Any]:
        """What was measured; empty where nothing is."""
        return {} if self._measurement is None else self._measurement.state_dict()

    def check_state(self, state: dict[str, Any]) -> None:
        """Raise unless a state fits what is measured here; an empty one begins again.

        Raises
        ------
        InvalidArgumentError
        """
        if self._measurement is not None and state:
            self._measurement.check_state(state)

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take up a state that `check_state` has let through."""
        if self._measurement is not None:
            self._measurement.load_state_dict(state or {"common": {}, "tensors": {}})

    # ------------------------------------------------------------------ what is read
    def has_state(self, parameter: nn.Parameter) -> bool:
        """Whether the optimizer has taken a step with this parameter that it remembers, or that was measured."""
        if self._measurement is not None and parameter in self._measurement:
            return self._measurement.has_measured(parameter)
        return bool(self.optimizer.state.get(parameter))

    def group(self, parameter: nn.Parameter, name: str) -> int:
        """Index of the optimizer's parameter group that trains ``parameter``.

        Raises
        ------
        InvalidArgumentError
            If the optimizer does not train it.
        """
        for index, group in enumerate(self.optimizer.param_groups):
            if any(parameter is other for other in group["params"]):
                return index
        raise InvalidArgumentError(
            f"parameter {name!r} is regularized but the optimizer does not train it: pass it to the optimizer, freeze "
            "it (requires_grad=False), or skip it with a Rule"
        )

    def rate(self, group: int) -> float:
        """Learning rate times the gain of momentum: how far a constant gradient of 1 moves a weight per step.

        A measured metric has the momentum in it; an optimizer without a learning rate has one of 1.
        """
        options = self.optimizer.param_groups[group]
        rate = float(options.get("lr", 1.0))
        if self._measurement is not None:
            return rate
        if isinstance(self.optimizer, torch.optim.ASGD):
            # It lowers the rate as it goes, equally for the whole group.
            states = (self.optimizer.state.get(parameter) or {} for parameter in options["params"])
            return next((float(state["eta"]) for state in states if "eta" in state), rate)
        momentum = float(options.get("momentum") or 0.0)
        # Matrix optimizers (Muon) normalize the momentum away, as adaptive ones do.
        if 0 < momentum < 1 and not isinstance(self.optimizer, _NORMALIZING):
            rate *= (1 - float(options.get("dampening") or 0.0)) / (1 - momentum)
        return rate

    def scale(self, parameter: nn.Parameter, group: int) -> torch.Tensor | None:
        """The diagonal metric as a new tensor shaped like ``parameter``; None where it is 1 (SGD and its like).

        Without a measurement that of an unknown class is read off its state where that has the usual names, which
        serves to rank weights for a budget.
        """
        if self._measurement is not None and parameter in self._measurement:
            return self._measurement.scale(parameter)
        options, state = self.optimizer.param_groups[group], self.optimizer.state.get(parameter)
        if not state or not self.is_diagonal:
            return None
        state = {key: local(value) if isinstance(value, torch.Tensor) else value for key, value in state.items()}
        if not self.is_known and not _is_usual(state, options, local(parameter)):
            return None
        return self._read(state, options)

    def _read(self, state: dict[str, Any], options: dict[str, Any]) -> torch.Tensor | None:
        eps = options.get("eps")
        eps = float(eps) if isinstance(eps, float | int) else 0.0
        second: torch.Tensor
        if "exp_inf" in state:
            second = state["exp_inf"]
            return second + eps
        if "acc_delta" in state:
            second = (state["square_avg"] + eps) / (state["acc_delta"] + eps)
            return second.sqrt_()
        if "exp_avg_sq" in state:
            second = state.get("max_exp_avg_sq", state["exp_avg_sq"]) if options.get("amsgrad") else state["exp_avg_sq"]
            betas, step = options.get("betas"), state.get("step")
            if betas is None or step is None:
                return second.sqrt().add_(eps)
            if isinstance(self.optimizer, torch.optim.RAdam):
                return _rectified(second, float(betas[1]), float(step), eps)
            return second.sqrt().div_((1 - float(betas[1]) ** float(step)) ** 0.5).add_(eps)
        if "square_avg" in state:
            second = state["square_avg"]
            if options.get("centered"):
                second = second - state["grad_avg"].square()
            return second.sqrt().add_(eps)
        if "sum" in state:
            second = state["sum"]
            slowed = 1 + (float(state["step"]) - 1) * float(options.get("lr_decay") or 0.0) if "step" in state else 1.0
            second = second.sqrt().add_(eps)
            return second if slowed == 1 else second.mul_(slowed)
        return None

    def forget(self, parameter: nn.Parameter, keep: torch.Tensor) -> None:
        """Clear what momentum and averages hold of pruned weights, so that they are not pushed back."""
        for key in ("exp_avg", "momentum_buffer", "grad_avg"):
            buffer = self.optimizer.state.get(parameter, {}).get(key)
            if not isinstance(buffer, torch.Tensor) or not buffer.is_floating_point():
                continue
            if (part := local(buffer)).shape == local(parameter).shape:
                part.mul_(keep)


def unwrapped(optimizer: Any) -> torch.optim.Optimizer:
    """The torch optimizer that takes the steps, where it is inside others that stand for it.

    Accelerate's and others' wrappers keep it in an attribute; one that is a torch optimizer itself is looked through
    where it holds the same parameters.

    Raises
    ------
    InvalidArgumentError
        If there is none whose steps can be seen.
    """
    outer, seen = optimizer, {id(optimizer)}
    while (inner := _inside(outer)) is not None and id(inner) not in seen:
        if isinstance(outer, torch.optim.Optimizer) and _parameters(inner) != _parameters(outer):
            break
        outer = inner
        seen.add(id(outer))
    if isinstance(outer, torch.optim.Optimizer) and hasattr(outer, "_optimizer_step_post_hooks"):
        return outer
    raise InvalidArgumentError(
        f"optimizer must be a torch optimizer, got {type(optimizer).__name__}; give the torch.optim.Optimizer inside it"
    )


def _inside(optimizer: Any) -> Any:
    """What a wrapper stands for; None where it is none."""
    held = getattr(optimizer, "__dict__", {})
    return next((held[name] for name in _INNER if hasattr(held.get(name), "param_groups")), None)


def _parameters(optimizer: Any) -> set[int]:
    return {id(parameter) for group in optimizer.param_groups for parameter in group["params"]}


def _is_usual(state: dict[str, Any], options: dict[str, Any], parameter: torch.Tensor) -> bool:
    """Whether the state of an unknown class can be read: usual names, numbers shaped like the parameter."""
    betas = options.get("betas")
    if betas is not None and not (isinstance(betas, tuple | list) and len(betas) > 1):
        return False
    return all(
        isinstance(state[name], torch.Tensor)
        and state[name].is_floating_point()
        and state[name].shape == parameter.shape
        for name in ("exp_inf", "acc_delta", "square_avg", "grad_avg", "exp_avg_sq", "max_exp_avg_sq", "sum")
        if name in state
    )


def _rectified(second: torch.Tensor, beta: float, step: float, eps: float) -> torch.Tensor:
    """The metric of RAdam, whose first steps are those of gradient descent (Liu et al., 2020)."""
    correction = 1 - beta**step
    longest = 2 / (1 - beta) - 1
    length = longest - 2 * step * beta**step / correction
    if length <= 5:
        return torch.ones_like(second)
    part = (length - 4) * (length - 2) * longest / ((longest - 4) * (longest - 2) * length)
    return second.sqrt().add_(eps).div_((correction * part) ** 0.5)


# Where wrappers keep the optimizer that they stand for.
_INNER = ("optimizer", "base_optimizer", "inner_optimizer", "_optimizer")
_KNOWN: tuple[Any, ...] = (
    torch.optim.SGD,
    torch.optim.Adam,
    torch.optim.AdamW,
    torch.optim.NAdam,
    torch.optim.RAdam,
    torch.optim.Adamax,
    torch.optim.RMSprop,
    torch.optim.Adagrad,
    torch.optim.Adadelta,
    torch.optim.ASGD,
)
_NORMALIZING: tuple[type, ...] = tuple(kind for kind in (getattr(torch.optim, "Muon", None),) if isinstance(kind, type))
# These move weights by signs, by whole matrices or by line searches.
_NOT_DIAGONAL: tuple[type, ...] = (
    *_NORMALIZING,
    torch.optim.Adafactor,
    torch.optim.Rprop,
    torch.optim.LBFGS,
)
_WITHOUT_STRENGTH: dict[type, str] = {
    **dict.fromkeys(_NORMALIZING, "moves weights by whole matrices"),
    torch.optim.LBFGS: "moves weights by line searches",
    torch.optim.SparseAdam: "moves only the rows that a batch has used",
}
