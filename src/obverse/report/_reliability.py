"""Charts of confidence: how often it is right, and how it is spread."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, final

from ._charts import Figure, Key
from ._plot import SHAPES, Plot, Spot
from ._record import Record, as_number, as_text
from ._scales import Linear
from ._wording import axis_percent, count, number, percent

__all__ = ["Bin", "reliability_figure", "reliability_tables", "score_figure"]

_MOST_SERIES = 6
_MOST_BINS = 200
_FIELDS = ("lower", "upper", "rows", "confidence", "accuracy")
# Of a 95 % interval.
_Z = 1.959964


@final
@dataclass(frozen=True)
class Bin:
    """One bin with rows in it."""

    lower: float
    upper: float
    rows: float
    confidence: float
    accuracy: float

    @property
    def interval(self) -> tuple[float, float]:
        """Of the accuracy, with 95 % (Wilson)."""
        shrink = 1 + _Z**2 / self.rows
        center = (self.accuracy + _Z**2 / (2 * self.rows)) / shrink
        spread = self.accuracy * (1 - self.accuracy) / self.rows + _Z**2 / (4 * self.rows**2)
        half = _Z * math.sqrt(max(spread, 0.0)) / shrink
        return center - half, center + half


def reliability_tables(tables: Any) -> dict[str, list[Bin]]:
    """Tables by name as lists of bins; what is no bin, or is empty, is left out."""
    found: dict[str, list[Bin]] = {}
    for name, table in list(tables.items())[:_MOST_SERIES] if isinstance(tables, Mapping) else []:
        bins = []
        for row in list(table)[:_MOST_BINS] if isinstance(table, list | tuple) else []:
            cells = [row.get(field) for field in _FIELDS] if isinstance(row, Mapping) else row
            values = [as_number(cell) for cell in cells] if isinstance(cells, list | tuple) else []
            known = [value for value in values if value is not None and math.isfinite(value)]
            if len(known) == len(values) == len(_FIELDS) and known[2] > 0 and min(known) >= 0 and max(known[3:]) <= 1:
                bins.append(Bin(*known))
        if bins:
            found[as_text(name, 60)] = bins
    return found


def reliability_figure(tables: Any) -> Figure | None:
    """A reliability diagram: accuracy by confidence, with 95 % intervals, beside what would be calibrated.

    Parameters
    ----------
    tables : dict of str to list
        By name, such as "test" or "after temperature scaling", the rows of `CalibrationError.reliability_table`: lower
        and upper edge, number of rows, confidence and accuracy, as sequences or mappings.

    Returns
    -------
    Figure or None
        None where no table has a bin with rows in it.
    """
    series = reliability_tables(tables)
    if not series:
        return None
    gaps = {name: _error(bins) for name, bins in series.items()}
    plot = Plot(
        Linear(0.0, 1.0),
        Linear(0.0, 1.0),
        label="Reliability diagram: accuracy by confidence, "
        + ", ".join(f"{name} with a mean gap of {percent(gap)}" for name, gap in gaps.items())
        + ".",
        x_title="confidence",
        y_title="accuracy",
        x_text=axis_percent,
        y_text=axis_percent,
    )
    first = next(iter(series.values()))
    for each in first:
        if each.upper > each.lower and len(series) == 1:
            plot.bars([each.lower, each.upper], [each.accuracy], "ghost")
    plot.line([(0.0, 0.0), (1.0, 1.0)], "quiet", style="dashed")
    keys = []
    for place, (name, bins) in enumerate(series.items()):
        tone = f"tone-m{place}"
        for each in bins:
            low, high = each.interval
            plot.line([(each.confidence, max(low, 0.0)), (each.confidence, min(high, 1.0))], tone, style="thin")
        spots = [Spot(each.confidence, each.accuracy, None, _words(name, each)) for each in bins]
        plot.spots(spots, tone, shape=SHAPES[place])
        keys.append(Key(name, f"m{place}", "own"))
    keys.append(Key("calibrated", "quiet", "dashed"))
    caption = (
        "Below the dashed line the network is surer than it is right. Lines through the marks are 95 % intervals. "
    )
    caption += "Mean gap: " + ", ".join(f"{name} {percent(gap)}" for name, gap in gaps.items()) + "."
    return Figure("Confidence and accuracy", plot.svg(), caption, tuple(keys))


def score_figure(groups: Any) -> Figure | None:
    """How winning scores are spread: the share of each group by score.

    Parameters
    ----------
    groups : dict of str to mapping
        By name, "correct", "wrong" and "outside" with ``count``, ``mean`` and ``histogram``, as `ScoreSummary` has.

    Returns
    -------
    Figure or None
        None where no group has rows.
    """
    lines = []
    for name, group in list(groups.items())[:_MOST_SERIES] if isinstance(groups, Mapping) else []:
        record = Record(group)
        counts = record.numbers("histogram")[:_MOST_BINS]
        total = math.fsum(counts)
        if total > 0 and min(counts) >= 0:
            lines.append((as_text(name, 40), [n / total for n in counts], total, record.number("mean")))
    if not lines:
        return None
    top = max(max(shares) for _, shares, _, _ in lines)
    plot = Plot(
        Linear(0.0, 1.0),
        Linear.around([top]),
        label="Winning scores: "
        + ", ".join(f"{name} with a mean of {number(mean)}" for name, _, _, mean in lines)
        + ".",
        x_title="largest probability",
        y_title="share of the group",
        x_text=axis_percent,
        y_text=axis_percent,
    )
    keys = []
    for place, (name, shares, total, mean) in enumerate(lines):
        width = 1 / len(shares)
        steps = [(i * width, share) for i, share in enumerate(shares)]
        corners = [corner for x, share in steps for corner in ((x, share), (x + width, share))]
        plot.line(corners, f"tone-m{place}", style="own")
        keys.append(Key(f"{name}, {count(total)}: mean {number(mean)}", f"m{place}", "own"))
    caption = "A network that knows what it does not know has low scores where it is wrong, and outside of its classes."
    return Figure("Winning scores", plot.svg(), caption, tuple(keys))


def _error(bins: list[Bin]) -> float:
    """Mean gap over the rows."""
    rows = math.fsum(each.rows for each in bins)
    return math.fsum(each.rows * abs(each.accuracy - each.confidence) for each in bins) / rows


def _words(name: str, each: Bin) -> str:
    return f"{name}: {percent(each.accuracy)} right at {percent(each.confidence)} sure, {count(each.rows)} rows"
