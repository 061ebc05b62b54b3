"""Functions over positions or along one axis: pooling, sums, maxima, the softmax."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch.nn import functional

from ._arguments import flows_in, kwargs_values, real_of, reduced_axes, swap, tensors_in
from ._flow import Flow, Knowledge
from ._pointwise import on_elementwise

__all__ = ["on_along", "on_pooled", "on_reduce"]


def on_pooled(know: Knowledge, name: str, owner: str, call: Any, args: Any, kwargs: Any, result: Any) -> Any:
    """Pooling and interpolation: positions mix, channels (axis 1) do not."""
    flows = flows_in((args, kwargs))
    flow = flows[0]
    spatial = next((int(one) for one in name if one.isdigit()), flow.ndim - 2)
    first = flow.ndim - spatial
    if first < 1 or any(flow.label.shape[axis] > 1 for axis in range(first, flow.ndim)):
        return None
    for other in flows[1:]:
        know.channels.pin(other.label, f"{name} in {owner or 'the model'} takes it for positions")
    results = tensors_in(result)
    if len(flows) > 1 or (all(size == 1 for size in flow.varying.shape[first:]) and bool(flow.varying.all())):
        outs = [
            Flow.of(tuple(one.shape), flow.label, torch.zeros(1), torch.ones(1, dtype=torch.bool)) for one in results
        ]
        return outs[0] if isinstance(result, torch.Tensor) else tuple(outs)

    def on(tensor: torch.Tensor) -> Any:
        def given(one: Any) -> Any:
            return tensor if one is flow else real_of(one)

        found = call(*swap(args, given), **swap(kwargs, given))
        return found if isinstance(found, torch.Tensor) else found[0]

    value = on(flow.full(flow.value).contiguous())
    # A position that varies may reach any other.
    positions = tuple(range(first, flow.ndim))
    varying = flow.varying.amax(positions, keepdim=True)
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


def on_reduce(know: Knowledge, name: str, owner: str, call: Any, args: Any, kwargs: Any, result: Any) -> Any:
    flows = flows_in((args, kwargs))
    if name in ("max", "min") and len(flows_in(args[:2])) + len(tensors_in(args[:2])) == 2:
        return on_elementwise(know, name, owner, call, args, kwargs, result)
    if len(flows) != 1:
        return None
    flow = flows[0]
    place = 2 if name in ("norm", "vector_norm", "linalg_vector_norm") else 1
    dims = reduced_axes(name, flow, args, kwargs, place)
    if dims is None:
        return None
    know.keep_along(flow, dims, f"{name} in {owner or 'the model'} runs over channels")
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


def on_along(know: Knowledge, name: str, owner: str, call: Any, args: Any, kwargs: Any, result: Any) -> Any:
    """Functions that work along one axis and keep its length, such as the softmax."""
    flows = flows_in((args, kwargs))
    if len(flows) != 1:
        return None
    flow, results = flows[0], tensors_in(result)
    place = {"topk": 2, "normalize": 2, "kthvalue": 2}.get(name, 1)
    default = {"normalize": 1}.get(name, -1)
    if name in ("softmax", "log_softmax", "softmin"):
        default = 0 if flow.ndim in (0, 1, 3) else 1  # what torch takes where no axis is given
    dim = kwargs.get("dim", kwargs.get("axis", args[place] if len(args) > place else default))
    dim = default if not isinstance(dim, int) or isinstance(dim, bool) else dim
    dim %= max(flow.ndim, 1)
    know.keep_along(flow, [dim], f"{name} in {owner or 'the model'} runs over channels")
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
