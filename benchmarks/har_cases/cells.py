"""One training run: the networks, the penalty, the strengths from cross-fitting, and errors by class."""

from __future__ import annotations

import math
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from typing import Any

import torch
from case.cifar import augmented
from torch import Tensor, nn

from obverse.imbalance import HeteroskedasticRegularizer, NormalizedLinear

from .data import Task
from .methods import METHODS, criterion, mixed, strengths

FOLDS = 3


@dataclass(frozen=True)
class Setting:
    """Sizes and optimizer of a study: SGD with momentum, the rate falling to zero along half a cosine."""

    data: str
    frequent: int
    test_rows: int
    epochs: int
    batch: int
    rate: float
    width: int
    decay: float = 5e-4
    momentum: float = 0.9
    deferred_from: float = 2 / 3
    augment: bool = False
    device: str = "cpu"

    def to_dict(self) -> dict[str, Any]:
        """For the results file; where it was computed decides nothing."""
        fields = asdict(self)
        del fields["device"]
        return fields


SETTINGS = {
    "mnist": Setting("mnist", 400, 10_000, 40, 64, 0.05, 8),
    "cifar10": Setting("cifar10", 500, 10_000, 15, 64, 0.05, 32, augment=True),
}


def network(setting: Setting, cosine: bool) -> nn.Module:
    """Three convolutions with BatchNorm: for digits of 14x14, and, wider, for color images of 16x16."""
    c = setting.width
    channels, pixels = (1, 9) if setting.data == "mnist" else (3, 16)
    layers: list[nn.Module] = []
    for inputs, outputs, pool in ((channels, c, True), (c, 2 * c, True), (2 * c, 2 * c, False)):
        layers += [nn.Conv2d(inputs, outputs, 3, padding=1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU()]
        layers += [nn.MaxPool2d(2)] if pool else []
    size = 2 * c * pixels
    return nn.Sequential(*layers, nn.Flatten(), NormalizedLinear(size, 10) if cosine else nn.Linear(size, 10))


def fit(
    setting: Setting, name: str, value: float, part: tuple[Tensor, Tensor], seed: int, by_class: Tensor | None
) -> nn.Module:
    """Train one network; ``by_class`` holds the strengths of the penalty, times ``value``.

    The penalty is the squared one of the theory. Norms that are not squared, as first released, make two confused
    classes one class on the digits as soon as they are strong enough to help.
    """
    torch.manual_seed(seed)
    method = METHODS[name]
    inputs, labels = part
    model = network(setting, method.cosine).to(setting.device)
    regularizer = (
        None
        if by_class is None
        else HeteroskedasticRegularizer(model, by_class, strength=value, backend="double-backward", every=method.every)
    )
    decay = value if name == "ERM" else setting.decay
    optimizer = torch.optim.SGD(
        model.parameters(), lr=setting.rate, momentum=setting.momentum, weight_decay=decay, nesterov=True
    )
    counts = torch.bincount(labels, minlength=10).to(setting.device)
    loss_of = criterion(name, value, counts, round(setting.deferred_from * setting.epochs)).to(setting.device)
    generator = torch.Generator().manual_seed(seed)
    per_epoch = len(labels) // setting.batch
    for epoch in range(setting.epochs):
        model.train()
        order = torch.randperm(len(labels), generator=generator)
        for step in range(per_epoch):
            progress = (epoch + step / per_epoch) / setting.epochs
            optimizer.param_groups[0]["lr"] = setting.rate * 0.5 * (1 + math.cos(math.pi * progress))
            index = order[step * setting.batch : (step + 1) * setting.batch]
            x, y = inputs[index], labels[index]
            if setting.augment:
                x = augmented(x, generator)
            x, y = x.to(setting.device), y.to(setting.device)
            if method.mixup:
                x, partner, share = mixed(x, value, generator)
                scores = model(x)
                loss = share * loss_of(scores, y) + (1 - share) * loss_of(scores, y[partner])
            else:
                with nullcontext() if regularizer is None else regularizer.capture():
                    scores = model(x)
                loss = loss_of(scores, y)
                if regularizer is not None:
                    loss = loss + regularizer(scores, y)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        if hasattr(loss_of, "step"):
            loss_of.step()
    return model.eval()


def errors(model: nn.Module, part: tuple[Tensor, Tensor]) -> list[float]:
    """Error of every class, in percent."""
    inputs, labels = part
    device = next(model.parameters()).device
    with torch.no_grad():
        answers = torch.cat([model(rows.to(device)).argmax(1).cpu() for rows in inputs.split(1000)])
    return [100 * float((answers[labels == label] != label).float().mean()) for label in range(10)]


def cross_fitted(setting: Setting, task: Task, seed: int) -> dict[str, Any]:
    """Share of errors of each noisy class on folds that a network without penalty has not seen; none is zero."""
    inputs, labels = task.train
    wrong, counts = torch.zeros(10), torch.bincount(labels, minlength=10)
    for fold in range(FOLDS):
        out = torch.arange(len(labels)) % FOLDS == fold
        model = fit(setting, "ERM", setting.decay, (inputs[~out], labels[~out]), seed, None)
        here = torch.bincount(labels[out], minlength=10)
        wrong += torch.tensor(errors(model, (inputs[out], labels[out]))) / 100 * here
    return {"error": ((wrong + 1) / (counts + 2)).tolist(), "counts": counts.tolist(), "flipped": task.flipped}


def cell(
    setting: Setting, name: str, value: float, seed: int, task: Task, estimate: Callable[[], dict[str, Any]]
) -> dict[str, Any]:
    """Train a method and report its errors on noisy held-out rows and on clean test rows, by class."""
    kind = METHODS[name].strengths
    by_class = None
    if kind is not None:
        found = estimate()
        by_class = strengths(kind, torch.tensor(found["error"]), torch.tensor(found["counts"]).float())
    model = fit(setting, name, value, task.train, seed, by_class)
    return {
        "method": name,
        "value": value,
        "seed": seed,
        "held_out": errors(model, task.held_out),
        "test": errors(model, task.test),
        "noisy_and_rare": list(task.noisy_and_rare),
    }
