"""What functions and tensor methods do to channels: move elements, combine them, reduce them, read them by weights."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from torch import nn
from torch.nn import functional

from ._channels import WHOLE
from ._elementwise import combined, joined, padded
from ._flow import Even, Flow, Knowledge, Move, Source, squeezed
from ._moves import moved
from ._norms import batch_norm, group_norm, instance_norm, layer_norm, rms_norm
from ._numbers import Attribute, Length
from ._products import attention, einsum, product, unmatched
from ._recurrent import recurrent
from ._weighted import barrier, contract, convolve, look_up

__all__ = ["MOVES", "apply", "derive"]

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
        "swapdims",
        "t",
        "clone",
        "detach",
        "to",
        "flip",
        "roll",
        "unflatten",
        "view_as",
        "reshape_as",
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
        "H",
        "mH",
        "moveaxis",
        "split_with_sizes",
        "cpu",
        "cuda",
        "alias",
        "ravel",
        "unfold",
        "hstack",
        "vstack",
        "dstack",
        "data",
        "rot90",
        "fliplr",
        "flipud",
        "native_channel_shuffle",
        "index_select",
        "gather",
        "take_along_dim",
        "diagonal",
        "narrow_copy",
        "positive",
        "real",
        "atleast_1d",
        "atleast_2d",
        "atleast_3d",
        "requires_grad_",
        "pin_memory",
        "block_diag",
        "unsafe_chunk",
        "unsafe_split",
        "adjoint",
        "squeeze_",
        "unsqueeze_",
    ]
)
_SAME = frozenset(
    [
        "to",
        "clone",
        "detach",
        "contiguous",
        "cpu",
        "cuda",
        "alias",
        "data",
        "positive",
        "requires_grad_",
        "pin_memory",
        "float",
        "double",
        "half",
        "bfloat16",
        "type",
        "type_as",
    ]
)
_POOLS = frozenset(
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
        "adaptive_max_pool3d",
        "interpolate",
        "upsample",
        "lp_pool1d",
        "lp_pool2d",
        "grid_sample",
        "fractional_max_pool2d",
        "upsample_nearest",
        "upsample_bilinear",
    ]
)
_ELEMENTWISE = frozenset(
    [
        "relu",
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
        "tan",
        "erf",
        "erfc",
        "pow",
        "float",
        "double",
        "half",
        "bfloat16",
        "clamp",
        "clip",
        "reciprocal",
        "log1p",
        "expm1",
        "exp2",
        "log2",
        "log10",
        "type",
        "type_as",
        "sign",
        "round",
        "floor",
        "ceil",
        "trunc",
        "frac",
        "nan_to_num",
        "isnan",
        "isinf",
        "isfinite",
        "logical_not",
        "bitwise_not",
        "sinh",
        "cosh",
        "asin",
        "acos",
        "atan",
        "asinh",
        "acosh",
        "atanh",
        "erfinv",
        "lgamma",
        "digamma",
        "hardshrink",
        "softshrink",
        "threshold",
        "rrelu",
        "int",
        "long",
        "bool",
        "clamp_min",
        "clamp_max",
        "add",
        "sub",
        "mul",
        "truediv",
        "div",
        "true_divide",
        "maximum",
        "minimum",
        "multiply",
        "subtract",
        "where",
        "masked_fill",
        "rsub",
        "rpow",
        "rdiv",
        "floordiv",
        "floor_divide",
        "fmod",
        "remainder",
        "atan2",
        "lerp",
        "addcmul",
        "addcdiv",
        "xlogy",
        "hypot",
        "logaddexp",
        "eq",
        "ne",
        "lt",
        "le",
        "gt",
        "ge",
        "logical_and",
        "logical_or",
        "logical_xor",
        "bitwise_and",
        "bitwise_or",
        "and",
        "or",
        "xor",
        "invert",
        "divide",
        "negative",
        "absolute",
        "fmin",
        "fmax",
        "copysign",
        "heaviside",
        "special_expit",
        "sinc",
        "mod",
        "copy",
        "fill_where",
        "prelu",
        "bitwise_left_shift",
        "bitwise_right_shift",
        "deg2rad",
        "polar",
        "view_as_real",
        "view_as_complex",
        "complex",
        "conj",
        "radd",
        "rmul",
        "rtruediv",
    ]
)
_DROPOUTS = frozenset(
    [
        "dropout",
        "dropout1d",
        "dropout2d",
        "dropout3d",
        "alpha_dropout",
        "feature_alpha_dropout",
        "feature_dropout",
        "native_dropout",
    ]
)
_LIKE = frozenset(
    [
        "zeros_like",
        "ones_like",
        "full_like",
        "empty_like",
        "rand_like",
        "randn_like",
        "randint_like",
        "bernoulli",
        "normal_",
        "uniform_",
    ]
)
_REDUCE = frozenset(
    [
        "mean",
        "sum",
        "amax",
        "amin",
        "logsumexp",
        "max",
        "min",
        "argmax",
        "argmin",
        "prod",
        "var",
        "std",
        "norm",
        "any",
        "all",
        "median",
        "count_nonzero",
        "var_mean",
        "std_mean",
        "vector_norm",
        "linalg_vector_norm",
        "nansum",
        "nanmean",
        "mode",
        "aminmax",
    ]
)
_ALONG = frozenset(
    [
        "softmax",
        "log_softmax",
        "softmin",
        "cumsum",
        "cumprod",
        "sort",
        "argsort",
        "topk",
        "normalize",
        "cummax",
        "cummin",
        "logcumsumexp",
        "_softmax",
        "kthvalue",
    ]
)
_SCATTERS = frozenset(
    [
        "index_add",
        "scatter_add",
        "scatter",
        "index_copy",
        "scatter_reduce",
        "index_put",
        "index_fill",
        "masked_scatter",
        "setitem",
    ]
)
_DECISIONS = frozenset(
    [
        "item",
        "tolist",
        "bool",
        "int",
        "float",
        "numpy",
        "index",
        "array",
        "is_nonzero",
        "equal",
        "allclose",
        "nonzero",
        "unique",
        "masked_select",
        "contains",
    ]
)
_CONVOLUTIONS = {f"conv{n}d": False for n in (1, 2, 3)} | {f"conv_transpose{n}d": True for n in (1, 2, 3)}


# --------------------------------------------------------------------------------------------- nested arguments
def flows_in(value: Any) -> list[Flow]:
    """All flows inside nested lists, tuples and dictionaries."""
    return _all_of(value, Flow)


def tensors_in(value: Any) -> list[torch.Tensor]:
    """All tensors inside nested lists, tuples and dictionaries."""
    return _all_of(value, torch.Tensor)


def _all_of(value: Any, kind: type) -> list[Any]:
    if isinstance(value, kind):
        return [value]
    if isinstance(value, list | tuple):
        return [one for item in value for one in _all_of(item, kind)]
    if isinstance(value, dict):
        return [one for item in value.values() for one in _all_of(item, kind)]
    return []


def swap(value: Any, change: Callable[[Any], Any]) -> Any:
    """The same nesting with every flow and tensor replaced."""
    if isinstance(value, Flow | torch.Tensor):
        return change(value)
    if isinstance(value, list | tuple):
        return (tuple if isinstance(value, tuple) else list)(swap(one, change) for one in value)
    if isinstance(value, dict):
        return {key: swap(one, change) for key, one in value.items()}
    return value


def _real(value: Any) -> Any:
    return value.real if isinstance(value, Flow) else value


# --------------------------------------------------------------------------------------------------- the table
def apply(know: Knowledge, name: str, owner: str, call: Callable[..., Any], args: Any, kwargs: Any, result: Any) -> Any:
    """The flows that a function writes, nested as ``result``; what is not understood is a barrier.

    Parameters
    ----------
    know : Knowledge
    name : str
        Name of the function, without underscores around it.
    owner : str
        Qualified name of the module in whose code it stands.
    call : callable
        The function itself.
    args, kwargs
        As it was called, with flows in place of the tensors that are followed.
    result
        What it gave on the example inputs.
    """
    here = owner or "the model"
    if name in _CREATIONS:
        return None
    if not tensors_in(result):
        if name in _DECISIONS:
            for flow in flows_in((args, kwargs)):
                know.channels.pin(flow.label, f"{name} in {here} lets its values decide what the code does")
        return result
    handler = _handler(name)
    if handler is not None:
        made = handler(know, name, owner, call, args, kwargs, result)
        if made is not None:
            return made
    return _unknown_function(know, name, here, args, kwargs, result)


def _unknown_function(know: Knowledge, name: str, here: str, args: Any, kwargs: Any, result: Any) -> Any:
    return _barred(know, f"{name} in {here} is not understood", args, kwargs, result)


def _barred(know: Knowledge, reason: str, args: Any, kwargs: Any, result: Any) -> Any:
    """Everything that a function reads, weights included, keeps its size."""
    for tensor in tensors_in((args, kwargs)):
        for source in know.sources(tensor):
            know.fix(source.name, reason)
    return barrier(know, reason, *flows_in((args, kwargs)), like=result)


def _handler(name: str) -> Callable[..., Any] | None:
    if name in _HANDLERS:
        return _HANDLERS[name]
    for names, handler in (
        (_DROPOUTS, _dropout),
        (_ELEMENTWISE, _elementwise),
        (MOVES, _move),
        (_LIKE, _like),
        (_POOLS, _pooled),
        (_REDUCE, _reduce),
        (_ALONG, _along),
        (_SCATTERS, _scatter),
    ):
        if name in names:
            return handler
    return _convolution if name in _CONVOLUTIONS else None


def derive(know: Knowledge, name: str, owner: str, call: Any, args: Any, kwargs: Any, result: Any) -> None:
    """Follow what a function makes of parameters alone; a parameter that goes into anything else keeps its shape."""
    used = [one for one in tensors_in((args, kwargs)) if know.sources(one) and one.is_floating_point()]
    if not used:
        if isinstance(result, torch.Tensor) and result.ndim:
            given = args[1:] if args and isinstance(args[0], torch.Tensor) else args
            sizes = stated_sizes(name, given, kwargs, result.ndim, [result])
            if sizes:
                know.create(result, owner, sizes)
        return
    made = tensors_in(result)
    if not made:
        if name in _DECISIONS:
            for tensor in used:
                _fix_all(know, tensor, f"{name} in {owner or 'the model'} reads its numbers")
        return
    if name in _SAME:
        know.derive(made[0], know.sources(used[0]))
    elif name in ("_weight_norm", "weight_norm_interface", "_weight_norm_interface"):
        direction, length = args[0], args[1]
        axis = args[2] if len(args) > 2 else kwargs.get("dim", 0)
        whole = [replace(one, axes={a: a for a in range(direction.ndim)}) for one in know.sources(direction)]
        # A direction of length zero has none: the length alone goes to zero, and the direction follows it.
        know.follows |= {(one.name, axis) for one in whole}
        know.derive(made[0], [*whole, *(replace(one, axes={axis: axis}) for one in know.sources(length))])
    elif name in MOVES and len(used) == 1 and _only_indices(used[0], tensors_in((args, kwargs))):
        for position, one in enumerate(made):
            sources = [
                _moved_source(source, call, args, kwargs, used[0], one, position) for source in know.sources(used[0])
            ]
            know.derive(one, [source for source in sources if source is not None])
            for source in know.sources(used[0]):
                if source.axes is not None:
                    know.fix(source.name, f"{name} in {owner or 'the model'} rearranges it")
    elif name == "embedding" and len(used) == 1:
        index = next(one for one in tensors_in((args, kwargs)) if one is not used[0])
        found = [replace(one, index=one.flat()[index]) for one in know.sources(used[0]) if one.axes is None]
        know.derive(made[0], found)
    elif name in _ELEMENTWISE and len(made) == 1:
        sources = []
        for tensor in used:
            for source in know.sources(tensor):
                if tensor.shape == made[0].shape:
                    sources.append(source)
                elif source.axes is None:
                    index = source.flat().reshape(tensor.shape) if source.index is None else source.index
                    sources.append(replace(source, index=index.expand(made[0].shape)))
                else:
                    know.fix(source.name, f"{name} in {owner or 'the model'} rearranges it")
        others = [t for t in tensors_in((args, kwargs)) if not know.sources(t) and t.numel() > 1]
        for tensor in others:
            for used_one in used:
                _fix_all(know, used_one, f"{name} in {owner or 'the model'} combines it with a constant of its size")
        know.derive(made[0], sources)
    else:
        for tensor in used:
            _fix_all(know, tensor, f"{name} in {owner or 'the model'} is not understood")


def _only_indices(tensor: torch.Tensor, every: list[torch.Tensor]) -> bool:
    return all(one is tensor or not one.is_floating_point() for one in every)


def _fix_all(know: Knowledge, tensor: torch.Tensor, reason: str) -> None:
    for source in know.sources(tensor):
        know.fix(source.name, reason)


def _moved_source(
    source: Source, call: Any, args: Any, kwargs: Any, tensor: torch.Tensor, made: torch.Tensor, position: int
) -> Source | None:
    if source.axes is not None:
        return None
    flat = source.flat().reshape(tensor.shape)

    def given(one: torch.Tensor) -> torch.Tensor:
        return flat if one is tensor else one

    turned = call(*swap(args, given), **swap(kwargs, given))
    found = turned if isinstance(turned, torch.Tensor) else turned[position]
    if found.shape == tuple(source.shape) and torch.equal(found, source.flat()):
        return Source(source.name, source.shape)
    return Source(source.name, source.shape, found)


# ---------------------------------------------------------------------------------------------------- lifting
def lifted(know: Knowledge, tensor: torch.Tensor, beside: list[Flow], name: str, owner: str, axes: list[int]) -> Flow:
    """A tensor that is not followed as a flow: constant, with the channels of what it was made of.

    ``axes`` are the axes, counted from the end, along which the flows beside it have channels.
    """
    value = squeezed(tensor.detach().to("cpu", torch.float64)) if not tensor.is_complex() else torch.zeros(1)
    label = _stated(know, tensor, value)
    for axis in () if label.numel() > 1 else axes:
        if -axis > tensor.ndim or tensor.shape[axis] == 1:
            continue
        if know.sources(tensor):
            along = know.axis(tensor, axis, f"{know.sources(tensor)[0].name}: one entry for each channel")
            label = along.reshape(-1, *[1] * (-axis - 1))
            label = label.reshape((1,) * (tensor.ndim - label.ndim) + tuple(label.shape))
        elif (
            value.ndim == tensor.ndim
            and value.shape[axis] == 1
            and any(-axis <= one.ndim and one.shape[axis] == tensor.shape[axis] for one in beside)
        ):
            # The same number everywhere: code that makes it from the shape of another tensor makes a smaller one.
            like = next(one for one in beside if -axis <= one.ndim and one.shape[axis] == tensor.shape[axis])
            along = know.channels.tie_along(like.label, axis, like.shape[axis])
            label = along.reshape(-1, *[1] * (-axis - 1))
            label = label.reshape((1,) * (tensor.ndim - label.ndim) + tuple(label.shape))
            made, sizes = know.created.get(id(tensor), (owner, {}))
            know.moves.append(Move(name, made, [], [label], sizes))
    shape = (1,) * (tensor.ndim - value.ndim)
    value = value.reshape(shape + tuple(value.shape))
    return replace(
        Flow.of(tuple(tensor.shape), label, value, torch.zeros((1,) * tensor.ndim, dtype=torch.bool)), real=tensor
    )


def _stated(know: Knowledge, tensor: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
    """Channels along the one axis of a constant whose length is an attribute of a module, which can be changed."""
    label = torch.full((1,) * tensor.ndim, WHOLE)
    owner, sizes = know.created.get(id(tensor), ("", {}))
    open_axes = [
        axis
        for axis, size in sizes.items()
        if isinstance(size, Attribute) and value.ndim == tensor.ndim and value.shape[axis] == 1
    ]
    if len(open_axes) != 1:
        return label
    if id(tensor) not in know.opened:
        along = know.channels.fresh(tensor.shape[open_axes[0]])
        label = along.reshape(-1, *[1] * (tensor.ndim - open_axes[0] - 1))
        label = label.reshape((1,) * (tensor.ndim - label.ndim) + tuple(label.shape))
        know.opened[id(tensor)] = label
        know.moves.append(Move("a constant", owner, [], [label], sizes))
    return know.opened[id(tensor)]


def constant_flow(know: Knowledge, tensor: torch.Tensor, axes: list[int]) -> Flow:
    """A constant as a flow that keeps its size, but for channels of the parameters that it was made of."""
    return lifted(know, tensor, [], "", "", axes)


def _channel_axes(flows: list[Flow]) -> list[int]:
    """Axes along which flows have channels, counted from the end."""
    return sorted({axis - flow.ndim for flow in flows for axis in flow.varied_axes()})


# ------------------------------------------------------------------------------------------------ elementwise
def _elementwise(know: Knowledge, name: str, owner: str, call: Any, args: Any, kwargs: Any, result: Any) -> Any:
    """Operands of the same extent share channels; an operand that is broadcast over channels does not."""
    if not isinstance(result, torch.Tensor):
        return None
    if name == "prelu" and isinstance(args[1], torch.Tensor):
        return _prelu(know, owner, args, result)
    if name in ("view_as_real", "view_as_complex", "polar", "complex"):
        return None
    flows = flows_in((args, kwargs))
    axes = _channel_axes(flows)
    loose = [lifted(know, t, flows, name, owner, axes) for t in tensors_in((args, kwargs)) if t.ndim and t.numel() > 1]
    shape = tuple(result.shape)
    every = [one for one in (*flows, *loose) if one.ndim]
    main = max(every, key=lambda one: (one.label.numel() > 1, one.shape == shape, one.label.numel()), default=flows[0])
    label = padded(main.label, len(shape))
    for one in every:
        if one is not main:
            label = joined(know, label, main, one, shape, name, owner)
    varying = torch.zeros((1,) * len(shape), dtype=torch.bool)
    for flow in flows:
        varying = varying | flow.varying
    if name in ("mul", "multiply"):
        for flow in flows:  # zero times anything is zero
            varying = varying & ~(~flow.varying & (flow.value == 0))
    value = torch.zeros(1, dtype=torch.float64)
    if not bool(varying.all()):
        value = _values(call, args, kwargs, shape)
        varying = varying | ~value.isfinite()
    stochastic = len(flows) == 1 and flows[0].stochastic and name in (*_SAME, "where", "masked_fill") and not loose
    return Flow.of(shape, label, value, varying, stochastic)


def _values(call: Any, args: Any, kwargs: Any, shape: tuple[int, ...]) -> torch.Tensor:
    def number(one: Any) -> Any:
        if isinstance(one, Flow):
            kind = one.real.dtype if one.real is not None else torch.float64
            return one.value.clone() if kind.is_floating_point else one.value.to(kind)
        return squeezed(one.detach().cpu().double() if one.is_floating_point() else one.detach().cpu())

    found = call(*swap(args, number), **swap(kwargs, number))
    return found.double() if not found.is_complex() else torch.full((1,) * len(shape), torch.nan)  # type: ignore[no-any-return]


def _prelu(know: Knowledge, owner: str, args: Any, result: torch.Tensor) -> Flow:
    flow, weight = args[0], args[1]
    label = flow.label
    if weight.numel() > 1:
        labels = know.channels.tie_along(flow.label, 1, flow.shape[1])
        know.channels.tie(labels, know.axis(weight, 0, f"slopes of {owner}: one for each channel"))
    elif know.sources(weight):
        know.fix(know.sources(weight)[0].name, "it is one number for all channels")
    value = flow.value
    if not bool(flow.varying.all()):
        slope = weight.detach().cpu().double()
        slope = slope.reshape(-1, *[1] * (flow.ndim - 2)) if slope.numel() > 1 else slope
        value = torch.where(value > 0, value, value * slope)
    return Flow.of(tuple(result.shape), label, value, flow.varying)


def _dropout(know: Knowledge, name: str, owner: str, call: Any, args: Any, kwargs: Any, result: Any) -> Any:
    flow = args[0] if args and isinstance(args[0], Flow) else flows_in((args, kwargs))[0]
    return replace(flow, real=None)


def _like(know: Knowledge, name: str, owner: str, call: Any, args: Any, kwargs: Any, result: Any) -> Any:
    flow = flows_in((args, kwargs))[0]
    drawn = name.startswith("rand") or name in ("bernoulli", "normal_", "uniform_", "empty_like")
    if drawn:
        return Flow.of(flow.shape, flow.label, torch.zeros(1), torch.ones(1, dtype=torch.bool))
    return Flow.of(flow.shape, flow.label, squeezed(result.detach().cpu().double()), torch.zeros(1, dtype=torch.bool))


# ------------------------------------------------------------------------------------------------------ moves
def _move(know: Knowledge, name: str, owner: str, call: Any, args: Any, kwargs: Any, result: Any) -> Any:
    flows = flows_in((args, kwargs))
    if name in _SAME:
        return replace(flows[0], real=None)
    if name in ("cat", "concat", "concatenate", "stack", "hstack", "vstack", "dstack"):
        return _joined_parts(know, name, owner, call, args, kwargs, result)
    if name == "unfold" and not isinstance(args[0], Flow):
        return None
    if name == "unfold" and args[0].ndim == 4 and len(args) < 4 and "size" not in kwargs:
        return _patches(know, args, kwargs, call, result)  # functional.unfold
    main = args[0] if isinstance(args[0], Flow) else flows[0]
    if main is not args[0] and not isinstance(args[0], Flow):
        return _chosen(know, name, owner, args, kwargs, flows, result)
    index_flows = [flow for flow in flows if flow is not main and not name.endswith("_as")]
    for flow in index_flows:
        know.channels.pin(flow.label, f"{name} in {owner or 'the model'} takes it for an index")

    def part(tensor: torch.Tensor) -> Any:
        def on(one: torch.Tensor) -> Any:
            def given(item: Any) -> Any:
                return one if item is main else _real(item)

            return call(*swap(args, given), **swap(kwargs, given))

        index = swap(args[1:], _real)
        return moved(name, on, tensor, main.shape, result, index, swap(kwargs, _real))

    parts = [part(tensor) for tensor in (main.label, main.value, main.varying)]
    several = not isinstance(parts[0], torch.Tensor)
    results = tensors_in(result)
    outs = []
    for position, one in enumerate(results):
        label, value, varying = (p[position] if several else p for p in parts)
        if index_flows and any(bool(flow.varying.any()) for flow in index_flows) and value.numel() > 1:
            varying = torch.ones(1, dtype=torch.bool)
        outs.append(Flow.of(tuple(one.shape), label, value, varying))
    if main.stochastic and name in ("expand", "repeat_interleave", "repeat", "reshape", "view", "transpose"):
        outs = [replace(o, stochastic=o.shape[-1] == main.shape[-1]) for o in outs]
    sizes = stated_sizes(name, args[1:], kwargs, main.ndim, results)
    if name in ("chunk", "split", "unbind", "tensor_split") and several and len(outs) > 1:
        know.evens.append(Even([o.label for o in outs], f"{name} in {owner or 'the model'} cuts equal parts"))
    if not main.is_whole():
        know.moves.append(Move(name, owner, [main.label], [o.label for o in outs], sizes))
    return tuple(outs) if several else outs[0]


def _chosen(know: Knowledge, name: str, owner: str, args: Any, kwargs: Any, flows: list[Flow], result: Any) -> Any:
    """A constant that is indexed, gathered or moved by something that is followed: a table look-up in code."""
    table = args[0]
    if name in ("getitem", "index_select") and isinstance(table, torch.Tensor) and isinstance(result, torch.Tensor):
        for flow in flows:
            know.channels.pin(flow.label, f"{name} in {owner or 'the model'} takes it for an index")
        trailing = table.shape[-1] == result.shape[-1] and table.ndim > 1 and result.ndim > 1
        if know.sources(table) and trailing and name == "getitem":
            source = know.sources(table)[0]
            labels = know.axis(
                table, table.ndim - 1, f"columns of {source.name}: a table that is looked up", writes=True
            )
            return Flow.of(tuple(result.shape), labels, torch.zeros(1), torch.ones(1, dtype=torch.bool))
        return know.whole(result)
    return None


def _joined_parts(
    know: Knowledge, name: str, owner: str, call: Any, args: Any, kwargs: Any, result: torch.Tensor
) -> Any:
    given = args[0] if args else kwargs.get("tensors")
    if not isinstance(given, list | tuple):
        return None
    given = [one for one in given if not (isinstance(one, torch.Tensor) and one.numel() == 0)]
    flows = flows_in(list(given))
    axis = kwargs.get("dim", kwargs.get("axis", args[1] if len(args) > 1 else 0))
    if name in ("hstack", "vstack", "dstack") or not isinstance(axis, int):
        return None
    axes = _channel_axes(flows)
    along = axis % result.ndim - result.ndim
    shift = 1 if name == "stack" else 0
    wanted = [one for one in axes if one != along or shift]
    every = [one if isinstance(one, Flow) else lifted(know, one, flows, name, owner, wanted) for one in given]
    if shift:
        every = [
            Flow.of(
                (*one.shape[: axis % result.ndim], 1, *one.shape[axis % result.ndim :]),
                *(part.unsqueeze(axis % result.ndim) for part in (one.label, one.value, one.varying)),
            )
            for one in every
        ]
    place = axis % result.ndim
    # Parts whose channels run along other axes share them; single slices alone do not tell where theirs run.
    shared = all(one.label.shape[place] == 1 for one in every) and (shift or any(one.shape[place] > 1 for one in every))
    if shared:
        for one in every[1:]:
            know.channels.tie(every[0].label, one.label)

    def stuck(which: str) -> torch.Tensor:
        parts = [getattr(one, which) for one in every]
        shape = list(torch.broadcast_shapes(*([s for i, s in enumerate(p.shape) if i != place] for p in parts)))  # type: ignore[no-untyped-call]
        whole = [
            p.expand(*shape[:place], one.shape[place], *shape[place:]) for p, one in zip(parts, every, strict=True)
        ]
        return torch.cat(whole, place)

    label = max((one.label for one in every), key=torch.numel) if shared else stuck("label")
    out = Flow.of(tuple(result.shape), label, stuck("value"), stuck("varying"))
    know.moves.append(Move(name, owner, [one.label for one in every], [out.label]))
    return out


def _patches(know: Knowledge, args: Any, kwargs: Any, call: Any, result: torch.Tensor) -> Flow:
    """`functional.unfold`: every channel becomes as many rows as the kernel has places."""
    flow = args[0]
    labels = know.channels.tie_along(flow.label, 1, flow.shape[1])
    times = result.shape[1] // flow.shape[1]
    out = labels.repeat_interleave(times).reshape(1, -1, 1)
    made = Flow.of(tuple(result.shape), out, torch.zeros(1), torch.ones(1, dtype=torch.bool))
    if not bool(flow.varying.all()) and not bool(((flow.value == 0) | flow.varying).all()):
        return made
    still = ~flow.varying.expand(-1, flow.shape[1], -1, -1).flatten(2).any(2).any(0)
    return Flow.of(made.shape, out, torch.zeros(1), ~still.repeat_interleave(times).reshape(1, -1, 1))


_CREATIONS = frozenset(
    ["zeros", "ones", "full", "empty", "new_zeros", "new_ones", "new_full", "new_empty", "rand", "randn"]
)


def stated_sizes(name: str, args: Any, kwargs: Any, ndim: int, results: list[torch.Tensor]) -> dict[int, int]:
    """Axes of the results whose lengths the code states as numbers that are no lengths of tensors, with the numbers."""
    shape = tuple(results[0].shape)
    found: dict[int, int] = {}
    if name in ("view", "reshape", "expand", "broadcast_to") or name in _CREATIONS:
        first = args[0] if len(args) and isinstance(args[0], list | tuple) else args
        given = kwargs.get("size", kwargs.get("shape", first))
        given = [one for one in given if isinstance(one, int)] if isinstance(given, list | tuple) else []
        found = dict(enumerate(given)) if len(given) == len(shape) else {}
    elif name == "unflatten" and len(args) > 1:
        found = {args[0] % ndim + place: size for place, size in enumerate(args[1])}
    elif name in ("split", "split_with_sizes") and len(args):
        axis = kwargs.get("dim", args[1] if len(args) > 1 else 0)
        found = {axis % len(shape): args[0] if isinstance(args[0], int) else shape[axis]}
    elif name == "getitem":
        found = _stated_slices(args[0], shape)
    return {axis: size for axis, size in found.items() if not isinstance(size, Length) and size > 1}


def _stated_slices(index: Any, shape: tuple[int, ...]) -> dict[int, int]:
    parts = list(index) if isinstance(index, tuple) else [index]
    axis, found = 0, {}
    for place, part in enumerate(parts):
        if part is Ellipsis:
            axis = len(shape) - sum(type(one) is not int for one in parts[place + 1 :])
        elif not isinstance(part, int) or isinstance(part, bool):
            if isinstance(part, slice) and part.step in (None, 1) and axis < len(shape):
                ends = [end for end in (part.start, part.stop) if end is not None]
                if ends and not any(isinstance(end, Length) for end in ends):
                    found[axis] = ends[0] if len(ends) == 1 and ends[0] == shape[axis] else shape[axis]
            axis += 1
    return found


def _pad(know: Knowledge, name: str, owner: str, call: Any, args: Any, kwargs: Any, result: torch.Tensor) -> Any:
    flow = args[0]
    given = kwargs.get("pad", args[1] if len(args) > 1 else ())
    ndim, places = flow.ndim, [flow.ndim - 1 - i // 2 for i, p in enumerate(given) if p]
    if any(flow.label.shape[axis] > 1 for axis in places):
        mode = kwargs.get("mode", args[2] if len(args) > 2 else "constant")
        if mode != "constant":
            return None
        know.boxes.append((flow.label, tuple(sorted(set(places))), f"pad in {owner or 'the model'} counts channels"))
        fill = kwargs.get("value", args[3] if len(args) > 3 else None) or 0.0
        label = functional.pad(
            flow.label.expand([s if a in places else flow.label.shape[a] for a, s in enumerate(flow.shape)]),
            tuple(given),
            value=WHOLE,
        )
        varying = functional.pad(flow.full(flow.varying), tuple(given), value=False)
        value = functional.pad(flow.full(flow.value), tuple(given), value=float(fill))
        know.moves.append(Move(name, owner, [flow.label], [label]))
        return Flow.of(tuple(result.shape), label, value, varying)
    if bool(flow.varying.all()) and bool(flow.varying.numel() == 1) and ndim:
        return Flow.of(tuple(result.shape), flow.label, torch.zeros(1), torch.ones(1, dtype=torch.bool))
    mode = kwargs.get("mode", args[2] if len(args) > 2 else "constant")
    number = kwargs.get("value", args[3] if len(args) > 3 else None) or 0.0
    if mode == "constant":
        value = functional.pad(flow.full(flow.value), tuple(given), value=float(number))
        varying = functional.pad(flow.full(flow.varying), tuple(given), value=False)
    else:
        value = functional.pad(flow.full(flow.value), tuple(given), mode=mode)
        varying = functional.pad(flow.full(flow.varying).double(), tuple(given), mode=mode) > 0
    return Flow.of(tuple(result.shape), flow.label, value, varying)


# ------------------------------------------------------------------------------------- reductions and positions
def _pooled(know: Knowledge, name: str, owner: str, call: Any, args: Any, kwargs: Any, result: Any) -> Any:
    """Pooling and interpolation: positions mix, channels (axis 1) do not."""
    flows = flows_in((args, kwargs))
    flow = flows[0]
    if flow.ndim < 3 or any(flow.label.shape[axis] > 1 for axis in range(2, flow.ndim)):
        return None
    for other in flows[1:]:
        know.channels.pin(other.label, f"{name} in {owner or 'the model'} takes it for positions")
    results = tensors_in(result)
    if len(flows) > 1 or (all(size == 1 for size in flow.varying.shape[2:]) and bool(flow.varying.all())):
        outs = [
            Flow.of(tuple(one.shape), flow.label, torch.zeros(1), torch.ones(1, dtype=torch.bool)) for one in results
        ]
        return outs[0] if isinstance(result, torch.Tensor) else tuple(outs)

    def on(tensor: torch.Tensor) -> Any:
        def given(one):
            return tensor if one is flow else _real(one)

        found = call(*swap(args, given), **swap(kwargs, given))
        return found if isinstance(found, torch.Tensor) else found[0]

    value = on(flow.full(flow.value).contiguous())
    varying = on(flow.full(flow.varying).double().contiguous()) > 0
    out = Flow.of(tuple(results[0].shape), flow.label, value, varying)
    if isinstance(result, torch.Tensor):
        return out
    return (
        out,
        *(
            Flow.of(tuple(one.shape), flow.label, torch.zeros(1), torch.ones(1, dtype=torch.bool))
            for one in results[1:]
        ),
    )


def _dims(name: str, flow: Flow, args: Any, kwargs: Any, place: int = 1) -> list[int] | None:
    dim = kwargs.get("dim", kwargs.get("axis", args[place] if len(args) > place else None))
    if dim is None:
        return list(range(flow.ndim))
    if isinstance(dim, int) and not isinstance(dim, bool):
        return [dim % flow.ndim]
    if isinstance(dim, list | tuple) and all(isinstance(one, int) for one in dim):
        return [one % flow.ndim for one in dim] or list(range(flow.ndim))
    return None


def _reduce(know: Knowledge, name: str, owner: str, call: Any, args: Any, kwargs: Any, result: Any) -> Any:
    flows = flows_in((args, kwargs))
    if name in ("max", "min") and len(flows_in(args[:2])) + len(tensors_in(args[:2])) == 2:
        return _elementwise(know, name, owner, call, args, kwargs, result)
    if len(flows) != 1:
        return None
    flow = flows[0]
    place = 2 if name in ("norm", "vector_norm", "linalg_vector_norm") else 1
    dims = _dims(name, flow, args, kwargs, place)
    if dims is None:
        return None
    if any(flow.label.shape[axis] > 1 for axis in dims):
        know.channels.pin(flow.label, f"{name} in {owner or 'the model'} runs over channels")
    label, varying = flow.label, flow.varying
    for axis in dims:
        label, varying = label.narrow(axis, 0, 1), varying.any(axis, keepdim=True)
    results = tensors_in(result)
    keeps = results[0].ndim == flow.ndim
    if not keeps:
        left = [axis for axis in range(flow.ndim) if axis not in dims]
        label, varying = (part.reshape([part.shape[axis] for axis in left]) for part in (label, varying))
    value = torch.zeros(1, dtype=torch.float64)
    if not bool(varying.all()) and len(results) == 1 and results[0].is_floating_point():
        value = call(
            *swap(args, lambda f: f.full(f.value) if isinstance(f, Flow) else f), **kwargs_values(kwargs)
        ).double()
    elif not bool(varying.all()):
        varying = torch.ones(1, dtype=torch.bool)
    outs = [Flow.of(tuple(one.shape), label, value, varying) for one in results]
    return outs[0] if isinstance(result, torch.Tensor) else tuple(outs)


def kwargs_values(kwargs: Any) -> dict[str, Any]:
    """Keyword arguments for a run on values, in float64."""
    given = swap(kwargs, lambda f: f.full(f.value) if isinstance(f, Flow) else f)
    return {key: torch.float64 if key == "dtype" and one is not None else one for key, one in given.items()}


def _along(know: Knowledge, name: str, owner: str, call: Any, args: Any, kwargs: Any, result: Any) -> Any:
    """Functions that work along one axis and keep its length, such as the softmax."""
    flows = flows_in((args, kwargs))
    if len(flows) != 1:
        return None
    flow, results = flows[0], tensors_in(result)
    place = {"topk": 2, "normalize": 2, "kthvalue": 2}.get(name, 1)
    default = {"normalize": 1}.get(name, -1)
    dim = kwargs.get("dim", kwargs.get("axis", args[place] if len(args) > place else default))
    dim = default if not isinstance(dim, int) or isinstance(dim, bool) else dim
    dim %= max(flow.ndim, 1)
    if flow.label.shape[dim] > 1:
        know.channels.pin(flow.label, f"{name} in {owner or 'the model'} runs over channels")
    varying = flow.varying.any(dim, keepdim=True)
    value = torch.zeros(1, dtype=torch.float64)
    if name == "softmax" and not bool(varying.all()):
        value = functional.softmax(flow.full(flow.value), dim)
    elif not bool(varying.all()):
        varying = torch.ones(1, dtype=torch.bool)
    outs = [
        Flow.of(
            tuple(one.shape),
            flow.label if one.shape[dim] == flow.shape[dim] else flow.label.narrow(dim, 0, 1),
            value,
            varying,
        )
        for one in results
    ]
    if name == "softmax":
        return replace(outs[0], stochastic=dim == flow.ndim - 1)
    return outs[0] if isinstance(result, torch.Tensor) else tuple(outs)


def _scatter(know: Knowledge, name: str, owner: str, call: Any, args: Any, kwargs: Any, result: Any) -> Any:
    """Writing at places: what is written shares the channels of what it is written to."""
    here = owner or "the model"
    if not isinstance(result, torch.Tensor):
        return None
    flows = flows_in((args, kwargs))
    axes = _channel_axes(flows)
    target = args[0] if isinstance(args[0], Flow) else lifted(know, args[0], flows, name, owner, axes)
    for index in flows_in(list(args[1:-1])):
        know.channels.pin(index.label, f"{name} in {here} takes it for an index")
    source = args[-1]
    label = target.label
    if isinstance(source, Flow):
        mine = [axis - target.ndim for axis in target.varied_axes()]
        theirs = [axis - source.ndim for axis in source.varied_axes()]
        if mine and theirs and mine == theirs and len(mine) == 1 and source.shape[mine[0]] == target.shape[mine[0]]:
            a = know.channels.tie_along(target.label, mine[0], target.shape[mine[0]])
            know.channels.tie(a, know.channels.tie_along(source.label, theirs[0], source.shape[theirs[0]]))
        elif mine or theirs:
            for flow in (target, source):
                know.channels.pin(flow.label, f"{name} in {here} writes over channels")
    elif target.varied_axes() and name == "setitem":
        index = args[1]
        plain = index if isinstance(index, tuple) else (index,)
        if not all(
            part is None or part is Ellipsis or isinstance(part, slice | int | Flow | torch.Tensor) for part in plain
        ):
            know.channels.pin(target.label, f"{name} in {here} writes over channels")
    return Flow.of(tuple(result.shape), label, torch.zeros(1), torch.ones(1, dtype=torch.bool))


# ---------------------------------------------------------------------------------------------------- weights
def _owner_of(know: Knowledge, weight: Any, owner: str) -> str:
    sources = know.sources(weight) if isinstance(weight, torch.Tensor) else []
    return sources[0].name.rpartition(".")[0] if sources and "." in sources[0].name else owner


def _given(args: Any, kwargs: Any, names: str, defaults: Any = None) -> list[Any]:
    """Arguments by name, as Python binds them."""
    words = names.split()
    found = list(args[: len(words)])
    for place in range(len(found), len(words)):
        found.append(kwargs.get(words[place], (defaults or {}).get(words[place])))
    return found


def _linear(know: Knowledge, name: str, owner: str, call: Any, args: Any, kwargs: Any, result: Any) -> Any:
    flow, weight, bias = _given(args, kwargs, "input weight bias")
    if not isinstance(flow, Flow) or not isinstance(weight, torch.Tensor) or not know.sources(weight):
        return None
    return contract(know, _owner_of(know, weight, owner), weight, bias, flow)


def _addmm(know: Knowledge, name: str, owner: str, call: Any, args: Any, kwargs: Any, result: Any) -> Any:
    bias, flow, weight = _given(args, kwargs, "input mat1 mat2")
    if not isinstance(flow, Flow) or not isinstance(weight, torch.Tensor) or not know.sources(weight):
        return None
    if kwargs.get("beta", 1) != 1 or kwargs.get("alpha", 1) != 1 or not isinstance(bias, torch.Tensor):
        return None
    return contract(know, _owner_of(know, weight, owner), weight, bias, flow, turned=True)


def _matmul(know: Knowledge, name: str, owner: str, call: Any, args: Any, kwargs: Any, result: Any) -> Any:
    first, second = args[:2] if len(args) > 1 else _given(args, kwargs, "input other")
    if name == "rmatmul":
        first, second = second, first
    if isinstance(first, Flow) and isinstance(second, torch.Tensor) and know.sources(second) and second.ndim == 2:
        return contract(know, _owner_of(know, second, owner), second, None, first, turned=True)
    if (
        isinstance(first, torch.Tensor)
        and isinstance(second, Flow)
        and know.sources(first)
        and first.ndim == 2
        and second.ndim == 2
    ):
        turned = Flow.of(second.shape[::-1], *(part.mT for part in (second.label, second.value, second.varying)))
        made = contract(know, _owner_of(know, first, owner), first, None, turned)
        return Flow.of(made.shape[::-1], *(part.mT for part in (made.label, made.value, made.varying)))
    flows = flows_in([first, second])
    axes = _channel_axes(flows)
    pair = []
    for one, other_axis in ((first, -2), (second, -1)):
        if isinstance(one, Flow):
            pair.append(one)
        elif know.sources(one) or one.ndim < 2:
            return None
        else:
            free = [axis for axis in axes if axis < -2]
            pair.append(lifted(know, one, flows, name, owner, free))
            del other_axis
    if pair[0].ndim < 2 or pair[1].ndim < 2:
        return None
    mixed = pair[0].label.shape[-1] > 1 or pair[1].label.shape[-2] > 1
    if mixed and any(one.is_whole() for one in pair):
        return None
    return product(know, owner, pair[0], pair[1])


def _baddbmm(know: Knowledge, name: str, owner: str, call: Any, args: Any, kwargs: Any, result: Any) -> Any:
    added, first, second = _given(args, kwargs, "input batch1 batch2")
    if not isinstance(first, Flow) or not isinstance(second, Flow):
        return None
    made = product(know, owner, first, second)
    if isinstance(added, Flow):
        combined(know, made, added, name, owner)
    return Flow.of(made.shape, made.label, torch.zeros(1), torch.ones(1, dtype=torch.bool))


def _einsum(know: Knowledge, name: str, owner: str, call: Any, args: Any, kwargs: Any, result: Any) -> Any:
    operands = list(args[1]) if len(args) == 2 and isinstance(args[1], list | tuple) else list(args[1:])
    if not isinstance(args[0], str):
        return None
    for one in operands:
        if isinstance(one, torch.Tensor) and not know.sources(one):
            return None
        if isinstance(one, torch.Tensor) and any(source.axes is not None for source in know.sources(one)):
            return None
    return einsum(know, owner, args[0], operands, result)


def _convolution(know: Knowledge, name: str, owner: str, call: Any, args: Any, kwargs: Any, result: Any) -> Any:
    turned = _CONVOLUTIONS[name]
    words = "input weight bias stride padding" + (" output_padding groups dilation" if turned else " dilation groups")
    given = _given(args, kwargs, words, {"stride": 1, "padding": 0, "output_padding": 0, "groups": 1, "dilation": 1})
    flow, weight, bias = given[:3]
    groups = given[6]
    if not isinstance(flow, Flow) or not isinstance(weight, torch.Tensor) or not know.sources(weight):
        return None
    here = _owner_of(know, weight, owner)
    if groups > 1 and not isinstance(know.module(here), nn.modules.conv._ConvNd):
        return None
    padding = given[4]
    numbers = padding if isinstance(padding, list | tuple) else (0 if padding == "valid" else padding,)
    has_border = any(number != 0 for number in numbers)

    def again(x: torch.Tensor, w: torch.Tensor, b: torch.Tensor | None) -> torch.Tensor:
        found: torch.Tensor = call(x, w, b, *given[3:])
        return found

    return convolve(
        know, here, again, weight, bias, flow, tuple(result.shape), groups=groups, turned=turned, padded=has_border
    )


def _batch_norm(know: Knowledge, name: str, owner: str, call: Any, args: Any, kwargs: Any, result: Any) -> Any:
    flow, mean, variance, weight, bias, training, _, eps = _given(
        args,
        kwargs,
        "input running_mean running_var weight bias training momentum eps",
        {"training": False, "eps": 1e-5},
    )
    if not isinstance(flow, Flow) or (mean is not None and not know.sources(mean)):
        return None
    here = _owner_of(know, weight if weight is not None else mean, owner)
    return batch_norm(know, here, flow, mean, variance, weight, bias, eps, bool(training))


def _instance_norm(know: Knowledge, name: str, owner: str, call: Any, args: Any, kwargs: Any, result: Any) -> Any:
    flow, mean, variance, weight, bias, *_, eps = _given(
        args, kwargs, "input running_mean running_var weight bias use_input_stats momentum eps", {"eps": 1e-5}
    )
    return instance_norm(know, _owner_of(know, weight, owner), flow, weight, bias, eps, mean, variance)


def _group_norm(know: Knowledge, name: str, owner: str, call: Any, args: Any, kwargs: Any, result: Any) -> Any:
    flow, groups, weight, bias, eps = _given(args, kwargs, "input num_groups weight bias eps", {"eps": 1e-5})
    here = _owner_of(know, weight, owner)
    if not isinstance(know.module(here), nn.GroupNorm):
        groups = 1
    return group_norm(know, here, flow, groups, weight, bias, eps)


def _layer_norm(know: Knowledge, name: str, owner: str, call: Any, args: Any, kwargs: Any, result: Any) -> Any:
    flow, shape, weight, bias, eps = _given(args, kwargs, "input normalized_shape weight bias eps", {"eps": 1e-5})
    return layer_norm(know, _owner_of(know, weight, owner), flow, len(shape), weight, bias, eps)


def _rms_norm(know: Knowledge, name: str, owner: str, call: Any, args: Any, kwargs: Any, result: Any) -> Any:
    flow, shape, weight, eps = _given(args, kwargs, "input normalized_shape weight eps")
    here = _owner_of(know, weight, owner)
    if len(shape) != 1:
        return _barred(know, f"{here} normalizes over several axes", args, kwargs, result)
    attribute = "eps" if isinstance(know.module(here), nn.RMSNorm) and eps is not None else None
    if eps is None:
        eps = torch.finfo(result.dtype).eps
    return rms_norm(know, here, flow, weight, eps, attribute)


def _embedding(know: Knowledge, name: str, owner: str, call: Any, args: Any, kwargs: Any, result: Any) -> Any:
    # functional.embedding takes the numbers first, the operator below it takes the table first.
    flow, weight = next(
        ((a, b) for a, b in (args[:2], args[1::-1]) if isinstance(a, Flow)), _given(args, kwargs, "input weight")
    )
    if not isinstance(flow, Flow) or not isinstance(weight, torch.Tensor) or not know.sources(weight):
        return None
    here = _owner_of(know, weight, owner)
    rescaled = getattr(know.module(here), "max_norm", None) is not None or kwargs.get("max_norm") is not None
    return look_up(know, here, weight, flow, rescaled=rescaled)


def _embedding_bag(know: Knowledge, name: str, owner: str, call: Any, args: Any, kwargs: Any, result: Any) -> Any:
    flow, weight = _given(args, kwargs, "input weight")
    if not isinstance(flow, Flow) or not isinstance(result, torch.Tensor) or not know.sources(weight):
        return None
    for other in flows_in((args, kwargs)):
        know.channels.pin(other.label, f"{owner} reads whole numbers")
    made = look_up(know, _owner_of(know, weight, owner), weight, flow, rescaled=kwargs.get("max_norm") is not None)
    return Flow.of(tuple(result.shape), made.label.reshape(-1), torch.zeros(1), torch.ones(1, dtype=torch.bool))


def _attention(know: Knowledge, name: str, owner: str, call: Any, args: Any, kwargs: Any, result: Any) -> Any:
    query, key, value = (*args, *(kwargs[k] for k in ("query", "key", "value") if k in kwargs))[:3]
    if not all(isinstance(one, Flow) and one.ndim > 2 for one in (query, key, value)):
        return None
    mask = args[3] if len(args) > 3 else kwargs.get("attn_mask")
    if isinstance(mask, torch.Tensor):
        mask = lifted(know, mask, [], name, owner, list(range(-query.ndim, -2)))
    return attention(know, owner, query, key, value, mask, grouped=bool(kwargs.get("enable_gqa")))


def _heads_of_torch(know: Knowledge, name: str, owner: str, call: Any, args: Any, kwargs: Any, result: Any) -> Any:
    reason = f"{owner}: nn.MultiheadAttention takes its head size from the embedding, so heads cannot go alone"
    return _barred(know, reason, args, kwargs, result)


def _cells(know: Knowledge, name: str, owner: str, call: Any, args: Any, kwargs: Any, result: Any) -> Any:
    return recurrent(know, owner, know.module(owner), args, result)


def _product_of_activations(
    know: Knowledge, name: str, owner: str, call: Any, args: Any, kwargs: Any, result: Any
) -> Any:
    made = _matmul(know, name, owner, call, args, kwargs, result)
    if made is None:
        flows = flows_in((args, kwargs))
        for tensor in tensors_in((args, kwargs)):
            _fix_all(know, tensor, f"a product in {owner or 'the model'} is not understood")
        return unmatched(know, owner, result, *flows)
    return made


def _packed(know: Knowledge, name: str, owner: str, call: Any, args: Any, kwargs: Any, result: Any) -> Any:
    """Packing sequences and laying them out again: rows move, the last axis stays."""
    flow = args[0]
    if not isinstance(flow, Flow) or any(axis != flow.ndim - 1 for axis in flow.varied_axes()):
        return None
    data = result[0]
    made = Flow.of(tuple(data.shape), flow.label.reshape(-1), torch.zeros(1), torch.ones(1, dtype=torch.bool))
    return (made, *(know.whole(one) for one in result[1:]))


_HANDLERS: dict[str, Callable[..., Any]] = {
    "_pack_padded_sequence": _packed,
    "_pad_packed_sequence": _packed,
    "linear": _linear,
    "addmm": _addmm,
    "matmul": _product_of_activations,
    "rmatmul": _product_of_activations,
    "mm": _product_of_activations,
    "bmm": _product_of_activations,
    "baddbmm": _baddbmm,
    "einsum": _einsum,
    "batch_norm": _batch_norm,
    "instance_norm": _instance_norm,
    "group_norm": _group_norm,
    "layer_norm": _layer_norm,
    "rms_norm": _rms_norm,
    "embedding": _embedding,
    "embedding_bag": _embedding_bag,
    "scaled_dot_product_attention": _attention,
    "multi_head_attention_forward": _heads_of_torch,
    "pad": _pad,
    "lstm": _cells,
    "gru": _cells,
    "rnn_tanh": _cells,
    "rnn_relu": _cells,
}
