"""Finding what cannot follow: of many parts of a plan, those without which the rest works."""

from __future__ import annotations

import re
from collections.abc import Callable, Hashable, Iterable, Sequence
from typing import TypeVar

__all__ = ["culprits", "pattern_of"]

T = TypeVar("T")


def pattern_of(names: Iterable[str]) -> Hashable:
    """The names without their numbers: the same for the same part of every repetition of a block."""
    return tuple(sorted({re.sub(r"\d+", "#", name) for name in names}))


def culprits(parts: Sequence[T], pattern: Callable[[T], Hashable], works: Callable[[Sequence[T]], bool]) -> list[T]:
    """The parts to leave out so that all others work together.

    Parameters
    ----------
    parts : sequence
        They do not work as they are.
    pattern : callable
        Parts of one pattern stand or fall together as a rule: if the first one fails alone, none is tried further.
    works : callable
        Whether some of the parts work together.
    """
    families: dict[Hashable, list[T]] = {}
    for part in parts:
        families.setdefault(pattern(part), []).append(part)
    groups = list(families.values())
    bad: list[T] = []
    for group in _failing(groups, lambda some: works([part for one in some for part in one])):
        bad += group if len(group) == 1 or not works(group[:1]) else _failing(group, works)
    good = [part for part in parts if not any(part is one for one in bad)]
    if good and not works(good):
        # Parts that work alone and not together: keep adding while it works.
        kept: list[T] = []
        for group in groups:
            more = [part for part in group if not any(part is one for one in bad)]
            if more and works([*kept, *more]):
                kept += more
        bad = [part for part in parts if not any(part is one for one in kept)]
    return bad


def _failing(parts: Sequence[T], works: Callable[[Sequence[T]], bool]) -> list[T]:
    if works(parts):
        return []
    if len(parts) == 1:
        return list(parts)
    middle = len(parts) // 2
    return [*_failing(parts[:middle], works), *_failing(parts[middle:], works)]
