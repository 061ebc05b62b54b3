"""Writes and reads the checkpoint that a run resumes from."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import IO, Any

import torch
from torch import Tensor

from .._core.files import check_seal, write_sealed
from ..errors import DamagedFileError

__all__ = ["read_checkpoint", "write_checkpoint"]

_ADVICE = "delete it and --resume runs this seed from its start"

# What `Trainer.save` writes, and the type of each entry.
_TYPES: dict[str, type | tuple[type, ...]] = {
    "recipe": dict,
    "model": dict,
    "optimizer": dict,
    "scaler": dict,
    "sparsifier": dict,
    "labels": dict,
    "random": list,
    "position": dict,
    "sums": Tensor,
    "history": list,
    "seconds": (int, float),
}


def write_checkpoint(path: Path, state: dict[str, Any]) -> None:
    """Write a checkpoint atomically, sealed.

    Raises
    ------
    FileWriteError
        The disk refuses it; the checkpoint before stays as it was.
    """
    write_sealed(path, lambda file: _save(state, file))


def _save(state: dict[str, Any], path: Path) -> None:
    with open(path, "wb") as file:
        watched = _Watched(file)
        try:
            torch.save(state, watched)  # type: ignore[arg-type]
        except RuntimeError as error:
            # Torch says that its archive has the wrong length where the disk is full.
            raise (watched.error or error) from error


class _Watched:
    """A file that remembers what the disk refused."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self.error: OSError | None = None

    def write(self, content: bytes) -> int:
        try:
            return self._file.write(content)
        except OSError as error:
            self.error = error
            raise

    def flush(self) -> None:
        self._file.flush()


def read_checkpoint(path: Path) -> dict[str, Any]:
    """Read a checkpoint: tensors and plain values only, no pickled objects.

    Raises
    ------
    DamagedFileError
        The file is not what `write_checkpoint` wrote, or holds something else than the state of a run.
    """
    check_seal(path, advice=_ADVICE)
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, RuntimeError, EOFError, ValueError, KeyError, pickle.UnpicklingError) as error:
        line = next(iter(str(error).splitlines()), "")
        raise DamagedFileError(f"cannot read checkpoint {path}: {line}; {_ADVICE}") from error
    if not isinstance(state, dict):
        raise DamagedFileError(f"{path} is not a checkpoint of a run; {_ADVICE}")
    for name, kind in _TYPES.items():
        if name not in state:
            raise DamagedFileError(f"checkpoint {path} is incomplete: {name!r} is missing; {_ADVICE}")
        if not isinstance(state[name], kind):
            given = type(state[name]).__name__
            raise DamagedFileError(f"checkpoint {path} is damaged: {name!r} is of the type {given}; {_ADVICE}")
    _check_position(path, state)
    return state


def _check_position(path: Path, state: dict[str, Any]) -> None:
    """Raise unless the place in the run is three counts, and the history has an entry for each finished epoch."""
    position, history = state["position"], state["history"]
    for name in ("epoch", "index", "step"):
        if type(position.get(name)) is not int or position[name] < 0:
            raise DamagedFileError(
                f"checkpoint {path} is damaged: its {name} is {position.get(name)!r}, not a count; {_ADVICE}"
            )
    if len(history) != position["epoch"] or not all(isinstance(entry, dict) for entry in history):
        raise DamagedFileError(
            f"checkpoint {path} is damaged: its history does not fit {position['epoch']} finished epochs; {_ADVICE}"
        )
