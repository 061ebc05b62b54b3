"""Hard-concrete gates: learned gates that are exactly zero or one with positive probability."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, ClassVar, final

import numpy as np
import torch
from torch import nn

from ..._core.arrays import wide
from ..._core.checks import is_number
from ...errors import InvalidArgumentError
from ...penalties import HardConcrete, Penalty
from .._member import Member
from ._base import LARGEST_VARIANCE, Face, Handover

if TYPE_CHECKING:
    from .._forward import Forward

__all__ = ["HardConcreteGates"]

# Gauss and Legendre's nodes and weights on [0, 1].
_QUADRATURE = [((1 + node) / 2, weight / 2) for node, weight in zip(*np.polynomial.legendre.leggauss(16), strict=True)]
_OPEN = 0.1
_LARGEST = 12.0  # bound on log a: beyond it a gate has no gradient left


@final
class HardConcreteGates(Face):
    r"""A learned gate for every group, of the hard-concrete law: the expected number of open gates is the cost.

    The loss is ``mean loss + strength * (expected number of weights whose gate is not zero)``. In evaluation the gate
    is its clipped median; `finish` multiplies it into the weights. Minimized over the gates this is the penalty
    `obverse.penalties.HardConcrete` of cost ``strength``.

    Parameters
    ----------
    initial : float, default 0.9
        Share of open gates at the start (the sigmoid of log a), in (0, 1).
    beta, gamma, zeta : float
        Temperature and stretch of the gate.

    References
    ----------
    Louizos, Welling and Kingma (2018).
    """

    name: ClassVar[str] = "hard-concrete"
    acts_in_forward: ClassVar[bool] = True
    learns: ClassVar[bool] = True
    is_controlled: ClassVar[bool] = True
    bounds: ClassVar[dict[str, tuple[float, float]]] = {"log_a": (-_LARGEST, _LARGEST)}

    def __init__(self, initial: float = 0.9, beta: float = 2 / 3, gamma: float = -0.1, zeta: float = 1.1) -> None:
        if not is_number(initial) or not 0 < initial < 1:
            raise InvalidArgumentError(f"initial must lie in (0, 1), got {initial!r}")
        self.own_penalty = HardConcrete(beta=beta, gamma=gamma, zeta=zeta)  # checks the constants
        self.beta, self.gamma, self.zeta = float(beta), float(gamma), float(zeta)
        self.initial = float(initial)
        self._offset = self.beta * math.log(-self.gamma / self.zeta)

    def attach(self, member: Member, forward: Forward, handed: Handover | None) -> None:
        magnitude = wide(member.magnitude())
        start = math.log(self.initial / (1 - self.initial))
        log_a = torch.full_like(magnitude, start)
        if handed is not None:
            log_a = self._log_a_of(wide(handed.variance))
            # What evaluation sees stays as it is, where the gate is open enough to be divided by.
            gate = self._clip(torch.sigmoid(log_a))
            member.multiply(torch.where(gate > _OPEN, 1 / gate, 1.0).to(member.parameter.dtype))
        # A little apart, as equal gates of a layer would stay equal for long.
        apart = torch.empty(magnitude.shape).normal_(std=0.01, generator=forward.fixed)
        member.learned["log_a"] = nn.Parameter(log_a + apart.to(log_a))

    def shown(self, member: Member, weight: torch.Tensor, forward: Forward) -> torch.Tensor:
        log_a = member.learned["log_a"]
        u = forward.uniform(log_a).clamp(1e-6, 1 - 1e-6)
        gate = torch.sigmoid((torch.log(u) - torch.log1p(-u) + log_a) / self.beta)
        return weight * member.grouping.spread(self._clip(gate), weight)

    def at_rest(self, member: Member, weight: torch.Tensor) -> torch.Tensor | None:
        return weight * member.grouping.spread(self._gate(member), weight)

    def cost(self, member: Member, strength: torch.Tensor) -> torch.Tensor | None:
        return strength * member.group_size * torch.sigmoid(member.learned["log_a"] - self._offset).sum()

    def score(self, member: Member) -> torch.Tensor:
        # Among gates that are shut alike, the one nearest to opening leads.
        with torch.no_grad():
            gate = self._gate(member) + 1e-3 * torch.sigmoid(member.learned["log_a"] - self._offset)
            return member.curved_magnitude() * gate

    def fallen(self, member: Member) -> float:
        with torch.no_grad():
            return float((self._gate(member) == 0).float().mean())

    def fold(self, member: Member, kept: torch.Tensor | None = None) -> torch.Tensor | None:
        with torch.no_grad():
            gate = self._gate(member)
            if kept is None:
                return gate
            mean, _ = self._moments(member.learned["log_a"])
            return torch.where((gate == 0) & kept, mean, gate)

    def variance(self, member: Member, strength: float) -> torch.Tensor | None:
        with torch.no_grad():
            return self._variance(member.learned["log_a"])

    def emptying_strength(self, penalty: Penalty, gradient: float) -> float:
        # The penalty of cost c has the slope of cost 1 times sqrt(c) at zero.
        unit = HardConcrete(1.0, self.beta, self.gamma, self.zeta)
        return (gradient / unit.slope_at_zero) ** 2

    def _variance(self, log_a: torch.Tensor) -> torch.Tensor:
        """Variance of the gate over its squared mean."""
        mean, square = self._moments(log_a)
        return (square / mean.square() - 1).clamp_(0.0, LARGEST_VARIANCE)

    def _moments(self, log_a: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Mean and mean square of the gate, the integrals of P(s > t) and of 2 t P(s > t)."""
        mean, square = torch.zeros_like(log_a), torch.zeros_like(log_a)
        for node, weight in _QUADRATURE:
            exceeds = torch.sigmoid(log_a - self.beta * math.log((node - self.gamma) / (self.zeta - node)))
            mean += weight * exceeds
            square += 2 * node * weight * exceeds
        return mean, square

    def _log_a_of(self, variance: torch.Tensor) -> torch.Tensor:
        """The location at which the gate has this variance, which falls as the gate opens."""
        low = torch.full_like(variance, -_LARGEST)
        high = torch.full_like(variance, _LARGEST)
        for _ in range(40):
            middle = (low + high) / 2
            above = self._variance(middle) > variance
            low, high = torch.where(above, middle, low), torch.where(above, high, middle)
        return (low + high) / 2

    def dual(self, penalty: Penalty, strength: float) -> tuple[Penalty, float]:
        return HardConcrete(strength, self.beta, self.gamma, self.zeta), 1.0

    def _clip(self, gate: torch.Tensor) -> torch.Tensor:
        return (gate * (self.zeta - self.gamma) + self.gamma).clamp(0.0, 1.0)

    def _gate(self, member: Member) -> torch.Tensor:
        return self._clip(torch.sigmoid(member.learned["log_a"]))
