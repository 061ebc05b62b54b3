"""Capped water-filling: the one-dimensional problem inside every norm and optimum of structured dropout."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["fill"]


def fill(slopes: Tensor, offset: Tensor | float, total: float) -> Tensor:
    """``clip(tau * slopes - offset, 0, 1)`` with ``tau`` such that the last axis sums to ``total``.

    Where no more than ``total`` slopes are positive, these get 1. Exact: the level is found among the 2n places where
    its sum has a kink, then in closed form; the gradient is that of the closed form.

    Parameters
    ----------
    slopes : tensor (..., n), nonnegative
    offset : float or tensor that broadcasts to (..., 1), nonnegative
    total : float, positive
    """
    if slopes.shape[-1] == 0:
        return slopes
    offset = torch.as_tensor(offset, dtype=slopes.dtype, device=slopes.device)
    with torch.no_grad():
        top = slopes.amax(-1, keepdim=True)
        unit = torch.where(top > 0, top, 1.0)
        scaled = slopes / unit
        inside = scaled > torch.finfo(slopes.dtype).tiny
        inverse = torch.where(inside, 1.0 / torch.where(inside, scaled, 1.0), 0.0)
        enters, caps = offset * inverse, (offset + 1.0) * inverse
        start = _last_kink_below(scaled, offset, torch.cat([enters, caps], -1), total)
        capped = inside & (caps <= start)
        active = inside & (enters <= start) & ~capped
        enough = inside.sum(-1, keepdim=True) <= total
        capped = torch.where(enough, inside, capped)
        active = active & ~enough
        rest = total - capped.sum(-1, keepdim=True)
        count = active.sum(-1, keepdim=True)
    # tau * slope - offset with tau = (rest + offset * count) / sum, written so that a large offset cancels exactly.
    beyond = torch.where(active, slopes - slopes.detach().amax(-1, keepdim=True), 0.0)
    mass = torch.where(active, slopes, 0.0).sum(-1, keepdim=True)
    mass = torch.where(count > 0, mass, 1.0)
    level = (rest * slopes + offset * (count * beyond - beyond.sum(-1, keepdim=True))) / mass
    return torch.where(active, level.clamp(0.0, 1.0), capped.to(slopes.dtype))


def _last_kink_below(slopes: Tensor, offset: Tensor, kinks: Tensor, total: float) -> Tensor:
    """The largest of ``kinks`` at which the filled sum is at most ``total``, by bisection over their order."""
    kinks = kinks.sort(-1).values
    low = torch.zeros_like(kinks[..., :1], dtype=torch.int64)
    high = torch.full_like(low, kinks.shape[-1] - 1)
    for _ in range(kinks.shape[-1].bit_length()):
        middle = (low + high + 1) // 2
        height = (kinks.gather(-1, middle) * slopes - offset).clamp(0.0, 1.0).sum(-1, keepdim=True)
        below = height <= total
        low, high = torch.where(below, middle, low), torch.where(below, high, torch.maximum(middle - 1, low))
    return kinks.gather(-1, low)
