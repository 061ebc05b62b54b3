"""Yesterday's prediction as part of today's label."""

from __future__ import annotations

from typing import Any

import torch

from .._core import checks
from ._criterion import Given, LabelCriterion
from ._rows import Rows
from ._sample_memory import SampleMemory

__all__ = ["ProgressiveSelfDistillation"]


class ProgressiveSelfDistillation(LabelCriterion):
    """Cross-entropy against ``(1 - a) t + a P(x)``, ``P`` the prediction for the sample in the epoch before.

    Parameters
    ----------
    num_classes : int
    epochs : int
        Length of training: ``a = final_share e / epochs`` in epoch ``e = 1, 2, ...``; `end_epoch` counts them.
    final_share : float
        In [0, 1].
    num_samples : int, optional
        Size of the training set; ids are below it. By default the memory grows with the largest id.
    top : int, optional
        How many classes of ``P`` are remembered, see `SampleMemory`: ``4 top`` bytes per sample; the rest of the mass
        is spread evenly. None, or at least K: all of them in float32.
    **options
        ``weight``, ``ignore_index``, ``reduction`` of `LabelCriterion`.

    Notes
    -----
    Needs ``index=ids`` in training; rows of dense logits need one id each. A sample that was never seen has its label
    for a prediction. The gradient is ``p`` minus the target. In evaluation the plain cross-entropy. Source: Kim et al.
    (2021), with the defaults of its code; storing the top classes only is ours.
    """

    name = "progressive"
    state_counters = ("finished_epochs",)
    needs_index = True
    is_stateful = True

    def __init__(
        self,
        num_classes: int,
        epochs: int = 100,
        final_share: float = 0.8,
        *,
        num_samples: int | None = None,
        top: int | None = 10,
        **options: Any,
    ) -> None:
        super().__init__(**options)
        self.num_classes = checks.count("num_classes", num_classes, 2)
        self.epochs = checks.count("epochs", epochs)
        self.final_share = checks.fraction("final_share", final_share)
        self.finished_epochs = 0
        self.memory = SampleMemory(num_classes, num_samples, top, spread=True)

    @property
    def share(self) -> float:
        """``a`` of the current epoch."""
        return self.final_share * min(self.finished_epochs + 1, self.epochs) / self.epochs

    def end_epoch(self) -> None:
        """Count the epoch."""
        self.finished_epochs += 1

    def _values(self, rows: Rows, given: Given) -> torch.Tensor:
        if not self.training or given.index is None:
            return rows.cross_entropy()
        earlier, seen = self.memory.read(given.index, rows.logits.dtype, rows.masked)
        if self.is_learning:
            self.memory.write(given.index[rows.kept], rows.log_p.detach()[rows.kept].exp())
        a = self.share
        plain = rows.cross_entropy()
        return torch.where(seen, (1.0 - a) * plain + a * rows.against(rows.restricted(earlier)), plain)

    def extra_repr(self) -> str:
        """Schedule and the options of the base."""
        return f"epochs={self.epochs}, final_share={self.final_share}, {super().extra_repr()}"
