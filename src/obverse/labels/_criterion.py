"""The contract of all criteria: called as `torch.nn.CrossEntropyLoss`, with the same weights, shapes and means."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any, ClassVar

import torch

from .._core import checks
from ..errors import InvalidArgumentError
from ._rows import Rows, as_rows, flat
from ._state import StatefulModule

__all__ = ["Given", "LabelCriterion"]

_REDUCTIONS = ("mean", "sum", "none")


@dataclass(frozen=True)
class Given:
    """What a call had besides logits and target, as rows.

    Parameters
    ----------
    index : torch.Tensor or None
        (R,) ids of samples.
    features : torch.Tensor or None
        (R, m) what the last layer of the network was given.
    pair_logits : torch.Tensor or None
        (R, K) logits of another sample of the same class.
    """

    index: torch.Tensor | None = None
    features: torch.Tensor | None = None
    pair_logits: torch.Tensor | None = None


class LabelCriterion(StatefulModule):
    """A loss on logits and labels, called as `torch.nn.CrossEntropyLoss` is.

    Parameters
    ----------
    weight : torch.Tensor or sequence of float, optional
        (K,) weights of classes, finite and not negative.
    ignore_index : int
        Class index of rows that count nowhere: not in the loss, its mean, or any statistic.
    reduction : {"mean", "sum", "none"}

    Notes
    -----
    ``criterion(logits, target, index=None, features=None, pair_logits=None)`` is the same call for every criterion:

    * ``logits``: (N, K) or (N, K, ...), K at least 2. Half precision is computed in float32, also under autocast.
      A logit of -inf, or the most negative finite number of its dtype, masks a class: value and gradients are then
      those without its column, whatever share of a built target (uniform, learned, remembered) the class had.
    * ``target``: class indices (N, ...), or probabilities shaped like the logits, whose rows sum to one. A row of
      probabilities without any mass is ignored; ``ignore_index`` is for class indices only.
    * ``index``: ids of samples, shaped like class indices; ``features``: (N, m) or (N, m, ...); ``pair_logits``:
      shaped like the logits. A criterion without need of them checks their shapes and makes no use of them.

    Weights act as in torch. A cross-entropy against a built target ``q`` is ``-sum_k w_k q_k log p_k``; every other
    term is multiplied by the weight of its row, ``w_y`` or ``sum_k w_k t_k``. The mean divides by ``sum w_y`` over the
    rows that count for class indices, by their number for probabilities. Empty and fully ignored batches give zero
    with a graph, where torch gives NaN.

    Statistics change only in training mode with gradients enabled. In evaluation, targets that only exist in training
    (drawn, remembered or paired ones) are not used: such criteria are then the plain cross-entropy.
    """

    #: Name in `label_criterion`.
    name: ClassVar[str]
    #: Whether training needs ``index``.
    needs_index: bool = False
    #: Whether training needs ``features``.
    needs_features: bool = False
    #: Whether batches should hold several samples of a class, as `ClassPairSampler` draws them.
    needs_pairs: bool = False
    #: Whether `prepare` changes a batch, so that it must be called before the forward pass.
    needs_prepare: bool = False
    #: Whether something is learned or counted, so that the state belongs in a checkpoint.
    is_stateful: bool = False
    #: Classes that state was made for, or None.
    num_classes: int | None = None
    weight: torch.Tensor | None

    def __init__(
        self,
        *,
        weight: torch.Tensor | Sequence[float] | None = None,
        ignore_index: int = -100,
        reduction: str = "mean",
    ) -> None:
        super().__init__()
        self.reduction = checks.choice("reduction", reduction, _REDUCTIONS)
        self.ignore_index = checks.integer("ignore_index", ignore_index)
        self.register_buffer("weight", _class_weights(weight), persistent=False)

    def forward(
        self,
        logits: torch.Tensor,
        target: torch.Tensor,
        *,
        index: torch.Tensor | None = None,
        features: torch.Tensor | None = None,
        pair_logits: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """The loss: a number, or with ``reduction="none"`` one per row, shaped like class indices.

        Raises
        ------
        InvalidArgumentError
            Shapes or types that do not fit, or a criterion in training without what it needs. On the CPU also a class
            out of range, a masked target, and target probabilities that are negative, NaN or do not sum to one.
        NonFiniteError
            On the CPU of a single process: a row that counts has a logit that is NaN or +inf, masks all classes, or has
            a loss beyond the range of its dtype.
        """
        with _full_precision(logits):
            rows = as_rows(logits, target, self.weight, self.ignore_index, type(self).__name__)
            if self.num_classes is not None and rows.logits.shape[1] != self.num_classes:
                raise InvalidArgumentError(
                    f"{type(self).__name__} was made for {self.num_classes} classes, the logits have "
                    f"{rows.logits.shape[1]}"
                )
            given = self._check_given(rows, logits, index, features, pair_logits)
            return rows.reduce(self._values(rows, given), self.reduction, type(self).__name__)

    @abstractmethod
    def _values(self, rows: Rows, given: Given) -> torch.Tensor:
        """(R,) weighted losses, zero where ignored."""

    def prepare(self, inputs: torch.Tensor, target: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Inputs and target to train on instead of these; by default these."""
        return inputs, target

    def start_epoch(self) -> None:
        """Called before the first training batch of an epoch; by default nothing."""

    def end_epoch(self) -> None:
        """Called after the last training batch of an epoch, in every process; by default nothing."""

    def synchronize(self) -> None:
        """Put together what the processes have counted; call it in every process before saving within an epoch."""

    def class_relations(self) -> torch.Tensor | None:
        """(K, K) the learned soft label of each class as a row, or None for criteria that learn none."""
        return None

    def parameter_groups(self, learning_rate: float | None = None) -> list[dict[str, Any]]:
        """Groups for `torch.optim.Optimizer.add_param_group`: the criterion's own parameters, without weight decay.

        Parameters
        ----------
        learning_rate : float, optional
            Of the groups; by default the optimizer's.
        """
        own = list(self.parameters())
        if not own:
            return []
        rate = {} if learning_rate is None else {"lr": checks.nonnegative("learning_rate", learning_rate)}
        return [{"params": own, "weight_decay": 0.0, **rate}]

    @property
    def is_learning(self) -> bool:
        """Whether a call changes statistics: in training mode with gradients enabled."""
        return self.training and torch.is_grad_enabled()

    def _check_given(
        self,
        rows: Rows,
        logits: torch.Tensor,
        index: torch.Tensor | None,
        features: torch.Tensor | None,
        pair_logits: torch.Tensor | None,
    ) -> Given:
        shape = (logits.shape[0], *logits.shape[2:])
        if index is None and features is None and pair_logits is None:
            given = Given()
        else:
            given = Given(
                None if index is None else _ids(index, shape, logits.device),
                None if features is None else rows.only_kept(_features(features, logits)),
                None if pair_logits is None else rows.only_kept(_pairs(pair_logits, logits)),
            )
        if self.training:
            for needed, got, what in (
                (self.needs_index, given.index, "the ids of the samples, index=... (positions in the data set)"),
                (self.needs_features, given.features, "what the last layer is given, features=..."),
            ):
                if needed and got is None:
                    raise InvalidArgumentError(f"{type(self).__name__} needs {what} in training")
        return given

    def extra_repr(self) -> str:
        """What differs from a plain cross-entropy."""
        parts = [] if self.num_classes is None else [f"num_classes={self.num_classes}"]
        if self.weight is not None:
            parts.append(f"weight of {len(self.weight)} classes")
        if self.ignore_index != -100:
            parts.append(f"ignore_index={self.ignore_index}")
        if self.reduction != "mean":
            parts.append(f"reduction={self.reduction!r}")
        return ", ".join(parts)


def _class_weights(weight: torch.Tensor | Sequence[float] | None) -> torch.Tensor | None:
    if weight is None:
        return None
    try:
        given = torch.as_tensor(weight)
        weights = (
            given.detach().clone() if given.dtype == torch.float64 else given.detach().to(torch.float32, copy=True)
        )
    except (TypeError, ValueError, RuntimeError) as error:
        raise InvalidArgumentError(f"weight must be numbers, one per class, got {weight!r}") from error
    if weights.dim() != 1 or not len(weights) or not bool((weights.isfinite() & (weights >= 0)).all()):
        raise InvalidArgumentError(f"weight must be (K,), finite and not negative, got {weight!r}")
    return weights


def _ids(index: Any, shape: tuple[int, ...], device: torch.device) -> torch.Tensor:
    ids = index if isinstance(index, torch.Tensor) else torch.as_tensor(index)
    if ids.shape != shape or ids.is_floating_point() or ids.is_complex() or ids.dtype == torch.bool:
        raise InvalidArgumentError(
            f"index must be integer ids of samples of shape {shape}, got {ids.dtype} of shape {tuple(ids.shape)}"
        )
    return ids.reshape(-1).long().to(device)


def _features(features: torch.Tensor, logits: torch.Tensor) -> torch.Tensor:
    positions = features.shape[:1] + features.shape[2:]
    if features.dim() < 2 or positions != logits.shape[:1] + logits.shape[2:] or not features.is_floating_point():
        raise InvalidArgumentError(
            f"features must be floating-point (N, m) or (N, m, ...) for logits {tuple(logits.shape)}, got "
            f"{features.dtype} of shape {tuple(features.shape)}"
        )
    return _as_wide(flat(features), logits)


def _pairs(pair_logits: torch.Tensor, logits: torch.Tensor) -> torch.Tensor:
    if pair_logits.shape != logits.shape or not pair_logits.is_floating_point():
        raise InvalidArgumentError(
            f"pair_logits must be floating-point and shaped like the logits {tuple(logits.shape)}, got "
            f"{pair_logits.dtype} of shape {tuple(pair_logits.shape)}"
        )
    return _as_wide(flat(pair_logits), logits)


def _as_wide(rows: torch.Tensor, logits: torch.Tensor) -> torch.Tensor:
    """Rows in the dtype in which these logits are computed."""
    return rows.to(torch.promote_types(logits.dtype, torch.float32))


def _full_precision(logits: Any) -> AbstractContextManager[Any]:
    """Autocast off, where it is on."""
    if isinstance(logits, torch.Tensor) and torch.is_autocast_enabled(logits.device.type):
        return torch.autocast(logits.device.type, enabled=False)
    return nullcontext()
