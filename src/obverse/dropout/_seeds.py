"""Drawing the blocks of a sliding-block mask: sparse seeds on the host, pooled seeds elsewhere."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F

__all__ = ["drop_blocks", "pooled_blocks", "sparse"]

_DENSE_FROM = 0.1  # seed probability from which listing the seeds costs more than a coin for every position


def sparse(device: torch.device, gamma: float) -> bool:
    """Whether seeds should be listed: not on accelerators, which would wait for their number, nor while tracing."""
    return device.type == "cpu" and gamma < _DENSE_FROM and not torch.compiler.is_compiling()


def drop_blocks(mask: torch.Tensor, block: tuple[int, ...], t: float, generator: torch.Generator | None) -> None:
    """Write zeros into the blocks of random seeds, in place; seeds have probability ``1 - exp(-t)`` each.

    ``mask`` is contiguous, its last axes are the map. The work is proportional to what is dropped.
    """
    sides = mask.shape[mask.dim() - len(block) :]
    positions = [side - b + 1 for side, b in zip(sides, block, strict=True)]
    seeds = _successes(mask.numel() // math.prod(sides) * math.prod(positions), t, generator)
    # From the number of a seed to that of its first unit, last axis first; and the units of its block after it.
    first = torch.zeros_like(seeds)
    within = torch.zeros(1, dtype=torch.int64, device=mask.device)
    stride = 1
    for side, b, count in zip(reversed(sides), reversed(block), reversed(positions), strict=True):
        rest = torch.div(seeds, count, rounding_mode="floor")
        first += (seeds - rest * count) * stride
        within = (torch.arange(b, device=mask.device)[:, None] * stride + within).reshape(-1)
        seeds, stride = rest, stride * side
    first += seeds * stride
    mask.view(-1).index_fill_(0, (first[:, None] + within).reshape(-1), 0.0)


def _successes(trials: int, t: float, generator: torch.Generator | None) -> torch.Tensor:
    """The numbers of the successes among independent trials of probability ``1 - exp(-t)``, by geometric gaps.

    ``floor(E / t) + 1`` is geometric for a standard exponential ``E``, so the list has the law of one coin a trial.
    """
    expected = -trials * math.expm1(-t)
    size = int(expected + 6.0 * math.sqrt(expected)) + 16
    last, found = -1.0, []
    while last < trials:  # once, but for one draw in a billion
        gaps = torch.empty(size, dtype=torch.float64, device="cpu").exponential_(generator=generator)
        numbers = gaps.div_(t).floor_().add_(1.0).cumsum_(0).add_(last)
        last = float(numbers[-1])
        found.append(numbers)
    numbers = torch.cat(found) if len(found) > 1 else found[0]
    return numbers[: int(torch.searchsorted(numbers, float(trials)))].to(torch.int64)


def pooled_blocks(
    leading: tuple[int, ...],
    sides: tuple[int, ...],
    block: tuple[int, ...],
    gamma: float,
    generator: torch.Generator | None,
    dtype: torch.dtype,
    device: torch.device | str | None,
) -> torch.Tensor:
    """The mask, ones and zeros: a coin for every position, then the maximum over a block, one axis after the other."""
    positions = tuple(side - b + 1 for side, b in zip(sides, block, strict=True))
    shape = (*leading, *positions)
    dropped = torch.empty(shape, dtype=dtype, device=device).bernoulli_(gamma, generator=generator)
    for axis, b in enumerate(block, start=len(leading)):
        if b > 1:
            lines = dropped.movedim(axis, -1)
            folded = F.pad(lines.reshape(1, -1, lines.shape[-1]), (b - 1, b - 1))
            pooled = F.max_pool1d(folded, b, stride=1)
            dropped = pooled.reshape(*lines.shape[:-1], -1).movedim(-1, axis)
    return 1.0 - dropped
