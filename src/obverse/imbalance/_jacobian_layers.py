"""At which hidden tensors the gradient of a row's loss is measured, and the hooks that catch them in a forward pass."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.autograd.graph import GradientEdge, get_gradient_edge

from ..errors import InvalidArgumentError

__all__ = ["Caught", "Offset", "Place", "catching", "places"]

_Kind = Literal["normalized", "input", "output"]
_CHANNEL_NORMS = (
    nn.BatchNorm1d,
    nn.BatchNorm2d,
    nn.BatchNorm3d,
    nn.SyncBatchNorm,
    nn.GroupNorm,
    nn.InstanceNorm1d,
    nn.InstanceNorm2d,
    nn.InstanceNorm3d,
)
_TRAILING_NORMS = (nn.LayerNorm, nn.RMSNorm)
_PRODUCTS = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)
_EMBEDDINGS = (nn.Embedding, nn.EmbeddingBag)


@dataclass(frozen=True)
class Place:
    """A module, and which of its tensors is meant.

    Attributes
    ----------
    name : str
        Of the module in the model.
    kind : {"normalized", "input", "output"}
        The output of a norm before its scale and shift, the input of a layer as it alone sees it, or the output.
    by_default : bool
        Found, not asked for: a place whose tensor has no row for each example is then passed over.
    """

    name: str
    module: nn.Module
    kind: _Kind
    by_default: bool


@dataclass(frozen=True)
class Caught:
    """One hidden tensor of one forward pass.

    Attributes
    ----------
    edge : GradientEdge
        Where its gradient arrives, even if a later layer overwrites the tensor in place.
    weight : Tensor or None
        Scale of a norm, shaped to multiply the tensor: the gradient before the scale is this times the gradient.
    own : tuple of int
        Axes along which ``weight`` varies.
    """

    place: Place
    edge: GradientEdge
    shape: torch.Size
    dtype: torch.dtype
    weight: Tensor | None
    own: tuple[int, ...]


@dataclass(frozen=True)
class Offset:
    """What is added at a hidden tensor, before a norm's scale: ``factor * gradient``, where ``factor`` broadcasts.

    The product is never written down: in a network of convolutions that would cost as much as a normalization.
    """

    gradient: Tensor
    factor: Tensor

    def added(self, tensor: Tensor, weight: Tensor | None) -> Tensor:
        """``tensor`` moved; ``weight`` is the scale of the norm that gave it."""
        if weight is None:
            return torch.addcmul(tensor, self.gradient.to(tensor.dtype), self.factor.to(tensor.dtype))
        moved: Tensor = _MovedNorm.apply(tensor, weight, self.gradient, self.factor)  # type: ignore[no-untyped-call]
        return moved


class _MovedNorm(torch.autograd.Function):
    """``tensor + weight * factor * gradient``, of which tensor and weight are the variables."""

    @staticmethod
    def forward(ctx: Any, tensor: Tensor, weight: Tensor, gradient: Tensor, factor: Tensor) -> Tensor:
        ctx.save_for_backward(gradient, factor)
        ctx.shape, ctx.dtype = weight.shape, weight.dtype
        return torch.addcmul(tensor, gradient.to(tensor.dtype), (weight * factor).to(tensor.dtype))

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, slope: Tensor) -> tuple[Tensor | None, ...]:
        if not ctx.needs_input_grad[1]:
            return slope, None, None, None
        gradient, factor = ctx.saved_tensors
        product = slope * gradient
        # As far as the factor is constant; the rest after it is small.
        reduced = [i for i in range(product.ndim) if factor.shape[i] == 1 and product.shape[i] > 1]
        sums = product.sum(reduced, keepdim=True, dtype=factor.dtype) if reduced else product
        return slope, (sums * factor).sum_to_size(ctx.shape).to(ctx.dtype), None, None


def places(model: nn.Module, layers: Sequence[str] | None) -> list[Place]:
    """The places that names or patterns mean, or those of the default; in the order of the model.

    Raises
    ------
    InvalidArgumentError
        A pattern that means no layer, or a model in which the default finds none.
    """
    named = [(name, module) for name, module in model.named_modules() if name]
    if layers is not None:
        if isinstance(layers, str):
            raise InvalidArgumentError(f"layers must be a list of names or patterns, got the one string {layers!r}")
        for pattern in layers:
            if not any(fnmatchcase(name, pattern) for name, _ in named):
                near = [name for name, module in named if not list(module.children())]
                raise InvalidArgumentError(f"layers: {pattern!r} is no layer of the model, which has {', '.join(near)}")
        chosen = [(n, m) for n, m in named if any(fnmatchcase(n, pattern) for pattern in layers)]
        if not chosen:
            raise InvalidArgumentError("layers is empty; name at least one layer, or leave it out")
        return [Place(name, module, _kind(module), False) for name, module in chosen]
    for kinds in (_CHANNEL_NORMS + _TRAILING_NORMS, _EMBEDDINGS, _PRODUCTS):
        chosen = [(name, module) for name, module in named if isinstance(module, kinds)]
        if chosen:
            return [Place(name, module, _kind(module), True) for name, module in chosen]
    raise InvalidArgumentError(
        "the model has no norm, embedding, linear or convolution layer to measure gradients at; name some with layers="
    )


def _kind(module: nn.Module) -> _Kind:
    if isinstance(module, _CHANNEL_NORMS + _TRAILING_NORMS):
        return "normalized"
    return "input" if isinstance(module, _PRODUCTS) else "output"


@dataclass
class Catch:
    """What the hooks of one forward pass have seen; ``offsets`` are added at the same places, in the same order."""

    found: list[Caught] = field(default_factory=list)
    offsets: list[Offset | None] | None = None
    _count: int = 0

    def see(self, place: Place, tensor: Tensor) -> Tensor | None:
        """Take note of a tensor; what is returned takes its place in the forward pass."""
        if place.by_default and place.kind == "input" and not tensor.requires_grad:
            return None  # the data: not hidden
        weight, own = _scale(place, tensor)
        if self.offsets is not None:
            offset = self.offsets[self._count] if self._count < len(self.offsets) else None
            self._count += 1
            return None if offset is None else offset.added(tensor, weight)
        replaced = False
        if not tensor.requires_grad:
            # A leaf of its own, and a copy of it that later layers may overwrite.
            tensor, replaced = tensor.detach().requires_grad_(), True
        edge_of = tensor
        if place.kind == "input" and not replaced:
            # Another name for the tensor, which other layers may read as well: this layer's share of the gradient.
            edge_of, replaced = tensor.view_as(tensor), True
        self.found.append(Caught(place, get_gradient_edge(edge_of), tensor.shape, tensor.dtype, weight, own))
        if not replaced:
            return None
        return edge_of if place.kind == "input" else edge_of.clone()


def _scale(place: Place, tensor: Tensor) -> tuple[Tensor | None, tuple[int, ...]]:
    weight = getattr(place.module, "weight", None) if place.kind == "normalized" else None
    if weight is None:
        return None, ()
    if isinstance(place.module, _TRAILING_NORMS):
        return weight, tuple(range(tensor.ndim - weight.ndim, tensor.ndim))
    return weight.reshape(-1, *(1,) * (tensor.ndim - 2)), (1,)


@contextmanager
def catching(chosen: Sequence[Place], offsets: list[Offset | None] | None = None) -> Iterator[Catch]:
    """Hooks at the places for as long as the block runs."""
    catch = Catch(offsets=offsets)
    with ExitStack() as stack:
        for place in chosen:
            if place.kind == "input":
                handle = place.module.register_forward_pre_hook(_before(catch, place), with_kwargs=True)
            else:
                handle = place.module.register_forward_hook(_after(catch, place))
            stack.callback(handle.remove)
        yield catch


def _before(catch: Catch, place: Place) -> Callable[..., tuple[tuple[Any, ...], dict[str, Any]] | None]:
    def hook(
        module: nn.Module, inputs: tuple[Any, ...], named: dict[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]] | None:
        given = inputs[0] if inputs else named.get("input")
        if not isinstance(given, Tensor) or not given.is_floating_point() or not torch.is_grad_enabled():
            return None
        seen = catch.see(place, given)
        if seen is None:
            return None
        return ((seen, *inputs[1:]), named) if inputs else ((), {**named, "input": seen})

    return hook


def _after(catch: Catch, place: Place) -> Callable[..., Any]:
    def hook(module: nn.Module, inputs: tuple[Any, ...], output: Any) -> Any:
        # Recurrent and attention layers return a tuple, their output first.
        first = output[0] if isinstance(output, tuple) and output else output
        if not isinstance(first, Tensor) or not first.is_floating_point() or not torch.is_grad_enabled():
            return None
        seen = catch.see(place, first)
        if seen is None:
            return None
        return (seen, *output[1:]) if isinstance(output, tuple) else seen

    return hook
