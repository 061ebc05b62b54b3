"""On a linear model every face reaches the stationary points of loss + strength * penalty."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from obverse import Sparsifier
from obverse.penalties import LogSum, Penalty, catalogue
from obverse.penalties import penalty as penalty_named

EXACT_ZEROS = sorted(name for name in catalogue() if penalty_named(name).slope_at_zero > 0)
# A strength at which each penalty empties some coefficients and keeps others.
STRENGTHS = {"l0": 0.02}
# At its default width, meant for networks, log-sum would have a dozen stationary points here.
SHAPES: dict[str, Penalty] = {"log-sum": LogSum(1.0)}


def penalty(name: str) -> Penalty:
    return SHAPES.get(name) or penalty_named(name)


def problem(seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """A regression with normalized columns (mean square 1), so that dropout is exactly its penalty."""
    generator = np.random.default_rng(seed)
    features = generator.standard_normal((200, 12))
    features /= np.sqrt((features**2).mean(0))
    weights = np.array([2.0, -1.5, 1.0, 0.7, 0.4, 0.2, 0, 0, 0, 0, 0, 0])
    response = features @ weights + 0.3 * generator.standard_normal(200)
    return torch.tensor(features), torch.tensor(response)[:, None]


def train(
    name: str, face: str, optimizer: str = "sgd", steps: int = 2500, rate: float = 0.1, seed: int = 0
) -> torch.Tensor:
    features, response = problem()
    model = nn.Linear(12, 1, bias=False, dtype=torch.float64)
    with torch.no_grad():
        model.weight.copy_(torch.linalg.lstsq(features, response).solution.T)
    build = {
        "sgd": lambda p: torch.optim.SGD(p, lr=rate),
        "momentum": lambda p: torch.optim.SGD(p, lr=rate / 5, momentum=0.8),
        "adam": lambda p: torch.optim.Adam(p, lr=rate / 10),
    }[optimizer]
    adjusted = build(model.parameters())
    sparsifier = Sparsifier(
        model,
        adjusted,
        penalty=penalty(name),
        face=face,
        strength=STRENGTHS.get(name, 0.1),
        total_steps=steps,
        seed=seed,
    )
    average = torch.zeros_like(model.weight)
    for step in range(steps):
        if optimizer == "adam":  # an adaptive method needs a falling rate to settle
            adjusted.param_groups[0]["lr"] = rate / 10 * (1 - step / steps)
        loss = ((model(features) - response) ** 2).mean() / 2 + sparsifier.penalty()
        loss.backward()
        adjusted.step()
        sparsifier.step()
        adjusted.zero_grad()
        if step >= steps // 2:
            average += model.weight.detach() / (steps - steps // 2)
    sparsifier.finish()
    return average[0] if face == "dropout" else model.weight.detach()[0].clone()


def slow_where_tabulated(names: Sequence[str]) -> list[Any]:
    """The names as parameters; those whose proximal operator is read off a table take long in so many single steps."""
    slow = ("variational-dropout", "hard-concrete", "empirical-bayes", "scad", "lp", "capped-l1")
    return [pytest.param(name, marks=pytest.mark.slow) if name in slow else name for name in names]


def violation(name: str, weights: torch.Tensor) -> float:
    """Largest violation of the first-order conditions of loss + strength * penalty."""
    features, response = problem()
    gradient = (features.T @ (features @ weights[:, None] - response))[:, 0] / len(response)
    shape, strength = penalty(name), STRENGTHS.get(name, 0.1)
    slope = strength * shape.slope(weights)
    on_support = (gradient + torch.sign(weights) * slope).abs()
    off_support = (gradient.abs() - strength * shape.slope_at_zero).clamp(min=0)
    return float(torch.where(weights != 0, on_support, off_support).max())


@pytest.mark.parametrize("name", slow_where_tabulated(EXACT_ZEROS))
def test_the_deterministic_faces_end_at_one_stationary_point(name: str) -> None:
    ends = [train(name, face) for face in ("proximal", "reweighted")]
    for weights in ends:
        assert violation(name, weights) < 1e-6
        assert 0 < int((weights == 0).sum()) < len(weights)
    torch.testing.assert_close(*ends, atol=1e-6, rtol=0)


# l0 drops nothing: its eta is infinite at every weight but zero, so its noise has no variance to learn from.
@pytest.mark.parametrize(
    "name",
    [pytest.param(n, marks=() if n == "log-sum" else pytest.mark.slow) for n in EXACT_ZEROS if n != "l0"],
)
def test_noise_agrees_within_its_error(name: str) -> None:
    expected = train(name, "proximal")
    runs = torch.stack([train(name, "dropout", seed=seed, rate=0.03, steps=2500) for seed in range(3)])
    error = runs.std(0) / math.sqrt(len(runs))
    assert float(((runs.mean(0) - expected).abs() / (6 * error + 0.02)).max()) < 1


@pytest.mark.parametrize("face", ["proximal", "reweighted"])
@pytest.mark.parametrize("optimizer", [pytest.param("momentum", marks=pytest.mark.slow), "adam"])
def test_the_stationary_point_does_not_depend_on_the_optimizer(face: str, optimizer: str) -> None:
    weights = train("log-sum", face, optimizer=optimizer)
    torch.testing.assert_close(weights, train("log-sum", "proximal"), atol=1e-5, rtol=0)
