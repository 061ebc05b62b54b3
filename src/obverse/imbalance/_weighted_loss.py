"""The protocol of the losses in this room: ``loss(logits, target, weight=None)``, one weight for each example."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Literal, final

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .._core import checks
from .._core.arrays import wide
from .._core.logits import can_raise, check_target, masked_logits, readable
from ..errors import InvalidArgumentError, NonFiniteError, UnknownNameError
from ._counts import Counts

__all__ = ["CrossEntropyLoss", "Denominator", "WeightedLoss"]

Denominator = Literal["weights", "count"]


class WeightedLoss(nn.Module, ABC):
    """A classification loss under weights.

    Parameters
    ----------
    class_weights : array of shape (K,), optional
        Weight of each class, not negative; multiplies the weights of the examples.
    denominator : {"weights", "count"}
        What the weighted sum is divided by: the sum of the weights (as torch does; a weight of 2 is then exactly a
        repeated row), or the number of rows (the step is then larger where weights are).
    reduction : {"mean", "sum", "none"}
        ``mean`` divides as above, ``sum`` does not divide, ``none`` returns ``w_i l_i``, zero where ignored.
    ignore_index : int
        Rows with this target count neither above nor below the fraction, whatever their logits are.

    Notes
    -----
    ``loss = sum_i w_i l_i / sum_i w_i`` with ``w_i = weight_i class_weights[target_i]``. The weights multiply the value
    of a row and never enter it: the probabilities of a focal loss are those of the model. A row of weight zero counts
    as little as an ignored one. A batch without rows, or whose weights are all zero, has loss zero, with a graph. Half
    precision is computed in float32, under autocast too.

    A logit of -inf, or the most negative finite number of its dtype, masks a class: value and gradients are those
    without its column. `CrossEntropyLoss` and `obverse.labels.CrossEntropy` are the same loss for class indices; the
    latter also takes probabilities and positions, this one weights of rows.
    """

    def __init__(
        self,
        *,
        class_weights: Counts | None = None,
        denominator: Denominator = "weights",
        reduction: Literal["mean", "sum", "none"] = "mean",
        ignore_index: int = -100,
    ) -> None:
        super().__init__()
        if denominator not in ("weights", "count"):
            raise UnknownNameError("denominator", str(denominator), ("weights", "count"))
        if reduction not in ("mean", "sum", "none"):
            raise UnknownNameError("reduction", str(reduction), ("mean", "sum", "none"))
        self.denominator = denominator
        self.reduction = reduction
        self.ignore_index = checks.integer("ignore_index", ignore_index)
        self.class_weights: Tensor | None
        self.register_buffer("class_weights", _class_weights(class_weights), persistent=False)

    @abstractmethod
    def values(self, logits: Tensor, target: Tensor) -> Tensor:
        """The unweighted loss of every row, shape (N,), of logits (N, K), float32 or float64, and classes (N,)."""

    def forward(self, logits: Tensor, target: Tensor, weight: Tensor | None = None) -> Tensor:
        """The loss of a batch.

        Parameters
        ----------
        logits : Tensor, shape (N, K)
            Class scores, K >= 2; -inf where a class is masked.
        target : Tensor of integers, shape (N,)
            Classes, or ``ignore_index``.
        weight : Tensor, shape (N,), optional
            Weight of each row, not negative; by default 1.

        Returns
        -------
        Tensor
            A scalar, or shape (N,) under ``reduction="none"``; float32, or float64 for such logits.

        Raises
        ------
        InvalidArgumentError
            For shapes or types that do not fit, and, on the CPU (elsewhere a look would stall the device), for
            targets outside [0, K) or on masked classes, and negative or non-finite weights.
        NonFiniteError
            On the CPU of a single process: a row that counts has a logit that is NaN or +inf, masks all classes, or has
            a loss beyond the range of its dtype.
        """
        target, weight = self._checked(logits, target, weight)
        with torch.autocast(logits.device.type, enabled=False):
            kept = target != self.ignore_index
            target = torch.where(kept, target, torch.zeros_like(target))
            weights = kept.to(torch.promote_types(logits.dtype, torch.float32))
            if weight is not None:
                weights = torch.where(kept, weight.to(weights.dtype), torch.zeros_like(weights))
            if self.class_weights is not None:
                weights = weights * self.class_weights.to(weights)[target]
            scores = self._scores(logits, target, weights > 0)
            weighted = weights * self.values(scores, target)
            total = weighted.sum()
            if can_raise(total) and not bool(total.isfinite()):
                raise self._overflow(weighted.detach())
            if self.reduction == "none":
                return weighted
            if self.reduction == "sum":
                return total
            below = weights.sum() if self.denominator == "weights" else kept.sum().to(scores.dtype)
            return total / torch.where(below > 0, below, torch.ones_like(below))

    def _scores(self, logits: Tensor, target: Tensor, counted: Tensor) -> Tensor:
        """Logits of at least float32, minus infinity where a class is masked.

        Rows that do not count are replaced before the loss, not masked after it: what they hold, NaN too, must not
        reach a gradient.
        """
        name = type(self).__name__
        read = masked_logits(wide(logits), counted, logits.dtype, name)
        if read.masked is not None:
            check_target(read.masked.gather(1, target[:, None])[:, 0] & counted, name)
        if readable(logits) and bool(counted.all()):
            return read.logits
        return torch.where(counted[:, None], read.logits, torch.zeros_like(read.logits))

    def _overflow(self, weighted: Tensor) -> NonFiniteError:
        broken = ~weighted.isfinite()
        row = int(broken.long().argmax())
        what = f"the loss of row {row} is {float(weighted[row])}"
        return NonFiniteError(
            f"{type(self).__name__}: {what if bool(broken.any()) else 'the sum of all losses overflows'}"
        )

    def _checked(self, logits: Tensor, target: Tensor, weight: Tensor | None) -> tuple[Tensor, Tensor | None]:
        if logits.ndim != 2 or logits.shape[1] < 2 or not logits.is_floating_point():
            raise InvalidArgumentError(
                f"logits must be of floating point and shape (N, K) with K >= 2, got {tuple(logits.shape)} "
                f"of {logits.dtype}"
            )
        rows, classes = logits.shape
        if self.class_weights is not None and len(self.class_weights) != classes:
            raise InvalidArgumentError(
                f"{len(self.class_weights)} class weights do not fit logits of {classes} classes"
            )
        if target.shape != (rows,) or target.is_floating_point() or target.is_complex() or target.dtype == torch.bool:
            hint = "; convert class indices with .long()" if target.shape == (rows,) else ""
            raise InvalidArgumentError(
                f"target must be integers of shape ({rows},), got {tuple(target.shape)} of {target.dtype}{hint}"
            )
        if weight is not None and weight.shape != (rows,):
            raise InvalidArgumentError(f"weight must have shape ({rows},), got {tuple(weight.shape)}")
        target = target.long()
        if readable(logits):
            bad = ((target < 0) | (target >= classes)) & (target != self.ignore_index)
            if bool(bad.any()):
                raise InvalidArgumentError(
                    f"target must be in [0, {classes}) or {self.ignore_index} (ignored), got {int(target[bad][0])}"
                )
            if weight is not None and not bool(((weight >= 0) & torch.isfinite(weight)).all()):
                raise InvalidArgumentError("weight must be finite and not negative")
        return target, weight

    def extra_repr(self) -> str:
        return f"denominator={self.denominator!r}, reduction={self.reduction!r}, ignore_index={self.ignore_index}"


@final
class CrossEntropyLoss(WeightedLoss):
    """Cross-entropy on the weighted-loss protocol; equal to torch's wherever that one is defined.

    Parameters
    ----------
    class_weights, denominator, reduction, ignore_index
        As for `WeightedLoss`.
    """

    def values(self, logits: Tensor, target: Tensor) -> Tensor:
        """``-log softmax(logits)[target]`` of every row."""
        return F.cross_entropy(logits, target, reduction="none")


def _class_weights(weights: Counts | None) -> Tensor | None:
    if weights is None:
        return None
    values = wide(torch.as_tensor(weights).detach().clone())
    if values.ndim != 1 or not bool(((values >= 0) & torch.isfinite(values)).all()):
        raise InvalidArgumentError(
            f"class_weights must be finite and not negative, of shape (K,), got {values.tolist()}"
        )
    return values
