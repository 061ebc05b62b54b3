"""Parameters that are sharded over processes (FSDP2): the part held here, and the whole."""

from __future__ import annotations

from typing import Any

import torch

from ..errors import InvalidArgumentError

__all__ = ["check_shards", "gathered", "is_sharded", "local", "local_part", "summed", "traced"]


def is_sharded(tensor: torch.Tensor) -> bool:
    """Whether the tensor is a DTensor."""
    return hasattr(tensor, "to_local") and hasattr(tensor, "placements")


def local(tensor: torch.Tensor) -> torch.Tensor:
    """The part of a tensor that lives here, sharing its memory; the tensor itself where it is whole."""
    if not is_sharded(tensor):
        return tensor
    part: torch.Tensor = tensor.to_local()  # type: ignore[attr-defined]
    return part


def gathered(part: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    """The whole of a tensor cut along its first axis as ``like`` is, from the parts of all processes."""
    if not is_sharded(like):
        return part
    from torch.distributed.tensor import DTensor

    layout: Any = like
    shape = (like.shape[0], *part.shape[1:])
    whole: torch.Tensor = DTensor.from_local(
        part, layout.device_mesh, layout.placements, run_check=False, shape=torch.Size(shape), stride=_stride(shape)
    ).full_tensor()
    return whole


def traced(tensor: torch.Tensor) -> torch.Tensor:
    """The whole of a tensor, differentiable: every process gets the gradient of its part."""
    if not is_sharded(tensor):
        return tensor
    whole: torch.Tensor = tensor.full_tensor()  # type: ignore[attr-defined]
    return whole


def local_part(whole: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    """The part that belongs here of a tensor that every process holds."""
    if not is_sharded(like):
        return whole
    from torch.distributed.tensor import DTensor, Replicate

    layout: Any = like
    mesh = layout.device_mesh
    replicated = DTensor.from_local(whole, mesh, [Replicate()] * mesh.ndim, run_check=False)
    part: torch.Tensor = replicated.redistribute(mesh, layout.placements).to_local()
    return part


def summed(value: int, like: torch.Tensor) -> int:
    """The sum over the processes that hold different parts."""
    if not is_sharded(like):
        return value
    return int(gathered_counts(value, like).sum())


def gathered_counts(value: int, like: torch.Tensor) -> torch.Tensor:
    from torch.distributed.tensor import DTensor

    layout: Any = like
    mesh = layout.device_mesh
    part = torch.tensor([value], device=local(like).device)
    size = 1
    for axis, placement in enumerate(layout.placements):
        if placement.is_shard():
            size *= mesh.size(axis)
    counts: torch.Tensor = DTensor.from_local(
        part, mesh, layout.placements, run_check=False, shape=torch.Size([size]), stride=(1,)
    ).full_tensor()
    return counts


def check_shards(name: str, parameter: torch.Tensor) -> None:
    """Raise unless a sharded parameter is cut along its first axis only."""
    if not is_sharded(parameter):
        return
    placements: Any = parameter.placements  # type: ignore[attr-defined]
    if not all(placement.is_replicate() or placement.is_shard(0) for placement in placements):
        raise InvalidArgumentError(
            f"{name!r} is sharded as {placements}; only shards along the first axis (FSDP2) are supported"
        )


def _stride(shape: tuple[int, ...]) -> tuple[int, ...]:
    strides, size = [], 1
    for side in reversed(shape):
        strides.append(size)
        size *= side
    return tuple(reversed(strides))
