"""The focal loss, with the probabilities of the model under any weights."""

from __future__ import annotations

from typing import Any, Literal, final

import torch
import torch.nn.functional as F
from torch import Tensor

from .._core import checks
from ..errors import UnknownNameError
from ._weighted_loss import WeightedLoss

__all__ = ["FocalLoss"]


@final
class FocalLoss(WeightedLoss):
    """Cross-entropy with less on what is already right: ``(1 - p_t)^gamma (-log p_t)``.

    Parameters
    ----------
    gamma : float
        Not negative; 0 is the cross-entropy, 2 the usual value for detection, 0.5 to 2 for long tails.
    form : {"softmax", "sigmoid"}
        ``softmax``: p_t is the probability of the target. ``sigmoid``: one problem for each class against the rest,
        with p_t the probability of the right answer, and their sum over the K classes as the loss of a row. For it,
        start the biases of the head at ``-log(K - 1)``.
    class_weights, denominator, reduction, ignore_index
        As for `WeightedLoss`. Class-balanced focal loss: ``class_weights=class_balanced_weights(counts)``.

    Notes
    -----
    ``1 - p_t`` is computed by its logarithm, so value and gradient are finite for every finite logit, also where
    ``gamma`` is below one. Sources: Lin, Goyal, Girshick, He and Dollar (2017); the sum over sigmoids for long tails,
    Cui et al. (2019).
    """

    def __init__(self, gamma: float = 2.0, *, form: Literal["softmax", "sigmoid"] = "softmax", **options: Any) -> None:
        super().__init__(**options)
        self.gamma = checks.nonnegative("gamma", gamma)
        if form not in ("softmax", "sigmoid"):
            raise UnknownNameError("form", str(form), ("softmax", "sigmoid"))
        self.form = form

    def values(self, logits: Tensor, target: Tensor) -> Tensor:
        """The focal loss of every row."""
        if self.form == "sigmoid":
            signs = torch.full_like(logits, -1.0).scatter_(1, target[:, None], 1.0)
            # A masked class is right with certainty, and the logarithm of certainty is zero.
            is_masked = logits == -torch.inf
            finite = torch.where(is_masked, 0.0, logits)
            right, wrong = F.logsigmoid(signs * finite), F.logsigmoid(-signs * finite)
            return -torch.where(is_masked, 0.0, torch.exp(self.gamma * wrong) * right).sum(1)
        right = F.log_softmax(logits, dim=1).gather(1, target[:, None])[:, 0]
        is_target = torch.zeros_like(logits, dtype=torch.bool).scatter_(1, target[:, None], True)
        others = logits.masked_fill(is_target, -torch.inf)
        # Where all others are masked, the target is certain and the loss is zero whatever the factor.
        alone = (others == -torch.inf).all(1)
        others = torch.logsumexp(torch.where(alone[:, None], logits, others), dim=1)
        wrong = others - torch.logsumexp(logits, dim=1)
        return -torch.exp(self.gamma * wrong) * right

    def extra_repr(self) -> str:
        return f"gamma={self.gamma:g}, form={self.form!r}, {super().extra_repr()}"
