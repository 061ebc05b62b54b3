"""The charts of a penalty: over the weights that survived it, and its two faces side by side."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, final

import numpy as np
from numpy.typing import NDArray

from ._charts import Figure, Key
from ._plot import Plot
from ._record import Record
from ._scales import Linear, Logarithmic, Scale, finite
from ._wording import axis_number, number, plural

__all__ = ["Survivors", "face_figures", "final_strength", "in_boundary_units", "rebuilt", "survivors_figure"]

_SAMPLES = 241


def rebuilt(name: str, parameters: dict[str, Any]) -> Any | None:
    """The penalty of that name, or None where the catalogue does not know it: a rule of the user's own."""
    if not name:
        return None
    try:
        from obverse.penalties import penalty

        return penalty(name, **parameters)
    except (ImportError, ValueError, TypeError):
        return None


def final_strength(runs: Sequence[Record]) -> float | None:
    """The last positive, finite strength of the first run: fine-tuning may have switched it off."""
    for run in runs:
        for point in reversed(run.records("trajectory") or run.records("history")):
            strength = point.number("strength")
            if strength is not None and 0 < strength < math.inf:
                return strength
    return None


def in_boundary_units(penalty: Any, runs: Sequence[Record]) -> tuple[Any, float] | None:
    """The penalty as a budget applies it, and its strength; None where no budget drove the run.

    A budget measures weights in units of the boundary, the largest weight that falls, so the shape in force is
    Omega(w / boundary), with the strength at which just the boundary falls.
    """
    from obverse.penalties import Rescaled, boundary_strength

    for run in runs:
        # The largest boundary of the run: when the target stands, what still falls is only what grew back.
        found = [point.number("boundary") for point in run.records("trajectory")]
        known = [boundary for boundary in found if boundary is not None and 0 < boundary < math.inf]
        if known:
            return Rescaled(penalty, width=max(known)), boundary_strength(penalty) * max(known) ** 2
    return None


@final
@dataclass(frozen=True)
class Survivors:
    """Magnitudes of the weights that are not zero, counted between log-spaced edges, over all seeds."""

    edges: list[float]
    counts: list[float]
    seeds: int

    @classmethod
    def of(cls, runs: Sequence[Record]) -> Survivors | None:
        edges: list[float] = []
        total: list[float] = []
        seeds = 0
        for run in runs:
            found, counts = run.numbers("weights_histogram.edges"), run.numbers("weights_histogram.counts")
            ascending = all(a < b for a, b in pairwise(found))
            if len(counts) < 1 or len(found) != len(counts) + 1 or not ascending or found[-1] <= 0:
                continue
            if not edges:
                edges, total = found, [0.0] * len(counts)
            # Histograms on other edges cannot be added; the first run speaks for all then.
            if found == edges:
                total = [a + b for a, b in zip(total, counts, strict=True)]
                seeds += 1
        if edges and edges[0] <= 0:
            # A first bin from zero has no place on the logarithmic axis.
            edges, total = edges[1:], total[1:]
        return cls(edges, total, seeds) if sum(total) > 0 else None

    def quantile(self, share: float) -> float:
        """The upper edge of the bin below which ``share`` of the weights lie."""
        goal, seen = share * sum(self.counts), 0.0
        for edge, amount in zip(self.edges[1:], self.counts, strict=True):
            seen += amount
            if seen >= goal:
                return edge
        return self.edges[-1]

    def span(self) -> tuple[float, float]:
        """The edges around the bins that hold anything."""
        filled = [i for i, amount in enumerate(self.counts) if amount > 0]
        return self.edges[filled[0]], self.edges[filled[-1] + 1]


def survivors_figure(survivors: Survivors, penalty: Any | None, name: str) -> Figure:
    """Histogram of the surviving weights with the penalty's slope over the same axis."""
    low, high = survivors.span()
    # At most six decades: a few lost stragglers must not squeeze the rest into a corner.
    low = max(low, survivors.quantile(0.002) / 10, high * 1e-6)
    x = Logarithmic(low / 1.3, high * 1.3)
    amount = round(sum(survivors.counts))
    plot = Plot(
        x,
        Linear.around(survivors.counts),
        label=f"Histogram of the magnitudes of {amount:,} weights that are not zero, between "
        f"{number(low)} and {number(high)}, half of them above {number(survivors.quantile(0.5))}"
        + ("; over it the slope of the penalty, falling or flat as weights grow." if penalty else "."),
        x_title="magnitude |w|, log",
        y_title="weights",
        x_text=number,
        y_text=axis_number,
    )
    plot.bars(survivors.edges, survivors.counts, "tails-fill")
    keys = [Key("weights that are left", "tails", "block")]
    caption = f"{amount:,} weights"
    caption += f" of {plural(survivors.seeds, 'seed')} together." if survivors.seeds > 1 else "."
    if penalty is not None:
        grid = np.geomspace(x.low, x.high, _SAMPLES)
        slope = _evaluated(penalty.slope, grid)
        y = _slope_axis(slope)
        if y is not None:
            plot.right_axis(y, "slope" + (", log" if isinstance(y, Logarithmic) else ""), number, "heads")
            plot.line(zip(grid.tolist(), slope, strict=True), "heads", scale=y)
            keys.append(Key(f"slope of {name}", "heads"))
            caption += " Where the slope is high, weights are pulled to zero; where it is low, they are left alone."
    return Figure("Weights that are left, and the pull on them", plot.svg(), caption, tuple(keys))


def face_figures(penalty: Any, name: str, strength: float | None, survivors: Survivors | None) -> list[Figure]:
    """The penalty with its slope, and the keep probability of the dropout that does the same."""
    reach = survivors.quantile(0.995) if survivors else 1.0
    w = np.linspace(-reach, reach, _SAMPLES)
    value, slope = _evaluated(penalty.value, w), _evaluated(penalty.slope, w)
    figures = []
    if finite(value):
        plot = Plot(
            Linear(-reach, reach),
            Linear.around(value),
            label=f"The penalty {name} as a function of the weight, with its slope: zero at zero, rising to "
            f"{number(value[-1])} at {number(reach)}.",
            x_title="weight w",
            y_title="penalty Ω(w)",
            x_text=number,
            y_text=number,
        )
        keys = [Key("penalty Ω(w)", "heads")]
        y = _slope_axis(slope)
        if y is not None:
            plot.right_axis(y, "slope" + (", log" if isinstance(y, Logarithmic) else ""), number, "quiet")
            plot.line(zip(w.tolist(), slope, strict=True), "quiet", style="dashed", scale=y)
            keys.append(Key("slope Ω\N{PRIME}(|w|)", "quiet", "dashed"))
        plot.line(zip(w.tolist(), value, strict=True), "heads")
        figures.append(Figure("Heads: the penalty", plot.svg(), _at_zero(penalty), tuple(keys)))
    if strength is not None:
        low, high = survivors.span() if survivors else (reach * 1e-3, reach)

        def keep(magnitude: NDArray[np.float64]) -> Any:
            return penalty.keep_probability(magnitude, strength)

        # Far enough to the left to see the curve leave zero, where the penalty ever lets it.
        wide = np.geomspace(max(low * 1e-3, high * 1e-7), high, _SAMPLES)
        known = zip(wide.tolist(), _evaluated(keep, wide), strict=True)
        small = [m for m, p in known if p is not None and p < 0.03]
        x = Logarithmic(min(low, max(small, default=low)), high)
        grid = np.geomspace(x.low, x.high, _SAMPLES)
        probability = _evaluated(keep, grid)
        if finite(probability):
            curve = list(zip(grid.tolist(), probability, strict=True))
            half = next((m for m, p in curve if p is not None and p >= 0.5), None)
            plot = Plot(
                x,
                Linear(0.0, 1.04),
                label="The keep probability of the dual dropout as a function of the magnitude of the weight"
                + (f"; it passes one half at {number(half)}." if half is not None else "."),
                x_title="magnitude |w|, log",
                y_title="keep probability",
                x_text=number,
                y_text=number,
            )
            if survivors:
                plot.bars(survivors.edges, [c / max(survivors.counts) for c in survivors.counts], "ghost")
            plot.line(curve, "tails")
            keys = [Key("keep probability", "tails")]
            if survivors:
                keys.append(Key("weights left", "quiet", "block pale"))
            caption = f"At strength λ = {number(strength)}"
            caption += f": weights near {number(half, 2)} are kept half the time." if half is not None else "."
            figures.append(Figure("Tails: the dropout", plot.svg(), caption, tuple(keys)))
    return figures


def _at_zero(penalty: Any) -> str:
    """What the slope at zero means for the zeros, in words."""
    try:
        slope = float(penalty.slope_at_zero)
    except (AttributeError, ValueError, TypeError, ArithmeticError):
        return ""
    if slope > 0:
        size = number(slope) if slope < math.inf else "infinite"
        return f"The slope at zero is {size}, so small weights become exactly zero."
    return "The slope at zero is 0, so weights shrink and none becomes exactly zero."


def _evaluated(formula: Callable[[NDArray[np.float64]], Any], w: NDArray[np.float64]) -> list[float | None]:
    """Values of a penalty's formula; where it fails or is not finite, there is a gap."""
    with np.errstate(all="ignore"):
        try:
            values = np.asarray(formula(w), dtype=np.float64)
        except (ValueError, TypeError, ArithmeticError, RuntimeError):
            return [None] * len(w)
    return [v if math.isfinite(v) else None for v in values.tolist()]


def _slope_axis(slope: Sequence[float | None]) -> Scale | None:
    """Linear from zero, unless the slope spans so much that a linear axis would hide it."""
    known = finite(slope)
    if not known or max(known) <= 0:
        return None
    if min(known) > 0 and max(known) > 100 * min(known):
        return Logarithmic.around(known)
    return Linear.around(known)
