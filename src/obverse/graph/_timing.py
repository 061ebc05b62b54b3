"""Timing several calls against each other, so that a drift of the machine's speed meets all of them alike."""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch

__all__ = ["Interval", "compare_times", "interval_of"]

# One sample is about this long: many calls of what is short.
_SAMPLE_SECONDS = 2e-3


@dataclass(frozen=True)
class Interval:
    """A median with its 95 % interval.

    Attributes
    ----------
    median, low, high : float
    """

    median: float
    low: float
    high: float

    def to_dict(self) -> dict[str, float]:
        """Plain numbers."""
        return asdict(self)


def interval_of(samples: Sequence[float]) -> Interval:
    """Median of samples, and the 95 % interval of it from their order.

    The ranks are ``n/2 - 1.96 sqrt(n)/2``, rounded down, and its mirror: the normal approximation of the binomial law
    of how many of ``n`` samples lie below the median, which assumes nothing else of their distribution. Below 6
    samples it is their whole range.
    """
    ordered = sorted(samples)
    count = len(ordered)
    reach = 0.98 * math.sqrt(count)
    low = max(0, math.floor(count / 2 - reach) - 1)
    high = min(count - 1, math.ceil(count / 2 + reach))
    return Interval(statistics.median(ordered), ordered[low], ordered[high])


def compare_times(
    calls: Mapping[str, Callable[[], Any]], repeats: int, device: torch.device | None = None
) -> dict[str, list[float]]:
    """Seconds per call, ``repeats`` samples each, the calls in turn within every round.

    Parameters
    ----------
    calls : mapping of str to callable
    repeats : int
        Rounds.
    device : torch.device, optional
        An accelerator is waited for before the clock is read.
    """

    def wait() -> None:
        if device is not None and device.type == "cuda":
            torch.cuda.synchronize(device)

    def sample(call: Callable[[], Any], count: int) -> float:
        call()  # a model that is served finds its weights in the caches, and not those of its rivals
        wait()
        started = time.perf_counter()
        for _ in range(count):
            call()
        wait()
        return (time.perf_counter() - started) / count

    counts: dict[str, int] = {}
    for name, call in calls.items():
        call()  # compiles
        counts[name] = max(1, math.ceil(_SAMPLE_SECONDS / max(sample(call, 2), 1e-9)))
    samples: dict[str, list[float]] = {name: [] for name in calls}
    for turn in range(repeats):
        # Who comes first changes: the first call after another one's finds the caches it left.
        order = list(calls) if turn % 2 == 0 else list(calls)[::-1]
        for name in order:
            samples[name].append(sample(calls[name], counts[name]))
    return samples
