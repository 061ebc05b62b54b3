"""The last thing a comparison shows: methods by budgets."""

from __future__ import annotations

from typing import Any

from rich.table import Table
from rich.text import Text

from ._methods import DENSE

__all__ = ["comparison_table"]


def comparison_table(comparison: dict[str, Any]) -> Table:
    """A table of the test errors in ``compare.json``: one row per method, one column per budget.

    Intervals are at 95 % by Student's t over the seeds. Bold is the lowest mean of a budget, where its interval is
    disjoint from that of gradual magnitude pruning.
    """
    rows = {(row["method"], row["budget"]): row for row in comparison["summary"]}
    seeds = len(comparison["seeds"])
    over = f"mean and 95 % interval of {seeds} seeds" if seeds > 1 else "one seed, no interval"
    named = "  ".join(str(comparison.get(part, {}).get("name", "")) for part in ("data", "model"))
    table = Table(title=Text(f"{named}  test error in %, {over}"), caption_justify="left")
    table.add_column("method", overflow="fold")
    budgets: list[float | None] = [*([None] if DENSE in comparison["methods"] else []), *comparison["budgets"]]
    for budget in budgets:
        table.add_column("dense" if budget is None else f"{100 * budget:.6g}%", justify="right", overflow="fold")
    notes: list[str] = []
    for method in comparison["methods"]:
        table.add_row(Text(method), *(_entry(rows.get((method, budget)), notes) for budget in budgets))
    if notes:
        table.caption = Text("\n".join(notes))
    return table


def _entry(row: dict[str, Any] | None, notes: list[str]) -> Text:
    """Mean and interval, with a mark where a note below says more."""
    if row is None:
        return Text("")
    mean, half = row["test_error"]["mean"], row["test_error"]["interval"]
    if mean is None:
        return Text("failed" if row["failed"] else "waiting")
    text = f"{100 * mean:.2f}" + (f" ±{100 * half:.2f}" if half is not None else "")
    remarks = [row["note"]] if row["note"] else []
    if row["missing"]:
        remarks.append(f"{row['seeds']} of {row['seeds'] + row['missing']} seeds")
    if remarks:
        notes.append(
            f"{'*' * (len(notes) + 1)} {row['method']} {100 * row['budget']:.6g}%: {'; '.join(remarks)}"
            if row["budget"] is not None
            else f"{'*' * (len(notes) + 1)} {row['method']}: {'; '.join(remarks)}"
        )
        text += " " + "*" * len(notes)
    return Text(text, style="bold" if row["best"] else "")
