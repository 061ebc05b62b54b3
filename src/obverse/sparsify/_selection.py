"""Which groups a target sparsity keeps: order statistics over several tensors, with a floor and a ceiling for each."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from ._order import LARGE, mask_of_largest, numbers_kept, smallest

__all__ = ["Bounds", "boundaries", "keepers"]

# Above this many groups a target on the way is met from an even sample; the final one always from all of them.
_SAMPLE = 1 << 16
# Of a number of weights computed as a share: far above its rounding, far below one weight.
_SLACK = 1e-3


@dataclass(frozen=True)
class Bounds:
    """Fractions of its groups that a tensor keeps at least and at most; a floor above 0 keeps one group at least."""

    floor: float = 0.0
    ceiling: float = 1.0

    def of(self, count: int) -> tuple[int, int]:
        """Groups that a tensor of ``count`` keeps at least and at most."""
        least = min(count, max(1, int(self.floor * count))) if self.floor > 0 else 0
        return least, max(least, int(self.ceiling * count + 1e-9))


def boundaries(
    magnitudes: Sequence[torch.Tensor], sizes: Sequence[int], sparsity: float, bounds: Sequence[Bounds]
) -> list[float]:
    """The magnitude at and below which groups fall, for each tensor.

    One boundary for all, raised for tensors that it would leave above their ceiling and lowered for those under their
    floor.

    Parameters
    ----------
    magnitudes : sequence of tensors of shape (groups,) or any other
        Magnitude of every group, at least 0.
    sizes : sequence of int
        Weights per group, for each tensor.
    sparsity : float
        Fraction of all weights that should fall.
    bounds : sequence of Bounds
        Of each tensor.
    """
    flat = [magnitude.flatten() for magnitude in magnitudes]
    weights = [values.numel() * size for values, size in zip(flat, sizes, strict=True)]
    stride = _stride(magnitudes)
    sampled = [values[::stride] for values in flat]
    own: dict[int, float] = {}
    fallen = sparsity * sum(weights)
    while True:
        free = [index for index in range(len(flat)) if index not in own]
        if not free:
            return [own[index] for index in range(len(flat))]
        share = fallen / max(1, sum(weights[index] for index in free))
        common = _quantile([sampled[index] for index in free], [sizes[index] for index in free], share)
        bounded: dict[int, int] = {}
        if sparsity > 0:
            limits = {i: bounds[i].of(flat[i].numel()) for i in free if bounds[i] != Bounds()}
            above = {i: int(torch.count_nonzero(flat[i] > common)) for i in limits}
            bounded = {i: most for i, (_, most) in limits.items() if above[i] > most}
            bounded = bounded or {i: least for i, (least, _) in limits.items() if above[i] < least}
        if not bounded:
            return [own.get(index, common) for index in range(len(flat))]
        for index, stays in bounded.items():
            falling = flat[index].numel() - stays
            own[index] = smallest(flat[index], falling) if falling > 0 else 0.0
            fallen -= falling * sizes[index]


def keepers(
    magnitudes: Sequence[torch.Tensor],
    sizes: Sequence[int],
    sparsity: float,
    bounds: Sequence[Bounds],
    *,
    at_most: bool = False,
) -> list[torch.Tensor]:
    """Masks that keep the largest groups: exactly the target, to within one group, as far as the bounds allow.

    Among equal magnitudes, groups of an earlier tensor stay first. The masks take one byte per group and the selection
    next to nothing beside them.

    Parameters
    ----------
    magnitudes, sizes, sparsity, bounds
        As `boundaries` takes them.
    at_most : bool, default False
        Whether to keep no more weights than the target, where the bounds allow it, instead of the nearest number.

    Returns
    -------
    list of bool tensors shaped like ``magnitudes``
    """
    flat = [magnitude.flatten() for magnitude in magnitudes]
    total = sum(values.numel() * size for values, size in zip(flat, sizes, strict=True))
    limits = [bound.of(values.numel()) for bound, values in zip(bounds, flat, strict=True)]
    falling = math.ceil(sparsity * total - _SLACK) if at_most else round(sparsity * total)
    allowance = total - falling - sum(least * size for (least, _), size in zip(limits, sizes, strict=True))
    kept = numbers_kept(flat, sizes, limits, allowance, at_most=at_most)
    masks = []
    for values, size, (least, most), count in zip(flat, sizes, limits, kept, strict=True):
        if values.numel() > LARGE:
            masks.append(mask_of_largest(values, count))
        else:
            offered = min(most - least, max(0, allowance) // size + 1) if allowance > 0 else 0
            masks.append(_sorted_mask(values, least, count, offered))
    return [mask.reshape(magnitude.shape) for mask, magnitude in zip(masks, magnitudes, strict=True)]


def _sorted_mask(values: torch.Tensor, least: int, count: int, offered: int) -> torch.Tensor:
    """The ``count`` largest of a small tensor: those of its floor first, then the first of those it offers."""
    mask = torch.zeros_like(values, dtype=torch.bool)
    mask[values.topk(least).indices] = True
    if count > least:
        mask[values.masked_fill(mask, -1.0).topk(offered).indices[: count - least]] = True
    return mask


def _quantile(values: Sequence[torch.Tensor], sizes: Sequence[int], share: float) -> float:
    """Smallest magnitude at which ``share`` of the weights lie at or below; below all of them where share is 0."""
    together = torch.cat(list(values))
    if len(set(sizes)) == 1:
        count = min(together.numel(), round(share * together.numel()))
        return float(together.kthvalue(count).values) if count > 0 else 0.0
    each = torch.cat(
        [
            torch.full(part.shape, size, dtype=torch.int64, device=part.device)
            for part, size in zip(values, sizes, strict=True)
        ]
    )
    ordered, order = together.sort()
    count = int((each[order].cumsum(0) <= share * int(each.sum())).sum())
    return float(ordered[count - 1]) if count > 0 else 0.0


def _stride(magnitudes: Sequence[torch.Tensor]) -> int:
    """Distance between sampled groups, without a common factor with any side of a tensor: no column is missed."""
    stride = max(1, sum(magnitude.numel() for magnitude in magnitudes) // _SAMPLE)
    sides = {side for magnitude in magnitudes for side in magnitude.shape if side > 1}
    while stride > 1 and any(math.gcd(stride, side) > 1 for side in sides):
        stride += 1
    return stride
