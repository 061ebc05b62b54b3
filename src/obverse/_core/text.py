"""Aligns tables of words for terminals and `__str__`, and says what an error says in one line."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from ..errors import ObverseError

__all__ = ["aligned", "one_line", "shown"]

_MOST = 500


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


def one_line(error: BaseException) -> str:
    """The first line of an error's message; the type is named unless Obverse or the system raised it."""
    text = next((line.strip() for line in str(error).splitlines() if line.strip()), "")
    if not isinstance(error, ObverseError | OSError):
        text = f"{type(error).__name__}: {text}" if text else type(error).__name__
    return text if len(text) <= _MOST else text[: _MOST - 1] + "…"


def shown(value: object, most: int = 80) -> str:
    """What was given, as it is written in Python, cut in the middle where it is long."""
    try:
        text = repr(value)
    except ValueError:  # a whole number with more digits than Python converts to text
        return f"a number of about {int(getattr(value, 'bit_length', int)() * 0.30103):,} digits"
    return text if len(text) <= most else f"{text[: most // 2]}…{text[-most // 4 :]}"
