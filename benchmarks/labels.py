"""Label regularizers on MNIST and CIFAR-10 with wrong labels: error, likelihood and calibration of every method.

    python benchmarks/labels.py                                        # all: some two hours of one core
    python benchmarks/labels.py --workers 2                            # two runs at a time
    python benchmarks/labels.py --data mnist --noises none --seeds 0   # some
    python benchmarks/labels.py --table                                # only print what is in the results file

A small residual network is trained by SGD with momentum 0.9, learning rate 0.1 and a cosine to zero, weight decay
5e-4, batches of 64, on 2000 images of half size; CIFAR-10 with flips and shifts. Labels are flipped to any other class
(symmetric) or to one that looks alike (asymmetric), the same ones for all methods and seeds. Held-out rows have noisy
labels too: where a method is tried with several values, that with the lowest error on them is told, averaged over the
seeds. What is told is measured on the clean test set, which chooses nothing: error, negative log-likelihood, expected
calibration error (15 bins of equal width) as trained, after temperature scaling on the noisy held-out rows, and on the
same rows with true labels.

Every run is written to the results file as it ends and not run again, so an interrupted study goes on where it was.
"""

from __future__ import annotations

import argparse
import itertools
import json
import multiprocessing
import os
import statistics
import sys
import time
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from functools import cache
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))
EPOCHS = {"cifar10": 10, "mnist": 6}
HELD_OUT = 1000
BASELINE = "label smoothing"
Job = tuple[str, str, str, float, int]


def jobs(arguments: argparse.Namespace) -> list[Job]:
    """What is to be run, seed by seed, the defaults of all methods first."""
    from label_cases.methods import METHODS

    most = max(len(method.values) for method in METHODS.values())
    return [
        (data, noise, name, METHODS[name].values[place], seed)
        for seed, place, data, noise, name in itertools.product(
            arguments.seeds, range(most), arguments.data, arguments.noises, arguments.methods
        )
        if place < len(METHODS[name].values)
    ]


def key(job: Job) -> str:
    data, noise, name, value, seed = job
    return f"{data}/{noise}/{name}/{value:g}/{seed}"


@cache
def _loaded(data: str) -> Any:
    from label_cases import tasks

    return tasks.load(data)


@cache
def _task(data: str, noise: str, rows: int, device: str, test_rows: int | None) -> Any:
    from label_cases import tasks

    return tasks.task(_loaded(data), data, noise, rows, HELD_OUT, device, test_rows)


def work(job: Job, settings: dict[str, Any], device: str) -> tuple[str, dict[str, Any]]:
    """One run, in a process of its own."""
    import torch
    from label_cases.training import run

    torch.set_num_threads(settings["threads"])
    data, noise, name, value, seed = job
    started = time.perf_counter()
    task = _task(data, noise, settings["rows"], device, settings["test_rows"])
    found = run(name, value, task, seed, settings["epochs"][data])
    return key(job), {**found, "seconds": round(time.perf_counter() - started, 1)}


def measure(options: argparse.Namespace, settings: dict[str, Any], runs: dict[str, Any]) -> None:
    """Run what is missing, as many at a time as there are workers, and write each run as it ends."""
    missing = [job for job in jobs(options) if key(job) not in runs]
    print(f"{len(runs)} runs are there, {len(missing)} to go", flush=True)
    os.environ["OMP_NUM_THREADS"] = str(options.threads)
    end = time.monotonic() + 60 * options.minutes
    with ProcessPoolExecutor(options.workers, multiprocessing.get_context("spawn")) as pool:
        failed = 0
        pending: set[Future[tuple[str, dict[str, Any]]]] = set()
        while True:
            while missing and len(pending) <= options.workers and time.monotonic() < end:
                pending.add(pool.submit(work, missing.pop(0), settings, options.device))
            if not pending:
                break
            done, pending = wait(pending, return_when=FIRST_COMPLETED)
            for future in done:
                if error := future.exception():
                    failed += 1
                    print(f"failed: {error}", file=sys.stderr, flush=True)
                    continue
                name, run = future.result()
                runs[name] = run
                told = f"error {run['error']:.2f} %, ece {100 * run['ece']:.2f} %, {run['seconds']} s"
                print(f"[{time.strftime('%H:%M:%S')}] {name}: {told}", flush=True)
            options.json.parent.mkdir(parents=True, exist_ok=True)
            fresh = options.json.with_suffix(".part")
            fresh.write_text(json.dumps({"settings": settings, "runs": runs}, indent=1) + "\n")
            fresh.replace(options.json)
    if failed:
        sys.exit(f"{failed} runs failed; the others are in {options.json}")


def table(runs: dict[str, Any]) -> None:
    """One block per data set and noise, each method at the value that held-out rows choose."""
    from case.harness import interval

    grouped: dict[tuple[str, str], dict[str, dict[float, dict[int, dict[str, Any]]]]] = {}
    for name, run in runs.items():
        data, noise, method, value, seed = name.split("/")
        by_value = grouped.setdefault((data, noise), {}).setdefault(method, {})
        by_value.setdefault(float(value), {})[int(seed)] = run
    columns = ("error", "nll", "ece", "ece, noisy", "ece, clean", "nll, clean", "winning")
    scales = (1, 1, 100, 100, 100, 1, 1)
    for (data, noise), methods in sorted(grouped.items()):
        print(f"\n{data}, {noise}")
        heads = ("error %", "nll", "ece %", "scaled, noisy", "scaled, clean", "nll scaled", "winning", "to smoothing")
        print(f"  {'method':<22}{'value':>6}" + "".join(f"{head:>15}" for head in heads))
        chosen = {
            method: min(values, key=lambda v: statistics.mean(r["held_out_error"] for r in values[v].values()))
            for method, values in methods.items()
        }
        baseline = methods.get(BASELINE, {}).get(chosen.get(BASELINE, 0.0), {})
        for method, values in methods.items():
            found = values[chosen[method]]
            cells = ["{:.2f} ± {:.2f}".format(*interval([scale * run[column] for run in found.values()]))
                     for column, scale in zip(columns, scales, strict=True)]  # fmt: skip
            # Of the error, seed by seed: the scatter of what both methods share drops out.
            pairs = [found[seed]["error"] - baseline[seed]["error"] for seed in sorted(set(found) & set(baseline))]
            cells.append("{:+.2f} ± {:.2f}".format(*interval(pairs)) if pairs else "")
            print(
                f"  {method:<22}{chosen[method]:>6g}"
                + "".join(f"{c:>15}" for c in cells)
                + ("" if len(found) == 3 else f"  ({len(found)})")
            )


def main() -> None:
    from label_cases.methods import METHODS
    from label_cases.tasks import DATA, NOISES

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, default=HERE / "results" / "labels.json")
    parser.add_argument("--data", nargs="+", default=list(DATA), choices=DATA)
    parser.add_argument("--noises", nargs="+", default=list(NOISES), choices=NOISES)
    parser.add_argument("--methods", nargs="+", default=list(METHODS), choices=METHODS)
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--rows", type=int, default=2000)
    parser.add_argument("--test-rows", type=int, default=5000)
    parser.add_argument("--epochs", type=int, help="of all data sets [10 for cifar10, 6 for mnist]")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--threads", type=int, default=1, help="of each worker")
    parser.add_argument("--minutes", type=float, default=float("inf"), help="begin no run after so many")
    parser.add_argument("--table", action="store_true", help="only print what is in the results file")
    options = parser.parse_args()
    epochs = {name: options.epochs or count for name, count in EPOCHS.items()}
    settings = {"rows": options.rows, "test_rows": options.test_rows, "epochs": epochs, "threads": options.threads}
    stored = json.loads(options.json.read_text()) if options.json.exists() else {"settings": settings, "runs": {}}
    if stored["settings"] != settings and not options.table:
        sys.exit(f"{options.json} holds runs with other settings: {stored['settings']}; give another --json")
    runs = stored["runs"]
    if not options.table:
        measure(options, settings, runs)
    table(runs)


if __name__ == "__main__":
    main()
