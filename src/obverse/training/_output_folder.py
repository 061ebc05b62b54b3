"""Whether a run may write to a folder: an earlier run in it is only touched when that was asked for."""

from __future__ import annotations

from collections.abc import Set
from pathlib import Path

from ..errors import InvalidArgumentError

__all__ = ["check_folder"]


def check_folder(folder: Path, resume: bool, overwrite: bool, worthless: Set[str] = frozenset()) -> None:
    """Raise unless the folder is new or empty, but for ``worthless`` names, or is to be resumed or replaced."""
    if resume and overwrite:
        raise InvalidArgumentError("--resume keeps what the folder holds and --overwrite replaces it: give one of them")
    if folder.exists() and not folder.is_dir():
        raise InvalidArgumentError(f"output folder {folder} is a file")
    if folder.is_dir() and {path.name for path in folder.iterdir()} - worthless and not resume and not overwrite:
        raise InvalidArgumentError(
            f"output folder {folder} is not empty; choose another with --out, go on with --resume, "
            "or replace it with --overwrite"
        )
