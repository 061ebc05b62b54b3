"""The unweighted loss of every row, whatever criterion trains the model."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from .._core.arrays import wide
from ..errors import InvalidArgumentError
from ._weighted_loss import CrossEntropyLoss, WeightedLoss

__all__ = ["RowLosses"]


class RowLosses:
    """Losses of rows in float32 or float64, and which rows count.

    Parameters
    ----------
    loss : callable, optional
        A loss of this room, of which the weights are left out, or ``loss(logits, target)`` of shape (N,); by default
        cross-entropy.
    ignore_index : int
        Of the default.
    """

    def __init__(self, loss: Callable[[Tensor, Tensor], Tensor] | None, ignore_index: int) -> None:
        if loss is not None and not callable(loss):
            raise InvalidArgumentError(f"loss must be callable as loss(logits, target), got {loss!r}")
        self._loss = CrossEntropyLoss(ignore_index=ignore_index) if loss is None else loss

    def __call__(self, logits: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        """Losses (N,), zero where ignored, and a mask (N,) of the others."""
        if not isinstance(self._loss, WeightedLoss):
            rows = self._loss(wide(logits), target)
            if rows.shape != logits.shape[:1]:
                raise InvalidArgumentError(
                    f"loss must give one number for each of the {len(logits)} rows, got shape {tuple(rows.shape)}; "
                    "use reduction='none'"
                )
            return rows, torch.ones_like(rows, dtype=torch.bool)
        target, _ = self._loss._checked(logits, target, None)
        kept = target != self._loss.ignore_index
        target = torch.where(kept, target, torch.zeros_like(target))
        rows = self._loss.values(self._loss._scores(logits, target, kept), target)
        return torch.where(kept, rows, torch.zeros_like(rows)), kept

    def slopes(self, logits: Tensor, target: Tensor, kept: Tensor) -> Tensor | None:
        """Slopes of the summed losses by the logits, with their graph, where they have a closed form."""
        if type(self._loss) is not CrossEntropyLoss:
            return None
        scores = wide(logits).softmax(1)
        known = torch.where(kept, target.long(), torch.zeros_like(target, dtype=torch.long))[:, None]
        slopes = scores.scatter_add(1, known, torch.full_like(scores[:, :1], -1.0))
        return torch.where(kept[:, None], slopes, torch.zeros_like(slopes))
