"""ResNet-20 on CIFAR-10 at 90 % and 95 % sparsity: the proximal face beside gradual magnitude, in the same epochs.

SGD with momentum 0.9, learning rate 0.1, constant to the freeze and a cosine to zero after it, weight decay 5e-4,
random flips and shifts by up to 4 pixels, bfloat16 arithmetic with channels last. The test set is evaluated once, at
the end.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F

from obverse import Budget, Sparsifier
from obverse.penalties import LogSum
from obverse.training import build_model, read_source

from .baselines import Magnitude
from .harness import Part, constant_then_cosine, density, error, fit, matrices, shared_data

BATCH, RATE, MOMENTUM, DECAY = 128, 0.1, 0.9, 5e-4
RAMP, HOLD, EVERY = 0.6, 0.1, 10
EPOCHS = 4
TARGETS = (0.9, 0.95)
METHODS = ("dense", "magnitude", "obverse")


def data() -> dict[str, Part]:
    """Images normalized per channel, channels last."""
    source = read_source(shared_data("cifar10"))
    assert source.test is not None
    mean = torch.tensor([0.4914, 0.4822, 0.4465]).reshape(3, 1, 1)
    spread = torch.tensor([0.2470, 0.2435, 0.2616]).reshape(3, 1, 1)
    return {
        name: (
            ((part.inputs / 255 - mean) / spread).to(memory_format=torch.channels_last),
            part.labels,
        )
        for name, part in (("train", source.train), ("test", source.test))
    }


def augmented(images: torch.Tensor, generator: torch.Generator, reach: int = 4) -> torch.Tensor:
    """Each image shifted by up to ``reach`` pixels, with zeros beyond its edge, and flipped half of the time."""
    count, _, height, width = images.shape
    padded = F.pad(images, (reach,) * 4)
    down = torch.randint(0, 2 * reach + 1, (count, 1), generator=generator) + torch.arange(height)
    right = torch.randint(0, 2 * reach + 1, (count, 1), generator=generator) + torch.arange(width)
    flipped = torch.rand(count, 1, generator=generator) < 0.5
    right = torch.where(flipped, right.flip(1), right)
    rows = torch.arange(count)[:, None, None]
    rows, down, right = (places.to(images.device) for places in (rows, down, right))
    moved = padded.permute(0, 2, 3, 1)[rows, down[:, :, None], right[:, None, :]]
    return moved.permute(0, 3, 1, 2)


def train(method: str, target: float, seed: int, parts: dict[str, Part], epochs: int) -> dict[str, Any]:
    """One run."""
    torch.manual_seed(seed)
    model = build_model("resnet20", (3, 32, 32), 10)
    steps = epochs * (len(parts["train"][1]) // BATCH)
    optimizer = torch.optim.SGD(model.parameters(), lr=RATE, momentum=MOMENTUM, weight_decay=DECAY, nesterov=True)
    pruner: Any = None
    if method == "magnitude":
        pruner = Magnitude(model, target, steps, RAMP, HOLD, EVERY)
    elif method == "obverse":
        budget = Budget(target, ramp=RAMP, hold=HOLD)
        pruner = Sparsifier(model, optimizer, LogSum(0.1), budget=budget, total_steps=steps, every=EVERY)
    fit(
        model,
        optimizer,
        parts["train"],
        pruner,
        epochs=epochs,
        batch=BATCH,
        seed=seed,
        rate=constant_then_cosine(RAMP + HOLD),
        bfloat16=True,
        augment=augmented,
    )
    weights = matrices(model)
    return {
        "method": method,
        "target": target,
        "seed": seed,
        "error": error(model, parts["test"], 500),
        "density": density(model),
        "layers": [float((w != 0).float().mean()) for w in weights],
    }
