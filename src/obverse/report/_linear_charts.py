"""The charts of a linear model: coefficients, errors and number of features along the path."""

from __future__ import annotations

import math
from collections.abc import Sequence

from ._charts import Figure, Key
from ._plot import SHAPES, Plot, Spot, thinned
from ._record import Record
from ._scales import Linear, Logarithmic, Scale, finite
from ._wording import TIMES, amount, axis_number, number, plural

__all__ = ["error_figure", "path_figure", "prediction_figure", "size_figure"]

# As many as there are colors; the other features are drawn pale.
_NAMED = 10
_PALE = 60
_POINTS = 200


def path_figure(record: Record) -> Figure | None:
    """Scaled coefficients against alpha; the strongest features of the chosen model have a color each."""
    alphas = record.numbers("path.alphas")
    curves = [curve for curve in record.records("path.curves") if len(curve.numbers("values")) == len(alphas)]
    x = Logarithmic.around(alphas, margin=0.02)
    if x is None or not curves:
        return None
    values = [value for curve in curves for value in curve.numbers("values")]
    chosen = record.number("alpha")
    where = "" if chosen is None else f"; the chosen alpha is {number(chosen)}"
    plot = Plot(
        x,
        Linear.around(values),
        label=f"Line chart of the coefficients of {plural(len(curves), 'feature')} by alpha, "
        f"on a logarithmic axis{where}.",
        x_title="alpha (log)",
        y_title=f"coefficient {TIMES} standard deviation",
        x_text=number,
        y_text=number,
    )
    named = [curve for curve in curves if curve.get("selected") is True][:_NAMED]
    pale = [curve for curve in curves if curve not in named][:_PALE]
    most = max(30, 6000 // (len(named) + len(pale)))
    for curve in pale:
        plot.line(thinned([*zip(alphas, curve.numbers("values"), strict=True)], most), "quiet", style="faint")
    _mark(plot, chosen)
    keys = []
    for i, curve in enumerate(named):
        plot.line(thinned([*zip(alphas, curve.numbers("values"), strict=True)], most), f"tone-m{i}", style="own")
        keys.append(Key(curve.text("name", 60), f"m{i}", "own"))
    if pale:
        keys.append(Key("other features", "quiet", "pale"))
    if chosen is not None:
        keys.append(Key("chosen alpha", "quiet", "dashed"))
    caption = "Weaker penalty to the left, stronger to the right. Coefficients are times the standard deviation of "
    caption += "their feature, so that they can be compared."
    left_out = len(curves) - len(named) - len(pale)
    caption += f" {left_out:,} further features are not drawn." if left_out > 0 else ""
    return Figure("Coefficient path", plot.svg(), caption, tuple(keys))


def error_figure(record: Record) -> Figure | None:
    """Cross-validated error against alpha, with one standard error to each side."""
    alphas, means = record.numbers("cv.alphas"), record.numbers("cv.errors")
    halves = record.numbers("cv.standard_errors")
    if len(alphas) != len(means) or not alphas:
        return None
    x = Logarithmic.around(alphas, margin=0.02)
    if x is None:
        return None
    halves = halves if len(halves) == len(means) else []
    ends = [m + side * h for m, h in zip(means, halves or [0.0] * len(means), strict=True) for side in (-1, 1)]
    measure = record.text("cv.measure", 60) or "error"
    y = _error_axis(means, ends)
    chosen = record.number("alpha")
    best = min(range(len(means)), key=lambda i: means[i])
    plot = Plot(
        x,
        y,
        label=f"Line chart of the {measure} by alpha; lowest, {number(means[best])}, at alpha {number(alphas[best])}.",
        x_title="alpha (log)",
        y_title=measure + (" (log)" if isinstance(y, Logarithmic) else ""),
        x_text=number,
        y_text=axis_number,
    )
    _mark(plot, chosen)
    spots = [
        Spot(a, m, halves[i] if halves else None, f"alpha {number(a)}: {number(m, 4)}" + _plus_minus(halves, i))
        for i, (a, m) in enumerate(zip(alphas, means, strict=True))
    ]
    plot.spots(spots, "tone-m0", shape=SHAPES[0])
    folds = amount(record.number("cv.folds"), "fold")
    over = f" over {folds}" if folds else ""
    caption = f"Bars are one standard error{over}." if halves else ""
    keys = (Key(measure, "m0", "own"), *((Key("chosen alpha", "quiet", "dashed"),) if chosen is not None else ()))
    return Figure(record.text("cv.title", 60) or "Cross-validated error", plot.svg(), caption, keys)


def size_figure(record: Record) -> Figure | None:
    """Number of features with a nonzero coefficient against alpha."""
    alphas, counts = record.numbers("path.alphas"), record.numbers("path.n_features")
    x = Logarithmic.around(alphas, margin=0.02)
    if x is None or len(alphas) != len(counts):
        return None
    chosen, kept = record.number("alpha"), amount(record.number("model.selected"), "feature")
    plot = Plot(
        x,
        Linear.around(counts),
        label=f"Line chart of the number of features by alpha, from {number(min(counts))} to {number(max(counts))}.",
        x_title="alpha (log)",
        y_title="features",
        x_text=number,
        y_text=axis_number,
    )
    _mark(plot, chosen)
    # Steps: a feature is in or out.
    steps: list[tuple[float | None, float | None]] = []
    for a, b in zip(alphas, counts, strict=True):
        if steps:
            steps.append((a, steps[-1][1]))
        steps.append((a, b))
    plot.line(thinned(steps, 2 * _POINTS), "heads")
    caption = f"{kept} at the chosen alpha." if kept else ""
    keys = (Key("features", "heads"), *((Key("chosen alpha", "quiet", "dashed"),) if chosen is not None else ()))
    return Figure("Features in the model", plot.svg(), caption, keys)


def prediction_figure(record: Record) -> Figure | None:
    """Predicted against measured target on the rows that were held out."""
    measured, predicted = record.numbers("test.measured"), record.numbers("test.predicted")
    if len(measured) != len(predicted) or len(measured) < 2:
        return None
    every = [*measured, *predicted]
    low, high = min(every), max(every)
    room = 0.04 * (high - low)
    axis = Linear(low - room, high + room)
    plot = Plot(
        axis,
        axis,
        label=f"Scatter plot of predicted against measured target on {plural(len(measured), 'held-out row')}.",
        x_title="measured",
        y_title="predicted",
        x_text=axis_number,
        y_text=axis_number,
    )
    plot.line([(axis.low, axis.low), (axis.high, axis.high)], "quiet", style="dashed")
    for x, y in thinned([*zip(measured, predicted, strict=True)], _POINTS * 2):
        plot.line([(x, y)], "tails", style="faint")
    shown = min(len(measured), 2 * _POINTS)
    caption = "On the dashed line a prediction is exact."
    caption += f" {shown:,} of {len(measured):,} rows are drawn." if shown < len(measured) else ""
    return Figure("Predicted against measured", plot.svg(), caption)


def _mark(plot: Plot, chosen: float | None) -> None:
    """A vertical line at the chosen alpha."""
    if chosen is not None:
        plot.line([(chosen, plot.y.low), (chosen, plot.y.high)], "quiet", style="dashed")


def _plus_minus(halves: Sequence[float], i: int) -> str:
    return f" ± {number(halves[i])}" if halves else ""


def _error_axis(means: Sequence[float], ends: Sequence[float]) -> Scale:
    """Around the errors, not from zero: what matters is where they turn. Logarithmic where they differ by factors."""
    least, most = min(means), max(means)
    if least > 0 and most > 10 * least:
        found = Logarithmic.around([max(end, least / 2) for end in ends])
        if found is not None:
            return found
    known = finite(ends)
    room = 0.06 * (max(known) - min(known))
    if not math.isfinite(room):
        return Linear.around(means)
    return Linear(min(known) - room, max(known) + room)
