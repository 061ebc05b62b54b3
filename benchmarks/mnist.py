"""LeNet-300-100 on MNIST at 50x and 100x: the proximal face beside gradual magnitude, random pruning and dense.

    python benchmarks/mnist.py [--data ../shared/data/mnist] [--json mnist.json] [--epochs 60] [--seeds 3]

All methods share the network, its initialization, the batches, the optimizer and the learning-rate schedule (constant
to the freeze, then a cosine to zero), the cubic ramp and the number of epochs. Gradual magnitude zeroes the smallest
weights of the whole network, re-decided at every application while it ramps, and keeps the final mask; random pruning
fixes a random mask, equally dense in every layer, before training. Settings are meant to be chosen with
``--validation``, which holds out 5,000 training images and reports the error on them; without it training sees all
60,000 and the test set is evaluated once, after the last epoch. Errors in percent; the interval is that of Student's
t over the seeds.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import statistics
import sys
import time
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from scipy.stats import t as student
from torch import nn

sys.path.insert(0, str(Path(__file__).resolve().parent))

from case.baselines import Magnitude, Random

from obverse import Budget, Sparsifier
from obverse.penalties import LogSum
from obverse.training import build_model, read_source

RATE, MOMENTUM, DECAY, BATCH = 0.1, 0.9, 1e-4, 128
EVERY = 10
RAMP, HOLD = 0.6, 0.1
HERE = Path(__file__).resolve().parents[1]


def data(folder: str, validation: bool) -> dict[str, tuple[torch.Tensor, torch.Tensor]]:
    source = read_source(folder)
    train, test = source.train, source.test
    assert test is not None
    if validation:
        order = torch.randperm(len(train), generator=torch.Generator().manual_seed(42))
        train, test = train.rows(order[5_000:]), train.rows(order[:5_000])
    return {
        name: ((part.inputs / 255 - 0.1307) / 0.3081, part.labels) for name, part in (("train", train), ("test", test))
    }


def error(model: nn.Module, part: tuple[torch.Tensor, torch.Tensor]) -> float:
    with torch.no_grad():
        return 100 * float((model.eval()(part[0]).argmax(1) != part[1]).float().mean())


def train(parts: dict[str, Any], method: str, target: float, seed: int, epochs: int) -> dict[str, Any]:
    started = time.process_time()
    torch.manual_seed(seed)
    model = build_model("lenet-300-100", (1, 28, 28), 10)
    optimizer = torch.optim.SGD(model.parameters(), lr=RATE, momentum=MOMENTUM, weight_decay=DECAY, nesterov=True)
    inputs, labels = parts["train"]
    per_epoch = len(labels) // BATCH
    steps = epochs * per_epoch
    freeze = round((RAMP + HOLD) * steps)
    pruner: Any = None
    if method == "proximal":
        budget = Budget(target, ramp=RAMP, hold=HOLD, pressure=0.1)
        pruner = Sparsifier(model, optimizer, LogSum(0.1), budget=budget, total_steps=steps, every=EVERY)
    elif method == "magnitude":
        pruner = Magnitude(model, target, steps, RAMP, HOLD, EVERY)
    elif method == "random":
        pruner = Random(model, target, seed)
    generator = torch.Generator().manual_seed(seed)
    step = 0
    for _ in range(epochs):
        order = torch.randperm(len(labels), generator=generator)
        for batch in range(per_epoch):
            progress = max(0.0, (step - freeze) / (steps - freeze))
            optimizer.param_groups[0]["lr"] = RATE * 0.5 * (1 + math.cos(math.pi * progress))
            index = order[batch * BATCH : (batch + 1) * BATCH]
            optimizer.zero_grad()
            F.cross_entropy(model(inputs[index]), labels[index]).backward()
            optimizer.step()
            if pruner is not None:
                pruner.step()
            step += 1
    if isinstance(pruner, Sparsifier):
        pruner.finish()
    weights = [p for p in model.parameters() if p.ndim > 1]
    return {
        "method": method,
        "target": target,
        "seed": seed,
        "error": error(model, parts["test"]),
        "sparsity": 1 - sum(int((w != 0).sum()) for w in weights) / sum(w.numel() for w in weights),
        "layers": [float((w != 0).float().mean()) for w in weights],
        "cpu_seconds": time.process_time() - started,
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--data", default=os.environ.get("OBVERSE_DATA", str(HERE.parent / "shared" / "data" / "mnist"))
    )
    parser.add_argument("--json", type=Path)
    parser.add_argument("--epochs", type=int, default=60)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--methods", nargs="+", default=["dense", "random", "magnitude", "proximal"])
    parser.add_argument("--validation", action="store_true", help="report the error on 5,000 held-out training images")
    parser.add_argument("--targets", type=float, nargs="+", default=[0.98, 0.99])
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    parts = data(arguments.data, arguments.validation)
    runs: list[dict[str, Any]] = []
    which = "validation error, %" if arguments.validation else "test error, %"
    print(f"{'method':<10} {'kept':>6} {which:>20} {'kept per layer, %':>20} {'CPU s':>7}", flush=True)
    for target in (0.0, *arguments.targets):
        for method in arguments.methods:
            if (method == "dense") != (target == 0):
                continue
            group = [train(parts, method, target, seed, arguments.epochs) for seed in range(arguments.seeds)]
            runs += group
            errors = [run["error"] for run in group]
            spread = 0.0
            if len(errors) > 1:
                spread = float(student.ppf(0.975, len(errors) - 1)) * statistics.stdev(errors) / len(errors) ** 0.5
            layers = [100 * statistics.mean(run["layers"][i] for run in group) for i in range(3)]
            kept = 100 * (1 - group[0]["sparsity"])
            print(
                f"{method:<10} {kept:>5.1f}% {statistics.mean(errors):>12.2f} ± {spread:<5.2f}"
                f" {' / '.join(f'{share:.1f}' for share in layers):>20}"
                f" {statistics.mean(run['cpu_seconds'] for run in group):>7.0f}",
                flush=True,
            )
            if arguments.json is not None:
                settings = {
                    "epochs": arguments.epochs,
                    "seeds": arguments.seeds,
                    "rate": RATE,
                    "weight_decay": DECAY,
                    "batch": BATCH,
                    "validation": arguments.validation,
                }
                arguments.json.write_text(json.dumps({"settings": settings, "runs": runs}, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
