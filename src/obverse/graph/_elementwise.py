"""Operands of elementwise operations: which of their channels are the same, and which have to stay."""

from __future__ import annotations

import torch

from ._channels import WHOLE
from ._flow import Flow, Knowledge

__all__ = ["combined", "joined", "padded"]


def combined(know: Knowledge, main: Flow, other: Flow, name: str, owner: str) -> torch.Tensor:
    """The channels of ``main`` after an elementwise operation with another operand."""
    return joined(know, main.label, main, other, main.shape, name, owner)


def padded(label: torch.Tensor, ndim: int) -> torch.Tensor:
    return label.reshape((1,) * (ndim - label.ndim) + tuple(label.shape))


def joined(
    know: Knowledge, label: torch.Tensor, main: Flow, other: Flow, shape: tuple[int, ...], name: str, owner: str
) -> torch.Tensor:
    """The channels of a result of two operands, ``label`` those of the first."""
    here = owner or "the model"
    second = padded(other.label, len(shape))
    sizes = (1,) * (len(shape) - other.ndim) + other.shape
    mine = (1,) * (len(shape) - main.ndim) + main.shape
    full = [axis for axis in range(len(shape)) if label.shape[axis] > 1 or second.shape[axis] > 1]
    thin = [axis for axis in full if sizes[axis] == 1 or mine[axis] == 1]
    if not thin and not other.is_whole():
        know.channels.tie(label, second)
        return label
    if other.is_whole():
        # A constant of the code, or what keeps its size: the channels that it runs along must all stay or all go.
        along = tuple(axis for axis in range(len(shape)) if label.shape[axis] > 1 and sizes[axis] > 1)
        if along:
            reason = f"{name} in {here} combines it with something of fixed size"
            if len(along) < sum(size > 1 for size in label.shape):
                know.boxes.append((label, along, reason))
            else:
                know.channels.pin(label, reason)
        return label
    if main.is_whole():
        return label
    # One of them is broadcast over the channels of the other: along those axes it has but one channel, which stays.
    for part, own in ((second, sizes), (label, mine)):
        if any(own[axis] == 1 for axis in thin) and part.numel() == 1 and int(part) != WHOLE:
            know.channels.pin(part, "it is broadcast over the channels of another tensor")
    shared = [axis for axis in full if axis not in thin and label.shape[axis] > 1 and second.shape[axis] > 1]
    if shared:
        know.channels.tie(label, second)
        return label
    if second.numel() > 1 and label.numel() > 1:
        for part in (second, label):
            know.channels.pin(part, f"{name} in {here} makes a table of two kinds of channels")
    return label if label.numel() > 1 else second
