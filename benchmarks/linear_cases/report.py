"""What the results say, on the terminal and as a page."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from .bars import best_rival, ours, ratio
from .cells import TASKS
from .families import FAMILIES
from .problems import NAMES
from .tables import Table, all_tables, study_tables

__all__ = ["draw", "line", "tell"]

HERE = Path(__file__).resolve().parent
Cells = dict[str, Any]


def line(cell: dict[str, Any]) -> str:
    """A cell in a few words."""
    if cell["kind"] == "study":
        return ", ".join(f"{name} {run['f1']:.2f}" for name, run in cell["methods"].items() if "f1" in run)
    mine, best = ours(cell) or {}, best_rival(cell)
    if "megabytes" in mine:
        return ", ".join(f"{name} {row.get('megabytes', float('nan')):.0f} MB" for name, row in cell["solvers"].items())
    if cell["kind"] == "cold":
        return ", ".join(f"{name} {row.get('seconds', float('nan')):.2f} s" for name, row in cell["solvers"].items())
    if "seconds" not in mine:
        return f"failed: {mine.get('failed', '?')}"
    text = f"{mine['seconds']:.3f} s"
    if best is not None and (value := ratio(cell)) is not None:
        text += f", {value:.2f} of {best[0]}"
    if not mine.get("accurate"):
        text += f", not accurate: {mine.get('violation', float('nan')):.1e}"
    return text


def _stored(path: Path) -> Cells:
    return dict(json.loads(path.read_text())["cells"]) if path.exists() else {}


def _study(path: Path) -> Path:
    return path.with_stem(path.stem + "_study")


def tell(path: Path) -> None:
    """Print all tables."""
    for table in [*all_tables(_stored(path)), *study_tables(_stored(_study(path)))]:
        columns = list(zip(table["head"], *table["rows"], strict=True))
        widths = [max(len(entry) for entry in column) for column in columns]
        print(f"\n{table['label']}")
        for row in (table["head"], *table["rows"]):
            first, *others = (
                entry.ljust(width) if not place else entry.rjust(width)
                for place, (entry, width) in enumerate(zip(row, widths, strict=True))
            )
            print(" ", first, *others)


def draw(path: Path) -> Path:
    """Write the page beside the results."""
    from obverse.report._template import write_page as fill

    cells, study = _stored(path), _stored(_study(path))
    tables = all_tables(cells)
    sections: list[dict[str, Any]] = []

    def section(title: str, text: list[str], chosen: list[Table], figures: list[dict[str, Any]] | None = None) -> None:
        if chosen:
            sections.append({"title": title, "text": text, "figures": figures or [], "tables": chosen})

    def labelled(*starts: str) -> list[Table]:
        return [table for table in tables if table["label"].startswith(starts)]

    section("Bars", [_machine(cells)], labelled("Bars"))
    section(
        "Time beside the best rival",
        [
            "CPU seconds of one thread, medians of repeats that go round all solvers. Every solver runs at the loosest "
            "of its own tolerances at which the first-order conditions hold to 1e-6 of the largest gradient at zero, "
            "by a checker that shares no code with any of them. Below 1 the library is faster. Variational dropout, "
            "which no package offers, is beside the penalty as a user of skglm would write it."
        ],
        labelled("Ratios"),
        [figure for task in TASKS if (figure := _figure(cells, task)) is not None],
    )
    section("All times", [], labelled("CPU seconds"))
    section("Objectives", ["Penalties that are not convex have many local minima."], labelled("Objectives"))
    section("Cross-validation, memory, first fit", [], labelled("Cross", "Peak", "Fresh"))
    section(
        "Supports that are known",
        ["500 rows, 2000 columns, 20 true coefficients of size 1, an autoregressive process as rows."],
        study_tables(study),
    )
    content = {
        "title": "Sparse linear models",
        "sentence": "Paths, single fits and cross-validation beside other packages, to the same accuracy, in one run.",
        "version": "",
        "sections": sections,
    }
    target = path.with_suffix(".html")
    fill("page.html.j2", content, target, beside=HERE)
    return target


def _machine(cells: Cells) -> str:
    seen = {json.dumps(cell["machine"], sort_keys=True) for cell in cells.values()}
    texts = []
    for entry in sorted(seen):
        known = json.loads(entry)
        packages = ", ".join(f"{name} {version}" for name, version in known["packages"].items())
        texts.append(f"{known['processor']}, {known['cores']} cores, one thread; Python {known['python']}, {packages}.")
    return " ".join(texts)


def _figure(cells: Cells, task: str) -> dict[str, Any] | None:
    """Ratios of one task, problems side by side, one mark for each penalty."""
    from obverse.report._pareto import styles
    from obverse.report._plot import Plot, Spot
    from obverse.report._scales import Linear, Logarithmic

    marks, names = styles(list(FAMILIES)), list(NAMES)
    spots = {
        family: [
            Spot(float(place), value, None, f"{problem}, {family}: {value:.2f}")
            for place, problem in enumerate(names)
            if (cell := cells.get(f"{problem}/{task}/{family}")) and (value := ratio(cell)) is not None
        ]
        for family in FAMILIES
    }
    values = [spot.y for group in spots.values() for spot in group]
    if not values:
        return None
    plot = Plot(
        Linear(-0.4, len(names) - 0.6, whole=True),
        Logarithmic.around([*values, 1.0]) or Linear(0, 1),
        label=f"Time over the best rival's by problem, {task}; the numbers are in the table.",
        x_title="problem",
        y_title="time over the best rival's (log)",
        x_text=lambda value: names[round(value)],
        y_text=lambda value: f"{value:g}",
    )
    plot.line([(-0.4, 1.0), (len(names) - 0.6, 1.0)], "tone-quiet", style="thin")
    for number, (family, group) in enumerate(spots.items()):
        mark = marks[family]
        for spot in group:
            plot.spots([spot], f"{mark.tone} {mark.hollow}", shape=mark.shape, shift=4.0 * (number - 3))
    return {"title": f"{task}: {TASKS[task]}", "svg": plot.svg(), "marks": list(marks.values())}
