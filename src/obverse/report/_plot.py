"""A chart as inline SVG that stretches with the page while its text keeps its size.

Text, dots and rectangles sit at percentages of the plot area; only the curves live in a nested picture that
is stretched to it. So one chart serves a phone and a desktop, and colors come from the style sheet in light
and in dark mode. There are no ids: any number of charts share a page.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from html import escape
from itertools import pairwise
from typing import final

from ._scales import Scale

__all__ = ["SHAPES", "Plot", "Spot", "thinned"]

# Side of the nested picture in its own units: fine enough for any screen, and short in the file as integers.
_SIDE = 4000

Point = tuple[float | None, float | None]

SHAPES = (
    "M-4 0a4 4 0 1 0 8 0a4 4 0 1 0-8 0z",
    "M-3.7-3.7h7.4v7.4h-7.4z",
    "M0-5l4.7 8.4h-9.4z",
    "M0-5.2l5.2 5.2-5.2 5.2-5.2-5.2z",
    "M0 5l-4.7-8.4h9.4z",
    "M-1.8-5h3.6v3.2h3.2v3.6h-3.2v3.2h-3.6v-3.2h-3.2v-3.6h3.2z",
    "M-5.5-2.2h11v4.4h-11z",
)
"""Outlines of markers around the origin, in pixels."""


@final
@dataclass(frozen=True)
class Spot:
    """A mean at a place, with the half width of its interval where there is one, and what it is in words."""

    x: float | None
    y: float | None
    half: float | None
    text: str


def thinned(points: Sequence[Point], most: int) -> Sequence[Point]:
    """At most ``most`` of the points, evenly chosen, always with the first and the last."""
    if len(points) <= most:
        return points
    last = len(points) - 1
    return [points[round(i * last / (most - 1))] for i in range(most)]


@final
class Plot:
    """One plot area with its axes; drawing calls add to it in order, back to front.

    Parameters
    ----------
    x, y : Scale
        The axes.
    label : str
        What the picture shows, in words, for readers who cannot see it. Escaped here, as is all text.
    x_title, y_title : str
        Axis titles, with the unit.
    x_text, y_text : callable
        Value to tick label.
    """

    def __init__(
        self,
        x: Scale,
        y: Scale,
        *,
        label: str,
        x_title: str,
        y_title: str,
        x_text: Callable[[float], str],
        y_text: Callable[[float], str],
    ) -> None:
        self.x, self.y = x, y
        self._label = label
        self._marks: list[str] = []
        self._axes: list[str] = []
        self._right = False
        for value in y.ticks():
            at = 1 - (y(value) or 0.0)
            self._axes.append(
                f'<line class="grid" x1="0" x2="100%" y1="{_pct(at)}" y2="{_pct(at)}"/>'
                f'<text class="tick end" x="-8" y="{_pct(at)}" dy=".32em">{escape(y_text(value))}</text>'
            )
        for value in x.ticks():
            place = x(value) or 0.0
            # A label at the very end of the axis leans inwards, else it leaves the chart.
            kind = "tick end" if place > 0.96 else "tick"
            text = escape(x_text(value))
            self._axes.append(f'<text class="{kind}" x="{_pct(place)}" y="100%" dy="18">{text}</text>')
        self._axes.append('<line class="axis" x1="0" x2="100%" y1="100%" y2="100%"/>')
        self._titles = (
            f'<text class="title" x="50%" y="100%" dy="38">{escape(x_title)}</text>'
            f'<text class="title start" x="0" y="0" dx="-44" dy="-18">{escape(y_title)}</text>'
        )

    def right_axis(self, y: Scale, title: str, text: Callable[[float], str], tone: str) -> None:
        """A second vertical axis, colored as the curve that belongs to it."""
        self._right = True
        for value in y.ticks():
            at = 1 - (y(value) or 0.0)
            self._axes.append(
                f'<text class="tick start fill-{tone}" x="100%" dx="8" y="{_pct(at)}" dy=".32em">'
                f"{escape(text(value))}</text>"
            )
        self._titles += f'<text class="title end fill-{tone}" x="100%" dx="44" y="0" dy="-18">{escape(title)}</text>'

    def band(self, start: float, end: float, tone: str, text: str = "") -> None:
        """A vertical band between two x values, named at its foot where the name has room."""
        left, right = max(self.x(start) or 0.0, 0.0), min(self.x(end) or 0.0, 1.0)
        if not right > left:
            return
        self._marks.append(
            f'<rect class="band {tone}" x="{_pct(left)}" y="0" width="{_pct(right - left)}" height="100%">'
            f"<title>{escape(text)}</title></rect>"
        )
        # Some 6 px per letter on a chart of 290 px, that of a phone.
        if text and right - left >= 0.019 * len(text) + 0.025:
            self._marks.append(
                f'<text class="note" x="{_pct((left + right) / 2)}" y="100%" dy="-9">{escape(text)}</text>'
            )

    def bars(self, edges: Sequence[float], heights: Sequence[float], tone: str) -> None:
        """A histogram: one bar between each two neighboring edges."""
        base = self.y(self.y.low) or 0.0
        path: list[str] = []
        for left, right, height in zip(edges, edges[1:], heights, strict=False):
            a, b, top = self.x(left), self.x(right), self.y(height)
            if a is None or b is None or top is None or not top > base:
                continue
            x0, x1, y1 = round(a * _SIDE), round(b * _SIDE), round((1 - top) * _SIDE)
            # A hairline between bars: they read as bars, and as one shape.
            path.append(f"M{x0} {_SIDE}V{y1}H{max(x1 - 14, x0 + 4)}V{_SIDE}z")
        if path:
            self._marks.append(_nested(f'<path class="bars {tone}" d="{"".join(path)}"/>'))

    def line(self, points: Iterable[Point], tone: str, *, style: str = "", scale: Scale | None = None) -> None:
        """A curve through ``points``; it breaks where a value is missing. A lone point becomes a dot."""
        y = scale or self.y
        pieces: list[list[tuple[float, float]]] = [[]]
        for px, py in points:
            a, b = self.x(px), y(py)
            if a is None or b is None:
                if pieces[-1]:
                    pieces.append([])
            else:
                pieces[-1].append((a, b))
        path: list[str] = []
        for piece in pieces:
            if len(piece) == 1:
                a, b = piece[0]
                self._marks.append(f'<circle class="dot {tone} {style}" cx="{_pct(a)}" cy="{_pct(1 - b)}" r="3.5"/>')
            elif piece:
                path.append(_polyline(piece))
        if path:
            self._marks.append(_nested(f'<path class="line {tone} {style}" d="{"".join(path)}"/>'))

    def spots(self, spots: Iterable[Spot], tone: str, *, shape: str, shift: float = 0.0) -> None:
        """Means joined by a thin line, with intervals; moved by ``shift`` pixels, to tell neighbors apart."""
        placed = [(spot, self.x(spot.x), self.y(spot.y)) for spot in spots]
        line: list[tuple[float, float]] = []
        drawn: list[str] = []
        for spot, a, b in placed:
            if a is None or b is None or spot.y is None:
                continue
            line.append((a, b))
            if spot.half is not None:
                low, high = self.y(max(spot.y - spot.half, self.y.low)), self.y(min(spot.y + spot.half, self.y.high))
                if low is not None and high is not None:
                    low, high = max(low, 0.0), min(high, 1.0)
                    drawn.append(
                        f'<line class="whisker {tone}" x1="{_pct(a)}" x2="{_pct(a)}" '
                        f'y1="{_pct(1 - low)}" y2="{_pct(1 - high)}"/>'
                    )
                    drawn += [_placed(a, end, f'<path class="whisker {tone}" d="M-4 0h8"/>') for end in (low, high)]
            mark = f'<path class="spot {tone}" d="{shape}"><title>{escape(spot.text)}</title></path>'
            drawn.append(_placed(a, b, mark))
        if len(line) > 1:
            drawn.insert(0, _nested(f'<path class="line thin {tone}" d="{_polyline(line)}"/>'))
        self._marks.append(f'<g transform="translate({shift:g} 0)">{"".join(drawn)}</g>')

    def svg(self) -> str:
        """The chart, to be placed in the page as it is."""
        return (
            f'<svg class="plot{" two" if self._right else ""}" role="img" aria-label="{escape(self._label)}">'
            f"{''.join(self._axes)}{''.join(self._marks)}{self._titles}</svg>"
        )


def _pct(share: float) -> str:
    text = f"{100 * share:.2f}".rstrip("0").rstrip(".")
    return f"{'0' if text == '-0' else text}%"


def _placed(a: float, b: float, content: str) -> str:
    """Something drawn in pixels around a point of the plot area."""
    return f'<svg class="at" x="{_pct(a)}" y="{_pct(1 - b)}">{content}</svg>'


def _nested(content: str) -> str:
    box = f'viewBox="0 0 {_SIDE} {_SIDE}" preserveAspectRatio="none" width="100%" height="100%"'
    return f"<svg {box}>{content}</svg>"


def _polyline(piece: Sequence[tuple[float, float]]) -> str:
    """Path data with relative moves, which take half the letters of absolute ones."""
    # Far outside the axis the exact place does not matter, but its digits would.
    spots = [(round(a * _SIDE), round((1 - min(max(b, -1.0), 2.0)) * _SIDE)) for a, b in piece]
    steps = [f"M{spots[0][0]} {spots[0][1]}l"]
    for (x0, y0), (x1, y1) in pairwise(spots):
        dx, dy = x1 - x0, y1 - y0
        steps.append(f"{dx}{dy}" if dy < 0 else f"{dx} {dy}")
        steps.append(" ")
    return "".join(steps).rstrip()
