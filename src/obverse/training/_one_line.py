"""An error of any kind as one line."""

from __future__ import annotations

from ..errors import ObverseError

__all__ = ["one_line"]

_MOST = 500


def one_line(error: BaseException) -> str:
    """What an error says, in its first line; Obverse's own say it without naming their type."""
    text = next((line.strip() for line in str(error).splitlines() if line.strip()), "")
    if not isinstance(error, ObverseError | OSError):
        text = f"{type(error).__name__}: {text}" if text else type(error).__name__
    return text if len(text) <= _MOST else text[: _MOST - 1] + "…"
