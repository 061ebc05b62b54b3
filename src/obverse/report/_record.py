"""Reading the record of a run with patience: a field may be missing, null, or of another shape."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any, final

__all__ = ["Record", "as_number", "as_numbers", "as_text"]


def as_number(value: Any) -> float | None:
    """A real number (it may be infinite), or None. NaN counts as missing; so does a truth value."""
    if isinstance(value, bool) or value is None:
        return None
    try:
        # Strings too: JSON has no infinity, and writers spell it "inf".
        number = float(value)
    except (TypeError, ValueError, OverflowError):
        return None
    return None if math.isnan(number) else number


def as_numbers(value: Any) -> list[float]:
    """A list of finite numbers; empty if ``value`` is anything else."""
    if not isinstance(value, list | tuple):
        return []
    numbers = [as_number(item) for item in value]
    return [] if any(n is None or math.isinf(n) for n in numbers) else [n for n in numbers if n is not None]


def as_text(value: Any, most: int = 160) -> str:
    """A value as text, cut at ``most`` letters; empty where there is none."""
    if value is None:
        return ""
    text = str(value)
    return text if len(text) <= most else text[: most - 1] + "…"


@final
class Record:
    """A mapping seen by dotted path; what is not there gives None, an empty list or an empty record."""

    def __init__(self, content: Any) -> None:
        self.content: Mapping[str, Any] = content if isinstance(content, Mapping) else {}

    @classmethod
    def of(cls, content: Mapping[str, Any]) -> Record:
        """Through JSON and back: whatever came in, from here on there are only JSON's own types."""
        return cls(json.loads(json.dumps(dict(content), default=_plain, skipkeys=True)))

    def __bool__(self) -> bool:
        return bool(self.content)

    def get(self, path: str) -> Any:
        """Whatever lies at ``path``, or None."""
        found: Any = self.content
        for key in path.split("."):
            if not isinstance(found, Mapping):
                return None
            found = found.get(key)
        return found

    def number(self, path: str) -> float | None:
        return as_number(self.get(path))

    def text(self, path: str, most: int = 160) -> str:
        return as_text(self.get(path), most)

    def numbers(self, path: str) -> list[float]:
        return as_numbers(self.get(path))

    def record(self, path: str) -> Record:
        return Record(self.get(path))

    def items(self, path: str) -> list[Any]:
        found = self.get(path)
        return list(found) if isinstance(found, list | tuple) else []

    def records(self, path: str) -> list[Record]:
        return [Record(item) for item in self.items(path) if isinstance(item, Mapping)]


def _plain(value: Any) -> Any:
    """JSON for what JSON does not know: arrays as lists, NumPy numbers as numbers, anything else as text."""
    listed = getattr(value, "tolist", None)
    return listed() if callable(listed) else str(value)
