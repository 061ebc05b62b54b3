"""Variational dropout: Gaussian noise whose variance is learned against a log-uniform prior."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, ClassVar, final

import torch
from torch import nn

from ..._core.arrays import wide
from ..._core.checks import is_number
from ...errors import InvalidArgumentError
from ...penalties import Penalty, VariationalDropout
from .._member import Member
from ._base import Face, Handover
from ._divergence import Divergence

if TYPE_CHECKING:
    from .._forward import Forward

__all__ = ["VariationalNoise"]

# Bounds on the log of the noise's variance relative to the weight.
_LARGEST = 10.0
_LARGEST_SIGMA = 20.0
_TINY = 1e-30


@final
class VariationalNoise(Face):
    r"""Variational dropout (sparsifying): multiplicative Gaussian noise with a learned variance for every group.

    The weights of a group have independent noise of one common variance. The loss is ``mean loss + strength * KL``
    with the exact divergence; at ``strength = 1 / examples`` it is the variational bound. Minimized over the variances
    it is ``loss + strength * Omega(w / sqrt(strength))`` with the penalty `obverse.penalties.VariationalDropout`.

    Parameters
    ----------
    parametrization : {"additive", "multiplicative"}
        What is learned: log sigma of the noise on the weight (its gradient has far less variance), or log alpha, the
        variance relative to the squared weight.
    local : bool, default True
        Draw noise on the activations of linear and convolutional layers, an own one for every example (local
        reparametrization), or one weight per batch.
    initial : float, default -5.0
        First log sigma or log alpha.
    threshold : float, default 3.0
        Groups whose log alpha is larger are zeroed by a stated strength at the end; what a budget calls fallen.
    warmup : pair of int, default (0, 0)
        Steps between which the divergence's weight rises from 0 to ``strength``.

    References
    ----------
    Kingma, Salimans and Welling (2015); Molchanov, Ashukha and Vetrov (2017) for the additive form, the threshold and
    the warm-up. Exact divergence: derived, see theory note.
    """

    name: ClassVar[str] = "variational-dropout"
    acts_in_forward: ClassVar[bool] = True
    learns: ClassVar[bool] = True
    is_controlled: ClassVar[bool] = True
    bounds: ClassVar[dict[str, tuple[float, float]]] = {
        "log_sigma": (-_LARGEST_SIGMA, _LARGEST_SIGMA),
        "log_alpha": (-_LARGEST, _LARGEST),
    }

    def __init__(
        self,
        parametrization: str = "additive",
        local: bool = True,
        initial: float = -5.0,
        threshold: float = 3.0,
        warmup: tuple[int, int] = (0, 0),
    ) -> None:
        if parametrization not in ("additive", "multiplicative"):
            raise InvalidArgumentError(
                f"parametrization must be 'additive' or 'multiplicative', got {parametrization!r}"
            )
        for name, value in (("initial", initial), ("threshold", threshold)):
            if not is_number(value) or not math.isfinite(value):
                raise InvalidArgumentError(f"{name} must be a finite number, got {value!r}")
        if len(warmup) != 2 or not 0 <= warmup[0] <= warmup[1]:
            raise InvalidArgumentError(f"warmup must be two steps (begin, end) in order, got {warmup!r}")
        self.is_additive = parametrization == "additive"
        self.local = bool(local)
        self.initial, self.threshold = float(initial), float(threshold)
        self.warmup = (int(warmup[0]), int(warmup[1]))
        self.own_penalty = VariationalDropout()
        self._divergences: dict[tuple[torch.device, torch.dtype], Divergence] = {}

    def attach(self, member: Member, forward: Forward, handed: Handover | None) -> None:
        magnitude = wide(member.magnitude())
        if handed is None:
            start = torch.full_like(magnitude, self.initial)
        else:
            log_alpha = wide(handed.variance).clamp(math.exp(-_LARGEST), math.exp(_LARGEST)).log()
            start = log_alpha / 2 + magnitude.clamp_min(_TINY).log() if self.is_additive else log_alpha
        member.learned["log_sigma" if self.is_additive else "log_alpha"] = nn.Parameter(start)
        self._divergence(magnitude)

    def _divergence(self, like: torch.Tensor) -> Divergence:
        key = (like.device, like.dtype)
        if key not in self._divergences:
            self._divergences[key] = Divergence(*key)
        return self._divergences[key]

    def eta(self, member: Member, magnitude: torch.Tensor) -> torch.Tensor:
        """Inverse variance of the relative noise, differentiable."""
        if self.is_additive:
            return (magnitude * torch.exp(-member.learned["log_sigma"])).square()
        return torch.exp(-member.learned["log_alpha"])

    def spread(self, member: Member, weight: torch.Tensor) -> torch.Tensor | None:
        return self._square_noise(member, weight) if self.local else None

    def shown(self, member: Member, weight: torch.Tensor, forward: Forward) -> torch.Tensor:
        if self.is_additive:
            deviation = member.grouping.spread(torch.exp(member.learned["log_sigma"]), weight) * (weight != 0)
            return weight + deviation * forward.normal(weight)
        relative = member.grouping.spread(torch.exp(member.learned["log_alpha"] / 2), weight)
        return weight * (1 + relative * forward.normal(weight))

    def cost(self, member: Member, strength: torch.Tensor) -> torch.Tensor | None:
        # Of single weights only the square is used, so that the sign does no harm.
        weight, single = member.traced, member.group_size == 1
        eta = self.eta(member, weight if single else member.grouping.magnitude(weight))
        return strength * member.group_size * self._divergence(eta)(eta).sum()

    def score(self, member: Member) -> torch.Tensor:
        magnitude = wide(member.magnitude())
        with torch.no_grad():
            # Signal to noise; a weight at zero has no signal.
            return self.eta(member, magnitude).sqrt_().mul_(magnitude > 0)

    def fallen(self, member: Member) -> float:
        return float((self.score(member) < math.exp(-self.threshold / 2)).float().mean())

    def alive(self, member: Member, strength: float) -> torch.Tensor | None:
        return self.score(member) >= math.exp(-self.threshold / 2)

    def variance(self, member: Member, strength: float) -> torch.Tensor | None:
        with torch.no_grad():
            return self.eta(member, wide(member.magnitude())).clamp_min_(math.exp(-_LARGEST)).reciprocal_()

    def emptying_strength(self, penalty: Penalty, gradient: float) -> float:
        # Omega(w / sqrt(strength)) * strength has the slope sqrt(strength) at zero.
        return gradient**2

    def dual(self, penalty: Penalty, strength: float) -> tuple[Penalty, float]:
        return VariationalDropout(scale=strength**-0.5), strength

    def _square_noise(self, member: Member, weight: torch.Tensor) -> torch.Tensor:
        if self.is_additive:
            # What a budget has taken is quiet.
            return member.grouping.spread(torch.exp(2 * member.learned["log_sigma"]), weight) * (weight != 0)
        return member.grouping.spread(torch.exp(member.learned["log_alpha"]), weight) * weight.square()
