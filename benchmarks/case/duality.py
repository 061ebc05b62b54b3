"""The duality in a network: strategies and their penalties, each over a range of strengths, error against density.

LeNet-300-100 on MNIST, Adam with learning rate 1e-3 falling linearly to zero, stated strengths, no budget and no
fine-tune, so that every point is what the regularizer itself ends with. A strategy and its penalty are one regularizer
when their points lie on one curve; how the strength is scaled does not matter for that.
"""

from __future__ import annotations

from typing import Any

import torch

from obverse import Sparsifier
from obverse.penalties import HardConcrete, LogSum, VariationalDropout
from obverse.sparsify import VariationalNoise
from obverse.training import build_model

from .harness import Part, density, error, fit

BATCH, RATE, EPOCHS = 128, 1e-3, 20
FACTORS = (0.25, 1.0, 4.0, 16.0)


def strategies(examples: int) -> dict[str, Any]:
    """Name to the arguments of a Sparsifier at a factor of the strength that belongs to so many examples."""
    one = 1 / examples

    def variational(factor: float) -> dict[str, Any]:
        return {"face": VariationalNoise(warmup=(0, 2000)), "strength": factor * one}

    def its_penalty(factor: float) -> dict[str, Any]:
        strength = factor * one
        return {"penalty": VariationalDropout(scale=strength**-0.5), "strength": strength}

    def gates(factor: float) -> dict[str, Any]:
        return {"face": "hard-concrete", "strength": factor * one}

    def their_penalty(factor: float) -> dict[str, Any]:
        return {"penalty": HardConcrete(cost=factor * one), "strength": 1.0}

    def log_sum(face: str) -> Any:
        return lambda factor: {"penalty": LogSum(2 * one**0.5), "face": face, "strength": 2 * factor * one}

    return {
        "variational dropout": variational,
        "its penalty, proximal": its_penalty,
        "hard-concrete gates": gates,
        "their penalty, proximal": their_penalty,
        "log-sum, learned eta": log_sum("learned-eta"),
        "log-sum, reweighted": log_sum("reweighted"),
        "log-sum, proximal": log_sum("proximal"),
        "log-sum, dropout": log_sum("dropout"),
    }


def train(name: str, factor: float, seed: int, parts: dict[str, Part], epochs: int) -> dict[str, Any]:
    """One point."""
    torch.manual_seed(seed)
    model = build_model("lenet-300-100", (1, 28, 28), 10)
    optimizer = torch.optim.Adam(model.parameters(), lr=RATE)
    examples = len(parts["train"][1])
    arguments = strategies(examples)[name](factor)
    sparsifier = Sparsifier(model, optimizer, total_steps=epochs * (examples // BATCH), **arguments)
    sparsifier.join()
    fit(
        model,
        optimizer,
        parts["train"],
        sparsifier,
        epochs=epochs,
        batch=BATCH,
        seed=seed,
        rate=lambda progress: max(1e-3, 1 - progress),
    )
    return {
        "method": name,
        "target": factor,
        "seed": seed,
        "error": error(model, parts["test"]),
        "density": density(model),
    }
