"""The processes of a data-parallel run."""

from __future__ import annotations

import torch

__all__ = ["average", "is_parallel", "rank"]


def is_parallel() -> bool:
    """Whether there is more than one process."""
    return _is_initialized() and torch.distributed.get_world_size() > 1


def rank() -> int:
    """Number of this process, 0 where there is but one."""
    return torch.distributed.get_rank() if _is_initialized() else 0


def average(tensor: torch.Tensor) -> None:
    """Put the mean over all processes in the tensor's place."""
    torch.distributed.all_reduce(tensor)
    tensor.div_(torch.distributed.get_world_size())


def _is_initialized() -> bool:
    return torch.distributed.is_available() and torch.distributed.is_initialized()
