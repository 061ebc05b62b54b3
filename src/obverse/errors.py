"""The error hierarchy: everything Obverse raises on purpose is an `ObverseError`.

Each error is also the standard type it refines, so ``except ValueError`` keeps working.
"""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches

__all__ = [
    "DamagedFileError",
    "FileWriteError",
    "InvalidArgumentError",
    "NonFiniteError",
    "NotSubquadraticError",
    "ObverseError",
    "StateError",
    "UnknownNameError",
    "WrongTypeError",
]


class ObverseError(Exception):
    """Root of every error that Obverse raises on purpose."""


class InvalidArgumentError(ObverseError, ValueError):
    """An argument has a value that is not allowed; the message says what is."""


class UnknownNameError(InvalidArgumentError):
    """A name is not in a catalogue; the message suggests the nearest ones."""

    def __init__(self, kind: str, given: str, known: Iterable[str]) -> None:
        known = sorted(known)
        near = get_close_matches(given.lower(), known, n=3, cutoff=0.5)
        hint = f"; did you mean {' or '.join(repr(name) for name in near)}?" if near else ""
        super().__init__(f"unknown {kind} {given!r}{hint} Known: {', '.join(known)}.")


class WrongTypeError(ObverseError, TypeError):
    """An argument is of a type that cannot be used; the message says which types can."""


class NotSubquadraticError(InvalidArgumentError):
    """A function is not a subquadratic penalty or a monotone keep probability.

    Attributes
    ----------
    interval : tuple of float or None
        Where it fails, as an interval of weight magnitudes.
    """

    def __init__(self, message: str, interval: tuple[float, float] | None = None) -> None:
        super().__init__(message)
        self.interval = interval


class StateError(ObverseError, RuntimeError):
    """A call came at a time when it cannot be served, such as a step after ``finish()``."""


class NonFiniteError(ObverseError, RuntimeError):
    """A loss, gradient or weight is NaN or infinite; the message names it and the step."""


class DamagedFileError(InvalidArgumentError, StateError):
    """A file is not what was written: cut short, changed, or never sealed; the message names it."""


class FileWriteError(ObverseError, OSError):
    """A file cannot be written; the message names it and the reason, and the old file is as it was."""
