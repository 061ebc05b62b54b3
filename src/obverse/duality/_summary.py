"""What the command line shows of the catalogue and of one penalty."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from .._core.checks import positive
from ..errors import InvalidArgumentError
from ..penalties import Penalty, catalogue, penalty
from ._effective import effective_penalty
from ._expression import parse_expression
from ._subquadratic import check_subquadratic

__all__ = ["catalogue_summary", "chosen_penalty", "duality_summary", "print_catalogue", "print_duality"]

# Beyond it, the squares in the formulas are no finite numbers.
_MOST = 1e100

_FORMULAS = {
    "ridge": "w²/2",
    "lasso": "|w|",
    "lp": "|w|^p / p",
    "log-sum": "log(1 + |w|/ε)",
    "log2-sum": "log(1 + w²/ε)",
    "mcp": "|w| - w²/2κ, flat at κ",
    "scad": "|w|, bends, flat",
    "capped-l1": "min(|w|, κ)",
    "l0": "[w ≠ 0]",
    "targeted-dropout": "min(|w|, κ)²/2",
    "standout": "1 - (1+|w|) e^-|w|",
    "variational-dropout": "min_η w²/2η + K(η)",
    "empirical-bayes": "min_η w²/2η+log(1+cη)/2",
    "hard-concrete": "min_a w²/2η + cP(s≠0)",
    "concrete-dropout": "min_η w²/2η - cH(η)",
}


def catalogue_summary() -> list[dict[str, Any]]:
    """One record per penalty of the catalogue, at its default parameters."""
    rows = []
    for name, cls in catalogue().items():
        report = check_subquadratic(cls())
        rows.append(
            {
                "name": name,
                "formula": _FORMULAS.get(name, ""),
                "slope_at_zero": report.slope_at_zero,
                "exact_zeros": report.exact_zeros,
                "tail": report.tail,
                "curvature_limit": report.curvature_limit,
            }
        )
    return rows


def chosen_penalty(
    name: str | None, epsilon: float | None, parameters: Sequence[str], strength: float, keep_probability: str | None
) -> tuple[Penalty, str]:
    """The penalty that the command line asks for, and a title for it."""
    strength = positive("strength", strength)
    if (name is None) == (keep_probability is None):
        raise InvalidArgumentError("give either the name of a penalty or --keep-probability")
    if keep_probability is not None:
        if epsilon is not None or parameters:
            raise InvalidArgumentError("--epsilon and --set belong to a named penalty, not to --keep-probability")
        return effective_penalty(parse_expression(keep_probability), strength), f"keep probability {keep_probability}"
    arguments: dict[str, Any] = {} if epsilon is None else {"epsilon": epsilon}
    for text in parameters:
        key, equals, value = text.partition("=")
        if not equals or not key.strip():
            raise InvalidArgumentError(f"write --set name=value, got {text!r}")
        if key.strip() in arguments:
            raise InvalidArgumentError(f"{key.strip()} is given twice")
        try:
            arguments[key.strip()] = float(value)
        except ValueError:
            arguments[key.strip()] = value.strip()
    for key, number in arguments.items():
        if isinstance(number, float) and not abs(number) <= _MOST:
            raise InvalidArgumentError(f"{key} must be a finite number of at most {_MOST:g}, got {number:g}")
    assert name is not None
    chosen = penalty(name, **arguments)
    return chosen, str(chosen)


def duality_summary(chosen: Penalty, strength: float, title: str) -> dict[str, Any]:
    """Properties of a penalty and a table of both faces."""
    report = check_subquadratic(chosen)
    w = np.array([0.0, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0])
    columns = {
        "w": w,
        "value": chosen.value(w),
        "slope": chosen.slope(w),
        "eta": chosen.eta(w),
        "keep_probability": chosen.keep_probability(w, strength),
        "prox": chosen.prox(w, strength),
    }
    return {
        "penalty": title,
        "strength": strength,
        "slope_at_zero": report.slope_at_zero,
        "exact_zeros": report.exact_zeros,
        "tail": report.tail,
        "curvature_limit": report.curvature_limit,
        "table": {key: [float(x) for x in column] for key, column in columns.items()},
    }


def print_catalogue(rows: list[dict[str, Any]], as_json: bool) -> None:
    """Print the catalogue as a table or as JSON."""
    if as_json:
        print(json.dumps([_plain(row) for row in rows], indent=2))
        return
    from rich.console import Console
    from rich.table import Table

    table = Table(box=None, pad_edge=False, header_style="bold")
    for heading in ("name", "penalty", "slope at 0", "exact zeros", "tail", "curv. limit"):
        table.add_column(heading, no_wrap=heading in ("name", "tail"))
    for row in rows:
        zeros = "yes" if row["exact_zeros"] else "no"
        numbers = _short(row["slope_at_zero"]), zeros, row["tail"], _short(row["curvature_limit"])
        table.add_row(row["name"], _escaped(row["formula"]), *numbers)
    Console().print(table)


def print_duality(summary: dict[str, Any], as_json: bool, out: str | None) -> None:
    """Print one penalty as a table or as JSON."""
    if as_json:
        print(json.dumps(_plain({**summary, "picture": out}), indent=2))
        return
    from rich.console import Console
    from rich.table import Table

    console = Console()
    console.print(_escaped(summary["penalty"]), style="bold", highlight=False)
    zeros = "exact zeros" if summary["exact_zeros"] else "no exact zeros"
    console.print(
        f"slope at zero {_short(summary['slope_at_zero'])} ({zeros}), {summary['tail']} tail, "
        f"curvature limit {_short(summary['curvature_limit'])}, strength {_short(summary['strength'])}",
        highlight=False,
    )
    table = Table(box=None, pad_edge=False, header_style="bold")
    for heading in summary["table"]:
        table.add_column(heading.replace("_", " "), justify="right")
    for row in zip(*summary["table"].values(), strict=True):
        table.add_row(*map(_short, row))
    console.print(table)
    if out is not None:
        console.print(f"picture saved to {_escaped(out)}", highlight=False)


def _short(x: float) -> str:
    return "∞" if math.isinf(x) else f"{x:.4g}"


def _escaped(text: str) -> str:
    from rich.markup import escape

    return escape(text)


def _plain(value: Any) -> Any:
    """With infinities as text: JSON has none."""
    if isinstance(value, dict):
        return {key: _plain(x) for key, x in value.items()}
    if isinstance(value, list):
        return [_plain(x) for x in value]
    if isinstance(value, float) and not math.isfinite(value):
        return "inf" if value > 0 else "-inf" if value < 0 else "nan"
    return value
