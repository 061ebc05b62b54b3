"""Whole units and filters: hard-concrete gates beside group penalties, error against what survives.

LeNet-300-100 loses inputs and hidden units (the columns of its three matrices, as in Louizos, Welling and Kingma,
2018); LeNet-5 loses filters of its convolutions and inputs of its linear layers. Adam, learning rate 1e-3 constant to
the freeze and a cosine to zero after it, all 60,000 training images.
"""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from obverse import Budget, Rule, Sparsifier
from obverse.training import build_model

from .harness import Part, density, error, matrices

BATCH, RATE, RAMP, HOLD = 128, 1e-3, 0.5, 0.1
EPOCHS = {"lenet-300-100": 40, "lenet-5": 20}
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
    inputs, labels = parts["train"]
    bfloat16 = network == "lenet-5"
    if bfloat16:
        model = model.to(memory_format=torch.channels_last)
        inputs = inputs.to(memory_format=torch.channels_last)
    per_epoch = len(labels) // BATCH
    steps = epochs * per_epoch
    optimizer = torch.optim.Adam(model.parameters(), lr=RATE)
    rules = [Rule(nn.Conv2d, groups="filters")] if network == "lenet-5" else []
    sparsifier = Sparsifier(
        model,
        optimizer,
        groups="inputs",
        budget=Budget(target, ramp=RAMP, hold=HOLD),
        total_steps=steps,
        rules=rules,
        examples=len(labels),
        **METHODS[method],
    )
    sparsifier.join()
    rates = [group["lr"] for group in optimizer.param_groups]
    freeze = round((RAMP + HOLD) * steps)
    generator = torch.Generator().manual_seed(seed)
    step = 0
    for _ in range(epochs):
        model.train()
        order = torch.randperm(len(labels), generator=generator)
        for batch in range(per_epoch):
            progress = max(0.0, (step - freeze) / (steps - freeze))
            for group, rate in zip(optimizer.param_groups, rates, strict=True):
                group["lr"] = rate * 0.5 * (1 + math.cos(math.pi * progress))
            index = order[batch * BATCH : (batch + 1) * BATCH]
            with torch.autocast("cpu", torch.bfloat16, enabled=bfloat16):
                scores = model(inputs[index])
            (F.cross_entropy(scores.float(), labels[index]) + sparsifier.penalty()).backward()
            optimizer.step()
            sparsifier.step()
            optimizer.zero_grad()
            step += 1
    sparsifier.finish()
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
