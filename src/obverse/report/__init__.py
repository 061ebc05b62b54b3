"""One self-contained page per run or comparison, and the picture of a penalty's two faces.

Nothing here looks at a model: the page is made from the numbers of a run. The page's machinery is loaded on
the first call, so importing this package costs nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ._comparison import write_comparison
    from ._faces import plot_faces
    from ._linear import write_linear
    from ._page import write_report

__all__ = ["plot_faces", "write_comparison", "write_linear", "write_report"]

_HOMES = {
    "plot_faces": "_faces",
    "write_comparison": "_comparison",
    "write_linear": "_linear",
    "write_report": "_page",
}


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
