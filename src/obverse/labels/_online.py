"""Soft labels of classes from what the network answers when it is right."""

from __future__ import annotations

from typing import Any

import torch

from .._core import checks
from .._core.distributed import add, is_parallel
from ..errors import UnknownNameError
from ._criterion import Given, LabelCriterion
from ._rows import Rows

__all__ = ["OnlineLabelSmoothing"]

_STARTS = ("uniform", "smoothing", "zeros")
_FALLBACKS = ("uniform", "smoothing", "keep")


class OnlineLabelSmoothing(LabelCriterion):
    """Cross-entropy against ``a t + (1 - a) S[y]``, ``S[k]`` the mean prediction for class k in the epoch before.

    Parameters
    ----------
    num_classes : int
    hard_share : float
        ``a`` in [0, 1].
    start : {"uniform", "smoothing", "zeros"}
        ``S`` in the first epoch: uniform, smoothed labels of 0.1, or nothing (the loss is then ``a CE``, as in the
        official script for CIFAR).
    fallback : {"uniform", "smoothing", "keep"}
        ``S[k]`` after an epoch without a correct answer for class k.
    freeze_above : float, optional
        Rows whose largest share has reached this stay as they are; 0.88 in the official script for fine-grained
        classes.
    **options
        ``weight``, ``ignore_index``, ``reduction`` of `LabelCriterion`.

    Notes
    -----
    While training, predictions of rows that are classified correctly are summed per class, in float32 at least;
    `end_epoch` makes their means the next ``S``. An epoch without any correct answer changes nothing. The gradient in
    the logits is ``p`` minus the target. With probability targets the soft label is ``sum_k t_k S[k]``, and a
    prediction is credited to the class with the largest share (ours). State: three (K, K) tables at most, ``8 K (K +
    1)`` bytes in one process.

    Each process counts for itself; `end_epoch`, called in every process, adds the counts up, and so does `synchronize`,
    to be called before a checkpoint within an epoch. Source: Zhang et al. (2021).
    """

    name = "online"
    state_tensors = ("soft_labels", "answers", "correct")
    is_stateful = True
    soft_labels: torch.Tensor
    answers: torch.Tensor
    correct: torch.Tensor

    def __init__(
        self,
        num_classes: int,
        hard_share: float = 0.5,
        *,
        start: str = "uniform",
        fallback: str = "uniform",
        freeze_above: float | None = None,
        **options: Any,
    ) -> None:
        super().__init__(**options)
        self.num_classes = checks.count("num_classes", num_classes, 2)
        self.hard_share = checks.fraction("hard_share", hard_share)
        for kind, given, known in (("start", start, _STARTS), ("fallback", fallback, _FALLBACKS)):
            if given not in known:
                raise UnknownNameError(kind, str(given), known)
        self.start, self.fallback = start, fallback
        self.freeze_above = None if freeze_above is None else checks.fraction("freeze_above", freeze_above)
        self.soft_labels = _filled(torch.zeros(num_classes, num_classes), start)
        self.answers = torch.zeros(num_classes, num_classes)
        self.correct = torch.zeros(num_classes)
        # What this process has counted since the processes last added up; the state holds the sum over all of them.
        self._unshared: tuple[torch.Tensor, torch.Tensor] | None = None

    def _values(self, rows: Rows, given: Given) -> torch.Tensor:
        soft = rows.against(rows.of_table(self.soft_labels))
        values = self.hard_share * rows.cross_entropy() + (1.0 - self.hard_share) * soft
        if self.is_learning:
            self._count(rows)
        return values

    @torch.no_grad()
    def _count(self, rows: Rows) -> None:
        answers, correct = self.answers, self.correct
        if is_parallel():
            if self._unshared is None:
                self._unshared = torch.zeros_like(self.answers), torch.zeros_like(self.correct)
            answers, correct = self._unshared
        # Weights of zero and one in place of a choice of rows, for which an accelerator would have to be waited for.
        right = ((rows.logits.argmax(1) == rows.dominant) & rows.kept).to(answers.dtype)
        p = torch.where(right[:, None] > 0, rows.log_p.exp(), 0.0).to(answers.dtype)
        answers.index_add_(0, rows.dominant, p)
        correct.index_add_(0, rows.dominant, right)

    def synchronize(self) -> None:
        """Add up what the processes have counted."""
        if not is_parallel():
            return
        answers, correct = self._unshared or (torch.zeros_like(self.answers), torch.zeros_like(self.correct))
        add(answers, correct)
        self.answers += answers
        self.correct += correct
        self._unshared = None

    def end_epoch(self) -> None:
        """Take the mean answers of the epoch for soft labels and begin to count anew."""
        self.synchronize()
        if not bool(self.correct.any()):
            return
        answered = self.correct > 0
        means = self.answers / torch.where(answered, self.correct, 1.0)[:, None]
        updated = torch.where(answered[:, None], means, _filled(self.soft_labels, self.fallback))
        if self.freeze_above is not None:
            is_frozen = self.soft_labels.amax(1, keepdim=True) >= self.freeze_above
            updated = torch.where(is_frozen, self.soft_labels, updated)
        self.soft_labels = updated
        self.answers = torch.zeros_like(self.answers)
        self.correct = torch.zeros_like(self.correct)

    def class_relations(self) -> torch.Tensor:
        """(K, K) soft labels: row k is what class k is trained on besides its own label."""
        return self.soft_labels.clone()

    def extra_repr(self) -> str:
        """Share and the options of the base."""
        return f"hard_share={self.hard_share}, {super().extra_repr()}"


def _filled(labels: torch.Tensor, how: str) -> torch.Tensor:
    classes = len(labels)
    if how == "uniform":
        return torch.full_like(labels, 1.0 / classes)
    if how == "smoothing":
        return torch.full_like(labels, 0.1 / classes).fill_diagonal_(0.9 + 0.1 / classes)
    return labels.clone()
