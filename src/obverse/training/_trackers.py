"""Trackers: a csv file beside the run, or TensorBoard."""

from __future__ import annotations

import csv
import importlib.util
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from accelerate.tracking import GeneralTracker, filter_trackers, on_main_process

from ..errors import InvalidArgumentError
from ._checkpoint import write_atomically

__all__ = ["CsvTracker", "check_tracker", "tracking"]


class CsvTracker(GeneralTracker):  # type: ignore[misc]
    """One line per epoch in ``history.csv``; after a resume, epochs that run again replace their lines.

    Parameters
    ----------
    path : Path
        The csv file.
    """

    name = "csv"
    requires_logging_directory = False

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.path = path
        self.rows: dict[int, dict[str, Any]] = {}
        if path.is_file():
            with open(path, newline="", encoding="utf-8") as file:
                self.rows = {int(row["epoch"]): dict(row) for row in csv.DictReader(file)}

    @property
    def tracker(self) -> CsvTracker:
        """Accelerate asks for what it logs through; here, the tracker itself."""
        return self

    @on_main_process  # type: ignore[untyped-decorator]
    def log(self, values: dict[str, Any], step: int | None = None, **kwargs: Any) -> None:
        """Add the line of one epoch."""
        epoch = int(values["epoch"])
        self.rows = {known: row for known, row in self.rows.items() if known < epoch} | {epoch: values}
        write_atomically(self.path, self._write)

    def _write(self, file: Path) -> None:
        with open(file, "w", newline="", encoding="utf-8") as lines:
            writer = csv.DictWriter(lines, fieldnames=list(self.rows[max(self.rows)]))
            writer.writeheader()
            writer.writerows(self.rows[epoch] for epoch in sorted(self.rows))


def check_tracker(kind: str) -> None:
    """Raise when the package that a tracker needs is not installed."""
    if kind == "tensorboard" and importlib.util.find_spec("tensorboard") is None:
        raise InvalidArgumentError("tracker 'tensorboard' needs the package: pip install tensorboard")


@contextmanager
def tracking(accelerator: Any, kind: str, folder: Path) -> Iterator[Callable[[dict[str, Any]], None]]:
    """A function that hands an epoch's entry to the tracker of Accelerate by this name."""
    if kind == "none":
        yield lambda entry: None
        return
    chosen = CsvTracker(folder / "history.csv") if kind == "csv" else kind
    accelerator.project_configuration.logging_dir = str(folder)
    accelerator.log_with = filter_trackers(chosen, accelerator.logging_dir)
    accelerator.init_trackers("tensorboard")
    try:
        yield lambda entry: accelerator.log(entry, step=entry["epoch"])
    finally:
        # Not end_training(): that would leave the group of processes, which the next seed needs.
        for each in accelerator.trackers:
            each.finish()
        accelerator.trackers = []
