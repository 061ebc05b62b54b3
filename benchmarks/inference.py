"""How much faster does a sparse network run? A 784-1024-1024-10 network at 90 %, against its dense forms.

    python benchmarks/inference.py [--json inference.json] [--batches 1 32 256] [--threads 2] [--rounds 31]

One network has 90 % of its weights zero at random places and runs as `obverse.compact.accelerate` leaves it. Another
has as many weights removed as whole units, and is `shrunk`. Both are compared with the dense float32 network in the
same process, and so are its bfloat16 and dynamic int8 forms. Everything is timed in turn in short bursts; printed are
medians of ratios with their 95 % intervals, and the largest difference of the outputs from the dense ones of the same
weights.
Rows that are in the results file, for this machine, torch and number of threads, are not measured again.
"""

from __future__ import annotations

import argparse
import copy
import json
import sys
from pathlib import Path
from typing import Any

import torch
from torch import nn

from obverse.compact import accelerate, macs, parameters
from obverse.compact._accelerate import machine_name
from obverse.graph._timing import compare_times, interval_of

SPARSITY = 0.9
GOALS = {"unstructured": 2.5, "shrunk": 4.0}
PARITY = 1e-5


def network(first: int = 1024, second: int = 1024) -> nn.Sequential:
    return nn.Sequential(
        nn.Linear(784, first), nn.ReLU(), nn.Linear(first, second), nn.ReLU(), nn.Linear(second, 10)
    ).eval()


def unstructured() -> nn.Sequential:
    """Each matrix with 90 % of its entries zero."""
    model = network()
    with torch.no_grad():
        for layer in model[::2]:
            count = layer.weight.numel()
            layer.weight.view(-1)[torch.randperm(count)[: round(SPARSITY * count)]] = 0
    return model


def units_kept() -> int:
    """Hidden units per layer with which a tenth of the weights is left."""
    whole = parameters(network())
    return max(n for n in range(1, 1025) if 784 * n + n * n + 10 * n + 2 * n + 10 <= (1 - SPARSITY) * whole)


def structured(kept: int) -> tuple[nn.Sequential, nn.Sequential]:
    """A network whose other hidden units are dead, and the same without them."""
    model = network()
    alive = [torch.randperm(1024)[:kept].sort().values for _ in range(2)]
    small = network(kept, kept)
    with torch.no_grad():
        for layer, rows in zip((model[0], model[2]), alive, strict=True):
            dead = torch.ones(1024, dtype=torch.bool)
            dead[rows] = False
            layer.weight[dead] = 0
            layer.bias[dead] = 0
        small[0].weight.copy_(model[0].weight[alive[0]])
        small[0].bias.copy_(model[0].bias[alive[0]])
        small[2].weight.copy_(model[2].weight[alive[1]][:, alive[0]])
        small[2].bias.copy_(model[2].bias[alive[1]])
        small[4].weight.copy_(model[4].weight[:, alive[1]])
        small[4].bias.copy_(model[4].bias)
    return model, small


def difference(found: torch.Tensor, answer: torch.Tensor) -> float:
    return float((found.double() - answer.double()).abs().max() / answer.double().abs().max())


def measured(batch: int, rounds: int) -> dict[str, Any]:
    """Ratios of one batch size."""
    torch.manual_seed(0)
    x = torch.randn(batch, 784)
    dense = unstructured()
    fast, receipt = accelerate(dense, x, repeats=rounds)
    with torch.inference_mode():
        whole, small = structured(units_kept())
        shrunk_samples = compare_times({"dense": lambda: whole(x), "shrunk": lambda: small(x)}, rounds)
        ratios = [a / b for a, b in zip(shrunk_samples["dense"], shrunk_samples["shrunk"], strict=True)]
        parity = {
            "unstructured": difference(fast(x), copy.deepcopy(dense)(x)),
            "shrunk": difference(small(x), whole(x)),
        }
    kept = {"median": 1.0, "low": 1.0, "high": 1.0}
    return {
        "dense_ms": 1e3 * receipt.seconds["dense"].median,
        "speedups": {
            # Where no product wins, what is left is the dense network itself.
            "unstructured": receipt.speedups["accelerated"].to_dict() if receipt.gained else kept,
            "shrunk": interval_of(ratios).to_dict(),
            **{name: receipt.speedups[name].to_dict() for name in receipt.speedups if name != "accelerated"},
        },
        "differences": {**parity, **{n: d for n, d in receipt.differences.items() if n != "accelerated"}},
        "chosen": {layer.name: layer.chosen for layer in receipt.layers},
        "unavailable": receipt.unavailable,
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 32, 256])
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=31)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    setting = {"machine": machine_name(), "torch": torch.__version__, "threads": arguments.threads}
    kept = units_kept()
    about = {"sparsity": SPARSITY, "units": kept, "macs": macs(network(kept, kept), torch.randn(1, 784))}
    payload: dict[str, Any] = {**setting, **about, "rounds": arguments.rounds, "batches": {}}
    if arguments.json is not None and arguments.json.is_file():
        earlier = json.loads(arguments.json.read_text())
        if all(earlier.get(key) == value for key, value in {**setting, **about}.items()):
            payload["batches"] = earlier["batches"]
    print(f"{setting['machine']}, {arguments.threads} threads; shrunk to 784-{kept}-{kept}-10")
    for batch in arguments.batches:
        row = payload["batches"].get(str(batch)) or measured(batch, arguments.rounds)
        payload["batches"][str(batch)] = row
        print(f"batch {batch}: dense float32 {row['dense_ms']:.3f} ms; {row['chosen']}")
        for name, ratio in row["speedups"].items():
            told = f"relative difference {row['differences'][name]:.1e}"
            print(
                f"    {name:<14} {ratio['median']:6.2f}x   [{ratio['low']:.2f}, {ratio['high']:.2f}]   {told}",
                flush=True,
            )
        if arguments.json is not None:
            arguments.json.write_text(json.dumps(payload, indent=1) + "\n")
    missed = [
        f"{name} at batch 32 is {row['speedups'][name]['median']:.2f}x, not {goal}x"
        for name, goal in GOALS.items()
        if (row := payload["batches"].get("32")) is not None and row["speedups"][name]["median"] < goal
    ]
    missed += [
        f"{name} at batch {batch} differs by {row['differences'][name]:.1e}"
        for batch, row in payload["batches"].items()
        for name in GOALS
        if row["differences"][name] > PARITY
    ]
    print("\n".join(missed) or "all goals met")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
