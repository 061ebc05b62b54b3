"""ResNet-20 on CIFAR-10 with four kinds of dropout and without, in the same epochs; the spectrum of a head with noise.

    python benchmarks/dropout_cifar.py                    # 5 methods, 3 seeds, then the spectrum
    python benchmarks/dropout_cifar.py --methods none dropblock --seeds 0

Noise hangs on the outputs of the last six residual blocks, with a drop rate of 0.1 (blocks of 5, then of 3, on the
maps of 16 and 8) that grows linearly over the first half. "deterministic" trains without noise on the penalty that
stands for the exact-rate DropBlock. Training is on the first ``--images`` training images by SGD with momentum 0.9,
learning rate 0.1 and a cosine to zero, weight decay 5e-4, flips and shifts, bfloat16. Test error, negative log-
likelihood and expected calibration error (15 bins of equal width) are measured once, at the end. Runs are written as
they end.

The spectrum: on the frozen features of a trained network, a linear head is trained on the squared loss with dropout
by stochastic gradients; the singular values of its predictions are compared with those that the theory gives in
closed form.
"""

from __future__ import annotations

import argparse
import contextlib
import math
import sys
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

sys.path.insert(0, str(Path(__file__).resolve().parent))

from case.cifar import augmented, data
from case.harness import Part, Results, interval

from obverse.dropout import DropBlock2d, Dropout, InsertedDropout, diagnose, insert_dropout, marginalized
from obverse.labels import CalibrationError
from obverse.training import build_model

METHODS = ("none", "dropout", "dropblock", "dropblock-exact", "deterministic")
RATE, BATCH, BINS = 0.1, 128, 15


def inserted(method: str, model: nn.Module, steps: int) -> InsertedDropout | None:
    if method == "none":
        return None
    if method == "dropout":
        return insert_dropout(model, {f"blocks.{i}": Dropout(RATE, schedule=steps // 2) for i in range(3, 9)})
    options: dict[str, Any] = {"gamma": "published", "scale": "count"} if method == "dropblock" else {}
    return insert_dropout(
        model,
        {f"blocks.{i}": DropBlock2d(RATE, 5 if i < 6 else 3, schedule=steps // 2, **options) for i in range(3, 9)},
    )


def train(method: str, seed: int, part: Part, epochs: int) -> nn.Module:
    torch.manual_seed(seed)
    model = build_model("resnet20", (3, 32, 32), 10).to(memory_format=torch.channels_last)
    images, labels = part
    per_epoch = len(labels) // BATCH
    steps = epochs * per_epoch
    noise = inserted(method, model, steps)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, weight_decay=5e-4, nesterov=True)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda t: (1 + math.cos(math.pi * t / steps)) / 2)
    closing = contextlib.ExitStack()
    stands_in = closing.enter_context(marginalized(model, "cross-entropy")) if method == "deterministic" else None
    generator = torch.Generator().manual_seed(seed)
    for _ in range(epochs):
        order = torch.randperm(len(labels), generator=generator)
        for start in range(0, per_epoch * BATCH, BATCH):
            index = order[start : start + BATCH]
            batch = augmented(images[index], generator)
            with torch.autocast("cpu", torch.bfloat16):
                scores = model(batch)
            scores = scores.float()
            loss = F.cross_entropy(scores, labels[index])
            if stands_in is not None:
                loss = loss + stands_in.penalty(scores, labels[index])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
            if noise is not None:
                noise.step()
    closing.close()
    if noise is not None:
        noise.remove()
    return model.eval()


def scores_of(model: nn.Module, images: Tensor) -> Tensor:
    with torch.no_grad():
        return torch.cat([model(part) for part in images.split(500)]).double()


def run(method: str, seed: int, parts: dict[str, Part], epochs: int, images: int) -> dict[str, Any]:
    model = train(method, seed, (parts["train"][0][:images], parts["train"][1][:images]), epochs)
    scores, labels = scores_of(model, parts["test"][0]), parts["test"][1]
    calibration = CalibrationError(BINS)
    calibration.update(scores, labels)
    return {
        "error": 100 * float((scores.argmax(1) != labels).double().mean()),
        "nll": float(F.cross_entropy(scores, labels)),
        "ece": 100 * calibration.compute(),
    }


def spectrum(parts: dict[str, Part], epochs: int, images: int, keep: float = 0.5) -> dict[str, Any]:
    """Singular values of a head trained with dropout on frozen features, beside the closed form."""
    x, labels = parts["train"][0][:images], parts["train"][1][:images]
    model = train("none", 0, (x, labels), epochs)
    head = model.head
    assert isinstance(head, nn.Linear)
    model.head = nn.Identity()
    features = scores_of(model, x)
    targets = F.one_hot(labels, 10).double()
    features, targets = features - features.mean(0), targets - targets.mean(0)
    torch.manual_seed(0)
    linear = nn.Sequential(nn.Dropout(1 - keep), nn.Linear(features.shape[1], 10, bias=False, dtype=torch.float64))
    steps, rate = 6000, 0.5 / float(features.square().sum(1).mean() / keep)
    averaged = torch.zeros_like(linear[1].weight)
    for step in range(steps):
        index = torch.randint(len(features), (256,))
        loss = (linear(features[index]) - targets[index]).square().sum(1).mean()
        (gradient,) = torch.autograd.grad(loss, linear[1].weight)
        with torch.no_grad():
            linear[1].weight -= rate * gradient
            if step >= steps // 2:
                averaged += linear[1].weight / (steps - steps // 2)
    with torch.no_grad():
        linear[1].weight.copy_(averaged)
    found = diagnose(linear, (features, targets), loss="squared")
    assert found.predicted_singular_values is not None
    rows = {"measured": found.singular_values, "targets": found.target_singular_values}
    rows |= {"free features": found.predicted_singular_values}
    if found.fixed_singular_values is not None:
        rows["frozen features"] = found.fixed_singular_values
    return {name: [float(v) for v in values] for name, values in rows.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, default=Path(__file__).parent / "results" / "dropout_cifar.json")
    parser.add_argument("--methods", nargs="+", default=list(METHODS), choices=METHODS)
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--images", type=int, default=6000)
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    parts = data()
    results = Results(options.json, {"epochs": options.epochs, "images": options.images, "threads": options.threads})
    for seed in options.seeds:
        for method in options.methods:
            row = results.run(
                f"{method}/{seed}", lambda m=method, s=seed: run(m, s, parts, options.epochs, options.images)
            )
            print(method, seed, row, flush=True)
    row = results.run("spectrum", lambda: spectrum(parts, options.epochs, options.images))
    base = {seed: results.runs.get(f"none/{seed}", {}).get("cpu_seconds") for seed in options.seeds}
    print(f"\n{'method':<18} {'error %':>14} {'nll':>16} {'ece %':>14} {'time':>6}")
    for method in options.methods:
        runs = {seed: results.runs[f"{method}/{seed}"] for seed in options.seeds}
        cells = []
        for name, digits in (("error", 2), ("nll", 3), ("ece", 2)):
            mean, half = interval([one[name] for one in runs.values()])
            cells.append(f"{mean:.{digits}f} ± {half:.{digits}f}")
        ratios = [one["cpu_seconds"] / base[seed] for seed, one in runs.items() if base[seed]]
        ratio = f"{sum(ratios) / len(ratios):.2f}" if ratios else "-"
        print(f"{method:<18} {cells[0]:>14} {cells[1]:>16} {cells[2]:>14} {ratio:>6}")
    print("\nsingular values of predictions, a head with dropout 0.5 on frozen features")
    for name in ("targets", "free features", "frozen features", "measured"):
        if name in row:
            print(f"{name:<18} {' '.join(f'{value:7.4f}' for value in row[name])}")


if __name__ == "__main__":
    main()
