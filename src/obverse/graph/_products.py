"""Products of activations: scores of attention heads and the averages that they weigh."""

from __future__ import annotations

from typing import Any

import torch

from ._flow import Flow, Knowledge
from ._layers import barrier

__all__ = ["attention", "product"]


def product(know: Knowledge, owner: str, first: Flow, second: Flow) -> Flow:
    if first.label.ndim < 3 or second.label.ndim < 3:
        return _barrier(know, owner, first, second)
    channels = know.channels
    inner = first.label.shape[-1]
    left, right = first.label.transpose(-1, -2), second.label  # (..., inner, rows) and (..., inner, columns)
    shape = (
        *torch.broadcast_shapes(first.label.shape[:-2], second.label.shape[:-2]),  # type: ignore[no-untyped-call]
        first.label.shape[-2],
        second.label.shape[-1],
    )
    varied = bool((right != right[..., :1, :]).any()) or bool((left != left[..., :1, :]).any())
    if varied:  # scores: one channel for each head, tied to all dimensions of the head
        lead = shape[:-2]
        a = left.expand(*lead, inner, left.shape[-1])
        b = right.expand(*lead, inner, right.shape[-1])
        know.boxes.append((a, (-1, -2), f"the dimension of a head in {owner} sets the scale of its scores"))
        know.boxes.append((b, (-1, -2), f"the dimension of a head in {owner} sets the scale of its scores"))
        head = a[..., :1, :1]
        channels.tie(a, head)
        channels.tie(b, head)
        label = head.expand(shape)
    else:
        b = right[..., :1, :].expand(shape)
        if bool((right != right[(slice(None),) * (right.ndim - 3) + (slice(0, 1),)]).any()):
            know.boxes.append((right, (-1,), f"all heads in {owner} have the same dimension"))
        a = left[..., :1, :].transpose(-1, -2).expand(shape)
        channels.tie(a, b)
        label = b
    value = first.value @ second.value
    live = (first.varying | (first.value != 0)).double() @ second.varying.double()
    live = live + first.varying.double() @ (second.varying | (second.value != 0)).double()
    varying = live > 0
    if first.stochastic:  # an average of equal values is that value
        level = second.value[..., :1, :]
        same = (~second.varying & (second.value == level)).all(-2, keepdim=True)
        varying = varying & ~same
        value = torch.where(same, level, value)
    return Flow(label.contiguous(), value.masked_fill(varying, 0), varying.expand(shape).contiguous())


def _barrier(know: Knowledge, owner: str, first: Flow, second: Flow) -> Flow:
    like = first.label.double() @ second.label.double()
    for flow in (first, second):
        barrier(know, owner, f"a product of activations in {owner or 'the model'} is not understood", flow)
    return know.whole(like)


def attention(know: Knowledge, owner: str, args: Any, kwargs: Any) -> Flow:
    query, key, value = (*args, *(kwargs[k] for k in ("query", "key", "value") if k in kwargs))[:3]
    if kwargs.get("enable_gqa"):
        times = query.label.shape[-3] // key.label.shape[-3]
        key, value = (
            Flow(*(getattr(flow, part).repeat_interleave(times, -3) for part in ("label", "value", "varying")))
            for flow in (key, value)
        )
    turned = Flow(key.label.mT, key.value.mT, key.varying.mT)
    scores = product(know, owner, query, turned)
    # The values of the scores do not matter: whatever they are, their rows sum to one.
    rows = Flow(scores.label, torch.zeros_like(scores.value), torch.ones_like(scores.varying), True)
    return product(know, owner, rows, value)
