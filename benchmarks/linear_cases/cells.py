"""One cell: a problem, a task and a family of penalties, and the time that every solver takes to the same accuracy."""

from __future__ import annotations

import gc
import statistics
import time
from collections.abc import Callable, Collection
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt

from .checker import Verdict, judge
from .families import FAMILIES, Family
from .problems import Problem, load
from .solvers import SOLVERS, Solver, importable

__all__ = ["ACCURACY", "TASKS", "calibrate", "interleaved", "measure", "strengths"]

Floats = npt.NDArray[np.float64]

# Largest violation at which a solver counts as having solved the problem.
ACCURACY = 1e-6
# Objectives closer than this, relative, are level.
LEVEL = 1e-6
# Solvers that take this many times as long as the fastest rival are timed three times only.
SLOW = 6.0

TASKS = {
    "path10": "50 alphas down to a tenth of the largest, warm-started",
    "path50": "50 alphas down to a fiftieth of the largest, warm-started",
    "single": "one fit at a tenth of the largest alpha, from nothing",
}


def strengths(task: str, family: Family) -> Floats:
    largest = family.largest_alpha()
    if task == "single":
        return np.array([largest / 10])
    return largest * np.geomspace(1.0, 0.1 if task == "path10" else 0.02, 50)


@dataclass(frozen=True)
class Calibrated:
    """A solver at a tolerance: what it found, the verdict on that, and CPU seconds of this one run."""

    tolerance: float
    found: Any
    verdict: Verdict
    seconds: float

    @property
    def accurate(self) -> bool:
        return self.verdict.violation <= ACCURACY


def calibrate(solver: Solver, problem: Problem, family: Family, alphas: Floats) -> Calibrated:
    """The loosest tolerance of its ladder that is accurate, or else the most accurate that was tried.

    The ladder is entered where it usually ends: from there up while runs are accurate, or down until one is.
    """
    place = min(range(len(solver.ladder)), key=lambda rung: abs(np.log(solver.ladder[rung] / solver.usual)))
    best = _run(solver, problem, family, alphas, place)
    step = -1 if best.accurate else 1
    while 0 <= (place := place + step) < len(solver.ladder):
        run = _run(solver, problem, family, alphas, place)
        if step < 0 and not run.accurate:
            break
        if run.accurate or run.verdict.violation < best.verdict.violation:
            best = run
        if step > 0 and run.accurate:
            break
    return best


def _run(solver: Solver, problem: Problem, family: Family, alphas: Floats, place: int) -> Calibrated:
    started = time.process_time()
    found = solver.path(problem, family, alphas, solver.ladder[place])
    spent = time.process_time() - started
    return Calibrated(solver.ladder[place], found, judge(problem, family, alphas, solver.read(found)), spent)


def interleaved(
    works: dict[str, Callable[[], Any]], repeats: int, slow: Collection[str] = ()
) -> dict[str, list[float]]:
    """CPU seconds of every work, all of them once in every round; those in ``slow`` in the first three rounds only."""
    times: dict[str, list[float]] = {name: [] for name in works}
    for number in range(repeats):
        for name, work in works.items():
            if number >= 3 and name in slow:
                continue
            gc.collect()
            started = time.process_time()
            work()
            times[name].append(time.process_time() - started)
    return times


def measure(name: str, task: str, family_name: str, repeats: int) -> dict[str, Any]:
    """Every solver that offers the problem, at its calibrated tolerance; those that are not accurate are told apart."""
    problem, family = load(name), FAMILIES[family_name]
    alphas = strengths(task, family)
    known = importable()
    rows: dict[str, Any] = {}
    works: dict[str, Callable[[], Any]] = {}
    verdicts: dict[str, Verdict] = {}
    spent: dict[str, float] = {}
    for solver in SOLVERS.values():
        if solver.package not in ("obverse", *known) or not solver.offers(problem, family, alphas.size):
            continue
        try:
            best = calibrate(solver, problem, family, alphas)
        except Exception as error:
            rows[solver.name] = {"failed": f"{type(error).__name__}: {error}"[:200]}
            continue
        verdict = verdicts[solver.name] = best.verdict
        spent[solver.name] = best.seconds
        rows[solver.name] = {
            "tolerance": best.tolerance,
            "accurate": best.accurate,
            "violation": verdict.violation,
            "missed": verdict.missed,
            "kept": int(verdict.kept[-1]),
            "objective": float(verdict.objectives[-1]),
            "passes": solver.passes(best.found),
            "claimed_violation": solver.claims(best.found),
        }
        works[solver.name] = partial(solver.path, problem, family, alphas, best.tolerance)
        del best
    # The fastest rival decides; what takes many times as long needs no seventh repeat.
    fastest = min((seconds for solver_name, seconds in spent.items() if solver_name != "obverse"), default=0.0)
    slow = {solver_name for solver_name, seconds in spent.items() if seconds > SLOW * fastest} - {"obverse"}
    for solver_name, times in interleaved(works, repeats, slow).items():
        rows[solver_name]["repeats"] = len(times)
        rows[solver_name]["seconds"] = statistics.median(times)
        rows[solver_name]["spread"] = [min(times), max(times)]
    if "obverse" in verdicts:
        ours = verdicts["obverse"].objectives
        for solver_name, verdict in verdicts.items():
            if solver_name != "obverse":
                rows[solver_name] |= _compared(ours, verdict.objectives)
    return {"kind": "path", "problem": name, "task": task, "family": family_name, "repeats": repeats, "solvers": rows}


def _compared(ours: Floats, theirs: Floats) -> dict[str, Any]:
    """The library's objectives beside another's: the largest excess, and how often it wins, is level, and loses."""
    excess = (ours - theirs) / np.abs(theirs)
    return {
        "excess": float(excess.max()),
        "advantage": float(-excess.min()),
        "wins": int((excess < -LEVEL).sum()),
        "ties": int((np.abs(excess) <= LEVEL).sum()),
        "losses": int((excess > LEVEL).sum()),
    }
