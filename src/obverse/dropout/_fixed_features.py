"""A last layer on features that do not change: its regularizer unit by unit, and the best one, in closed form."""

from __future__ import annotations

import numpy as np
import torch

from ..errors import InvalidArgumentError
from ._criterion import check_loss, criterion
from ._law import MaskLaw
from ._linear_head import LinearHead

__all__ = ["QuadraticForm", "best_head", "unit_values"]


def unit_values(weight: torch.Tensor, noise: torch.Tensor) -> torch.Tensor:
    """``sum_j (Cbar o H)_ij (U'U)_ij`` for every unit i, (d,); their sum is the regularizer of the squared loss.

    Parameters
    ----------
    weight : torch.Tensor (K, d)
        ``U``.
    noise : torch.Tensor (d, d)
        ``Cbar o H``.
    """
    return (weight.mT * (noise @ weight.mT)).sum(1)


def best_head(moment: torch.Tensor, cross: torch.Tensor, noise: torch.Tensor) -> torch.Tensor:
    """The last layer with the least expected squared loss on given features.

    ``tr(U S U') - 2 <U, C_yh> + tr(U (Cbar o H) U')`` is quadratic in ``U``, with the minimizer

        U = C_yh (S + Cbar o H)^+

    a ridge regression whose strength is ``lam_i H_ii`` for unit i (independent units; derived in docs/theory.md,
    section 6.5). With a free output bias ``S`` and ``C_yh`` are centered, and ``H`` is not: the bias makes up for the
    means of the features, but not for the noise on them.

    Parameters
    ----------
    moment : torch.Tensor (d, d)
        ``S``.
    cross : torch.Tensor (K, d)
        ``C_yh``.
    noise : torch.Tensor (d, d)
        ``Cbar o H``.

    Returns
    -------
    torch.Tensor (K, d)
        The minimizer of least norm, in units of each unit's own size: dead units get zeros.
    """
    system = moment + noise
    size = system.diagonal().clamp(min=0.0).sqrt()
    alive = size > 0
    result = torch.zeros_like(cross)
    if bool(alive.any()):
        unit = size[alive]
        scaled = (system[alive][:, alive] / torch.outer(unit, unit)).numpy()
        inverse = np.linalg.pinv(scaled, rcond=len(scaled) * np.finfo(np.float64).eps, hermitian=True)
        result[:, alive] = (cross[:, alive] / unit) @ torch.from_numpy(inverse) / unit
    return result


class QuadraticForm:
    """``(1/2) <Cbar, (U' H_L U) o h h'>`` summed over batches, for any loss, with the share of every unit.

    The form is homogeneous of degree two in the features while the curvature ``H_L`` stands, so that unit i has half of
    the derivative with respect to a factor on it.
    """

    def __init__(self, head: LinearHead, law: MaskLaw, event: tuple[int, ...], loss: object) -> None:
        self._head, self._law, self._event, self._loss = head, law, event, loss
        self._sum = torch.zeros(head.weight.shape[1], dtype=torch.float64)
        self._divisor = 0.0
        self._summed = check_loss(loss)[1] == "sum"

    def add(self, features: torch.Tensor, outputs: torch.Tensor, target: torch.Tensor) -> None:
        """Take in a batch: features (n, d), outputs (n, K), and the target as the loss takes it."""
        terms = criterion(self._loss, outputs, target)
        factor = torch.ones(features.shape[1:], dtype=features.dtype, device=features.device, requires_grad=True)
        with torch.enable_grad():
            masked = (features * factor).reshape(len(features), *self._event)
            total = self._head.quadratic(self._law, masked, outputs, terms).sum()
            (slope,) = torch.autograd.grad(total, factor)
        self._sum += slope.cpu() / 2
        self._divisor = 1.0 if self._summed else self._divisor + (1.0 / float(terms.scale) if terms.scale > 0 else 0.0)

    def values(self) -> torch.Tensor:
        """Value of each unit, (d,), averaged over examples as the loss averages."""
        if self._divisor == 0:
            raise InvalidArgumentError("every example has a target that the loss ignores")
        return self._sum / self._divisor
