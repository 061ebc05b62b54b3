"""Penalties of learned gates: hard concrete and concrete dropout, with the gate's parameter minimized out."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar, final

import numpy as np
import numpy.typing as npt

from ..errors import InvalidArgumentError
from ._parameters import store_constant
from ._rescaling import Rescaling
from ._tabulated import TabulatedPenalty, remembered

__all__ = ["ConcreteDropout", "HardConcrete"]

Floats = npt.NDArray[np.float64]


@final
@dataclass(frozen=True)
class HardConcrete(Rescaling):
    r"""Hard-concrete gates: :math:`\Omega(w) = \min_a \tfrac12 \nu(a) w^2 + c\,P(s \ne 0)`.

    s is the stretched and clipped concrete gate of location log a, and :math:`\nu = E s^2/(E s)^2 - 1` the variance of
    the gate scaled to mean one. So :math:`\Omega(w) = c\,h(w/\sqrt c)`; with the usual constants h has slope 2.086 at
    zero and is exactly 1 beyond 0.757, where the keep probability :math:`1/(1+\nu)` jumps from 0.699 to 1. The
    penalty resembles MCP. Its proximal operator jumps there for every step: the curvature limit is 0.

    Parameters
    ----------
    cost : float, default 0.5
        c, the price of a weight that is not zero. Positive.
    beta, gamma, zeta : float
        Temperature (positive) and stretch (``gamma < 0 < 1 < zeta``) of the gate.

    References
    ----------
    Louizos, Welling and Kingma (2018); effective penalty: LeJeune, Javadi and Baraniuk (2021), whose code is numeric
    with cost 1/2. Quadrature, plateau and jump: derived, see theory note.
    """

    cost: float = 0.5
    beta: float = 2 / 3
    gamma: float = -0.1
    zeta: float = 1.1
    name: ClassVar[str] = "hard-concrete"

    def __post_init__(self) -> None:
        store_constant(self, "cost", "beta")
        if not (-math.inf < self.gamma < 0 and 1 < self.zeta < math.inf):
            raise InvalidArgumentError(f"need gamma < 0 and zeta > 1, got gamma={self.gamma!r} and zeta={self.zeta!r}")

    @property
    def _unit(self) -> TabulatedPenalty:
        return _hard_concrete(self.beta, self.gamma, self.zeta)

    @property
    def _shape(self) -> tuple[float, float]:
        return math.sqrt(self.cost), self.cost


@remembered
def _hard_concrete(beta: float, gamma: float, zeta: float) -> TabulatedPenalty:
    from scipy.interpolate import make_interp_spline
    from scipy.optimize import brentq
    from scipy.special import expit

    nodes, weights = np.polynomial.legendre.leggauss(200)
    t = (nodes + 1) / 2
    offset = beta * np.log((t - gamma) / (zeta - t))
    at_zero = beta * math.log(-gamma / zeta)

    def gate(log_a: Floats) -> tuple[Floats, Floats, Floats]:
        """log nu, P(s != 0) and u = w^2/2 at which this gate is stationary."""
        alive = expit(log_a[..., None] - offset)
        fading = alive * expit(offset - log_a[..., None])
        mean, mean_fading = alive @ weights / 2, fading @ weights / 2
        square, square_fading = alive @ (weights * t), fading @ (weights * t)
        # nu = var / mean^2, with the variance in the form that keeps its digits as the gate opens.
        missing, missing_square = (1 - alive) @ weights / 2, (1 - alive) @ (weights * t)
        variance = np.where(mean < 0.5, square - mean**2, 2 * missing - missing_square - missing**2)
        nu = variance / mean**2
        nu_gradient = square_fading / mean**2 - 2 * square * mean_fading / mean**3
        nonzero = expit(log_a - at_zero)
        return np.log(nu), nonzero, -nonzero * expit(at_zero - log_a) / nu_gradient

    def saving(log_a: float) -> float:
        log_nu, nonzero, u = gate(np.array([log_a]))
        return float(np.exp(log_nu[0]) * u[0] + nonzero[0] - 1)

    # Up to the gate whose objective reaches 1, the price of leaving the gate open for good.
    scan = np.linspace(-8, 12, 401)
    log_nu, nonzero, u = gate(scan)
    first = int(np.argmax(np.exp(log_nu) * u + nonzero >= 1))
    last = float(brentq(saving, scan[first - 1], scan[first], xtol=1e-14, rtol=1e-15))
    grid = np.linspace(-40.0, last, 900)
    log_nu, _, u = gate(grid)
    curve = make_interp_spline(np.log(u), log_nu, k=7)
    cut = float(np.sqrt(2 * u[-1]))
    start = float(np.log(u[0]))
    limit = float(np.exp(log_nu[0] + start / 2))  # nu sqrt(u) as the gate closes

    def slope(w: Floats) -> Floats:
        log_u = 2 * np.log(w) - math.log(2)
        inside = np.clip(log_u, start, np.log(u[-1]))
        nu = np.where(log_u < start, limit * np.exp(-log_u / 2), np.exp(curve(inside)))
        result: Floats = np.where(w < cut, w * nu, 0.0)
        return result

    return TabulatedPenalty(
        slope,
        label="hard-concrete",
        # A fold of the stationary gate lies just behind the cut: pieces that shrink towards it resolve the slope.
        breaks=(*(cut * (1 - 0.2 * 0.5**k) for k in range(10)), cut),
        find_breaks=False,
        slope_at_zero=math.sqrt(2) * limit,
        curvature_limit=0.0,
        powers=(0.0, 0.0),
    )


@final
@dataclass(frozen=True)
class ConcreteDropout(Rescaling):
    r"""Concrete dropout: :math:`\Omega(w) = \min_\nu \tfrac12 \nu w^2 - c\,H(1/(1+\nu)) + c\log 2`.

    H is the entropy of a Bernoulli gate, in nats; the minimum has :math:`(1+\nu)^2 w^2 = -2c\log\nu`. No exact zeros:
    the slope at zero is 0 and :math:`\Omega(w) \approx w^2/2` there, because a gate without a reason is open half of
    the time. The penalty never exceeds :math:`c \log 2`; :math:`f(\eta) = 0` for :math:`\eta \le 1`.

    Parameters
    ----------
    cost : float, default 1
        c, the weight of the entropy. Positive.

    References
    ----------
    Gal, Hron and Kendall (2017); effective penalty: derived, see theory note.
    """

    cost: float = 1.0
    name: ClassVar[str] = "concrete-dropout"

    def __post_init__(self) -> None:
        store_constant(self, "cost")

    @property
    def _unit(self) -> TabulatedPenalty:
        return _concrete()

    @property
    def _shape(self) -> tuple[float, float]:
        return math.sqrt(self.cost), self.cost


@remembered
def _concrete() -> TabulatedPenalty:
    from scipy.optimize import minimize_scalar

    def slope(w: Floats) -> Floats:
        # q = -log nu solves log(2q) - 2 log(1 + e^-q) = 2 log w: Newton's method in log q.
        log_q = np.log(w * w / 2) + np.where(w < 1, 2 * np.log(2), 0.0)
        for _ in range(40):
            q = np.exp(log_q)
            excess = np.log(2) + log_q - 2 * np.log1p(np.exp(-q)) - 2 * np.log(w)
            change = excess / (1 + 2 * q / (np.exp(np.minimum(q, 700.0)) + 1))
            log_q = log_q - change
            if np.abs(change).max() < 1e-10:
                break
        # Beyond the cut the noise is below 1e-12: flat, to rounding.
        result: Floats = np.where(w < cut, w * np.exp(-np.exp(log_q)), 0.0)
        return result

    def bend(q: float) -> float:
        """Omega'' at the weight whose noise is e^-q."""
        nu = math.exp(-q)
        return nu * (1 - 2 / (1 / q + 2 * nu / (1 + nu)))

    cut = math.sqrt(-2 * math.log(1e-12)) / (1 + 1e-12)
    return TabulatedPenalty(
        slope,
        label="concrete-dropout",
        breaks=(cut,),
        slope_at_zero=0.0,
        curvature_limit=-1
        / float(minimize_scalar(bend, bounds=(0.1, 10.0), method="bounded", options={"xatol": 1e-10}).fun),
        noise=lambda w: np.full_like(w, 1e-20),
        powers=(1.0, 0.0),
    )
