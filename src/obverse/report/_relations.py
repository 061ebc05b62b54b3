"""Which classes a network has learned to take for related, as a table with shades."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from ._record import Record, as_text
from ._wording import percent, plural

__all__ = ["relation_table"]

_MOST_CLASSES = 20
_MOST_PAIRS = 30


def relation_table(matrix: Any, names: Sequence[Any] = ()) -> dict[str, Any] | None:
    """Soft labels of classes as rows of a heat map; of many classes the strongest relations.

    Parameters
    ----------
    matrix : list of list of float
        (K, K) row k is what class k is trained on besides its own label, such as `LabelCriterion.class_relations`
        gives.
    names : sequence
        Of the classes; by default their numbers.

    Returns
    -------
    dict or None
        What ``relations_section`` of ``relations.html.j2`` shows; None for anything that is no square matrix.
    """
    rows = [Record({"row": row}).numbers("row") for row in matrix] if isinstance(matrix, list | tuple) else []
    if not rows or any(len(row) != len(rows) for row in rows):
        return None
    known = [as_text(name, 60) for name in names]
    labels = known if len(known) == len(rows) else [str(i) for i in range(len(rows))]
    strongest = sorted(
        ((value, i, j) for i, row in enumerate(rows) for j, value in enumerate(row) if i != j and value > 0),
        key=lambda found: (-found[0], found[1], found[2]),
    )
    pairs = [{"from": labels[i], "to": labels[j], "share": percent(value)} for value, i, j in strongest[:_MOST_PAIRS]]
    table = [] if len(rows) > _MOST_CLASSES else [_row(labels, i, row) for i, row in enumerate(rows)]
    return {
        "names": labels if table else [],
        "rows": table,
        "pairs": pairs,
        "classes": plural(len(rows), "class", "classes"),
        "long": max(len(name) for name in labels) > 3,
    }


def _row(labels: Sequence[str], i: int, row: Sequence[float]) -> dict[str, Any]:
    cells = []
    for j, value in enumerate(row):
        share = min(max(value, 0.0), 1.0)
        cells.append(
            {
                "share": f"{100 * value:.0f}" if value >= 0.005 else "",
                "diagonal": i == j,
                # Square root: a relation of five percent must be seen beside one of fifty.
                "shade": f"{100 * math.sqrt(share):.0f}%" if value > 0 else "",
                "title": f"{labels[i]} is related to {labels[j]} by {percent(value)}",
            }
        )
    return {"name": labels[i], "cells": cells}
