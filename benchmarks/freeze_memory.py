"""Measures what the freeze of a budget needs beside model, gradients and optimizer: bytes per weight, at the peak.

    python benchmarks/freeze_memory.py [--weights 100] [--layers 6] [--json FILE]

Each measurement runs in a process of its own, whose peak resident memory the kernel reports: one that trains without a
Sparsifier, one on the way to the budget, one that reaches the freeze, and one that finishes as well. The model is a
stack of square linear layers under plain SGD.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
from pathlib import Path

import torch
from torch import nn

from obverse import Budget, Sparsifier

STAGES = ("train", "way", "freeze", "finish")


def measure(stage: str, millions: float, layers: int) -> dict[str, float]:
    """Peak memory in bytes, and the number of weights."""
    torch.manual_seed(0)
    side = round((millions * 1e6 / layers) ** 0.5)
    model = nn.Sequential(*(nn.Linear(side, side, bias=False) for _ in range(layers)))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    # The support is fixed after the third of five steps.
    sparsifier = Sparsifier(model, optimizer, budget=Budget(0.9, ramp=0.5, hold=0.1), total_steps=5)
    inputs = torch.randn(8, side)
    for _ in range({"train": 2, "way": 2, "freeze": 4, "finish": 5}[stage]):
        model(inputs).square().mean().backward()
        optimizer.step()
        if stage != "train":
            sparsifier.step()
        optimizer.zero_grad(set_to_none=False)
    if stage == "finish":
        sparsifier.finish()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return {"peak": peak * (1 if sys.platform == "darwin" else 1024), "weights": layers * side**2}


def main() -> None:
    """Measure the stages and print what each needs beyond training."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--weights", type=float, default=100.0, help="millions of weights")
    parser.add_argument("--layers", type=int, default=6, help="layers that share them")
    parser.add_argument("--json", type=Path, help="file for the numbers")
    parser.add_argument("--stage", choices=STAGES, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.stage is not None:
        print(json.dumps(measure(given.stage, given.weights, given.layers)))
        return
    peaks: dict[str, float] = {}
    numbers: dict[str, dict[str, float]] = {}
    for stage in STAGES:
        command = [sys.executable, __file__, "--stage", stage, "--weights", str(given.weights)]
        done = subprocess.run([*command, "--layers", str(given.layers)], check=True, capture_output=True, text=True)
        found = json.loads(done.stdout.splitlines()[-1])
        peaks[stage] = found["peak"]
        beyond = (found["peak"] - peaks["train"]) / found["weights"]
        numbers[stage] = {**found, "bytes_per_weight": beyond}
        print(f"{stage:8} {found['peak'] / 2**20:8,.0f} MB  {beyond:5.1f} bytes per weight more")
    if given.json is not None:
        given.json.write_text(json.dumps(numbers, indent=1))


if __name__ == "__main__":
    main()
