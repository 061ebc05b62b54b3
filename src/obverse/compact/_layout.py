"""Storing a tensor in the fewest bytes: every entry, a mask and the entries that are not zero, or gaps between them.

All layouts work on bits, not on numbers: an entry is left out only if all its bits are zero, so -0.0, NaN with any
payload and infinities come back as they were.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Mapping

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from ..errors import InvalidArgumentError

__all__ = ["LAYOUTS", "decode", "encode", "layout_sizes", "parts_of"]

LAYOUTS = ("dense", "bitmask", "gaps8", "gaps16", "deflated")
"""In the order in which they are preferred at equal size."""

_WORDS = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}
_GAPS: dict[str, type[np.unsignedinteger]] = {"gaps8": np.uint8, "gaps16": np.uint16}
# A second tensor in a file costs about this many bytes of its header.
_ENTRY_BYTES = 96


def parts_of(layout: str) -> tuple[str, ...]:
    """Names of the arrays that a layout consists of."""
    first = {"dense": "", "bitmask": "mask"}.get(layout, "gaps")
    return (first, "values") if first else (first,)


def encode(tensor: Tensor, layout: str | None = None) -> tuple[str, dict[str, Tensor]]:
    """Take a tensor apart.

    Parameters
    ----------
    tensor : Tensor
        Any shape, any dtype, strided, on any device.
    layout : {"dense", "bitmask", "gaps8", "gaps16", "deflated"}, optional
        By default the one that takes the fewest bytes.

    Returns
    -------
    str
        The layout.
    dict of str to Tensor
        Its parts, on the CPU. ``"dense"`` has one, named ``""``. The others have ``"values"``, one-dimensional, of the
        tensor's dtype, and where they go: ``"mask"``, one bit per entry, the first in the highest bit of the first
        byte; or ``"gaps"``, one code per value in 8 or 16 bits: how many zeros lie before it. The largest code stands
        for that many zeros without a value behind them. Entries are in row-major order. ``"deflated"`` has the 8-bit
        gaps as a zlib stream.

    Notes
    -----
    Relative positions of sparse entries in few bits, with a filler where a gap is too wide, are those of Han et al.
    (2016); here the filler takes no value.
    """
    if layout is not None and layout not in LAYOUTS:
        raise InvalidArgumentError(f"unknown layout {layout!r}; known: {', '.join(LAYOUTS)}")
    held = tensor.detach().cpu().contiguous()
    size = held.element_size()
    if size not in _WORDS or held.numel() == 0:
        if layout not in (None, "dense"):
            raise InvalidArgumentError(f"a tensor of {held.dtype} and shape {tuple(held.shape)} is stored dense only")
        return "dense", {"": held}
    words = _words(held)
    positions = np.flatnonzero(words)
    sizes = layout_sizes(held.numel(), positions, size)
    if layout is None:
        layout = min(sizes, key=lambda name: sizes[name] + (0 if name == "dense" else _ENTRY_BYTES))
        deflate = layout != "dense" or sizes["gaps8"] < 1.2 * sizes["dense"]
    else:
        deflate = layout == "deflated"
    if layout == "dense" and not deflate:
        return layout, {"": held}
    values = held.reshape(-1)[torch.from_numpy(positions)].contiguous()
    if deflate:
        stream = _deflated(_gaps(positions, np.uint8))
        if layout == "deflated" or len(stream) + len(positions) * size < sizes[layout]:
            return "deflated", {"gaps": torch.from_numpy(stream), "values": values}
    if layout == "dense":
        return layout, {"": held}
    if layout == "bitmask":
        return layout, {"mask": torch.from_numpy(np.packbits(words != 0)), "values": values}
    return layout, {"gaps": torch.from_numpy(_gaps(positions, _GAPS[layout])), "values": values}


def layout_sizes(entries: int, positions: npt.NDArray[np.int64], size: int) -> dict[str, int]:
    """Bytes of each layout, but for ``"deflated"``, of entries of ``size`` bytes, those at ``positions`` not zero."""
    values = len(positions) * size
    zeros = np.diff(positions, prepend=-1) - 1
    sizes = {"dense": entries * size, "bitmask": math.ceil(entries / 8) + values}
    for name, kind in _GAPS.items():
        codes = len(positions) + int((zeros // np.iinfo(kind).max).sum())
        sizes[name] = codes * np.dtype(kind).itemsize + values
    return sizes


def decode(layout: str, parts: Mapping[str, Tensor], shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
    """Put a tensor together again.

    Raises
    ------
    InvalidArgumentError
        The parts do not make a tensor of that shape and dtype.
    """
    if layout not in LAYOUTS:
        raise InvalidArgumentError(f"unknown layout {layout!r}; known: {', '.join(LAYOUTS)}")
    if set(parts) != set(parts_of(layout)):
        raise InvalidArgumentError(f"layout {layout} has the parts {', '.join(sorted(parts))}")
    entries = math.prod(shape)
    if layout == "dense":
        whole = parts[""]
        if tuple(whole.shape) != shape or whole.dtype != dtype:
            raise InvalidArgumentError(f"it holds {whole.dtype} of shape {tuple(whole.shape)}, not {dtype} of {shape}")
        return whole
    values = parts["values"]
    if values.ndim != 1 or values.dtype != dtype or values.element_size() not in _WORDS:
        raise InvalidArgumentError(f"its values are {values.dtype} of shape {tuple(values.shape)}")
    positions = _masked(parts["mask"], entries) if layout == "bitmask" else _summed(layout, parts["gaps"], entries)
    if len(positions) != len(values):
        raise InvalidArgumentError(f"it has {len(values)} values for {len(positions)} places")
    whole = torch.zeros(entries, dtype=dtype)
    _words(whole)[positions] = _words(values.contiguous())
    return whole.reshape(shape)


def _words(tensor: Tensor) -> npt.NDArray[np.integer]:
    """The bits of a contiguous tensor, in place."""
    flat = tensor.reshape(-1)
    return flat.view(_WORDS[tensor.element_size()]).numpy()


def _gaps(positions: npt.NDArray[np.int64], kind: type[np.unsignedinteger]) -> npt.NDArray[np.unsignedinteger]:
    filler = np.iinfo(kind).max
    fillers, rest = np.divmod(np.diff(positions, prepend=-1) - 1, filler)
    codes = np.full(len(positions) + int(fillers.sum()), filler, kind)
    codes[np.cumsum(fillers + 1) - 1] = rest
    return codes


def _deflated(codes: npt.NDArray[np.unsignedinteger]) -> npt.NDArray[np.uint8]:
    # Gaps at random places do not repeat, so that only their unequal frequencies can be used.
    packer = zlib.compressobj(9, strategy=zlib.Z_HUFFMAN_ONLY)
    return np.frombuffer(bytearray(packer.compress(codes.tobytes()) + packer.flush()), np.uint8)


def _inflated(stream: Tensor, most: int) -> Tensor:
    """The codes of a stream, which may not be more than ``most``."""
    if stream.ndim != 1 or stream.dtype != torch.uint8:
        raise InvalidArgumentError(f"its gaps are {stream.dtype} of shape {tuple(stream.shape)}")
    unpacker = zlib.decompressobj()
    try:
        codes = unpacker.decompress(stream.numpy().tobytes(), max(1, most))
    except zlib.error as error:
        raise InvalidArgumentError(f"its gaps are no zlib stream: {error}") from None
    if not unpacker.eof or unpacker.unused_data:
        raise InvalidArgumentError("its gaps do not end where they should")
    return torch.frombuffer(bytearray(codes), dtype=torch.uint8) if codes else torch.zeros(0, dtype=torch.uint8)


def _summed(layout: str, gaps: Tensor, entries: int) -> npt.NDArray[np.int64]:
    if layout == "deflated":
        layout, gaps = "gaps8", _inflated(gaps, entries)
    kind = _GAPS[layout]
    if gaps.ndim != 1 or gaps.numpy().dtype != kind:
        raise InvalidArgumentError(f"its gaps are {gaps.dtype} of shape {tuple(gaps.shape)}")
    codes = gaps.numpy().astype(np.int64)
    ends = codes != np.iinfo(kind).max
    positions: npt.NDArray[np.int64] = np.cumsum(codes + ends)[ends] - 1
    if len(positions) and positions[-1] >= entries:
        raise InvalidArgumentError(f"its gaps lead past the last of {entries} entries")
    return positions


def _masked(mask: Tensor, entries: int) -> npt.NDArray[np.int64]:
    if mask.dtype != torch.uint8 or tuple(mask.shape) != (math.ceil(entries / 8),):
        raise InvalidArgumentError(f"its mask is {mask.dtype} of shape {tuple(mask.shape)}, for {entries} entries")
    bits = np.unpackbits(mask.numpy())
    if bits[entries:].any():
        raise InvalidArgumentError("its mask has bits past the last entry")
    return np.flatnonzero(bits[:entries])
