"""Cost of a tabulated proximal operator, as a multiple of the closed form of log-sum in the same run."""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from obverse.penalties import LogSum, TabulatedPenalty, VariationalDropout


def seconds(*calls: Callable[[], Any], repeats: int) -> list[float]:
    """Median time of each call, the calls taking turns so that a busy machine slows all of them alike."""
    times: list[list[float]] = [[] for _ in calls]
    for call in calls:
        call()
    for _ in range(repeats):
        for call, spent in zip(calls, times, strict=True):
            start = time.perf_counter()
            call()
            spent.append(time.perf_counter() - start)
    return [statistics.median(spent) for spent in times]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--weights", type=int, default=10**6)
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    random = np.random.default_rng(0)
    weights = random.standard_normal(options.weights)
    steps = np.exp(random.uniform(np.log(1e-3), np.log(0.2), options.weights))
    closed, variational = LogSum(0.1), VariationalDropout(scale=10.0)
    tabulated = TabulatedPenalty(lambda w: 1 / (w + 0.1), label="log-sum")
    rows = []
    for library in ("numpy", "torch"):
        for dtype in ("float64", "float32"):
            for kind in ("scalar", "array"):
                z: Any = weights.astype(dtype)
                step: Any = 0.05 if kind == "scalar" else steps.astype(dtype)
                if library == "torch":
                    z = torch.from_numpy(z)
                    step = step if kind == "scalar" else torch.from_numpy(step)
                base, table, learned = seconds(
                    *(lambda p=p, z=z, step=step: p.prox(z, step) for p in (closed, tabulated, variational)),
                    repeats=options.repeats,
                )
                rows.append(
                    {
                        "library": library,
                        "dtype": dtype,
                        "step": kind,
                        "log_sum_ms": 1e3 * base,
                        "tabulated_ratio": table / base,
                        "variational_dropout_ratio": learned / base,
                    }
                )
    print(f"proximal operator on {options.weights:,} weights, {options.threads} thread(s), median of {options.repeats}")
    print(f"{'library':8} {'dtype':8} {'step':7} {'log-sum ms':>10} {'tabulated':>10} {'VD':>8}")
    for row in rows:
        print(
            f"{row['library']:8} {row['dtype']:8} {row['step']:7} {row['log_sum_ms']:10.1f} "
            f"{row['tabulated_ratio']:9.2f}x {row['variational_dropout_ratio']:7.2f}x"
        )
    if options.json:
        options.json.write_text(json.dumps(rows, indent=2) + "\n")


if __name__ == "__main__":
    main()
