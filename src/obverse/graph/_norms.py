"""Normalization as functions: which channels share statistics, and what becomes of constants."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.nn import functional

from ._channels import WHOLE
from ._flow import Flow, Knowledge, Scaled
from ._weighted import barrier, exact

__all__ = [
    "batch_norm",
    "group_norm",
    "instance_norm",
    "layer_norm",
    "recognized_response_norm",
    "recognized_rms_norm",
    "response_norm",
    "rms_norm",
]


def batch_norm(
    know: Knowledge,
    owner: str,
    flow: Flow,
    mean: torch.Tensor | None,
    variance: torch.Tensor | None,
    weight: torch.Tensor | None,
    bias: torch.Tensor | None,
    eps: float,
    training: bool,
) -> Flow:
    """Batch normalization over axis 1, by running statistics."""
    labels = know.channels.tie_along(flow.label, 1, flow.shape[1])
    if mean is None or variance is None or training:
        return _alone(know, owner, flow, weight, bias, "has no running statistics")
    for tensor, what in ((weight, "scale"), (bias, "shift"), (mean, "running mean"), (variance, "running variance")):
        if tensor is not None:
            know.channels.tie(labels, know.axis(tensor, 0, f"{what} of {owner}: one for each channel"))
    know.kinds.setdefault("normed", []).append(labels)
    tail = (1,) * (flow.ndim - 2)
    varying, value = flow.varying, flow.value
    if weight is not None:
        varying = varying & (weight.detach().cpu() != 0).reshape(1, -1, *tail)
    if not bool(varying.all()):
        centered = value - _wide(mean, tail)
        value = centered / (_wide(variance, tail) + eps).sqrt()
        value = value if weight is None else value * _wide(weight, tail)
        value = value if bias is None else value + _wide(bias, tail)
    label = labels.reshape(1, -1, *tail) if flow.label.shape[1] > 1 else flow.label
    return Flow.of(flow.shape, label, value, varying)


def _wide(tensor: torch.Tensor, tail: tuple[int, ...]) -> torch.Tensor:
    found = exact(tensor)
    assert found is not None
    return found.reshape(1, -1, *tail)


def _alone(
    know: Knowledge, owner: str, flow: Flow, weight: torch.Tensor | None, bias: torch.Tensor | None, why: str
) -> Flow:
    for tensor in (weight, bias):
        for source in () if tensor is None else know.sources(tensor):
            know.fix(source.name, f"{owner} {why}")
    return barrier(know, f"{owner} {why}", flow, like=torch.empty(flow.shape, device="meta"))  # type: ignore[no-any-return]


def instance_norm(
    know: Knowledge,
    owner: str,
    flow: Flow,
    weight: torch.Tensor | None,
    bias: torch.Tensor | None,
    eps: float,
    *rest: Any,
) -> Flow:
    """Instance normalization over the positions of every channel; running statistics are cut with the channels."""
    labels = know.channels.tie_along(flow.label, 1, flow.shape[1])
    for tensor in (weight, bias, *rest):
        if isinstance(tensor, torch.Tensor):
            know.channels.tie(labels, know.axis(tensor, 0, f"numbers of {owner}: one for each channel"))
    tail = (1,) * (flow.ndim - 2)
    varying = flow.varying.flatten(2).any(2).reshape(*flow.varying.shape[:2], *tail)
    if weight is not None:
        varying = varying & (weight.detach().cpu() != 0).reshape(1, -1, *tail)
    value = flow.value
    if not bool(varying.all()):
        value = functional.instance_norm(flow.full(flow.value), None, None, exact(weight), exact(bias), eps=eps)
        if any(isinstance(tensor, torch.Tensor) for tensor in rest):
            varying = torch.ones_like(varying)
    return Flow.of(flow.shape, flow.label, value, varying)


def group_norm(
    know: Knowledge,
    owner: str,
    flow: Flow,
    groups: int,
    weight: torch.Tensor | None,
    bias: torch.Tensor | None,
    eps: float,
) -> Flow:
    """Group normalization over axis 1: a group's channels share their statistics, so whole groups go."""
    count = flow.shape[1]
    labels = know.channels.tie_along(flow.label, 1, count)
    parts = labels.reshape(groups, -1)
    know.channels.tie(parts, parts[:, :1])
    if groups == 1:
        know.channels.pin(labels, f"{owner} takes mean and variance over all of its channels")
    else:
        know.notes.append(f"{owner}: channels go in whole groups of {parts.shape[1]}, as its statistics are shared")
    for tensor, what in ((weight, "scale"), (bias, "shift")):
        if tensor is not None:
            know.channels.tie(labels, know.axis(tensor, 0, f"{what} of {owner}: one for each channel"))
    tail = (1,) * (flow.ndim - 2)
    moving = flow.varying.expand(-1, count, *[-1] * len(tail))
    grouped = moving.reshape(len(moving), groups, -1).any(2)
    varying = grouped.repeat_interleave(count // groups, 1).reshape(len(moving), count, *tail)
    if weight is not None:
        varying = varying & (weight.detach().cpu() != 0).reshape(1, -1, *tail)
    value = flow.value
    if not bool(varying.all()):
        value = functional.group_norm(flow.full(flow.value), groups, exact(weight), exact(bias), eps)
    return Flow.of(flow.shape, flow.label, value, varying)


def layer_norm(
    know: Knowledge,
    owner: str,
    flow: Flow,
    axes: int,
    weight: torch.Tensor | None,
    bias: torch.Tensor | None,
    eps: float,
) -> Flow:
    """Layer normalization over the last ``axes`` axes: it takes its statistics over all channels, so all stay."""
    dims = tuple(range(-axes, 0))
    know.keep_along(flow, dims, f"{owner} takes mean and variance over all of its channels")
    for tensor in (weight, bias):
        for source in () if tensor is None else know.sources(tensor):
            know.fix(source.name, f"{owner} takes mean and variance over all of its channels")
    varying = flow.varying.any(dims, keepdim=True)
    if weight is not None:
        varying = varying & (weight.detach().cpu() != 0)
    value = flow.value
    if not bool(varying.all()):
        value = functional.layer_norm(flow.full(flow.value), flow.shape[-axes:], exact(weight), exact(bias), eps)
    label = torch.full((1,) * flow.ndim, WHOLE)
    if any(axis < flow.ndim - axes for axis in flow.varied_axes()):  # the norm of every head by itself
        label = flow.label
    return Flow.of(flow.shape, label, value, varying)


def rms_norm(
    know: Knowledge,
    owner: str,
    flow: Flow,
    weight: torch.Tensor | None,
    eps: float | None,
    attribute: str | None,
    offset: float = 0.0,
) -> Flow:
    """Root-mean-square normalization over the last axis; channels that are zero can go, with scale and eps rescaled.

    ``attribute`` names the eps of the module, None where it has none that could be changed. The scale is
    ``weight + offset``.
    """
    size = flow.shape[-1]
    if any(axis < flow.ndim - 1 for axis in flow.varied_axes()):
        return _norm_of_heads(know, owner, flow, weight, eps, offset)
    labels = know.channels.tie_along(flow.label, -1, size)
    zero = flow.constant(-1) == 0
    if not know.assume_zeroed:
        know.channels.pin(labels[~zero], f"{owner} takes its root mean square over channels that are not zero")
    varying = flow.varying.any(-1, keepdim=True) & ~zero
    value = torch.zeros(1, dtype=torch.float64)
    if weight is not None:
        know.channels.tie(labels, know.axis(weight, 0, f"scale of {owner}: one for each channel"))
        varying = varying & (weight.detach().cpu() + offset != 0)
    if weight is None or attribute is None or not eps:
        know.channels.pin(labels, f"{owner} has no scale and eps of its own that could make up for fewer channels")
    else:
        know.scaled.append(Scaled(owner, labels, attribute, offset))
    if not bool(varying.all()):
        full = flow.full(flow.value)
        scale = 1.0 if weight is None else exact(weight) + offset  # type: ignore[operator]
        value = full * torch.rsqrt(full.square().mean(-1, keepdim=True) + (eps or 0.0)) * scale
    return Flow.of(flow.shape, flow.label, value, varying)


def _norm_of_heads(
    know: Knowledge, owner: str, flow: Flow, weight: torch.Tensor | None, eps: float | None, offset: float
) -> Flow:
    """A root-mean-square norm of every head by itself: whole heads go, and the scale that they share stays."""
    reason = f"{owner} takes its root mean square over a whole head"
    know.keep_along(flow, [-1], reason)
    for source in () if weight is None else know.sources(weight):
        know.fix(source.name, reason)
    varying = flow.varying.any(-1, keepdim=True)
    value = torch.zeros(1, dtype=torch.float64)
    if not bool(varying.all()):
        full = flow.full(flow.value)
        scale = 1.0 if weight is None else exact(weight) + offset  # type: ignore[operator]
        value = full * torch.rsqrt(full.square().mean(-1, keepdim=True) + (eps or 0.0)) * scale
    return Flow.of(flow.shape, flow.label, value, varying)


def response_norm(know: Knowledge, owner: str, flow: Flow, layer: Any, axis: int) -> Flow:
    """Global response normalization: channels that are zero can go, with scale and eps rescaled."""
    axis %= flow.ndim
    labels = know.channels.tie_along(flow.label, axis, flow.shape[axis])
    zero = (flow.constant(axis) == 0) & (layer.bias.detach().cpu() == 0)
    if not know.assume_zeroed:
        know.channels.pin(labels[~zero], f"{owner} takes the mean of responses over channels that are not zero")
    for tensor, what in ((layer.weight, "scale"), (layer.bias, "shift")):
        know.channels.tie(labels, know.axis(tensor, 0, f"{what} of {owner}: one for each channel"))
    know.scaled.append(Scaled(owner, labels, root=False))
    varying = torch.ones(1, dtype=torch.bool) if know.assume_zeroed else ~zero
    tail = (1,) * (flow.ndim - 1 - axis)
    return Flow.of(flow.shape, flow.label, torch.zeros(1), varying.reshape(-1, *tail))


def recognized_response_norm(module: nn.Module) -> int | None:
    """The axis of the channels, where a module of any class computes ``x + weight * x * n + bias``; else None.

    Here n is the length of a channel over all positions, divided by the mean of these lengths plus eps. The layer is
    recognized by what it computes on random numbers, never by its name.
    """
    names = dict(module.named_parameters())
    eps = vars(module).get("eps")
    if set(names) != {"weight", "bias"} or type(eps) is not float or any(True for _ in module.children()):
        return None
    weight, bias = names["weight"], names["bias"]
    if isinstance(module, nn.modules.batchnorm._NormBase | nn.LayerNorm | nn.GroupNorm) or weight.ndim != 1:
        return None
    count = len(weight)
    draw = torch.Generator().manual_seed(0)
    # Its scale is zero at first, so that other numbers are tried.
    other = weight.detach() + torch.randn(count, generator=draw).to(weight)
    for axis, shape in ((-1, (2, 3, 5, count)), (1, (2, count, 3, 5))):
        x = torch.randn(shape, generator=draw).to(weight)
        wide, tail = x.double(), (1,) * (2 if axis == 1 else 0)
        lengths = wide.norm(dim=(2, 3) if axis == 1 else (1, 2), keepdim=True)
        scale, shift = (one.detach().double().reshape(-1, *tail) for one in (other, bias))
        expected = wide + scale * wide * lengths / (lengths.mean(axis, keepdim=True) + eps) + shift
        try:
            with torch.no_grad():
                found = torch.func.functional_call(module, {"weight": other, "bias": bias}, (x,))
        except Exception:  # it takes something else
            continue
        if isinstance(found, torch.Tensor) and found.shape == x.shape:
            gap = float((found.double() - expected).abs().max())
            if gap <= 1e-4 * (float(expected.abs().max()) + 1e-30):
                return axis
    return None


_EPS = ("eps", "variance_epsilon", "epsilon", "norm_eps")


def recognized_rms_norm(module: nn.Module) -> tuple[str, float] | None:
    """The name of eps and the offset of the scale, where a module of any class computes a root-mean-square norm.

    Model libraries write this layer themselves. It is recognized by what it computes on random numbers,
    ``x / rms(x) * (weight + offset)``, never by its name.
    """
    tensors = [*module.named_parameters(), *module.named_buffers()]
    names = [name for name in _EPS if type(vars(module).get(name)) is float]
    if len(tensors) != 1 or tensors[0][0] != "weight" or tensors[0][1].ndim != 1 or len(names) != 1:
        return None
    if isinstance(module, nn.RMSNorm) or list(module.children()):
        return None
    weight, eps = tensors[0][1], float(vars(module)[names[0]])
    draw = torch.Generator().manual_seed(0)
    x = torch.randn(2, 3, len(weight), generator=draw).to(weight)
    try:
        with torch.no_grad():
            found = module(x)
    except Exception:  # it takes something else
        return None
    normed = x.double() * torch.rsqrt(x.double().square().mean(-1, keepdim=True) + eps)
    for offset in (0.0, 1.0):
        expected = normed * (weight.detach().double() + offset)
        if isinstance(found, torch.Tensor) and found.shape == x.shape:
            scale = float(expected.abs().max()) + 1e-30
            if float((found.double() - expected).abs().max()) <= 1e-2 * scale * (
                1 if weight.dtype.itemsize < 4 else 1e-3
            ):
                return names[0], offset
    return None
