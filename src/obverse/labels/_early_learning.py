"""Holding on to what a network said early on, before it memorized wrong labels."""

from __future__ import annotations

from typing import Any

import torch

from .._core import checks
from ._criterion import Given, LabelCriterion
from ._rows import Rows
from ._sample_memory import SampleMemory

__all__ = ["EarlyLearningRegularization"]

_LARGEST = 1.0 - 1e-4


class EarlyLearningRegularization(LabelCriterion):
    """``CE + strength log(1 - <p, t>)`` with ``t`` a moving average of the sample's own predictions.

    Parameters
    ----------
    num_classes : int
    strength : float
        ``lambda``. The reference code has 3 and 7 for CIFAR-10 and CIFAR-100.
    momentum : float
        ``b`` of ``t <- b t + (1 - b) p`` (detached, updated before use, 0 at first), in [0, 1). The reference code has
        0.7 for CIFAR-10 and 0.9 for CIFAR-100.
    num_samples : int, optional
        Size of the training set; ids are below it. By default the memory grows with the largest id.
    top : int, optional
        How many classes of ``t`` are remembered, see `SampleMemory`: ``4 top`` bytes per sample. None, or at least K:
        all of them in float32.
    **options
        ``weight``, ``ignore_index``, ``reduction`` of `LabelCriterion`.

    Notes
    -----
    Needs ``index=ids`` in training; rows of dense logits need one id each. The gradient of the term is ``-strength p_j
    (t_j - <p, t>) / (1 - <p, t>)``; negative losses are normal. ``<p, t>`` is taken as at most 1 - 1e-4 (the reference
    code clamps ``p`` instead). What is not among the ``top`` classes is forgotten, so that ``t`` then sums to less than
    one. In evaluation the plain cross-entropy. Source: Liu et al. (2020).
    """

    name = "early-learning"
    needs_index = True
    is_stateful = True

    def __init__(
        self,
        num_classes: int,
        strength: float = 3.0,
        momentum: float = 0.7,
        *,
        num_samples: int | None = None,
        top: int | None = 10,
        **options: Any,
    ) -> None:
        super().__init__(**options)
        self.num_classes = checks.count("num_classes", num_classes, 2)
        self.strength = checks.nonnegative("strength", strength)
        self.momentum = checks.fraction("momentum", momentum, one=False)
        self.memory = SampleMemory(num_classes, num_samples, top, spread=False)

    def _values(self, rows: Rows, given: Given) -> torch.Tensor:
        if not self.training or given.index is None:
            return rows.cross_entropy()
        p = rows.log_p.exp()
        average, _ = self.memory.read(given.index, p.dtype)
        if self.is_learning:
            average = self.momentum * average + (1.0 - self.momentum) * p.detach()
            self.memory.write(given.index[rows.kept], average[rows.kept])
        agreement = (p * average).sum(1).clamp(max=_LARGEST)
        return rows.cross_entropy() + self.strength * rows.weigh(torch.log1p(-agreement))

    def extra_repr(self) -> str:
        """Strength, momentum and the options of the base."""
        return f"strength={self.strength}, momentum={self.momentum}, {super().extra_repr()}"
