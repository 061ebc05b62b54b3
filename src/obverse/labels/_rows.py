"""A batch as rows of logits with one target each, and how rows are weighted, ignored and averaged."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import torch
import torch.nn.functional as F

from ..errors import InvalidArgumentError

__all__ = ["Rows", "as_probabilities", "as_rows", "flat"]

_LOW = (torch.float16, torch.bfloat16)


@dataclass(frozen=True)
class Rows:
    """R = N times the number of positions rows.

    Parameters
    ----------
    logits : torch.Tensor
        (R, K), at least float32.
    index : torch.Tensor or None
        (R,) classes, 0 where ignored; None for probability targets.
    shares : torch.Tensor or None
        (R, K) probabilities; None for class indices.
    kept : torch.Tensor
        (R,) booleans: which rows count.
    weight : torch.Tensor or None
        (K,) weights of classes.
    shape : tuple of int
        Of the batch without its class axis.
    """

    logits: torch.Tensor
    index: torch.Tensor | None
    shares: torch.Tensor | None
    kept: torch.Tensor
    weight: torch.Tensor | None
    shape: tuple[int, ...]

    @cached_property
    def log_p(self) -> torch.Tensor:
        """(R, K) log-probabilities."""
        return self.logits.log_softmax(1)

    @cached_property
    def sample_weight(self) -> torch.Tensor:
        """(R,): ``w_y`` for class indices, ``sum_k w_k t_k`` for probabilities, 1 without weights; 0 where ignored."""
        kept = self.kept.to(self.logits.dtype)
        if self.weight is None:
            return kept
        if self.index is not None:
            return kept * self.weight[self.index]
        return kept * (self._shares() @ self.weight)

    @cached_property
    def denominator(self) -> torch.Tensor:
        """What ``reduction="mean"`` divides the sum by, as torch: ``sum w_y`` for indices, rows for probabilities."""
        if self.index is None or self.weight is None:
            return self.kept.sum().to(self.logits.dtype)
        return self.sample_weight.sum()

    @cached_property
    def dominant(self) -> torch.Tensor:
        """(R,) the class of each row, for probabilities the one with the largest share."""
        return self.index if self.index is not None else self._shares().argmax(1)

    def cross_entropy(self) -> torch.Tensor:
        """(R,) ``-sum_k w_k t_k log p_k``, 0 where ignored."""
        if self.shares is not None:
            return self.against(self.shares)
        chosen = -self.of_target(self.log_p)
        return self.weigh(chosen)

    def against(self, target: torch.Tensor) -> torch.Tensor:
        """(R,) ``-sum_k w_k q_k log p_k`` for distributions ``q`` (R, K), 0 where ignored."""
        weighted = target if self.weight is None else target * self.weight
        return torch.where(self.kept, -(weighted * self.log_p).sum(1), 0.0)

    def of_target(self, values: torch.Tensor) -> torch.Tensor:
        """(R,) ``sum_k t_k v_k`` for ``v`` (R, K): the entry at the target for class indices."""
        if self.index is not None:
            return values.gather(1, self.index[:, None])[:, 0]
        return (self._shares() * values).sum(1)

    def of_table(self, table: torch.Tensor) -> torch.Tensor:
        """(R, K) ``sum_k t_k`` times row k of a table (K, K): the row of the target for class indices."""
        table = table.to(self.logits.dtype)
        return table[self.index] if self.index is not None else self._shares() @ table

    def one_hot(self) -> torch.Tensor:
        """(R, K) the target as probabilities."""
        if self.index is None:
            return self._shares()
        return torch.zeros_like(self.logits).scatter_(1, self.index[:, None], 1.0)

    def weigh(self, values: torch.Tensor) -> torch.Tensor:
        """(R,) values times the weight of their row, 0 where ignored whatever the value."""
        if self.weight is None:
            return torch.where(self.kept, values, 0.0)
        return torch.where(self.kept, values * self.sample_weight, 0.0)

    def reduce(self, values: torch.Tensor, reduction: str) -> torch.Tensor:
        """Mean, sum or all of (R,) weighted values. The mean of nothing is zero."""
        if reduction == "none":
            return values.reshape(self.shape)
        total = values.sum()
        if reduction == "sum":
            return total
        return total / torch.where(self.denominator > 0, self.denominator, 1.0)

    def _shares(self) -> torch.Tensor:
        assert self.shares is not None
        return self.shares


def as_rows(
    logits: torch.Tensor, target: torch.Tensor, weight: torch.Tensor | None, ignore_index: int, name: str
) -> Rows:
    """Check a batch and flatten it.

    Raises
    ------
    InvalidArgumentError
        Logits that are no floating-point (N, K) or (N, K, ...), a target of another shape or type, a class out of
        range (looked at on the CPU; elsewhere that would wait for the device), weights for another number of classes.
    """
    if not isinstance(logits, torch.Tensor) or not isinstance(target, torch.Tensor):
        raise InvalidArgumentError(
            f"{name} takes tensors of logits and targets, got {type(logits).__name__} and {type(target).__name__}"
        )
    if logits.dim() < 2 or not logits.is_floating_point():
        raise InvalidArgumentError(
            f"{name} takes floating-point logits of shape (N, K) or (N, K, ...), got {logits.dtype} of shape "
            f"{tuple(logits.shape)}"
        )
    classes = logits.shape[1]
    shape = (logits.shape[0], *logits.shape[2:])
    if weight is not None and len(weight) != classes:
        raise InvalidArgumentError(f"{name} has weights for {len(weight)} classes, the logits have {classes}")
    if logits.dtype in _LOW:
        logits = logits.float()
    rows = flat(logits)
    if weight is not None:
        weight = weight.to(rows.dtype)
    if target.is_floating_point() and target.shape == logits.shape:
        shares = flat(target).to(rows.dtype)
        return Rows(rows, None, shares, (shares.detach() != 0).any(1), weight, shape)
    if target.is_floating_point() or target.dtype == torch.bool or target.is_complex() or target.shape != shape:
        raise InvalidArgumentError(
            f"{name} of logits {tuple(logits.shape)} takes class indices of shape {shape} or probabilities of shape "
            f"{tuple(logits.shape)}, got {target.dtype} of shape {tuple(target.shape)}"
        )
    index, kept = _classes(target.reshape(-1), classes, ignore_index)
    return Rows(rows, index, None, kept, weight, shape)


def as_probabilities(target: torch.Tensor, num_classes: int, ignore_index: int, dtype: torch.dtype) -> torch.Tensor:
    """Class indices (N, ...) as probabilities (N, K, ...), float32 at least, without mass where ignored.

    Raises
    ------
    InvalidArgumentError
        A class out of range, looked at on the CPU.
    """
    index, kept = _classes(target, num_classes, ignore_index)
    hot = F.one_hot(index, num_classes).movedim(-1, 1)
    return (hot * kept.unsqueeze(1)).to(torch.promote_types(dtype, torch.float32))


def _classes(target: torch.Tensor, num_classes: int, ignore_index: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Class indices, 0 where ignored, and which ones count."""
    index = target.long()
    kept = index != ignore_index
    index = torch.where(kept, index, 0)
    if index.device.type == "cpu" and index.numel() and not torch.compiler.is_compiling():
        least, greatest = (int(end) for end in index.aminmax())
        if least < 0 or greatest >= num_classes:
            raise InvalidArgumentError(
                f"class indices must be in [0, {num_classes - 1}] or {ignore_index} to be ignored, got "
                f"{least if least < 0 else greatest}"
            )
    return index, kept


def flat(tensor: torch.Tensor) -> torch.Tensor:
    """(N, C, ...) as rows (R, C)."""
    return tensor if tensor.dim() == 2 else tensor.movedim(1, -1).reshape(-1, tensor.shape[1])
