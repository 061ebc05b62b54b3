"""Linear models beside their rivals: times to the same accuracy, cross-validation, memory, supports that are known.

    python -m venv .venv-linear
    .venv-linear/bin/pip install -c constraints.txt -e . -r benchmarks/linear-requirements.txt
    .venv-linear/bin/pip install --no-deps adelie==1.1.52

makes an environment with the rivals (adelie asks for an older NumPy than it needs). Every rival is optional: those that
can be imported take part.

    python benchmarks/linear.py                                 # all cells, 7 repeats each
    python benchmarks/linear.py --cells 'a/*' '*/single/mcp'    # some, by pattern; --list shows them all
    python benchmarks/linear.py --study                         # supports that are known
    python benchmarks/linear.py --page                          # tables, bars, benchmarks/results/linear.html

Times are CPU seconds of one thread, medians over repeats that go round all solvers of a cell; solvers that take 6 times
as long as the fastest rival are repeated three times only. Every solver gets the loosest of its own tolerances at which
the largest violation of the first-order conditions is at most 1e-6 of the largest gradient at zero, by a checker that
shares no code with any of them. Every cell is written to the results file as it ends and not measured again: an
interrupted run goes on where it was.
"""

from __future__ import annotations

import argparse
import fnmatch
import os
import sys
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))
# Before anything is imported that makes threads.
os.environ.update({f"{library}_NUM_THREADS": "1" for library in ("OMP", "OPENBLAS", "MKL", "NUMBA")})


def say(line: str) -> None:
    print(f"[{time.strftime('%H:%M:%S')}] {line}", flush=True)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cells", nargs="+", default=["*"], help="patterns of cells, as --list names them")
    parser.add_argument("--list", action="store_true", help="name all cells")
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--fresh", action="store_true", help="measure cells again that are in the results")
    parser.add_argument("--study", action="store_true", help="supports that are known, in place of times")
    parser.add_argument("--draws", type=int, default=20, help="data sets of each setting of the study")
    parser.add_argument("--page", action="store_true", help="tables and page from the results; nothing is measured")
    parser.add_argument("--json", type=Path, default=HERE / "results" / "linear.json")
    parser.add_argument("--child", nargs=4, help=argparse.SUPPRESS)
    arguments = parser.parse_args()

    from linear_cases import catalogue, processes, report, solvers
    from linear_cases.results import Results

    solvers.silenced()
    if arguments.child:
        processes.child(*arguments.child)
        return 0
    if arguments.page:
        report.tell(arguments.json)
        print(report.draw(arguments.json))
        return 0
    known = solvers.importable()
    missing = [name for name in solvers.PACKAGES if name not in known]
    print("rivals:", ", ".join(f"{name} {version}" for name, version in known.items()))
    if missing:
        print("not installed, left out:", ", ".join(missing))
    works = catalogue.study(arguments.draws) if arguments.study else catalogue.cells(arguments.repeats)
    chosen = [key for key in works if any(fnmatch.fnmatch(key, pattern) for pattern in arguments.cells)]
    if arguments.list or not chosen:
        print("\n".join(works))
        return 0 if arguments.list else 2
    results = Results(
        arguments.json.with_stem(arguments.json.stem + "_study" if arguments.study else arguments.json.stem),
        arguments.fresh,
    )
    for key in chosen:
        if key in results.cells and not arguments.fresh:
            continue
        cell = results.run(key, works[key])
        say(f"{key}: {report.line(cell)}")
    if not arguments.study:
        report.tell(arguments.json)
    return 0


if __name__ == "__main__":
    sys.exit(main())
