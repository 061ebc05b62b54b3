"""What a run shows while it trains: a live bar on a terminal, plain lines elsewhere."""

from __future__ import annotations

from types import TracebackType
from typing import Any, Protocol, Self

from rich.console import Console
from rich.progress import BarColumn, Progress, ProgressColumn, TextColumn, TimeRemainingColumn

from ._trainer import Trainer

__all__ = ["Display", "LiveDisplay", "ProgressDisplay", "epoch_state"]

_MOST_LINES = 20


class Display(Protocol):
    """What a run tells while it trains."""

    def start(self, trainer: Trainer) -> None:
        """A run begins, or goes on from its checkpoint."""

    def step(self, trainer: Trainer, loss: float) -> None:
        """A step is done."""

    def epoch(self, trainer: Trainer) -> None:
        """An epoch is done."""

    def end(self, trainer: Trainer) -> None:
        """A run is done."""


class LiveDisplay:
    """A live bar on a terminal, and plain lines elsewhere; use it as a context manager.

    Parameters
    ----------
    console : rich.console.Console or None
        None shows nothing.
    *columns : rich.progress.ProgressColumn
        Of the bar.
    """

    def __init__(self, console: Console | None, *columns: ProgressColumn) -> None:
        self._console = Console(quiet=True) if console is None else console
        self._bar: Progress | None = None
        self._task: Any = None
        if self._console.is_terminal and not self._console.quiet:
            self._bar = Progress(*columns, console=self._console)

    def __enter__(self) -> Self:
        if self._bar is not None:
            self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.stop()

    def _line(self, text: str) -> None:
        self._console.print(text, markup=False, emoji=False, highlight=False, soft_wrap=True)


class ProgressDisplay(LiveDisplay):
    """Follows the runs of a study; use it as a context manager.

    Parameters
    ----------
    console : rich.console.Console, optional
        By default nothing is shown.
    """

    def __init__(self, console: Console | None = None) -> None:
        super().__init__(
            console,
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=24),
            TextColumn("{task.fields[state]}", markup=False),
            TimeRemainingColumn(compact=True),
        )

    def start(self, trainer: Trainer) -> None:
        """A run begins, or goes on from its checkpoint."""
        name = f"seed {trainer.seed}"
        if trainer.world > 1:
            self._line(f"{name}: {trainer.world} processes share each batch")
        if self._bar is not None:
            if self._task is not None:
                self._bar.remove_task(self._task)
            self._task = self._bar.add_task(name, total=trainer.total_steps, completed=trainer.step, state="starting")
        elif trainer.step:
            self._line(f"{name}: resumed at step {trainer.step} of {trainer.total_steps}")

    def step(self, trainer: Trainer, loss: float) -> None:
        """A step is done."""
        if self._bar is not None:
            self._bar.update(self._task, completed=trainer.step)
            if not trainer.history:
                self._bar.update(self._task, state=f"epoch 1/{trainer.epochs}  loss {loss:.4f}")

    def epoch(self, trainer: Trainer) -> None:
        """An epoch is done."""
        entry, state = trainer.history[-1], epoch_state(trainer)
        if self._bar is not None:
            self._bar.update(self._task, state=state)
            return
        every = -(-trainer.epochs // _MOST_LINES)
        if entry["epoch"] % every == 0 or entry["epoch"] == trainer.epochs:
            self._line(f"seed {trainer.seed}  {state}")

    def end(self, trainer: Trainer) -> None:
        """A run is done: say what there is to say about it."""
        for note in trainer.sparsifier.notes:
            self._line(f"seed {trainer.seed}  {note}")


def epoch_state(trainer: Trainer) -> str:
    """The last epoch in one line."""
    entry = trainer.history[-1]
    return (
        f"epoch {entry['epoch']}/{trainer.epochs}  loss {entry['train_loss']:.4f}  "
        f"validation {1 - entry['validation_error']:.2%}  sparsity {entry['sparsity']:.2%}  "
        f"strength {entry['strength']:.2e}  {entry['phase']}"
    )
