"""The machine a run finds: device, precision, repeatable kernels, and what a recipe leaves for it to decide."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ..errors import InvalidArgumentError
from ._models import build_model
from ._recipe import Recipe
from ._split import Data
from ._threads import chosen_threads

__all__ = ["accelerator_of", "decided", "torch_settings"]

# Enough steps for the ramp of a budget to be gentle, within bounds that keep small data short.
_STEPS = 2500
_FEWEST_EPOCHS, _MOST_EPOCHS = 20, 200
# Where launchers say how many processes they started: torch and Accelerate, and three kinds of MPI.
_LAUNCHED = ["WORLD_SIZE", "PMI_SIZE", "OMPI_COMM_WORLD_SIZE", "MV2_COMM_WORLD_SIZE"]


def accelerator_of(recipe: Recipe) -> Any:
    """Device, precision and processes of a run.

    Raises
    ------
    InvalidArgumentError
        When the device does not know the precision, or when a launcher started several processes that would not work
        together on the device: each of them would train the whole run.
    """
    from accelerate import Accelerator
    from accelerate.state import AcceleratorState
    from accelerate.utils import get_int_from_env

    if not torch.distributed.is_initialized():
        # Accelerate keeps one device and precision per process; an earlier study may have had others.
        AcceleratorState._reset_state(reset_partial_state=True)
    precision = "no" if recipe.precision == "fp32" else recipe.precision
    try:
        # Processes on CPUs find each other only where Accelerate is told that there is nothing else.
        accelerator = Accelerator(mixed_precision=precision, cpu=_is_on_cpu(recipe))
    except ValueError as error:
        raise InvalidArgumentError(f"precision {recipe.precision}: {error}") from error
    launched = get_int_from_env(_LAUNCHED, 1)
    if accelerator.num_processes < launched:
        raise InvalidArgumentError(
            f"a launcher started {launched} processes, and they cannot share a run on the device "
            f"{accelerator.device.type}: choose --device cpu, or start one process"
        )
    return accelerator


def _is_on_cpu(recipe: Recipe) -> bool:
    return recipe.device == "cpu" or not torch.accelerator.is_available()


@contextmanager
def torch_settings() -> Iterator[None]:
    """Repeatable kernels while a study runs, and everything as it was afterwards."""
    devices = [torch.cuda.current_device()] if torch.cuda.is_available() else []
    threads = torch.get_num_threads()
    try:
        with (
            torch.random.fork_rng(devices),
            torch.backends.cudnn.flags(enabled=True, benchmark=False, deterministic=True),
        ):
            yield
    finally:
        torch.set_num_threads(threads)


def decided(recipe: Recipe, data: Data, processes: int, stored: Path | None = None) -> Recipe:
    """The recipe with the fields that were left open filled in, so that what is written repeats the run.

    Parameters
    ----------
    recipe : Recipe
    data : Data
    processes : int
        Number of processes that share the machine.
    stored : Path, optional
        Recipe of the run that goes on: a number of threads that it has is kept.
    """
    epochs, threads = recipe.epochs, recipe.threads
    if epochs is None:
        per_epoch = math.ceil(len(data.train) / recipe.batch_size)
        epochs = min(max(math.ceil(_STEPS / per_epoch), _FEWEST_EPOCHS), _MOST_EPOCHS)
    if threads is None:

        def build() -> nn.Module:
            return build_model(recipe.model, data.input_shape, len(data.classes), recipe.width, data.tokens)

        measure = _is_on_cpu(recipe)
        threads = chosen_threads(build, data, recipe.batch_size, processes, stored, measure=measure)
    return recipe.model_copy(update={"epochs": epochs, "threads": threads})
