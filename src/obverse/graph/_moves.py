"""Operations that only move elements, carried out on squeezed tensors: what runs along no channel costs nothing."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch

__all__ = ["moved", "reshaped"]

_RESHAPES = frozenset(
    ["view", "reshape", "flatten", "unflatten", "squeeze", "unsqueeze", "view_as", "reshape_as", "ravel", "squeeze_",
     "unsqueeze_", "_unsafe_view", "atleast_3d", "atleast_2d", "atleast_1d"]
)  # fmt: skip
_TURNS = frozenset(
    ["transpose", "permute", "movedim", "moveaxis", "swapaxes", "swapdims", "t", "T", "mT", "H", "mH", "adjoint",
     "transpose_", "swapaxes_"]
)  # fmt: skip
_EXPANSIONS = frozenset(["expand", "expand_as", "broadcast_to"])
_CUTS = frozenset(["split", "chunk", "narrow", "select", "unbind", "tensor_split", "split_with_sizes", "unsafe_chunk"])

Call = Callable[..., Any]


def moved(
    name: str, call: Call, tensor: torch.Tensor, before: Sequence[int], result: Any, args: Any, kwargs: Any
) -> Any:
    """What an operation makes of one squeezed tensor: squeezed tensors again, as many as the operation gave.

    Parameters
    ----------
    name : str
    call : callable
        The operation on a tensor that takes the place of the moved one.
    tensor : torch.Tensor
        Broadcasts to ``before``.
    before : sequence of int
        Shape of the moved tensor.
    result : Tensor or sequence of Tensors
        What the operation gave, for its shapes.
    args, kwargs
        What the operation was given beside the tensor.
    """
    if tensor.numel() == 1:
        return _like(result, lambda one: tensor.reshape((1,) * one.ndim))
    if isinstance(result, torch.Tensor):
        if name in _RESHAPES:
            return reshaped(tensor, before, result.shape)
        if name in _TURNS:
            return call(tensor)
        if name in _EXPANSIONS:
            return tensor.reshape((1,) * (result.ndim - tensor.ndim) + tuple(tensor.shape))
        if name == "getitem":
            simple = _indexed(tensor, before, args[0])
            if simple is not None:
                return simple
    if name in _CUTS:
        axis = _axis_of(name, args, kwargs)
        if axis is not None:
            axis %= len(before)
            if tensor.shape[axis] == 1:
                dropped = tensor.squeeze(axis) if name in ("select", "unbind") else tensor
                return _like(result, lambda one: dropped)
            return call(tensor)
    return call(tensor.expand(tuple(before)))


def _like(result: Any, make: Callable[[torch.Tensor], torch.Tensor]) -> Any:
    if isinstance(result, torch.Tensor):
        return make(result)
    return tuple(make(one) for one in result)


def _axis_of(name: str, args: Sequence[Any], kwargs: Any) -> int | None:
    if "dim" in kwargs or "axis" in kwargs:
        return int(kwargs.get("dim", kwargs.get("axis")))
    place = {"select": 0, "narrow": 0, "unbind": 0}.get(name, 1)
    given = args[place] if len(args) > place else 0
    return given if isinstance(given, int) else None


def _indexed(tensor: torch.Tensor, before: Sequence[int], index: Any) -> torch.Tensor | None:
    """``tensor[index]`` for whole numbers, slices, None and dots; None where the index holds anything else."""
    parts = list(index) if isinstance(index, tuple) else [index]
    if not all(part is None or part is Ellipsis or type(part) in (int, slice) for part in parts):
        return None
    taken = sum(part is not None and part is not Ellipsis for part in parts)
    dots = [place for place, part in enumerate(parts) if part is Ellipsis]
    gap = [slice(None)] * (len(before) - taken)
    parts = parts[: dots[0]] + gap + parts[dots[0] + 1 :] if dots else parts + gap
    axis = 0
    chosen: list[Any] = []
    for part in parts:
        if part is None:
            chosen.append(None)
            continue
        if tensor.shape[axis] == 1:
            part = 0 if isinstance(part, int) else slice(None)
        chosen.append(part)
        axis += 1
    return tensor[tuple(chosen)]


def reshaped(tensor: torch.Tensor, before: Sequence[int], after: Sequence[int]) -> torch.Tensor:
    """A squeezed tensor of the shape ``before`` under the shape ``after``, which holds as many elements.

    Axes that are merged or split together are expanded together; all others stay squeezed.
    """
    before, after = list(before), list(after)
    parts: list[tuple[list[int], list[int]]] = []
    i = j = 0
    while i < len(before) or j < len(after):
        left = [i] if i < len(before) else []
        right = [j] if j < len(after) else []
        i, j = i + len(left), j + len(right)
        a, b = _size(before, left), _size(after, right)
        while a != b:
            if (a < b and i < len(before)) or j >= len(after):
                left.append(i)
                a *= before[i]
                i += 1
            else:
                right.append(j)
                b *= after[j]
                j += 1
        parts.append((left, right))
    shape: list[int] = []
    expanded: list[int] = []
    for left, right in parts:
        if all(tensor.shape[axis] == 1 for axis in left):
            expanded += [1] * len(left)
            shape += [1] * len(right)
        else:
            expanded += [before[axis] for axis in left]
            shape += [after[axis] for axis in right]
    return tensor.expand(expanded).reshape(shape)


def _size(shape: Sequence[int], axes: Sequence[int]) -> int:
    total = 1
    for axis in axes:
        total *= shape[axis]
    return total
