"""Penalties of learned gates: hard concrete and concrete dropout, with the gate's parameter minimized out."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar, final

import numpy as np
import numpy.typing as npt

from .._core.checks import finite
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
    penalty resembles MCP. Its proximal operator jumps there for every step: the curvature limit is 0. At low
    temperatures the keep probability reaches 1 without a jump, and the curvature limit is positive.

    Parameters
    ----------
    cost : float, default 0.5
        c, the price of a weight that is not zero. Positive.
    beta, gamma, zeta : float
        Temperature, from 0.001 to 10, and stretch, ``gamma < 0 < 1 < zeta`` with ``-gamma`` and ``zeta - 1`` from 1e-6
        to 1e6, of the gate.

    References
    ----------
    Louizos, Welling and Kingma (2018); effective penalty: LeJeune, Javadi and Baraniuk (2021), whose code is numeric
    with cost 1/2. Quadrature, plateau and jump: derived in docs/theory.md, section 5.5.
    """

    cost: float = 0.5
    beta: float = 2 / 3
    gamma: float = -0.1
    zeta: float = 1.1
    name: ClassVar[str] = "hard-concrete"

    def __post_init__(self) -> None:
        store_constant(self, "cost", "beta")
        for name in ("gamma", "zeta"):
            object.__setattr__(self, name, finite(name, getattr(self, name)))
        if not (self.gamma < 0 and self.zeta > 1):
            raise InvalidArgumentError(f"need gamma < 0 and zeta > 1, got gamma={self.gamma!r} and zeta={self.zeta!r}")
        if not (1e-3 <= self.beta <= 10 and _is_stretch(-self.gamma) and _is_stretch(self.zeta - 1)):
            raise InvalidArgumentError(
                "beta must be between 0.001 and 10, -gamma and zeta - 1 between 1e-6 and 1e6, got "
                f"beta={self.beta!r}, gamma={self.gamma!r} and zeta={self.zeta!r}"
            )

    @property
    def _unit(self) -> TabulatedPenalty:
        return _hard_concrete(self.beta, self.gamma, self.zeta)

    @property
    def _shape(self) -> tuple[float, float]:
        return math.sqrt(self.cost), self.cost


def _is_stretch(length: float) -> bool:
    return 1e-6 * (1 - 1e-9) <= length <= 1e6


class _Gate:
    """The gate of one temperature and stretch, along theta = -log(1 + K / a): from closed at -inf to open at 0.

    K is the location at which the gate is half open to its end, so that everything is smooth in theta on the scale of
    one. The expectations are integrals over the logistic variable y = log((t - gamma) / (zeta - t)), in which
    P(s > t) = 1 / (1 + A o(y)) with A = K / a and o(y) = exp(beta (y - y(1))) is smooth as well.
    """

    def __init__(self, beta: float, gamma: float, zeta: float) -> None:
        from scipy.special import expit

        start, end = math.log(-gamma / zeta), math.log((1 - gamma) / (zeta - 1))
        self.width = beta * (end - start)  # distance in log a between closing and opening
        nodes, weights = np.polynomial.legendre.leggauss(16)
        edges = np.linspace(start, end, 1 + math.ceil((end - start) * max(beta, 1.0) / 2))
        half = np.diff(edges)[:, None] / 2
        y = ((edges[1:] + edges[:-1])[:, None] / 2 + half * nodes).reshape(-1)
        inside = expit(y)
        self._o = np.exp(beta * (y - end))
        self._first = math.exp(-self.width)  # o at t = 0
        self._dt = (half * weights).reshape(-1) * (zeta - gamma) * inside * expit(-y)
        self._2t_dt = 2 * (gamma + (zeta - gamma) * inside) * self._dt

    def __call__(self, theta: Floats) -> tuple[Floats, Floats, Floats]:
        """log(nu / A), log u and the saving (nu u + P - 1) / A, where u = w^2 / 2 makes the gate stationary."""
        a = np.expm1(-theta)
        alive = 1 / (1 + a[:, None] * self._o)
        mean, square = alive @ self._dt, alive @ self._2t_dt
        lost, lost_square = (self._o * alive) @ self._dt, (self._o * alive) @ self._2t_dt
        # The variance in the form that keeps its digits: as the gate opens it vanishes like A.
        with np.errstate(divide="ignore", invalid="ignore"):
            closed = (square - mean**2) / a
        variance = np.where(mean < 0.5, closed, 2 * lost - lost_square - a * lost**2)
        ratio = variance / mean**2
        fading, fading_square = (self._o * alive**2) @ self._dt, (self._o * alive**2) @ self._2t_dt
        nonzero = 1 / (1 + a * self._first)
        u = self._first * nonzero**2 / (2 * square * fading / mean**3 - fading_square / mean**2)
        return np.log(ratio), np.log(u), ratio * u - self._first * nonzero

    def end(self) -> float:
        """Theta at which the objective reaches 1, the price of leaving the gate open for good: 0 if only there.

        The saving rises with u and falls again, or (at low temperatures) only rises: then it is never positive.
        """
        from scipy.optimize import brentq

        scan = np.concatenate([np.arange(-self.width - 8, -0.01, 0.02), -np.geomspace(0.01, 1e-6, 200)])
        saving = self(scan)[2]
        positive = np.flatnonzero(saving > 1e-9 * self._first * -np.expm1(scan))
        if positive.size == 0 or positive[0] == 0:
            return 0.0
        bracket = scan[positive[0] - 1], scan[positive[0]]
        return float(brentq(lambda x: float(self(np.array([x]))[2][0]), *bracket, xtol=1e-15, rtol=1e-14))


@remembered
def _hard_concrete(beta: float, gamma: float, zeta: float) -> TabulatedPenalty:
    from scipy.interpolate import make_interp_spline

    gate = _Gate(beta, gamma, zeta)
    end = gate.end()
    grid = np.linspace(-gate.width - 40, end, 1 + math.ceil((gate.width + 40 + end) / 0.05))
    log_ratio, log_u, _ = gate(grid)
    ratio_of, u_of = make_interp_spline(grid, log_ratio, k=7), make_interp_spline(grid, log_u, k=7)
    slope_of_u = u_of.derivative()
    cut = math.sqrt(2) * math.exp(log_u[-1] / 2)
    # Distance in log w to the fold of the stationary gate, which lies just behind the cut.
    first, second = float(slope_of_u(end)), float(u_of.derivative(2)(end))
    fold = max(first, 0.0) ** 2 / max(-4 * second, 1e-12)
    pieces = min(max(10, math.ceil(math.log2(0.8 / max(fold, 1e-12)))), 36)
    limit = math.exp(log_ratio[0] + math.log(math.expm1(-grid[0])) + log_u[0] / 2)  # nu sqrt(u) as the gate closes

    def located(target: Floats) -> Floats:
        """Theta at which log u is ``target``, by Newton's method between neighbors on the grid."""
        index = np.clip(np.searchsorted(log_u, target) - 1, 0, grid.size - 2)
        low, high = grid[index], grid[index + 1]
        x = low + (high - low) * np.clip((target - log_u[index]) / (log_u[index + 1] - log_u[index]), 0, 1)
        for _ in range(60):
            excess = u_of(x) - target
            low, high = np.where(excess < 0, x, low), np.where(excess < 0, high, x)
            newton = x - excess / slope_of_u(x)
            x_next = np.where((newton >= low) & (newton <= high), newton, (low + high) / 2)
            settled = bool((np.abs(x_next - x) <= 1e-15 * (1 - grid[0])).all())
            x = x_next
            if settled:
                break
        return x

    def slope(w: Floats) -> Floats:
        target = 2 * np.log(w.reshape(-1)) - math.log(2)
        result = np.where(target < log_u[0], math.sqrt(2) * limit, 0.0)
        inside = np.flatnonzero((target >= log_u[0]) & (w.reshape(-1) < cut))
        if inside.size:
            theta = located(target[inside])
            result[inside] = w.reshape(-1)[inside] * np.exp(ratio_of(theta)) * np.expm1(-theta)
        shaped: Floats = result.reshape(w.shape)
        return shaped

    return TabulatedPenalty(
        slope,
        label="hard-concrete",
        # Near a fold the slope bends like a square root: pieces that shrink towards it resolve that.
        breaks=(*(cut * (1 - 0.2 * 0.5**k) for k in range(pieces)), cut),
        find_breaks=False,
        slope_at_zero=math.sqrt(2) * limit,
        curvature_limit=0.0 if end < 0 else None,
        noise=lambda w: np.full_like(w, 1e-13 * math.sqrt(2) * limit),
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
    Gal, Hron and Kendall (2017); effective penalty: derived in docs/theory.md, section 5.4.
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
