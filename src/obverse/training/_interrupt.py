"""Ctrl-C asks a run to stop at the end of its step, instead of tearing it apart in the middle."""

from __future__ import annotations

import signal
import threading
from types import FrameType, TracebackType
from typing import Any, Protocol

from ..errors import ObverseError

__all__ = ["Asking", "InterruptedRunError", "StopRequest"]


class InterruptedRunError(ObverseError, KeyboardInterrupt):
    """A run was asked to stop; its checkpoint resumes to the result of an uninterrupted run."""


class Asking(Protocol):
    """Whatever may ask a run to stop."""

    @property
    def asked(self) -> bool:
        """Whether it does."""


class StopRequest:
    """While entered, SIGINT and SIGTERM set `asked`; a second SIGINT interrupts at once.

    Outside the main thread, where Python delivers no signals, it does nothing.
    """

    def __init__(self) -> None:
        self.asked = False
        self._interrupts = 0
        self._previous: dict[int, Any] = {}

    def __enter__(self) -> StopRequest:
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                self._previous[number] = signal.signal(number, self._ask)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._previous.items():
            # None stands for a handler that was not installed from Python and cannot be put back.
            if handler is not None:
                signal.signal(number, handler)
        self._previous.clear()

    def _ask(self, number: int, frame: FrameType | None) -> None:
        self.asked = True
        if number == signal.SIGINT:
            self._interrupts += 1
            if self._interrupts > 1:
                raise KeyboardInterrupt
