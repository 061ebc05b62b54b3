"""The case study: sparsifying strategies in deep networks, on the paper's task and past it.

    python benchmarks/case_study.py --paper      # the paper's table and curves, LeNet-300-100, 200 epochs

Every run is written to the results file as it ends, and not run again: an interrupted study goes on where it was, and
several processes may work on different rows of one file.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

import torch

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))


def say(line: str) -> None:
    print(f"[{time.strftime('%H:%M:%S')}] {line}", flush=True)


def paper(arguments: argparse.Namespace) -> None:
    from case import harness
    from case import paper as study

    results = harness.Results(
        arguments.json or HERE / "results" / "case_study_paper.json", {"epochs": arguments.epochs or 200, "seed": 0}
    )
    parts = harness.mnist()
    rows = arguments.rows or list(study.STRATEGIES)
    for name in rows:
        results.run(name, lambda name=name: study.run(name, parts, arguments.epochs or 200, 0, say))
    print(f"{'strategy':<22} {'test error, %':>14} {'published':>10} {'kept, %':>8} {'published':>10} {'CPU s':>6}")
    for name, run in results.runs.items():
        published = study.PUBLISHED.get(name)
        columns = (f"{published[0]:.2f}", f"{100 * published[1]:.2f}") if published else ("", "")
        print(
            f"{name:<22} {run['test_error']:>14.2f} {columns[0]:>10} {100 * run['density']:>8.2f} {columns[1]:>10} "
            f"{run['cpu_seconds']:>6.0f}"
        )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    which = parser.add_mutually_exclusive_group(required=True)
    which.add_argument("--paper", action="store_true", help="the paper's seven rows, and the library's beside them")
    parser.add_argument("--json", type=Path, help="results file; by default in benchmarks/results")
    parser.add_argument("--epochs", type=int, help="in place of the study's own number")
    parser.add_argument("--rows", nargs="+", help="only these rows")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    paper(arguments)
    return 0


if __name__ == "__main__":
    sys.exit(main())
