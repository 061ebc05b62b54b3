"""Draw the picture at the top of the README: one coin, heads the penalty, tails the dropout.

Run ``python docs/images/make_two_faces.py``; it writes ``two-faces.svg`` for light pages and
``two-faces-dark.svg`` for dark ones beside itself, or into the folder given as its argument.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from obverse.penalties import MCP, Lasso, LogSum, VariationalDropout

WIDTH, HEIGHT = 1200, 652
RADIUS, LEVEL = 218, 268  # of the coins, and the height of their centers
HEADS, TAILS = 300, 900  # horizontal centers
REACH = 4.0  # weights from -4 to 4
STRENGTH = 1.0


@dataclass(frozen=True)
class Theme:
    """Colors of one version: ink, quiet ink, coin faces and their rims, and one color for each penalty."""

    ink: str
    soft: str
    grid: str
    heads: tuple[str, str]
    tails: tuple[str, str]
    curves: tuple[str, str, str, str]


LIGHT = Theme(
    ink="#1c2027",
    soft="#5a616d",
    grid="#00000018",
    heads=("#fdf3e7", "#c07a35"),
    tails=("#ecf3fa", "#4a82b8"),
    curves=("#6f7682", "#b04a07", "#12715f", "#5b3fa8"),
)
DARK = Theme(
    ink="#eceae5",
    soft="#a6acb7",
    grid="#ffffff1f",
    heads=("#2b221a", "#d29150"),
    tails=("#18232f", "#6aa5dd"),
    curves=("#a9b0bb", "#f5a45f", "#5fd0b5", "#b9a2fa"),
)

# Equal slopes of one at zero: the four leave the cusp together, and differ in how soon they let a weight go.
PENALTIES: tuple[tuple[str, Any], ...] = (
    ("lasso", Lasso()),
    ("log-sum", LogSum(epsilon=1.0)),
    ("variational dropout", VariationalDropout()),
    ("MCP", MCP(kappa=2.0)),
)


def text(x: float, y: float, words: str, size: int, color: str, extra: str = "") -> str:
    return f'<text x="{x:g}" y="{y:g}" font-size="{size}" fill="{color}" {extra}>{words}</text>'


def stroke(path: str, color: str, width: float, extra: str = "") -> str:
    return (
        f'<path d="{path}" stroke="{color}" stroke-width="{width:g}" '
        f'stroke-linecap="round" stroke-linejoin="round" {extra}/>'
    )


def rim(center: int, color: str) -> str:
    """The reeded edge of a coin, between two circles."""
    reeds = []
    for i in range(150):
        angle = 2 * math.pi * i / 150
        c, s = math.cos(angle), math.sin(angle)
        ends = [(center + r * c, LEVEL + r * s) for r in (RADIUS + 7, RADIUS + 13)]
        reeds.append("M" + "L".join(f"{x:.1f} {y:.1f}" for x, y in ends))
    circle = f'<circle cx="{center}" cy="{LEVEL}" r="{{}}" stroke="{color}" stroke-width="{{}}"/>'
    return stroke("".join(reeds), color, 2.6) + circle.format(RADIUS, 3) + circle.format(RADIUS + 20, 3)


def curve(center: int, height: Callable[[np.ndarray], np.ndarray], base: float, unit: float) -> str:
    """Path data of a function of the weight on a coin; ``unit`` is the height of one in pixels."""
    w = np.linspace(-REACH, REACH, 161)
    x = center + w / REACH * RADIUS
    y = base - unit * np.asarray(height(w), dtype=float)
    return "M" + "L".join(f"{a:.1f} {b:.1f}" for a, b in zip(x, y, strict=True))


def picture(theme: Theme) -> str:
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" fill="none" '
        "font-family=\"system-ui, -apple-system, 'Segoe UI', Roboto, 'Helvetica Neue', Arial, sans-serif\" "
        'text-anchor="middle">',
        "<title>The two faces of one regularizer</title>",
        "<desc>Two faces of a coin. Heads shows four penalties of a weight: lasso, log-sum, variational "
        "dropout and MCP, each with a cusp at zero. Tails shows the keep probabilities of the dropouts that "
        "do the same: zero for a weight of zero, rising towards one for large weights.</desc>",
        f'<clipPath id="heads"><circle cx="{HEADS}" cy="{LEVEL}" r="{RADIUS - 2}"/></clipPath>',
        f'<clipPath id="tails"><circle cx="{TAILS}" cy="{LEVEL}" r="{RADIUS - 2}"/></clipPath>',
    ]
    base, keep_unit = LEVEL + 110, 220.0
    faces = (
        (HEADS, "heads", theme.heads, 78.0, lambda p: p.value),
        (TAILS, "tails", theme.tails, keep_unit, lambda p: lambda w: p.keep_probability(w, STRENGTH)),
    )
    for center, side, (fill, edge), unit, face in faces:
        parts.append(f'<circle cx="{center}" cy="{LEVEL}" r="{RADIUS}" fill="{fill}"/>')
        parts.append(f'<g clip-path="url(#{side})">')
        width = f"M{center - RADIUS} {{:g}}h{2 * RADIUS}"
        parts.append(stroke(width.format(base) + f"M{center} {base}V{LEVEL - RADIUS}", theme.grid, 2))
        if side == "tails":
            parts.append(stroke(width.format(base - keep_unit), theme.grid, 2, 'stroke-dasharray="5 7"'))
        for (_, penalty), color in zip(PENALTIES, theme.curves, strict=True):
            parts.append(stroke(curve(center, face(penalty), base, unit), color, 4))
        parts += ["</g>", rim(center, edge), text(center, base + 30, "w = 0", 19, theme.soft)]
    parts.append(text(TAILS, base - keep_unit - 12, "kept for certain", 18, theme.soft))

    # The coin turns over: an arrow out and an arrow back between its faces.
    out, back = theme.tails[1], theme.heads[1]
    parts += [
        stroke(f"M552 {LEVEL - 34}q48 -34 96 0M636 {LEVEL - 51}l13 18l-22 1", out, 3.5),
        stroke(f"M648 {LEVEL + 34}q-48 34 -96 0M564 {LEVEL + 51}l-13 -18l22 -1", back, 3.5),
        text(600, LEVEL - 4, "one", 19, theme.soft),
        text(600, LEVEL + 18, "regularizer", 19, theme.soft),
    ]
    serif = 'font-family="Charter, \'Iowan Old Style\', Georgia, serif" font-weight="600"'
    for center, title, words in (
        (HEADS, "Heads: the penalty Ω(w)", "added to the loss, pulls small weights to zero"),
        (TAILS, "Tails: the keep probability", "η / (η + λ) of a dropout, with η = |w| / Ω\N{PRIME}(|w|)"),
    ):
        parts += [text(center, 548, title, 28, theme.ink, serif), text(center, 579, words, 20, theme.soft)]
    # Room for each name in the widest of the fonts above.
    widths = (130, 150, 258, 100)
    x = (WIDTH - sum(widths)) / 2
    for (name, _), color, room in zip(PENALTIES, theme.curves, widths, strict=True):
        parts += [
            stroke(f"M{x:g} 624h26", color, 5),
            text(x + 37, 631, name, 20, theme.ink, 'text-anchor="start"'),
        ]
        x += room
    return "\n".join([*parts, "</svg>\n"])


def main(folder: Path) -> None:
    for name, theme in (("two-faces.svg", LIGHT), ("two-faces-dark.svg", DARK)):
        (folder / name).write_text(picture(theme), encoding="utf-8", newline="\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parent)
