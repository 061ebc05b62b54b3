"""A picture of a network's confidence and of the relations of its classes."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import InvalidArgumentError
from ._picture import PICTURE_STYLE, check_picture, save_picture
from ._record import Record, as_text
from ._reliability import reliability_tables

__all__ = ["plot_calibration"]

_COLORS = ("#1f5fa8", "#d1661f", "#2a7a4b", "#8a3fa0", "#b3261e", "#0b7480")
_GRAY = "#8a8f98"
_MOST_NAMES = 40


def plot_calibration(record: Mapping[str, Any], path: str | Path) -> Path:
    """Draw a reliability diagram, how the rows are spread over it, and the relations of classes.

    Parameters
    ----------
    record : mapping
        As of `write_calibration`; drawn are ``calibration.reliability`` and ``calibration.relations``, with the names
        in ``data.classes``.
    path : str or Path
        Ends in ``.png`` or ``.svg``.

    Returns
    -------
    Path

    Raises
    ------
    InvalidArgumentError
        For another suffix, a missing folder, or a record with neither of the two, before anything is written.
    """
    path = check_picture(path)
    if not isinstance(record, Mapping):
        raise InvalidArgumentError(f"record must be a mapping, got {type(record).__name__}")
    read = Record.of(record)
    series = reliability_tables(read.get("calibration.reliability"))
    matrix = [Record({"row": row}).numbers("row") for row in read.items("calibration.relations")]
    is_square = bool(matrix) and all(len(row) == len(matrix) for row in matrix)
    if not series and not is_square:
        raise InvalidArgumentError("the record has neither calibration.reliability nor calibration.relations to draw")
    import matplotlib
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    with matplotlib.rc_context(PICTURE_STYLE):
        parts = bool(series) + is_square
        figure = Figure(figsize=(5.2 * parts, 4.8), layout="constrained")
        FigureCanvasAgg(figure)
        halves = list(figure.subfigures(1, parts, squeeze=False)[0])
        if series:
            _draw_reliability(halves.pop(0), series)
        if is_square:
            names = [as_text(name, 24) for name in read.items("data.classes")]
            _draw_relations(halves.pop(0), np.array(matrix), names if len(names) == len(matrix) else [])
        return save_picture(figure, path)


def _draw_reliability(half: Any, series: Mapping[str, Any]) -> None:
    upper, lower = half.subplots(2, 1, sharex=True, height_ratios=(4, 1))
    upper.set_title("Confidence and accuracy")
    upper.plot([0, 1], [0, 1], color=_GRAY, lw=1, ls=(0, (4, 3)), label="calibrated")
    for color, (name, bins) in zip(_COLORS, series.items(), strict=False):
        x, y = (np.array([getattr(each, field) for each in bins]) for field in ("confidence", "accuracy"))
        low, high = np.array([each.interval for each in bins]).T
        upper.vlines(x, low, high, color=color, lw=1.2, alpha=0.6)
        upper.plot(x, y, color=color, lw=1.4, marker="o", ms=4.5, label=name)
        rows = np.array([each.rows for each in bins])
        lower.plot(x, rows / rows.sum(), color=color, lw=1.2, marker="o", ms=3)
    upper.set_xlim(0, 1)
    upper.set_ylim(0, 1.01)
    upper.set_ylabel("accuracy")
    upper.legend(loc="upper left")
    lower.set_ylim(0, None)
    lower.set_ylabel("share of rows")
    lower.set_xlabel("confidence")


def _draw_relations(half: Any, matrix: Any, names: list[str]) -> None:
    axes = half.subplots()
    axes.set_title("What is related to what")
    axes.grid(visible=False)
    # The scale is that of the other classes: a label's own share would leave nothing of theirs to be seen.
    others = matrix[~np.eye(len(matrix), dtype=bool)]
    top = max(float(others.max(initial=0.0)), 1e-9)
    axes.imshow(matrix, cmap="Oranges", vmin=0, vmax=top)
    if 0 < len(names) <= _MOST_NAMES:
        axes.set_xticks(range(len(names)), names, rotation=90 if max(map(len, names)) > 3 else 0)
        axes.set_yticks(range(len(names)), names)
    if len(matrix) <= 12:
        for i, j in zip(*np.nonzero(matrix >= 0.005), strict=True):
            dark = matrix[i, j] > 0.6 * top
            color = "white" if dark else "#333842"
            axes.text(j, i, f"{100 * matrix[i, j]:.0f}", ha="center", va="center", fontsize=8, color=color)
    axes.set_xlabel("soft label, in percent")
    axes.set_ylabel("class")
