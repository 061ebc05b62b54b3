"""One run: a small residual network, SGD with a cosine, and what is measured at its end."""

from __future__ import annotations

import math
from typing import Any

import torch
from case.cifar import augmented
from torch import Tensor, nn

from obverse.labels import (
    BrierScore,
    CalibrationError,
    LabelCriterion,
    NegativeLogLikelihood,
    TemperatureScaling,
    cutmix,
    mixup,
)

from .methods import METHODS
from .tasks import Part, Task

__all__ = ["run"]

BATCH, RATE, MOMENTUM, DECAY = 64, 0.1, 0.9, 5e-4


class _Block(nn.Module):
    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.second = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        self.norms = nn.ModuleList([nn.BatchNorm2d(outputs), nn.BatchNorm2d(outputs)])
        self.short = nn.Conv2d(inputs, outputs, 1, stride, bias=False) if stride > 1 else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        inner = self.second(self.norms[0](self.first(x)).relu())
        return (self.norms[1](inner) + self.short(x)).relu()


class ResNet8(nn.Module):
    """Three residual blocks of 8, 16 and 32 channels."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(channels, 8, 3, 1, 1, bias=False), nn.BatchNorm2d(8), nn.ReLU())
        self.blocks = nn.Sequential(_Block(8, 8, 1), _Block(8, 16, 2), _Block(16, 32, 2))
        self.head = nn.Linear(32, 10)

    def forward(self, x: Tensor) -> Tensor:
        scores: Tensor = self.head(self.blocks(self.stem(x)).mean((2, 3)))
        return scores


def _mixed(mixing: str | None, images: Tensor, labels: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    if mixing is None:
        return images, labels
    mix = {"mixup": mixup, "cutmix": cutmix}[mixing]
    return mix(images, labels, alpha=1.0, num_classes=10, generator=generator)


def _train(criterion: LabelCriterion, mixing: str | None, task: Task, seed: int, epochs: int) -> nn.Module:
    images, labels = task.train
    device = images.device
    torch.manual_seed(seed)
    model = ResNet8(images.shape[1]).to(device)
    criterion = criterion.to(device).train()
    per_epoch = len(labels) // BATCH
    steps = epochs * per_epoch
    optimizer = torch.optim.SGD(model.parameters(), lr=RATE, momentum=MOMENTUM, weight_decay=DECAY, nesterov=True)
    for group in criterion.parameter_groups():
        optimizer.add_param_group(group)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda t: (1 + math.cos(math.pi * t / steps)) / 2)
    generator = torch.Generator().manual_seed(seed)
    for _ in range(epochs):
        criterion.start_epoch()
        order = torch.randperm(len(labels), generator=generator).to(device)
        for start in range(0, per_epoch * BATCH, BATCH):
            index = order[start : start + BATCH]
            batch = augmented(images[index], generator, reach=2).contiguous() if task.is_image else images[index]
            batch, target = _mixed(mixing, batch, labels[index], generator)
            batch, target = criterion.prepare(batch, target)
            loss = criterion(model(batch), target, index=index)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
        criterion.end_epoch()
    return model.eval()


@torch.no_grad()
def _scores(model: nn.Module, part: Part) -> Tensor:
    return torch.cat([model(images) for images in part[0].split(2000)]).double().cpu()


def _measured(scores: Tensor, labels: Tensor, scaling: TemperatureScaling | None = None) -> dict[str, float]:
    if scaling is not None:
        scores = scaling(scores)
    found = {}
    for name, measure in (("nll", NegativeLogLikelihood()), ("ece", CalibrationError()), ("brier", BrierScore())):
        measure.update(scores, labels)
        found[name] = float(measure.compute())
    return found


def run(name: str, value: float, task: Task, seed: int, epochs: int) -> dict[str, Any]:
    """Train, and measure on the clean test set; the noisy held-out rows are for choosing values and temperatures."""
    method = METHODS[name]
    model = _train(method.build(value, epochs), method.mixing, task, seed, epochs)
    held, test = _scores(model, task.held_out), _scores(model, task.test)
    noisy, clean, labels = (part[1].cpu() for part in (task.held_out, task.held_out_clean, task.test))
    found: dict[str, Any] = {
        "held_out_error": 100 * float((held.argmax(1) != noisy).double().mean()),
        "error": 100 * float((test.argmax(1) != labels).double().mean()),
        "winning": float(test.softmax(1).amax(1).mean()),
        **_measured(test, labels),
    }
    for where, known in (("noisy", noisy), ("clean", clean)):
        scaling = TemperatureScaling().fit(held, known)
        found[f"temperature, {where}"] = float(scaling.temperature)
        found |= {f"{key}, {where}": number for key, number in _measured(test, labels, scaling).items()}
    return found
