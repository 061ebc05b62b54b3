"""Samples of one class that teach each other."""

from __future__ import annotations

from typing import Any

import torch

from .._core import checks
from ._criterion import Given, LabelCriterion
from ._rows import Rows, divergence

__all__ = ["ClassWiseSelfDistillation"]


class ClassWiseSelfDistillation(LabelCriterion):
    """``CE + strength T^2 KL(sg softmax(z'/T) || softmax(z/T))``, ``z'`` the logits of another sample of the class.

    Parameters
    ----------
    strength : float
        ``lambda``. The reference code has 1 for CIFAR and 3 for fine-grained classes.
    temperature : float
        ``T``.
    **options
        ``weight``, ``ignore_index``, ``reduction`` of `LabelCriterion`.

    Notes
    -----
    ``pair_logits=z'`` gives the partner's logits, of a second forward pass without gradients as in the reference code.
    Without it partners are found in the batch (ours), which costs no second pass: each row is taught by the next row of
    its class, the last one by the first; a row alone in its class has the cross-entropy only. `ClassPairSampler` draws
    batches in which every sample has a partner. The class of a probability target is that with the largest share.

    The gradient of the second term in the logits is ``strength T (p_T - p'_T)``. In evaluation the plain cross-entropy.
    Source: Yun et al. (2020).
    """

    name = "class-wise"
    needs_pairs = True

    def __init__(self, strength: float = 1.0, temperature: float = 4.0, **options: Any) -> None:
        super().__init__(**options)
        self.strength = checks.nonnegative("strength", strength)
        self.temperature = checks.positive("temperature", temperature)

    def _values(self, rows: Rows, given: Given) -> torch.Tensor:
        values = rows.cross_entropy()
        if not self.training:
            return values
        log_p = (rows.logits / self.temperature).log_softmax(1)
        if given.pair_logits is not None:
            log_t = rows.without_masked(given.pair_logits.detach().to(log_p.dtype) / self.temperature).log_softmax(1)
        else:
            log_t = log_p.detach()[_next_of_class(rows)]
            if rows.masked is not None:
                log_t = rows.without_masked(log_t).log_softmax(1)
        is_bounded = rows.is_bounded and given.pair_logits is None
        # A row that is its own partner has a divergence of zero, and a gradient of zero.
        return values + self.strength * self.temperature**2 * rows.weigh(divergence(log_t, log_p, is_bounded))

    def extra_repr(self) -> str:
        """Strength, temperature and the options of the base."""
        own = f"strength={self.strength}, temperature={self.temperature}"
        return ", ".join(filter(None, (own, super().extra_repr())))


def _next_of_class(rows: Rows) -> torch.Tensor:
    """(R,) number of the next row with the same class, cyclically; ignored rows are a class of their own."""
    classes = torch.where(rows.kept, rows.dominant, -1)
    ordered, order = classes.sort(stable=True)
    position = torch.arange(len(order), device=order.device)
    first = torch.searchsorted(ordered, ordered)
    is_last = torch.searchsorted(ordered, ordered, right=True) == position + 1
    following = torch.where(is_last, first, position + 1)
    return torch.empty_like(order).scatter_(0, order, order[following])
