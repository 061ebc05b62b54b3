"""The precision in which sums of squares and small steps of logarithms are kept."""

from __future__ import annotations

import torch

__all__ = ["wide"]


def wide(tensor: torch.Tensor) -> torch.Tensor:
    """The tensor in at least single precision."""
    return tensor if tensor.dtype == torch.float64 else tensor.float()
