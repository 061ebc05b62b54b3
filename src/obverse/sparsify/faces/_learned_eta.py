"""The joint eta-trick: eta is a parameter, trained together with the weights."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, ClassVar, final

import torch
from torch import nn

from ..._core.arrays import wide
from ..._core.checks import is_number
from ...errors import InvalidArgumentError
from ...penalties import Penalty
from .._member import Member
from ._base import Face, Handover

if TYPE_CHECKING:
    from .._forward import Forward

__all__ = ["LearnedEta"]

_LARGEST = 20.0  # bound on log eta
_STEEPEST = 1e30
_REENTRY = 1e-3


@final
class LearnedEta(Face):
    r"""The joint eta-trick: ``loss + (strength / 2) * sum(w**2 / eta + f(eta))`` over the weights and log eta.

    f is the dual of the penalty, so that the joint minimum is that of ``loss + strength * penalty``. log eta descends
    in the optimizer, by its gradient over the gradient's natural size; the quadratic term acts on the weights as a
    shrink by ``eta / (eta + step * strength)`` after the optimizer step, stable however small eta becomes.

    Parameters
    ----------
    cutoff : float, default 0.05
        Groups whose keep probability ``eta / (eta + strength)`` is below are zeroed by a stated strength at the end.

    References
    ----------
    LeJeune, Javadi and Baraniuk (2021), "eta-trick", here with the exact dual of every penalty and the quadratic term
    taken implicitly.
    """

    name: ClassVar[str] = "learned-eta"
    learns: ClassVar[bool] = True
    bounds: ClassVar[dict[str, tuple[float, float]]] = {"log_eta": (-_LARGEST, _LARGEST)}

    def __init__(self, cutoff: float = 0.05) -> None:
        if not is_number(cutoff) or not 0 <= cutoff < 1:
            raise InvalidArgumentError(f"cutoff must lie in [0, 1), got {cutoff!r}")
        self.cutoff = float(cutoff)

    def attach(self, member: Member, forward: Forward, handed: Handover | None) -> None:
        magnitude = wide(member.penalized_magnitude())
        if handed is not None and handed.strength > 0:
            eta = wide(handed.eta)
        else:
            # Where eta belongs to the weights as they are; at a budget, once its boundary gives them a unit.
            eta = member.penalty.eta(magnitude.clamp_min(1e-3 * float(magnitude.mean().clamp_min(1e-12))))
        member.learned["log_eta"] = nn.Parameter(
            torch.nan_to_num(eta.log(), posinf=_LARGEST).clamp(-_LARGEST, _LARGEST)
        )
        # Unit of every group's magnitude: 1 for a stated strength; for a budget not known yet, and "not a number" where
        # eta was handed over and is to be kept.
        member.memory = None
        if member.selected.rule.budget is None:
            member.memory = torch.ones_like(magnitude)
        elif handed is not None:
            member.memory = torch.full_like(magnitude, math.nan)

    def cost(self, member: Member, strength: torch.Tensor) -> torch.Tensor | None:
        if member.memory is None:
            return None
        log_eta = member.learned["log_eta"]
        with torch.no_grad():
            eta = log_eta.exp()
            measured = member.penalized_magnitude() if member.selected.rule.budget is None else member.magnitude()
            square = (measured / member.memory).square()
            dual, rise = _dual(member.penalty, eta)
            ridge = square / eta
            # The derivative in log eta, (rise - ridge) / 2, over its own size: log eta then moves at one rate, whatever
            # the strength and however small eta is, and rests where the derivative vanishes.
            direction = torch.nan_to_num((rise - ridge) / (rise + ridge).clamp_min(1e-30), nan=0.0)
            value = torch.nan_to_num(member.group_size / 2 * (ridge + dual).sum(), nan=0.0)
        moving = (direction * log_eta).sum()
        return strength * value + (moving - moving.detach())

    def descend(self, member: Member, strength: float, steps: int) -> None:
        member.shrink(lambda eta, step: eta / (eta + step), self._eta(member), member.steps(strength * steps))

    def settle(
        self, member: Member, magnitude: torch.Tensor, boundary: float, strength: float, pressure: float
    ) -> None:
        if boundary <= 0:
            return
        self._measure(member, magnitude, boundary)

        def factor(eta: torch.Tensor, magnitude: torch.Tensor) -> torch.Tensor:
            return (eta / (eta + strength * pressure)).mul_(magnitude > boundary)

        member.shrink(factor, self._eta(member), magnitude)

    def _measure(self, member: Member, magnitude: torch.Tensor, boundary: float) -> None:
        """Take the boundary as the unit of the weights, and express eta in it."""
        log_eta = member.learned["log_eta"].detach()
        plain = wide(member.magnitude())
        unit = wide(boundary / member.root_metric()).expand_as(plain).clone()
        # A weight at zero is seen as a small one, so that its eta can grow again.
        now = member.penalty.eta((plain / unit).clamp_min(_REENTRY)).log()
        if member.memory is None:
            log_eta.copy_(now)
        else:
            before = member.penalty.eta((plain / member.memory).clamp_min(_REENTRY)).log()
            log_eta.add_(torch.nan_to_num(now - before, nan=0.0, posinf=0.0, neginf=0.0))
        log_eta.clamp_(-_LARGEST, _LARGEST)
        member.memory = unit

    def alive(self, member: Member, strength: float) -> torch.Tensor | None:
        eta = self._eta(member)
        return eta >= self.cutoff * (eta + strength)

    def variance(self, member: Member, strength: float) -> torch.Tensor | None:
        return strength / self._eta(member)

    def _eta(self, member: Member) -> torch.Tensor:
        return member.learned["log_eta"].detach().exp()


def _dual(penalty: Penalty, eta: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """f(eta) and ``eta f'(eta)``, from two values nearby: the dual of some penalties is known as numbers only."""
    apart = 1e-5 if eta.dtype == torch.float64 else 1e-3
    above, below = penalty.dual(eta * (1 + apart)), penalty.dual(eta * (1 - apart))
    # The mean of the two is f to the square of their distance. Beyond the reach of eta f is infinite, and
    # so is its pull downward.
    value = torch.nan_to_num((above + below) / 2, nan=0.0, posinf=0.0)
    rise = torch.where(below.isinf(), math.inf, (above - below) / (2 * apart))
    return value, rise.clamp(0.0, _STEEPEST)
