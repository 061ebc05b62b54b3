"""Which groups a target sparsity keeps: order statistics over several tensors, with a floor for each."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch

__all__ = ["boundaries", "keepers"]

# Above this many groups a target on the way is met from an even sample; the final one always from all of them.
_SAMPLE = 1 << 16


def boundaries(magnitudes: Sequence[torch.Tensor], sizes: Sequence[int], sparsity: float, floor: float) -> list[float]:
    """The magnitude at and below which groups fall, for each tensor.

    One boundary for all, lowered for tensors that it would leave under their floor.

    Parameters
    ----------
    magnitudes : sequence of tensors of shape (groups,) or any other
        Magnitude of every group, at least 0.
    sizes : sequence of int
        Weights per group, for each tensor.
    sparsity : float
        Fraction of all weights that should fall.
    floor : float
        Smallest fraction of its groups that a tensor keeps.
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
        short = []
        if floor > 0 and sparsity > 0:
            short = [i for i in free if int((flat[i] > common).sum()) < _least(flat[i].numel(), floor)]
        if not short:
            return [own.get(index, common) for index in range(len(flat))]
        for index in short:
            falling = flat[index].numel() - _least(flat[index].numel(), floor)
            own[index] = float(flat[index].kthvalue(falling).values) if falling > 0 else 0.0
            fallen -= falling * sizes[index]


def keepers(
    magnitudes: Sequence[torch.Tensor], sizes: Sequence[int], sparsity: float, floor: float
) -> list[torch.Tensor]:
    """Masks that keep the largest groups: exactly the target, to within one group, floors first.

    Returns
    -------
    list of bool tensors shaped like ``magnitudes``
    """
    flat = [magnitude.flatten() for magnitude in magnitudes]
    total = sum(values.numel() * size for values, size in zip(flat, sizes, strict=True))
    allowance = total - round(sparsity * total)
    masks = [torch.zeros_like(values, dtype=torch.bool) for values in flat]
    for values, size, mask in zip(flat, sizes, masks, strict=True):
        count = _least(values.numel(), floor) if floor > 0 else 0
        mask[values.topk(count).indices] = True
        allowance -= count * size
    # The rest goes to the largest of what is left, wherever they are. Each tensor offers at most what the whole
    # allowance could pay for, so that only candidates are sorted.
    offers, origins, prices = [], [], []
    for index, (values, size, mask) in enumerate(zip(flat, sizes, masks, strict=True)):
        open_ = values.masked_fill(mask, -1.0)
        count = min(values.numel() - int(mask.sum()), max(0, allowance) // size + 1) if allowance > 0 else 0
        top = open_.topk(count)
        offers.append(top.values)
        origins.append(torch.stack([torch.full_like(top.indices, index), top.indices]))
        prices.append(torch.full_like(top.indices, size))
    order = torch.cat(offers).argsort(descending=True, stable=True)
    spent = torch.cat(prices)[order].cumsum(0)
    count = int((spent <= allowance).sum())
    # One more group where that comes closer.
    if count < len(spent) and 2 * allowance > int(spent[count]) + (int(spent[count - 1]) if count else 0):
        count += 1
    chosen = torch.cat(origins, dim=1)[:, order[:count]]
    for index, mask in enumerate(masks):
        mask[chosen[1][chosen[0] == index]] = True
    return [mask.reshape(magnitude.shape) for mask, magnitude in zip(masks, magnitudes, strict=True)]


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


def _least(count: int, floor: float) -> int:
    """Groups that a tensor of ``count`` keeps at least."""
    return min(count, max(1, int(floor * count)))


def _stride(magnitudes: Sequence[torch.Tensor]) -> int:
    """Distance between sampled groups, without a common factor with any side of a tensor: no column is missed."""
    stride = max(1, sum(magnitude.numel() for magnitude in magnitudes) // _SAMPLE)
    sides = {side for magnitude in magnitudes for side in magnitude.shape if side > 1}
    while stride > 1 and any(math.gcd(stride, side) > 1 for side in sides):
        stride += 1
    return stride
