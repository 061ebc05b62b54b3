"""Reads logits and target probabilities before a loss does: which classes a row masks, and which rows are unusable.

A logit of minus infinity, or the most negative finite number of its dtype, masks its class: the class has probability
zero in that row and is no answer there. What depends on numbers is looked at on the CPU only, where a look is cheap; on
an accelerator it would wait for the device, and a compiler cannot branch on it.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from ..errors import InvalidArgumentError, NonFiniteError

if TYPE_CHECKING:
    import torch
    from torch import Tensor

__all__ = ["Masked", "can_raise", "check_probabilities", "check_target", "lowest", "masked_logits", "place", "readable"]

_MODERATE = 1e29
_BFLOAT16_MIN = -3.3895313892515355e38


class Masked:
    """Logits with minus infinity where a class is masked.

    Parameters
    ----------
    logits : Tensor
        (R, K), zeros in rows that do not count.
    masked : Tensor or None
        (R, K) booleans; None where it is known that no class is masked.
    is_bounded : bool
        Whether all logits are known to be within 1e29 of zero, so that no log-probability can be infinite.
    """

    __slots__ = ("is_bounded", "logits", "masked")

    def __init__(self, logits: Tensor, masked: Tensor | None, is_bounded: bool) -> None:
        self.logits, self.masked, self.is_bounded = logits, masked, is_bounded


def readable(tensor: Tensor) -> bool:
    """Whether a look at the numbers is cheap: they are on the CPU, and no compiler is tracing."""
    import torch

    return tensor.device.type == "cpu" and not torch.compiler.is_compiling()


def can_raise(tensor: Tensor) -> bool:
    """Whether to stop at numbers that are not finite: a look is cheap, and no other process would wait for this one.

    In several processes the loss is NaN or infinite instead, and reaches all of them with the gradients.
    """
    from . import distributed

    return readable(tensor) and not distributed.is_parallel()


def lowest(dtype: torch.dtype) -> float:
    """The number at and below which a logit masks its class.

    Masks made in bfloat16 are recognized after a cast to a wider type.
    """
    import torch

    return float(torch.finfo(torch.float16).min) if dtype == torch.float16 else _BFLOAT16_MIN


def masked_logits(
    logits: Tensor, kept: Tensor, dtype: torch.dtype, name: str, shape: tuple[int, ...] | None = None
) -> Masked:
    """Find masked classes, and take what rows hold that do not count out of values and gradients.

    Parameters
    ----------
    logits : Tensor
        (R, K), at least float32.
    kept : Tensor
        (R,) booleans: which rows count.
    dtype : torch.dtype
        Type of the logits as they were given.
    name : str
        Name of the loss in the message.
    shape : tuple of int, optional
        Shape of the batch without its class axis, by which rows are named.

    Raises
    ------
    NonFiniteError
        On the CPU of a single process: a row that counts has a logit that is NaN or plus infinity, or masks all its
        classes.
    """
    import torch

    floor, can_look = lowest(dtype), readable(logits)
    if can_look:
        if not logits.numel():
            return Masked(logits, None, True)
        low, high = (float(end) for end in torch.aminmax(logits.detach()))
        if floor < low and high < math.inf:
            return Masked(logits, None, low > -_MODERATE and high < _MODERATE)
    logits = torch.where(kept[:, None], logits, 0.0)
    masked = logits.detach() <= floor
    if can_raise(logits):
        broken = (logits.detach().isnan() | (logits.detach() == math.inf)).any(1)
        empty = masked.all(1)
        if bool((broken | empty).any()):
            row = int((broken | empty).long().argmax())
            what = "has a logit that is NaN or +inf" if bool(broken[row]) else "masks all classes (its logits are -inf)"
            raise NonFiniteError(
                f"{name}: row {place(row, shape)} {what}, so that it has no loss; mend the logits or ignore the row"
            )
    if can_look and not bool(masked.any()):
        return Masked(logits, None, False)
    return Masked(logits.masked_fill(masked, -math.inf), masked, False)


def check_target(has_mass: Tensor, name: str, shape: tuple[int, ...] | None = None) -> None:
    """Raise where a target lies on a class that its row masks; ``has_mass`` (R,) says so.

    Raises
    ------
    InvalidArgumentError
        On the CPU.
    """
    if readable(has_mass) and bool(has_mass.any()):
        row = int(has_mass.long().argmax())
        raise InvalidArgumentError(
            f"{name}: the target of row {place(row, shape)} is a class whose logit is masked (-inf), so that its loss "
            "is infinite; unmask the class or ignore the row"
        )


def check_probabilities(shares: Tensor, dtype: torch.dtype, name: str, shape: tuple[int, ...] | None = None) -> None:
    """Raise unless rows (R, K) are distributions, or have no mass at all.

    Parameters
    ----------
    shares : Tensor
        (R, K) target probabilities.
    dtype : torch.dtype
        Type they were given in: sums of half precision are right to 2e-2 only, others to 1e-3.

    Raises
    ------
    InvalidArgumentError
        On the CPU: a probability that is NaN or negative, or a row whose sum is neither 0 nor 1.
    """
    import torch

    if not readable(shares) or not shares.numel():
        return
    shares = shares.detach()
    slack = 2e-2 if dtype in (torch.float16, torch.bfloat16) else 1e-3
    sums = shares.sum(1)
    wrong = ~((sums - 1.0).abs() <= slack) & (sums != 0)
    if float(torch.aminmax(shares)[0]) >= 0.0 and not bool(wrong.any()):
        return
    negative = ~(shares >= 0).all(1)
    if bool((wrong | negative).any()):
        row = int((wrong | negative).long().argmax())
        what = "a negative or NaN probability" if bool(negative[row]) else f"the sum {float(sums[row]):.4g}"
        raise InvalidArgumentError(
            f"{name}: target probabilities must be at least 0 and sum to one (or to zero where a row is ignored), row "
            f"{place(row, shape)} has {what}; divide rows by their sums, and weigh them with reduction='none'"
        )


def place(row: int, shape: tuple[int, ...] | None) -> str:
    """The number of a row, or its position in a batch of several axes."""
    if shape is None or len(shape) < 2:
        return str(row)
    position = []
    for length in reversed(shape):
        row, rest = divmod(row, length)
        position.append(rest)
    return str(tuple(reversed(position)))
