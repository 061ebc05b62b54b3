"""Optimizers as users write them: other names of the state, signs, quantized averages, and wrappers around others."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch


class _Own(torch.optim.Optimizer):
    """Calls `move` for every parameter with a gradient."""

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> None:  # type: ignore[override]
        if closure is not None:
            with torch.enable_grad():
                closure()
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    self.move(parameter, group, self.state[parameter])

    def move(self, parameter: torch.Tensor, group: dict[str, Any], state: dict[str, Any]) -> None:
        raise NotImplementedError


class RenamedAdam(_Own):
    """Adam, whose averages have other names; weight decay in the gradient, or beside it."""

    def __init__(self, parameters: Any, lr: float = 1e-3, weight_decay: float = 0.0, beside: bool = False) -> None:
        super().__init__(parameters, {"lr": lr, "weight_decay": weight_decay, "beside": beside})

    def move(self, parameter: torch.Tensor, group: dict[str, Any], state: dict[str, Any]) -> None:
        assert parameter.grad is not None
        if not state:
            state.update(count=0, first=torch.zeros_like(parameter), second=torch.zeros_like(parameter))
        state["count"] += 1
        gradient, decay = parameter.grad, group["weight_decay"]
        if group["beside"]:
            parameter.mul_(1 - group["lr"] * decay)
        else:
            gradient = gradient + decay * parameter
        state["first"].lerp_(gradient, 0.1)
        state["second"].lerp_(gradient.square(), 0.001)
        first = state["first"] / (1 - 0.9 ** state["count"])
        second = state["second"] / (1 - 0.999 ** state["count"])
        parameter.sub_(group["lr"] * first / (second.sqrt() + 1e-8))


class QuantizedAdam(_Own):
    """Adam whose averages are bytes with one scale for every block."""

    def __init__(self, parameters: Any, lr: float = 1e-3) -> None:
        super().__init__(parameters, {"lr": lr, "betas": (0.9, 0.999)})

    def move(self, parameter: torch.Tensor, group: dict[str, Any], state: dict[str, Any]) -> None:
        assert parameter.grad is not None
        first = torch.zeros_like(parameter) if not state else self._read(state, "exp_avg", parameter)
        root = torch.zeros_like(parameter) if not state else self._read(state, "exp_avg_sq", parameter)
        state["count"] = state.get("count", 0) + 1
        first = first.lerp(parameter.grad, 0.1)
        second = root.square().lerp(parameter.grad.square(), 0.001)
        self._write(state, "exp_avg", first)
        self._write(state, "exp_avg_sq", second.sqrt())
        correction = (1 - 0.999 ** state["count"]) ** 0.5 / (1 - 0.9 ** state["count"])
        parameter.sub_(group["lr"] * correction * first / (second.sqrt() + 1e-8))

    @staticmethod
    def _write(state: dict[str, Any], name: str, values: torch.Tensor) -> None:
        flat = torch.nn.functional.pad(values.flatten(), (0, -values.numel() % 64)).view(-1, 64)
        scale = flat.abs().amax(1, keepdim=True).clamp_min(1e-30)
        # Roots, rounded away from zero: finer where the numbers are small.
        code = ((flat.abs() / scale).sqrt() * 127).ceil().clamp(max=127) * flat.sign()
        state[name] = (code + 128).to(torch.uint8)
        state[name + "_scale"] = scale

    @staticmethod
    def _read(state: dict[str, Any], name: str, like: torch.Tensor) -> torch.Tensor:
        code = (state[name].float() - 128) / 127
        flat = code * code.abs() * state[name + "_scale"]
        return flat.flatten()[: like.numel()].view_as(like)


class OwnSGD(_Own):
    """Gradient descent with momentum, heavy or Nesterov's."""

    def __init__(self, parameters: Any, lr: float = 0.1, inertia: float = 0.0, looks_ahead: bool = False) -> None:
        super().__init__(parameters, {"lr": lr, "inertia": inertia, "looks_ahead": looks_ahead})

    def move(self, parameter: torch.Tensor, group: dict[str, Any], state: dict[str, Any]) -> None:
        assert parameter.grad is not None
        velocity = state.setdefault("velocity", torch.zeros_like(parameter))
        velocity.mul_(group["inertia"]).add_(parameter.grad)
        change = parameter.grad + group["inertia"] * velocity if group["looks_ahead"] else velocity
        parameter.sub_(group["lr"] * change)


class Lion(_Own):
    """Signs of interpolated averages (Chen et al., 2023)."""

    def __init__(self, parameters: Any, lr: float = 1e-4, weight_decay: float = 0.0) -> None:
        super().__init__(parameters, {"lr": lr, "weight_decay": weight_decay})

    def move(self, parameter: torch.Tensor, group: dict[str, Any], state: dict[str, Any]) -> None:
        assert parameter.grad is not None
        average = state.setdefault("average", torch.zeros_like(parameter))
        parameter.mul_(1 - group["lr"] * group["weight_decay"])
        parameter.sub_(group["lr"] * average.lerp(parameter.grad, 0.1).sign())
        average.lerp_(parameter.grad, 0.01)


class Uphill(_Own):
    """Moves weights against what they need, without saying so."""

    def __init__(self, parameters: Any, lr: float = 1e-4) -> None:
        super().__init__(parameters, {"lr": lr})

    def move(self, parameter: torch.Tensor, group: dict[str, Any], state: dict[str, Any]) -> None:
        assert parameter.grad is not None
        parameter.add_(group["lr"] * parameter.grad)


class HiddenGradients(torch.optim.Optimizer):
    """Takes the gradients away before its step and moves by what it kept."""

    def __init__(self, parameters: Any, lr: float = 1e-3) -> None:
        super().__init__(parameters, {"lr": lr})

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> None:  # type: ignore[override]
        for group in self.param_groups:
            for parameter in group["params"]:
                parameter.sub_(group["lr"] * torch.ones_like(parameter))


class Lookahead:
    """A plain class around an optimizer: every fifth step it goes back half of the way."""

    def __init__(self, optimizer: torch.optim.Optimizer) -> None:
        self.optimizer = optimizer
        self.param_groups = optimizer.param_groups
        self._slow = [[p.detach().clone() for p in group["params"]] for group in self.param_groups]
        self._steps = 0

    def zero_grad(self) -> None:
        self.optimizer.zero_grad()

    @torch.no_grad()
    def step(self) -> None:
        self.optimizer.step()
        self._steps += 1
        if self._steps % 5 == 0:
            for group, slow in zip(self.param_groups, self._slow, strict=True):
                for parameter, before in zip(group["params"], slow, strict=True):
                    before.lerp_(parameter, 0.5)
                    parameter.copy_(before)


class SharpnessAware(torch.optim.Optimizer):
    """An optimizer around another one, with two steps of other names (Foret et al., 2021)."""

    def __init__(self, parameters: Any, base: type[torch.optim.Optimizer], rho: float = 0.01, **options: Any) -> None:
        super().__init__(parameters, {"rho": rho, **options})
        self.base_optimizer = base(self.param_groups, **options)
        self.param_groups = self.base_optimizer.param_groups

    @torch.no_grad()
    def climb(self) -> None:
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    self.state[parameter]["shift"] = group["rho"] * parameter.grad
                    parameter.add_(self.state[parameter]["shift"])

    @torch.no_grad()
    def descend(self) -> None:
        for group in self.param_groups:
            for parameter in group["params"]:
                if "shift" in self.state[parameter]:
                    parameter.sub_(self.state[parameter].pop("shift"))
        self.base_optimizer.step()
