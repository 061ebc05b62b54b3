"""A batch as rows of logits with one target each, and how rows are weighted, ignored and averaged."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

import torch
import torch.nn.functional as F

from .._core.arrays import wide
from .._core.logits import Masked, can_raise, check_probabilities, check_target, masked_logits, place, readable
from ..errors import InvalidArgumentError, NonFiniteError

__all__ = ["Rows", "as_probabilities", "as_rows", "divergence", "flat"]


@dataclass(frozen=True)
class Rows:
    """R = N times the number of positions rows.

    Parameters
    ----------
    logits : torch.Tensor
        (R, K), at least float32; minus infinity where a class is masked, zeros in ignored rows that cannot be used.
    index : torch.Tensor or None
        (R,) classes, 0 where ignored; None for probability targets.
    shares : torch.Tensor or None
        (R, K) probabilities; None for class indices.
    kept : torch.Tensor
        (R,) booleans: which rows count.
    weight : torch.Tensor or None
        (K,) weights of classes.
    shape : tuple of int
        Shape of the batch without its class axis.
    masked : torch.Tensor or None
        (R, K) booleans: classes that are no answer in their row; None where it is known that there are none.
    is_bounded : bool
        Whether all log-probabilities are known to be finite, see `Masked`.
    """

    logits: torch.Tensor
    index: torch.Tensor | None
    shares: torch.Tensor | None
    kept: torch.Tensor
    weight: torch.Tensor | None
    shape: tuple[int, ...]
    masked: torch.Tensor | None = None
    is_bounded: bool = False

    @cached_property
    def log_p(self) -> torch.Tensor:
        """(R, K) log-probabilities, minus infinity where a class is masked."""
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
        return torch.where(self.kept, -self.times_log_p(weighted).sum(1), 0.0)

    def times_log_p(self, factors: torch.Tensor) -> torch.Tensor:
        """(R, K) ``q log p`` for factors ``q`` (R, K), with the limit 0 where ``q`` is 0, also at ``p = 0``."""
        if self.is_bounded:
            return factors * self.log_p
        return factors * torch.where(factors != 0, self.log_p, 0.0)

    def restricted(self, target: torch.Tensor) -> torch.Tensor:
        """Distributions (R, K) without masked classes, whose mass goes to the others in proportion.

        Where the others had no mass, it is spread evenly over them: a masked class is no answer, as if its column were
        not there.
        """
        if self.masked is None:
            return target
        others = target.masked_fill(self.masked, 0.0)
        mass, left = target.sum(1, keepdim=True), others.sum(1, keepdim=True)
        allowed = (~self.masked).to(target.dtype)
        even = mass * allowed / allowed.sum(1, keepdim=True).clamp(min=1.0)
        return torch.where(left > 0, others * (mass / torch.where(left > 0, left, 1.0)), even)

    def without_masked(self, logits: torch.Tensor) -> torch.Tensor:
        """Other logits (R, K) of the same rows, minus infinity where this batch masks a class."""
        return logits if self.masked is None else logits.masked_fill(self.masked, -math.inf)

    def only_kept(self, values: torch.Tensor) -> torch.Tensor:
        """Values (R, m) with zeros in ignored rows, so that nothing of those reaches a gradient."""
        if readable(self.kept) and bool(self.kept.all()):
            return values
        return torch.where(self.kept[:, None], values, 0.0)

    def of_target(self, values: torch.Tensor) -> torch.Tensor:
        """(R,) ``sum_k t_k v_k`` for ``v`` (R, K): the entry at the target for class indices."""
        if self.index is not None:
            return values.gather(1, self.index[:, None])[:, 0]
        return (self._shares() * values).sum(1)

    def of_table(self, table: torch.Tensor) -> torch.Tensor:
        """(R, K) ``sum_k t_k`` times row k of a table (K, K): the row of the target for class indices.

        Each row of the table is restricted to the classes that are not masked.
        """
        table = table.to(self.logits.dtype)
        if self.masked is not None:
            if self.index is not None:
                return self.restricted(table[self.index])
            allowed, shares = (~self.masked).to(table.dtype), self._shares()
            mass, left = table.sum(1), allowed @ table.T
            has_left = left > 0
            scaled = shares * torch.where(has_left, mass / torch.where(has_left, left, 1.0), 0.0)
            even = torch.where(has_left, 0.0, shares * mass).sum(1, keepdim=True) / allowed.sum(1, keepdim=True)
            return (scaled @ table + even) * allowed
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

    def reduce(self, values: torch.Tensor, reduction: str, name: str) -> torch.Tensor:
        """Mean, sum or all of (R,) weighted values. The mean of nothing is zero.

        Raises
        ------
        NonFiniteError
            On the CPU of a single process: a value, or the sum of all, is beyond the range of its dtype.
        """
        total = values.sum()
        if can_raise(total) and not bool(total.isfinite()):
            broken = ~values.detach().isfinite()
            row = int(broken.long().argmax())
            what = f"the loss of row {place(row, self.shape)} is {float(values[row].detach())}"
            raise NonFiniteError(f"{name}: {what if bool(broken.any()) else 'the sum of all losses overflows'}")
        if reduction == "none":
            return values.reshape(self.shape)
        if reduction == "sum":
            return total
        return total / torch.where(self.denominator > 0, self.denominator, 1.0)

    def _shares(self) -> torch.Tensor:
        assert self.shares is not None
        return self.shares


def as_rows(
    logits: torch.Tensor,
    target: torch.Tensor,
    weight: torch.Tensor | None,
    ignore_index: int,
    name: str,
    *,
    is_loss: bool = True,
) -> Rows:
    """Check a batch and flatten it.

    Parameters
    ----------
    is_loss : bool
        Whether a loss is computed, which is infinite for a masked target and undefined for logits that are NaN or +inf;
        metrics look at their predictions themselves.

    Raises
    ------
    InvalidArgumentError
        Logits that are no floating-point (N, K) or (N, K, ...), a target of another shape or type, weights for another
        number of classes. On the CPU (elsewhere a look would wait for the device) also a class out of range or masked,
        and probabilities that are negative, NaN, or do not sum to one.
    NonFiniteError
        On the CPU of a single process: a row with a logit that is NaN or +inf, or with all classes masked.
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
    if classes < 2:
        raise InvalidArgumentError(
            f"{name} takes logits of 2 classes or more, got shape {tuple(logits.shape)}: the softmax of one class is "
            "always 1; give a binary problem two columns, as torch.cat([-z, z], 1) / 2"
        )
    if weight is not None and len(weight) != classes:
        raise InvalidArgumentError(f"{name} has weights for {len(weight)} classes, the logits have {classes}")
    rows = flat(wide(logits))
    if weight is not None:
        weight = weight.to(rows.dtype)
    index = shares = None
    if target.is_floating_point() and target.shape == logits.shape:
        shares = flat(target).to(rows.dtype)
        check_probabilities(shares, target.dtype, name, shape)
        # Without negative shares, which were refused where that is cheap, a row without mass is one of sum zero.
        kept = shares.detach().sum(1) != 0
    else:
        _check_indices(target, logits, shape, name)
        index, kept = _classes(target.reshape(-1), classes, ignore_index)
    read = masked_logits(rows, kept, logits.dtype, name, shape) if is_loss else Masked(rows, None, False)
    if read.masked is not None:
        if index is not None:
            on_masked = read.masked.gather(1, index[:, None])[:, 0]
        else:
            assert shares is not None
            on_masked = (read.masked & (shares > 0)).any(1)
        check_target(on_masked & kept, name, shape)
    return Rows(read.logits, index, shares, kept, weight, shape, read.masked, read.is_bounded)


def _check_indices(target: torch.Tensor, logits: torch.Tensor, shape: tuple[int, ...], name: str) -> None:
    """Raise unless the target is integers of the shape of class indices."""
    if not (target.is_floating_point() or target.is_complex() or target.dtype == torch.bool) and target.shape == shape:
        return
    hint = ""
    if target.shape == shape:
        hint = "; convert class indices with .long()"
    elif target.shape == logits.shape:
        hint = "; convert one-hot targets with .float()"
    raise InvalidArgumentError(
        f"{name} of logits {tuple(logits.shape)} takes class indices of shape {shape} or probabilities of shape "
        f"{tuple(logits.shape)}, got {target.dtype} of shape {tuple(target.shape)}{hint}"
    )


def divergence(log_a: torch.Tensor, log_b: torch.Tensor, is_bounded: bool = False) -> torch.Tensor:
    """(R,) ``KL(a, b)`` of log-probabilities (R, K), with the limit 0 where ``a`` is 0, whatever ``b`` is there.

    With ``is_bounded`` all log-probabilities are finite, and no limit has to be taken.
    """
    a, gap = log_a.exp(), log_a - log_b
    return (a * (gap if is_bounded else torch.where(a > 0, gap, 0.0))).sum(1)


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
    if readable(index) and index.numel():
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
