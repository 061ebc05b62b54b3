"""What a face does in the forward pass, without touching the module or its parameters.

Linear layers and convolutions take Gaussian noise on single weights in the per-activation form (local
reparametrization: Kingma, Salimans and Welling, 2015): pre-activations with the mean and variance that independent
noise on the weights would give, drawn afresh for every example, with far less variance in the gradient than one draw
per batch. Other layers, other laws and groups of several weights see another weight for the length of a forward pass.
"""

from __future__ import annotations

import weakref
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import nn

from .._core.distributed import rank
from .._core.random import derive
from ..errors import StateError, UnknownNameError
from ._draws import Draws
from ._member import Member
from ._shards import is_sharded

if TYPE_CHECKING:
    from .faces import Face

__all__ = ["LAWS", "Forward"]

LAWS = ("gaussian", "bernoulli")
_LOCAL = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)


class Forward:
    """The hooks of one `Sparsifier`; they are inert in copies of the model.

    Noise on weights comes from one stream, the same in every process of a data-parallel run; noise on activations
    from another, which differs from process to process as the examples do. Both start anew after every step from the
    seed and the step, so that a resumed run draws what an uninterrupted one would.
    """

    def __init__(self, law: str, seed: int, model: nn.Module, device: torch.device) -> None:
        if law not in LAWS:
            raise UnknownNameError("noise law", law, LAWS)
        self.law = law
        self.face: Face
        self.handles: list[torch.utils.hooks.RemovableHandle] = []
        self.fixed = torch.Generator().manual_seed(seed)
        self.seed = seed
        self._weights = Draws(torch.Generator(device))
        self._activations = Draws(torch.Generator(device))
        self.restart(0)
        # Attention reads the weight of its output projection without calling that layer.
        self._readers = {
            id(parent.out_proj): parent for parent in model.modules() if isinstance(parent, nn.MultiheadAttention)
        }

    def restart(self, step: int) -> None:
        """Begin the streams of the forward passes that follow ``step``."""
        self._weights.generator.manual_seed(derive(self.seed, step, 0))
        self._activations.generator.manual_seed(derive(self.seed, step, 1 + rank()))

    def attach(self, member: Member) -> None:
        """Let the modules that own the member's parameter see what the face does with it."""
        for module, local in member.selected.owners:
            reader = self._readers.get(id(module), module)
            on_activations = (
                reader is module
                and self.law == "gaussian"
                and local == "weight"
                and isinstance(module, _LOCAL)
                and self.face.spread(member, member.weights) is not None
            )
            if on_activations:
                # Before a shard's own hook, which frees the whole weight.
                first = is_sharded(member.parameter)
                self.handles.append(
                    module.register_forward_hook(_Activations(self, member), with_kwargs=True, prepend=first)
                )
                continue
            kind = _Packed if isinstance(module, nn.RNNBase) else _Shadow
            shadow = kind(self, member, module, local)
            self.handles.append(reader.register_forward_pre_hook(shadow.cast))
            self.handles.append(reader.register_forward_hook(shadow.lift, always_call=True))

    def detach(self) -> None:
        """Remove every hook."""
        for handle in self.handles:
            handle.remove()
        self.handles.clear()

    def normal(self, like: torch.Tensor) -> torch.Tensor:
        """Normal noise for weights."""
        return self._weights.normal(like)

    def uniform(self, like: torch.Tensor) -> torch.Tensor:
        """Uniform noise for weights."""
        return self._weights.uniform(like)

    def on_activations(self, like: torch.Tensor) -> torch.Tensor:
        """Normal noise for a layer's output."""
        return self._activations.normal(like)

    def mask(self, variance: torch.Tensor) -> torch.Tensor:
        """A mask of mean one and the given variance, entry by entry."""
        if self.law == "gaussian":
            return 1 + self.normal(variance) * variance.sqrt()
        keep = 1 / (1 + variance)
        return self.uniform(keep).lt(keep).to(keep.dtype) / keep


class _Hook:
    """A hook that holds on to nothing: a copied or pickled model gets one that does nothing."""

    def __init__(self, forward: Forward | None, member: Member | None) -> None:
        self._forward = weakref.ref(forward) if forward is not None else None
        self._member = weakref.ref(member) if member is not None else None

    def current(self) -> tuple[Forward, Member] | None:
        forward = self._forward() if self._forward is not None else None
        member = self._member() if self._member is not None else None
        if forward is None or member is None or member.support is not None or not member.is_trained:
            return None
        return forward, member


class _Activations(_Hook):
    """Adds to a layer's output the deviation that noise on its weights would give."""

    def __call__(
        self, module: nn.Module, inputs: tuple[Any, ...], named: dict[str, Any], output: torch.Tensor
    ) -> torch.Tensor | None:
        now = self.current()
        if now is None or not module.training:
            return None
        forward, member = now
        weight = module._parameters["weight"]
        assert weight is not None
        spread = forward.face.spread(member, weight)
        if spread is None:
            return None
        _refuse_recomputation(forward)
        member.drawn = True
        given: torch.Tensor = inputs[0] if inputs else named["input"]
        if output.dtype == torch.float16:
            # Squares leave the range of half precision long before the values do.
            with torch.autocast(output.device.type, enabled=False):
                power = _power(module, given.float().square(), spread.float())
        else:
            power = _power(module, given.square(), spread.to(weight.dtype))
        # The root's slope is infinite at zero, where there is no noise either.
        deviation = torch.where(power > 0, power, 1.0).sqrt() * (power > 0)
        return output + deviation.to(output.dtype) * forward.on_activations(output)

    def __reduce__(self) -> tuple[Any, ...]:
        return (_Activations, (None, None))


def _power(module: nn.Module, squared: torch.Tensor, spread: torch.Tensor) -> torch.Tensor:
    """Variance of a layer's output where its weights have the variance ``spread``."""
    if isinstance(module, nn.Linear):
        return F.linear(squared, spread)
    power: torch.Tensor = module._conv_forward(squared, spread, None)  # type: ignore[operator]
    return power


def _refuse_recomputation(forward: Forward) -> None:
    """Raise where a layer is computed again in the backward pass, with other noise than the loss saw."""
    if torch.compiler.is_compiling() or torch._C._current_graph_task_id() == -1:
        return
    raise StateError(
        f"face={forward.face.name!r} draws noise in the forward pass, and activation checkpointing computes this layer "
        "again with other noise: the gradient would be wrong. Leave the layer out of checkpointing, skip it with a "
        "Rule, or use a face that acts on the weights, such as 'proximal'"
    )


class _Shadow(_Hook):
    """Shows a module another weight for the length of one forward pass.

    An entry in the instance's dictionary hides the registered parameter from attribute access, and from nothing else.
    """

    def __init__(self, forward: Forward | None, member: Member | None, owner: nn.Module | None, local: str) -> None:
        super().__init__(forward, member)
        self._owner = weakref.ref(owner) if owner is not None else None
        self.local = local

    def cast(self, module: nn.Module, inputs: tuple[Any, ...]) -> None:
        now, owner = self.current(), self._owner() if self._owner is not None else None
        if now is None or owner is None:
            return
        forward, member = now
        weight = owner._parameters[self.local]
        assert weight is not None
        if module.training:
            _refuse_recomputation(forward)
            member.drawn = True
            self.show(owner, forward.face.shown(member, weight, forward).to(weight.dtype))
        else:
            at_rest = forward.face.at_rest(member, weight)
            if at_rest is not None:
                self.show(owner, at_rest.to(weight.dtype))

    def show(self, owner: nn.Module, weight: torch.Tensor) -> None:
        owner.__dict__[self.local] = weight

    def lift(self, module: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
        owner = self._owner() if self._owner is not None else None
        if owner is not None:
            owner.__dict__.pop(self.local, None)

    def __reduce__(self) -> tuple[Any, ...]:
        return (type(self), (None, None, None, self.local))


class _Packed(_Shadow):
    """The same for recurrent layers, which read their weights from a list."""

    def show(self, owner: nn.Module, weight: torch.Tensor) -> None:
        self._entry(owner, weight)

    def lift(self, module: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
        owner = self._owner() if self._owner is not None else None
        if owner is not None:
            self._entry(owner, owner._parameters[self.local])

    def _entry(self, owner: nn.Module, weight: torch.Tensor | None) -> None:
        names: list[str] = owner._flat_weights_names  # type: ignore[assignment]
        entries: list[Any] = owner._flat_weights  # type: ignore[assignment]
        entries[names.index(self.local)] = weight


def without_hooks(model: nn.Module) -> nn.Module:
    """A copied model without the inert hooks that came with it."""
    for module in model.modules():
        for hooks in (module._forward_hooks, module._forward_pre_hooks):
            for number, hook in list(hooks.items()):
                if type(getattr(hook, "__self__", hook)).__module__.startswith(__package__):
                    del hooks[number]
                    for kept in (
                        module._forward_hooks_with_kwargs,
                        module._forward_hooks_always_called,
                        module._forward_pre_hooks_with_kwargs,
                    ):
                        kept.pop(number, None)
    return model
