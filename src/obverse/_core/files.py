"""Writes files that are whole or absent, and checks on reading that nobody damaged them.

A writer fills a temporary file beside the target, which then replaces the target in one step: a reader sees the old
file or the new one, whenever a process ends. What a run reads back carries a *seal*, the SHA-256 digest of its own
bytes, so that a flipped bit is refused instead of trained on. A folder that a run writes to is locked.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import secrets
import zipfile
from collections.abc import Callable, Iterator, Mapping, Set
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from ..errors import DamagedFileError, FileWriteError, InvalidArgumentError

__all__ = [
    "LOCK",
    "check_output_folder",
    "check_seal",
    "digest_of",
    "expanded",
    "is_temporary",
    "locked",
    "read_json",
    "remove_temporaries",
    "sealing",
    "unsealed",
    "write_atomically",
    "write_bytes",
    "write_json",
    "write_sealed",
    "write_text",
    "write_together",
]

LOCK = ".lock"
"""Name of the lock file of an output folder."""

_TEMPORARY = re.compile(r"\..+\.tmp(\.[^.]+)?")
_CHUNK = 1 << 22
_COMMENT = b"sha256:"
_YAML = (".yaml", ".yml")
# The digest inside a JSON text, also where that text is a string inside other JSON (the metadata of safetensors).
_FIELD = re.compile(rb'\\?"sha256\\?":\s?\\?"([0-9a-f]{64})\\?"')
_ZEROS = "0" * 64


# ------------------------------------------------------------------------------------------------------ writing
def write_atomically(path: str | os.PathLike[str], write: Callable[[Path], object]) -> Path:
    """Let ``write`` fill a temporary file, then put it in the place of ``path``.

    Parameters
    ----------
    path : path-like
        An existing file is replaced; missing folders are made.
    write : callable
        Gets the path of the temporary file, which lies in the same folder and has the same suffix.

    Returns
    -------
    Path
        The file written.

    Raises
    ------
    FileWriteError
        The disk is full, or the folder cannot be written to. The old file is as it was, and nothing else is left.
    """
    target = Path(path)
    name = f".{target.stem[:100]}.{os.getpid()}-{secrets.token_hex(4)}.tmp{target.suffix}"
    temporary = target.with_name(name)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        write(temporary)
        with open(temporary, "rb+") as file:
            os.fsync(file.fileno())
        os.replace(temporary, target)
        _synchronize(target.parent)
    except OSError as error:
        if isinstance(error, FileWriteError):
            raise
        raise FileWriteError(f"cannot write {target}: {error.strerror or error}") from error
    finally:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)
    return target


def write_together(folder: str | os.PathLike[str], writers: Mapping[str, Callable[[Path], object]]) -> None:
    """Let several writers fill temporary files, then put all of them in their places, in the order given.

    Nothing is replaced before everything is written, so that a full disk leaves all old files as they were.

    Parameters
    ----------
    folder : path-like
        Made if it is missing, and removed again if nothing can be written to it.
    writers : mapping of str to callable
        For every file name, what fills the temporary file; see `write_atomically`.

    Raises
    ------
    FileWriteError
        As `write_atomically`.
    """
    target = Path(folder)
    is_new = not target.exists()
    token = f"{os.getpid()}-{secrets.token_hex(4)}"
    temporaries = {name: target / f".{Path(name).stem[:100]}.{token}.tmp{Path(name).suffix}" for name in writers}
    done = False
    try:
        target.mkdir(parents=True, exist_ok=True)
        for name, write in writers.items():
            write(temporaries[name])
            with open(temporaries[name], "rb+") as file:
                os.fsync(file.fileno())
        for name, temporary in temporaries.items():
            os.replace(temporary, target / name)
        _synchronize(target)
        done = True
    except OSError as error:
        if isinstance(error, FileWriteError):
            raise
        raise FileWriteError(f"cannot write to {target}: {error.strerror or error}") from error
    finally:
        for temporary in temporaries.values():
            with suppress(OSError):
                temporary.unlink(missing_ok=True)
        if is_new and not done:
            with suppress(OSError):
                target.rmdir()


def write_bytes(path: str | os.PathLike[str], content: bytes) -> Path:
    """Write bytes atomically."""
    return write_atomically(path, lambda file: file.write_bytes(content))


def write_text(path: str | os.PathLike[str], text: str) -> Path:
    """Write UTF-8 text atomically, with the line ends as they are."""
    return write_bytes(path, text.encode("utf-8"))


def write_json(path: str | os.PathLike[str], content: Any) -> Path:
    """Write JSON atomically; NaN and infinity are refused, since not every reader knows them."""
    return write_text(path, json.dumps(content, indent=1, allow_nan=False) + "\n")


def _synchronize(folder: Path) -> None:
    """Make the new name of a file survive a power failure, where the system can."""
    if os.name == "nt":
        return
    with suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def is_temporary(name: str) -> bool:
    """Whether a file of that name is what an atomic write leaves when the process is killed in its middle."""
    return _TEMPORARY.fullmatch(name) is not None


def remove_temporaries(folder: Path) -> None:
    """Delete what killed processes left in a folder; only the holder of its lock may do so."""
    for path in folder.iterdir() if folder.is_dir() else ():
        if is_temporary(path.name) and path.is_file():
            path.unlink(missing_ok=True)


# ------------------------------------------------------------------------------------------------------ seals
def write_sealed(path: str | os.PathLike[str], content: Mapping[str, Any] | Callable[[Path], object]) -> Path:
    """Write a file atomically with the digest of its own bytes inside.

    Parameters
    ----------
    path : path-like
        ``.json`` for a mapping; ``.safetensors``, ``.pt``, ``.npz`` or ``.yaml`` for a callable that fills the file.
    content : mapping or callable
        A writer of safetensors must put the field ``"sha256"`` with 64 zeros into the metadata (see `unsealed`).

    Raises
    ------
    FileWriteError
        As `write_atomically`.
    """
    return write_atomically(path, sealing(content))


def sealing(content: Mapping[str, Any] | Callable[[Path], object]) -> Callable[[Path], None]:
    """What fills a file as `write_sealed` does, for `write_together`."""

    def write(file: Path) -> None:
        if isinstance(content, Mapping):
            text = json.dumps({**unsealed(), **content}, indent=1, allow_nan=False) + "\n"
            file.write_text(text, encoding="utf-8")
        else:
            content(file)
        _seal(file)

    return write


def unsealed() -> dict[str, str]:
    """The field of safetensors metadata, or of a JSON string in it, that `write_sealed` fills in."""
    return {"sha256": _ZEROS}


def check_seal(path: str | os.PathLike[str], *, advice: str = "", required: bool = True) -> Path:
    """Raise unless a file is what `write_sealed` wrote, to the last bit.

    Parameters
    ----------
    path : path-like
    advice : str
        What the user can do, for the message.
    required : bool
        Whether a file without a digest is refused, too. A file that people write themselves need not have one.

    Raises
    ------
    DamagedFileError
        The file is missing, cut short or changed, or has no seal.
    """
    try:
        digest_of(path, advice=advice)
    except DamagedFileError as error:
        if required or not isinstance(error.__cause__, _UnsealedError):
            raise
    return Path(path)


def digest_of(path: str | os.PathLike[str], *, advice: str = "") -> str:
    """The digest that a sealed file carries, for a file that pins another; raises as `check_seal`."""
    target = Path(path)
    end = f"; {advice}" if advice else ""
    try:
        stored, found = _stored_and_found(target)
    except (OSError, ValueError) as error:
        raise DamagedFileError(f"{target} is damaged: {getattr(error, 'strerror', None) or error}{end}") from error
    if stored != found:
        raise DamagedFileError(f"{target} is damaged: its content does not match its digest{end}")
    return found


def read_json(path: str | os.PathLike[str], *, sealed: bool = False, advice: str = "") -> Any:
    """Read JSON; with ``sealed``, check the digest and leave it out of the result.

    Raises
    ------
    InvalidArgumentError
        The file cannot be read (`DamagedFileError`, with ``advice``, where its digest does not match).
    """
    target = Path(path)
    if sealed:
        check_seal(target, advice=advice)
    try:
        content = json.loads(target.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise InvalidArgumentError(f"cannot read {target}: {error}") from error
    if sealed:
        content.pop("sha256", None)
    return content


class _UnsealedError(ValueError):
    """A file is whole, as far as one can see, but carries no digest."""


def _seal(path: Path) -> None:
    if path.suffix in _YAML:
        with open(path, "r+b") as file:
            file.seek(0, os.SEEK_END)
            file.write(b"# ")
            file.seek(0)
            digest = _digest_of(file)
            file.write(_COMMENT + digest.encode())
        return
    if zipfile.is_zipfile(path):
        with open(path, "r+b") as file:
            # The last field of a zip archive without a comment is the length of the comment.
            file.seek(-2, os.SEEK_END)
            if file.read(2) != b"\0\0":
                raise ValueError(f"{path} already has a comment")
            file.seek(-2, os.SEEK_END)
            file.write((len(_COMMENT) + 64).to_bytes(2, "little"))
            file.seek(0)
            digest = _digest_of(file)
            file.seek(0, os.SEEK_END)
            file.write(_COMMENT + digest.encode())
        return
    with open(path, "r+b") as file:
        head, place = _head(file)
        if head[place : place + 64] != _ZEROS.encode():
            raise ValueError(f"{path} has no place for a digest")
        digest = _digest_of(file, head)
        file.seek(place)
        file.write(digest.encode())


def _stored_and_found(path: Path) -> tuple[str, str]:
    """The digest that a file carries, and the one of its bytes."""
    length = len(_COMMENT) + 64
    with open(path, "rb") as file:
        if path.suffix not in (".json", ".safetensors"):
            size = file.seek(0, os.SEEK_END)
            if size < length:
                raise (_UnsealedError("it has no digest") if path.suffix in _YAML else ValueError("it is cut short"))
            file.seek(size - length)
            comment = file.read()
            if not comment.startswith(_COMMENT):
                raise _UnsealedError("it has no digest")
            file.seek(0)
            return comment[len(_COMMENT) :].decode("ascii", "replace"), _digest_of(file, stop=size - length)
        head, place = _head(file)
        stored = head[place : place + 64].decode()
        blank = head[:place] + _ZEROS.encode() + head[place + 64 :]
        return stored, _digest_of(file, blank)


def _head(file: Any) -> tuple[bytes, int]:
    """The bytes up to the end of the text that holds the digest, and the digest's place; the rest is still to be read.

    Safetensors begin with the length of their description, JSON with a brace.
    """
    file.seek(0)
    text: bytes = file.read(8)
    if text[:1] == b"{":
        text += file.read()
    else:
        size = int.from_bytes(text, "little")
        text += file.read(size) if size < 100_000_000 else b""
        if len(text) < 8 + size:
            raise ValueError("it is cut short")
    match = _FIELD.search(text)
    if match is None:
        raise _UnsealedError("it has no digest")
    return text, match.start(1)


def _digest_of(file: Any, head: bytes = b"", stop: int | None = None) -> str:
    """SHA-256 of ``head`` and of what is left of a file, up to ``stop``."""
    digest = hashlib.sha256(head)
    while chunk := file.read(_CHUNK if stop is None else min(_CHUNK, stop - file.tell())):
        digest.update(chunk)
    return digest.hexdigest()


# ------------------------------------------------------------------------------------------------------ folders
def expanded(path: str | os.PathLike[str], what: str = "") -> Path:
    """A path from a user, with ``~`` replaced by the home folder.

    Parameters
    ----------
    path : path-like
    what : str
        What the path is, for the message, such as ``"output folder"``.

    Raises
    ------
    InvalidArgumentError
        There is no such home, or the path is empty or holds a null character, which no system accepts.
    """
    text = os.fspath(path)
    if not text or "\0" in text:
        raise InvalidArgumentError(f"{text!r} is no path")
    try:
        return Path(text).expanduser()
    except RuntimeError:
        raise InvalidArgumentError(f"{what} {text}: there is no such home".lstrip()) from None


def check_output_folder(
    folder: Path, *, resume: bool | None = None, overwrite: bool | None = None, worthless: Set[str] = frozenset()
) -> None:
    """Raise unless a command may write to a folder.

    Parameters
    ----------
    folder : Path
        New, empty, or to be resumed or replaced.
    resume, overwrite : bool, optional
        What the user asked for; None where the command has no such option, which is then not advised.
    worthless : set of str
        Names that do not count: what they hold can be lost.

    Raises
    ------
    InvalidArgumentError
        The folder is a file, is not empty, or cannot be read; or both options were given.
    """
    if resume and overwrite:
        raise InvalidArgumentError("--resume keeps what the folder holds and --overwrite replaces it: give one of them")
    try:
        if folder.exists() and not folder.is_dir():
            raise InvalidArgumentError(f"output folder {folder} is a file")
        names = {path.name for path in folder.iterdir()} if folder.is_dir() else set()
    except OSError as error:
        raise InvalidArgumentError(f"cannot use output folder {folder}: {error.strerror or error}") from error
    held = {name for name in names if name != LOCK and not is_temporary(name)} - worthless
    if held and not resume and not overwrite:
        ways = ["choose another with --out"]
        ways += [] if resume is None else ["go on with --resume"]
        ways += [] if overwrite is None else ["replace what it holds with --overwrite"]
        advice = ways[0] if len(ways) == 1 else f"{', '.join(ways[:-1])}, or {ways[-1]}"
        raise InvalidArgumentError(f"output folder {folder} is not empty; {advice}")


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold an output folder, which is made if it is missing, against other processes; the lock ends with the process.

    Raises
    ------
    InvalidArgumentError
        Another process holds it, or the folder cannot be written to.
    """
    from filelock import FileLock, Timeout

    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = FileLock(folder / LOCK)
        lock.acquire(timeout=0)
    except Timeout:
        raise InvalidArgumentError(
            f"another process is writing to {folder}; wait for it, or choose another folder with --out"
        ) from None
    except OSError as error:
        raise InvalidArgumentError(f"cannot use output folder {folder}: {error.strerror or error}") from error
    try:
        remove_temporaries(folder)
        yield
    finally:
        lock.release()
