"""The machine a run finds: device, precision, repeatable kernels, and what a recipe leaves for it to decide."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

from ..errors import InvalidArgumentError
from ._models import build_model
from ._recipe import Recipe
from ._split import Data

__all__ = ["accelerator_of", "decided", "torch_settings"]

# Enough steps for the ramp of a budget to be gentle, within bounds that keep small data short.
_STEPS = 2500
_FEWEST_EPOCHS, _MOST_EPOCHS = 20, 200
_SMALL_MODEL = 300_000
_MOST_THREADS = 8


def accelerator_of(recipe: Recipe) -> Any:
    """Device, precision and processes of a run.

    Raises
    ------
    InvalidArgumentError
        When the device does not know the precision.
    """
    from accelerate import Accelerator
    from accelerate.state import AcceleratorState

    if not torch.distributed.is_initialized():
        # Accelerate keeps one device and precision per process; an earlier study may have had others.
        AcceleratorState._reset_state(reset_partial_state=True)
    precision = "no" if recipe.precision == "fp32" else recipe.precision
    try:
        return Accelerator(mixed_precision=precision, cpu=recipe.device == "cpu")
    except ValueError as error:
        raise InvalidArgumentError(f"precision {recipe.precision}: {error}") from error


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


def decided(recipe: Recipe, data: Data, processes: int) -> Recipe:
    """The recipe with the fields that were left open filled in, so that what is written repeats the run."""
    epochs, threads = recipe.epochs, recipe.threads
    if epochs is None:
        per_epoch = math.ceil(len(data.train) / recipe.batch_size)
        epochs = min(max(math.ceil(_STEPS / per_epoch), _FEWEST_EPOCHS), _MOST_EPOCHS)
    if threads is None:
        model = build_model(recipe.model, data.input_shape, len(data.classes), recipe.width, data.tokens)
        small = sum(p.numel() for p in model.parameters()) < _SMALL_MODEL
        dense = not any(isinstance(module, torch.nn.modules.conv._ConvNd) for module in model.modules())
        # Waking a second thread costs more than a small matrix product.
        threads = 1 if small and dense else max(1, min(_cores(), _MOST_THREADS) // processes)
    return recipe.model_copy(update={"epochs": epochs, "threads": threads})


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
