"""Which classes are taken for which, as a table with shades."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from ._record import Record, as_text
from ._wording import count, percent

__all__ = ["confusion_table"]

_MOST_CLASSES = 20


def confusion_table(record: Record, runs: Sequence[Record]) -> dict[str, Any] | None:
    """Counts of true class by predicted class, summed over the runs; None beyond some 20 classes."""
    total: list[list[float]] = []
    seeds = 0
    for run in runs:
        rows = [Record({"row": row}).numbers("row") for row in run.items("test.confusion")]
        if not 0 < len(rows) <= _MOST_CLASSES or any(len(row) != len(rows) for row in rows):
            continue
        if not total:
            total = [[0.0] * len(rows) for _ in rows]
        if len(total) == len(rows):
            total = [[a + b for a, b in zip(x, y, strict=True)] for x, y in zip(total, rows, strict=True)]
            seeds += 1
    if not total:
        return None
    given = [as_text(name, 60) for name in record.items("data.classes")]
    names = given if len(given) == len(total) else [str(i) for i in range(len(total))]
    rows_out = []
    for i, row in enumerate(total):
        amount = math.fsum(row)
        cells = []
        for j, value in enumerate(row):
            share = value / amount if amount > 0 else 0.0
            # Square root: a class that loses two in a hundred must be seen beside one that loses none.
            cells.append(
                {
                    "count": count(value) if value else "",
                    "diagonal": i == j,
                    "shade": f"{100 * math.sqrt(min(max(share, 0.0), 1.0)):.0f}%" if value > 0 else "",
                    "title": f"{names[i]} taken for {names[j]}: {count(value)} of {count(amount)}",
                }
            )
        right = percent(row[i] / amount if amount > 0 else None, 2)
        rows_out.append({"name": names[i], "cells": cells, "right": right})
    long = max(len(name) for name in names) > 3
    return {"names": names, "rows": rows_out, "seeds": seeds, "long": long}
