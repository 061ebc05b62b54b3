"""Penalties in closed form where the head above the mask is linear: ``u = U h + bias``."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from ..errors import InvalidArgumentError
from ._blocks import Blocks, Channel
from ._connect import Connect
from ._criterion import Criterion
from ._independent import Bernoulli, Gaussian, Rademacher
from ._law import MaskLaw
from ._removal import Removals
from ._sliding import SlidingBlock

__all__ = ["LinearHead"]

_ENTRIES = 1 << 22  # numbers in one temporary
_POOLS = (nn.AdaptiveAvgPool1d, nn.AdaptiveAvgPool2d, nn.AdaptiveAvgPool3d)


@dataclass(frozen=True)
class LinearHead:
    """A linear head on features of one shape.

    Parameters
    ----------
    weight : torch.Tensor
        ``U``, (K, d), or (K, C) behind a pool.
    bias : torch.Tensor or None
        (K,).
    pooled : bool
        Whether the mean over all axes but the channels comes first.
    """

    weight: torch.Tensor
    bias: torch.Tensor | None
    pooled: bool

    @classmethod
    def of(cls, head: Any) -> LinearHead | None:
        """The linear head that a matrix or module plainly is, else None."""
        if isinstance(head, torch.Tensor):
            if head.dim() != 2:
                raise InvalidArgumentError(
                    f"a matrix as a head has shape (outputs, units), got a tensor of shape {tuple(head.shape)}"
                )
            return cls(head, None, False)
        if type(head) is nn.Linear:
            hooked = head._forward_hooks or head._forward_pre_hooks
            return None if hooked else cls(head.weight, head.bias, False)
        if type(head) is nn.Sequential and len(head):
            *before, last = (layer for layer in head if type(layer) is not nn.Identity)
            linear = cls.of(last) if isinstance(last, nn.Linear) else None
            if linear is None or (before and not _plain_flatten(before[-1])):
                return None
            if len(before) <= 1:
                return linear
            pool = before[0]
            if len(before) == 2 and type(pool) in _POOLS and _to_one(pool.output_size):
                return cls(linear.weight, linear.bias, True)
        return None

    def check(self, features: torch.Tensor) -> None:
        """Raise where the features do not fit."""
        units = features.shape[1] if self.pooled else math.prod(features.shape[1:])
        if units != self.weight.shape[1] or (self.pooled and features.dim() < 3):
            hint = (
                "; for a pool in between give nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), linear)"
                if features.dim() > 2 and features.shape[1] == self.weight.shape[1]
                else ""
            )
            raise InvalidArgumentError(
                f"a head of {self.weight.shape[1]} inputs does not fit features of shape {tuple(features.shape)}{hint}"
            )

    def outputs(self, features: torch.Tensor) -> torch.Tensor:
        """``u``, (N, K)."""
        return F.linear(features.flatten(2).mean(2) if self.pooled else features.flatten(1), self.weight, self.bias)

    def quadratic(self, law: MaskLaw, features: torch.Tensor, outputs: torch.Tensor, loss: Criterion) -> torch.Tensor:
        """``(1/2) <Cbar, (U' H U) o h h'>`` of each example, (N,); for the squared loss all there is."""
        if isinstance(law, Connect):
            spread = _connect_variance(law, self.weight) * self.weight.square()
            return 0.5 * (loss.diagonal(outputs) * F.linear(features.flatten(1).square(), spread)).sum(1)
        energy = self._energy(law, features)
        if energy is not None:
            if loss.kind != "cross-entropy":
                return 0.5 * (F.linear(energy, self.weight.square()) * loss.diagonal(outputs)).sum(1)
            # Variance of U_cj over classes c; what classes have in common drops out, so it goes before squaring.
            centered = self.weight - self.weight.mean(0)
            p = outputs.softmax(1)
            variance = p @ centered.square() - (p @ centered).square()
            return 0.5 * loss.weight.flatten() * (energy * variance).sum(1)
        if loss.kind == "cross-entropy":
            p = outputs.softmax(1)
            return 0.5 * loss.weight.flatten() * (p * self._forms(law, features, p @ self.weight)).sum(1)
        return 0.5 * (loss.diagonal(outputs) * self._forms(law, features, None)).sum(1)

    def leave_one_out(
        self, groups: Removals, features: torch.Tensor, outputs: torch.Tensor, loss: Criterion
    ) -> torch.Tensor:
        """``sum_b lam_b [psi(u - U_b h_b) - psi(u) + <U_b h_b, psi'(u)>]`` of each example, (N,)."""
        if self.pooled:
            positions = math.prod(features.shape[2:])
            weight = (self.weight / positions).repeat_interleave(positions, dim=1)
        else:
            weight = self.weight
        # A unit that is always zero fills up short groups.
        hidden, weight = F.pad(features.flatten(1), (0, 1)), F.pad(weight, (0, 1))
        base, drift = loss.potential(outputs), hidden * (loss.slope(outputs) @ weight)
        total = torch.zeros_like(base)
        for piece in _chunks(len(groups.weight), hidden.shape[0] * max(groups.index.shape[1], weight.shape[0])):
            index = groups.index[piece]
            if index.shape[1] == 1:
                units = index[:, 0]
                moved = torch.addcmul(outputs.unsqueeze(1), hidden[:, units].unsqueeze(2), weight.T[units], value=-1.0)
            else:
                shift = torch.einsum("ngr,kgr->ngk", hidden[:, index], weight[:, index])
                moved = outputs.unsqueeze(1) - shift
            left = _each(loss, moved) - base.unsqueeze(1) + drift[:, index].sum(2)
            total = total + left @ groups.weight[piece]
        return total

    def leave_one_weight_out(
        self, law: Connect, features: torch.Tensor, outputs: torch.Tensor, loss: Criterion
    ) -> torch.Tensor:
        """The same for masks of single weights, each of which moves one output, (N,)."""
        hidden, odds = features.flatten(1), _connect_variance(law, self.weight)
        if loss.kind == "squared":
            return (loss.weight * F.linear(hidden.square(), odds * self.weight.square())).sum(1)
        if loss.kind == "logistic":
            logits = outputs
        else:
            log_p = outputs.log_softmax(1)
            # log(p/(1-p)) of one output among the others; never infinite.
            logits = log_p - torch.log(-torch.expm1(log_p.clamp(max=-torch.finfo(log_p.dtype).eps)))
        total = outputs.new_zeros(len(outputs))
        for piece in _chunks(hidden.shape[1], outputs.numel()):
            shift = hidden[:, None, piece] * self.weight[:, piece]
            moved = F.softplus(logits.unsqueeze(2) - shift) - F.softplus(logits).unsqueeze(2)
            left = (moved + shift * logits.sigmoid().unsqueeze(2)) * odds[:, piece]
            total = total + (loss.weight * left.sum(2)).sum(1)
        return total

    def _energy(self, law: MaskLaw, features: torch.Tensor) -> torch.Tensor | None:
        """``e`` with ``v' Cbar v = sum_j e_j w_j^2`` for ``v`` = features times a weight w_j per input of the head.

        There is none where the mask couples inputs of the head.
        """
        event = tuple(features.shape[1:])
        if isinstance(law, (Bernoulli, Gaussian, Rademacher)):
            variance = torch.as_tensor(law.variance(event), dtype=features.dtype, device=features.device)
            energy = variance * features.square()
            return energy.flatten(2).sum(2) / math.prod(event[1:]) ** 2 if self.pooled else energy.flatten(1)
        if self.pooled and isinstance(law, (Blocks, Channel, SlidingBlock)):
            # Each channel has a mask of its own.
            form: torch.Tensor = law.form(features.unsqueeze(2), shape=(1, *event[1:]))
            return form / math.prod(event[1:]) ** 2
        return None

    def _forms(self, law: MaskLaw, features: torch.Tensor, center: torch.Tensor | None) -> torch.Tensor:
        """``v' Cbar v`` with ``v = h o (U_k - center)`` for all examples and outputs, (N, K)."""
        event = tuple(features.shape[1:])
        wide = (1,) * (len(event) - 1)
        forms = []
        for piece in _chunks(self.weight.shape[0], features.numel()):
            rows = self.weight[piece]
            rows = rows.unsqueeze(0) if center is None else rows - center.unsqueeze(1)
            if self.pooled:
                rows = rows.reshape(*rows.shape, *wide) / math.prod(event[1:])
            else:
                rows = rows.reshape(*rows.shape[:2], *event)
            forms.append(law.form(features.unsqueeze(1) * rows, shape=event))
        return torch.cat(forms, dim=1)


def _connect_variance(law: Connect, weight: torch.Tensor) -> torch.Tensor:
    return torch.as_tensor(law.variance(tuple(weight.shape)), dtype=weight.dtype, device=weight.device)


def _each(loss: Criterion, outputs: torch.Tensor) -> torch.Tensor:
    """Potential of outputs (N, G, K), (N, G)."""
    if loss.kind == "cross-entropy":
        return outputs.logsumexp(2) * loss.weight.reshape(-1, 1)
    psi = outputs.square() if loss.kind == "squared" else F.softplus(outputs)
    return (psi * loss.weight.unsqueeze(1)).sum(2)


def _chunks(count: int, each: int) -> Iterator[slice]:
    size = max(1, _ENTRIES // max(each, 1))
    for start in range(0, count, size):
        yield slice(start, min(start + size, count))


def _plain_flatten(layer: nn.Module) -> bool:
    return type(layer) is nn.Flatten and layer.start_dim == 1 and layer.end_dim == -1


def _to_one(size: Any) -> bool:
    return all(side == 1 for side in (size if isinstance(size, (tuple, list)) else (size,)))
