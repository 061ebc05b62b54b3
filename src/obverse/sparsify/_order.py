"""Order statistics of large tensors with next to no memory: floats are ranked by their bits, a chunk at a time.

The bits of a float, read as an integer and with those of negative numbers turned around, are in the order of the
floats. A histogram of the leading bits finds the digit at which a count is reached, histograms of the bits after it
the next digits, until the number is known exactly: a radix selection. Nothing is sorted or copied but one chunk.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import reduce

import numpy as np
import numpy.typing as npt
import torch

__all__ = ["LARGE", "mask_of_largest", "numbers_kept", "smallest"]

LARGE = 1 << 20
"""Tensors up to this size are sorted, for which they need some 30 bytes per entry."""

_CHUNK = 1 << 18
_DIGIT = 11
_INTEGERS = {2: torch.int16, 4: torch.int32, 8: torch.int64}
_Counts = npt.NDArray[np.int64]


def numbers_kept(
    tensors: Sequence[torch.Tensor],
    sizes: Sequence[int],
    limits: Sequence[tuple[int, int]],
    allowance: int,
    *,
    at_most: bool,
) -> list[int]:
    """How many of its largest entries each tensor keeps when all share an allowance.

    Parameters
    ----------
    tensors : sequence of tensors of shape (entries,)
    sizes : sequence of int
        Price of an entry of each tensor.
    limits : sequence of pairs of int
        Entries that each tensor keeps at least, which are paid for already, and at most.
    allowance : int
        What all other entries that stay may cost. It is spent in descending order of the entries, at equal values in
        the order of the tensors, up to the first that it does not pay for.
    at_most : bool
        Whether that first entry is left out even where keeping it would come closer to the allowance.
    """
    least = np.array([low for low, _ in limits], np.int64)
    most = np.array([high for _, high in limits], np.int64)
    prices = np.array(sizes, np.int64)
    if allowance <= 0:
        return [int(low) for low in least]

    def within(counts: _Counts) -> _Counts:
        """Entries kept in each tensor, and so in each column, when all those counted are candidates."""
        kept: _Counts = np.clip(counts, least[:, None], most[:, None])
        return kept

    dtype = reduce(torch.promote_types, (tensor.dtype for tensor in tensors))
    above = np.zeros(len(tensors), np.int64)  # entries beyond the range that is searched
    ties = above
    for digits in _digits_of(dtype):
        histograms = np.stack([digits.histogram(tensor) for tensor in tensors])
        reached = above[:, None] + histograms[:, ::-1].cumsum(1)[:, ::-1]
        spent = prices @ (within(reached) - least[:, None])
        beyond = np.flatnonzero(spent > allowance)
        if len(beyond) == 0:  # all that the ceilings let in
            return [int(count) for count in within(reached[:, :1])[:, 0]]
        digit = int(beyond[-1])
        ties = histograms[:, digit]
        above = reached[:, digit] - ties
        digits.descend(digit)
    kept = within(above[:, None])[:, 0]
    offered = within((above + ties)[:, None])[:, 0] - kept
    left = allowance - int(prices @ (kept - least))
    for index, (count, price) in enumerate(zip(offered.tolist(), sizes, strict=True)):
        paid = min(count, left // price)
        kept[index] += paid
        left -= paid * price
        if paid < count:
            kept[index] += int(not at_most and 2 * left > price)
            break
    return [int(count) for count in kept]


def mask_of_largest(values: torch.Tensor, count: int) -> torch.Tensor:
    """Where the ``count`` largest entries are, the first ones among equals; bool, shaped like ``values`` (entries,)."""
    if count <= 0 or count >= values.numel():
        return torch.full_like(values, count > 0, dtype=torch.bool)
    boundary, above = _largest(values, count)
    mask = values > boundary
    missing = count - above
    for start in range(0, values.numel(), _CHUNK):
        places = (values[start : start + _CHUNK] == boundary).nonzero()[:missing, 0]
        mask[start + places] = True
        missing -= len(places)
        if missing == 0:
            break
    return mask


def smallest(values: torch.Tensor, rank: int) -> float:
    """The entry of ``values`` (entries,) that is ``rank``-th in ascending order, counted from 1."""
    if values.numel() <= LARGE:
        return float(values.kthvalue(rank).values)
    return float(_largest(values, values.numel() - rank + 1)[0])


def _largest(values: torch.Tensor, rank: int) -> tuple[torch.Tensor, int]:
    """The entry that is ``rank``-th in descending order, shape (), and the number of entries above it."""
    above = 0
    prefix = None
    for digits in _digits_of(values.dtype):
        histogram = digits.histogram(values)
        reached = above + histogram[::-1].cumsum()[::-1]
        digit = int(np.flatnonzero(reached >= rank)[-1])
        above = int(reached[digit] - histogram[digit])
        digits.descend(digit)
        prefix = digits.prefix
    assert prefix is not None
    return _float(prefix, values), above


class _Digits:
    """Counts the entries of a range by the next digit of their keys; the range shrinks with every `descend`."""

    def __init__(self, dtype: torch.dtype) -> None:
        # Numbers of one byte have no integers of their order here; they are few and exact in single precision.
        self.dtype = dtype if dtype.itemsize in _INTEGERS else torch.float32
        self.bits = 8 * self.dtype.itemsize
        self.shift = self.bits
        self.prefix = 0
        self.next_digit()

    def next_digit(self) -> None:
        self.width = min(_DIGIT, self.shift)
        self.shift -= self.width

    def histogram(self, values: torch.Tensor) -> _Counts:
        """Number of entries in the range for every value of the digit, ascending; (2 ** width,)."""
        first = self.shift + self.width == self.bits
        bins = 1 << self.width
        total = torch.zeros(bins, dtype=torch.int64, device=values.device)
        for chunk in torch.split(values, _CHUNK):
            keys = _keys(chunk, self.dtype)
            if not first:
                keys = keys[(keys >> (self.shift + self.width)) == self.prefix]
            # The leading digit has the sign; shifts of negative integers keep it.
            digit = (keys >> self.shift) + bins // 2 if first else (keys >> self.shift) & (bins - 1)
            total += torch.bincount(digit, minlength=bins)
        counts: _Counts = total.cpu().numpy()
        return counts

    def descend(self, digit: int) -> None:
        """Go on with the entries whose digit this is."""
        first = self.shift + self.width == self.bits
        own = digit - (1 << self.width) // 2 if first else digit
        self.prefix = (self.prefix << self.width) | own if not first else own


def _digits_of(dtype: torch.dtype) -> Iterator[_Digits]:
    """The digits of a dtype, from the leading one; each is to be descended before the next is asked for."""
    digits = _Digits(dtype)
    while True:
        yield digits
        if digits.shift == 0:
            return
        digits.next_digit()


def _keys(chunk: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """Integers in the order of the numbers, one for both zeros."""
    bits = (chunk.to(dtype) + 0.0).view(_INTEGERS[dtype.itemsize])
    return _turned(bits)


def _turned(bits: torch.Tensor) -> torch.Tensor:
    """Bits of floats to integers in their order, and back: below zero, all but the sign are turned around."""
    return bits ^ ((bits >> (8 * bits.dtype.itemsize - 1)) & torch.iinfo(bits.dtype).max)


def _float(key: int, like: torch.Tensor) -> torch.Tensor:
    """The number that a key stands for, shape ()."""
    dtype = like.dtype if like.dtype.itemsize in _INTEGERS else torch.float32
    integer = torch.tensor([key], dtype=_INTEGERS[dtype.itemsize], device=like.device)
    return _turned(integer).view(dtype)[0].to(like.dtype)
