"""Reads the numbers that ``obverse dropout spectrum`` is given, and prints what it finds."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Sequence
from typing import Any

from .errors import InvalidArgumentError

__all__ = ["numbers_of", "print_spectrum"]


def numbers_of(text: str, name: str) -> list[float]:
    """Numbers from text such as ``3,2,1``."""
    parts = [part for part in re.split(r"[,\s]+", text.strip()) if part]
    try:
        found = [float(part) for part in parts]
    except ValueError:
        found = []
    if not found or not all(map(math.isfinite, found)):
        raise InvalidArgumentError(f"{name} takes numbers with commas, such as 3,2,1; got {text!r}")
    return found


def print_spectrum(summary: dict[str, Any], as_json: bool, out: str | None) -> None:
    """Print the tables, or JSON."""
    if as_json:
        print(json.dumps({**summary, "picture": out}, indent=2, allow_nan=False))
        return
    from rich.console import Console
    from rich.table import Table

    console = Console()
    layers = "layer" if summary["depth"] == 1 else "layers"
    blocks = f" in blocks of {summary['block_size']}" if summary["block_size"] > 1 else ""
    console.print(
        f"{summary['depth']} dropped {layers} of {summary['width']} units{blocks}; least squares has singular values "
        f"{_listed(summary['singular_values'])}",
        highlight=False,
        soft_wrap=True,
    )
    table = Table(box=None, pad_edge=False, header_style="bold")
    for heading in ("keep", "rank", "singular values", "loss", "relaxed values", "relaxed loss"):
        table.add_column(heading, justify="right")
    for row in summary["rates"]:
        table.add_row(
            *(f"{row['keep_probability']:.4g}", str(row["rank"]), _listed(row["singular_values"])),
            *(f"{row['loss']:.4f}", _listed(row["relaxed_singular_values"]), f"{row['relaxed_loss']:.4f}"),
        )
    console.print(table)
    if summary["phases"]:
        table = Table(box=None, pad_edge=False, header_style="bold")
        for heading in ("rank falls", "at keep", "relaxed at", "values above", "values below", "step"):
            table.add_column(heading, justify="right")
        for step in summary["phases"]:
            relaxed = step["relaxed_keep_probability"]
            table.add_row(
                f"{step['rank_above']} to {step['rank_below']}",
                f"{step['keep_probability']:.4f}",
                "-" if relaxed is None else f"{relaxed:.4f}",
                *(_listed(step["singular_values_above"]), _listed(step["singular_values_below"])),
                "smooth" if step["continuous"] else "jump",
            )
        console.print()
        console.print(table)
    else:
        console.print("the rank falls at no keep probability", highlight=False)
    if out is not None:
        console.print(f"picture saved to {out}", markup=False, highlight=False, soft_wrap=True)


def _listed(values: Sequence[float], most: int = 4) -> str:
    shown = " ".join(f"{value:.3f}" for value in values[:most])
    return f"{shown} ..." if len(values) > most else shown
