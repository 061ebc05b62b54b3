"""Elementwise functions: operands of the same extent share channels."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch

from ._arguments import bound, channel_axes, flows_in, swap, tensors_in
from ._constants import lifted
from ._elementwise import joined, padded
from ._flow import Flow, Knowledge, squeezed
from ._names import RANDOM, SAME

__all__ = ["on_dropout", "on_elementwise", "on_like"]


def on_elementwise(know: Knowledge, name: str, owner: str, call: Any, args: Any, kwargs: Any, result: Any) -> Any:
    """Operands of the same extent share channels; an operand that is broadcast over channels does not."""
    if not isinstance(result, torch.Tensor):
        return None
    if name == "prelu" and isinstance(args[1], torch.Tensor):
        return _prelu(know, owner, args, result)
    if name in ("view_as_real", "view_as_complex", "polar", "complex"):
        return None
    flows = flows_in((args, kwargs))
    axes = channel_axes(flows)
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
    stochastic = len(flows) == 1 and flows[0].stochastic and name in SAME and not loose
    return Flow.of(shape, label, value, varying, stochastic=stochastic)


def _values(call: Any, args: Any, kwargs: Any, shape: tuple[int, ...]) -> torch.Tensor:
    def number(one: Any) -> Any:
        if isinstance(one, Flow):
            kind = one.real.dtype if one.real is not None else torch.float64
            return one.value.clone() if kind.is_floating_point else one.value.to(kind)
        return squeezed(one.detach().cpu().double() if one.is_floating_point() else one.detach().cpu())

    found = call(*swap(args, number), **swap(kwargs, number))
    return found.double() if not found.is_complex() else torch.full((1,) * len(shape), torch.nan)


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


def on_dropout(know: Knowledge, name: str, owner: str, call: Any, args: Any, kwargs: Any, result: Any) -> Any:
    """Dropout does nothing in evaluation mode; what code applies in any mode makes every number but zero random."""
    flow, _, training = bound(args, kwargs, "input p training", {"training": True})
    if not isinstance(flow, Flow):
        return None
    if not training:
        return replace(flow, real=None)
    moving = flow.varying | (flow.value != 0) | ("alpha" in name)
    return Flow.of(flow.shape, flow.label, flow.value, moving)


def on_like(know: Knowledge, name: str, owner: str, call: Any, args: Any, kwargs: Any, result: Any) -> Any:
    """New tensors of the shape of another one: constants, or random numbers."""
    flows = flows_in((args, kwargs))
    if len(flows) != 1 or not isinstance(args[0] if args else None, Flow):
        return None
    flow = flows[0]
    if name in RANDOM or name == "empty_like":
        return Flow.of(flow.shape, flow.label, torch.zeros(1), torch.ones(1, dtype=torch.bool))
    return Flow.of(flow.shape, flow.label, squeezed(result.detach().cpu().double()), torch.zeros(1, dtype=torch.bool))
