"""Layers with weights, as functions: linear maps, convolutions and embeddings, and what they do to channels."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch.nn import functional

from ._flow import Flow, Knowledge, Read

__all__ = ["barrier", "contract", "convolve", "exact", "look_up"]


def exact(tensor: torch.Tensor | None) -> torch.Tensor | None:
    """The numbers of a weight in float64 on the host."""
    return None if tensor is None else tensor.detach().to("cpu", torch.float64)


def barrier(know: Knowledge, reason: str, *flows: Flow, like: Any = None) -> Any:
    """Keep whole what an operation reads and writes, and note why.

    Returns flows of which nothing is known, nested as ``like`` is.
    """
    for flow in flows:
        know.channels.pin(flow.label, reason)
    if any(not flow.is_whole() for flow in flows):
        know.notes.append(f"{reason}: what it reads and writes keeps its size")
    return unknown(know, like)


def unknown(know: Knowledge, like: Any) -> Any:
    """Flows of which nothing is known in the shape of an observed result."""
    if isinstance(like, torch.Tensor):
        return know.whole(like)
    if isinstance(like, list | tuple):
        return tuple(unknown(know, one) for one in like)
    return like


def contract(
    know: Knowledge,
    owner: str,
    weight: torch.Tensor,
    bias: torch.Tensor | None,
    flow: Flow,
    kind: str = "units",
    turned: bool = False,
) -> Flow:
    """A linear layer over the last axis, its weight of shape (out, in), or (in, out) where it is ``turned``."""
    into, out = (0, 1) if turned else (1, 0)
    if flow.label.numel() > 1 and flow.label.shape[-1] == 1:
        return _over_positions(know, owner, weight, bias, flow, turned)
    columns = know.channels.tie_along(flow.label, -1, flow.shape[-1])
    know.channels.tie(columns, know.axis(weight, into, f"columns of {owner}: what it reads"))
    rows = know.axis(weight, out, f"rows of {owner}: its units", writes=True)
    if bias is not None and bias.ndim:
        know.channels.tie(rows, know.axis(bias, -1, f"bias of {owner}: one for each unit"))
    know.kinds.setdefault(kind, []).append(rows)
    shape = (*flow.shape[:-1], weight.shape[out])
    if know.assume_zeroed:
        return Flow.of(shape, rows, torch.zeros(1), torch.ones(1, dtype=torch.bool))
    matrix = weight.detach().cpu()
    matrix = matrix.T if turned else matrix
    nonzero = matrix != 0
    moving = flow.varying.expand(*flow.varying.shape[:-1], flow.shape[-1])
    varying = nonzero.any(1) if bool(moving.all()) else functional.linear(moving.double(), nonzero.double()) > 0
    value = torch.zeros(1, dtype=torch.float64)
    if not bool(varying.all()):
        value = functional.linear(
            flow.value.expand(*flow.value.shape[:-1], flow.shape[-1]), matrix.double(), exact(bias)
        )
    know.reads.append(
        Read(
            owner,
            rows,
            columns,
            matrix,
            nonzero,
            flow.constant(-1),
            torch.zeros(len(rows), dtype=torch.bool),
            None if bias is None else know.name_of(bias),
            "" if bias is not None and know.name_of(bias) else "there is no bias to fold the constant into",
        )
    )
    return Flow.of(shape, rows, value, varying)


def _over_positions(
    know: Knowledge, owner: str, weight: torch.Tensor, bias: torch.Tensor | None, flow: Flow, turned: bool
) -> Flow:
    """A linear layer whose input has its channels along another axis: it mixes positions, each channel alone."""
    for tensor in (weight, bias):
        for source in () if tensor is None else know.sources(tensor):
            know.fix(source.name, f"{owner} mixes positions, of which there are equally many")
    matrix = weight.detach().cpu().double()
    matrix = matrix.T if turned else matrix
    varying = flow.varying.any(-1, keepdim=True)
    value = torch.zeros(1, dtype=torch.float64)
    if not know.assume_zeroed and not bool(varying.all()):
        value = functional.linear(flow.value.expand(*flow.value.shape[:-1], flow.shape[-1]), matrix, exact(bias))
    elif know.assume_zeroed:
        varying = torch.ones(1, dtype=torch.bool)
    return Flow.of((*flow.shape[:-1], matrix.shape[0]), flow.label, value, varying)


def convolve(
    know: Knowledge,
    owner: str,
    call: Callable[..., torch.Tensor],
    weight: torch.Tensor,
    bias: torch.Tensor | None,
    flow: Flow,
    out_shape: Sequence[int],
    *,
    groups: int = 1,
    turned: bool = False,
    padded: bool = True,
) -> Flow:
    """A convolution, or a transposed one where it is ``turned``.

    ``call(input, weight, bias)`` is the same convolution of other numbers; ``padded`` says whether zeros are put around
    the input.
    """
    if flow.ndim != weight.ndim:
        reason = f"{owner} reads an input without a batch axis"
        for tensor in (weight, bias):
            for source in () if tensor is None else know.sources(tensor):
                know.fix(source.name, reason)
        return barrier(know, reason, flow, like=torch.empty(out_shape))  # type: ignore[no-any-return]
    inside, outside = flow.shape[1], out_shape[1]
    columns = know.channels.tie_along(flow.label, 1, inside)
    depthwise = groups == inside and groups == outside and groups > 1
    rows = know.channels.fresh(outside)
    out_axis, in_axis = (1, 0) if turned else (0, 1)
    if groups == 1:
        own = know.axis(weight, out_axis, f"filters of {owner}: its output channels", writes=True)
        know.channels.tie(rows, own)
        know.channels.tie(columns, know.axis(weight, in_axis, f"input channels of {owner}: what it reads"))
    elif depthwise:
        know.channels.tie(rows, columns)
        own = know.axis(weight, 0, f"filters of {owner}: depthwise, one for each channel", writes=True)
        know.channels.tie(rows, own)
    else:
        # Whole groups go, with what they read: removing part of a group would need the same number in every group.
        for labels in (rows, columns):
            parts = labels.reshape(groups, -1)
            know.channels.tie(parts, parts[:, :1])
        know.channels.tie(rows.reshape(groups, -1)[:, :1], columns.reshape(groups, -1)[:, :1])
        own = know.axis(weight, 0, f"filters of {owner}: whole groups go together", writes=True)
        know.channels.tie(columns if turned else rows, own)
    if bias is not None:
        know.channels.tie(rows, know.axis(bias, 0, f"bias of {owner}: one for each filter"))
    know.kinds.setdefault("filters", []).append(rows)
    tail = (1,) * (len(out_shape) - 2)
    label = rows.reshape(1, -1, *tail)
    if know.assume_zeroed:
        return Flow.of(out_shape, label, torch.zeros(1), torch.ones(1, dtype=torch.bool))
    spread = _dense(weight.detach().cpu(), groups, inside, outside, turned)
    nonzero = (spread != 0).flatten(2).any(2)
    moving = flow.varying.expand(-1, inside, *[-1] * len(tail))
    if all(size == 1 for size in moving.shape[2:]):
        hit = functional.linear(moving.flatten(1).double(), nonzero.double()) > 0
        varying = hit.reshape(len(moving), -1, *tail)
    else:
        numbers = (weight.detach().cpu() != 0).double()
        varying = call(moving.expand(flow.shape).double(), numbers, None) > 0
    value = torch.zeros(1, dtype=torch.float64)
    if not bool(varying.all()):
        value = call(
            flow.full(flow.value)[:1] if flow.value.shape[0] == 1 else flow.full(flow.value), exact(weight), exact(bias)
        )
    if not depthwise:
        why = "" if bias is not None and know.name_of(bias) else "there is no bias to fold the constant into"
        if turned or padded:
            why = "zero padding makes a constant differ at the border"
        know.reads.append(
            Read(
                owner,
                rows,
                columns,
                spread.flatten(2).double().sum(2),
                nonzero,
                flow.constant(1),
                torch.zeros(len(rows), dtype=torch.bool),
                None if bias is None else know.name_of(bias),
                why,
            )
        )
    return Flow.of(out_shape, label, value, varying)


def _dense(weight: torch.Tensor, groups: int, inside: int, outside: int, turned: bool) -> torch.Tensor:
    """The weight of a grouped convolution with zeros between groups, (out, in, *kernel)."""
    if groups == 1:
        return weight.transpose(0, 1) if turned else weight
    parts = [part.transpose(0, 1) for part in weight.chunk(groups, 0)] if turned else list(weight.chunk(groups, 0))
    full = weight.new_zeros(outside, inside, *weight.shape[2:])
    height, width = outside // groups, inside // groups
    for index, part in enumerate(parts):
        full[index * height : (index + 1) * height, index * width : (index + 1) * width] = part
    return full


def look_up(know: Knowledge, owner: str, weight: torch.Tensor, flow: Flow, *, rescaled: bool = False) -> Flow:
    """An embedding: rows of a table, chosen by whole numbers."""
    know.channels.pin(flow.label, f"{owner} reads whole numbers")
    labels = know.axis(weight, 1, f"dimensions of {owner}", writes=True)
    know.channels.pin(know.axis(weight, 0, f"rows of {owner}: the vocabulary"), f"the vocabulary of {owner}")
    if rescaled:
        know.channels.pin(labels, f"{owner} rescales its vectors (max_norm)")
    know.kinds.setdefault("embedding", []).append(labels)
    shape = (*flow.shape, weight.shape[1])
    numbers = weight.detach().cpu()
    if know.assume_zeroed:
        return Flow.of(shape, labels, torch.zeros(1), torch.ones(1, dtype=torch.bool))
    if flow.real is not None and not bool(flow.varying.any()):
        looked_up = numbers.double()[flow.real.cpu()]
        return Flow.of(shape, labels, looked_up, torch.zeros(1, dtype=torch.bool))
    moving = (numbers != numbers[:1]).any(0)
    return Flow.of(shape, labels, torch.where(moving, 0.0, numbers[0].double()), moving)
