"""IDX files, the format in which MNIST and Fashion-MNIST were first published."""

from __future__ import annotations

import gzip
import zlib
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ..errors import InvalidArgumentError

__all__ = ["find_idx", "read_idx"]

_PARTS = (
    "train-images-idx3-ubyte",
    "train-labels-idx1-ubyte",
    "t10k-images-idx3-ubyte",
    "t10k-labels-idx1-ubyte",
)


def find_idx(folder: Path) -> list[Path] | None:
    """The four files of an IDX data set in ``folder`` (plain or ``.gz``); None unless all are there."""
    found = []
    for part in _PARTS:
        file = next((p for p in (folder / part, folder / f"{part}.gz") if p.is_file()), None)
        if file is None:
            return None
        found.append(file)
    return found


def read_idx(path: Path) -> Tensor:
    """Read one IDX file of unsigned bytes, plain or gzip-compressed.

    Raises
    ------
    InvalidArgumentError
        When the file is not IDX, not of bytes, or not as long as its header says.
    """
    try:
        content = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    except (OSError, EOFError, zlib.error) as error:
        raise InvalidArgumentError(f"cannot read {path}: {error}") from error
    if len(content) < 4 or content[:3] != b"\x00\x00\x08":
        raise InvalidArgumentError(f"{path} is not an IDX file of unsigned bytes")
    header = 4 + 4 * content[3]
    shape = tuple(int(n) for n in np.frombuffer(content[4:header], dtype=">u4"))
    if len(content) != header + int(np.prod(shape, dtype=np.int64)):
        raise InvalidArgumentError(f"{path} is truncated: its header announces shape {shape}")
    values = np.frombuffer(content, dtype=np.uint8, offset=header).reshape(shape)
    return torch.from_numpy(values.copy())
