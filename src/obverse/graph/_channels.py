"""Channels and the classes they fall into: connected components of ties, with the reason for every pin."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

__all__ = ["WHOLE", "Channels"]

WHOLE = 0  # the label of everything that keeps its size: inputs, outputs, positions, constants


class Channels:
    """Every feature channel of every tensor has a label; labels that live or die together share a class.

    Ties are collected, and classes are found when they are asked for: the components of a graph of labels. A class is
    named by its smallest label.
    """

    def __init__(self) -> None:
        self.count = 1
        self._ties: list[NDArray[np.int64]] = []
        self._pins: list[tuple[NDArray[np.int64], str]] = []
        self._roots = np.zeros(1, dtype=np.int64)
        self._solved = 0
        self._reasons: dict[int, str] = {}
        self._reasoned = (-1, -1)

    def fresh(self, count: int) -> torch.Tensor:
        """``count`` new labels, each a class of its own; shape (count,)."""
        start = self.count
        self.count += count
        return torch.arange(start, start + count)

    def tie(self, first: torch.Tensor, second: torch.Tensor) -> None:
        """Join the classes of the labels that stand at the same place; the shapes broadcast."""
        first, second = torch.broadcast_tensors(first, second)  # type: ignore[no-untyped-call]
        differ = first != second
        if bool(differ.any()):
            pairs = torch.stack([first[differ], second[differ]], 1).numpy()
            self._ties.append(np.unique(pairs, axis=0) if len(pairs) > 4096 else pairs)

    def tie_along(self, labels: torch.Tensor, kept: int, size: int | None = None) -> torch.Tensor:
        """Join all labels that share an index of the axis ``kept``; one label per index, shape (size,)."""
        rows = labels.movedim(kept, 0).reshape(labels.shape[kept], -1)
        first = rows[:, 0]
        self.tie(rows, first[:, None])
        return first.expand(size) if size is not None and len(first) == 1 else first

    def pin(self, labels: torch.Tensor, reason: str) -> None:
        """Keep the classes of these labels whole, for a reason in words."""
        self._pins.append((np.unique(labels.numpy()), reason))

    def every_root(self) -> NDArray[np.int64]:
        """The class of every label there is; int64, (count,)."""
        if self._solved != len(self._ties) or len(self._roots) != self.count:
            self._roots = _components(self.count, self._ties)
            self._solved = len(self._ties)
        return self._roots

    def roots(self, labels: torch.Tensor) -> torch.Tensor:
        """The class of every label, in the shape of ``labels``."""
        return torch.from_numpy(self.every_root()[labels.numpy()])

    @property
    def pins(self) -> dict[int, str]:
        """Why classes stay: the first reason given for each."""
        roots = self.every_root()
        state = (self._solved, len(self._pins))
        if self._reasoned != state:
            reasons: dict[int, str] = {}
            for labels, reason in self._pins:
                for root in np.unique(roots[labels]).tolist():
                    reasons.setdefault(root, reason)
            reasons.setdefault(WHOLE, "it is part of the interface of the model")
            self._reasons, self._reasoned = reasons, state
        return self._reasons

    def pinned(self, root: int) -> str | None:
        """Why a class stays, or None where it may go."""
        return self.pins.get(root)


def _components(count: int, ties: list[NDArray[np.int64]]) -> NDArray[np.int64]:
    from scipy.sparse import coo_matrix
    from scipy.sparse.csgraph import connected_components

    if not ties:
        return np.arange(count, dtype=np.int64)
    pairs = np.concatenate(ties)
    graph = coo_matrix((np.ones(len(pairs), dtype=bool), (pairs[:, 0], pairs[:, 1])), shape=(count, count))
    _, component = connected_components(graph, directed=False)
    _, first = np.unique(component, return_index=True)
    return np.asarray(first[component], dtype=np.int64)
