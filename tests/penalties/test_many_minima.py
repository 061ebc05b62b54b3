"""Tabulated penalties whose objective has more minima than two: jumps, slow searches, and duals that end."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from obverse.duality import effective_penalty
from obverse.penalties import (
    CappedL1,
    ConcreteDropout,
    HardConcrete,
    Penalty,
    TabulatedPenalty,
    TargetedDropout,
    VariationalDropout,
)


def steps_rule(w: Any) -> Any:
    return np.where(w < 0.3, 0.2, np.where(w < 1, 0.5, 0.9 * w / (w + 0.1) + 0.05))


CASES = [
    VariationalDropout(),
    VariationalDropout(kl="fit"),
    HardConcrete(),
    HardConcrete(beta=0.4),
    ConcreteDropout(),
    effective_penalty(steps_rule),
    effective_penalty(lambda w: np.where(w < 1, 0.5, 1.0)),
]


def lowest(penalty: Penalty, z: np.ndarray, step: np.ndarray) -> np.ndarray:
    """The lowest objective on [0, z], by a fine grid refined around its best point."""
    fractions = np.sort(np.concatenate([[0.0], np.geomspace(1e-9, 1e-2, 200), np.linspace(0.01, 1, 1000)]))
    x = z[:, None] * fractions
    for _ in range(3):
        objective = x * (x / 2 - z[:, None]) + step[:, None] * penalty.value(x)
        best, rows = objective.argmin(1), np.arange(z.size)
        low, high = x[rows, np.maximum(best - 1, 0)], x[rows, np.minimum(best + 1, x.shape[1] - 1)]
        x = low[:, None] + (high - low)[:, None] * np.linspace(0, 1, 101)
    return objective.min(1)


@pytest.mark.parametrize("penalty", CASES, ids=repr)
def test_prox_of_an_array_of_steps_is_the_global_minimum(penalty: Penalty) -> None:
    rng = np.random.default_rng(0)
    n = 1500
    z, step = 10 ** rng.uniform(-3, 2, n), 10 ** rng.uniform(-3, 2, n)
    if penalty.slope_at_zero > 0:
        step[:500] = z[:500] / penalty.slope_at_zero * rng.uniform(0.97, 1.03, 500)
    limit = penalty.curvature_limit if 0 < penalty.curvature_limit < np.inf else 1.0
    step[500:1000], z[500:1000] = limit * rng.uniform(0.8, 1.5, 500), rng.uniform(0.3, 2, 500) * limit
    for x in (penalty.prox(z, step), penalty.prox(torch.tensor(z), torch.tensor(step)).numpy()):
        excess = x * (x / 2 - z) + step * penalty.value(x) - lowest(penalty, z, step)
        assert (excess <= 1e-8 * z * z).all()


@pytest.mark.parametrize("threshold", [1.0, 0.5, 0.75, 0.83, 0.3])
def test_a_jump_anywhere_is_exact_in_every_face(threshold: float) -> None:
    numeric, closed = effective_penalty(lambda w: np.where(w < threshold, 0.5, 1.0)), TargetedDropout(threshold)
    w = np.linspace(0, 3, 1001)
    assert numeric.curvature_limit == 0
    np.testing.assert_allclose(numeric.value(w), closed.value(w), atol=1e-14)
    np.testing.assert_allclose(numeric.prox(w, 0.7), closed.prox(w, 0.7), atol=1e-12)
    np.testing.assert_allclose(numeric.prox(w, np.full_like(w, 0.7)), closed.prox(w, 0.7), atol=1e-12)
    eta = np.concatenate([w, [10.0, 1e3, 1e20, np.inf]])
    np.testing.assert_allclose(numeric.dual(eta), closed.dual(eta), atol=1e-12)


def test_the_dual_of_a_flat_table_ends_at_twice_its_height() -> None:
    table = TabulatedPenalty(lambda w: np.where(w < 0.4, 1.0, 0.0), octaves=(-20, 3))
    eta = np.array([0.1, 0.4, 1.0, 7.0, 100.0, 1e9, np.inf])
    np.testing.assert_allclose(table.dual(eta), CappedL1(0.4).dual(eta), rtol=1e-8)
    assert (ConcreteDropout().dual(np.float32([0.1, 0.999, 1.0])) >= 0).all()


def test_a_slope_that_looks_at_other_weights_is_no_table() -> None:
    from obverse.errors import InvalidArgumentError

    rng = np.random.default_rng(0)
    for slope, reason in (
        (lambda w: w / w.max(), "looks at other weights"),
        (lambda w: 1 + rng.random(w.shape), "is random or keeps a state"),
        (lambda w: np.ones(3), "one number each"),
    ):
        with pytest.raises(InvalidArgumentError, match=reason):
            TabulatedPenalty(slope)
