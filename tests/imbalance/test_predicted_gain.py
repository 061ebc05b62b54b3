"""The predicted gain: against exact risks in five cases, the inequality behind it, its invariances, bad input."""

from __future__ import annotations

import json
import math
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import minimize
from theory_example import theory

from obverse.errors import InvalidArgumentError
from obverse.imbalance import estimate_group_noise, group_strengths, predicted_gain, strength_exponents

LOSSES = ["cross-entropy", "poisson-nll", "squared", "gaussian-nll", "absolute"]
positive = st.floats(1e-3, 1e3)
rows = st.lists(st.tuples(positive, positive, positive, st.floats(0.1, 1.0)), min_size=2, max_size=5)


@pytest.mark.parametrize("name", theory.CASES)
def test_within_a_tenth_of_the_exact_ratio(name: str) -> None:
    case = theory.CASES[name]
    exact, predicted = theory.exact_gains(case), theory.predicted_gains(case)
    assert predicted == pytest.approx(exact, rel=0.1)
    oscillates = {"frequent and clean oscillates": (2.5, 4.5), "rare and noisy oscillates": (0.98, 1.02)}
    low, high = oscillates.get(name, (1.05, 1.2))
    assert low < exact["with curvature"] < high


@given(rows, st.sampled_from(LOSSES), st.integers(1, 2), st.integers(1, 3))
def test_the_best_strengths_gain_and_nothing_gains_more(
    values: list[tuple[float, float, float, float]], loss: str, order: int, dimension: int
) -> None:
    noise, density, curvature, weights = (np.array(column) for column in zip(*values, strict=True))
    found = predicted_gain(
        noise, density, curvature=curvature, weights=weights, loss=loss, order=order, dimension=dimension
    )
    assert found.best >= 1 - 1e-9
    tolerance = 1 + 1e-9
    for other in (found.density_only, found.noise_only, found.adaptive, found.of(np.ones(len(noise)))):
        assert other <= found.best * tolerance
    assert found.of(np.maximum(found.strengths, 1e-300)) == pytest.approx(found.best)
    flat = predicted_gain(noise, density, weights=weights, loss=loss, order=order, dimension=dimension)
    assert flat.adaptive == pytest.approx(flat.best)
    a, b = strength_exponents(loss, order=order, dimension=dimension)
    rule = group_strengths(noise, density, (a, b), smoothing=0).numpy()
    assert flat.strengths == pytest.approx(rule, rel=1e-6)
    assert found.of(rule) == pytest.approx(found.adaptive)
    assert found.of(7.0 * rule) == pytest.approx(found.adaptive)
    scaled = predicted_gain(noise, 9 * density, curvature=4 * curvature, weights=2 * weights, loss=loss, order=order,
                            dimension=dimension)  # fmt: skip
    assert scaled.best == pytest.approx(found.best)


def test_against_brute_force_over_the_strengths() -> None:
    noise, density, curvature = np.array([0.2, 0.05, 0.4]), np.array([0.1, 0.8, 0.1]), np.array([1.0, 50.0, 3.0])

    def error(logarithms: np.ndarray) -> float:
        tau = np.exp(logarithms)
        # Cross-entropy: H = S = noise; the bias is tau / H, the variance by the kernel of bandwidth sqrt(tau / H).
        return float((curvature * (tau / noise) ** 2 + 1e-3 / (density * noise) * (tau / noise) ** -0.5).sum())

    uniform = min(error(np.full(3, value)) for value in np.linspace(-12, 2, 20_001))
    best = minimize(error, np.full(3, -5.0), method="Nelder-Mead", options={"xatol": 1e-9, "fatol": 1e-14})
    found = predicted_gain(noise, density, curvature=curvature)
    assert found.best == pytest.approx(uniform / best.fun, rel=1e-5)
    assert found.strengths == pytest.approx(np.exp(best.x - best.x.max()), rel=1e-3)


def test_of_measured_noise() -> None:
    generator = np.random.default_rng(0)
    side = np.where(np.arange(1000) < 900, "left", "right")
    x = np.where(side == "left", 0.0, 0.5) + generator.uniform(0, 0.5, 1000)
    y = generator.normal(size=1000) * np.where(side == "left", 0.1, 1.0)
    noise = estimate_group_noise(None, y, side, data=x, measure="local-differences")
    found = predicted_gain(noise)
    assert found.adaptive == pytest.approx(predicted_gain([0.01, 1.0], [0.9, 0.1], loss="squared").adaptive, rel=0.02)
    assert found.strengths == pytest.approx(noise.strengths().tolist())
    nobody_wrong = estimate_group_noise(lambda train, held: held % 2, [0, 1] * 20)
    assert predicted_gain(nobody_wrong).best == pytest.approx(1.0)
    assert predicted_gain(nobody_wrong, [9, 1]).best > 1.0
    assert set(json.loads(json.dumps(found.to_dict()))) == {
        "density_only", "noise_only", "adaptive", "best", "strengths",
    }  # fmt: skip
    assert len(str(found).splitlines()) == 4


def test_huge_ratios_stay_finite() -> None:
    found = predicted_gain([1e-12, 1.0], [1e9, 1.0], curvature=[1e12, 1.0], loss="squared", order=2, dimension=7)
    assert math.isfinite(found.best)
    assert found.best > 10


@pytest.mark.parametrize(
    "call",
    [
        lambda: predicted_gain([0.1, 0.2]),
        lambda: predicted_gain([0.1, 0.2], [1.0]),
        lambda: predicted_gain([0.0, 0.2], [1.0, 1.0]),
        lambda: predicted_gain([0.1, 0.2], [-1.0, 1.0]),
        lambda: predicted_gain([0.1, 0.2], [1.0, 1.0], curvature=[1.0]),
        lambda: predicted_gain([0.1, 0.2], [1.0, 1.0], weights=[0.0, 1.0]),
        lambda: predicted_gain([0.1, 0.2], [1.0, 1.0], loss="hinge"),
        lambda: predicted_gain([0.1, 0.2], [1.0, 1.0], dimension=4.0),
        lambda: predicted_gain([0.1, 0.2], [1.0, 1.0]).of([1.0]),
        lambda: predicted_gain([0.1, 0.2], [1.0, 1.0]).of([1.0, 0.0]),
    ],
)
def test_bad_gain_input(call: Callable[[], object]) -> None:
    with pytest.raises(InvalidArgumentError):
        call()


def test_gains_of_extreme_strengths_are_numbers_or_refused() -> None:
    found = predicted_gain([0.1, 0.1], [1.0, 1.0])
    assert found.of([1e-300, 1e300]) == pytest.approx(2e-240)
    flat = predicted_gain([0.1, 0.1], [1.0, 1.0], order=5, dimension=19.0)
    with pytest.raises(InvalidArgumentError, match="beyond the range of floats"):
        flat.of([1e-300, 1e300])
