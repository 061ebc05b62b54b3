"""Hard-concrete gates of every temperature and stretch against the minimum over gates, by other quadrature."""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from scipy.special import expit

from obverse.penalties import HardConcrete

Floats = npt.NDArray[np.float64]

BETAS = (0.1, 1 / 3, 0.5, 0.66, 1.0, 2.0)
GAMMAS = (-0.01, -0.1, -0.2, -1.0, -5.0)
ZETAS = (1.01, 1.1, 1.2, 2.0)
W = np.linspace(0.05, 1.5, 30)
# All 120 settings take minutes, because every one is a table of its own.
QUICK = ((-0.1, 1.1), (-0.2, 1.2), (-5.0, 1.01))
STRETCHES = [
    pytest.param(gamma, zeta, marks=() if (gamma, zeta) in QUICK else pytest.mark.slow)
    for gamma, zeta in itertools.product(GAMMAS, ZETAS)
]


class Reference:
    """nu and P(s != 0) by Gauss quadrature over the gate itself, with nodes that crowd at both ends."""

    def __init__(self, beta: float, gamma: float, zeta: float) -> None:
        nodes, weights = np.polynomial.legendre.leggauss(300)
        angle = (nodes + 1) * np.pi / 4
        self.t, self.dt = np.sin(angle) ** 2, weights * np.pi / 4 * np.sin(2 * angle)
        self.offset = beta * np.log((self.t - gamma) / (zeta - self.t))
        self.at_zero = beta * math.log(-gamma / zeta)

    def __call__(self, log_a: Any) -> tuple[Floats, Floats]:
        alive, lost = (expit(sign * (np.asarray(log_a)[..., None] - self.offset)) for sign in (1, -1))
        mean = alive @ self.dt
        closed = 2 * (alive @ (self.t * self.dt)) - mean**2
        variance = np.where(
            mean < 0.5, closed, 2 * (lost @ self.dt) - (lost @ (2 * self.t * self.dt)) - (1 - mean) ** 2
        )
        return variance / mean**2, expit(np.asarray(log_a) - self.at_zero)

    def value(self, w: Floats) -> Floats:
        """The minimum over gates, on a grid refined twice around its best point; 1 is the gate that is left open."""
        log_a = np.tile(np.linspace(self.offset.min() - 12, self.offset.max() + 14, 601), (1, 1))
        for _ in range(3):
            nu, nonzero = self(log_a)
            objective = nu * w[:, None] ** 2 / 2 + nonzero
            best, rows = objective.argmin(1), np.arange(w.size)
            grid = np.broadcast_to(log_a, objective.shape)
            low, high = grid[rows, np.maximum(best - 1, 0)], grid[rows, np.minimum(best + 1, grid.shape[1] - 1)]
            log_a = low[:, None] + (high - low)[:, None] * np.linspace(0, 1, 21)
        return np.minimum(objective.min(1), 1.0)


@pytest.mark.parametrize(("gamma", "zeta"), STRETCHES)
def test_value_is_the_minimum_over_gates_for_every_legal_constant(gamma: float, zeta: float) -> None:
    for beta in BETAS:
        p, reference = HardConcrete(1.0, beta=beta, gamma=gamma, zeta=zeta), Reference(beta, gamma, zeta)
        w = W[::3]
        np.testing.assert_allclose(p.value(w), reference.value(w), rtol=2e-7, err_msg=repr(p))


@pytest.mark.parametrize(("gamma", "zeta"), STRETCHES)
def test_every_face_fits_the_value_for_every_legal_constant(gamma: float, zeta: float) -> None:
    for beta in BETAS:
        p = HardConcrete(0.5, beta=beta, gamma=gamma, zeta=zeta)
        h = 1e-6
        slope, numeric = np.asarray(p.slope(W)), (p.value(W + h) - p.value(W - h)) / (2 * h)
        away = np.abs(np.asarray(p.slope(W + h)) - p.slope(W - h)) < 1e-2
        np.testing.assert_allclose(slope[away], numeric[away], rtol=1e-5, atol=1e-7, err_msg=repr(p))
        assert p.slope_at_zero == pytest.approx(float(p.value(1e-9)) / 1e-9, rel=1e-6)
        keep = np.asarray(p.keep_probability(W, 0.3))
        assert (np.diff(keep) >= -1e-12).all()
        np.testing.assert_allclose(keep, 1 / (1 + 0.3 * slope / W), rtol=1e-9)
        assert p.value(100.0) == pytest.approx(0.5, rel=1e-6)
        for step in (0.05, 0.4, 1.5):
            x = np.asarray(p.prox(W, np.full_like(W, step)))
            rivals = np.linspace(0, 1, 2001)[:, None] * W
            lowest = (rivals * (rivals / 2 - W) + step * np.asarray(p.value(rivals))).min(0)
            assert (x * (x / 2 - W) + step * np.asarray(p.value(x)) <= lowest + 1e-9).all(), (p, step)


def test_the_transition_from_a_jump_to_a_smooth_plateau() -> None:
    p = HardConcrete(0.5, beta=0.5, gamma=-0.2, zeta=1.2)
    assert float(p.value(np.array([0.1]))[0]) == pytest.approx(0.12015, abs=1e-5)
    assert p.curvature_limit > 0.1
    assert HardConcrete().curvature_limit == 0
    # Without a temperature the gate is a coin: Omega(w) = sqrt(2) w - w^2 / 2 up to sqrt(2).
    coin = HardConcrete(1.0, beta=0.001, gamma=-1e6, zeta=1e6)
    w = np.linspace(0, 2, 41)
    bounded = np.minimum(w, math.sqrt(2))
    np.testing.assert_allclose(coin.value(w), math.sqrt(2) * bounded - bounded**2 / 2, rtol=1e-3)
