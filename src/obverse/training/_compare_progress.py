"""What a comparison shows while it runs: one bar over all cells on a terminal, plain lines elsewhere."""

from __future__ import annotations

import time
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn

from ._cells import Cell
from ._progress import LiveDisplay, epoch_state
from ._trainer import Trainer

__all__ = ["CompareDisplay"]

# Without a terminal, a long cell gives a sign of life this often.
_LINE_SECONDS = 60.0


class CompareDisplay(LiveDisplay):
    """Follows the cells of a comparison; use it as a context manager.

    Parameters
    ----------
    console : rich.console.Console, optional
        By default nothing is shown.
    """

    def __init__(self, console: Console | None = None) -> None:
        super().__init__(
            console, BarColumn(bar_width=24), MofNCompleteColumn(), TextColumn("{task.description}", markup=False)
        )
        self._cell, self._done, self._total = "", 0, 0
        self._last = time.monotonic()

    def __enter__(self) -> Self:
        if self._bar is not None:
            self._task = self._bar.add_task("starting", total=None)
        return super().__enter__()

    # ------------------------------------------------------------------ cells
    def cell(self, cell: Cell, done: int, total: int) -> None:
        """A cell begins; ``done`` of ``total`` cells have ended, here or elsewhere."""
        self._cell, self._done, self._total = cell.title, done, total
        self._last = time.monotonic()
        self._show("starting", 0.0)

    def ended(self, text: str) -> None:
        """The cell has ended; ``text`` says how."""
        self._done += 1
        self._line(f"[{self._done}/{self._total}] {self._cell}: {text}")
        self._show("done", 0.0)

    def waiting(self, elsewhere: int, done: int, total: int) -> None:
        """Nothing is left to take, but others are not done."""
        plural = "cell is" if elsewhere == 1 else "cells are"
        text = f"{elsewhere} {plural} still running in other processes"
        if self._bar is not None:
            self._bar.update(self._task, completed=done, total=total, description=text)
        elif self._cell != text:
            self._line(text)
        self._cell = text

    # ------------------------------------------------------------------ the run of a cell
    def start(self, trainer: Trainer) -> None:
        """A run begins, or goes on from its checkpoint."""
        if trainer.step and self._bar is None:
            self._line(f"{self._cell}: resumed at step {trainer.step} of {trainer.total_steps}")

    def step(self, trainer: Trainer, loss: float) -> None:
        """A step is done."""
        if self._bar is not None:
            epoch = f"epoch {min(trainer.epoch + 1, trainer.epochs)}/{trainer.epochs}  loss {loss:.4f}"
            self._show(epoch, trainer.step / trainer.total_steps)

    def epoch(self, trainer: Trainer) -> None:
        """An epoch is done."""
        if self._bar is None and time.monotonic() - self._last > _LINE_SECONDS:
            self._line(f"{self._cell}  {epoch_state(trainer)}")
            self._last = time.monotonic()

    def end(self, trainer: Trainer) -> None:
        """A run is done: say what there is to say about it."""
        for note in trainer.sparsifier.notes:
            self._line(f"{self._cell}: {note}")

    def _show(self, state: str, share: float) -> None:
        if self._bar is not None:
            # A cell that runs counts for the part of it that is done.
            self._bar.update(
                self._task, completed=self._done + share, total=self._total, description=f"{self._cell}  {state}"
            )
