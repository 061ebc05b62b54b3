"""Cross-entropy, plain and against smoothed labels."""

from __future__ import annotations

from typing import Any

import torch

from .._core import checks
from ._criterion import Given, LabelCriterion
from ._rows import Rows

__all__ = ["CrossEntropy", "LabelSmoothing"]


class CrossEntropy(LabelCriterion):
    """``-log p_y``: `torch.nn.CrossEntropyLoss` with the contract of `LabelCriterion`.

    Parameters
    ----------
    **options
        ``weight``, ``ignore_index``, ``reduction`` of `LabelCriterion`.
    """

    name = "cross-entropy"

    def _values(self, rows: Rows, given: Given) -> torch.Tensor:
        return rows.cross_entropy()


class LabelSmoothing(LabelCriterion):
    """Cross-entropy against ``q = (1 - smoothing) t + smoothing / K``.

    Parameters
    ----------
    smoothing : float
        Share of the uniform distribution, in [0, 1].
    **options
        ``weight``, ``ignore_index``, ``reduction`` of `LabelCriterion`.

    Notes
    -----
    The gradient in the logits is ``p - q``; the optimal gap between the target's logit and another one is
    ``log((1 - smoothing + smoothing/K) / (smoothing/K))``. The convention ``(1 - s, s/(K-1))`` of some libraries is the
    same with ``s = smoothing (K-1)/K``. Equal to ``torch.nn.CrossEntropyLoss(label_smoothing=smoothing)``, probability
    targets and weights included. Source: Szegedy et al. (2016).
    """

    name = "smoothing"

    def __init__(self, smoothing: float = 0.1, **options: Any) -> None:
        super().__init__(**options)
        self.smoothing = checks.fraction("smoothing", smoothing)

    def _values(self, rows: Rows, given: Given) -> torch.Tensor:
        log_p = rows.log_p
        if rows.masked is not None:
            uniform = rows.against(rows.restricted(torch.full_like(log_p, 1.0 / log_p.shape[1])))
        else:
            uniform = -(log_p.mean(1) if rows.weight is None else log_p @ rows.weight / log_p.shape[1])
            uniform = torch.where(rows.kept, uniform, 0.0)
        return (1.0 - self.smoothing) * rows.cross_entropy() + self.smoothing * uniform

    def extra_repr(self) -> str:
        """Smoothing and the options of the base."""
        return ", ".join(filter(None, (f"smoothing={self.smoothing}", super().extra_repr())))
