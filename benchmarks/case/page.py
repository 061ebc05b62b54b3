"""The page of the case study, drawn from the results files beside it."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from obverse.report._pareto import Style, styles
from obverse.report._plot import Plot, Spot
from obverse.report._scales import Linear, Logarithmic, Scale
from obverse.report._template import write_page as fill

from . import paper
from .harness import interval

HERE = Path(__file__).resolve().parent


def write_page(results: Path, target: Path) -> None:
    """Draw every study whose results are in the folder ``results``."""
    sections = []
    for name, section in SECTIONS.items():
        path = results / f"case_study_{name}.json"
        if path.exists():
            sections.append(section(json.loads(path.read_text())))
    content = {
        "title": "Sparsifying strategies in deep networks",
        "sentence": "Learned and fixed dropouts, their penalties, and gradual magnitude pruning, in one harness.",
        "version": "",
        "sections": sections,
    }
    fill("page.html.j2", content, target, beside=HERE)


def _percent(value: float) -> str:
    return f"{100 * value:.3g}%"


def _points(value: float) -> str:
    return f"{value:.3g}%"


def _paper(stored: dict[str, Any]) -> dict[str, Any]:
    runs, epochs = stored["runs"], stored["settings"]["epochs"]
    names = [name for name in paper.STRATEGIES if name in runs]
    # Repetitions with another seed are in the table only.
    repeated = [name for name in runs if name not in paper.STRATEGIES]
    marks = styles(names)

    def curve(place: int, y: Scale, title: str, text: Callable[[float], str]) -> dict[str, Any]:
        plot = Plot(
            Linear.counting([1, epochs]),
            y,
            label=f"{title} by epoch for {len(names)} strategies; the last values are in the table.",
            x_title="epoch",
            y_title=title,
            x_text=lambda value: f"{value:g}",
            y_text=text,
        )
        for name in names:
            points = [(index + 1, entry[place]) for index, entry in enumerate(runs[name]["curve"])]
            plot.line(points, marks[name].tone, style="thin")
            # Every 25 epochs a mark, by which the curves are told apart without color.
            for x, v in points[24::25]:
                spot = Spot(x, v, None, f"{name}, epoch {x}: {text(v)}")
                plot.spots([spot], f"{marks[name].tone} {marks[name].hollow}", shape=marks[name].shape)
        return {"title": title, "svg": plot.svg(), "caption": "", "marks": [marks[n] for n in names], "keys": []}

    errors = [entry[1] for name in names for entry in runs[name]["curve"]]
    figures = [
        curve(0, Logarithmic.around([0.01, 1.0]) or Linear(0, 1), "Weights kept", _percent),
        curve(1, Logarithmic.around([min(errors), 14.5]) or Linear(0, 14.5), "Validation error", _points),
    ]
    rows = []
    for name in [*names, *repeated]:
        run, known = runs[name], paper.PUBLISHED.get(name.partition(",")[0])
        rows.append(
            [
                name,
                f"{run['test_error']:.2f}",
                f"{known[0]:.2f}" if known else "",
                f"{100 * run['density']:.2f}",
                f"{100 * known[1]:.2f}" if known else "",
                f"{run['density'] / known[1]:.2f}" if known else "",
                f"{run['cpu_seconds'] / 60:.0f}",
            ]
        )
    head = ["Strategy", "Test error, %", "published", "Kept, %", "published", "ratio", "CPU minutes"]
    return {
        "title": "The paper's table",
        "text": [
            f"LeNet-300-100 on MNIST, Adam, {epochs} epochs, settings and defects of the released code; weights whose "
            "keep probability is below 0.05 are zeroed for evaluation. Rows named obverse are the same strategies as "
            "the library runs them, with the exact dual and the exact proximal operator."
        ],
        "figures": figures,
        "tables": [{"label": "Results beside those published", "head": head, "rows": rows, "caption": ""}],
    }


def _frontiers(stored: dict[str, Any], *, by_strength: bool = False) -> dict[str, Any]:
    """Error against size, one figure and one table for each network; runs are for sizes, or for strengths."""
    groups: dict[str, dict[tuple[str, float], list[dict[str, Any]]]] = defaultdict(lambda: defaultdict(list))
    for key, run in stored["runs"].items():
        groups[key.split("/")[0]][run["method"], run["target"]].append(run)
    figures, tables = [], []
    for network, cells in groups.items():
        names = list(dict.fromkeys(method for method, _ in cells))
        targets = sorted({target for _, target in cells if target > 0})
        figures.append(_frontier(network, cells, styles(names)))
        rows = []
        for name in names:
            row = [name]
            for target in [0.0, *targets]:
                runs = cells.get((name, target))
                if not runs:
                    row.append("")
                    continue
                mean, half = interval([run["error"] for run in runs])
                spread = f" ± {half:.2f}" if len(runs) > 1 else ""
                kept = sum(run["density"] for run in runs) / len(runs)
                minutes = sum(run["cpu_seconds"] for run in runs) / len(runs) / 60
                row.append(
                    f"{mean:.2f} at {_percent(kept)}, {minutes:.1f} min"
                    if by_strength
                    else f"{mean:.2f}{spread} ({len(runs)})"
                )
            rows.append(row)
        tables.append(
            {
                "label": f"Test error on {network}",
                "head": [
                    network,
                    *([] if by_strength else ["all weights"]),
                    *(f"{target:g}" if by_strength else f"{1 / (1 - target):.3g}x" for target in targets),
                ],
                "rows": [[row[0], *row[2:]] if by_strength else row for row in rows],
                "caption": "Test error in percent after the last epoch, the share of weights kept, and CPU time, by "
                "strength relative to each method's own."
                if by_strength
                else "Test error in percent after the last epoch, mean and 95% interval (number of seeds).",
            }
        )
    return {
        "title": stored["settings"]["title"],
        "text": [text.replace("``", "") for text in stored["settings"]["text"]],
        "figures": figures,
        "tables": tables,
    }


def _frontier(
    network: str, cells: dict[tuple[str, float], list[dict[str, Any]]], marks: dict[str, Style]
) -> dict[str, Any]:
    spots: dict[str, list[Spot]] = defaultdict(list)
    for (name, _), runs in sorted(cells.items(), key=lambda item: item[0][1]):
        mean, half = interval([run["error"] for run in runs])
        size = sum(run.get("kept", run["density"]) for run in runs) / len(runs)
        text = f"{name}, keeps {_percent(size)}: {mean:.2f}% ± {half:.2f}"
        spots[name].append(Spot(size, mean, half if len(runs) > 1 else None, text))
    everything = [spot for group in spots.values() for spot in group]
    least = min(spot.y or 0.0 for spot in everything)
    x = Logarithmic.around([spot.x for spot in everything], margin=0.1) or Linear(0, 1)
    ends = [max((spot.y or 0) + side * (spot.half or 0), least / 2) for spot in everything for side in (-1, 1)]
    y = Logarithmic.around(ends) or Linear(0, 100)
    plot = Plot(
        x,
        y,
        label=f"Test error against the share of weights kept, {network}; the numbers are in the table.",
        x_title="weights kept (log)",
        y_title="test error (log)",
        x_text=_percent,
        y_text=_points,
    )
    for name, group in spots.items():
        mark = marks[name]
        plot.spots(group, f"{mark.tone} {mark.hollow}", shape=mark.shape)
    return {"title": network, "svg": plot.svg(), "caption": "", "marks": list(marks.values()), "keys": []}


SECTIONS: dict[str, Callable[[dict[str, Any]], dict[str, Any]]] = {
    "paper": _paper,
    "ours": _frontiers,
    "groups": _frontiers,
    "cifar": _frontiers,
    "duality": partial(_frontiers, by_strength=True),
}
