"""Obverse: regularization that adapts, with both of its faces in your hand."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from ._version import __version__
from .errors import ObverseError

if TYPE_CHECKING:
    from . import dropout, duality, graph, imbalance, labels, linear, penalties, sparsify
    from .compact import compact, load, save
    from .sparsify import Budget, Rule, Sparsifier

__all__ = [
    "Budget",
    "ObverseError",
    "Rule",
    "Sparsifier",
    "__version__",
    "compact",
    "dropout",
    "duality",
    "graph",
    "imbalance",
    "labels",
    "linear",
    "load",
    "penalties",
    "save",
    "sparsify",
]

# Names are resolved on first use, so that `import obverse` loads neither torch nor scikit-learn.
_HOMES = {"Budget": "sparsify", "load": "compact", "save": "compact", "Rule": "sparsify", "Sparsifier": "sparsify"}
_ROOMS = {"compact", "dropout", "duality", "graph", "imbalance", "labels", "linear", "penalties", "sparsify"}


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
    if name in _ROOMS:
        return import_module(f"{__name__}.{name}")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
