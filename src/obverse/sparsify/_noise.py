"""Multiplicative noise on weights, drawn in the forward pass without touching the module or its parameters.

Linear layers and convolutions take the per-activation form (local reparametrization: Kingma, Salimans and Welling,
2015): Gaussian pre-activations with the mean and variance that independent noise on the weights would give, drawn
afresh for every example, with far less variance in the gradient than one draw per batch. Other layers, and groups of
several weights, see a noisy copy of the weight for the length of one forward pass.
"""

from __future__ import annotations

import weakref
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from ..errors import InvalidArgumentError, UnknownNameError
from ._member import Member

__all__ = ["LAWS", "Noise"]

LAWS = ("gaussian", "bernoulli")
_LOCAL = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)


class Noise:
    """Draws the noise of one `Sparsifier`; its hooks are inert in evaluation mode and in copies of the model."""

    def __init__(self, law: str, generator: torch.Generator, model: nn.Module) -> None:
        if law not in LAWS:
            raise UnknownNameError("noise law", law, LAWS)
        self.law = law
        self.generator = generator
        self.handles: list[torch.utils.hooks.RemovableHandle] = []
        # Attention reads the weight of its output projection without calling that layer.
        self._readers = {
            id(parent.out_proj): parent for parent in model.modules() if isinstance(parent, nn.MultiheadAttention)
        }

    def attach(self, member: Member) -> None:
        """Let the modules that own the member's parameter see its noise."""
        for module, local in member.selected.owners:
            if isinstance(module, nn.RNNBase):
                raise InvalidArgumentError(
                    f"the dropout face does not reach {member.name!r}: recurrent layers read their weights through a "
                    "packed copy; train them with the proximal or reweighted face"
                )
            reader = self._readers.get(id(module), module)
            per_activation = (
                reader is module
                and self.law == "gaussian"
                and local == "weight"
                and member.group_size == 1
                and isinstance(module, _LOCAL)
            )
            if per_activation:
                self.handles.append(module.register_forward_hook(_Activations(self, member), with_kwargs=True))
            else:
                shadow = _Shadow(self, member, module, local)
                self.handles.append(reader.register_forward_pre_hook(shadow.cast))
                self.handles.append(reader.register_forward_hook(shadow.lift, always_call=True))

    def detach(self) -> None:
        """Remove every hook."""
        for handle in self.handles:
            handle.remove()
        self.handles.clear()

    def normal(self, like: torch.Tensor) -> torch.Tensor:
        return torch.empty_like(like).normal_(generator=self.generator)

    def mask(self, variance: torch.Tensor) -> torch.Tensor:
        """A mask of mean one and the given variance, entry by entry."""
        if self.law == "gaussian":
            return self.normal(variance).mul_(variance.sqrt()).add_(1)
        keep = 1 / (1 + variance)
        return torch.empty_like(keep).uniform_(generator=self.generator).lt(keep).to(keep.dtype).div_(keep)


class _Hook:
    """A hook that holds on to nothing: a copied or pickled model gets one that does nothing."""

    def __init__(self, noise: Noise | None, member: Member | None) -> None:
        self._noise = weakref.ref(noise) if noise is not None else None
        self._member = weakref.ref(member) if member is not None else None

    def current(self, module: nn.Module) -> tuple[Noise, Member, torch.Tensor] | None:
        noise = self._noise() if self._noise is not None else None
        member = self._member() if self._member is not None else None
        if noise is None or member is None or member.memory is None or not module.training:
            return None
        member.drawn = True
        return noise, member, member.memory


class _Activations(_Hook):
    """Adds to a layer's output the deviation that noise on its weights would give."""

    def __call__(
        self, module: nn.Module, inputs: tuple[Any, ...], named: dict[str, Any], output: torch.Tensor
    ) -> torch.Tensor | None:
        now = self.current(module)
        if now is None:
            return None
        noise, member, variance = now
        spread = member.parameter.square() * variance
        squared = (inputs[0] if inputs else named["input"]).square()
        if isinstance(module, nn.Linear):
            power = F.linear(squared, spread)
        else:
            power = module._conv_forward(squared, spread, None)  # type: ignore[operator]
        # The root's slope is infinite at zero, where there is no noise either.
        deviation = torch.where(power > 0, power, 1.0).sqrt() * (power > 0)
        return output + deviation * noise.normal(output)

    def __reduce__(self) -> tuple[Any, ...]:
        return (_Activations, (None, None))


class _Shadow(_Hook):
    """Shows a module a noisy weight for the length of one forward pass.

    An entry in the instance's dictionary hides the registered parameter from attribute access, and from nothing else.
    """

    def __init__(self, noise: Noise | None, member: Member | None, owner: nn.Module | None, local: str) -> None:
        super().__init__(noise, member)
        self._owner = weakref.ref(owner) if owner is not None else None
        self.local = local

    def cast(self, module: nn.Module, inputs: tuple[Any, ...]) -> None:
        now, owner = self.current(module), self._owner() if self._owner is not None else None
        if now is None or owner is None:
            return
        noise, member, variance = now
        mask = member.grouping.spread(noise.mask(variance), member.parameter)
        owner.__dict__[self.local] = member.parameter * mask

    def lift(self, module: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
        owner = self._owner() if self._owner is not None else None
        if owner is not None:
            owner.__dict__.pop(self.local, None)

    def __reduce__(self) -> tuple[Any, ...]:
        return (_Shadow, (None, None, None, self.local))
