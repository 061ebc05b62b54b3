"""The numbers of a comparison, as they are written to ``compare.json``."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any

from .. import __version__
from ._cells import Cell
from ._methods import DENSE, MAGNITUDE, SMALL
from ._record import t_interval, versions
from ._shared_study import CellRecord

__all__ = ["cell_result", "comparison_record", "summarize"]

NUMBERS = ("sparsity", "weights", "kept", "test_error", "test_loss", "validation_error", "seconds", "width")
"""Fields of a cell that are null until it is done."""


def cell_result(metrics: dict[str, Any], model_weights: int, reference_weights: int) -> dict[str, Any]:
    """What a comparison keeps of a run.

    Parameters
    ----------
    metrics : dict
        The content of the run's ``metrics.json``.
    model_weights, reference_weights : int
        Weights in the matrices of the run's model, and of the model at its full width.
    """
    (run,) = metrics["runs"]
    zeros = run["zero_weights"]
    kept = (model_weights - zeros) / reference_weights
    return {
        "sparsity": 1 - kept,
        "weights": model_weights - zeros,
        "kept": kept,
        "test_error": run["test"]["error"],
        "test_loss": run["test"]["loss"],
        "validation_error": run["validation"]["error"],
        "seconds": run["seconds"],
        "width": metrics["recipe"].get("width", 1.0),
    }


def comparison_record(
    about: dict[str, Any], records: Iterable[CellRecord], folders: dict[Cell, str], command: str, storage: str
) -> dict[str, Any]:
    """The content of ``compare.json``."""
    cells = [_cell(record, folders[record.cell]) for record in records]
    methods = list(dict.fromkeys(cell["method"] for cell in cells))
    budgets = sorted({cell["budget"] for cell in cells if cell["budget"] is not None})
    return {
        "obverse": __version__,
        "command": command,
        "storage": storage,
        **about,
        "versions": versions(),
        "methods": methods,
        "budgets": budgets,
        "seeds": sorted({cell["seed"] for cell in cells}),
        "cells": cells,
        "summary": summarize(cells, methods, budgets),
    }


def summarize(
    cells: Sequence[dict[str, Any]], methods: Iterable[str], budgets: Iterable[float]
) -> list[dict[str, Any]]:
    """Means over the seeds of each method and budget, with 95 % t-intervals (half widths; None for one seed).

    ``best`` marks, for each budget, the method of the lowest mean test error, where its interval and that of gradual
    magnitude pruning have no point in common. Without that method, or with one seed, nothing is marked.
    """
    budgets = list(budgets)
    rows = [
        _row(cells, method, budget)
        for method in methods
        for budget in ([None] if method == DENSE else budgets)
        if any(cell["method"] == method and cell["budget"] == budget for cell in cells)
    ]
    for budget in budgets:
        rivals = [row for row in rows if row["budget"] == budget and row["test_error"]["mean"] is not None]
        yardstick = next((row["test_error"] for row in rivals if row["method"] == MAGNITUDE), None)
        if yardstick is None:
            continue
        best = min(rivals, key=lambda row: float(row["test_error"]["mean"]))
        best["best"] = _below(best["test_error"], yardstick)
    return rows


def _cell(record: CellRecord, folder: str) -> dict[str, Any]:
    result = record.result or {}
    return {
        **record.cell.to_dict(),
        "state": record.state,
        **{name: result.get(name) for name in NUMBERS},
        "error": record.error,
        "note": _note(record, result),
        "folder": folder,
    }


def _note(record: CellRecord, result: dict[str, Any]) -> str | None:
    """What a reader must know to read the numbers right."""
    if record.cell.method != SMALL or record.cell.budget is None or "kept" not in result:
        return None
    asked = 1 - record.cell.budget
    if abs(result["kept"] - asked) <= 0.05 * asked:
        return None
    more = "more" if result["kept"] > asked else "less"
    return f"no width comes nearer: keeps {100 * result['kept']:.3g}%, {more} than the {100 * asked:.3g}% asked for"


def _row(cells: Sequence[dict[str, Any]], method: str, budget: float | None) -> dict[str, Any]:
    mine = [cell for cell in cells if cell["method"] == method and cell["budget"] == budget]
    done = [cell for cell in mine if cell["state"] == "done"]
    return {
        "method": method,
        "budget": budget,
        "seeds": len(done),
        "missing": len(mine) - len(done),
        "failed": sum(cell["state"] == "failed" for cell in mine),
        **{name: _spread([cell[name] for cell in done]) for name in ("test_error", "validation_error", "kept")},
        "weights": _mean([cell["weights"] for cell in done]),
        "seconds": _mean([cell["seconds"] for cell in done]),
        "best": False,
        "note": next((cell["note"] for cell in done if cell["note"]), None),
    }


def _spread(values: Sequence[float]) -> dict[str, float | None]:
    return {"mean": _mean(values), "interval": t_interval(values)}


def _mean(values: Sequence[float]) -> float | None:
    return math.fsum(values) / len(values) if values else None


def _below(one: dict[str, float | None], other: dict[str, float | None]) -> bool:
    """Whether an interval lies wholly below another; False where either is unknown."""
    if None in one.values() or None in other.values():
        return False
    a, b = {k: float(v or 0.0) for k, v in one.items()}, {k: float(v or 0.0) for k, v in other.items()}
    return a["mean"] + a["interval"] < b["mean"] - b["interval"]
