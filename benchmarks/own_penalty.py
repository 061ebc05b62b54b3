"""Compares the cost of training with a penalty of one's own to that with log-sum, in CPU seconds for each step.

The penalty gives only a value and a slope. The first step, which makes its table, is told apart.

    python benchmarks/own_penalty.py --steps 60
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from obverse import Sparsifier
from obverse.penalties import LogSum, Penalty


class Own(Penalty):
    """``w / (w + 0.1)``, by its value and its slope."""

    def _value(self, w: Any, xp: Any) -> Any:
        return w / (w + 0.1)

    def _slope(self, w: Any, xp: Any) -> Any:
        return 0.1 / (w + 0.1) ** 2


def seconds(penalty: Penalty, face: str, kind: str, steps: int) -> tuple[float, float]:
    """CPU seconds of the first step with its Sparsifier, and of each later one."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(64, 300), nn.ReLU(), nn.Linear(300, 100), nn.ReLU(), nn.Linear(100, 10))
    optimizer = getattr(torch.optim, kind)(model.parameters(), lr=1e-2)
    x, y = torch.randn(100, 64), torch.randint(0, 10, (100,))
    times = [time.process_time()]
    sparsifier = Sparsifier(model, optimizer, penalty=penalty, face=face, strength=1e-4)
    for _ in range(steps):
        (F.cross_entropy(model(x), y) + sparsifier.penalty()).backward()
        optimizer.step()
        sparsifier.step()
        optimizer.zero_grad()
        times.append(time.process_time())
    return times[1] - times[0], (times[-1] - times[1]) / (steps - 1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--steps", type=int, default=60, help="Number of training steps [60].")
    parser.add_argument("--json", type=Path, help="Where the numbers go as well.")
    arguments = parser.parse_args()
    steps = max(2, arguments.steps)
    torch.set_num_threads(1)
    seconds(LogSum(0.1), "proximal", "Adam", steps)  # warms the processor and the allocator
    rows = []
    print(f"{'face':<12}{'optimizer':<11}{'log-sum ms':>11}{'own ms':>9}{'ratio':>7}{'first step ms':>15}")
    for face in ("proximal", "reweighted"):
        for kind in ("Adam", "SGD"):
            _, usual = seconds(LogSum(0.1), face, kind, steps)
            first, own = seconds(Own(), face, kind, steps)
            print(f"{face:<12}{kind:<11}{1e3 * usual:11.2f}{1e3 * own:9.2f}{own / usual:7.1f}{1e3 * first:15.1f}")
            rows.append({"face": face, "optimizer": kind, "log_sum": usual, "own": own, "first": first})
    if arguments.json is not None:
        arguments.json.write_text(json.dumps(rows, indent=1))


if __name__ == "__main__":
    main()
