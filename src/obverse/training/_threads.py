"""Chooses the number of CPU threads of a run: as the environment says, else by timing a few steps.

Threads pay for large products and cost for small ones, and on a machine that is busy with other work a second thread
waits for its core at every product: two threads can be ten times slower than one. No rule knows that, so it is timed.
"""

from __future__ import annotations

import json
import os
import re
import statistics
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
import yaml
from torch import nn
from torch.nn import functional

from .._core.resources import available_cores
from ._split import Data
from ._yaml import read_yaml

__all__ = ["chosen_threads", "environment_threads", "faster"]

_SMALL_MODEL = 300_000
_MOST_THREADS = 8
_ROUNDS, _SECONDS = 7, 2.0
# More threads must save a tenth of the time: they are taken from others, and a difference may be chance.
_WORTH = 0.9


def chosen_threads(
    build: Callable[[], nn.Module],
    data: Data,
    batch_size: int,
    processes: int = 1,
    stored: Path | None = None,
    *,
    measure: bool = True,
) -> int:
    """The number of threads for a run that was given none.

    In this order: that of the stored run; ``OMP_NUM_THREADS`` or ``MKL_NUM_THREADS``; one for a small model of dense
    layers; and one or several, whichever trains faster in a few steps on a model of its own. The run's random numbers
    and its model are not touched.

    Parameters
    ----------
    build : callable
        Makes the model.
    data : Data
    batch_size : int
        Rows of a step over all processes.
    processes : int
        Number of processes that share the cores.
    stored : Path, optional
        A recipe or a record of choices with the field ``threads``.
    measure : bool
        Whether the CPU does the work; otherwise nothing is timed and the cores are shared out.
    """
    threads = _stored_threads(stored) or environment_threads(os.environ)
    if threads is None:
        threads = _own_choice(build, data, batch_size, processes, measure)
    return _agreed(threads, processes)


def _own_choice(build: Callable[[], nn.Module], data: Data, batch_size: int, processes: int, measure: bool) -> int:
    most = max(1, min(available_cores(), _MOST_THREADS) // processes)
    if most == 1:
        return 1
    with torch.random.fork_rng([]):
        model = build()
        small = sum(p.numel() for p in model.parameters()) < _SMALL_MODEL
        # Waking a second thread costs more than a small matrix product.
        if small and not any(isinstance(module, nn.modules.conv._ConvNd) for module in model.modules()):
            return 1
        return _timed(model, data, max(1, batch_size // processes), most) if measure else most


def environment_threads(environment: Mapping[str, str]) -> int | None:
    """The number of threads that the environment asks for, as OpenMP and MKL read it; None where it does not."""
    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS"):
        # OpenMP takes a list, one number for each level of nesting.
        match = re.fullmatch(r"\s*(\d{1,6})\s*(,.*)?", environment.get(name, ""))
        if match is not None and int(match[1]) > 0:
            return min(int(match[1]), 1024)
    return None


def faster(seconds: Callable[[int], float], most: int) -> int:
    """One thread or ``most``, whichever took less time in the median over interleaved rounds.

    Parameters
    ----------
    seconds : callable
        Takes a number of threads, makes one step and gives the seconds that it took.
    most : int
    """
    # The first step of each is slower: memory is allocated, and kernels are chosen.
    spent = seconds(1) + seconds(most)
    times: dict[int, list[float]] = {1: [], most: []}
    while len(times[1]) < _ROUNDS and (spent < _SECONDS or not times[1]):
        for threads, taken in times.items():
            taken.append(seconds(threads))
            spent += taken[-1]
    return most if statistics.median(times[most]) < _WORTH * statistics.median(times[1]) else 1


def _timed(model: nn.Module, data: Data, rows: int, most: int) -> int:
    """The faster number of threads for forward and backward passes of a model that is thrown away."""
    inputs, labels = data.normalize(data.train.inputs[:rows]), data.train.labels[:rows]
    model = model.train().to(inputs.device)

    def seconds(threads: int) -> float:
        torch.set_num_threads(threads)
        start = time.perf_counter()
        loss = functional.cross_entropy(model(inputs).float(), labels)
        torch.autograd.backward(loss)
        return time.perf_counter() - start

    before = torch.get_num_threads()
    try:
        return faster(seconds, most)
    except Exception:  # a model from a factory may raise anything, and the run will say it better
        return 1
    finally:
        torch.set_num_threads(before)


def _agreed(threads: int, processes: int) -> int:
    """The choice of the first process, for all: their numbers must be those of one recipe."""
    if processes == 1:
        return threads
    from accelerate.utils import broadcast_object_list

    choice = [threads]
    broadcast_object_list(choice)
    return int(choice[0])


def _stored_threads(path: Path | None) -> int | None:
    """The field ``threads`` of a recipe in YAML or of choices in JSON, None for a file without it."""
    if path is None or not path.is_file():
        return None
    try:
        text = path.read_text(encoding="utf-8")
        content: Any = json.loads(text)["choices"] if path.suffix == ".json" else read_yaml(text)
        threads = content["threads"]
    except (OSError, ValueError, KeyError, TypeError, RecursionError, yaml.YAMLError):
        return None
    return threads if isinstance(threads, int) and 1 <= threads <= 1024 else None
