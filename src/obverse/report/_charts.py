"""The charts of a training: losses, errors and the way to the budget."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import final

from ._headline import mean
from ._plot import Plot, Point, thinned
from ._record import Record
from ._scales import Linear, Logarithmic, Scale, finite
from ._wording import axis_number, axis_percent, number, percent, plural

__all__ = ["Figure", "Key", "averaged", "budget_figures", "phases", "training_figures"]

# Enough seeds to see their spread; all of them enter the mean.
_DRAWN_SEEDS = 12
# Points of one chart over all of its curves: more would not be seen, but would be carried.
_POINTS = 2400

PHASE_NAMES = {"warmup": "warm-up", "finetune": "fine-tune"}


@final
@dataclass(frozen=True)
class Key:
    """One entry of a legend."""

    text: str
    tone: str
    style: str = ""


@final
@dataclass(frozen=True)
class Figure:
    """A chart with its heading, legend and caption."""

    title: str
    svg: str
    caption: str = ""
    keys: tuple[Key, ...] = ()


def averaged(lines: Sequence[Sequence[Point]]) -> list[Point]:
    """Mean curve over the seeds, where all that are still running have a value."""
    table: dict[float, list[float]] = {}
    for line in lines:
        for x, y in line:
            if x is not None and y is not None and math.isfinite(y):
                table.setdefault(x, []).append(y)
    most = max((len(values) for values in table.values()), default=0)
    whole = sorted((x, values) for x, values in table.items() if len(values) == most)
    return [(x, math.fsum(values) / len(values)) for x, values in whole]


def training_figures(runs: list[Record]) -> list[Figure]:
    """Loss and error by epoch."""
    histories = [run.records("history") for run in runs]
    x_key = "epoch" if any(point.number("epoch") is not None for h in histories for point in h) else "step"
    figures = []
    for title, series, text in (
        ("Loss", (("train", "train_loss"), ("validation", "validation_loss")), axis_number),
        ("Error", (("train", "train_error"), ("validation", "validation_error")), axis_percent),
    ):
        lines = {name: [_series(h, x_key, field) for h in histories] for name, field in series}
        values = [y for group in lines.values() for line in group for _, y in line]
        if not finite(values):
            continue
        y = _y_axis(values)
        last = averaged(lines["validation"])[-1:] or averaged(lines["train"])[-1:]
        end = f", at the end {text(last[0][1])}" if last and last[0][1] is not None else ""
        xs = [x for group in lines.values() for line in group for x, _ in line]
        plot = Plot(
            Linear.counting(xs),
            y,
            label=f"Line chart of the {title.lower()} by {x_key}, train and validation, "
            f"{plural(len(runs), 'seed')}{end}.",
            x_title=x_key,
            y_title="log" if isinstance(y, Logarithmic) else "",
            x_text=axis_number,
            y_text=text,
        )
        keys = []
        for name, tone in (("train", "quiet"), ("validation", "tails")):
            if finite(v for line in lines[name] for _, v in line):
                _draw(plot, lines[name], tone)
                keys.append(Key(name, tone))
        figures.append(Figure(title, plot.svg(), keys=tuple(keys)))
    return figures


def budget_figures(runs: list[Record]) -> list[Figure]:
    """Sparsity against its target, and the strength that brought it there."""
    paths = [run.records("trajectory") or run.records("history") for run in runs]
    steps = [point.number("step") for path in paths for point in path]
    if not finite(steps):
        return []
    x = Linear.counting(steps)
    bands = next((found for found in map(phases, paths) if found), [])
    figures = []
    realized = [_series(path, "step", "sparsity") for path in paths]
    target = next((t for t in (_series(p, "step", "target") for p in paths) if finite(v for _, v in t)), [])
    reached = finite(v for line in [*realized, target] for _, v in line)
    if reached:
        end = averaged(realized)[-1:]
        plot = Plot(
            x,
            Linear(0.0, 1.0) if max(reached) > 0.5 else Linear.around(reached),
            label=f"Line chart of the sparsity by step{' beside its target' if target else ''}"
            + (f", at the end {percent(end[0][1])}." if end else "."),
            x_title="step",
            y_title="",
            x_text=axis_number,
            y_text=axis_percent,
        )
        _bands(plot, bands)
        # The target lies under the realized curve, wide and pale: where the budget is met both show.
        plot.line(thinned(target, 400), "quiet", style="wide")
        _draw(plot, realized, "heads")
        keys = [Key("target", "quiet", "wide")] if target else []
        caption = f"Ends at {percent(end[0][1])}" if end else "No sparsity was recorded"
        goal = target[-1][1] if target else None
        caption += f"; the target is {percent(goal)}." if goal is not None else ". There was no target."
        figures.append(Figure("Sparsity", plot.svg(), caption, (*keys, Key("realized", "heads"))))
    strengths = [_series(path, "step", "strength") for path in paths]
    values = [v for line in strengths for _, v in line]
    y = Logarithmic.around(values)
    if y is not None:
        end = [line[-1] for line in strengths[:1] if line]
        plot = Plot(
            x,
            y,
            label="Line chart of the penalty's strength by step on a logarithmic axis"
            + (f", at the end {number(end[0][1])}." if end else "."),
            x_title="step",
            y_title="log",
            x_text=axis_number,
            y_text=number,
        )
        _bands(plot, bands)
        _draw(plot, strengths, "heads")
        absent = any(v is not None and (v <= 0 or math.isinf(v)) for v in values)
        caption = f"Ends at {number(end[0][1])}." if end else ""
        caption += " Zero and infinite strengths are not drawn." if absent else ""
        figures.append(Figure("Strength", plot.svg(), caption, (Key("strength λ", "heads"),)))
    return figures


def phases(path: Sequence[Record]) -> list[tuple[str, float, float]]:
    """The phases of a run as name, first step and last step."""
    found: list[tuple[str, float, float]] = []
    for point in path:
        name, step = point.text("phase", 24), point.number("step")
        if not name or step is None:
            continue
        if found and found[-1][0] == name:
            found[-1] = (name, found[-1][1], step)
        else:
            if found:
                # One phase lasts until the next begins: no gap between their bands.
                found[-1] = (found[-1][0], found[-1][1], step)
            found.append((name, step, step))
    return [(PHASE_NAMES.get(name, name), start, end) for name, start, end in found[:12]]


def _bands(plot: Plot, bands: Iterable[tuple[str, float, float]]) -> None:
    for i, (name, start, end) in enumerate(bands):
        plot.band(start, end, "odd" if i % 2 else "even", name)


def _draw(plot: Plot, lines: Sequence[Sequence[Point]], tone: str) -> None:
    """One curve for one seed; thin curves and their mean for several."""
    several = len(lines) > 1
    drawn = lines[:_DRAWN_SEEDS]
    for line in drawn:
        plot.line(thinned(line, max(40, _POINTS // (len(drawn) + 1))), tone, style="faint" if several else "")
    if several:
        plot.line(thinned(averaged(lines), 400), tone)


def _series(points: Sequence[Record], x_key: str, field: str) -> list[Point]:
    line: list[Point] = []
    for i, point in enumerate(points):
        if field == "train_error":
            accuracy = point.number("train_accuracy")
            y = None if accuracy is None else 1 - accuracy
        else:
            y = point.number(field)
        x = point.number(x_key)
        line.append((float(i + 1) if x is None else x, y))
    return line


def _y_axis(values: Sequence[float | None]) -> Scale:
    """Logarithmic where the values span much more than a decade and never touch zero."""
    known = finite(values)
    if min(known) > 0 and max(known) > 30 * min(known):
        logarithmic = Logarithmic.around(known)
        if logarithmic is not None:
            return logarithmic
    return Linear.around(known)


# The mean of a column over seeds, for the table under the charts.
Column = tuple[str, str, Callable[[float | None], str]]


def history_table(runs: list[Record], most: int = 40) -> tuple[list[str], list[list[str]]]:
    """Head and rows of the history, averaged over the seeds, at most ``most`` rows."""
    histories = [run.records("history") for run in runs]
    columns: list[Column] = [
        ("train loss", "train_loss", number),
        ("validation loss", "validation_loss", number),
        ("train error", "train_error", percent),
        ("validation error", "validation_error", percent),
        ("sparsity", "sparsity", percent),
        ("strength", "strength", number),
        ("learning rate", "learning_rate", number),
    ]
    x_key = "epoch" if any(point.number("epoch") is not None for h in histories for point in h) else "step"
    cells: dict[float, dict[str, list[float | None]]] = {}
    for _, field, _ in columns:
        for h in histories:
            for x, y in _series(h, x_key, field):
                if x is not None:
                    cells.setdefault(x, {}).setdefault(field, []).append(y)
    xs = [x for x, _ in thinned([(x, None) for x in sorted(cells)], most) if x is not None]
    rows = [[number(x, 6), *(text(mean(cells[x].get(field, []))) for _, field, text in columns)] for x in xs]
    return [x_key, *(name for name, _, _ in columns)], rows
