"""What a training step costs with each label criterion, as a ratio to the step with torch.nn.CrossEntropyLoss.

    python benchmarks/label_step.py [--json label_step.json] [--rounds 15] [--threads 1] [--classes 10 1000]

A whole step of a ResNet-20 on images of 16x16 (batch 32, SGD with momentum), what the criterion learns included in the
optimizer, and `prepare` where the criterion has it. Plain steps and steps with every criterion are timed in turn within
one process, so that a drift of the machine's speed meets all of them alike; printed is the median over the rounds of
the ratio of CPU times to the plain steps before and after, with a 95 % interval of the median. Rounds are added to
those in the results file.
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
        self.features: torch.Tensor | None = None
        if self.criterion is not None and self.criterion.needs_features:
            last = [module for module in self.model.modules() if isinstance(module, nn.Linear)][-1]
            last.register_forward_pre_hook(self._keep)

    def _keep(self, module: nn.Module, given: tuple[torch.Tensor, ...]) -> None:
        self.features = given[0]

    def run(self, steps: int) -> float:
        """CPU seconds per step."""
        started = time.process_time()
        for _ in range(steps):
            if self.criterion is None:
                loss = self.plain(self.model(self.inputs), self.target)
            else:
                self.at = (self.at + BATCH) % SAMPLES
                inputs, target = self.criterion.prepare(self.inputs, self.target)
                logits = self.model(inputs)
                index = self.ids[self.at : self.at + BATCH] if self.criterion.needs_index else None
                loss = self.criterion(logits, target, index=index, features=self.features)
            self.optimizer.zero_grad()
            loss.backward()
            self.optimizer.step()
        return (time.process_time() - started) / steps


def interval(values: list[float]) -> list[float]:
    """Of the median, with 95 %, from order statistics."""
    ordered, count = sorted(values), len(values)
    reach = 0.98 * count**0.5
    low, high = int(count / 2 - reach), int(count / 2 + reach)
    return [ordered[max(low, 0)], ordered[min(high, count - 1)]]


def rounds_of(classes: int, rounds: int) -> Iterator[tuple[dict[str, float], float]]:
    """Ratio of every criterion in one round after the other, and milliseconds of its plain steps."""
    plain = Loop(classes, None)
    loops = {name: Loop(classes, name) for name in label_criteria()}
    loops |= {name: Loop(classes, name.split(",")[0], **options) for name, options in VARIANTS.items()}
    # Two steps in a burst: of pairwise one with originals and one with midpoints.
    for loop in (plain, *loops.values()):
        loop.run(2)
    for _ in range(rounds):
        before, ratios, seconds = plain.run(2), {}, []
        for name, loop in loops.items():
            own, after = loop.run(2), plain.run(2)
            ratios[name] = 2 * own / (before + after)
            seconds.append(after)
            before = after
        yield ratios, 1000 * statistics.median(seconds)


def show(classes: int, found: dict[str, Any]) -> None:
    print(f"{classes} classes, {statistics.median(found['milliseconds']):.0f} ms with torch.nn.CrossEntropyLoss")
    for name, value in found["criteria"].items():
        (low, high), bar = value["interval"], BARS.get(classes)
        late = "" if bar is None or value["median"] <= bar else f"  above {bar}"
        print(f"    {name:<28} {value['median']:6.3f}x   [{low:.3f}, {high:.3f}]{late}", flush=True)


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
        found = payload["classes"].setdefault(str(classes), {"milliseconds": [], "criteria": {}})
        for ratios, milliseconds in rounds_of(classes, arguments.rounds):
            found["milliseconds"].append(round(milliseconds, 2))
            for name, ratio in ratios.items():
                values = [*found["criteria"].get(name, {"rounds": []})["rounds"], round(ratio, 4)]
                low, high = interval(values)
                found["criteria"][name] = {
                    "median": statistics.median(values),
                    "interval": [low, high],
                    "rounds": values,
                }
            if arguments.json is not None:
                # After every round: an interrupted run loses none but its last.
                arguments.json.write_text(json.dumps(payload) + "\n")
        show(classes, found)
    return 0


if __name__ == "__main__":
    sys.exit(main())
