"""Trackers: a csv file beside the run, or TensorBoard."""

from __future__ import annotations

import csv
import importlib.util
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from accelerate.tracking import GeneralTracker, filter_trackers, on_main_process

from .._core.files import write_atomically
from ..errors import InvalidArgumentError

__all__ = ["CsvTracker", "check_tracker", "tracking", "write_history"]

_HISTORY = "history.csv"


class CsvTracker(GeneralTracker):  # type: ignore[misc]
    """One line per epoch in ``history.csv``.

    Parameters
    ----------
    folder : Path
        Of the run.
    history : sequence of dict
        Entries of the epochs before, from the checkpoint that a run resumes from.
    """

    name = "csv"
    requires_logging_directory = False

    def __init__(self, folder: Path, history: Sequence[dict[str, Any]]) -> None:
        super().__init__()
        self._folder, self._entries = folder, list(history)

    @property
    def tracker(self) -> CsvTracker:
        """Accelerate asks for what it logs through; here, the tracker itself."""
        return self

    @on_main_process  # type: ignore[untyped-decorator]
    def log(self, values: dict[str, Any], step: int | None = None, **kwargs: Any) -> None:
        """Add the line of one epoch."""
        self._entries.append(values)
        write_history(self._folder, self._entries)


def write_history(folder: Path, history: Sequence[dict[str, Any]]) -> None:
    """Write ``history.csv``, one line for each epoch."""

    def write(file: Path) -> None:
        with open(file, "w", newline="", encoding="utf-8") as lines:
            writer = csv.DictWriter(lines, fieldnames=list(history[-1]))
            writer.writeheader()
            writer.writerows(history)

    write_atomically(folder / _HISTORY, write)


def check_tracker(kind: str) -> None:
    """Raise when the package that a tracker needs is not installed."""
    if kind == "tensorboard" and importlib.util.find_spec("tensorboard") is None:
        raise InvalidArgumentError("tracker 'tensorboard' needs the package: pip install tensorboard")


@contextmanager
def tracking(
    accelerator: Any, kind: str, folder: Path, history: Sequence[dict[str, Any]]
) -> Iterator[Callable[[dict[str, Any]], None]]:
    """A function that hands an epoch's entry to the tracker of Accelerate by this name."""
    if kind == "none":
        yield lambda entry: None
        return
    chosen = CsvTracker(folder, history) if kind == "csv" else kind
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
