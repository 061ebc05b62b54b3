"""A picture of what dropout keeps of every singular value, against the keep probability."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import InvalidArgumentError
from ._faces import PICTURE_STYLE, check_picture

__all__ = ["plot_spectrum"]

_COLORS = ("#1f5fa8", "#d1661f", "#2a7a4b", "#8a3fa0", "#b3261e", "#0b7480", "#7a6200", "#b8195a")
_GRAY = "#8a8f98"
_MOST = 8  # singular values that get a color


def plot_spectrum(summary: Mapping[str, Any], path: str | Path) -> Path:
    """Draw predicted singular values and rank against the keep probability, beside the convex relaxation.

    Parameters
    ----------
    summary : mapping
        What ``obverse dropout spectrum --json`` prints.
    path : str or Path
        Ends in ``.png`` or ``.svg``.

    Returns
    -------
    Path

    Raises
    ------
    InvalidArgumentError
        For another suffix or a missing folder, before anything is computed or written.
    """
    path = check_picture(path)
    import matplotlib
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    from ..dropout.deep_linear import swept_spectrum

    keep, kept, relaxed = swept_spectrum(dict(summary))
    if not len(keep):
        raise InvalidArgumentError("there is nothing to draw")
    depth, width, block = (summary[name] for name in ("depth", "width", "block_size"))
    with matplotlib.rc_context(PICTURE_STYLE):
        figure = Figure(figsize=(8.4, 5.6), layout="constrained")
        FigureCanvasAgg(figure)
        blocks = f" in blocks of {block}" if block > 1 else ""
        figure.suptitle(
            f"{depth} dropped layer{'' if depth == 1 else 's'} of {width} units{blocks}", fontsize=12, x=0.01, ha="left"
        )
        values, rank = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1))
        values.set_title("Singular values of the optimum")
        count = kept.shape[1]
        drawn = ~np.isnan(kept[:, 0])
        same = " (the same)" if np.allclose(kept[drawn], relaxed[drawn], atol=1e-6 * kept[drawn].max()) else ""
        for index in reversed(range(count)):
            color = _COLORS[index] if index < _MOST else _GRAY
            for column, style in (
                (relaxed[:, index], {"lw": 1.1, "ls": (0, (4, 3)), "alpha": 0.75}),
                (kept[:, index], {"lw": 2.1}),
            ):
                # Lines of zeros would lie on each other, and on the axis.
                values.plot(keep, np.where(column > 0, column, np.nan), color=color, **style)
        values.plot([], [], color="#333842", lw=2.1, label="optimum")
        values.plot([], [], color="#333842", lw=1.1, ls=(0, (4, 3)), label=f"convex relaxation{same}")
        values.legend(loc="upper left")
        values.set_ylim(0, None)
        rank.set_title("Rank")
        ranks = np.where(np.isnan(kept[:, 0]), np.nan, (kept > 0).sum(1))
        rank.plot(keep, (relaxed > 0).sum(1), color=_GRAY, lw=1.3, ls=(0, (4, 3)), drawstyle="steps-mid")
        rank.plot(keep, ranks, color=_COLORS[0], lw=2.1)
        rank.set_ylim(0, ranks[~np.isnan(ranks)].max() + 0.4)
        rank.yaxis.get_major_locator().set_params(integer=True)
        rank.set_xlabel("keep probability")
        for step in summary["phases"]:
            for axes in (values, rank):
                axes.axvline(step["keep_probability"], color=_GRAY, lw=0.8, ls=":")
        rank.set_xlim(0, 1)
        metadata: dict[str, Any] = {"Date": None} if path.suffix.lower() == ".svg" else {}
        figure.savefig(path, dpi=160, metadata=metadata)
    return path
