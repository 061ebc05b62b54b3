"""Speaks to the other processes of a data-parallel run; in a single process each function is the identity.

In several, every function that takes a tensor is a collective: all processes call it, in the same order.
"""

from __future__ import annotations

import torch
from torch import distributed

__all__ = ["add", "average", "is_parallel", "rank", "world_size"]


def is_parallel() -> bool:
    """Whether there is more than one process."""
    return world_size() > 1


def world_size() -> int:
    """Number of processes."""
    return distributed.get_world_size() if _is_initialized() else 1


def rank() -> int:
    """Number of this process, 0 where there is but one."""
    return distributed.get_rank() if _is_initialized() else 0


def add(*tensors: torch.Tensor) -> None:
    """Put the sum over all processes in the place of each tensor."""
    if is_parallel():
        for tensor in tensors:
            distributed.all_reduce(tensor)


def average(*tensors: torch.Tensor) -> None:
    """Put the mean over all processes in the place of each tensor."""
    add(*tensors)
    if is_parallel():
        for tensor in tensors:
            tensor.div_(world_size())


def _is_initialized() -> bool:
    return distributed.is_available() and distributed.is_initialized()
