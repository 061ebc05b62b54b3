"""What a training step costs with each label criterion, as a ratio to the step with torch.nn.CrossEntropyLoss.

    python benchmarks/label_step.py [--json label_step.json] [--rounds 15] [--threads 1] [--classes 10 1000]

Measured twice: as a whole, and by what differs. A whole step is that of a ResNet-20 on images of 16x16 (batch 32, SGD
with momentum), what the criterion learns included in the optimizer, and `prepare` where the criterion has it; plain
steps and steps with every criterion are timed in turn within one process, and the ratio is that to the plain steps
before and after. What differs is the loss of given logits with its gradient, `prepare` and the optimizer's step for
what the criterion learns; one plus its excess over torch's loss as a share of the plain step is the ratio again, with
much less noise. Printed are medians over the rounds, of CPU time, with 95 % intervals. Rounds are added to those in the
results file.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import nn

from obverse.labels import label_criteria, label_criterion
from obverse.training import build_model

BATCH, SAMPLES = 32, 4096
# Times that a loss is taken in a round.
CALLS = 12
# What a step may cost by number of classes.
BARS = {10: 1.05, 1000: 1.3}

VARIANTS: dict[str, dict[str, Any]] = {
    "adaptive, average": {"update": "average"},
    "adaptive, class": {"normalization": "class"},
    "pairwise, features": {"num_features": 64},
    "generalized, truncated": {"truncation": 0.5, "warmup_epochs": 0},
    "early-learning, all classes": {"top": None},
    "progressive, all classes": {"top": None},
}


class Loop:
    """One network in training, with torch's own loss or one of ours."""

    def __init__(self, classes: int, criterion: str | None, **options: Any) -> None:
        torch.manual_seed(0)
        self.model = build_model("resnet20", (3, 16, 16), classes)
        self.inputs = torch.randn(BATCH, 3, 16, 16)
        self.target = torch.randint(classes, (BATCH,))
        self.ids = torch.randperm(SAMPLES)
        self.at = 0
        self.plain = nn.CrossEntropyLoss()
        self.criterion = None if criterion is None else label_criterion(criterion, classes, **options)
        groups: list[dict[str, Any]] = [{"params": list(self.model.parameters())}]
        if self.criterion is not None:
            groups += self.criterion.parameter_groups()
        self.optimizer = torch.optim.SGD(groups, lr=0.01, momentum=0.9)
        self.own = torch.optim.SGD(groups[1:], lr=0.01, momentum=0.9) if groups[1:] else None
        self.logits = torch.randn(BATCH, classes)
        self.features: torch.Tensor | None = None
        if self.criterion is not None and self.criterion.needs_features:
            last = [module for module in self.model.modules() if isinstance(module, nn.Linear)][-1]
            last.register_forward_pre_hook(self._keep)

    def _keep(self, module: nn.Module, given: tuple[torch.Tensor, ...]) -> None:
        self.features = given[0]

    def run(self, steps: int) -> float:
        """CPU seconds per whole step."""
        started = time.process_time()
        for _ in range(steps):
            inputs, target = self._prepared()
            self.optimizer.zero_grad()
            self._loss(self.model(inputs), target).backward()
            self.optimizer.step()
        return (time.process_time() - started) / steps

    def run_loss(self) -> float:
        """CPU seconds of what differs from another loss: the least of some, as only ever something is added to it."""
        if self.features is not None:
            self.features = self.features.detach()
        seconds = []
        for _ in range(CALLS):
            logits = self.logits.detach().requires_grad_()
            started = time.process_time()
            _, target = self._prepared()
            if self.own is not None:
                self.own.zero_grad()
            self._loss(logits, target).backward()
            if self.own is not None:
                self.own.step()
            seconds.append(time.process_time() - started)
        # Originals and midpoints of pairwise have their own.
        return (min(seconds[::2]) + min(seconds[1::2])) / 2

    def _prepared(self) -> tuple[torch.Tensor, torch.Tensor]:
        if self.criterion is None:
            return self.inputs, self.target
        return self.criterion.prepare(self.inputs, self.target)

    def _loss(self, logits: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        if self.criterion is None:
            return self.plain(logits, target)
        self.at = (self.at + BATCH) % SAMPLES
        index = self.ids[self.at : self.at + BATCH] if self.criterion.needs_index else None
        return self.criterion(logits, target, index=index, features=self.features)


def interval(values: list[float]) -> list[float]:
    """Of the median, with 95 %, from order statistics."""
    ordered, count = sorted(values), len(values)
    reach = 0.98 * count**0.5
    low, high = int(count / 2 - reach), int(count / 2 + reach)
    return [ordered[max(low, 0)], ordered[min(high, count - 1)]]


def rounds_of(classes: int, rounds: int) -> Iterator[tuple[float, float, dict[str, list[float]]]]:
    """Milliseconds of a plain step and of its loss; of every criterion the ratio, and the milliseconds of its loss."""
    plain = Loop(classes, None)
    loops = {name: Loop(classes, name) for name in label_criteria()}
    loops |= {name: Loop(classes, name.split(",")[0], **options) for name, options in VARIANTS.items()}
    # Two steps in a burst: of pairwise one with originals and one with midpoints.
    for loop in (plain, *loops.values()):
        loop.run(2)
        loop.run_loss()
    for _ in range(rounds):
        before, found, seconds = plain.run(2), {}, []
        for name, loop in loops.items():
            own, after = loop.run(2), plain.run(2)
            found[name] = [2 * own / (before + after), 1000 * loop.run_loss()]
            seconds.append(after)
            before = after
        yield 1000 * statistics.median(seconds), 1000 * plain.run_loss(), found


def summary(found: dict[str, Any]) -> dict[str, dict[str, list[float]]]:
    """Of every criterion the median and the interval of the ratio, as a whole and by what differs."""
    step = statistics.median(found["step"])
    plain = statistics.median(found["loss"])
    result: dict[str, dict[str, list[float]]] = {}
    for name, rounds in found["criteria"].items():
        whole = rounds["ratio"]
        parts = [1 + (loss - plain) / step for loss in rounds["loss"]]
        result[name] = {
            kind: [round(statistics.median(values), 4), *(round(end, 4) for end in interval(values))]
            for kind, values in (("whole", whole), ("difference", parts))
        }
    return result


def show(classes: int, found: dict[str, Any]) -> None:
    step, loss = (statistics.median(found[name]) for name in ("step", "loss"))
    print(f"{classes} classes, {len(found['step'])} rounds: a plain step {step:.0f} ms, torch's loss {loss:.3f} ms")
    for name, kinds in found["summary"].items():
        cells = [f"{middle:6.3f}x [{low:.3f}, {high:.3f}]" for middle, low, high in kinds.values()]
        bar = BARS.get(classes)
        late = "" if bar is None or kinds["difference"][0] <= bar else f"  above {bar}"
        print(f"    {name:<28} whole {cells[0]}   by what differs {cells[1]}{late}", flush=True)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--classes", type=int, nargs="*", default=list(BARS))
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    payload: dict[str, Any] = {"threads": arguments.threads, "torch": torch.__version__, "classes": {}}
    if arguments.json is not None and arguments.json.exists():
        payload["classes"] = json.loads(arguments.json.read_text())["classes"]
    for classes in arguments.classes:
        found = payload["classes"].setdefault(str(classes), {"step": [], "loss": [], "criteria": {}})
        for step, loss, criteria in rounds_of(classes, arguments.rounds):
            found["step"].append(round(step, 2))
            found["loss"].append(round(loss, 5))
            for name, (ratio, own) in criteria.items():
                rounds = found["criteria"].setdefault(name, {"ratio": [], "loss": []})
                rounds["ratio"].append(round(ratio, 4))
                rounds["loss"].append(round(own, 5))
            found["summary"] = summary(found)
            if arguments.json is not None:
                # After every round: an interrupted run loses none but its last.
                arguments.json.write_text(json.dumps(payload) + "\n")
        show(classes, found)
    return 0


if __name__ == "__main__":
    sys.exit(main())
