"""A price on confidence."""

from __future__ import annotations

from typing import Any

import torch

from .._core import checks
from ._criterion import Given, LabelCriterion
from ._rows import Rows

__all__ = ["ConfidencePenalty"]


class ConfidencePenalty(LabelCriterion):
    """Cross-entropy minus ``strength`` times the entropy ``H(p)`` of the prediction.

    Parameters
    ----------
    strength : float
        ``b``, at least 0.
    threshold : float, optional
        Entropy in nats from which on nothing is asked: the term is then ``b max(0, threshold - H(p))``.
    **options
        ``weight``, ``ignore_index``, ``reduction`` of `LabelCriterion`.

    Notes
    -----
    ``CE - b H(p)``, with gradient ``(p - t) + b p (log p + H)``; up to a constant ``CE + b KL(p || uniform)``, where
    label smoothing has ``KL(uniform || p)``. Source: Pereyra et al. (2017); the hinge is recalled, not read.
    """

    name = "confidence"

    def __init__(self, strength: float = 0.1, threshold: float | None = None, **options: Any) -> None:
        super().__init__(**options)
        self.strength = checks.nonnegative("strength", strength)
        self.threshold = None if threshold is None else checks.nonnegative("threshold", threshold)

    def _values(self, rows: Rows, given: Given) -> torch.Tensor:
        negative_entropy = rows.times_log_p(rows.log_p.exp()).sum(1)
        if self.threshold is not None:
            negative_entropy = (self.threshold + negative_entropy).clamp(min=0.0)
        return rows.cross_entropy() + self.strength * rows.weigh(negative_entropy)

    def extra_repr(self) -> str:
        """Strength, threshold and the options of the base."""
        own = f"strength={self.strength}" + ("" if self.threshold is None else f", threshold={self.threshold}")
        return ", ".join(filter(None, (own, super().extra_repr())))
