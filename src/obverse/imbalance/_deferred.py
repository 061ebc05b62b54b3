"""Deferred reweighting: plain weights while features form, class-balanced ones for the last part of training."""

from __future__ import annotations

from typing import Protocol, final

import torch
from torch import Tensor, nn

from .._core import checks
from ..errors import InvalidArgumentError
from ._counts import Counts, as_counts, class_balanced_weights

__all__ = ["DeferredReweighting"]


class _TakesWeights(Protocol):
    def __call__(self, logits: Tensor, target: Tensor, weight: Tensor | None = None) -> Tensor: ...


@final
class DeferredReweighting(nn.Module):
    """A loss whose class weights switch on after ``start`` epochs.

    Parameters
    ----------
    loss : callable
        ``loss(logits, target, weight)`` with one weight for each row, such as every loss of this room.
    counts : array of shape (K,)
        Training examples in each class, all positive.
    start : int
        Calls of `step` before the weights switch on; 160 of 200 epochs in the paper, with a drop of the learning rate.
    beta : float
        Of `class_balanced_weights`.
    ignore_index : int
        Rows of ``loss`` that are ignored.

    Notes
    -----
    The number of calls of `step` is part of the state dict, so a resumed run switches when the uninterrupted one does.
    The unweighted loss stays at hand as ``deferred.loss``; a Jacobian penalty is computed from that one.
    Source: Cao, Wei, Gaidon, Arechiga and Ma (2019).
    """

    def __init__(
        self, loss: _TakesWeights, counts: Counts, *, start: int, beta: float = 0.9999, ignore_index: int = -100
    ) -> None:
        super().__init__()
        if not callable(loss):
            raise InvalidArgumentError(f"loss must be callable as loss(logits, target, weight), got {loss!r}")
        self.loss = loss
        self.start = checks.count("start", start, 0)
        self.ignore_index = checks.integer("ignore_index", ignore_index)
        self.epoch: Tensor
        self.balanced: Tensor
        self.register_buffer("epoch", torch.zeros((), dtype=torch.int64))
        self.register_buffer("balanced", class_balanced_weights(as_counts(counts), beta), persistent=False)

    @property
    def active(self) -> bool:
        """Whether the weights are on."""
        return int(self.epoch) >= self.start

    @property
    def class_weights(self) -> Tensor:
        """Weights of the classes now, shape (K,): ones before ``start``."""
        return self.balanced if self.active else torch.ones_like(self.balanced)

    def step(self) -> None:
        """An epoch has ended."""
        self.epoch += 1

    def forward(self, logits: Tensor, target: Tensor, weight: Tensor | None = None) -> Tensor:
        """The loss of a batch under the weights of now, times ``weight`` where given."""
        if not self.active:
            return self.loss(logits, target, weight)
        if logits.ndim != 2 or logits.shape[1] != len(self.balanced):
            raise InvalidArgumentError(f"{len(self.balanced)} counts do not fit logits of shape {tuple(logits.shape)}")
        counted = (target != self.ignore_index) & (target >= 0) & (target < len(self.balanced))
        balanced = self.balanced[torch.where(counted, target, torch.zeros_like(target))]
        return self.loss(logits, target, balanced if weight is None else balanced * weight)

    def extra_repr(self) -> str:
        return f"start={self.start}, epoch={int(self.epoch)}"
