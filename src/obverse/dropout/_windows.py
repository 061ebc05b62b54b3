"""Positions of a sliding block in a map: how many cover a unit, and the seed probability of a given drop rate."""

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np
import torch
from numpy.typing import NDArray

__all__ = [
    "band_counts",
    "clipped",
    "constants",
    "cover_counts",
    "covers_of_map",
    "log_keep",
    "offsets",
    "pair_counts",
]

Sides = tuple[int, ...]
Counts = NDArray[np.float64]


def clipped(block: Sides, sides: Sides) -> Sides:
    """The block, no larger than the map."""
    return tuple(min(b, side) for b, side in zip(block, sides, strict=True))


def offsets(block: Sides, anywhere: bool) -> tuple[Sides, Sides]:
    """Units before and after the map that seeds anywhere in it reach: they are block positions in a map so padded."""
    if not anywhere:
        return (0,) * len(block), (0,) * len(block)
    return tuple((b - 1) // 2 for b in block), tuple(b // 2 for b in block)


def _counts(first: NDArray[np.int64], second: NDArray[np.int64], side: int, block: int, anywhere: bool) -> Counts:
    """How many positions of the block along an axis cover units ``first`` and ``second``."""
    (before,), (after,) = offsets((block,), anywhere)
    low, high = np.minimum(first, second) + before, np.maximum(first, second) + before
    last = side + before + after - block
    counts: Counts = np.maximum(0, np.minimum(low, last) - np.maximum(high - block + 1, 0) + 1).astype(np.float64)
    counts.setflags(write=False)
    return counts


@lru_cache(maxsize=256)
def cover_counts(side: int, block: int, anywhere: bool) -> Counts:
    """How many positions of the block along an axis cover each unit, ``(side,)``."""
    unit = np.arange(side)
    return _counts(unit, unit, side, min(block, side), anywhere)


@lru_cache(maxsize=64)
def pair_counts(side: int, block: int, anywhere: bool) -> Counts:
    """How many positions cover units ``i`` and ``j``, ``(side, side)``."""
    unit = np.arange(side)
    return _counts(unit[:, None], unit, side, min(block, side), anywhere)


@lru_cache(maxsize=64)
def band_counts(side: int, block: int, anywhere: bool) -> Counts:
    """The band of `pair_counts`, ``(2 b - 1, side)``: row ``b - 1 + lag`` counts units ``i``, ``i + lag``."""
    block = min(block, side)
    unit = np.arange(side)
    other = unit + np.arange(1 - block, block)[:, None]
    counts = np.where((other >= 0) & (other < side), _counts(unit, other, side, block, anywhere), 0.0)
    counts.setflags(write=False)
    return counts


@lru_cache(maxsize=1024)
def log_keep(
    sides: Sides, block: Sides, anywhere: bool, drop_rate: float | None, gamma: float | None, published: bool
) -> float:
    """``t = -log(1 - gamma)``, so that a unit that ``n`` positions cover is kept with probability ``exp(-t n)``.

    For a drop rate, the root of ``mean_p exp(-t n_p) = 1 - drop_rate``: Newton's method on the logarithm, which is
    convex and decreasing, from the left, where Jensen's inequality gives ``t = -log(1 - drop_rate) / mean(n_p)``.
    """
    block = clipped(block, sides)
    if published and drop_rate is not None:
        positions = math.prod(side - b + 1 for side, b in zip(sides, block, strict=True))
        gamma = min(1.0, drop_rate / math.prod(block) * math.prod(sides) / positions)
    if gamma is not None:
        return math.inf if gamma == 1.0 else -math.log1p(-gamma)
    if drop_rate is None or drop_rate == 1.0:
        return math.inf
    covers, shares = _distribution(sides, block, anywhere)
    target = math.log1p(-drop_rate)
    t = -target / float(shares @ covers)
    for _ in range(100):
        kept = np.exp(-t * covers)
        mean = float(shares @ kept)
        # expm1 keeps the digits of small rates, the plain mean those of large ones.
        value = math.log1p(float(shares @ np.expm1(-t * covers))) if mean > 0.5 else math.log(mean)
        step = (value - target) * mean / float(shares @ (covers * kept))
        t += step
        if abs(step) <= 1e-15 * t:
            break
    return t


def _distribution(sides: Sides, block: Sides, anywhere: bool) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The distinct values of ``n_p`` over the map and the share of units that have each."""
    values, shares = np.ones(1), np.ones(1)
    for side, b in zip(sides, block, strict=True):
        along, counts = np.unique(cover_counts(side, b, anywhere), return_counts=True)
        values, shares = np.outer(values, along).reshape(-1), np.outer(shares, counts / side).reshape(-1)
    return values, shares


@torch.compiler.assume_constant_result  # type: ignore[untyped-decorator]
def constants(
    count: int,
    drop_rate: float | None,
    gamma: float | None,
    published: bool,
    anywhere: bool,
    dtype: torch.dtype,
    *sizes: int,
) -> tuple[float, torch.Tensor]:
    """``t`` and the reciprocal keep probability of every unit of a map with ``count`` axes; ``sizes``: map, block.

    A compiler takes the result as it is, so everything is an argument that it knows while it traces.
    """
    sides, block = sizes[:count], sizes[count:]
    t = log_keep(sides, block, anywhere, drop_rate, gamma, published)
    with np.errstate(over="ignore"):  # an infinite t: the caller says what is wrong
        reciprocal = np.exp(t * covers_of_map(sides, block, anywhere))
    return t, torch.tensor(reciprocal, dtype=dtype, device="cpu")


def covers_of_map(sides: Sides, block: Sides, anywhere: bool) -> NDArray[np.float64]:
    """``n_p`` for every unit of a map."""
    covers = np.ones(())
    for side, b in zip(sides, block, strict=True):
        covers = np.multiply.outer(covers, cover_counts(side, b, anywhere))
    return covers
