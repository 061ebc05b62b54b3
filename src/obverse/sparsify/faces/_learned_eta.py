"""The joint eta-trick: eta is a parameter, trained together with the weights."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, ClassVar, final

import torch
from torch import nn

from ...errors import InvalidArgumentError
from ...penalties import Penalty
from .._budget import is_number
from .._member import Member
from ._base import Face, Handover

if TYPE_CHECKING:
    from .._forward import Forward

__all__ = ["LearnedEta"]

_LARGEST = 20.0  # bound on log eta


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

    def __init__(self, cutoff: float = 0.05) -> None:
        if not is_number(cutoff) or not 0 <= cutoff < 1:
            raise InvalidArgumentError(f"cutoff must lie in [0, 1), got {cutoff!r}")
        self.cutoff = float(cutoff)

    def attach(self, member: Member, forward: Forward, handed: Handover | None) -> None:
        magnitude = member.penalized_magnitude()
        if handed is not None and handed.strength > 0:
            eta = handed.eta
        else:
            # Where eta belongs to the weights as they are.
            eta = member.penalty.eta(magnitude.clamp_min(1e-3 * float(magnitude.mean().clamp_min(1e-12))))
        log_eta = torch.nan_to_num(eta.log(), posinf=_LARGEST).clamp(-_LARGEST, _LARGEST)
        member.learned["log_eta"] = nn.Parameter(log_eta)
        member.memory = torch.ones((), dtype=magnitude.dtype, device=magnitude.device)  # the unit of the weights

    def cost(self, member: Member, strength: torch.Tensor) -> torch.Tensor | None:
        assert member.memory is not None
        log_eta = member.learned["log_eta"].clamp(-_LARGEST, _LARGEST)
        with torch.no_grad():
            eta = log_eta.exp()
            square = (member.penalized_magnitude() / member.memory).square_()
            dual, rise = _dual(member.penalty, eta)
            ridge = square / eta
            # The derivative in log eta, (rise - ridge) / 2, over its own size: log eta then moves at one rate, whatever
            # the strength and however small eta is, and rests where the derivative vanishes.
            direction = (rise - ridge) / (rise + ridge).clamp_min(1e-30)
            value = member.group_size / 2 * (ridge + dual).sum()
        moving = (direction * log_eta).sum()
        return strength * value + (moving - moving.detach())

    def descend(self, member: Member, strength: float, steps: int) -> None:
        eta = self._eta(member).detach()
        member.shrink(lambda eta, step: eta / (eta + step), eta, member.steps(strength * steps))

    def settle(
        self, member: Member, magnitude: torch.Tensor, boundary: float, strength: float, pressure: float
    ) -> None:
        if boundary <= 0:
            return
        assert member.memory is not None
        member.memory.fill_(boundary / member.curvature())

        def factor(eta: torch.Tensor, magnitude: torch.Tensor) -> torch.Tensor:
            return (eta / (eta + strength * pressure)).mul_(magnitude > boundary)

        member.shrink(factor, self._eta(member).detach(), magnitude)

    def alive(self, member: Member, strength: float) -> torch.Tensor | None:
        eta = self._eta(member).detach()
        return eta >= self.cutoff * (eta + strength)

    def variance(self, member: Member, strength: float) -> torch.Tensor | None:
        return strength / self._eta(member).detach()

    def _eta(self, member: Member) -> torch.Tensor:
        return member.learned["log_eta"].clamp(-_LARGEST, _LARGEST).exp()


def _dual(penalty: Penalty, eta: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """f(eta) and ``eta f'(eta)``, from two values nearby: the dual of some penalties is known as numbers only."""
    apart = 1e-5 if eta.dtype == torch.float64 else 1e-3
    above, below = penalty.dual(eta * (1 + apart)), penalty.dual(eta * (1 - apart))
    # The mean of the two is f to the square of their distance. Beyond the reach of eta f is infinite: no pull upward.
    value = torch.nan_to_num((above + below) / 2, nan=0.0, posinf=0.0)
    return value, torch.nan_to_num((above - below) / (2 * apart), nan=0.0, posinf=math.inf).clamp(0.0, 1e30)
