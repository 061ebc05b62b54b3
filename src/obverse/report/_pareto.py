"""Error against size, one series per method, with intervals."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import final

from ._plot import SHAPES, Plot, Spot
from ._record import Record
from ._scales import Linear, Logarithmic, Scale, finite
from ._wording import axis_percent, percent, plural

__all__ = ["Style", "pareto_figure", "styles"]

_TONES = 10
# Two neighbors are this far apart, and all of them together no farther than is still one budget.
_STEP, _SPREAD = 7.0, 44.0


@final
@dataclass(frozen=True)
class Style:
    """How a method is drawn, in the plot and wherever it is named."""

    name: str
    tone: str
    shape: str
    hollow: str


def styles(methods: Sequence[str]) -> dict[str, Style]:
    """A color and a shape for each method; both differ between neighbors, so that neither is needed alone."""
    found, used = {}, 0
    for name in methods:
        if name == "dense":
            found[name] = Style(name, "tone-quiet", SHAPES[0], "hollow")
            continue
        hollow = "hollow" if (used // _TONES) % 2 else ""
        found[name] = Style(name, f"tone-m{used % _TONES}", SHAPES[used % len(SHAPES)], hollow)
        used += 1
    return found


def pareto_figure(rows: Sequence[Record], marks: dict[str, Style]) -> str:
    """The plot as SVG; empty where nothing was measured."""
    series = {name: _spots([row for row in rows if row.text("method", 80) == name]) for name in marks}
    series = {name: spots for name, spots in series.items() if spots}
    spots = [spot for group in series.values() for spot in group]
    x = Logarithmic.around([spot.x for spot in spots], margin=0.1)
    if x is None:
        return ""
    ends = [spot.y + side * (spot.half or 0.0) for spot in spots if spot.y is not None for side in (-1, 1)]
    # Of shares, intervals may reach beyond what is possible.
    y = _error_axis(finite(spot.y for spot in spots), [min(max(end, 0.0), 1.0) for end in finite(ends)])
    plot = Plot(
        x,
        y,
        label=f"Test error against the fraction of weights that is kept, {plural(len(series), 'method')}; "
        "the numbers are in the table.",
        x_title="weights kept (log)",
        y_title="test error (log)" if isinstance(y, Logarithmic) else "test error",
        x_text=axis_percent,
        y_text=axis_percent,
    )
    dense = series.get("dense", [])
    if dense:
        plot.line([(x.low, dense[0].y), (x.high, dense[0].y)], "quiet", style="dashed")
    others = [name for name in series if name != "dense"]
    step = min(_STEP, _SPREAD / max(len(others) - 1, 1))
    for name, group in series.items():
        style = marks[name]
        shift = 0.0 if name == "dense" else step * (others.index(name) - (len(others) - 1) / 2)
        plot.spots(group, f"{style.tone} {style.hollow}", shape=style.shape, shift=round(shift, 2))
    return plot.svg()


def _spots(rows: Sequence[Record]) -> list[Spot]:
    spots = []
    for row in rows:
        x, y, half = (row.number(name) for name in ("kept.mean", "test_error.mean", "test_error.interval"))
        if x is None or y is None or not finite([x]) or not finite([y]) or x <= 0:
            continue
        half = None if half is None or not finite([half]) else half
        interval = "" if half is None else f" ± {100 * half:.2f}"
        text = f"{row.text('method', 80)}, keeps {percent(x)}: {percent(y, 2)}{interval}"
        spots.append(Spot(x, y, half, text))
    return sorted(spots, key=lambda spot: spot.x or 0.0)


def _error_axis(means: list[float], ends: list[float]) -> Scale:
    """Logarithmic where errors differ by factors; intervals that reach zero do not stretch it to nothing."""
    least, most = min(means), max(means)
    if least > 0 and most > 3 * least:
        floor = least / 2
        logarithmic = Logarithmic.around([max(end, floor) for end in ends])
        if logarithmic is not None:
            return logarithmic
    return Linear.around(ends)
