"""The last thing a study shows: one row per seed, and what they say together."""

from __future__ import annotations

from typing import Any

from rich.table import Table

__all__ = ["results_table"]


def results_table(metrics: dict[str, Any]) -> Table:
    """A table of the runs in ``metrics.json``."""
    runs, total = metrics["runs"], metrics["summary"]
    named = (metrics["data"]["name"], metrics["model"]["name"], metrics["penalty"]["name"])
    table = Table(title="  ".join(name for name in named if name))
    for heading in ("seed", "test error", "sparsity", "nonzeros", "dense", "sparse", "seconds"):
        table.add_column(heading, justify="right", no_wrap=True)
    for run in runs:
        table.add_row(
            str(run["seed"]),
            f"{run['test']['error']:.2%}",
            f"{run['sparsity']:.2%}",
            f"{run['size']['nonzero']:,}",
            _bytes(run["size"]["dense_bytes"]),
            _bytes(run["size"]["bitmask_bytes"]),
            f"{run['seconds']:.1f}",
        )
    if len(runs) > 1:
        table.add_section()
        table.add_row(
            "mean",
            f"{total['test_error']['mean']:.2%} ± {total['test_error']['interval']:.2%}",
            f"{total['sparsity']['mean']:.2%}",
            f"{sum(run['size']['nonzero'] for run in runs) / len(runs):,.0f}",
            "",
            f"{total['compression']:.1f}x less",
            f"{total['seconds']:.1f}",
        )
    return table


def _bytes(count: float) -> str:
    for unit in ("B", "KiB", "MiB"):
        if count < 1024:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1024
    return f"{count:.1f} GiB"
