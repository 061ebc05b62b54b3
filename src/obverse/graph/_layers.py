"""What every layer type does to channels: one handler per class, found along the class's ancestors."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.nn import functional

from ._channels import WHOLE
from ._flow import Flow, Knowledge, Read, Scaled

__all__ = ["LAYERS", "contract", "register_layer"]

Handler = Callable[[Knowledge, str, Any, Flow], Flow]
LAYERS: dict[type[nn.Module], Handler] = {}


def register_layer(*kinds: type[nn.Module]) -> Callable[[Handler], Handler]:
    """Make a function the handler of layer classes: ``handler(knowledge, name, layer, flow) -> flow``."""

    def enter(handler: Handler) -> Handler:
        for kind in kinds:
            LAYERS[kind] = handler
        return handler

    return enter


def _exact(tensor: torch.Tensor | None) -> torch.Tensor | None:
    return None if tensor is None else tensor.detach().to("cpu", torch.float64)


def contract(
    know: Knowledge, owner: str, weight: torch.Tensor, bias: torch.Tensor | None, flow: Flow, kind: str = "units"
) -> Flow:
    """A linear layer over the last axis, its weight of shape (out, in)."""
    columns = know.channels.tie_along(flow.label, -1)
    know.channels.tie(columns, know.axis(weight, 1, f"columns of {owner}: what it reads"))
    rows = know.axis(weight, 0, f"rows of {owner}: its units", writes=True)
    exact, shift = _exact(weight), _exact(bias)
    assert exact is not None
    if bias is not None:
        know.channels.tie(rows, know.axis(bias, 0, f"bias of {owner}: one for each unit"))
    varying = functional.linear(flow.varying.double(), (exact != 0).double()) > 0
    value = functional.linear(flow.value, exact, shift)
    settled = torch.zeros(len(rows), dtype=torch.bool)
    know.reads.append(
        Read(
            owner,
            rows,
            columns,
            exact,
            exact != 0,
            flow.constant(-1),
            settled,
            None if bias is None else know.name_of(bias),
            "" if bias is not None else "there is no bias to fold the constant into",
        )
    )
    know.kinds.setdefault(kind, []).append(rows)
    return Flow(rows.expand(varying.shape).contiguous(), value.masked_fill(varying, 0), varying)


@register_layer(nn.Linear)
def _linear(know: Knowledge, name: str, layer: nn.Linear, flow: Flow) -> Flow:
    return contract(know, name, layer.weight, layer.bias, flow)


@register_layer(nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)
def _convolution(know: Knowledge, name: str, layer: Any, flow: Flow) -> Flow:
    if flow.label.ndim != layer.weight.ndim:
        return barrier(know, name, f"{name} reads an input without a batch axis", flow)
    groups, turned = layer.groups, isinstance(layer, nn.modules.conv._ConvTransposeNd)
    columns = know.channels.tie_along(flow.label, 1)
    rows = know.channels.fresh(layer.out_channels)
    depthwise = groups == layer.in_channels and groups == layer.out_channels and groups > 1
    out_axis, in_axis = (1, 0) if turned else (0, 1)
    if groups == 1:
        own = know.axis(layer.weight, out_axis, f"filters of {name}: its output channels", writes=True)
        know.channels.tie(rows, own)
        know.channels.tie(columns, know.axis(layer.weight, in_axis, f"input channels of {name}: what it reads"))
    elif depthwise:
        know.channels.tie(rows, columns)
        own = know.axis(layer.weight, 0, f"filters of {name}: depthwise, one for each channel", writes=True)
        know.channels.tie(rows, own)
    else:
        # Whole groups go, with what they read: removing part of a group would need the same number in every group.
        for labels in (rows, columns):
            parts = labels.reshape(groups, -1)
            know.channels.tie(parts, parts[:, :1])
        know.channels.tie(rows.reshape(groups, -1)[:, :1], columns.reshape(groups, -1)[:, :1])
        whole = rows if not turned else columns
        own = know.axis(layer.weight, 0, f"filters of {name}: whole groups go together", writes=True)
        know.channels.tie(whole, own)
    weight, bias = _exact(layer.weight), _exact(layer.bias)
    assert weight is not None
    if layer.bias is not None:
        know.channels.tie(rows, know.axis(layer.bias, 0, f"bias of {name}: one for each filter"))
    run = _runner(layer)
    varying = run(flow.varying.double(), (weight != 0).double(), None) > 0
    value = run(flow.value, weight, bias)
    settled = torch.zeros(len(rows), dtype=torch.bool)
    if not depthwise:
        spread = _dense(layer, weight)
        padded = any(
            p != 0
            for p in (layer.padding if isinstance(layer.padding, tuple) else (0 if layer.padding == "valid" else 1,))
        )
        why = "" if layer.bias is not None else "there is no bias to fold the constant into"
        if turned or (padded and layer.padding_mode == "zeros"):
            why = "zero padding makes a constant differ at the border"
        know.reads.append(
            Read(
                name,
                rows,
                columns,
                spread.flatten(2).sum(2),
                (spread != 0).flatten(2).any(2),
                flow.constant(1),
                settled,
                None if layer.bias is None else know.name_of(layer.bias),
                why,
            )
        )
    know.kinds.setdefault("filters", []).append(rows)
    shape = (1, -1) + (1,) * (varying.ndim - 2)
    return Flow(rows.reshape(shape).expand(varying.shape).contiguous(), value.masked_fill(varying, 0), varying)


def _runner(layer: Any) -> Callable[[torch.Tensor, torch.Tensor, torch.Tensor | None], torch.Tensor]:
    """The layer's own convolution, in float64, with other weights."""
    if isinstance(layer, nn.modules.conv._ConvTransposeNd):
        dims = layer.weight.ndim - 2
        call = getattr(functional, f"conv_transpose{dims}d")
        return lambda x, w, b: call(
            x, w, b, layer.stride, layer.padding, layer.output_padding, layer.groups, layer.dilation
        )
    return lambda x, w, b: layer._conv_forward(x, w, b)


def _dense(layer: Any, weight: torch.Tensor) -> torch.Tensor:
    """The weight of a grouped convolution with zeros between groups, (out, in, *kernel)."""
    groups = layer.groups
    if isinstance(layer, nn.modules.conv._ConvTransposeNd):
        parts = [part.transpose(0, 1) for part in weight.chunk(groups, 0)]
    else:
        parts = list(weight.chunk(groups, 0))
    full = weight.new_zeros(layer.out_channels, layer.in_channels, *weight.shape[2:])
    height, width = layer.out_channels // groups, layer.in_channels // groups
    for index, part in enumerate(parts):
        full[index * height : (index + 1) * height, index * width : (index + 1) * width] = part
    return full


@register_layer(nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.InstanceNorm1d, nn.InstanceNorm2d, nn.InstanceNorm3d)
def _per_channel_norm(know: Knowledge, name: str, layer: Any, flow: Flow) -> Flow:
    axis = 1
    labels = know.channels.tie_along(flow.label, axis)
    batch = isinstance(layer, nn.modules.batchnorm._BatchNorm)
    if batch and layer.running_mean is None:
        return barrier(know, name, f"{name} has no running statistics", flow)
    for tensor, what in (
        (layer.weight, "scale"),
        (layer.bias, "shift"),
        (layer.running_mean, "running mean"),
        (layer.running_var, "running variance"),
    ):
        if tensor is not None:
            know.channels.tie(labels, know.axis(tensor, 0, f"{what} of {name}: one for each channel"))
    varying = flow.varying
    if not batch:  # the statistics of a channel are taken over its positions
        varying = varying.flatten(2).any(2).reshape(*varying.shape[:2], *[1] * (varying.ndim - 2)).expand(varying.shape)
    weight = _exact(layer.weight)
    if weight is not None:
        varying = varying & (weight != 0).reshape(1, -1, *[1] * (varying.ndim - 2))
    if batch:
        value = functional.batch_norm(
            flow.value,
            _exact(layer.running_mean),
            _exact(layer.running_var),
            weight,
            _exact(layer.bias),
            False,
            0.0,
            layer.eps,
        )
    else:
        value = functional.instance_norm(flow.value, None, None, weight, _exact(layer.bias), eps=layer.eps)
    know.kinds.setdefault("normed", []).append(labels)
    return Flow(flow.label, value.masked_fill(varying, 0), varying.contiguous())


@register_layer(nn.GroupNorm)
def _group_norm(know: Knowledge, name: str, layer: nn.GroupNorm, flow: Flow) -> Flow:
    labels = know.channels.tie_along(flow.label, 1)
    parts = labels.reshape(layer.num_groups, -1)
    know.channels.tie(parts, parts[:, :1])
    know.notes.append(f"{name}: channels go in whole groups of {parts.shape[1]}, as its statistics are shared")
    batch, count = flow.varying.shape[:2]
    grouped = flow.varying.reshape(batch, layer.num_groups, -1).any(2, keepdim=True)
    varying = grouped.repeat_interleave(count // layer.num_groups, 1).expand(batch, count, -1)
    varying = varying.reshape(batch, count, *[1] * (flow.varying.ndim - 2)).expand(flow.varying.shape)
    weight = _exact(layer.weight)
    if layer.weight is not None:
        know.channels.tie(labels, know.axis(layer.weight, 0, f"scale of {name}: one for each channel"))
        know.channels.tie(labels, know.axis(layer.bias, 0, f"shift of {name}: one for each channel"))
        assert weight is not None
        varying = varying & (weight != 0).reshape(1, -1, *[1] * (varying.ndim - 2))
    value = functional.group_norm(flow.value, layer.num_groups, weight, _exact(layer.bias), layer.eps)
    return Flow(flow.label, value.masked_fill(varying, 0), varying.contiguous())


@register_layer(nn.LayerNorm)
def _layer_norm(know: Knowledge, name: str, layer: nn.LayerNorm, flow: Flow) -> Flow:
    know.channels.pin(flow.label, f"{name} takes mean and variance over all of its channels")
    dims = tuple(range(-len(layer.normalized_shape), 0))
    varying = flow.varying.any(dims, keepdim=True).expand(flow.varying.shape)
    weight = _exact(layer.weight)
    if weight is not None:
        varying = varying & (weight != 0)
    value = functional.layer_norm(flow.value, layer.normalized_shape, weight, _exact(layer.bias), layer.eps)
    return Flow(torch.full_like(flow.label, WHOLE), value.masked_fill(varying, 0), varying.contiguous())


@register_layer(nn.RMSNorm)
def _rms_norm(know: Knowledge, name: str, layer: nn.RMSNorm, flow: Flow) -> Flow:
    if len(layer.normalized_shape) != 1:
        return barrier(know, name, f"{name} normalizes over several axes", flow)
    labels = know.channels.tie_along(flow.label, -1)
    zero = flow.constant(-1) == 0
    if not know.assume_zeroed:
        know.channels.pin(labels[~zero], f"{name} takes its root mean square over channels that are not zero")
    weight = _exact(layer.weight)
    varying = flow.varying.any(-1, keepdim=True) & ~zero
    if weight is not None:
        know.channels.tie(labels, know.axis(layer.weight, 0, f"scale of {name}: one for each channel"))
        varying = varying & (weight != 0)
        know.scaled.append(Scaled(name, labels))
    if layer.weight is None or layer.eps is None:
        know.channels.pin(labels, f"{name} has no scale and eps of its own that could make up for fewer channels")
    value = functional.rms_norm(flow.value, layer.normalized_shape, weight, layer.eps)
    return Flow(flow.label, value.masked_fill(varying, 0), varying)


@register_layer(nn.Embedding)
def _embedding(know: Knowledge, name: str, layer: nn.Embedding, flow: Flow) -> Flow:
    know.channels.pin(flow.label, f"{name} reads whole numbers")
    labels = know.axis(layer.weight, 1, f"dimensions of {name}", writes=True)
    know.channels.pin(know.axis(layer.weight, 0, f"rows of {name}: the vocabulary"), f"the vocabulary of {name}")
    if layer.max_norm is not None:
        know.channels.pin(labels, f"{name} rescales its vectors (max_norm)")
    weight = _exact(layer.weight)
    assert weight is not None
    shape = (*flow.label.shape, layer.embedding_dim)
    moving = (weight != weight[:1]).any(0)
    value = torch.where(moving, 0.0, weight[0]).expand(shape).contiguous()
    know.kinds.setdefault("embedding", []).append(labels)
    return Flow(labels.expand(shape).contiguous(), value, moving.expand(shape).contiguous())


def barrier(know: Knowledge, name: str, reason: str, *flows: Flow) -> Flow:
    """Keep what a layer reads whole and know nothing of what it writes, in the shape of its first input."""
    for flow in flows:
        know.channels.pin(flow.label, reason)
    know.notes.append(f"{reason}: what it reads and writes keeps its size")
    return know.whole(flows[0].label)
