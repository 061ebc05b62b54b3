"""The proximal operator against brute force, and what hangs on it."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from penalties_cases import EVERY, objective

from obverse.errors import InvalidArgumentError
from obverse.penalties import LogSum, Penalty

GRID = np.linspace(0, 1, 2001)


def brute_force(penalty: Penalty, z: np.ndarray, step: np.ndarray) -> np.ndarray:
    """The lowest objective on [0, z]: a fine grid, refined twice around its best point."""
    low, high = np.zeros_like(z), z
    for _ in range(3):
        x = low[:, None] + (high - low)[:, None] * GRID
        values = objective(penalty, x, z[:, None], step[:, None])
        best = np.argmin(values, axis=1)
        rows = np.arange(len(z))
        low, high = x[rows, np.maximum(best - 1, 0)], x[rows, np.minimum(best + 1, len(GRID) - 1)]
    return values[rows, best]


def cases(penalty: Penalty, size: int = 60) -> tuple[np.ndarray, np.ndarray]:
    """Points and steps on both sides of every threshold."""
    rng = np.random.default_rng(0)
    z, step = rng.exponential(2.0, size), rng.exponential(1.5, size) ** 2
    z[:2], step[1:4] = 0.0, 0.0
    at_zero = penalty.slope_at_zero
    if 0 < at_zero < math.inf:
        step[5:20] = z[5:20] / at_zero * rng.uniform(0.9, 1.1, 15)
    return z, step


def test_prox_is_the_global_minimum(every: Penalty) -> None:
    z, step = cases(every)
    x = every.prox(z, step)
    assert ((x >= 0) & (x <= z * (1 + 1e-14))).all()
    excess = objective(every, x, z, step) - brute_force(every, z, step)
    assert (excess <= 1e-9 * (1 + z * z)).all()
    np.testing.assert_array_equal(x[1:4], z[1:4])


def test_scalar_and_array_steps_agree(every: Penalty) -> None:
    z, steps = cases(every)
    for step in steps[:12].tolist():
        scalar = every.prox(z, step)
        np.testing.assert_allclose(every.prox(z, np.full_like(z, step)), scalar, rtol=1e-9, atol=1e-11)
    column = every.prox(z, steps[:7, None])
    assert column.shape == (7, len(z))
    np.testing.assert_allclose(column[5], every.prox(z, float(steps[5])), rtol=1e-9, atol=1e-11)


def test_large_arrays_equal_small_ones(every: Penalty) -> None:
    z, step = cases(every)
    many = np.resize(z, 40_003)
    np.testing.assert_array_equal(
        every.prox(many, np.resize(step, many.shape))[-7:], np.resize(every.prox(z, step), many.shape)[-7:]
    )


def test_shrinkage_is_the_keep_probability(every: Penalty) -> None:
    z, _ = cases(every)
    x = every.prox(z, 1.0)
    kept = x > 1e-6
    np.testing.assert_allclose(x[kept] / z[kept], every.keep_probability(x, 1.0)[kept], rtol=2e-6)
    assert kept.any()


def test_prox_is_odd_and_monotone(every: Penalty) -> None:
    z = np.linspace(-6, 6, 601)
    for step in (0.05, 0.8, 9.0):
        x = every.prox(z, step)
        np.testing.assert_array_equal(every.prox(-z, step), -x)
        assert (np.diff(x) >= -1e-9).all()


def test_zeroing_step_is_where_the_prox_becomes_zero(every: Penalty) -> None:
    z = np.geomspace(1e-3, 20, 60)
    step = every.zeroing_step(z)
    assert every.zeroing_step(0.0) == 0
    if every.slope_at_zero == 0:
        assert np.isinf(step).all()
        assert (every.prox(z[z > 0.1], 3.0) > 0).all()
        return
    assert (every.prox(z, step * (1 + 1e-5)) == 0).all()
    assert (every.prox(z, step * (1 - 1e-5)) > 0).all()
    assert (np.diff(step) > 0).all()


def test_zeroing_step_of_a_whole_layer(every: Penalty) -> None:
    z = np.random.default_rng(1).standard_normal(40_000)
    z[0] = 0.0
    step = every.zeroing_step(z)
    few = every.zeroing_step(z[:50])
    np.testing.assert_allclose(step[:50], few, rtol=1e-6)


def test_curvature_limit_divides_continuous_from_jumping(every: Penalty) -> None:
    z = np.linspace(0, 12, 100_001)
    limit = every.curvature_limit
    if limit == math.inf:
        return
    if limit > 0:
        below = every.prox(z, 0.9 * limit)
        assert np.diff(below).max() < 0.02
    above = every.prox(z, 1.3 * limit if limit > 0 else 0.3)
    assert np.diff(above).max() > 0.02


def test_prox_near_its_threshold_keeps_its_digits() -> None:
    # At the curvature limit the root vanishes like a square root, where a naive discriminant loses its
    # digits.
    gap = np.geomspace(1e-6, 1e-2, 20)
    exact = (gap + np.sqrt(gap * (4 + gap))) / 2
    np.testing.assert_allclose(LogSum(1.0).prox(1 + gap, 1.0), exact, rtol=1e-9)
    single = (np.float32(1) + gap.astype(np.float32)) - np.float32(1)
    exact = (single + np.sqrt(single.astype(float) * (4 + single))) / 2
    np.testing.assert_allclose(LogSum(1.0).prox(np.float32(1) + gap.astype(np.float32), 1.0), exact, rtol=2e-3)


@settings(max_examples=80, deadline=None)
@given(st.sampled_from(EVERY), st.floats(-1e4, 1e4), st.floats(0, 1e4))
def test_no_point_beats_the_prox(penalty: Penalty, z: float, step: float) -> None:
    x = abs(float(penalty.prox(z, step)))
    rivals = abs(z) * np.concatenate([GRID, np.geomspace(1e-9, 1, 200)])
    reached = float(objective(penalty, np.float64(x), abs(z), step))
    assert reached <= objective(penalty, rivals, abs(z), step).min() + 1e-9 * (1 + z * z)


def test_bad_steps_are_refused(every: Penalty) -> None:
    with pytest.raises(InvalidArgumentError, match="at least 0"):
        every.prox(1.0, -0.1)
    with pytest.raises(InvalidArgumentError, match="at least 0"):
        every.prox(1.0, math.nan)
    with pytest.raises(InvalidArgumentError, match="finite"):
        every.prox(1.0, math.inf)
    with pytest.raises(InvalidArgumentError, match="one library"):
        every.prox(torch.ones(2), np.ones(2))
    with pytest.raises(InvalidArgumentError, match="strength"):
        every.keep_probability(1.0, -1.0)
