"""How sharply the loss bends along every weight, measured while training runs.

One strength serves all layers when the penalty sees ``sqrt(H) * w`` in place of w, H being the diagonal of the loss's
curvature: in a linear model the second moment of the input's column (theory: unnormalized columns), in a network an
estimate of it. Only ratios matter here: the measured curvature is scaled to mean one over all regularized weights, so
that strengths keep their size.
"""

from __future__ import annotations

import weakref
from typing import Any

import torch
from torch import nn

from .._core.arrays import wide
from .._core.distributed import average, is_parallel
from ..errors import InvalidArgumentError, StateError, UnknownNameError
from ._member import Member
from ._shards import gathered, is_sharded, local

__all__ = ["CURVATURES", "Curvature"]

CURVATURES = ("optimizer", "gradients", "inputs", "none")
_MEMORY = 0.999
# Weights that never matter would never be pruned by their curvature alone, nor others by dividing by it.
_FLOOR = 1e-3


class Curvature:
    """A running estimate of the relative curvature, one for each of some members.

    Parameters
    ----------
    kind : {"gradients", "inputs"}
        Root of the second moment of a weight's gradient, the metric that Adam keeps; or the second moment of the input
        that a weight multiplies.
    members : list of Member
    optimizer : torch optimizer

    Raises
    ------
    InvalidArgumentError
        If a layer's inputs cannot be told for single weights.
    """

    def __init__(self, kind: str, members: list[Member], optimizer: torch.optim.Optimizer) -> None:
        if kind not in CURVATURES:
            raise UnknownNameError("curvature", kind, CURVATURES)
        self.kind = kind
        self._members = members
        self._moments: dict[str, torch.Tensor] = {}
        self.handles: list[Any] = []
        if kind == "gradients":
            self.handles.append(optimizer.register_step_pre_hook(_BeforeStep(self)))
        elif kind == "inputs":
            owned = [(member, *owner) for member in members for owner in member.selected.owners]
            for member, module, local_name in owned:
                if is_sharded(member.parameter) or local_name != "weight" or _inputs_of(module) is None:
                    raise InvalidArgumentError(
                        f"curvature='inputs' reaches linear, convolutional and embedding layers, not "
                        f"{member.name!r}; use curvature='gradients', or skip it with a Rule"
                    )
            for member, module, _ in owned:
                self.handles.append(module.register_forward_pre_hook(_BeforeLayer(self, member), with_kwargs=True))

    @torch.no_grad()
    def see_gradients(self) -> None:
        """Take in the gradients that the optimizer is about to use."""
        for member in self._members:
            if member.parameter.grad is not None:
                self._take(member, local(member.parameter.grad).square())

    @torch.no_grad()
    def see_inputs(self, module: nn.Module, member: Member, inputs: torch.Tensor) -> None:
        """Take in the inputs of a layer in a forward pass."""
        self._take(member, _inputs_of(module)(module, inputs.detach()))

    @torch.no_grad()
    def update(self) -> None:
        """Give every member the curvature as measured so far."""
        if not self._moments:
            return
        seen = [member for member in self._members if member.name in self._moments]
        moments = [self._moments[member.name] for member in seen]
        if self.kind == "inputs" and is_parallel():
            # Every process has seen examples of its own.
            moments = [moment.clone() for moment in moments]
            for moment in moments:
                average(moment)
        curvatures = [moment.sqrt() if self.kind == "gradients" else moment for moment in moments]
        total = sum(
            float(gathered(curvature.expand_as(member.held), member.parameter).double().sum())
            for member, curvature in zip(seen, curvatures, strict=True)
        )
        mean = total / sum(member.parameter.numel() for member in seen) if total > 0 else 1.0
        for member, curvature in zip(seen, curvatures, strict=True):
            curve = (curvature / mean).clamp_min(_FLOOR).sqrt_()
            member.curve = gathered(curve, member.parameter) if member.is_whole else curve
        for member in self._members:
            if member.curve is None:  # a layer that was not used yet counts as a usual one
                member.curve = torch.ones((), dtype=member.held.dtype, device=member.held.device)

    def detach(self) -> None:
        for handle in self.handles:
            handle.remove()
        self.handles.clear()

    def state_dict(self) -> dict[str, torch.Tensor]:
        return {name: moment.clone() for name, moment in self._moments.items()}

    def load_state_dict(self, state: dict[str, torch.Tensor]) -> None:
        by_name = {member.name: member for member in self._members}
        if not set(state) <= set(by_name):
            raise InvalidArgumentError("the curvature of the state belongs to another model")
        self._moments = {
            name: moment.to(local(by_name[name].parameter).device, copy=True) for name, moment in state.items()
        }

    def _take(self, member: Member, square: torch.Tensor) -> None:
        if not bool(square.isfinite().all()):
            return  # an empty batch, or a step that a gradient scaler will leave out
        moment = self._moments.get(member.name)
        if moment is None:
            self._moments[member.name] = square.clone()
        else:
            moment.mul_(_MEMORY).add_(square, alpha=1 - _MEMORY)


class _BeforeStep:
    def __init__(self, curvature: Curvature) -> None:
        self._curvature = weakref.ref(curvature)

    def __call__(self, *_: Any) -> None:
        curvature = self._curvature()
        if curvature is not None:
            curvature.see_gradients()


class _BeforeLayer:
    """A forward hook that holds on to nothing: in a copy of the model it does nothing."""

    def __init__(self, curvature: Curvature | None, member: Member | None) -> None:
        self._curvature = weakref.ref(curvature) if curvature is not None else None
        self._member = weakref.ref(member) if member is not None else None

    def __call__(self, module: nn.Module, inputs: tuple[Any, ...], named: dict[str, Any]) -> None:
        curvature = self._curvature() if self._curvature is not None else None
        member = self._member() if self._member is not None else None
        if curvature is None or member is None or member.support is not None or not module.training:
            return
        if not inputs and not named:
            raise StateError(f"{member.name!r}: the layer was called without inputs")
        curvature.see_inputs(module, member, inputs[0] if inputs else next(iter(named.values())))

    def __reduce__(self) -> tuple[Any, ...]:
        return (_BeforeLayer, (None, None))


def _inputs_of(module: nn.Module) -> Any:
    """The function from a layer and its input to the second moment that each weight sees; None where there is none."""
    if isinstance(module, nn.Linear):
        return _linear
    if isinstance(module, nn.Conv1d | nn.Conv2d | nn.Conv3d):
        return _convolution
    if isinstance(module, nn.Embedding):
        return _embedding
    return None


def _linear(module: nn.Linear, inputs: torch.Tensor) -> torch.Tensor:
    return wide(inputs).square().reshape(-1, inputs.shape[-1]).mean(0)


def _convolution(module: nn.Module, inputs: torch.Tensor) -> torch.Tensor:
    weight: torch.Tensor = module.weight  # type: ignore[assignment]
    dimensions = weight.ndim - 2
    others = [axis for axis in range(inputs.ndim) if axis != inputs.ndim - 1 - dimensions]
    moments = wide(inputs).square().mean(others)
    # Every filter of a group sees that group's channels.
    groups: int = module.groups  # type: ignore[assignment]
    per_filter = moments.reshape(groups, 1, -1).expand(groups, weight.shape[0] // groups, -1)
    return per_filter.reshape(weight.shape[0], weight.shape[1], *[1] * dimensions)


def _embedding(module: nn.Embedding, inputs: torch.Tensor) -> torch.Tensor:
    counts = torch.bincount(inputs.reshape(-1), minlength=module.num_embeddings)
    return (counts / max(1, inputs.numel())).to(module.weight.dtype).unsqueeze(1)
