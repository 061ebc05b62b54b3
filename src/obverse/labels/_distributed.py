"""Shares rows and averages gradients over the processes of a data-parallel run, on top of `obverse._core.distributed`.

Each function is the identity in a single process. In several, each is a collective: every process calls it, once per
training step, as `torch.nn.parallel.DistributedDataParallel` asks of the forward pass anyway.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import distributed

from .._core.distributed import average, is_parallel, world_size

__all__ = ["rows_of_all", "shared"]


def rows_of_all(*tensors: torch.Tensor) -> list[torch.Tensor]:
    """The rows of all processes, in their order; processes may have different numbers of rows.

    Parameters
    ----------
    *tensors : torch.Tensor
        With the same number of rows each; not differentiated. They travel as bytes, since not every backend knows
        every type of number.
    """
    if not is_parallel():
        return list(tensors)
    own = torch.tensor([len(tensors[0])], device=tensors[0].device)
    counts = [torch.empty_like(own) for _ in range(world_size())]
    distributed.all_gather(counts, own)
    lengths = [int(count) for count in counts]
    return [_gathered(tensor, lengths) for tensor in tensors]


def _gathered(tensor: torch.Tensor, lengths: list[int]) -> torch.Tensor:
    width = tensor.shape[1:].numel() * tensor.element_size()
    padded = torch.zeros(max(lengths), width, dtype=torch.uint8, device=tensor.device)
    padded[: len(tensor)] = tensor.contiguous().view(-1).view(torch.uint8).view(len(tensor), width)
    parts = [torch.empty_like(padded) for _ in lengths]
    distributed.all_gather(parts, padded)
    rows = torch.cat([part[:length] for part, length in zip(parts, lengths, strict=True)])
    return rows.view(-1).view(tensor.dtype).view(-1, *tensor.shape[1:])


class _Shared(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, tensor: torch.Tensor) -> torch.Tensor:
        return tensor.view_as(tensor)

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> Any:
        mean = gradients[0].contiguous().clone()
        average(mean)
        return mean


def shared(tensor: torch.Tensor) -> torch.Tensor:
    """The tensor, with its gradient averaged over all processes.

    The mean of what is already the same everywhere changes nothing, so a criterion may also be part of a module that
    is wrapped for data parallelism.
    """
    if not is_parallel():
        return tensor
    result: torch.Tensor = _Shared.apply(tensor)  # type: ignore[no-untyped-call]
    return result
