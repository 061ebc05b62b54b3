"""Noisy and rare classes: the Jacobian penalty, uniform and adaptive, beside what one would use instead.

    python benchmarks/har.py                      # digits of 14x14, every method, 3 seeds
    python benchmarks/har.py --data cifar10       # color images of 16x16
    python benchmarks/har.py --data cifar10 --device cuda
    python benchmarks/har.py --table              # only print what is in the results file

Labels flip within two pairs of classes with probability 0.4, and these four classes have a tenth of the rows of the
others. Each method is run at three values of its one setting; the value is chosen by the balanced error on noisy
held-out rows, averaged over the seeds. The table shows errors on the clean test set, means over classes, for the noisy
and rare classes and the others apart. The test set chooses nothing.

Every run is written to the results file as it ends and not run again, so an interrupted study goes on where it was.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections import defaultdict
from dataclasses import replace
from functools import cache, partial
from pathlib import Path
from typing import Any

import torch

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))


def say(line: str) -> None:
    print(f"[{time.strftime('%H:%M:%S')}] {line}", flush=True)


def study(arguments: argparse.Namespace, results: Any, setting: Any) -> None:
    """Run the cells that are missing."""
    from har_cases import cells, data
    from har_cases.methods import METHODS, missing, values_of

    @cache
    def loaded() -> Any:
        return data.load(setting.data)

    @cache
    def task(seed: int) -> data.Task:
        return data.task(loaded(), setting.frequent, setting.test_rows, seed)

    def estimate(seed: int) -> dict[str, Any]:
        found: dict[str, Any] = results.run(f"cross-fit/{seed}", lambda: cells.cross_fitted(setting, task(seed), seed))
        return found

    for seed in arguments.seeds:
        for name in arguments.rows or METHODS:
            if name not in METHODS:
                sys.exit(f"no row {name!r}; there are {', '.join(map(repr, METHODS))}")
            if reason := missing(name):
                say(f"{name} left out: {reason}")
                continue
            if METHODS[name].strengths is not None:
                estimate(seed)
            for value in values_of(name, setting.data):
                key = f"{name}/{value:g}/{seed}"
                if key not in results.runs:
                    run = results.run(
                        key,
                        lambda name=name, value=value, seed=seed: cells.cell(
                            setting, name, value, seed, task(seed), partial(estimate, seed)
                        ),
                    )
                    noisy, other = _apart(run)
                    say(f"{key}: noisy and rare {noisy:.1f} %, other {other:.2f} %, {run['cpu_seconds']:.0f} CPU s")


def _apart(run: dict[str, Any], where: str = "test") -> tuple[float, float]:
    affected = set(run["noisy_and_rare"])
    errors = run[where]
    return (
        statistics.mean(error for label, error in enumerate(errors) if label in affected),
        statistics.mean(error for label, error in enumerate(errors) if label not in affected),
    )


def table(runs: dict[str, Any]) -> None:
    """The chosen value of every method, and its errors."""
    from case.harness import interval
    from har_cases.methods import METHODS

    groups: dict[str, dict[float, dict[int, dict[str, Any]]]] = defaultdict(lambda: defaultdict(dict))
    for key, run in runs.items():
        if not key.startswith("cross-fit/"):
            groups[run["method"]][run["value"]][run["seed"]] = run
    print(
        f"{'method':<15} {'chosen':>20} {'held out, %':>11} {'noisy and rare, %':>18} {'other, %':>13} "
        f"{'balanced, %':>13} {'CPU s':>6} {'seeds':>5}   held out / noisy and rare at each value"
    )
    chosen: dict[str, dict[int, dict[str, Any]]] = {}
    for name, method in METHODS.items():
        complete = groups.get(name, {})
        if not complete:
            continue
        most = max(len(by_seed) for by_seed in complete.values())
        held_out = {
            value: statistics.mean(statistics.mean(run["held_out"]) for run in by_seed.values())
            for value, by_seed in complete.items()
            if len(by_seed) == most
        }
        value = min(held_out, key=held_out.__getitem__)
        chosen[name] = by_seed = complete[value]
        noisy = interval([_apart(run)[0] for run in by_seed.values()])
        other = interval([_apart(run)[1] for run in by_seed.values()])
        both = interval([statistics.mean(run["test"]) for run in by_seed.values()])
        seconds = statistics.mean(run["cpu_seconds"] for run in by_seed.values())
        print(
            f"{name:<15} {f'{method.setting} {value:g}':>20} {held_out[value]:>11.1f} "
            f"{noisy[0]:>11.1f} ± {noisy[1]:<4.1f} "
            f"{other[0]:>6.2f} ± {other[1]:<4.2f} {both[0]:>6.1f} ± {both[1]:<4.1f} {seconds:>6.1f} {len(by_seed):>5}"
            f"   {_by_value(complete, held_out)}"
        )
    _expected(runs, groups)
    for name in ("uniform", "HAR", "HAR, every 4", "HAR+DRW"):
        if name in chosen and "ERM" in chosen:
            seeds = sorted(set(chosen[name]) & set(chosen["ERM"]))
            gains = [_apart(chosen["ERM"][seed])[0] - _apart(chosen[name][seed])[0] for seed in seeds]
            mean, half = interval(gains)
            each = ", ".join(f"{gain:.1f}" for gain in gains)
            print(f"{name} below ERM on the noisy and rare classes by {mean:.1f} ± {half:.1f} points ({each} by seed)")


def _by_value(complete: dict[float, dict[int, dict[str, Any]]], held_out: dict[float, float]) -> str:
    noisy = {value: statistics.mean(_apart(run)[0] for run in complete[value].values()) for value in held_out}
    return ", ".join(f"{value:g}: {held_out[value]:.1f} / {noisy[value]:.1f}" for value in sorted(held_out))


def _expected(runs: dict[str, Any], groups: dict[str, dict[float, dict[int, dict[str, Any]]]]) -> None:
    """What adaptive strengths promise beforehand: by theory, and by the runs with a uniform penalty."""
    from har_cases.cells import Setting

    from obverse.imbalance import gain_along_path, group_strengths, predicted_gain

    fitted = {int(key.split("/")[1]): found for key, found in runs.items() if key.startswith("cross-fit/")}
    for seed, found in fitted.items():
        gain = predicted_gain(found["error"], found["counts"]).adaptive
        print(f"predicted gain of adaptive strengths over one for all, seed {seed}: {gain:.2f}")
    path = {0.0: groups.get("ERM", {}).get(Setting.decay, {}), **dict(sorted(groups.get("uniform", {}).items()))}
    seeds = sorted(set.intersection(*(set(by_seed) for by_seed in path.values())) & set(fitted))
    if len(path) > 1 and seeds:
        along = gain_along_path(
            list(path), [[by_seed[seed]["held_out"] for by_seed in path.values()] for seed in seeds]
        )
        mean = [statistics.mean(column) for column in zip(*(fitted[seed]["error"] for seed in seeds), strict=True)]
        print("along the runs with a uniform penalty, on held-out rows, groups being classes:")
        print(along)
        rule = group_strengths(mean, fitted[seeds[0]]["counts"])
        print(f"gain of the adaptive strengths     {along.of(rule):.2f}")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", choices=["mnist", "cifar10"], default="mnist")
    parser.add_argument("--json", type=Path, help="results file; by default benchmarks/results/har_<data>.json")
    parser.add_argument("--rows", nargs="+", help="only these methods")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--table", action="store_true", help="run nothing")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    from case.harness import Results
    from har_cases.cells import SETTINGS

    setting = replace(SETTINGS[arguments.data], device=arguments.device)
    path = arguments.json or HERE / "results" / f"har_{arguments.data}.json"
    results = Results(path, setting.to_dict())
    if not arguments.table:
        study(arguments, results, setting)
    table(results.runs)
    return 0


if __name__ == "__main__":
    sys.exit(main())
