"""Error against size on MNIST: the proximal face beside dense, small-from-scratch, random and gradual magnitude.

All methods share the network and its initialization, the batches, the optimizer, the learning-rate schedule (constant
to the freeze, then a cosine to zero), the ramp and the number of epochs. Two have recipes of their own: the small
network a learning rate at which it trains, and on LeNet-5, where magnitudes suffer from AdamW, gradual magnitude runs
with SGD as well. Training sees all 60,000 images; the test set is evaluated once, after the last epoch. Settings were
chosen on held-out training images (``--validation``).
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import Any

import torch
from torch import nn

from obverse import Budget, Sparsifier
from obverse.penalties import LogSum
from obverse.training import build_model
from obverse.training._width import matching_width

from .baselines import Magnitude, Random
from .harness import Part, constant_then_cosine, density, error, fit, matrices

METHODS = ("dense", "small", "random", "magnitude", "magnitude with SGD", "obverse")
SHAPE, CLASSES = (1, 28, 28), 10


@dataclass(frozen=True)
class Recipe:
    """An optimizer: SGD with Nesterov momentum 0.9, or AdamW."""

    optimizer: str
    rate: float
    weight_decay: float

    def build(self, model: nn.Module) -> torch.optim.Optimizer:
        common: dict[str, Any] = {"lr": self.rate, "weight_decay": self.weight_decay}
        if self.optimizer == "sgd":
            return torch.optim.SGD(model.parameters(), momentum=0.9, nesterov=True, **common)
        return torch.optim.AdamW(model.parameters(), **common)


@dataclass(frozen=True)
class Settings:
    """What all methods on one network share, and the recipes of those that have their own."""

    network: str
    epochs: int
    recipe: Recipe
    own: dict[str, Recipe]
    targets: tuple[float, ...]
    batch: int = 128
    ramp: float = 0.6
    hold: float = 0.1
    every: int = 10
    bfloat16: bool = False

    @property
    def methods(self) -> list[str]:
        return [method for method in METHODS if method != "magnitude with SGD" or method in self.own]

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


STUDIES = {
    "lenet-300-100": Settings(
        "lenet-300-100",
        100,
        Recipe("sgd", 0.1, 1e-4),
        {"small": Recipe("sgd", 0.03, 1e-4)},
        (0.95, 0.99, 0.995),
    ),
    "lenet-5": Settings(
        "lenet-5",
        20,
        Recipe("adamw", 3e-3, 0.1),
        {"magnitude with SGD": Recipe("sgd", 0.02, 1e-4)},
        (1 - 1 / 280, 1 - 1 / 500),
        bfloat16=True,
    ),
}
STUDIES["lenet-5, longer"] = replace(STUDIES["lenet-5"], epochs=60)


def train(
    settings: Settings, method: str, target: float, seed: int, parts: dict[str, Part], **options: Any
) -> dict[str, Any]:
    """One run; ``options`` reach the Sparsifier."""
    torch.manual_seed(seed)
    steps = settings.epochs * (len(parts["train"][1]) // settings.batch)
    width = 1.0
    if method == "small":
        total = sum(w.numel() for w in matrices(build_model(settings.network, SHAPE, CLASSES)))
        width = matching_width(settings.network, SHAPE, CLASSES, total * (1 - target), 1.0)
        torch.manual_seed(seed)
    model = build_model(settings.network, SHAPE, CLASSES, width)
    optimizer = settings.own.get(method, settings.recipe).build(model)
    pruner = _pruner(settings, method, target, seed, model, optimizer, steps, options)
    fit(
        model,
        optimizer,
        parts["train"],
        pruner,
        epochs=settings.epochs,
        batch=settings.batch,
        seed=seed,
        rate=constant_then_cosine(settings.ramp + settings.hold),
        bfloat16=settings.bfloat16,
    )
    weights = matrices(model)
    alive = sum(int((w != 0).sum()) for w in weights)
    full = sum(w.numel() for w in matrices(build_model(settings.network, SHAPE, CLASSES)))
    return {
        "method": method,
        "target": target,
        "seed": seed,
        "error": error(model, parts["test"]),
        "density": density(model),
        "weights": alive,
        "kept": alive / full,
        "layers": [float((w != 0).float().mean()) for w in weights],
        "width": width,
    }


def _pruner(
    settings: Settings,
    method: str,
    target: float,
    seed: int,
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    steps: int,
    options: dict[str, Any],
) -> Any:
    if method.startswith("magnitude"):
        return Magnitude(model, target, steps, settings.ramp, settings.hold, settings.every)
    if method == "random":
        return Random(model, target, seed)
    if method == "obverse":
        budget = Budget(target, ramp=settings.ramp, hold=settings.hold, pressure=options.pop("pressure", 0.1))
        arguments: dict[str, Any] = {"penalty": LogSum(0.1), "every": settings.every, **options}
        return Sparsifier(model, optimizer, budget=budget, total_steps=steps, **arguments)
    return None
