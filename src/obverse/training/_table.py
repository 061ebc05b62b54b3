"""The last thing a study shows: one row per seed, and what they say together."""

from __future__ import annotations

from typing import Any

from rich.table import Table

__all__ = ["results_table"]


def results_table(metrics: dict[str, Any]) -> Table:
    """A table of the runs in ``metrics.json``: their zeros, or of dense runs their calibration."""
    if metrics["recipe"]["face"] == "none":
        return _dense_table(metrics)
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


def _dense_table(metrics: dict[str, Any]) -> Table:
    runs = metrics["runs"]
    labels = metrics["recipe"].get("labels")
    named = (metrics["data"]["name"], metrics["model"]["name"], labels and f"{labels['name']} labels")
    table = Table(title="  ".join(name for name in named if name))
    for heading in ("seed", "test error", "NLL", "calibration error", "temperature", "after scaling", "seconds"):
        table.add_column(heading, justify="right")
    for run in runs:
        test = run["test"]
        cells = [f"{test['error']:.2%}", f"{test['loss']:.3f}"]
        cells += [
            format(test[field], digits) if test.get(field) is not None else "-"
            for field, digits in (
                ("calibration_error", ".2%"),
                ("temperature", ".2f"),
                ("scaled_calibration_error", ".2%"),
            )
        ]
        table.add_row(str(run["seed"]), *cells, f"{run['seconds']:.1f}")
    bounded = [str(run["seed"]) for run in runs if run["test"].get("temperature_is_bounded")]
    if bounded:
        table.caption = (
            f"Seed {', '.join(bounded)}: the validation rows determine no temperature (too few, or all right); a safe "
            "one is used."
        )
    if len(runs) > 1:
        error, interval = (metrics["summary"]["test_error"][key] for key in ("mean", "interval"))
        table.add_section()
        table.add_row("mean", f"{error:.2%} ± {interval:.2%}")
    return table


def _bytes(count: float) -> str:
    for unit in ("B", "KiB", "MiB"):
        if count < 1024:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1024
    return f"{count:.1f} GiB"
