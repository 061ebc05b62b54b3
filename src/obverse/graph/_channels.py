"""Channels and the classes they fall into: a union-find over integers, with the reason for every pin."""

from __future__ import annotations

import numpy as np
import torch

__all__ = ["WHOLE", "Channels"]

WHOLE = 0  # the label of everything that keeps its size: inputs, outputs, positions, constants


class Channels:
    """Every feature channel of every tensor has a label; labels that live or die together share a class."""

    def __init__(self) -> None:
        self._parent: list[int] = [WHOLE]
        self.pins: dict[int, str] = {WHOLE: "it is part of the interface of the model"}

    def fresh(self, count: int) -> torch.Tensor:
        """``count`` new labels, each a class of its own; shape (count,)."""
        start = len(self._parent)
        self._parent.extend(range(start, start + count))
        return torch.arange(start, start + count)

    @property
    def count(self) -> int:
        """How many labels there are."""
        return len(self._parent)

    def find(self, label: int) -> int:
        root = label
        while self._parent[root] != root:
            root = self._parent[root]
        while self._parent[label] != root:
            self._parent[label], label = root, self._parent[label]
        return root

    def roots(self, labels: torch.Tensor) -> torch.Tensor:
        """The class of every label, in the shape of ``labels``."""
        unique, inverse = torch.unique(labels, return_inverse=True)
        found = torch.tensor([self.find(label) for label in unique.tolist()], dtype=torch.long)
        return found[inverse]

    def tie(self, first: torch.Tensor, second: torch.Tensor) -> None:
        """Join the classes of the labels that stand at the same place; the shapes broadcast."""
        first, second = torch.broadcast_tensors(first, second)  # type: ignore[no-untyped-call]
        if not first.numel():
            return
        pairs = np.unique(torch.stack([first.reshape(-1), second.reshape(-1)], 1).numpy(), axis=0)
        for a, b in pairs.tolist():
            low, high = sorted((self.find(a), self.find(b)))
            if low != high:
                self._parent[high] = low
                if high in self.pins:
                    self.pins.setdefault(low, self.pins.pop(high))

    def tie_along(self, labels: torch.Tensor, kept: int) -> torch.Tensor:
        """Join all labels that share an index of the axis ``kept``; one label per index, shape (size,)."""
        rows = labels.movedim(kept, 0).reshape(labels.shape[kept], -1)
        first = rows[:, 0]
        self.tie(rows, first[:, None])
        return first

    def pin(self, labels: torch.Tensor, reason: str) -> None:
        """Keep the classes of these labels whole, for a reason in words."""
        for root in torch.unique(self.roots(labels)).tolist():
            self.pins.setdefault(root, reason)

    def pinned(self, root: int) -> str | None:
        return self.pins.get(root)
