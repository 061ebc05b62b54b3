"""Cross-entropy and its reverse."""

from __future__ import annotations

import math
from typing import Any

import torch

from .._core import checks
from ..errors import InvalidArgumentError
from ._criterion import Given, LabelCriterion
from ._rows import Rows

__all__ = ["SymmetricCrossEntropy"]


class SymmetricCrossEntropy(LabelCriterion):
    """``forward CE(t, p) + reverse CE(p, t)``, with ``log 0`` in the reverse term replaced by a constant.

    Parameters
    ----------
    forward_strength, reverse_strength : float
        Both at least 0. The reference implementation has (0.1, 1) for CIFAR-10 and (6, 0.1) for CIFAR-100.
    log_zero : float
        What ``log t_k`` is at least, below 0. The paper has -4 (recalled, not read); the reference implementation
        clamps labels at 1e-4, which is -9.21.
    **options
        ``weight``, ``ignore_index``, ``reduction`` of `LabelCriterion`.

    Notes
    -----
    The reverse term is ``-sum_k p_k max(log t_k, A)``; for a class label it is ``|A| (1 - p_y)``, bounded, and so
    robust to wrong labels. Source: Wang et al. (2019).
    """

    name = "symmetric"

    def __init__(
        self,
        forward_strength: float = 0.1,
        reverse_strength: float = 1.0,
        log_zero: float = -4.0,
        **options: Any,
    ) -> None:
        super().__init__(**options)
        self.forward_strength = checks.nonnegative("forward_strength", forward_strength)
        self.reverse_strength = checks.nonnegative("reverse_strength", reverse_strength)
        number = isinstance(log_zero, (int, float)) and not isinstance(log_zero, bool)
        if not number or not -math.inf < log_zero < 0.0:
            raise InvalidArgumentError(f"log_zero must be finite and below 0, got {log_zero!r}")
        self.log_zero = float(log_zero)

    def _values(self, rows: Rows, given: Given) -> torch.Tensor:
        if rows.index is not None:
            reverse = -self.log_zero * -torch.expm1(rows.of_target(rows.log_p))
        else:
            # A share of zero is replaced before the logarithm: its slope there is infinite.
            shares = rows.one_hot().clamp(min=math.exp(self.log_zero))
            reverse = -(rows.log_p.exp() * shares.log()).sum(1)
        return self.forward_strength * rows.cross_entropy() + self.reverse_strength * rows.weigh(reverse)

    def extra_repr(self) -> str:
        """Strengths, the constant and the options of the base."""
        own = f"{self.forward_strength}, {self.reverse_strength}, log_zero={self.log_zero}"
        return ", ".join(filter(None, (own, super().extra_repr())))
