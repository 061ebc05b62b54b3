"""What the experiments of the case study share: data, errors, results that grow run by run, intervals."""

from __future__ import annotations

import json
import math
import os
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from scipy.stats import t as student
from torch import nn

from obverse.training import read_source

HERE = Path(__file__).resolve().parents[2]
Part = tuple[torch.Tensor, torch.Tensor]


def shared_data(name: str) -> str:
    """Folder of a data set: under ``$OBVERSE_DATA``, or beside the repository."""
    root = os.environ.get("OBVERSE_DATA", str(HERE.parent / "shared" / "data"))
    return str(Path(root) / name)


def mnist() -> dict[str, Part]:
    """Normalized images of shape (n, 1, 28, 28) and labels, of ``train`` and ``test``."""
    source = read_source(shared_data("mnist"))
    assert source.test is not None
    parts = {"train": source.train, "test": source.test}
    return {name: ((part.inputs / 255 - 0.1307) / 0.3081, part.labels) for name, part in parts.items()}


def held_out(parts: dict[str, Part], count: int) -> dict[str, Part]:
    """The same with ``count`` training images in place of the test set."""
    inputs, labels = parts["train"]
    order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(42))
    return {
        "train": (inputs[order[count:]], labels[order[count:]]),
        "test": (inputs[order[:count]], labels[order[:count]]),
    }


def error(model: nn.Module, part: Part, batch: int = 2000) -> float:
    """Share of wrong answers in percent; the model is left in evaluation mode."""
    wrong = 0
    with torch.no_grad():
        model.eval()
        for start in range(0, len(part[1]), batch):
            answers = model(part[0][start : start + batch]).argmax(1)
            wrong += int((answers != part[1][start : start + batch]).sum())
    return 100 * wrong / len(part[1])


def matrices(model: nn.Module) -> list[nn.Parameter]:
    """The weights that are counted: all parameters of two dimensions or more."""
    return [parameter for parameter in model.parameters() if parameter.ndim > 1]


def density(model: nn.Module) -> float:
    """Share of the counted weights that are not zero."""
    weights = matrices(model)
    return sum(int((w != 0).sum()) for w in weights) / sum(w.numel() for w in weights)


def interval(values: Sequence[float]) -> tuple[float, float]:
    """Mean and half width of Student's 95 % interval; 0 for a single value."""
    mean = statistics.mean(values)
    if len(values) < 2:
        return mean, 0.0
    return mean, float(student.ppf(0.975, len(values) - 1)) * statistics.stdev(values) / math.sqrt(len(values))


def constant_then_cosine(freeze: float) -> Callable[[float], float]:
    """A learning rate, as a fraction of the first: constant up to ``freeze`` of the run, then a cosine to zero."""

    def factor(progress: float) -> float:
        return 0.5 * (1 + math.cos(math.pi * max(0.0, progress - freeze) / (1 - freeze)))

    return factor


def fit(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    part: Part,
    pruner: Any,
    *,
    epochs: int,
    batch: int,
    seed: int,
    rate: Callable[[float], float],
    bfloat16: bool = False,
    augment: Callable[[torch.Tensor, torch.Generator], torch.Tensor] | None = None,
) -> None:
    """Train with cross-entropy; ``pruner`` acts after every step, and adds its `penalty` to the loss where it has one.

    ``rate`` gives the factor on every group's learning rate at a progress from 0 to 1. Batches that are not full are
    left out.
    """
    inputs, labels = part
    if bfloat16:
        model.to(memory_format=torch.channels_last)
        inputs = inputs.to(memory_format=torch.channels_last)
    rates = [group["lr"] for group in optimizer.param_groups]
    per_epoch = len(labels) // batch
    generator = torch.Generator().manual_seed(seed)
    step = 0
    for _ in range(epochs):
        model.train()
        order = torch.randperm(len(labels), generator=generator)
        for start in range(0, per_epoch * batch, batch):
            factor = rate(step / (epochs * per_epoch))
            for group, first in zip(optimizer.param_groups, rates, strict=True):
                group["lr"] = first * factor
            index = order[start : start + batch]
            images = inputs[index] if augment is None else augment(inputs[index], generator)
            with torch.autocast("cpu", torch.bfloat16, enabled=bfloat16):
                scores = model(images)
            loss = F.cross_entropy(scores.float(), labels[index])
            if hasattr(pruner, "penalty"):
                loss = loss + pruner.penalty()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            if pruner is not None:
                pruner.step()
            step += 1
    if pruner is not None:
        pruner.finish()


class Results:
    """Runs in a JSON file, each under a key: a run that is there is not run again, one that ends is written at once."""

    def __init__(self, path: Path, settings: dict[str, Any]) -> None:
        self.path = path
        self.runs: dict[str, Any] = {}
        self.settings = json.loads(json.dumps(settings))
        if path.exists():
            stored = json.loads(path.read_text())
            if stored["settings"] != self.settings:
                sys.exit(f"{path} holds runs with other settings: {stored['settings']}; give another --json")
            self.runs = stored["runs"]

    def run(self, key: str, work: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        """The result under ``key``, computed where it is missing."""
        if key not in self.runs:
            started, clock = time.process_time(), time.perf_counter()
            result = work()
            result["cpu_seconds"] = round(time.process_time() - started, 1)
            result["seconds"] = round(time.perf_counter() - clock, 1)
            # Another process may have added to the file meanwhile.
            if self.path.exists():
                self.runs = json.loads(self.path.read_text())["runs"]
            self.runs[key] = result
            self.path.parent.mkdir(parents=True, exist_ok=True)
            fresh = self.path.with_suffix(".part")
            fresh.write_text(json.dumps({"settings": self.settings, "runs": self.runs}, indent=1) + "\n")
            fresh.replace(self.path)
        return dict(self.runs[key])
