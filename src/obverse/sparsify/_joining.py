"""How the parameters that a face learns join an optimizer, and leave it."""

from __future__ import annotations

import math
import weakref
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from ..errors import InvalidArgumentError, StateError
from ._metric import Metric
from ._processes import average, is_parallel

__all__ = ["Joined", "Share", "learning_rate"]

# Marks the group of an optimizer that holds learned parameters, or held them.
_MARK = "obverse_learned"
# How far a logarithm that is learned should be able to travel in the whole run.
_TRAVEL = 8.0


@dataclass(frozen=True)
class Share:
    """Learned parameters with one learning rate.

    Attributes
    ----------
    parameters : list of nn.Parameter
    rate : float
    bound : float
        Largest gradient of one entry that is let through; infinite for none.
    """

    parameters: list[nn.Parameter]
    rate: float
    bound: float = math.inf


class Joined:
    """The learned parameters as groups of an optimizer, one for each learning rate.

    Parameters
    ----------
    shares : list of Share
    optimizer : torch optimizer
    """

    def __init__(self, shares: list[Share], optimizer: Any) -> None:
        self.parameters = parameters = [parameter for share in shares for parameter in share.parameters]
        self.optimizer = Metric(optimizer).optimizer
        held = {id(p) for group in self.optimizer.param_groups for p in group["params"]}
        self._handles: list[Any] = [_averaged(parameter) for parameter in parameters] if is_parallel() else []
        if all(id(parameter) in held for parameter in parameters):
            return  # an optimizer of their own, made for them
        if any(id(parameter) in held for parameter in parameters):
            raise StateError("the optimizer holds some of the learned parameters already, and not others")
        alike: dict[tuple[float, float], list[nn.Parameter]] = {}
        for share in shares:
            alike.setdefault((share.rate, share.bound), []).extend(share.parameters)
        for (rate, bound), together in alike.items():
            self._add(Share(together, rate, bound))

    def _add(self, share: Share) -> None:
        group: dict[str, Any] = {"params": share.parameters, "lr": share.rate, _MARK: True}
        if "weight_decay" in self.optimizer.defaults:
            group["weight_decay"] = 0.0
        left = next((g for g in self.optimizer.param_groups if g.get(_MARK) and not g["params"]), None)
        if left is None:
            self.optimizer.add_param_group(group)
        else:
            left.update(group)  # schedules keep their count of groups
        if share.bound < math.inf:
            self._handles.append(self.optimizer.register_step_pre_hook(_Bounded(share.parameters, share.bound)))

    def leave(self) -> None:
        """Take the parameters out; their groups stay, empty, so that schedules keep their count of groups."""
        gone = {id(parameter) for parameter in self.parameters}
        for group in self.optimizer.param_groups:
            group["params"] = [p for p in group["params"] if id(p) not in gone]
        for parameter in self.parameters:
            self.optimizer.state.pop(parameter, None)
            parameter.grad = None
        for handle in self._handles:
            handle.remove()
        self._handles.clear()


class _Bounded:
    """Before an optimizer's step: bounds the gradients of the learned parameters, entry by entry."""

    def __init__(self, parameters: list[nn.Parameter], bound: float) -> None:
        self._parameters = [weakref.ref(parameter) for parameter in parameters]
        self._bound = bound

    def __call__(self, *_: Any) -> None:
        for reference in self._parameters:
            parameter = reference()
            if parameter is not None and parameter.grad is not None:
                parameter.grad.clamp_(-self._bound, self._bound)


def learning_rate(metric: Metric, total_steps: int | None, strength: float, *, is_scaled: bool) -> tuple[float, float]:
    """A rate with which a learned logarithm can travel far enough within the run, and a bound on its gradient.

    An adaptive optimizer moves it by about the rate per step. A plain one moves it by the gradient, which is of the
    order of the strength where the cost is scaled by it, and may be far above where the loss itself speaks; bounded by
    the strength it balances at the same point, without ever leaping.

    Raises
    ------
    InvalidArgumentError
        For an optimizer whose steps have another scale.
    """
    if not metric.is_diagonal:
        raise InvalidArgumentError(
            f"{type(metric.optimizer).__name__} is not made for the scale of learned parameters: give them an "
            "optimizer of their own, sparsifier.join(torch.optim.Adam(sparsifier.parameters(), lr=1e-2)), and step "
            "it too"
        )
    used = [group for group in metric.optimizer.param_groups if group["params"] and not group.get(_MARK)]
    own = max((float(group["lr"]) for group in used), default=0.0)
    travel = _TRAVEL / total_steps if total_steps else 0.0
    if isinstance(metric.optimizer, _ADAPTIVE):
        return max(own, travel), math.inf
    if not is_scaled or strength <= 0:
        return own, math.inf
    momentum = max((float(group.get("momentum") or 0.0) for group in used), default=0.0)
    return max(travel, 1e-3) / strength * (1 - momentum if momentum < 1 else 1.0), strength


# Their steps do not depend on the size of the gradient.
_ADAPTIVE: tuple[type, ...] = (
    torch.optim.Adam,
    torch.optim.Adamax,
    torch.optim.NAdam,
    torch.optim.RAdam,
    torch.optim.RMSprop,
    torch.optim.Adagrad,
    torch.optim.Adadelta,
)


def _averaged(parameter: nn.Parameter) -> torch.utils.hooks.RemovableHandle:
    """Average the gradient over processes as it is accumulated, as data-parallel training does for the model's own."""
    reference = weakref.ref(parameter)

    def reduce(_: torch.Tensor) -> None:
        held = reference()
        if held is not None and held.grad is not None:
            average(held.grad)

    handle: torch.utils.hooks.RemovableHandle
    handle = parameter.register_post_accumulate_grad_hook(reduce)  # type: ignore[no-untyped-call]
    return handle
