"""Global optima of deep linear networks with dropout: against many local searches, phases of the rank, blocks."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
import torch
from scipy.optimize import minimize

from obverse.dropout import Blocks, deep_linear
from obverse.dropout._norms import spectral_k_support_norm, spectral_k_support_prox


def searched(cross: np.ndarray, noise: Any, widths: list[int], covariance: np.ndarray, starts: int) -> float:
    """The least objective over networks that L-BFGS finds."""
    sizes = [cross.shape[1], *widths, cross.shape[0]]
    shapes = [(m, n) for n, m in itertools.pairwise(sizes)]
    counts = [m * n for m, n in shapes]
    moment, wanted = torch.from_numpy(covariance), torch.from_numpy(cross)

    def cost(flat: np.ndarray) -> tuple[float, np.ndarray]:
        parts = torch.from_numpy(flat).split(counts)
        weights = [part.reshape(shape) for part, shape in zip(parts, shapes, strict=True)]
        slopes = deep_linear.gradient(weights, noise, moment, wanted)
        value = deep_linear.objective(weights, noise, moment, wanted)
        return float(value), torch.cat([slope.ravel() for slope in slopes]).numpy()

    best = np.inf
    for seed in range(starts):
        flat = 0.8 * np.random.default_rng(seed).standard_normal(sum(counts))
        options = {"maxiter": 1500, "ftol": 1e-14, "gtol": 1e-8, "maxcor": 30}
        best = min(best, minimize(cost, flat, jac=True, method="L-BFGS-B", options=options).fun)
    return best


@pytest.mark.parametrize(
    ("widths", "keep"),
    [
        *(([5], 0.7), ([4, 4], 0.8), ([4, 4], 0.5), ([2], 0.7)),
        pytest.param([4, 6], [0.9, 0.6], marks=pytest.mark.slow),
    ],
)
def test_no_search_beats_the_optimum_and_the_best_reaches_it(widths: list[int], keep: Any) -> None:
    rng = np.random.default_rng(len(widths))
    root = rng.standard_normal((4, 4))
    covariance = root @ root.T / 4 + 0.1 * np.eye(4)
    cross = rng.standard_normal((3, 4)) @ covariance
    found = deep_linear.global_optimum(covariance, cross, keep_probability=keep, widths=widths)
    best = searched(cross, keep, widths, covariance, 8 if len(set(widths)) > 1 else 3)
    assert best == pytest.approx(found.value, rel=1e-6, abs=1e-8)
    assert best >= found.value * (1 - 1e-9)
    reached = deep_linear.objective(found.weights, keep, covariance, cross)
    assert reached == pytest.approx(found.value, rel=1e-8, abs=1e-9)
    assert found.relaxation_value <= found.value * (1 + 1e-9) + 1e-12
    for slope in deep_linear.gradient(found.weights, keep, covariance, cross):
        assert np.abs(slope).max() < 1e-6


# Depth, keep probabilities at which rank 3 becomes 2 and 2 becomes 1, the same for the convex relaxation, and the
# singular values above and below the last step: targets (3, 2, 1), widths 4.
PHASES = [
    (1, (0.4286, 0.1111), (0.4286, 0.1111), None, None),
    (2, (0.7415, 0.4319), (0.6177, 0.2546), (1.469, 0.345), 1.699),
    (3, (0.8278, 0.5752), (0.7130, 0.3611), (1.527, 0.416), 1.805),
]


@pytest.mark.parametrize(("depth", "steps", "relaxed", "above", "below"), PHASES)
def test_phases_of_the_rank(depth: int, steps: Any, relaxed: Any, above: Any, below: Any) -> None:
    found = deep_linear.phases([3.0, 2.0, 1.0], depth, 4)
    assert [(phase.rank_above, phase.rank_below) for phase in found[:2]] == [(3, 2), (2, 1)]
    assert [phase.keep_probability for phase in found[:2]] == pytest.approx(steps, abs=6e-5)
    assert [phase.relaxed_keep_probability for phase in found[:2]] == pytest.approx(relaxed, abs=6e-5)
    assert found[1].continuous == (depth == 1)
    if above is not None:
        assert found[1].singular_values_above[:2] == pytest.approx(above, abs=2e-3)
        assert found[1].singular_values_below[0] == pytest.approx(below, abs=2e-3)
        assert found[1].singular_values_below[1:] == pytest.approx(0.0, abs=1e-12)
    for step in steps:
        ranks = deep_linear.predicted_ranks([3.0, 2.0, 1.0], [step + 2e-4, step - 2e-4], depth, 4)
        assert ranks[0] == ranks[1] + 1


def test_a_rank_deficient_local_minimum_is_not_the_answer() -> None:
    # Targets (1, 1), lam = 0.02, two dropped layers: a local minimum at 1.0099 beside the global one at 0.0394.
    found = deep_linear.global_optimum(None, np.eye(2), keep_probability=1 / 1.02, widths=[4, 4])
    assert found.value == pytest.approx(0.0394, abs=5e-5)
    assert found.rank == 2


def test_blocks_reach_their_envelope_with_four_and_not_with_two() -> None:
    # Singular values so even that no direction fills a block: two blocks cannot share three directions evenly.
    target = np.diag([1.0, 0.95, 0.9])
    gaps = {}
    for blocks in (2, 4):
        found = deep_linear.global_optimum(None, target, keep_probability=Blocks(0.8, 2), widths=2 * blocks)
        best = searched(target, [Blocks(0.8, 2)], [2 * blocks], np.eye(3), 4)
        assert best >= found.value - 1e-8
        gaps[blocks] = best / found.value - 1
        assert found.attained == (gaps[blocks] < 1e-7)
        assert found.gap == pytest.approx(best - found.value, rel=1e-3, abs=1e-7)
    assert gaps[4] < 1e-7
    assert gaps[2] > 1e-5


def test_one_layer_is_the_proximal_operator_of_the_squared_norm() -> None:
    target = np.random.default_rng(1).standard_normal((4, 5))
    for width, block in ((8, 1), (12, 2)):
        keep = 0.6
        strength = (1 - keep) / keep / (width // block)
        found = deep_linear.global_optimum(None, target, keep_probability=keep, widths=width, block_size=block)
        product = spectral_k_support_prox(target, block, strength)
        value = ((product - target) ** 2).sum() + strength * spectral_k_support_norm(product, block) ** 2
        assert found.value == pytest.approx(value, rel=1e-9)
        np.testing.assert_allclose(np.linalg.multi_dot(found.weights[::-1]), product, atol=1e-7)
