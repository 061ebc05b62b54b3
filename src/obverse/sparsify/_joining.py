"""How the parameters that a face learns join an optimizer, and leave it."""

from __future__ import annotations

import math
import weakref
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from .._core.distributed import average, is_parallel
from ..errors import InvalidArgumentError, StateError
from ._metric import Metric, unwrapped

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
    unit : float
        What the gradient is divided by before.
    """

    parameters: list[nn.Parameter]
    rate: float
    bound: float = math.inf
    unit: float = 1.0


class Joined:
    """The learned parameters as groups of an optimizer, one for each learning rate.

    Parameters
    ----------
    shares : list of Share
    optimizer : torch optimizer
    """

    def __init__(self, shares: list[Share], optimizer: Any) -> None:
        self.parameters = parameters = [parameter for share in shares for parameter in share.parameters]
        self.optimizer = unwrapped(optimizer)
        held = [id(p) in _held(self.optimizer) for p in parameters]
        if any(held) and not all(held):
            raise StateError("the optimizer holds some of the learned parameters already, and not others")
        self._handles: list[Any] = [_averaged(parameter) for parameter in parameters] if is_parallel() else []
        if all(held):
            return  # an optimizer of their own, made for them
        alike: dict[tuple[float, float, float], list[nn.Parameter]] = {}
        for share in shares:
            alike.setdefault((share.rate, share.bound, share.unit), []).extend(share.parameters)
        groups = list(self.optimizer.param_groups)
        try:
            for settings, together in alike.items():
                self._add(Share(together, *settings))
        except BaseException:
            self.leave()
            self.optimizer.param_groups[:] = groups
            raise

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
            bounded = _Bounded(share.parameters, share.bound, share.unit)
            self._handles.append(self.optimizer.register_step_pre_hook(bounded))

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
    """Before an optimizer's step: bounds the gradients of the learned parameters, entry by entry, in their unit."""

    def __init__(self, parameters: list[nn.Parameter], bound: float, unit: float) -> None:
        self._parameters = [weakref.ref(parameter) for parameter in parameters]
        self._bound, self._unit = bound, unit

    def __call__(self, *_: Any) -> None:
        for reference in self._parameters:
            parameter = reference()
            if parameter is not None and parameter.grad is not None:
                if self._unit != 1:
                    parameter.grad.div_(self._unit)
                parameter.grad.clamp_(-self._bound, self._bound)


def learning_rate(
    metric: Metric, total_steps: int | None, strength: float, *, is_scaled: bool
) -> tuple[float, float, float]:
    """A rate with which a learned logarithm can travel far enough within the run, and a bound and a unit of gradients.

    An adaptive optimizer moves it by about the rate per step. A plain one moves it by the gradient, which is of the
    order of the strength where the cost is scaled by it, and may be far above where the loss itself speaks; bounded by
    the strength it balances at the same point, without ever leaping. Of an optimizer that is not known neither can be
    taken for granted: with the strength as the unit of the gradient, both kinds move by about the rate.

    Raises
    ------
    InvalidArgumentError
        For an optimizer whose steps have another scale.
    """
    if not metric.is_diagonal or isinstance(metric.optimizer, torch.optim.SparseAdam):
        raise InvalidArgumentError(
            f"{type(metric.optimizer).__name__} is not made for the scale of learned parameters: give them an "
            "optimizer of their own, sparsifier.join(torch.optim.Adam(sparsifier.parameters(), lr=1e-2)), and step "
            "it too"
        )
    used = [group for group in metric.optimizer.param_groups if group["params"] and not group.get(_MARK)]
    own = max((float(group.get("lr", 1.0)) for group in used), default=0.0)
    travel = _TRAVEL / total_steps if total_steps else 0.0
    if metric.is_known and isinstance(metric.optimizer, _ADAPTIVE):
        return max(own, travel), math.inf, 1.0
    momentum = max((float(group.get("momentum") or 0.0) for group in used), default=0.0)
    slow = max(travel, 1e-3) * (1 - momentum if momentum < 1 else 1.0)
    if not metric.is_known:
        return slow, 1.0, strength if is_scaled and strength > 0 else 1.0
    if not is_scaled or strength <= 0:
        return own, math.inf, 1.0
    return max(travel, 1e-3) / strength * (1 - momentum if momentum < 1 else 1.0), strength, 1.0


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


def _held(optimizer: torch.optim.Optimizer) -> set[int]:
    return {id(parameter) for group in optimizer.param_groups for parameter in group["params"]}


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
