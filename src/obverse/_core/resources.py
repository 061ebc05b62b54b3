"""Says what this process may use of the machine, cores and memory, and refuses what does not fit before it is tried.

The numbers of a machine are not those of a process: a scheduler pins it to some cores, a container limits its time and
its memory, and a shell its address space. The smallest of these limits holds.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path

from ..errors import InvalidArgumentError

__all__ = ["available_cores", "available_memory", "byte_size", "check_memory", "is_out_of_memory"]

_CGROUPS = Path("/sys/fs/cgroup")
_PROC = Path("/proc")
# What torch and CUDA say when an allocation fails; both are a plain RuntimeError in some releases.
_EXHAUSTED = ("can't allocate memory", "not enough memory", "out of memory")


def available_cores() -> int:
    """Number of cores that this process may keep busy: those it is pinned to, within the limit of its container."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    for folder in _control_groups("cpu"):
        quota = _words(folder / "cpu.max") or [
            *_words(folder / "cpu.cfs_quota_us"),
            *_words(folder / "cpu.cfs_period_us"),
        ]
        if len(quota) == 2 and quota[0].isdecimal() and int(quota[1]) > 0:
            cores = min(cores, int(quota[0]) // int(quota[1]))
    return max(1, cores)


def available_memory() -> int | None:
    """Bytes that this process can still allocate without swapping; None where the system does not say."""
    limits = [*_free_memory(), *_free_address_space()]
    for folder in _control_groups("memory"):
        for most, used in (("memory.max", "memory.current"), ("memory.limit_in_bytes", "memory.usage_in_bytes")):
            numbers = [*_words(folder / most), *_words(folder / used)]
            if len(numbers) == 2 and all(number.isdecimal() for number in numbers):
                limits.append(int(numbers[0]) - int(numbers[1]) + _reclaimable(folder))
    return max(0, min(limits)) if limits else None


def check_memory(needed: int, what: str, advice: str) -> None:
    """Raise unless ``needed`` bytes are available.

    Parameters
    ----------
    needed : int
        Bytes.
    what : str
        What needs them, the subject of the sentence, in the plural.
    advice : str
        What to reduce.

    Raises
    ------
    InvalidArgumentError
        Naming both sizes.
    """
    available = available_memory()
    if available is not None and needed > available:
        raise InvalidArgumentError(
            f"{what} need {byte_size(needed)} of memory and {byte_size(available)} are available: {advice}"
        )


def byte_size(count: float) -> str:
    """A number of bytes for a reader, such as ``1.5 GiB``."""
    for unit in ("B", "KiB", "MiB", "GiB", "TiB"):
        if count < 1024:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1024
    return f"{count:.1f} PiB" if count < 1e6 else "over 1,000,000 PiB"


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that memory ran out; NumPy, Arrow and torch have types and texts of their own for it."""
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return True
    return isinstance(error, RuntimeError) and any(words in str(error) for words in _EXHAUSTED)


# ------------------------------------------------------------------------------------------------------- the system
def _control_groups(controller: str) -> Iterator[Path]:
    """Folders of the control groups that hold this process, from its own up to the root, of either version."""
    for line in _lines(_PROC / "self" / "cgroup"):
        _, controllers, place = [*line.split(":", 2), "", ""][:3]
        if controllers and controller not in controllers.split(","):
            continue
        root = _CGROUPS / controller if controllers else _CGROUPS
        parts = [part for part in place.split("/") if part and part != ".."]
        for length in range(len(parts), -1, -1):
            yield root.joinpath(*parts[:length])


def _free_memory() -> Iterator[int]:
    for line in _lines(_PROC / "meminfo"):
        words = line.split()
        if words[:1] == ["MemAvailable:"] and words[1].isdecimal():
            yield 1024 * int(words[1])


def _free_address_space() -> Iterator[int]:
    """What ``ulimit -v`` leaves."""
    if sys.platform == "win32":
        return
    import resource

    limit = resource.getrlimit(resource.RLIMIT_AS)[0]
    used = _words(_PROC / "self" / "statm")
    if limit != resource.RLIM_INFINITY:
        yield limit - (int(used[0]) * resource.getpagesize() if used else 0)


def _reclaimable(folder: Path) -> int:
    """Bytes of cached files, which a control group counts as used and gives up when memory is short."""
    lines = (line.split() for line in _lines(folder / "memory.stat"))
    # The first version counts a group by itself and with its children; the second always does the latter.
    return max(
        (int(words[1]) for words in lines if words[:1] in (["inactive_file"], ["total_inactive_file"])), default=0
    )


def _words(path: Path) -> list[str]:
    return [word for line in _lines(path) for word in line.split()]


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text().splitlines()
    except (OSError, UnicodeDecodeError):
        return []
