"""Keeps the results that a run replaces until those that take their place are there."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from ._interrupt import InterruptedRunError

__all__ = ["Replaced"]


class Replaced:
    """What ``--overwrite`` replaces, set aside in a hidden subfolder on the same disk.

    Parameters
    ----------
    folder : Path
        The output folder, held by this process.
    patterns : sequence of str
        What a run writes, as glob patterns relative to the folder; nothing else is touched. The first one is the
        recipe, by which an interrupted move is found.

    Notes
    -----
    Every entry is moved by a rename. While a move is under way the subfolder is called ``.replacing``, and
    ``.replaced`` once it is complete, so that `recover` can undo what a killed process left half done.
    """

    def __init__(self, folder: Path, patterns: Sequence[str]) -> None:
        self._folder, self._patterns = folder, tuple(patterns)
        self.place = folder / ".replaced"
        self._moving = folder / ".replacing"

    @contextmanager
    def kept(self, put_back: bool) -> Iterator[None]:
        """Keep what is set aside until the block has ended well; with ``put_back``, an error brings it back.

        An interruption does not: the run goes on later, and says where the earlier results are until then.
        """
        try:
            yield
        except KeyboardInterrupt as error:
            if isinstance(error, InterruptedRunError) and self.exists():
                raise InterruptedRunError(f"{error}; {self.note}") from error
            raise
        except Exception:
            if put_back:
                self.put_back()
            raise
        self.drop()

    @property
    def note(self) -> str:
        """Where the earlier results are, for a message."""
        return f"until the run is finished, {self.place} keeps what it replaces"

    def exists(self) -> bool:
        """Whether earlier results are set aside."""
        return self.place.is_dir()

    def recover(self) -> None:
        """Put back what a process that was killed in the middle of a move had set aside."""
        if self._moving.is_dir():
            self._return()

    def set_aside(self) -> None:
        """Move the results out of the way; those of an unfinished run that already replaced some are deleted."""
        if self.exists():
            self._delete()
            return
        self._moving.mkdir(exist_ok=True)
        for path in reversed(list(self._entries(self._folder))):
            target = self._moving / path.relative_to(self._folder)
            target.parent.mkdir(parents=True, exist_ok=True)
            os.replace(path, target)
        self._prune()
        os.replace(self._moving, self.place)

    def put_back(self) -> None:
        """Delete what the new run wrote, and bring the earlier results back."""
        if self.exists():
            self._delete()
            os.replace(self.place, self._moving)
            self._return()

    def drop(self) -> None:
        """Delete the earlier results: the new ones are there."""
        shutil.rmtree(self.place, ignore_errors=True)

    def _return(self) -> None:
        for path in self._entries(self._moving):
            target = self._folder / path.relative_to(self._moving)
            target.parent.mkdir(parents=True, exist_ok=True)
            os.replace(path, target)
        shutil.rmtree(self._moving)

    def _delete(self) -> None:
        for path in self._entries(self._folder):
            if path.is_dir():
                shutil.rmtree(path)
            else:
                path.unlink()
        self._prune()

    def _entries(self, root: Path) -> Iterator[Path]:
        for pattern in self._patterns:
            yield from sorted(root.glob(pattern))

    def _prune(self) -> None:
        """Remove the subfolders that are empty now."""
        for name in {pattern.partition("/")[0] for pattern in self._patterns if "/" in pattern}:
            for path in self._folder.glob(name):
                if path.is_dir() and not any(path.iterdir()):
                    path.rmdir()
