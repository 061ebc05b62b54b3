"""From the record of a comparison to one page: methods by budgets, and error against size."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..errors import InvalidArgumentError
from ._pareto import Style, pareto_figure, styles
from ._provenance import as_yaml, version_rows
from ._record import Record, as_text
from ._template import write_page
from ._wording import MISSING, count, duration, number, percent, plural

__all__ = ["write_comparison"]

_MOST_METHODS = 60
_MOST_CELLS = 2000
_YARDSTICK = "magnitude"


def write_comparison(comparison: Mapping[str, Any], path: str | os.PathLike[str]) -> Path:
    """Write the page of a comparison: one HTML file that needs no network.

    The page has the table of test errors, the plot of error against size with intervals, every cell with its state,
    and where it all came from. The same record gives the same bytes.

    Parameters
    ----------
    comparison : mapping
        The content of ``compare.json``. Fields may be missing or null. All text from it is escaped.
    path : path-like
        Where the page goes; missing folders are made, an existing file is replaced.

    Returns
    -------
    Path
        The file written.

    Raises
    ------
    InvalidArgumentError
        If ``comparison`` is not a mapping.
    OSError
        If the file cannot be written.
    """
    if not isinstance(comparison, Mapping):
        raise InvalidArgumentError(
            f"comparison must be a mapping, such as the content of compare.json, got {type(comparison).__name__}"
        )
    return write_page("comparison.html.j2", _content(Record.of(comparison)), path)


def _content(record: Record) -> dict[str, Any]:
    rows, cells = record.records("summary"), record.records("cells")
    methods = list(dict.fromkeys(row.text("method", 80) for row in rows))[:_MOST_METHODS]
    marks = styles(methods)
    budgets = sorted({budget for row in rows if (budget := row.number("budget")) is not None and 0 < budget < 1})
    seeds = len(record.items("seeds"))
    where = " on ".join(part for part in (record.text("model.name", 80), record.text("data.name", 80)) if part)
    states = [cell.text("state", 20) for cell in cells]
    return {
        "title": where or "A comparison",
        "version": record.text("obverse", 40),
        "sentence": _sentence(len(methods), len(budgets), seeds, states),
        "findings": [finding for budget in budgets if (finding := _finding(rows, budget))],
        "pareto": pareto_figure(rows, marks),
        "marks": [marks[method] for method in methods],
        "table": _table(rows, methods, budgets, marks),
        "seeds": seeds,
        "has_yardstick": _YARDSTICK in methods,
        "cells": [_cell(cell) for cell in cells[:_MOST_CELLS]],
        "cells_left_out": max(0, len(cells) - _MOST_CELLS),
        "command": record.text("command", 4000),
        "recipe": as_yaml(record.get("recipe")),
        "versions": version_rows(record),
        "weights": count(record.number("model.weights")),
    }


def _sentence(methods: int, budgets: int, seeds: int, states: list[str]) -> str:
    """What was compared, and how far it has come."""
    if not states:
        return "There are no results on record."
    done, failed = states.count("done"), states.count("failed")
    text = f"{plural(methods, 'method')} at {plural(budgets, 'budget')} with {plural(seeds, 'seed')}"
    if done == len(states):
        return f"{text}: all {plural(done, 'run')} are done."
    rest = f", {plural(failed, 'run')} failed" if failed else ""
    return f"{text}: {done} of {plural(len(states), 'run')} are done{rest}."


def _finding(rows: list[Record], budget: float) -> str:
    """One budget in words; empty where nothing was measured."""
    here = [row for row in rows if row.number("budget") == budget and row.number("test_error.mean") is not None]
    if not here:
        return ""
    best = min(here, key=lambda row: row.number("test_error.mean") or 0.0)
    text = f"At {_budget(budget)} zeros, {best.text('method', 80)} has the lowest mean test error: {_error(best)}."
    others = [row for row in here if row is not best]
    if not others:
        return text
    if any(row.number("test_error.interval") is None for row in here):
        return f"{text} Without several seeds for every method, there are no intervals to tell it from the others."
    high = _end(best, 1)
    overlap = sum(_end(row, -1) <= high for row in others)
    yardstick = next((row for row in others if row.text("method") == _YARDSTICK), None)
    if yardstick is not None:
        text += f" Gradual magnitude pruning has {_error(yardstick)}."
    return f"{text} The intervals of {overlap} of {plural(len(others), 'other method')} overlap with its own."


def _end(row: Record, side: int) -> float:
    return (row.number("test_error.mean") or 0.0) + side * (row.number("test_error.interval") or 0.0)


def _table(
    rows: list[Record], methods: list[str], budgets: list[float], marks: dict[str, Style]
) -> dict[str, Any] | None:
    """Methods by budgets; dense training, which has none, comes first."""
    if not methods:
        return None
    columns: list[float | None] = [*budgets]
    if any(row.number("budget") is None for row in rows):
        columns.insert(0, None)
    found = {(row.text("method", 80), row.number("budget")): row for row in rows}
    return {
        "head": ["dense" if budget is None else _budget(budget) for budget in columns],
        "kept": ["all weights" if budget is None else f"keeps {number(100 * (1 - budget))}%" for budget in columns],
        "rows": [
            {"mark": marks[method], "entries": [_entry(found.get((method, budget))) for budget in columns]}
            for method in methods
        ],
    }


def _entry(row: Record | None) -> dict[str, Any]:
    if row is None:
        return {"mean": "", "half": "", "remark": "", "best": False, "key": 1e9}
    mean, half = row.number("test_error.mean"), row.number("test_error.interval")
    remarks = []
    missing, failed, seeds = (row.number(name) or 0.0 for name in ("missing", "failed", "seeds"))
    if failed:
        remarks.append(f"{failed:.0f} failed")
    if missing and mean is not None:
        remarks.append(f"{seeds:.0f} of {seeds + missing:.0f} seeds")
    if note := row.text("note", 120):
        remarks.append(note)
    return {
        "mean": MISSING if mean is None else percent(mean, 2),
        "half": "" if half is None or not math.isfinite(half) else f"± {100 * half:.2f}",
        "remark": "; ".join(remarks),
        "best": row.get("best") is True,
        "key": 1e9 if mean is None or not math.isfinite(mean) else mean,
    }


def _cell(cell: Record) -> list[dict[str, Any]]:
    """One line of the table of cells: text to show and value to sort by."""
    budget = cell.number("budget")
    shown: list[tuple[str, float | None]] = [
        (cell.text("method", 80), None),
        (MISSING if budget is None else _budget(budget), budget),
        (cell.text("seed", 24), cell.number("seed")),
        (percent(cell.number("test_error"), 2), cell.number("test_error")),
        (percent(cell.number("validation_error"), 2), cell.number("validation_error")),
        (percent(cell.number("sparsity"), 2), cell.number("sparsity")),
        (count(cell.number("weights")), cell.number("weights")),
        (duration(cell.number("seconds")), cell.number("seconds")),
    ]
    entries = [
        {"text": text, "key": None if i == 0 else -1 if key is None or math.isinf(key) else key}
        for i, (text, key) in enumerate(shown)
    ]
    state = cell.text("state", 20)
    remark = "; ".join(part for part in (cell.text("error", 300), cell.text("note", 120)) if part)
    entries.append({"text": f"{state}: {remark}" if remark else state, "key": None})
    return entries


def _error(row: Record) -> str:
    half = row.number("test_error.interval")
    return percent(row.number("test_error.mean"), 2) + (f" ± {100 * half:.2f}" if half is not None else "")


def _budget(budget: float) -> str:
    return as_text(f"{100 * budget:.6g}%")
