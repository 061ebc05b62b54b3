"""Whole units and filters: hard-concrete gates beside group penalties, error against what survives.

LeNet-300-100 loses inputs and hidden units (the columns of its three matrices, as in Louizos, Welling and Kingma,
2018); LeNet-5 loses filters of its convolutions and inputs of its linear layers. Adam, learning rate 1e-3 constant to
the freeze and a cosine to zero after it, all 60,000 training images.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from obverse import Budget, Rule, Sparsifier
from obverse.training import build_model

from .harness import Part, constant_then_cosine, density, error, fit, matrices

BATCH, RATE, RAMP, HOLD = 128, 1e-3, 0.5, 0.1
EPOCHS = {"lenet-300-100": 20, "lenet-5": 10}
TARGETS = {"lenet-300-100": (0.8, 0.9, 0.95), "lenet-5": (0.9, 0.97, 0.99)}
METHODS: dict[str, dict[str, Any]] = {
    "hard-concrete gates": {"face": "hard-concrete"},
    "log-sum by groups": {"penalty": "log-sum", "face": "proximal"},
    "mcp by groups": {"penalty": "mcp", "face": "proximal"},
    "magnitude by groups": {"face": "magnitude"},
}


def train(network: str, method: str, target: float, seed: int, parts: dict[str, Part], epochs: int) -> dict[str, Any]:
    """One run; the numbers of surviving units are those of every matrix's groups."""
    torch.manual_seed(seed)
    model = build_model(network, (1, 28, 28), 10)
    examples = len(parts["train"][1])
    steps = epochs * (examples // BATCH)
    optimizer = torch.optim.Adam(model.parameters(), lr=RATE)
    budget = Budget(target, ramp=RAMP, hold=HOLD)
    # Filters and inputs each land on the target by themselves.
    rules = [Rule(nn.Conv2d, groups="filters", budget=budget)] if network == "lenet-5" else []
    sparsifier = Sparsifier(
        model,
        optimizer,
        groups="inputs",
        budget=budget,
        total_steps=steps,
        rules=rules,
        examples=examples,
        **METHODS[method],
    )
    sparsifier.join()
    fit(
        model,
        optimizer,
        parts["train"],
        sparsifier,
        epochs=epochs,
        batch=BATCH,
        seed=seed,
        rate=constant_then_cosine(RAMP + HOLD),
        bfloat16=network == "lenet-5",
    )
    alive = []
    for weight in matrices(model):
        axis = 0 if weight.ndim > 2 else 1
        others = [side for side in range(weight.ndim) if side != axis]
        alive.append(int((weight.detach().abs().sum(others) > 0).sum()))
    return {
        "method": method,
        "target": target,
        "seed": seed,
        "error": error(model, parts["test"]),
        "density": density(model),
        "alive": alive,
    }
