"""A picture of a penalty and its dropout."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np

from ..duality import faces
from ..errors import InvalidArgumentError
from ..penalties import Penalty

__all__ = ["PICTURE_STYLE", "check_picture", "plot_faces"]

_BLUE, _ORANGE, _GRAY = "#1f5fa8", "#d1661f", "#8a8f98"
PICTURE_STYLE: dict[Any, Any] = {
    "font.family": "DejaVu Sans",
    "font.size": 9.5,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": "#555b66",
    "axes.linewidth": 0.8,
    "axes.titlesize": 10.5,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.labelcolor": "#333842",
    "xtick.color": "#555b66",
    "ytick.color": "#555b66",
    "axes.grid": True,
    "grid.color": "#e6e8ec",
    "grid.linewidth": 0.7,
    "legend.frameon": False,
    "svg.hashsalt": "obverse",
}


def plot_faces(penalty: Penalty, strength: float, path: str | Path, *, title: str | None = None) -> Path:
    """Draw penalty and slope, keep probability, proximal operator and dual, and save the picture.

    Parameters
    ----------
    penalty : Penalty
    strength : float
        Of the dropout, and the step of the proximal operator.
    path : str or Path
        Ends in ``.png`` or ``.svg``.
    title : str, optional
        Heading, by default the name of the penalty.

    Returns
    -------
    Path

    Raises
    ------
    InvalidArgumentError
        For another suffix, before anything is computed or written.
    """
    path = check_picture(path)
    import matplotlib
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    curves = faces(penalty, strength)
    with matplotlib.rc_context(PICTURE_STYLE):
        figure = Figure(figsize=(8.4, 6.2), layout="constrained")
        FigureCanvasAgg(figure)
        heading = re.sub(r"\d+\.\d{5,}", lambda digits: f"{float(digits[0]):.4g}", title or str(penalty))
        figure.suptitle(f"{heading}   strength {strength:g}".replace("$", r"\$"), fontsize=12, x=0.01, ha="left")
        (first, second), (third, fourth) = figure.subplots(2, 2)

        first.set_title("Penalty and slope")
        first.plot(curves.w, curves.value, color=_BLUE, lw=2, label="penalty Ω(w)")
        first.plot(curves.w, _without_jumps(curves.slope), color=_ORANGE, lw=1.6, label="slope Ω'(w)")
        top = np.nanmax(np.where(np.isfinite(curves.value), curves.value, 0.0))
        slopes = curves.slope[1:][np.isfinite(curves.slope[1:])]
        visible = max(float(top), float(np.percentile(slopes, 90)), min(float(slopes.max(initial=0.0)), 3 * float(top)))
        first.set_ylim(-0.01 * visible, 1.08 * visible or 1.0)
        first.legend(loc="best")
        first.set_xlabel("|w|")

        second.set_title("Keep probability")
        second.plot(curves.w, _without_jumps(curves.keep_probability), color=_BLUE, lw=2)
        second.set_ylim(0, 1.03)
        second.set_xlabel("|w|")

        third.set_title("Proximal operator, step = strength")
        third.plot(curves.w, curves.w, color=_GRAY, lw=1, ls=(0, (4, 3)), label="identity")
        third.plot(curves.w, _without_jumps(curves.prox), color=_BLUE, lw=2, label="prox(z)")
        third.set_ylim(0, None)
        third.legend(loc="upper left")
        third.set_xlabel("z")

        fourth.set_title("Dual")
        dual = np.where(np.isfinite(curves.dual), curves.dual, np.nan)
        fourth.plot(curves.eta_grid, dual, color=_BLUE, lw=2)
        if np.nanmax(dual, initial=0.0) == 0:
            fourth.set_ylim(-0.05, 1)
        fourth.set_xlabel("η")
        fourth.set_ylabel("f(η)")
        for axes in (first, second, third):
            axes.set_xlim(0, curves.w[-1])
        fourth.set_xlim(0, curves.eta_grid[-1])
        for line in (line for axes in (first, second, third, fourth) for line in axes.lines):
            line.set_clip_on(line.get_label() == "slope Ω'(w)")
        metadata: dict[str, Any] = {"Date": None} if path.suffix.lower() == ".svg" else {}
        figure.savefig(path, dpi=160, metadata=metadata)
    return path


def check_picture(path: str | Path) -> Path:
    """A path that a picture can go to; raises for another suffix or a missing folder."""
    path = Path(path)
    if path.suffix.lower() not in (".png", ".svg"):
        raise InvalidArgumentError(f"the picture must end in .png or .svg, got {path.name!r}")
    if not path.parent.is_dir():
        raise InvalidArgumentError(f"the folder {str(path.parent)!r} does not exist")
    return path


def _without_jumps(y: Any) -> Any:
    """The curve with a gap where it jumps, instead of a steep line."""
    finite = y[np.isfinite(y)]
    with np.errstate(invalid="ignore"):
        change = np.abs(np.diff(y, prepend=y[0]))
        jump = change > 0.08 * (np.percentile(finite, 98) - finite.min())
        # A smooth but steep curve rises over several points; a jump stands alone.
        alone = jump & ~np.roll(jump, 1) & ~np.roll(jump, -1)
    return np.where(alone, np.nan, np.where(np.isfinite(y), y, np.nan))
