"""Files that are either whole or absent, and the checkpoint a run resumes from."""

from __future__ import annotations

import json
import os
import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from ..errors import InvalidArgumentError

__all__ = ["read_checkpoint", "read_json", "write_atomically", "write_checkpoint", "write_json"]


def write_atomically(path: Path, write: Callable[[Path], object]) -> None:
    """Let ``write`` fill a temporary file, then put it in place: readers see the old file or the new."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        write(temporary)
        with open(temporary, "rb+") as file:
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def write_json(path: Path, content: Any) -> None:
    """Write JSON atomically; NaN and infinity are refused: not every reader knows them."""
    text = json.dumps(content, indent=1, allow_nan=False) + "\n"
    write_atomically(path, lambda file: file.write_text(text, encoding="utf-8"))


def read_json(path: Path) -> Any:
    """Read JSON.

    Raises
    ------
    InvalidArgumentError
        When the file cannot be read.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InvalidArgumentError(f"cannot read {path}: {error}") from error


def write_checkpoint(path: Path, state: dict[str, Any]) -> None:
    """Write a checkpoint atomically."""
    write_atomically(path, lambda file: torch.save(state, file))


def read_checkpoint(path: Path) -> dict[str, Any]:
    """Read a checkpoint: tensors and plain values only, no pickled objects.

    Raises
    ------
    InvalidArgumentError
        When the file is broken or holds anything else.
    """
    # What is not a zip archive is of torch's old format or broken; we never wrote it.
    if not zipfile.is_zipfile(path):
        raise InvalidArgumentError(f"cannot read checkpoint {path}: it is broken, or not a checkpoint")
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, RuntimeError, EOFError, ValueError, KeyError, pickle.UnpicklingError) as error:
        line = next(iter(str(error).splitlines()), "")
        raise InvalidArgumentError(f"cannot read checkpoint {path}: {line}") from error
    if not isinstance(state, dict):
        raise InvalidArgumentError(f"{path} is not a checkpoint of a run")
    return state
