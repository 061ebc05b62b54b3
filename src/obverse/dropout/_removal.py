"""What a mask drops at once, and how often: single units, blocks, channels, whole examples, sliding windows."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from ..errors import InvalidArgumentError
from ._blocks import Blocks, Channel, Path
from ._independent import Bernoulli
from ._law import MaskLaw
from ._sliding import SlidingBlock
from ._windows import clipped, offsets

__all__ = ["Removals", "drops_groups", "removals"]


@dataclass(frozen=True)
class Removals:
    """The groups of units that a law drops together.

    Parameters
    ----------
    weight : torch.Tensor
        ``lam`` of each group, (G,): odds of being dropped.
    index : torch.Tensor
        Units of each group in C order of the event, (G, r); the number of units, ``d``, fills up short groups.
    """

    weight: torch.Tensor
    index: torch.Tensor

    def subset(self, count: int, generator: torch.Generator | None) -> Removals:
        """Groups drawn without replacement, weighted so that sums over them are unbiased."""
        groups = len(self.weight)
        if count >= groups:
            return self
        device = "cpu" if generator is None else generator.device
        drawn = torch.randperm(groups, generator=generator, device=device)[:count].to(self.index.device)
        return Removals(self.weight[drawn] * (groups / count), self.index[drawn])


def drops_groups(law: MaskLaw) -> bool:
    """Whether a mask of the law is a set of dropped groups."""
    return isinstance(law, (Bernoulli, Blocks, Channel, Path, SlidingBlock))


def removals(law: MaskLaw, event: tuple[int, ...], like: torch.Tensor) -> Removals:
    """The groups that ``law`` drops of an event, with dtype and device of ``like``.

    Raises
    ------
    InvalidArgumentError
        The law's masks are not of this kind: noise that drops nothing, or samples.
    """
    units = np.arange(math.prod(event)).reshape(event)
    if isinstance(law, Bernoulli):
        weight, index = law.variance(event).reshape(-1), units.reshape(-1, 1)
    elif isinstance(law, SlidingBlock):
        weight, index = _windows(law, event, units)
    elif isinstance(law, (Blocks, Channel, Path)):
        index = _groups(law, event, units)
        # Within a group all units share one mask, hence its variance.
        weight = law.variance(event).reshape(-1)[index[:, 0]]
    else:
        raise InvalidArgumentError(
            f"leave-one-out takes away what a mask drops, and {law!r} drops no groups of units; use form='quadratic', "
            "which needs the covariance alone"
        )
    return Removals(
        torch.as_tensor(weight, dtype=like.dtype, device=like.device), torch.as_tensor(index, device=like.device)
    )


def _groups(law: Blocks | Channel | Path, event: tuple[int, ...], units: NDArray[np.int64]) -> NDArray[np.int64]:
    """Units of each group, short groups filled up with the number of units."""
    if isinstance(law, Path):
        return units.reshape(1, -1)
    if isinstance(law, Channel):
        return units.reshape(event[0], -1)
    size = min(law.block_size, event[-1])
    rows = units.reshape(-1, event[-1])
    filled = np.pad(rows, ((0, 0), (0, -event[-1] % size)), constant_values=units.size)
    return filled.reshape(-1, size)


def _windows(
    law: SlidingBlock, event: tuple[int, ...], units: NDArray[np.int64]
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Odds and units of every position of the block in every channel; what is cut off at a border is filled up."""
    gamma = law.seed_probability(event)
    if gamma == 1.0:
        raise InvalidArgumentError(f"{law!r} drops everything, which no penalty can express")
    dims = len(law.block_size)
    sides = event[len(event) - dims :]
    block = clipped(law.block_size, sides)
    before, after = offsets(block, law.seeds == "anywhere")
    index = np.pad(units.reshape(-1, *sides), ((0, 0), *zip(before, after, strict=True)), constant_values=units.size)
    windows = np.lib.stride_tricks.sliding_window_view(index, block, axis=tuple(range(1, dims + 1)))
    listed = windows.reshape(-1, math.prod(block))
    return np.full(len(listed), gamma / (1.0 - gamma)), listed
