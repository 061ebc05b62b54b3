"""The pictures of the command line: one style, checked paths, and files that are whole or absent."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from .._core.files import expanded, write_atomically
from ..errors import InvalidArgumentError

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["PICTURE_STYLE", "check_picture", "save_picture"]

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


def check_picture(path: str | Path) -> Path:
    """A path that a picture can go to; raises for another suffix or a missing folder."""
    path = expanded(path)
    if path.suffix.lower() not in (".png", ".svg"):
        raise InvalidArgumentError(f"the picture must end in .png or .svg, got {path.name!r}")
    if not path.parent.is_dir():
        raise InvalidArgumentError(f"the folder {str(path.parent)!r} does not exist")
    return path


def save_picture(figure: Figure, path: Path) -> Path:
    """Write a figure atomically; the same figure gives the same bytes."""
    metadata: dict[str, Any] = {"Date": None} if path.suffix.lower() == ".svg" else {}
    return write_atomically(path, lambda file: figure.savefig(file, dpi=160, metadata=metadata))
