"""Locks of the cells of a comparison between processes of one machine; the system ends those of a process that dies."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from .._core.files import remove_temporaries
from ..errors import FileWriteError, InvalidArgumentError

__all__ = ["FOLDER", "Lock", "Locks"]

FOLDER = "locks"
"""Name of the subfolder with the locks."""

_PATIENCE_SECONDS = 120.0


class Lock:
    """One lock, which at most one process holds."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock = FileLock(path)

    def take(self, timeout: float = 0.0) -> bool:
        """Whether it could be had within ``timeout`` seconds."""
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._lock.acquire(timeout=timeout)
        except Timeout:
            return False
        except OSError as error:
            raise FileWriteError(f"cannot write {self.path}: {error.strerror or error}") from error
        return True

    def release(self) -> None:
        """Let others have it."""
        self._lock.release()


class Locks:
    """The locks of an output folder, by name.

    Parameters
    ----------
    folder : Path
        They are files in its subfolder `FOLDER`.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def get(self, name: str) -> Lock:
        """The lock of that name, not taken."""
        return Lock(self._folder / FOLDER / f"{name}.lock")

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Keep other processes that use the folder from doing this at the same time.

        Raises
        ------
        InvalidArgumentError
            When another process does not come to an end.
        """
        lock = self.get("study")
        if not lock.take(_PATIENCE_SECONDS):
            raise InvalidArgumentError(f"another process keeps the study in {self._folder} locked")
        try:
            remove_temporaries(self._folder)
            yield
        finally:
            lock.release()
