"""What a Sparsifier has to say: one line each, warned of at once and kept for the record of the run."""

from __future__ import annotations

import sys
import warnings

__all__ = ["Notes", "SparsityWarning"]

# Modules between the user's line and the one that warns.
_INSIDE = (__package__, "torch.utils._contextlib")


class SparsityWarning(UserWarning):
    """A budget was missed, or a run ended otherwise than its settings suggest; the message says how and why."""


class Notes:
    """The lines of one run, each said once.

    Attributes
    ----------
    lines : list of str
    """

    def __init__(self) -> None:
        self.lines: list[str] = []

    def say(self, line: str) -> None:
        """Keep the line, and warn of it at the user's line that led here."""
        if line in self.lines:
            return
        self.lines.append(line)
        frame, depth = sys._getframe(1), 2
        while frame.f_back is not None and frame.f_globals.get("__name__", "").startswith(_INSIDE):
            frame, depth = frame.f_back, depth + 1
        warnings.warn(line, SparsityWarning, stacklevel=depth)
