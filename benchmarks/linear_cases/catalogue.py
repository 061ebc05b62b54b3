"""All cells by name."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from . import cells as measurement
from .families import FAMILIES
from .problems import NAMES

__all__ = ["cells", "study"]

Work = Callable[[], dict[str, Any]]


def cells(repeats: int) -> dict[str, Work]:
    """Every cell of times and memory: ``problem/task/family``."""
    from . import folds, processes

    works: dict[str, Work] = {
        f"{problem}/{task}/{family}": partial(measurement.measure, problem, task, family, repeats)
        for problem in NAMES
        for task in measurement.TASKS
        for family in FAMILIES
    }
    for problem in ("a", "b"):
        for family in ("lasso", "mcp"):
            works[f"{problem}/cv/{family}"] = partial(folds.measure, problem, family, repeats)
        works[f"{problem}/cv2d/mcp"] = partial(folds.two_dimensional, problem, repeats)
    for problem in ("a", "c"):
        for family in ("lasso", "mcp"):
            works[f"{problem}/memory/{family}"] = partial(_memory, problem, family)
    works["process/cold/first fit"] = partial(processes.cold, repeats)
    return works


def _memory(problem: str, family: str) -> dict[str, Any]:
    """With the tolerances that a path needs, found as for its time."""
    from . import processes

    rows = measurement.measure(problem, "path10", family, 1)["solvers"]
    return processes.memory(
        problem, family, {name: row["tolerance"] for name, row in rows.items() if row.get("accurate")}
    )


def study(draws: int) -> dict[str, Work]:
    """Every data set of the study of known supports: ``snr/correlation/draw``."""
    from . import supports

    return {
        f"snr {snr:g}/correlation {rho:g}/{draw}": partial(supports.draw, snr, rho, draw)
        for draw in range(draws)
        for snr in supports.SNRS
        for rho in supports.CORRELATIONS
    }
