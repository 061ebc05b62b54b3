"""Functions that read by weights, with their arguments by name: linear maps, convolutions, norms, products."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from ._arguments import barred, bound, channel_axes, fix_all, flows_in, tensors_in
from ._constants import lifted
from ._elementwise import combined
from ._flow import Flow, Knowledge
from ._names import CONVOLUTIONS
from ._norms import batch_norm, group_norm, instance_norm, layer_norm, rms_norm
from ._products import attention, einsum, product, unmatched
from ._recurrent import recurrent
from ._weighted import contract, convolve, look_up

__all__ = [
    "on_addmm",
    "on_attention",
    "on_baddbmm",
    "on_batch_norm",
    "on_cells",
    "on_convolution",
    "on_einsum",
    "on_embedding",
    "on_embedding_bag",
    "on_group_norm",
    "on_heads_of_torch",
    "on_instance_norm",
    "on_layer_norm",
    "on_linear",
    "on_product_of_activations",
    "on_rms_norm",
]


def _owner_of(know: Knowledge, weight: Any, owner: str) -> str:
    sources = know.sources(weight) if isinstance(weight, torch.Tensor) else []
    return sources[0].name.rpartition(".")[0] if sources and "." in sources[0].name else owner


def on_linear(know: Knowledge, name: str, owner: str, call: Any, args: Any, kwargs: Any, result: Any) -> Any:
    flow, weight, bias = bound(args, kwargs, "input weight bias")
    if not isinstance(flow, Flow) or not isinstance(weight, torch.Tensor) or not know.sources(weight):
        return None
    return contract(know, _owner_of(know, weight, owner), weight, bias, flow)


def on_addmm(know: Knowledge, name: str, owner: str, call: Any, args: Any, kwargs: Any, result: Any) -> Any:
    bias, flow, weight = bound(args, kwargs, "input mat1 mat2")
    if not isinstance(flow, Flow) or not isinstance(weight, torch.Tensor) or not know.sources(weight):
        return None
    if kwargs.get("beta", 1) != 1 or kwargs.get("alpha", 1) != 1 or not isinstance(bias, torch.Tensor):
        return None
    return contract(know, _owner_of(know, weight, owner), weight, bias, flow, turned=True)


def _matmul(know: Knowledge, name: str, owner: str, call: Any, args: Any, kwargs: Any, result: Any) -> Any:
    first, second = args[:2] if len(args) > 1 else bound(args, kwargs, "input other")
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
    axes = channel_axes(flows)
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


def on_product_of_activations(
    know: Knowledge, name: str, owner: str, call: Any, args: Any, kwargs: Any, result: Any
) -> Any:
    made = _matmul(know, name, owner, call, args, kwargs, result)
    if made is None:
        flows = flows_in((args, kwargs))
        for tensor in tensors_in((args, kwargs)):
            fix_all(know, tensor, f"a product in {owner or 'the model'} is not understood")
        return unmatched(know, owner, result, *flows)
    return made


def on_baddbmm(know: Knowledge, name: str, owner: str, call: Any, args: Any, kwargs: Any, result: Any) -> Any:
    added, first, second = bound(args, kwargs, "input batch1 batch2")
    if not isinstance(first, Flow) or not isinstance(second, Flow):
        return None
    made = product(know, owner, first, second)
    if isinstance(added, Flow):
        combined(know, made, added, name, owner)
    return Flow.of(made.shape, made.label, torch.zeros(1), torch.ones(1, dtype=torch.bool))


def on_einsum(know: Knowledge, name: str, owner: str, call: Any, args: Any, kwargs: Any, result: Any) -> Any:
    operands = list(args[1]) if len(args) == 2 and isinstance(args[1], list | tuple) else list(args[1:])
    if not isinstance(args[0], str):
        return None
    for one in operands:
        if isinstance(one, torch.Tensor) and not know.sources(one):
            return None
        if isinstance(one, torch.Tensor) and any(source.axes is not None for source in know.sources(one)):
            return None
    return einsum(know, owner, args[0], operands, result)


def on_convolution(know: Knowledge, name: str, owner: str, call: Any, args: Any, kwargs: Any, result: Any) -> Any:
    turned = CONVOLUTIONS[name]
    words = "input weight bias stride padding" + (" output_padding groups dilation" if turned else " dilation groups")
    given = bound(args, kwargs, words, {"stride": 1, "padding": 0, "output_padding": 0, "groups": 1, "dilation": 1})
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


def on_batch_norm(know: Knowledge, name: str, owner: str, call: Any, args: Any, kwargs: Any, result: Any) -> Any:
    flow, mean, variance, weight, bias, training, _, eps = bound(
        args,
        kwargs,
        "input running_mean running_var weight bias training momentum eps",
        {"training": False, "eps": 1e-5},
    )
    if not isinstance(flow, Flow) or (mean is not None and not know.sources(mean)):
        return None
    here = _owner_of(know, weight if weight is not None else mean, owner)
    return batch_norm(know, here, flow, mean, variance, weight, bias, eps, bool(training))


def on_instance_norm(know: Knowledge, name: str, owner: str, call: Any, args: Any, kwargs: Any, result: Any) -> Any:
    flow, mean, variance, weight, bias, *_, eps = bound(
        args, kwargs, "input running_mean running_var weight bias use_input_stats momentum eps", {"eps": 1e-5}
    )
    return instance_norm(know, _owner_of(know, weight, owner), flow, weight, bias, eps, mean, variance)


def on_group_norm(know: Knowledge, name: str, owner: str, call: Any, args: Any, kwargs: Any, result: Any) -> Any:
    flow, groups, weight, bias, eps = bound(args, kwargs, "input num_groups weight bias eps", {"eps": 1e-5})
    here = _owner_of(know, weight, owner)
    if not isinstance(know.module(here), nn.GroupNorm):
        groups = 1
    return group_norm(know, here, flow, groups, weight, bias, eps)


def on_layer_norm(know: Knowledge, name: str, owner: str, call: Any, args: Any, kwargs: Any, result: Any) -> Any:
    flow, shape, weight, bias, eps = bound(args, kwargs, "input normalized_shape weight bias eps", {"eps": 1e-5})
    return layer_norm(know, _owner_of(know, weight, owner), flow, len(shape), weight, bias, eps)


def on_rms_norm(know: Knowledge, name: str, owner: str, call: Any, args: Any, kwargs: Any, result: Any) -> Any:
    flow, shape, weight, eps = bound(args, kwargs, "input normalized_shape weight eps")
    here = _owner_of(know, weight, owner)
    if len(shape) != 1:
        return barred(know, f"{here} normalizes over several axes", args, kwargs, result)
    attribute = "eps" if isinstance(know.module(here), nn.RMSNorm) and eps is not None else None
    if eps is None:
        eps = torch.finfo(result.dtype).eps
    return rms_norm(know, here, flow, weight, eps, attribute)


def on_embedding(know: Knowledge, name: str, owner: str, call: Any, args: Any, kwargs: Any, result: Any) -> Any:
    # functional.embedding takes the numbers first, the operator below it takes the table first.
    flow, weight = next(
        ((a, b) for a, b in (args[:2], args[1::-1]) if isinstance(a, Flow)), bound(args, kwargs, "input weight")
    )
    if not isinstance(flow, Flow) or not isinstance(weight, torch.Tensor) or not know.sources(weight):
        return None
    here = _owner_of(know, weight, owner)
    rescaled = getattr(know.module(here), "max_norm", None) is not None or kwargs.get("max_norm") is not None
    return look_up(know, here, weight, flow, rescaled=rescaled)


def on_embedding_bag(know: Knowledge, name: str, owner: str, call: Any, args: Any, kwargs: Any, result: Any) -> Any:
    flow, weight = bound(args, kwargs, "input weight")
    if not isinstance(flow, Flow) or not isinstance(result, torch.Tensor) or not know.sources(weight):
        return None
    for other in flows_in((args, kwargs)):
        know.channels.pin(other.label, f"{owner} reads whole numbers")
    made = look_up(know, _owner_of(know, weight, owner), weight, flow, rescaled=kwargs.get("max_norm") is not None)
    return Flow.of(tuple(result.shape), made.label.reshape(-1), torch.zeros(1), torch.ones(1, dtype=torch.bool))


def on_attention(know: Knowledge, name: str, owner: str, call: Any, args: Any, kwargs: Any, result: Any) -> Any:
    query, key, value = (*args, *(kwargs[k] for k in ("query", "key", "value") if k in kwargs))[:3]
    if not all(isinstance(one, Flow) and one.ndim > 2 for one in (query, key, value)):
        return None
    mask = args[3] if len(args) > 3 else kwargs.get("attn_mask")
    if isinstance(mask, torch.Tensor):
        mask = lifted(know, mask, [], name, owner, list(range(-query.ndim, -2)))
    return attention(know, owner, query, key, value, mask, grouped=bool(kwargs.get("enable_gqa")))


def on_heads_of_torch(know: Knowledge, name: str, owner: str, call: Any, args: Any, kwargs: Any, result: Any) -> Any:
    reason = f"{owner}: nn.MultiheadAttention takes its head size from the embedding, so heads cannot go alone"
    return barred(know, reason, args, kwargs, result)


def on_cells(know: Knowledge, name: str, owner: str, call: Any, args: Any, kwargs: Any, result: Any) -> Any:
    return recurrent(know, owner, know.module(owner), args, result)
