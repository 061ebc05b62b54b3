"""One self-contained page per run, comparison, model or diagnosis, and the pictures of the command line.

Nothing here looks at a model: the page is made from the numbers of a run. The page's machinery is loaded on
the first call, so importing this package costs nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ._calibration import write_calibration
    from ._calibration_picture import plot_calibration
    from ._comparison import write_comparison
    from ._dropout import write_dropout
    from ._faces import plot_faces
    from ._linear import write_linear
    from ._page import write_report
    from ._picture import check_picture as check_picture
    from ._spectrum import plot_spectrum

__all__ = [
    "plot_calibration",
    "plot_faces",
    "plot_spectrum",
    "write_calibration",
    "write_comparison",
    "write_dropout",
    "write_linear",
    "write_report",
]

_HOMES = {
    "check_picture": "_picture",
    "plot_calibration": "_calibration_picture",
    "plot_faces": "_faces",
    "plot_spectrum": "_spectrum",
    "write_calibration": "_calibration",
    "write_comparison": "_comparison",
    "write_dropout": "_dropout",
    "write_linear": "_linear",
    "write_report": "_page",
}


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
