"""Say the budget, not lambda: does every penalty, face, optimizer and learning rate land on the stated sparsity?

    python benchmarks/budget.py [--json budget.json] [--seeds 1]

A small network is trained on scikit-learn's digits to 90 % sparsity by 6 penalties, 3 faces, SGD, Adam and AdamW at
3 learning rates each (a tenfold range around a usual one). A run counts as trained when its network, without any
regularizer, reaches 90 % accuracy in as many epochs. Prints the share of trained runs within half a point of the
target, and the test accuracy of dense and sparse networks beside it.
"""

from __future__ import annotations

import argparse
import itertools
import json
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torch import nn

from obverse import Sparsifier

TARGET = 0.90
PENALTIES = ["log-sum", "lasso", "mcp", "l0.5", "empirical-bayes", "standout"]
FACES = ["proximal", "reweighted", "dropout"]
OPTIMIZERS: dict[str, tuple[Callable[..., torch.optim.Optimizer], tuple[float, float, float]]] = {
    "sgd": (torch.optim.SGD, (0.05, 0.15, 0.5)),
    "adam": (torch.optim.Adam, (1e-3, 3e-3, 1e-2)),
    "adamw": (torch.optim.AdamW, (1e-3, 3e-3, 1e-2)),
}
EPOCHS, BATCH = 20, 50


def data() -> tuple[torch.Tensor, ...]:
    features, labels = load_digits(return_X_y=True)
    parts = train_test_split(features / 16, labels, test_size=0.25, random_state=0, stratify=labels)
    x_train, x_test, y_train, y_test = parts
    return (
        torch.tensor(x_train, dtype=torch.float32),
        torch.tensor(y_train),
        torch.tensor(x_test, dtype=torch.float32),
        torch.tensor(y_test),
    )


def train(
    splits: tuple[torch.Tensor, ...],
    optimizer_name: str,
    rate: float,
    seed: int,
    regularizer: dict[str, Any] | None,
) -> tuple[float, float]:
    """Test accuracy and sparsity of one run."""
    x, y, x_test, y_test = splits
    torch.manual_seed(seed)
    model = nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 10))
    optimizer = OPTIMIZERS[optimizer_name][0](model.parameters(), lr=rate)
    per_epoch = len(y) // BATCH
    sparsifier = None
    if regularizer is not None:
        sparsifier = Sparsifier(
            model, optimizer, budget=TARGET, total_steps=EPOCHS * per_epoch, seed=seed, **regularizer
        )
    for _ in range(EPOCHS):
        order = torch.randperm(len(y))
        for start in range(0, per_epoch * BATCH, BATCH):
            index = order[start : start + BATCH]
            loss = F.cross_entropy(model(x[index]), y[index])
            loss.backward()
            optimizer.step()
            if sparsifier is not None:
                sparsifier.step()
            optimizer.zero_grad()
    sparsity = 0.0
    if sparsifier is not None:
        sparsifier.finish()
        sparsity = sparsifier.sparsity
    model.eval()
    return float((model(x_test).argmax(1) == y_test).float().mean()), sparsity


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--seeds", type=int, default=1)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    splits = data()
    started = time.perf_counter()
    dense = {
        (name, rate, seed): train(splits, name, rate, seed, None)[0]
        for name, (_, rates) in OPTIMIZERS.items()
        for rate in rates
        for seed in range(arguments.seeds)
    }
    runs = []
    print(
        f"{'penalty':<16} {'face':<11} {'runs':>4} {'on target':>9} {'worst miss':>10} {'accuracy':>8}",
        flush=True,
    )
    for penalty, face in itertools.product(PENALTIES, FACES):
        group = []
        for (name, rate, seed), reference in dense.items():
            accuracy, sparsity = train(splits, name, rate, seed, {"penalty": penalty, "face": face})
            group.append(
                {
                    "penalty": penalty,
                    "face": face,
                    "optimizer": name,
                    "rate": rate,
                    "seed": seed,
                    "dense_accuracy": reference,
                    "accuracy": accuracy,
                    "sparsity": sparsity,
                    "trained": reference >= 0.9,
                }
            )
        runs += group
        trained = [run for run in group if run["trained"]]
        hits = [run for run in trained if abs(run["sparsity"] - TARGET) <= 0.005]
        worst = max(abs(run["sparsity"] - TARGET) for run in trained)
        mean = statistics.mean(run["accuracy"] for run in trained)
        print(
            f"{penalty:<16} {face:<11} {len(trained):>4} {len(hits):>9} {100 * worst:>9.2f}% {mean:>8.3f}",
            flush=True,
        )
    trained = [run for run in runs if run["trained"]]
    share = sum(abs(run["sparsity"] - TARGET) <= 0.005 for run in trained) / len(trained)
    references = statistics.mean(value for value in dense.values() if value >= 0.9)
    print(f"dense accuracy {references:.3f}; {len(trained)} of {len(runs)} runs count as trained")
    print(f"within half a point of {TARGET:.0%}: {share:.1%} of them ({time.perf_counter() - started:.0f} s)")
    if arguments.json is not None:
        arguments.json.write_text(json.dumps({"target": TARGET, "share": share, "runs": runs}, indent=1) + "\n")
    return 0 if share >= 0.95 else 1


if __name__ == "__main__":
    sys.exit(main())
