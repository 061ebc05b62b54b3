"""The bars: what the benchmark is to show, and whether the results do."""

from __future__ import annotations

import statistics
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from .families import FAMILIES

__all__ = ["Bar", "best_rival", "judged", "ratio"]

Cells = dict[str, Any]


@dataclass(frozen=True)
class Bar:
    """One bar.

    Attributes
    ----------
    text : str
    reached : float or None
        None where no cell of its kind has been measured.
    limit : float
    worst : str
        The cell that decides.
    cells, behind : int
        How many cells count, and how many of them are past the limit.
    """

    text: str
    reached: float | None
    limit: float
    worst: str
    cells: int
    behind: int

    @property
    def verdict(self) -> str:
        if self.reached is None:
            return "not measured"
        return "met" if self.reached <= self.limit else "missed"


def best_rival(cell: dict[str, Any]) -> tuple[str, float] | None:
    """The fastest of the solvers that were accurate, the library left out."""
    times = {
        name: row["seconds"]
        for name, row in cell["solvers"].items()
        if not name.startswith("obverse") and row.get("accurate") and "seconds" in row
    }
    return min(times.items(), key=lambda item: item[1]) if times else None


def ours(cell: dict[str, Any]) -> dict[str, Any] | None:
    """The library's row, where it has one."""
    return next((row for name, row in cell["solvers"].items() if name.startswith("obverse")), None)


def ratio(cell: dict[str, Any], rival: str | None = None) -> float | None:
    """The library's time over that of the best rival, or of one rival (the fastest whose name begins so)."""
    mine = ours(cell)
    if mine is None or "seconds" not in mine:
        return None
    if rival is None:
        best = best_rival(cell)
        return mine["seconds"] / best[1] if best else None
    times = [
        row["seconds"]
        for name, row in cell["solvers"].items()
        if name.startswith(rival) and row.get("accurate") and "seconds" in row
    ]
    return mine["seconds"] / min(times) if times else None


def judged(cells: Cells) -> list[Bar]:
    """All bars."""
    paths = {key: cell for key, cell in cells.items() if cell["kind"] == "path"}

    def times(families: tuple[str, ...], single: bool) -> dict[str, float]:
        chosen = {
            key: ratio(cell)
            for key, cell in paths.items()
            if cell["family"] in families and (cell["task"] == "single") == single
        }
        return {key: value for key, value in chosen.items() if value is not None}

    lasso, folded = times(("lasso",), False), times(("mcp", "scad"), False)
    jumps = times(("l0.5", "l2/3", "log-sum", "variational-dropout"), False)
    validated = {key: cell for key, cell in cells.items() if cell["kind"] == "cv"}
    bars = [
        _every("lasso paths, time over the best rival's, everywhere", lasso, 1.0),
        _middle("lasso paths, median", lasso, 0.67),
        _every("MCP and SCAD paths, everywhere", folded, 0.33),
        _middle("MCP and SCAD paths, median", folded, 0.2),
        _every("l_q, log-sum and variational-dropout paths, everywhere", jumps, 0.2),
        _every("one alpha, all penalties", times(tuple(FAMILIES), True), 0.9),
    ]
    for rival, limit in (("adelie", 0.5), ("sklearn", 0.25), ("pycasso", 0.2), ("skglm", 0.05)):
        against = {key: ratio(cell, rival) for key, cell in validated.items()}
        # skglm's bar is about its class; by hand it is a different program.
        if rival == "skglm":
            against = {key: ratio(cell, "skglm class") for key, cell in validated.items()}
        bars.append(
            _every(
                f"cross-validation and refit, time over {rival}'s",
                {key: value for key, value in against.items() if value is not None},
                limit,
            )
        )
    flat = {key: value for key, cell in cells.items() if cell["kind"] == "cv2d" and (value := ratio(cell)) is not None}
    bars += [
        _every("cross-validation of 5 shapes, time over LassoCV's", flat, 3.0),
        _every("lasso objective, relative excess over any rival's", _excess(paths, ("lasso",), max), 1e-6),
        _every("violation that the checker finds", _rows(paths, "violation"), 1e-6),
        _every("peak memory beyond the rival's, MB", _memory(cells), 50.0),
    ]
    return bars


def _every(text: str, values: dict[str, float], limit: float) -> Bar:
    if not values:
        return Bar(text, None, limit, "", 0, 0)
    worst = max(values, key=lambda key: values[key])
    return Bar(text, values[worst], limit, worst, len(values), sum(value > limit for value in values.values()))


def _middle(text: str, values: dict[str, float], limit: float) -> Bar:
    if not values:
        return Bar(text, None, limit, "", 0, 0)
    middle = statistics.median(values.values())
    return Bar(text, middle, limit, "", len(values), sum(value > limit for value in values.values()))


def _excess(paths: Cells, families: tuple[str, ...], over: Callable[[list[float]], float]) -> dict[str, float]:
    found = {
        key: [row["excess"] for row in cell["solvers"].values() if row.get("accurate") and "excess" in row]
        for key, cell in paths.items()
        if cell["family"] in families
    }
    return {key: over(values) for key, values in found.items() if values}


def _rows(paths: Cells, entry: str) -> dict[str, float]:
    found = {key: ours(cell) for key, cell in paths.items()}
    return {key: row[entry] for key, row in found.items() if row is not None and entry in row}


def _memory(cells: Cells) -> dict[str, float]:
    """The library's peak less the smallest of the rivals', the hardest reading."""
    found: dict[str, float] = {}
    for key, cell in cells.items():
        if cell["kind"] != "memory":
            continue
        rivals = [
            row["megabytes"]
            for name, row in cell["solvers"].items()
            if not name.startswith("obverse") and "megabytes" in row
        ]
        mine = ours(cell)
        if rivals and mine is not None and "megabytes" in mine:
            found[key] = mine["megabytes"] - min(rivals)
    return found
