"""Tables of the results: rows of text, which the terminal prints and the page draws."""

from __future__ import annotations

import statistics
from collections import defaultdict
from typing import Any

from .bars import best_rival, judged, ours, ratio
from .cells import TASKS
from .families import FAMILIES
from .problems import NAMES
from .solvers import SOLVERS

__all__ = ["Table", "all_tables", "study_tables"]

Table = dict[str, Any]
Cells = dict[str, Any]


def all_tables(cells: Cells) -> list[Table]:
    """Those of which there are cells."""
    made = [
        _bars(cells),
        *(_ratios(cells, task) for task in TASKS),
        *(_times(cells, task) for task in TASKS),
        _objectives(cells),
        *(_plain(cells, kind, label) for kind, label in KINDS.items()),
    ]
    return [table for table in made if table["rows"]]


KINDS = {
    "cv": "Cross-validation with refit: CPU seconds",
    "cv2d": "Cross-validation of 5 shapes by 50 alphas beside one of 50 alphas: CPU seconds",
    "cold": "Fresh process: import to first coefficients on 200 x 50, less the import of scikit-learn: CPU seconds",
    "memory": "Peak memory of a path10 beyond the data: MB",
}


def _bars(cells: Cells) -> Table:
    rows = [
        [
            bar.text,
            "" if bar.reached is None else f"{bar.reached:.3g}",
            f"{bar.limit:g}",
            bar.verdict,
            f"{bar.behind} of {bar.cells}" if bar.cells else "",
            bar.worst,
        ]
        for bar in judged(cells)
    ]
    head = ["bar", "reached", "at most", "verdict", "cells past it", "worst cell"]
    return {"label": "Bars", "head": head, "rows": rows, "caption": ""}


def _ratios(cells: Cells, task: str) -> Table:
    rows = []
    for problem, title in NAMES.items():
        row = [title]
        for family in FAMILIES:
            cell = cells.get(f"{problem}/{task}/{family}")
            value, best = (ratio(cell), best_rival(cell)) if cell else (None, None)
            row.append(f"{value:.2f} {best[0]}" if value is not None and best is not None else "")
        if any(row[1:]):
            rows.append(row)
    caption = "The library's time over that of the fastest rival that is accurate, and which that is."
    return {"label": f"Ratios, {task}: {TASKS[task]}", "head": [task, *FAMILIES], "rows": rows, "caption": caption}


def _times(cells: Cells, task: str) -> Table:
    rows = []
    for problem in NAMES:
        for family in FAMILIES:
            cell = cells.get(f"{problem}/{task}/{family}")
            if cell is None:
                continue
            mine = cell["solvers"].get("obverse", {})
            passes, violation = mine.get("passes"), mine.get("claimed_violation")
            rows.append(
                [
                    f"{problem}, {family}",
                    *(_seconds(cell["solvers"].get(name)) for name in SOLVERS),
                    "" if passes is None else f"{passes:.0f}",
                    "" if violation is None else f"{violation:.0e}",
                ]
            )
    caption = (
        "CPU seconds. In brackets: the most accurate setting of a solver that does not reach 1e-6. Passes are the "
        "library's products of X' with a residual over the whole path; violation is what it reports itself."
    )
    head = [task, *SOLVERS, "passes", "violation"]
    return {"label": f"CPU seconds, {task}", "head": head, "rows": rows, "caption": caption}


def _seconds(row: dict[str, Any] | None) -> str:
    if row is None:
        return ""
    if "seconds" not in row:
        return "failed"
    return f"{row['seconds']:.3f}" if row.get("accurate") else f"({row['seconds']:.3f}, {row['violation']:.0e})"


def _objectives(cells: Cells) -> Table:
    """Of penalties that are not convex: who ends lower how often, summed over paths."""
    counts: dict[tuple[str, str], list[float]] = defaultdict(lambda: [0, 0, 0, 0.0, 0.0])
    for cell in cells.values():
        if cell["kind"] != "path":
            continue
        for name, row in cell["solvers"].items():
            if row.get("accurate") and "wins" in row:
                entry = counts[cell["family"], name]
                for place, part in enumerate(("wins", "ties", "losses")):
                    entry[place] += row[part]
                entry[3], entry[4] = max(entry[3], row["excess"]), max(entry[4], row["advantage"])
    rows = [
        [f"{family}, {name}", *(f"{entry[place]:.0f}" for place in range(3)), f"{entry[3]:.1e}", f"{entry[4]:.1e}"]
        for (family, name), entry in sorted(counts.items(), key=lambda item: list(FAMILIES).index(item[0][0]))
    ]
    head = ["penalty, rival", "lower", "level", "higher", "largest excess", "largest advantage"]
    caption = "The library's objective beside each rival's at every alpha; level within 1e-6, relative."
    return {"label": "Objectives", "head": head, "rows": rows, "caption": caption}


def _plain(cells: Cells, kind: str, label: str) -> Table:
    unit = "megabytes" if kind == "memory" else "seconds"
    rows = []
    for key, cell in cells.items():
        if cell["kind"] != kind:
            continue
        mine = (ours(cell) or {}).get(unit)
        for name, row in cell["solvers"].items():
            value = row.get(unit)
            text = f"{value:.4g}" if value is not None else f"failed: {row.get('failed', '')}"
            share = f"{mine / value:.2f}" if mine is not None and value and kind not in ("memory", "cold") else ""
            rows.append([f"{key}, {name}", text, share])
    return {"label": label, "head": ["cell, solver", unit, "library over it"], "rows": rows, "caption": ""}


def study_tables(cells: Cells) -> list[Table]:
    """Medians over draws, one table for each setting."""
    groups: dict[tuple[float, float], list[dict[str, Any]]] = defaultdict(list)
    for cell in cells.values():
        groups[cell["snr"], cell["correlation"]].append(cell["methods"])
    tables = []
    for (snr, rho), draws in sorted(groups.items()):
        rows = []
        for name in draws[0]:
            found = [draw[name] for draw in draws if "f1" in draw.get(name, {})]
            if not found:
                rows.append([name, *[""] * 5])
                continue
            middle = {
                part: statistics.median(run[part] for run in found)
                for part in ("f1", "excess", "error", "kept", "seconds")
            }
            rows.append(
                [
                    name,
                    f"{middle['f1']:.2f}",
                    f"{middle['excess']:.3f}",
                    f"{middle['error']:.3f}",
                    f"{middle['kept']:.0f}",
                    f"{middle['seconds']:.2f}",
                ]
            )
        tables.append(
            {
                "label": f"SNR {snr:g}, correlation {rho:g}",
                "head": [f"SNR {snr:g}, correlation {rho:g}", "F1", "excess risk", "coefficients", "kept", "CPU s"],
                "rows": rows,
                "caption": f"Medians of {len(draws)} draws; excess risk over the noise's variance; 20 are true.",
            }
        )
    return tables
