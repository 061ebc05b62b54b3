"""IDX files, the format in which MNIST and Fashion-MNIST were first published."""

from __future__ import annotations

import gzip
import math
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .._core.resources import check_memory
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
    opener: Any = gzip.open if path.suffix == ".gz" else open
    try:
        with opener(path, "rb") as file:
            start = file.read(4)
            if len(start) < 4 or start[:3] != b"\x00\x00\x08":
                raise InvalidArgumentError(f"{path} is not an IDX file of unsigned bytes")
            shape = tuple(
                int(n) for n in np.frombuffer(file.read(4 * start[3]).ljust(4 * start[3], b"\0"), dtype=">u4")
            )
            size = math.prod(shape)
            # The file, the tensor made from it, and the copies that a split makes.
            check_memory(3 * size, f"{path}: values of shape {shape}", "use a smaller data set")
            # One byte more than there should be: what follows the values is a fault too.
            content = file.read(size + 1)
    except (OSError, EOFError, zlib.error) as error:
        raise InvalidArgumentError(f"cannot read {path}: {error}") from error
    if len(content) != size:
        raise InvalidArgumentError(f"{path} is truncated or too long: its header announces shape {shape}")
    return torch.from_numpy(np.frombuffer(content, dtype=np.uint8).reshape(shape).copy())
