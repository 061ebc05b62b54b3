"""Losses as the penalties need them: convex in the outputs, with their curvature and torch's way of averaging.

Squared, cross-entropy and logistic losses are of one form: ``a psi(u) - <t, u>`` up to what no output changes, ``a``
and ``t`` from the target, ``psi`` convex. So the second derivative in the outputs and every Bregman divergence depend
on the target through ``a`` alone, which is 1 unless classes or examples are weighted.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from .._core.text import brief
from ..errors import InvalidArgumentError, UnknownNameError

__all__ = ["Criterion", "check_loss", "criterion"]

_NAMES = ("squared", "cross-entropy", "logistic")


@dataclass(frozen=True)
class Criterion:
    """One loss at given outputs and targets.

    Parameters
    ----------
    kind : {"squared", "cross-entropy", "logistic"}
    weight : torch.Tensor
        ``a``: (N, K), or (N, 1) for cross-entropy, with the axes of positions, if any, after it.
    linear : torch.Tensor or None
        ``t``, shaped like the outputs; None without a target.
    scale : torch.Tensor
        What the sum over examples is multiplied by.
    """

    kind: str
    weight: torch.Tensor
    linear: torch.Tensor | None
    scale: torch.Tensor

    def mean(self, values: torch.Tensor) -> torch.Tensor:
        """Values of examples, (N,), averaged as the loss averages."""
        return values.sum() * self.scale

    def potential(self, outputs: torch.Tensor) -> torch.Tensor:
        """``a psi(u)``, (N,)."""
        return self._of_example(self._psi(outputs) * self.weight)

    def values(self, outputs: torch.Tensor) -> torch.Tensor:
        """Loss of each example, (N,), up to a constant of the target."""
        if self.linear is None:
            raise InvalidArgumentError(
                "this form needs the loss itself, not its curvature alone: give target=... as the loss takes it"
            )
        return self._of_example(self._psi(outputs) * self.weight) - self._of_example(outputs * self.linear)

    def slope(self, outputs: torch.Tensor) -> torch.Tensor:
        """``a psi'(u)``, shaped like the outputs."""
        if self.kind == "squared":
            return 2.0 * outputs * self.weight
        if self.kind == "logistic":
            return outputs.sigmoid() * self.weight
        return outputs.softmax(1) * self.weight

    def root(self, outputs: torch.Tensor, probe: torch.Tensor) -> torch.Tensor:
        """``B v`` for the second derivative ``B B'`` in the outputs and a probe ``v`` shaped like them.

        Squared: ``B = sqrt(2)``; logistic: ``sqrt(p (1 - p))``; softmax: ``B v = sqrt(p) o v - p <sqrt(p), v>``.
        """
        weight = self.weight.sqrt()
        if self.kind == "squared":
            return probe * (weight * math.sqrt(2.0))
        if self.kind == "logistic":
            deviation = ((F.logsigmoid(outputs) + F.logsigmoid(-outputs)) / 2).exp()
            return probe * weight * deviation
        log_p = outputs.log_softmax(1)
        half = (log_p / 2).exp()
        return weight * (half * probe - log_p.exp() * (half * probe).sum(1, keepdim=True))

    def diagonal(self, outputs: torch.Tensor) -> torch.Tensor:
        """Diagonal of the second derivative, shaped like the outputs."""
        if self.kind == "squared":
            return 2.0 * self.weight.expand_as(outputs)
        if self.kind == "logistic":
            return outputs.sigmoid() * (-outputs).sigmoid() * self.weight
        p = outputs.softmax(1)
        return p * (1.0 - p) * self.weight

    def _psi(self, outputs: torch.Tensor) -> torch.Tensor:
        if self.kind == "squared":
            return outputs.square()
        if self.kind == "logistic":
            return F.softplus(outputs)
        return outputs.logsumexp(1, keepdim=True)

    @staticmethod
    def _of_example(terms: torch.Tensor) -> torch.Tensor:
        return terms if terms.dim() == 1 else terms.flatten(1).sum(1)


def criterion(loss: Any, outputs: torch.Tensor, target: torch.Tensor | None) -> Criterion:
    """The loss that a name or a module of torch means, at these outputs.

    Parameters
    ----------
    loss : str or torch.nn.Module
        ``"squared"`` (mean over examples of the sum over outputs), ``"cross-entropy"``, ``"logistic"`` (mean over
        examples of the sum over outputs), or an instance of `torch.nn.MSELoss`, `torch.nn.CrossEntropyLoss` or
        `torch.nn.BCEWithLogitsLoss`, whose averaging, weights, label smoothing and ignored index hold.
    outputs : torch.Tensor
        (N, K), or (N, K, positions); (N,) for one output of a squared or logistic loss.
    target : torch.Tensor or None
        As the loss takes it. Needed where the loss weights classes or ignores examples.

    Raises
    ------
    InvalidArgumentError
        Another loss, ``reduction="none"``, no target where one is needed, or one of the wrong shape.
    """
    kind, reduction = check_loss(loss)
    if outputs.dim() < (2 if kind == "cross-entropy" else 1):
        raise InvalidArgumentError(f"{kind} loss takes outputs of shape (N, K), got {tuple(outputs.shape)}")
    if kind == "cross-entropy":
        return _cross_entropy(loss, reduction, outputs, target)
    if target is not None and target.shape != outputs.shape:
        raise InvalidArgumentError(
            f"{kind} loss takes a target shaped like the outputs {tuple(outputs.shape)}, got {tuple(target.shape)}"
        )
    scale = {"rows": 1.0 / max(len(outputs), 1), "mean": 1.0 / max(outputs.numel(), 1), "sum": 1.0}[reduction]
    scaled = torch.tensor(scale, dtype=outputs.dtype, device=outputs.device)
    one = torch.ones((), dtype=outputs.dtype, device=outputs.device).expand_as(outputs)
    target = None if target is None else target.to(outputs.dtype)
    if kind == "squared":
        return Criterion(kind, one, None if target is None else 2.0 * target, scaled)
    return _logistic(loss, one, scaled, target)


def check_loss(loss: Any) -> tuple[str, str]:
    """Kind of a loss and how it averages; raises for what is no such loss."""
    if isinstance(loss, str):
        if loss not in _NAMES:
            raise UnknownNameError("loss", loss, _NAMES)
        kind: str = loss
    elif isinstance(loss, nn.MSELoss):
        kind = "squared"
    elif isinstance(loss, nn.CrossEntropyLoss):
        kind = "cross-entropy"
    elif isinstance(loss, nn.BCEWithLogitsLoss):
        kind = "logistic"
    else:
        raise InvalidArgumentError(
            f"loss must be one of {', '.join(map(repr, _NAMES))} or an MSELoss, CrossEntropyLoss or BCEWithLogitsLoss "
            f"of torch, got {brief(loss)}; of another loss neither curvature nor averaging is known"
        )
    reduction = "rows" if isinstance(loss, str) else loss.reduction
    if reduction == "none":
        raise InvalidArgumentError("a penalty is one number: the loss must have reduction 'mean' or 'sum', not 'none'")
    return kind, reduction


def _logistic(loss: Any, one: torch.Tensor, scale: torch.Tensor, target: torch.Tensor | None) -> Criterion:
    """``w (c y softplus(-u) + (1 - y) softplus(u))``, ``c`` the weight of positives, ``w`` of the entry."""
    weight = one
    positive: torch.Tensor | None = None if isinstance(loss, str) else loss.pos_weight
    entry: torch.Tensor | None = None if isinstance(loss, str) else loss.weight
    if positive is not None:
        if target is None:
            raise InvalidArgumentError("pos_weight makes the curvature depend on the target: give target=...")
        weight = positive.to(one) * target + 1.0 - target
    linear = None if target is None else (target if positive is None else positive.to(one) * target)
    if entry is not None:
        weight = weight * entry.to(one)
        linear = None if linear is None else linear * entry.to(one)
    return Criterion("logistic", weight.expand_as(one), linear, scale)


def _cross_entropy(loss: Any, reduction: str, outputs: torch.Tensor, target: torch.Tensor | None) -> Criterion:
    """``sum_c w_c q_c (psi(u) - u_c)`` for the smoothed target ``q``, averaged as torch does."""
    plain = isinstance(loss, str)
    class_weight: torch.Tensor | None = None if plain else loss.weight
    smoothing = 0.0 if plain else float(loss.label_smoothing)
    ignored = -100 if plain else int(loss.ignore_index)
    classes = outputs.shape[1]
    positions = (len(outputs), 1, *outputs.shape[2:])
    if target is None:
        if class_weight is not None:
            raise InvalidArgumentError("class weights make the curvature depend on the target: give target=...")
        one = outputs.new_ones(positions)
        return Criterion("cross-entropy", one, None, _inverse(outputs, reduction, one.sum(), len(outputs)))
    weights = outputs.new_ones(classes) if class_weight is None else class_weight.to(outputs)
    weights = weights.reshape(-1, *[1] * (outputs.dim() - 2))
    if target.shape == outputs.shape and target.is_floating_point():
        share = target.to(outputs.dtype) * (1.0 - smoothing) + smoothing / classes
        counted = outputs.new_ones(positions)
    elif target.shape == (len(outputs), *outputs.shape[2:]) and not target.is_floating_point():
        kept = target != ignored
        inside = torch.where(kept, target, 0)
        hot = F.one_hot(inside.long(), classes).movedim(-1, 1).to(outputs.dtype)
        seen = kept.unsqueeze(1).to(outputs.dtype)
        share = (hot * (1.0 - smoothing) + smoothing / classes) * seen
        counted = (hot * weights).sum(1, keepdim=True) * seen
    else:
        raise InvalidArgumentError(
            f"cross-entropy of outputs {tuple(outputs.shape)} takes class indices of shape "
            f"{(len(outputs), *outputs.shape[2:])} or probabilities shaped like the outputs, got {target.dtype} of "
            f"shape {tuple(target.shape)}"
        )
    linear = share * weights
    scale = _inverse(outputs, reduction, counted.sum(), len(outputs))
    return Criterion("cross-entropy", linear.sum(1, keepdim=True), linear, scale)


def _inverse(outputs: torch.Tensor, reduction: str, counted: torch.Tensor, rows: int) -> torch.Tensor:
    """One over what a sum over examples is divided by; nothing counted gives a penalty of zero."""
    if reduction == "sum":
        return outputs.new_ones(())
    if reduction == "rows":
        return outputs.new_tensor(1.0 / max(rows, 1))
    return torch.where(counted > 0, 1.0 / torch.where(counted > 0, counted, 1.0), 0.0)
