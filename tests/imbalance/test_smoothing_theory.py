"""Adaptive strengths in one dimension: constants and exponents of exact smoothers, and two stages on drawn data."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.linalg import solveh_banded
from theory_example import theory

from obverse.imbalance import estimate_group_noise, strength_exponents

Array = NDArray[np.float64]


def test_the_sweep_is_the_inverse() -> None:
    generator = np.random.default_rng(0)
    cells, samples = 40, 100
    wanted, density, curvature, score = generator.uniform(0.5, 2.0, (4, cells))
    tau = generator.uniform(1e-4, 1e-1, (3, cells))
    found = theory.risk(wanted, density, curvature, score, tau, samples)
    step = np.diff(np.eye(cells), axis=0)
    for row, strengths in enumerate(tau):
        weight = density * curvature / cells
        rho = strengths * density * cells
        link = 2 / (1 / rho[1:] + 1 / rho[:-1])
        inverse = np.linalg.inv(np.diag(weight) + step.T @ np.diag(link) @ step)
        bias = inverse @ (weight * wanted) - wanted
        variance = inverse**2 @ (density * score / cells / samples)
        assert found[row] == pytest.approx(bias**2 + variance, rel=1e-9)


@pytest.mark.parametrize("samples", [20_000, 1_000_000])
def test_the_best_strength_is_that_of_the_theory(samples: int) -> None:
    region = theory.Region(1.0, 0.5)
    x = theory.centers()
    ones = np.ones_like(x)
    grid = np.linspace(-0.6, 0.6, 13)
    tau = theory.optimal_strength(region, samples) * np.exp(grid)[:, None] * ones
    risks = theory.risk(theory.target((region, region), x), ones, ones, 0.25 * ones, tau, samples).mean(1)
    assert np.exp(theory.best(grid, risks)[0]) == pytest.approx(1.0, abs=0.1)


@pytest.mark.parametrize("loss", ["squared", "cross-entropy"])
def test_exponents_of_half_an_interval(loss: str) -> None:
    a, b = strength_exponents(loss)
    _, fitted, ratio = theory.swept(loss)
    assert fitted == pytest.approx([a, -b], abs=0.03)
    assert ratio == pytest.approx(1.0, abs=0.1)


@pytest.mark.parametrize(("order", "dimension"), [(1, 1), (2, 1), (1, 2)])
def test_exponents_of_the_torus(order: int, dimension: int) -> None:
    a, b = strength_exponents(order=order, dimension=dimension)
    _, fitted = theory.torus(order, dimension)
    assert fitted == pytest.approx([a, -b], abs=0.03)


COEFFICIENTS = np.geomspace(1e-7, 1e-2, 11)
FOLDS = 5


def smooth(x: Array, y: Array, rho: Array) -> Array:
    """Values at sorted ``x`` of the piecewise linear f with least ``mean (y - f)^2 + int rho f'^2``."""
    links = (rho[1:] + rho[:-1]) / 2 / np.diff(x)
    diagonal = np.full(len(x), 1 / len(x))
    diagonal[1:] += links
    diagonal[:-1] += links
    return np.asarray(solveh_banded(np.stack([np.append(0.0, -links), diagonal]), y / len(x)))


def draw(
    case: tuple[object, object], rows: int, generator: np.random.Generator
) -> tuple[Array, Array, NDArray[np.bool_]]:
    first, second = case
    x = np.sort(
        np.where(
            generator.random(rows) < first.density / 2,  # type: ignore[attr-defined]
            generator.uniform(0.0, 0.5, rows),
            generator.uniform(0.5, 1.0, rows),
        )
    )
    right = x >= 0.5
    deviation = np.where(right, second.deviation, first.deviation)  # type: ignore[attr-defined]
    return x, theory.target(case, x) + deviation * generator.normal(size=rows), right


def two_stages(case: tuple[object, object], measure: str, seed: int, rows: int = 1500) -> tuple[float, float]:
    """Test error of the uniform strength and of estimated ones, each at the coefficient of its own cross-validation."""
    generator = np.random.default_rng(seed)
    x, y, right = draw(case, rows, generator)
    side = np.where(right, "right", "left")

    def rough_fit(train: NDArray[np.int64], held: NDArray[np.int64]) -> Array:
        # A uniform penalty far below the best one for the right half.
        flat = np.full(len(train), 1e-6)
        return np.interp(x[held], x[train], smooth(x[train], y[train], flat))

    if measure == "local-differences":
        noise = estimate_group_noise(None, y, side, data=x, measure="local-differences")
    else:
        noise = estimate_group_noise(rough_fit, y, side, measure="residual-variance", seed=seed)
    density = 2.0 * noise.counts[noise.members.numpy()] / rows
    grid = theory.centers(2000)
    fold = generator.permutation(rows) % FOLDS
    errors = []
    for strengths in (np.ones(rows), noise.strengths(normalize="mean")[noise.members].numpy()):
        held_out = np.zeros(len(COEFFICIENTS))
        for place, coefficient in enumerate(COEFFICIENTS):
            rho = coefficient * strengths * density
            squares = np.empty(rows)
            for number in range(FOLDS):
                train, held = fold != number, fold == number
                squares[held] = (np.interp(x[held], x[train], smooth(x[train], y[train], rho[train])) - y[held]) ** 2
            held_out[place] = squares[right].mean() + squares[~right].mean()
        chosen = COEFFICIENTS[held_out.argmin()]
        fitted = np.interp(grid, x, smooth(x, y, chosen * strengths * density))
        errors.append(float(((fitted - theory.target(case, grid)) ** 2).mean()))
    return errors[0], errors[1]


def ratio(name: str, measure: str, repetitions: int) -> float:
    errors = np.array([two_stages(theory.CASES[name], measure, seed) for seed in range(repetitions)])
    uniform, adaptive = errors.mean(0)
    return float(uniform / adaptive)


@pytest.mark.parametrize("measure", ["local-differences", "residual-variance"])
def test_two_stages_without_anything_given(measure: str) -> None:
    assert ratio("frequent and clean oscillates", measure, 12) > 1.7
    assert ratio("rare and noisy oscillates", measure, 12) > 0.95


@pytest.mark.slow
@pytest.mark.parametrize("measure", ["local-differences", "residual-variance"])
@pytest.mark.parametrize(
    ("name", "low", "high"),
    [
        ("frequent and clean oscillates", 2.2, 3.0),
        ("rare and noisy oscillates", 0.95, 1.05),
        ("rare and noisy", 1.03, 1.25),
        ("noisy only", 1.02, 1.25),
        ("rare only", 1.0, 1.25),
    ],
)
def test_two_stages_come_near_what_is_predicted(name: str, low: float, high: float, measure: str) -> None:
    assert low < ratio(name, measure, 100) < high
