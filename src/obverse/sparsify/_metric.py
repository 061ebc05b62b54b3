"""How far an optimizer moves a weight per unit of gradient: the step of the proximal operator that belongs to it.

An optimizer whose stationary update is ``rate * gradient / metric`` does gradient descent in the diagonal metric, so
the proximal step that leaves the stationary points of ``loss + strength * penalty`` untouched, whatever the learning
rate, is ``strength * rate / metric`` per coordinate.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from ..errors import InvalidArgumentError
from ._shards import local

__all__ = ["Metric"]


class Metric:
    """Reads rates and metrics off an optimizer; holds no tensors of its own."""

    def __init__(self, optimizer: Any) -> None:
        # Accelerate and similar wrappers keep the optimizer they stand for in this attribute.
        while not isinstance(optimizer, torch.optim.Optimizer) and hasattr(optimizer, "optimizer"):
            optimizer = optimizer.optimizer
        if not isinstance(optimizer, torch.optim.Optimizer):
            raise InvalidArgumentError(f"optimizer must be a torch optimizer, got {type(optimizer).__name__}")
        self.optimizer = optimizer

    @property
    def is_diagonal(self) -> bool:
        """Whether a weight moves by its own gradient over a metric, so that a proximal step belongs to it."""
        return not isinstance(self.optimizer, _NOT_DIAGONAL)

    def has_state(self, parameter: nn.Parameter) -> bool:
        """Whether the optimizer has taken a step with this parameter that it remembers."""
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
        """Learning rate times the gain of momentum: how far a constant gradient of 1 moves a weight per step."""
        options = self.optimizer.param_groups[group]
        rate = float(options["lr"])
        momentum = float(options.get("momentum") or 0.0)
        # Matrix optimizers (Muon) normalize the momentum away, as adaptive ones do.
        if 0 < momentum < 1 and not isinstance(self.optimizer, _NORMALIZING):
            rate *= (1 - float(options.get("dampening") or 0.0)) / (1 - momentum)
        return rate

    def scale(self, parameter: nn.Parameter, group: int) -> torch.Tensor | None:
        """The diagonal metric as a new tensor shaped like ``parameter``; None where it is 1 (SGD and its like)."""
        options, state = self.optimizer.param_groups[group], self.optimizer.state.get(parameter)
        second: torch.Tensor
        if not state or not self.is_diagonal:
            return None
        state = {key: local(value) if isinstance(value, torch.Tensor) else value for key, value in state.items()}
        eps = float(options.get("eps") or 0.0)
        if "exp_inf" in state:
            second = state["exp_inf"]
            return second + eps
        if "acc_delta" in state:
            second = (state["square_avg"] + eps) / (state["acc_delta"] + eps)
            return second.sqrt_()
        if "exp_avg_sq" in state:
            second = state.get("max_exp_avg_sq", state["exp_avg_sq"]) if options.get("amsgrad") else state["exp_avg_sq"]
            betas, step = options.get("betas"), state.get("step")
            correction = 1.0
            if betas is not None and step is not None:
                correction = (1 - float(betas[1]) ** float(step)) ** 0.5
            return second.sqrt().div_(correction).add_(eps)
        if "square_avg" in state:
            second = state["square_avg"]
            if options.get("centered"):
                second = second - state["grad_avg"].square()
            return second.sqrt().add_(eps)
        if "sum" in state:
            second = state["sum"]
            return second.sqrt().add_(eps)
        return None

    def forget(self, parameter: nn.Parameter, keep: torch.Tensor) -> None:
        """Clear what momentum and averages hold of pruned weights, so that they are not pushed back."""
        for key in ("exp_avg", "momentum_buffer", "grad_avg"):
            buffer = self.optimizer.state.get(parameter, {}).get(key)
            if isinstance(buffer, torch.Tensor) and (part := local(buffer)).shape == local(parameter).shape:
                part.mul_(keep)


_NORMALIZING: tuple[type, ...] = tuple(kind for kind in (getattr(torch.optim, "Muon", None),) if isinstance(kind, type))
# These move weights by signs, by whole matrices or by line searches.
_NOT_DIAGONAL: tuple[type, ...] = (
    *_NORMALIZING,
    torch.optim.Adafactor,
    torch.optim.Rprop,
    torch.optim.LBFGS,
)
