"""What functions and tensor methods do to channels: move elements, combine them, reduce them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch.nn import functional

from ._channels import WHOLE
from ._flow import Even, Flow, Knowledge, Move
from ._layers import contract
from ._products import attention, product

__all__ = ["MOVES", "apply", "pointwise", "pooled"]

MOVES = frozenset(
    [
        "view",
        "reshape",
        "flatten",
        "transpose",
        "permute",
        "contiguous",
        "cat",
        "concat",
        "concatenate",
        "split",
        "chunk",
        "getitem",
        "unsqueeze",
        "squeeze",
        "expand",
        "expand_as",
        "repeat",
        "repeat_interleave",
        "stack",
        "unbind",
        "movedim",
        "swapaxes",
        "t",
        "clone",
        "detach",
        "to",
        "flip",
        "roll",
        "unflatten",
        "view_as",
        "narrow",
        "select",
        "tensor_split",
        "pixel_shuffle",
        "pixel_unshuffle",
        "channel_shuffle",
        "tile",
        "broadcast_to",
        "mT",
        "T",
        "moveaxis",
    ]
)
_MIXES_POSITIONS = frozenset(
    [
        "max_pool1d",
        "max_pool2d",
        "max_pool3d",
        "avg_pool1d",
        "avg_pool2d",
        "avg_pool3d",
        "adaptive_avg_pool1d",
        "adaptive_avg_pool2d",
        "adaptive_avg_pool3d",
        "adaptive_max_pool1d",
        "adaptive_max_pool2d",
        "interpolate",
        "upsample",
        "lp_pool2d",
    ]
)
_UNARY = frozenset(
    [
        "relu",
        "relu_",
        "gelu",
        "silu",
        "sigmoid",
        "tanh",
        "hardswish",
        "hardsigmoid",
        "hardtanh",
        "relu6",
        "leaky_relu",
        "elu",
        "selu",
        "celu",
        "mish",
        "softplus",
        "softsign",
        "tanhshrink",
        "logsigmoid",
        "exp",
        "log",
        "sqrt",
        "rsqrt",
        "abs",
        "neg",
        "square",
        "sin",
        "cos",
        "erf",
        "pow",
        "float",
        "double",
        "clamp",
        "clip",
        "dropout",
        "dropout1d",
        "dropout2d",
        "dropout3d",
        "alpha_dropout",
        "feature_alpha_dropout",
        "prelu",
        "reciprocal",
        "log1p",
        "expm1",
        "type_as",
    ]
)
_BINARY = frozenset(
    [
        "add",
        "sub",
        "mul",
        "truediv",
        "div",
        "true_divide",
        "iadd",
        "isub",
        "imul",
        "add_",
        "mul_",
        "sub_",
        "maximum",
        "minimum",
        "multiply",
        "subtract",
        "where",
        "masked_fill",
        "rsub",
    ]
)
_REDUCE = frozenset(["mean", "sum", "amax", "amin", "logsumexp"])


def flows_in(value: Any) -> list[Flow]:
    """All flows inside nested lists, tuples and dictionaries."""
    if isinstance(value, Flow):
        return [value]
    if isinstance(value, list | tuple):
        return [flow for one in value for flow in flows_in(one)]
    if isinstance(value, dict):
        return [flow for one in value.values() for flow in flows_in(one)]
    return []


def swap(value: Any, change: Callable[[Flow], Any]) -> Any:
    """The same nesting with every flow replaced."""
    if isinstance(value, Flow):
        return change(value)
    if isinstance(value, list | tuple):
        return (tuple if isinstance(value, tuple) else list)(swap(one, change) for one in value)
    if isinstance(value, dict):
        return {key: swap(one, change) for key, one in value.items()}
    return value


def apply(know: Knowledge, name: str, owner: str, call: Callable[..., Any], args: Any, kwargs: Any, shape: Any) -> Any:
    """The flow that a function writes; what is not understood is a barrier that keeps its inputs whole."""
    flows = flows_in((args, kwargs))
    zeros = name == "pad" and kwargs.get("mode", "constant") == "constant" and not kwargs.get("value") and len(args) < 3
    if name in MOVES or zeros:
        return _move(know, name, owner, call, args, kwargs, flows)
    if name in _UNARY and len(flows) == 1:
        return pointwise(know, call, args, kwargs)
    if name in _BINARY:
        return pointwise(know, call, args, kwargs)
    if name == "softmax" and len(flows) == 1:
        return _softmax(know, owner, call, args, kwargs, flows[0])
    if name in _MIXES_POSITIONS and len(flows) == 1 and flows[0].label.ndim > 2:
        return pooled(know, lambda flow: call(*swap(args, lambda _: flow), **swap(kwargs, lambda _: flow)), flows[0])
    if name in _REDUCE and len(flows) == 1:
        return _reduce(know, name, owner, call, args, kwargs, flows[0])
    if name in ("matmul", "bmm") and len(flows) == 2:
        return product(know, owner, flows[0], flows[1])
    if name == "scaled_dot_product_attention":
        return attention(know, owner, args, kwargs)
    if name == "linear" and isinstance(args[0], Flow) and len(args) > 1 and know.name_of(args[1]) is not None:
        return contract(
            know, know.name_of(args[1]) or "", args[1], args[2] if len(args) > 2 else kwargs.get("bias"), args[0]
        )
    for flow in flows:
        know.channels.pin(flow.label, f"{name} in {owner or 'the model'} is not understood")
    know.notes.append(f"{name} in {owner or 'the model'} is not understood: what it reads keeps its size")
    return swap_shapes(know, shape)


def swap_shapes(know: Knowledge, shape: Any) -> Any:
    """Unknown flows in the shape of an observed result."""
    if isinstance(shape, torch.Tensor):
        return know.whole(shape)
    if isinstance(shape, list | tuple):
        return type(shape)(swap_shapes(know, one) for one in shape) if type(shape) in (list, tuple) else shape
    return shape


def _move(know: Knowledge, name: str, owner: str, call: Any, args: Any, kwargs: Any, flows: list[Flow]) -> Any:
    def part(which: str) -> Any:
        return call(*swap(args, lambda f: getattr(f, which)), **swap(kwargs, lambda f: getattr(f, which)))

    if name in ("to", "clone", "detach", "contiguous"):
        return flows[0]
    label, value, varying = part("label"), part("value"), part("varying")
    several = isinstance(label, list | tuple)
    outs = [
        Flow(a.contiguous(), b.contiguous(), c.contiguous(), False)
        for a, b, c in (zip(label, value, varying, strict=True) if several else [(label, value, varying)])
    ]
    if name in ("expand", "repeat_interleave", "repeat", "reshape", "view", "transpose") and flows[0].stochastic:
        outs = [Flow(o.label, o.value, o.varying, o.label.shape[-1] == flows[0].label.shape[-1]) for o in outs]
    sized = name in ("view", "reshape", "unflatten", "expand", "split", "repeat_interleave", "repeat")
    sizes = tuple(one for one in _numbers(args[1:]) if one > 1) if sized else ()
    if name in ("chunk", "split", "unbind", "tensor_split") and several:
        know.evens.append(Even([o.label for o in outs], f"{name} in {owner or 'the model'} cuts equal parts"))
    know.moves.append(Move(name, owner, [f.label for f in flows], [o.label for o in outs], sizes))
    return tuple(outs) if several else outs[0]


def _numbers(value: Any) -> list[int]:
    if isinstance(value, int) and not isinstance(value, bool):
        return [value]
    return [n for one in value for n in _numbers(one)] if isinstance(value, list | tuple) else []


def pointwise(know: Knowledge, call: Callable[..., Any], args: Any, kwargs: Any) -> Flow:
    """Elementwise: operands of the same extent share channels; an operand that is broadcast over channels does not."""
    flows = [flow for flow in flows_in((args, kwargs)) if flow.label.ndim]
    loose = [t for t in _tensors((args, kwargs)) if t.ndim]
    shape = torch.broadcast_shapes(*(f.label.shape for f in flows), *(t.shape for t in loose))  # type: ignore[no-untyped-call]
    labels = [flow.label for flow in flows]
    tied = torch.full(shape, WHOLE)
    main = max(
        labels,
        key=lambda one: (tuple(one.shape) == tuple(shape), int((one != WHOLE).any()), one.unique().numel()),  # type: ignore[no-untyped-call]
    )
    axes_main = _varied(main, shape)
    tied = main.expand(shape)
    for label in labels:
        if label is main:
            continue
        stretched = [a for a in range(len(shape)) if shape[a] > 1 and _size(label, a, len(shape)) == 1]
        if any(a in axes_main for a in stretched):
            know.channels.pin(label, "it is broadcast over the channels of another tensor")
        else:
            know.channels.tie(tied, label.expand(shape))
    for tensor in loose:
        name = know.name_of(tensor)
        full = [a for a in axes_main if _size(tensor, a, len(shape)) > 1]
        if not full:
            continue
        axis = full[-1] - (len(shape) - tensor.ndim)
        if name is None or len(full) > 1:
            know.channels.pin(tied, "a constant in the code has its size")
        else:
            along = know.channels.tie_along(tied, full[-1])
            know.channels.tie(along, know.axis(tensor, axis, f"{name}: one entry for each channel"))

    def exact(one: Any) -> Any:
        return (
            one.detach().to("cpu", torch.float64) if isinstance(one, torch.Tensor) and one.is_floating_point() else one
        )

    def value(args: Any, kwargs: Any) -> torch.Tensor:
        clean = _map_tensors((args, kwargs), exact)
        result: torch.Tensor = call(
            *swap(clean[0], lambda f: f.value.clone()), **swap(clean[1], lambda f: f.value.clone())
        )
        return result.double()

    varying = torch.zeros(shape, dtype=torch.bool)
    for flow in flows:
        varying = varying | flow.varying
    if getattr(call, "__name__", "") in ("mul", "imul", "mul_", "multiply"):
        for flow in flows:  # zero times anything is zero
            varying = varying & ~(~flow.varying & (flow.value == 0))
    result = value(args, kwargs)
    finite = result.isfinite()
    varying = varying | ~finite
    return Flow(
        tied.contiguous(),
        result.masked_fill(varying, 0),
        varying.expand(shape).contiguous(),
        len(flows) == 1
        and flows[0].stochastic
        and getattr(call, "__name__", "") in ("dropout", "float", "to", "type_as"),
    )


def _tensors(value: Any) -> list[torch.Tensor]:
    if isinstance(value, torch.Tensor):
        return [value]
    if isinstance(value, list | tuple):
        return [t for one in value for t in _tensors(one)]
    if isinstance(value, dict):
        return [t for one in value.values() for t in _tensors(one)]
    return []


def _map_tensors(value: Any, change: Callable[[Any], Any]) -> Any:
    if isinstance(value, list | tuple):
        return (tuple if isinstance(value, tuple) else list)(_map_tensors(one, change) for one in value)
    if isinstance(value, dict):
        return {key: _map_tensors(one, change) for key, one in value.items()}
    return change(value)


def _size(tensor: torch.Tensor, axis: int, ndim: int) -> int:
    own = axis - (ndim - tensor.ndim)
    return tensor.shape[own] if own >= 0 else 1


def _varied(labels: torch.Tensor, shape: Any) -> list[int]:
    """Axes of the result along which the channels differ."""
    full = labels.expand(shape)
    return [a for a in range(len(shape)) if shape[a] > 1 and bool((full != full.narrow(a, 0, 1)).any())]


def pooled(know: Knowledge, call: Callable[[torch.Tensor], torch.Tensor], flow: Flow) -> Flow:
    """Pooling and interpolation: positions mix, channels (axis 1) do not."""
    labels = know.channels.tie_along(flow.label, 1)
    value = call(flow.value)
    varying = call(flow.varying.double()) > 0
    again = labels.reshape(1, -1, *[1] * (value.ndim - 2)).expand(value.shape)
    return Flow(again.contiguous(), value.masked_fill(varying, 0), varying)


def _softmax(know: Knowledge, owner: str, call: Any, args: Any, kwargs: Any, flow: Flow) -> Flow:
    dim = kwargs.get("dim", args[1] if len(args) > 1 else -1)
    dim = -1 if dim is None else dim
    first = flow.label.select(dim, 0).unsqueeze(dim)
    if bool((first != flow.label).any()):
        know.channels.pin(flow.label, f"softmax in {owner or 'the model'} runs over channels")
    varying = flow.varying.any(dim, keepdim=True).expand(flow.varying.shape).contiguous()
    value = functional.softmax(flow.value, dim).masked_fill(varying, 0)
    return Flow(flow.label, value, varying, dim in (-1, flow.label.ndim - 1))


def _reduce(know: Knowledge, name: str, owner: str, call: Any, args: Any, kwargs: Any, flow: Flow) -> Any:
    value = call(*swap(args, lambda f: f.value), **swap(kwargs, lambda f: f.value))
    if not isinstance(value, torch.Tensor):
        return value
    dim = kwargs.get("dim", args[1] if len(args) > 1 else None)
    dims = [d % flow.label.ndim for d in ([dim] if isinstance(dim, int) else list(dim or range(flow.label.ndim)))]
    label, varying = flow.label, flow.varying
    for d in dims:
        first = label.select(d, 0).unsqueeze(d)
        if bool((first != label).any()):
            know.channels.pin(flow.label, f"{name} in {owner or 'the model'} runs over channels")
        label, varying = first, varying.any(d, keepdim=True)
    label, varying = label.reshape(value.shape), varying.reshape(value.shape)
    return Flow(label.contiguous(), value.masked_fill(varying, 0), varying.contiguous())
