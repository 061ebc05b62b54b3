"""The journal of a comparison: an Optuna journal file whose lines carry digests, and which survives a torn end."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from ..errors import DamagedFileError, FileWriteError

__all__ = ["journal"]

_DIGEST = "digest"
_BLOCK = 1 << 16


def journal(path: str) -> Any:
    """A backend of `optuna.storages.JournalStorage` on a file, which is made if it is missing.

    Each line is one operation as JSON, as Optuna's own backend writes it, with a digest of the rest of the line beside
    it; Optuna reads such a file as well. A process that is killed, or a disk that is full, in the middle of a line
    leaves a torn end: it is no operation yet, and the next writer removes it. Any other line that is not what was
    written is refused. Lines without a digest, which other programs may add, are taken as they are.
    """
    from optuna.storages.journal import BaseJournalBackend, JournalFileOpenLock

    class Journal(BaseJournalBackend):
        def __init__(self, path: Path) -> None:
            self._path = path
            # A lock that is a file of its own: it works on network drives, and one left by a kill ends by itself.
            self._lock = JournalFileOpenLock(str(path))
            # Where each operation begins; what was read once is not read again.
            self._starts = [0]
            if not path.exists():
                with _refusals(path), open(path, "ab"):
                    pass

        def read_logs(self, log_number_from: int) -> Generator[dict[str, Any], None, None]:
            number = min(log_number_from, len(self._starts) - 1)
            with open(self._path, "rb") as file:
                file.seek(self._starts[number])
                for line in file:
                    if not line.endswith(b"\n"):
                        return  # torn, or still being written
                    number += 1
                    operation = _operation(line, self._path, number)
                    if number == len(self._starts):
                        self._starts.append(self._starts[-1] + len(line))
                    if number > log_number_from:
                        yield operation

        def append_logs(self, logs: list[dict[str, Any]]) -> None:
            content = b"".join(_line(log) for log in logs)
            with _refusals(self._path):
                self._lock.acquire()
                try:
                    with open(self._path, "r+b", buffering=0) as file:
                        _append(file, content)
                finally:
                    self._lock.release()

    return Journal(Path(path))


def _line(operation: dict[str, Any]) -> bytes:
    text = json.dumps(operation, separators=(",", ":"))
    return json.dumps({**json.loads(text), _DIGEST: _digest(text)}, separators=(",", ":")).encode() + b"\n"


def _operation(line: bytes, path: Path, number: int) -> dict[str, Any]:
    """The operation of a line, without its digest."""
    try:
        operation = json.loads(line)
        digest = operation.pop(_DIGEST, None)
    except (ValueError, AttributeError, TypeError, RecursionError) as error:
        raise _damaged(path, number) from error
    if digest is not None and digest != _digest(json.dumps(operation, separators=(",", ":"))):
        raise _damaged(path, number)
    return dict(operation)


def _damaged(path: Path, number: int) -> DamagedFileError:
    return DamagedFileError(
        f"{path} is damaged in line {number}; delete it, and the same command makes the study again from compare.json "
        "and cells"
    )


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def _append(file: IO[bytes], content: bytes) -> None:
    """Write at the end, after a torn line is removed; what the disk does not take whole is taken back."""
    end = _end_of_lines(file)
    file.truncate(end)
    file.seek(end)
    try:
        rest = memoryview(content)
        while rest:
            rest = rest[file.write(rest) :]
        os.fsync(file.fileno())
    except OSError:
        file.truncate(end)
        raise


def _end_of_lines(file: IO[bytes]) -> int:
    """Where the last whole line ends."""
    end = file.seek(0, os.SEEK_END)
    while end > 0:
        start = max(0, end - _BLOCK)
        file.seek(start)
        place = file.read(end - start).rfind(b"\n")
        if place >= 0:
            return start + place + 1
        end = start
    return 0


@contextmanager
def _refusals(path: Path) -> Generator[None, None, None]:
    try:
        yield
    except OSError as error:
        raise FileWriteError(f"cannot write {path}: {error.strerror or error}") from error
