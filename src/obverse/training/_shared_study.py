"""The cells of a comparison in a storage that several processes share; each cell is run by one of them at a time."""

from __future__ import annotations

import os
import platform
import threading
import time
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from types import TracebackType
from typing import Any

from ._cells import Cell
from ._interrupt import Asking
from ._locks import Lock, Locks

__all__ = ["CellRecord", "Claim", "SharedStudy"]

# A holder says that it is alive this often, and is taken for dead when it has said nothing for so long.
BEAT_SECONDS = 10.0
LEASE_SECONDS = 60.0


@dataclass(frozen=True)
class CellRecord:
    """What the storage knows of a cell.

    Attributes
    ----------
    cell : Cell
    state : str
        ``waiting``, ``running``, ``done`` or ``failed``.
    result : dict or None
        The numbers of a cell that is done.
    error : str or None
        Why it failed.
    """

    cell: Cell
    state: str
    result: dict[str, Any] | None = None
    error: str | None = None


class SharedStudy:
    """The trials of an Optuna study, seen as cells.

    A cell may have several trials: those that failed or were interrupted stay as they are, and a new one takes
    their place. Of several that are alive, which happens when two processes add the same cell at once, the oldest
    counts.

    Parameters
    ----------
    study : optuna.Study
    locks : Locks
        Of the output folder.
    """

    def __init__(self, study: Any, locks: Locks) -> None:
        self._study, self._locks = study, locks
        # When each lease was last seen to change, by this process's own clock: clocks of machines differ.
        self._seen: dict[int, tuple[Any, float]] = {}

    # ------------------------------------------------------------------ what all processes agree on
    @property
    def about(self) -> dict[str, Any]:
        """What the first process said of the study; empty before."""
        return dict(self._study.user_attrs.get("about", {}))

    def describe(self, about: dict[str, Any]) -> None:
        """Say what the study is, for all processes that join."""
        self._study.set_user_attr("about", about)

    def records(self) -> dict[Cell, CellRecord]:
        """Every cell once, in the order in which they were added."""
        found: dict[Cell, list[Any]] = {}
        for trial in self._trials():
            found.setdefault(_cell(trial), []).append(trial)
        return {cell: _record(cell, trials) for cell, trials in found.items()}

    def add(self, cells: Iterable[Cell]) -> None:
        """Queue cells, except those that are done, running or queued."""
        known = self.records()
        for cell in cells:
            if cell not in known or known[cell].state == "failed":
                self._enqueue(cell)

    # ------------------------------------------------------------------ taking a cell
    def claim(self, stop: Asking) -> Claim | None:
        """A cell to run, or None when none is waiting."""
        self._release_abandoned()
        while any(trial.state.name == "WAITING" for trial in self._trials()):
            trial = self._study.ask()
            frozen = next(t for t in self._study.get_trials(deepcopy=False) if t.number == trial.number)
            if "cell" not in frozen.user_attrs:
                # Another process took the last one, and Optuna made up a trial to ask for.
                self._end(trial.number, "PRUNED")
                continue
            cell = _cell(frozen)
            if any(_cell(t) == cell and t.number < trial.number and _is_alive(t) for t in self._trials()):
                self._end(trial.number, "PRUNED")
                continue
            # Some databases let two processes have the same trial, and a process that was taken for dead may be at
            # its cell still: on one machine, the lock decides. Whoever does not get it leaves the trial alone.
            lock = self._locks.get(cell.name)
            if not lock.take(timeout=2.0):
                continue
            if not any(t.number == trial.number and t.state.name == "RUNNING" for t in self._trials()):
                lock.release()
                continue
            trial.suggest_float("sparsity", 0.0, 1.0)
            trial.suggest_int("seed", 0, 2**31 - 1)
            return Claim(self, trial, cell, lock, stop)
        return None

    def running(self) -> int:
        """How many cells are being run, by whomever."""
        return sum(record.state == "running" for record in self.records().values())

    def _release_abandoned(self) -> None:
        """Queue the cells of processes that died."""
        for trial in self._trials():
            if trial.state.name == "RUNNING" and self._is_abandoned(trial):
                self._end(trial.number, "FAIL")
                self.add([_cell(trial)])

    def _is_abandoned(self, trial: Any) -> bool:
        lease = trial.user_attrs.get("lease")
        now = time.monotonic()
        seen, since = self._seen.get(trial.number, (None, now))
        if trial.number not in self._seen or seen != lease:
            self._seen[trial.number] = (lease, now)
            since = now
        lock = self._locks.get(_cell(trial).name)
        if lease is not None and lease["host"] == platform.node() and lock.path.exists():
            # On one machine the system knows: the locks of a process end with it, however it ends.
            if lock.take():
                lock.release()
                return True
            return False
        return now - since > LEASE_SECONDS

    # ------------------------------------------------------------------ the storage
    def _trials(self) -> list[Any]:
        return [trial for trial in self._study.get_trials(deepcopy=False) if "cell" in trial.user_attrs]

    def _enqueue(self, cell: Cell) -> None:
        fixed = {"sparsity": 0.0 if cell.budget is None else cell.budget, "seed": cell.seed}
        self._study.enqueue_trial(fixed, user_attrs={"cell": cell.to_dict()})

    def _end(self, number: int, state: str, values: list[float] | None = None) -> None:
        """End a trial, unless another process did."""
        from optuna.exceptions import UpdateFinishedTrialError
        from optuna.trial import TrialState

        with suppress(UpdateFinishedTrialError):
            self._study.tell(number, values, state=TrialState[state], skip_if_finished=True)


class Claim:
    """A cell that this process runs; a context manager that keeps saying so.

    Parameters
    ----------
    shared : SharedStudy
    trial : optuna.Trial
    cell : Cell
    lock : Lock
        Held; released at the end.
    stop : Asking
        Asks all of this process to stop.
    """

    def __init__(self, shared: SharedStudy, trial: Any, cell: Cell, lock: Lock, stop: Asking) -> None:
        self.cell = cell
        self.lost = False
        self._shared, self._trial, self._lock, self._stop = shared, trial, lock, stop
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._keep_alive, daemon=True)
        self._beats = 0

    @property
    def asked(self) -> bool:
        """Whether the run of the cell should stop: on request, or because another process has taken it."""
        return self._stop.asked or self.lost

    def __enter__(self) -> Claim:
        self._beat()
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._over.set()
        self._thread.join()
        self._lock.release()

    def done(self, result: dict[str, Any]) -> None:
        """The cell has its numbers."""
        self._say("result", result)
        self._shared._end(self._trial.number, "COMPLETE", [result["validation_error"], result["kept"]])

    def failed(self, error: str) -> None:
        """The cell cannot be run; the next start tries again."""
        self._say("error", error)
        self._shared._end(self._trial.number, "FAIL")

    def put_back(self) -> None:
        """The cell waits for whoever comes next, who goes on from its checkpoint."""
        self._shared._end(self._trial.number, "FAIL")
        self._shared.add([self.cell])

    def _keep_alive(self) -> None:
        while not self._over.wait(BEAT_SECONDS):
            try:
                self._beat()
            except Exception:
                # A storage that is away for a moment must not end a run of hours; at the end it has to be there.
                continue

    def _beat(self) -> None:
        self._beats += 1
        self._say("lease", {"host": platform.node(), "pid": os.getpid(), "beat": self._beats})

    def _say(self, name: str, value: Any) -> None:
        from optuna.exceptions import UpdateFinishedTrialError

        try:
            self._trial.set_user_attr(name, value)
        except UpdateFinishedTrialError:
            self.lost = True


def _cell(trial: Any) -> Cell:
    return Cell(**trial.user_attrs["cell"])


def _is_alive(trial: Any) -> bool:
    return trial.state.name in ("WAITING", "RUNNING", "COMPLETE")


def _record(cell: Cell, trials: list[Any]) -> CellRecord:
    """What its trials say of a cell: the oldest that is alive, else the one that failed last."""
    for state, name in (("COMPLETE", "done"), ("RUNNING", "running"), ("WAITING", "waiting")):
        for trial in trials:
            if trial.state.name == state:
                return CellRecord(cell, name, trial.user_attrs.get("result"))
    errors = [trial.user_attrs["error"] for trial in trials if "error" in trial.user_attrs]
    return CellRecord(cell, "failed", error=errors[-1] if errors else "interrupted")
