"""The joint eta-trick: eta is a parameter, trained together with the weights."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, final

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
    by its gradient in the optimizer; the quadratic term acts on the weights as a shrink by ``eta / (eta + step *
    strength)`` after the optimizer step, which stays stable however small eta becomes.

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
        eta = self._eta(member)
        square = (member.penalized_magnitude() / member.memory).square_()
        dual: torch.Tensor = _Dual.apply(eta, member.penalty)  # type: ignore[no-untyped-call]
        cost = member.group_size / 2 * (square / eta + dual).sum()
        # log eta descends in its own unit, so that one learning rate serves every strength; its minimum is the same.
        return strength * cost.detach() + (cost - cost.detach())

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


class _Dual(torch.autograd.Function):
    """f(eta) and its derivative from two values nearby, for penalties that give f as numbers only too."""

    @staticmethod
    def forward(ctx: Any, eta: torch.Tensor, penalty: Penalty) -> torch.Tensor:
        apart = 1e-5 if eta.dtype == torch.float64 else 1e-3
        above, below = penalty.dual(eta * (1 + apart)), penalty.dual(eta * (1 - apart))
        slope = (above - below) / (2 * apart * eta)
        ctx.save_for_backward(torch.nan_to_num(slope, nan=0.0, posinf=0.0, neginf=0.0))
        # The mean of the two is f to the square of their distance.
        return torch.nan_to_num((above + below) / 2, nan=0.0, posinf=0.0)

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor, None]:
        (slope,) = ctx.saved_tensors
        return gradient * slope, None
