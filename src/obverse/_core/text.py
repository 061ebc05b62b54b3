"""Aligns tables of words for terminals and `__str__`, and says what an error says in one line."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from ..errors import ObverseError

__all__ = ["aligned", "brief", "one_line"]

_MOST = 500
_MOST_OF_A_VALUE = 120


def aligned(rows: Sequence[Sequence[str]], left: Collection[int] = (0,)) -> str:
    """The rows below each other, columns two spaces apart.

    Parameters
    ----------
    rows : sequence of sequences of str
        The head first; all of the same length.
    left : collection of int
        Columns that are flush left; the others, which hold numbers, are flush right.
    """
    widths = [max(len(cell) for cell in column) for column in zip(*rows, strict=True)]
    return "\n".join(
        "  ".join(
            cell.ljust(width) if place in left else cell.rjust(width)
            for place, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    )


def brief(value: object) -> str:
    """How a message shows a value: its ``repr`` in one line, cut where it is long."""
    text = " ".join(repr(value).split())
    return text if len(text) <= _MOST_OF_A_VALUE else text[: _MOST_OF_A_VALUE - 1] + "…"


def one_line(error: BaseException) -> str:
    """The first line of an error's message; the type is named unless Obverse or the system raised it."""
    text = next((line.strip() for line in str(error).splitlines() if line.strip()), "")
    if not isinstance(error, ObverseError | OSError):
        text = f"{type(error).__name__}: {text}" if text else type(error).__name__
    return text if len(text) <= _MOST else text[: _MOST - 1] + "…"
