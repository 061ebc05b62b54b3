"""Where numbers came from: the recipe and the versions, as a page shows them."""

from __future__ import annotations

from typing import Any

from ._record import Record, as_text

__all__ = ["as_yaml", "version_rows"]

_MOST_RECIPE = 12_000


def as_yaml(recipe: Any) -> str:
    """The recipe as YAML, in the order it was given; text as it is."""
    if recipe is None or recipe in ({}, [], ""):
        return ""
    if isinstance(recipe, str):
        text = recipe
    else:
        import yaml

        text = yaml.safe_dump(recipe, sort_keys=False, allow_unicode=True, width=88)
    return as_text(text.rstrip(), _MOST_RECIPE)


def version_rows(record: Record) -> list[tuple[str, str]]:
    """Name and version of what the numbers depend on."""
    found = record.get("versions")
    if not isinstance(found, dict):
        return []
    return [(as_text(k, 40), as_text(v, 60)) for k, v in list(found.items())[:40]]
