"""Between cross-entropy and absolute error, with and without the samples the network does not believe."""

from __future__ import annotations

from typing import Any

import torch

from .._core import checks
from ..errors import InvalidArgumentError
from ._criterion import Given, LabelCriterion
from ._distributed import rows_of_all
from ._rows import Rows
from ._sample_flags import SampleFlags

__all__ = ["GeneralizedCrossEntropy"]


class GeneralizedCrossEntropy(LabelCriterion):
    """``(1 - p_y^q) / q``; truncated, constant for samples whose label has a probability of at most ``truncation``.

    Parameters
    ----------
    q : float
        In (0, 1]: cross-entropy for ``q -> 0``, ``1 - p_y`` for 1.
    truncation : float, optional
        ``k`` in (0, 1), such as 0.5: where ``p_y <= k`` the loss is ``(1 - k^q) / q`` and has no gradient. By default
        no truncation.
    warmup_epochs : int
        Epochs before truncation begins, counted by `end_epoch`. At first every ``p_y`` is about ``1/K``: truncated from
        the start nothing would be learned. The public implementation starts at the first drop of the learning rate (40
        epochs for CIFAR-10, 80 for CIFAR-100).
    refresh_every : int
        1 decides anew in every step which samples are left out. A larger number decides in every so many epochs, and
        between them keeps one bit of decision per sample (a byte in memory), which needs ``index=ids``.
    num_samples : int, optional
        Size of the training set; ids are below it. By default the memory of decisions grows with the largest id.
    **options
        ``weight``, ``ignore_index``, ``reduction`` of `LabelCriterion`.

    Notes
    -----
    The gradient is that of cross-entropy times ``p_y^q``. A probability target gives ``sum_k t_k (1 - p_k^q)/q`` and is
    truncated by ``sum_k t_k p_k`` (ours). Source: Zhang and Sabuncu (2018). The alternating pruning with a step over
    the whole training set is replaced by decisions along the way (ours).
    """

    name = "generalized"
    state_counters = ("finished_epochs",)

    def __init__(
        self,
        q: float = 0.7,
        truncation: float | None = None,
        *,
        warmup_epochs: int = 40,
        refresh_every: int = 1,
        num_samples: int | None = None,
        **options: Any,
    ) -> None:
        super().__init__(**options)
        self.q = checks.fraction("q", q)
        if self.q == 0.0:
            raise InvalidArgumentError("q must be in (0, 1], got 0; that limit is CrossEntropy")
        self.truncation = None if truncation is None else checks.fraction("truncation", truncation, one=False)
        if self.truncation == 0.0:
            raise InvalidArgumentError("truncation must be in (0, 1) or None, got 0")
        self.warmup_epochs = checks.count("warmup_epochs", warmup_epochs, 0)
        self.refresh_every = checks.count("refresh_every", refresh_every)
        self.finished_epochs = 0
        self.is_stateful = truncation is not None
        self.needs_index = truncation is not None and refresh_every > 1
        self.decisions = SampleFlags(num_samples) if self.needs_index else None

    @property
    def is_truncating(self) -> bool:
        """Whether the warm-up is over."""
        return self.truncation is not None and self.finished_epochs >= self.warmup_epochs

    def end_epoch(self) -> None:
        """Count the epoch."""
        self.finished_epochs += 1

    def _values(self, rows: Rows, given: Given) -> torch.Tensor:
        q = self.q
        if rows.index is not None:
            chosen = rows.of_target(rows.log_p)
            values = -torch.expm1(q * chosen) / q
        else:
            values = rows.of_target(-torch.expm1(q * rows.log_p) / q)
        if self.training and self.is_truncating and self.truncation is not None:
            believed = rows.of_target(rows.log_p.detach().exp()) > self.truncation
            believed = self._decided(believed, rows, given)
            values = torch.where(believed, values, (1.0 - self.truncation**q) / q)
        return rows.weigh(values)

    def _decided(self, believed: torch.Tensor, rows: Rows, given: Given) -> torch.Tensor:
        """The decision of this step, or that of the last epoch in which decisions were made."""
        if self.decisions is None or given.index is None:
            return believed
        if (self.finished_epochs - self.warmup_epochs) % self.refresh_every:
            return self.decisions.read(given.index, believed)
        if self.is_learning:
            self.decisions.write(*rows_of_all(given.index[rows.kept], believed[rows.kept]))
        return believed

    def extra_repr(self) -> str:
        """Exponent, truncation and the options of the base."""
        own = f"q={self.q}" + ("" if self.truncation is None else f", truncation={self.truncation}")
        return ", ".join(filter(None, (own, super().extra_repr())))
