"""How many bytes a model takes in a file, from counts alone: for a budget, which cannot write a file at every step."""

from __future__ import annotations

import heapq
import math
from collections.abc import Mapping
from functools import lru_cache

from torch import nn

__all__ = ["estimated_bytes", "stored_bytes"]

# What a file says of itself, of every tensor beside its name, and of every module beside its name.
_FILE, _TENSOR, _MODULE = 250, 70, 35
_LARGEST_GAP = 255


def estimated_bytes(model: nn.Module, kept: Mapping[str, int] | None = None) -> int:
    """Bytes of a model's file, within some percent of what `obverse.compact.file_bytes` says.

    Parameters
    ----------
    model : torch.nn.Module
    kept : mapping of str to int, optional
        How many entries of a parameter are not zero, at places that are as good as random; by default all are.
    """
    total = _FILE + sum(_MODULE + len(name) for name, module in model.named_modules() if vars(module))
    seen: set[int] = set()
    for name, tensor in [*model.named_parameters(remove_duplicate=False), *model.named_buffers(remove_duplicate=False)]:
        if id(tensor) not in seen:
            seen.add(id(tensor))
            entries = tensor.numel()
            total += _TENSOR + len(name)
            total += stored_bytes(entries, (kept or {}).get(name, entries), tensor.element_size())
    return total


def stored_bytes(entries: int, kept: int, size: int) -> int:
    """Bytes of a tensor of which ``kept`` of ``entries`` entries, of ``size`` bytes each, are not zero.

    The least of: all entries; one bit for each and those that are kept; these and the gaps between them, coded by how
    often each occurs (a Huffman code of the geometric law that gaps between random places have).
    """
    dense, values = entries * size, kept * size
    if kept >= entries or entries == 0:
        return dense
    sparse = min(math.ceil(entries / 8), math.ceil(kept * _bits_per_gap(round(kept / entries, 4)) / 8) + 80)
    return min(dense, values + sparse + _TENSOR)


@lru_cache(maxsize=4096)
def _bits_per_gap(density: float) -> float:
    """Bits for each kept entry, fillers of gaps that are too wide included."""
    density = max(density, 5e-5)
    weights = [density * (1 - density) ** gap for gap in range(_LARGEST_GAP)]
    filler = (1 - density) ** _LARGEST_GAP
    heap = sorted([*weights, filler])
    bits = 0.0
    while len(heap) > 1:
        both = heapq.heappop(heap) + heapq.heappop(heap)
        bits += both
        heapq.heappush(heap, both)
    return bits / (1 - filler)
