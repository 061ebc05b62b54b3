"""Adaptive strengths in a network that fits a curve, frequent and clean on the left, rare and noisy on the right.

    python benchmarks/har_curve.py                # two cases, five methods, 5 seeds
    python benchmarks/har_curve.py --table        # only print what is in the results file
    python benchmarks/har_curve.py --figure docs/images/har-curve.png

A network with three hidden layers of 32 units learns 400 points by full-batch Adam with the penalty ``mean tau_i
f'(x_i)^2``. 90 % of the points and noise of deviation 0.1 are on the left, 10 % and deviation 1 on the right. In one
case the left half oscillates five times faster, in the other both halves are equally smooth. Strengths have mean 1 over
the points and are estimated: noise by cross-fitting the network without penalty, density by counts. Each method's
coefficient is the one of least group-balanced error on 400 more noisy points, averaged over the seeds; errors of the
table are those against the true curve, both halves alike. The true curve chooses nothing.

All methods and coefficients of a seed train side by side in stacked tensors. Every cell is written to the results file
as it ends and not run again, so an interrupted study goes on where it was.
"""

from __future__ import annotations

import argparse
import itertools
import math
import statistics
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))

CASES = {"left oscillates": 5, "same smoothness": 1}
# Exponents of noise variance and density; None is no penalty.
METHODS: dict[str, tuple[float, float] | None] = {
    "none": None,
    "uniform": (0.0, 0.0),
    "density only": (0.0, 0.4),
    "noise only": (0.4, 0.0),
    "adaptive": (0.4, 0.4),
}
GRID = 400


@dataclass(frozen=True)
class Setting:
    """Sizes, optimizer and coefficients."""

    points: int = 400
    left: float = 0.9
    deviations: tuple[float, float] = (0.1, 1.0)
    hidden: int = 32
    steps: int = 2000
    rate: float = 0.01
    folds: int = 5
    coefficients: tuple[float, ...] = (3e-5, 1e-4, 3e-4, 1e-3, 3e-3, 1e-2)


@dataclass(frozen=True)
class Points:
    """Places in [0, 1], noisy values there, and whether they are on the right."""

    x: Tensor
    y: Tensor
    right: Tensor


def curve(x: Tensor, waves: int) -> Tensor:
    """One period of a cosine over [0, 1], with more of them to the left of the middle."""
    return torch.where(x < 0.5, torch.cos(2 * math.pi * waves * x), torch.cos(2 * math.pi * x))


def draw(setting: Setting, waves: int, generator: torch.Generator) -> Points:
    left = round(setting.left * setting.points)
    right = torch.arange(setting.points) >= left
    x = 0.5 * torch.rand(setting.points, generator=generator) + 0.5 * right
    deviation = torch.where(right, setting.deviations[1], setting.deviations[0])
    y = curve(x, waves) + deviation * torch.randn(setting.points, generator=generator)
    return Points(x, y, right)


def initialized(setting: Setting, copies: int, seed: int) -> list[Tensor]:
    """Weights and biases of torch's default law, the same for all copies."""
    generator = torch.Generator().manual_seed(seed)
    sizes = [1, setting.hidden, setting.hidden, setting.hidden, 1]
    parameters = []
    for inputs, outputs in itertools.pairwise(sizes):
        for rows in (inputs, 1):
            drawn = (2 * torch.rand(1, rows, outputs, generator=generator) - 1) / math.sqrt(inputs)
            parameters.append(drawn.repeat(copies, 1, 1).requires_grad_())
    return parameters


def outputs(parameters: list[Tensor], x: Tensor, slopes: bool = True) -> tuple[Tensor, Tensor]:
    """Values and derivatives of all copies at ``x``, shape (copies, points), the derivative carried along if asked."""
    scale = math.sqrt(12)
    copies = len(parameters[0])
    at = (scale * (x - 0.5)).expand(copies, -1)[..., None]
    before = torch.baddbmm(parameters[1], at, parameters[0])
    slope = (scale * parameters[0]).expand_as(before)
    for weight, bias in zip(parameters[2::2], parameters[3::2], strict=True):
        gate = torch.sigmoid(before)
        after = before * gate
        if slopes:
            slope = torch.bmm((gate + after * (1 - gate)) * slope, weight)
        before = torch.baddbmm(bias, after, weight)
    return before[..., 0], slope[..., 0]


def trained(setting: Setting, x: Tensor, y: Tensor, strengths: Tensor, seed: int) -> list[Tensor]:
    """Networks for all rows of ``strengths``, shape (copies, points)."""
    parameters = initialized(setting, len(strengths), seed)
    optimizer = torch.optim.Adam(parameters, setting.rate)
    penalized = bool(strengths.any())
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, setting.steps)
    for _ in range(setting.steps):
        values, slopes = outputs(parameters, x, penalized)
        squares = (values - y) ** 2
        # A sum over copies: each has its own parameters, so none feels another.
        loss = (squares + strengths * slopes**2 if penalized else squares).mean(1).sum()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    return [parameter.detach() for parameter in parameters]


def measured(setting: Setting, points: Points, seed: int) -> dict[str, Any]:
    """Noise variances of both halves by cross-fitting the network without penalty."""
    from obverse.imbalance import estimate_group_noise

    def fit_predict(train: NDArray[np.int64], held_out: NDArray[np.int64]) -> Tensor:
        x, y = points.x[train], points.y[train]
        parameters = trained(setting, x, y, torch.zeros(1, len(train)), seed)
        return outputs(parameters, points.x[held_out])[0][0]

    side = np.where(points.right.numpy(), "right", "left")
    found = estimate_group_noise(
        fit_predict, points.y, side, measure="residual-variance", folds=setting.folds, seed=seed
    )
    return found.to_dict()


def cell(
    setting: Setting, waves: int, seed: int, points: Points, held_out: Points, noise: list[float]
) -> dict[str, Any]:
    """Errors of every method at every coefficient, by halves."""
    from obverse.imbalance import group_strengths

    counts = [int((~points.right).sum()), int(points.right.sum())]
    names, rows = [], []
    for name, exponents in METHODS.items():
        for coefficient in setting.coefficients if exponents else (0.0,):
            by_half = group_strengths(noise, counts, exponents or (0.0, 0.0), normalize="mean")
            names.append((name, coefficient))
            rows.append(coefficient * by_half[points.right.long()])
    parameters = trained(setting, points.x, points.y, torch.stack(rows).float(), seed)
    places = (torch.arange(GRID) + 0.5) / GRID
    true = curve(places, waves)
    shown = outputs(parameters, places)[0]
    guessed = outputs(parameters, held_out.x)[0]
    results = []
    for (name, coefficient), values, guesses in zip(names, shown, guessed, strict=True):
        squares, noisy = (values - true) ** 2, (guesses - held_out.y) ** 2
        half = GRID // 2
        result: dict[str, Any] = {
            "method": name,
            "coefficient": coefficient,
            "test": [float(squares[:half].mean()), float(squares[half:].mean())],
            "held_out": [float(noisy[~held_out.right].mean()), float(noisy[held_out.right].mean())],
        }
        if seed == 0:
            result["curve"] = [round(float(value), 3) for value in values[::2]]
        results.append(result)
    return {"rows": results}


def data(setting: Setting, waves: int, seed: int) -> tuple[Points, Points]:
    generator = torch.Generator().manual_seed(1000 + seed)
    return draw(setting, waves, generator), draw(setting, waves, generator)


def study(setting: Setting, results: Any, seeds: list[int]) -> None:
    """Run the cells that are missing."""
    for seed in seeds:
        for name, waves in CASES.items():
            points, held_out = data(setting, waves, seed)
            noise = results.run(f"{name}/{seed}/noise", lambda p=points, s=seed: measured(setting, p, s))
            found = [row["noise"] for row in noise["rows"]]
            run = results.run(
                f"{name}/{seed}",
                lambda w=waves, s=seed, p=points, h=held_out, n=found: cell(setting, w, s, p, h, n),
            )
            print(
                f"{name}, seed {seed}: noise {found[0]:.3f} and {found[1]:.2f}, {run['cpu_seconds']:.0f} CPU s",
                flush=True,
            )


def chosen(runs: dict[str, Any], case: str, method: str) -> tuple[float, list[list[float]], float]:
    """The coefficient of least balanced held-out error over the seeds, the test errors by halves of every seed, and the
    mean test error with the coefficient that the true curve would choose.
    """
    held_out: dict[float, list[float]] = {}
    tests: dict[float, list[list[float]]] = {}
    for key, run in sorted(runs.items()):
        if key.startswith(f"{case}/") and not key.endswith("/noise"):
            for row in run["rows"]:
                if row["method"] == method:
                    held_out.setdefault(row["coefficient"], []).append(statistics.mean(row["held_out"]))
                    tests.setdefault(row["coefficient"], []).append(row["test"])
    best = min(held_out, key=lambda value: statistics.mean(held_out[value]))
    least = min(statistics.mean(statistics.mean(test) for test in found) for found in tests.values())
    return best, tests[best], least


def table(runs: dict[str, Any]) -> None:
    """Test errors with the chosen coefficients, and beside them the least; gains over the uniform penalty."""
    from case.harness import interval

    print(
        f"{'case':<16} {'method':<13} {'coefficient':>11} {'left':>7} {'right':>7} {'mean':>7} {'gain':>6}  log-ratio"
    )
    for case in CASES:
        if not any(key.startswith(f"{case}/") for key in runs):
            continue
        uniform = [statistics.mean(test) for test in chosen(runs, case, "uniform")[1]]
        for method in METHODS:
            coefficient, tests, least = chosen(runs, case, method)
            left, right = (statistics.mean(test[side] for test in tests) for side in (0, 1))
            both = [statistics.mean(test) for test in tests]
            gain = statistics.mean(uniform) / statistics.mean(both)
            mean, half = interval([math.log(a / b) for a, b in zip(uniform, both, strict=True)])
            print(
                f"{case:<16} {method:<13} {coefficient:>11.0e} {left:>7.4f} {right:>7.4f} "
                f"{statistics.mean(both):>7.4f} {least:>7.4f} {gain:>6.2f}  {mean:.2f} ± {half:.2f}"
            )


def figure(runs: dict[str, Any], setting: Setting, path: Path) -> None:
    """The curves of the first seed, and the errors of all."""
    import matplotlib as mpl

    mpl.use("Agg")
    import matplotlib.pyplot as plt

    canvas, axes = plt.subplots(1, 3, figsize=(14, 3.8), layout="constrained", width_ratios=(1.3, 1.3, 1))
    places = (torch.arange(GRID) + 0.5) / GRID
    colors = {"uniform": "tab:gray", "adaptive": "tab:orange"}
    for axis, (case, waves) in zip(axes, CASES.items(), strict=False):
        points = data(setting, waves, 0)[0]
        axis.plot(points.x, points.y, ".", color="0.85", markersize=3, zorder=0)
        axis.plot(places, curve(places, waves), color="black", linewidth=1, linestyle="--", label="true")
        for method, color in colors.items():
            coefficient = chosen(runs, case, method)[0]
            rows = runs[f"{case}/0"]["rows"]
            shown = next(r for r in rows if r["method"] == method and r["coefficient"] == coefficient)["curve"]
            axis.plot(places[::2], shown, color=color, label=method)
        axis.set(title=case, xlabel="x", ylim=(-2.2, 2.2))
    axes[0].legend(frameon=False, fontsize="small", loc="lower left")
    for place, case in enumerate(CASES):
        for shift, method in enumerate(METHODS):
            tests = chosen(runs, case, method)[1]
            left, right = (statistics.mean(test[side] for test in tests) / 2 for side in (0, 1))
            at = place + 0.16 * (shift - 2)
            axes[2].bar(at, left, 0.14, color=f"C{shift}", label=method if place == 0 else None)
            axes[2].bar(at, right, 0.14, bottom=left, color=f"C{shift}", alpha=0.45)
    axes[2].set_xticks(range(len(CASES)), list(CASES))
    axes[2].set(title="test error: left half (dark) and right half", ylabel="mean squared error")
    axes[2].legend(frameon=False, fontsize="small")
    for axis in axes:
        axis.spines[["top", "right"]].set_visible(False)
    canvas.savefig(path, dpi=150)
    plt.close(canvas)
    print(f"figure: {path}")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, default=HERE / "results" / "har_curve.json", help="results file")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2, 3, 4])
    parser.add_argument("--table", action="store_true", help="run nothing")
    parser.add_argument("--figure", type=Path, help="draw the curves of seed 0 and the errors there")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    from case.harness import Results

    setting = Setting()
    results = Results(arguments.json, asdict(setting))
    if not arguments.table:
        study(setting, results, arguments.seeds)
    table(results.runs)
    if arguments.figure:
        figure(results.runs, setting, arguments.figure)
    return 0


if __name__ == "__main__":
    sys.exit(main())
