"""The case study: sparsifying strategies in deep networks, on the paper's task and past it.

    python benchmarks/case_study.py --paper      # the paper's table and curves: LeNet-300-100, 200 epochs
    python benchmarks/case_study.py --ours       # error against size beside dense, small, random, gradual magnitude
    python benchmarks/case_study.py --groups     # units and filters: hard-concrete gates beside group penalties
    python benchmarks/case_study.py --cifar      # ResNet-20 on CIFAR-10 beside gradual magnitude
    python benchmarks/case_study.py --duality    # strategies and their penalties on one curve
    python benchmarks/case_study.py --page       # benchmarks/results/case_study.html from the results

Every run is written to the results file as it ends and not run again: an interrupted study goes on where it was, and
several processes may work on different rows (``--rows``), networks (``--networks``) or seeds of one file.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterable
from functools import partial
from pathlib import Path
from typing import Any

import torch

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))


def say(line: str) -> None:
    print(f"[{time.strftime('%H:%M:%S')}] {line}", flush=True)


def paper(arguments: argparse.Namespace) -> None:
    from case import harness
    from case import paper as study

    epochs = arguments.epochs or 200
    results = harness.Results(_file(arguments, "paper"), {"epochs": epochs, "seed": 0})
    parts = harness.mnist()
    for name in _chosen(arguments.rows, study.STRATEGIES):
        results.run(name, lambda name=name: study.run(name, parts, epochs, 0, say))
    print(f"{'strategy':<22} {'test error, %':>14} {'published':>10} {'kept, %':>8} {'published':>10} {'CPU s':>6}")
    for name, run in results.runs.items():
        published = study.PUBLISHED.get(name.partition(",")[0])
        columns = (f"{published[0]:.2f}", f"{100 * published[1]:.2f}") if published else ("", "")
        print(
            f"{name:<22} {run['test_error']:>14.2f} {columns[0]:>10} {100 * run['density']:>8.2f} {columns[1]:>10} "
            f"{run['cpu_seconds']:>6.0f}"
        )


def ours(arguments: argparse.Namespace) -> None:
    from dataclasses import replace

    from case import harness
    from case import ours as study

    studies = {
        name: settings if arguments.epochs is None else replace(settings, epochs=arguments.epochs)
        for name, settings in study.STUDIES.items()
    }
    description: dict[str, Any] = {name: settings.to_dict() for name, settings in studies.items()}
    description |= {"title": "Error against size, MNIST", "text": [" ".join(study.__doc__.split("\n\n")[1].split())]}
    description["validation"] = arguments.validation
    results = harness.Results(_file(arguments, "ours"), description)
    parts = harness.mnist()
    if arguments.validation:
        parts = harness.held_out(parts, 5_000)
    for seed in arguments.seeds:
        for network in arguments.networks or list(studies):
            settings = studies[network]
            for target in (0.0, *(arguments.targets or settings.targets)):
                for method in _chosen(arguments.rows, study.METHODS):
                    if (method == "dense") != (target == 0) or method not in settings.methods:
                        continue
                    key = f"{network}/{method}/{target:.6g}/{seed}"
                    if key in results.runs:
                        continue
                    run = results.run(
                        key,
                        lambda settings=settings, method=method, target=target, seed=seed: study.train(
                            settings, method, target, seed, parts
                        ),
                    )
                    say(f"{key}: error {run['error']:.2f} %, {run['weights']} weights, {run['cpu_seconds']:.0f} CPU s")
    _summary(results.runs)


def groups(arguments: argparse.Namespace) -> None:
    from case import groups as study
    from case import harness

    epochs = {name: arguments.epochs or count for name, count in study.EPOCHS.items()}
    results = harness.Results(_file(arguments, "groups"), _described("Whole units and filters", study, epochs=epochs))
    parts = harness.mnist()
    for seed in arguments.seeds[:3]:
        for network in arguments.networks or list(epochs):
            for target in arguments.targets or study.TARGETS[network]:
                for method in _chosen(arguments.rows, study.METHODS):
                    key = f"{network}/{method}/{target:.6g}/{seed}"
                    work = partial(study.train, network, method, target, seed, parts, epochs[network])
                    _tell(results, key, work, "alive")
    _summary(results.runs)


def cifar(arguments: argparse.Namespace) -> None:
    from case import cifar as study
    from case import harness

    epochs = arguments.epochs or study.EPOCHS
    results = harness.Results(_file(arguments, "cifar"), _described("ResNet-20 on CIFAR-10", study, epochs=epochs))
    parts = study.data()
    for seed in arguments.seeds[:3]:
        for target in (0.0, *(arguments.targets or study.TARGETS)):
            for method in _chosen(arguments.rows, study.METHODS):
                if (method == "dense") == (target == 0):
                    key = f"resnet20/{method}/{target:.6g}/{seed}"
                    _tell(results, key, partial(study.train, method, target, seed, parts, epochs), "density")
    _summary(results.runs)


def duality(arguments: argparse.Namespace) -> None:
    from case import duality as study
    from case import harness

    epochs = arguments.epochs or study.EPOCHS
    results = harness.Results(_file(arguments, "duality"), _described("The duality seen", study, epochs=epochs))
    parts = harness.mnist()
    for factor in arguments.targets or study.FACTORS:
        for name in _chosen(arguments.rows, study.strategies(1)):
            key = f"lenet-300-100/{name}/{factor:.6g}/0"
            _tell(results, key, partial(study.train, name, factor, 0, parts, epochs), "density")
    for run in results.runs.values():
        print(
            f"{run['method']:<26} {run['target']:>6g} {100 * run['density']:>8.3f} % {run['error']:>6.2f} % "
            f"{run['cpu_seconds']:>6.0f} s"
        )


def _chosen(rows: list[str] | None, known: Iterable[str]) -> list[str]:
    """The rows asked for, by default all."""
    names = list(known)
    unknown = sorted(set(rows or ()) - set(names))
    if unknown:
        sys.exit(f"no row {', '.join(map(repr, unknown))}; there are {', '.join(map(repr, names))}")
    return rows or names


def _described(title: str, study: Any, **settings: Any) -> dict[str, Any]:
    return {"title": title, "text": [" ".join(part.split()) for part in study.__doc__.split("\n\n")], **settings}


def _tell(results: Any, key: str, work: Any, what: str) -> None:
    if key not in results.runs:
        run = results.run(key, work)
        say(f"{key}: error {run['error']:.2f} %, {what} {run[what]}, {run['cpu_seconds']:.0f} CPU s")


def _summary(runs: dict[str, Any]) -> None:
    from case.harness import interval

    groups: dict[tuple[str, float, str], list[float]] = {}
    for key, run in runs.items():
        groups.setdefault((key.split("/")[0], run["target"], run["method"]), []).append(run["error"])
    print(f"{'network':<14} {'kept':>8} {'method':<12} {'error, %':>16} {'seeds':>6}")
    for (network, target, method), errors in sorted(groups.items()):
        mean, half = interval(errors)
        print(f"{network:<14} {1 - target:>8.3%} {method:<12} {mean:>8.2f} ± {half:<5.2f} {len(errors):>6}")


def page(arguments: argparse.Namespace) -> None:
    from case.page import write_page

    folder = arguments.json or HERE / "results"
    write_page(folder, folder / "case_study.html")
    print(folder / "case_study.html")


def _file(arguments: argparse.Namespace, name: str) -> Path:
    path: Path = arguments.json or HERE / "results" / f"case_study_{name}.json"
    return path


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    which = parser.add_mutually_exclusive_group(required=True)
    studies = {"paper": paper, "ours": ours, "groups": groups, "cifar": cifar, "duality": duality, "page": page}
    for name, study in studies.items():
        which.add_argument(f"--{name}", dest="study", action="store_const", const=study)
    parser.add_argument("--json", type=Path, help="results file (of --page: its folder); by default benchmarks/results")
    parser.add_argument("--epochs", type=int, help="in place of the study's own number")
    parser.add_argument("--rows", nargs="+", help="only these strategies or methods")
    parser.add_argument("--networks", nargs="+", help="only these networks")
    parser.add_argument("--targets", nargs="+", type=float, help="only these sparsities")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2, 3, 4])
    parser.add_argument("--validation", action="store_true", help="report the error on 5,000 held-out training images")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    arguments.study(arguments)
    return 0


if __name__ == "__main__":
    sys.exit(main())
