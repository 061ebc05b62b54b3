"""A study: one recipe, one or several seeds, one output folder."""

from __future__ import annotations

import json
import math
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from rich.console import Console

from .. import __version__
from ..errors import InvalidArgumentError
from ._checkpoint import read_json, write_atomically, write_json
from ._interrupt import InterruptedRunError, StopRequest
from ._models import build_model
from ._penalty import build_penalty, penalty_parameters
from ._progress import ProgressDisplay
from ._recipe import Recipe
from ._record import plain_json, run_record, summary, versions
from ._sources import read_source
from ._split import Data, split_source
from ._trackers import check_tracker, tracking
from ._trainer import Trainer, identity, same_recipe

__all__ = ["run_recipe"]

_FILES = ("model.safetensors", "metrics.json", "recipe.yaml", "report.html", "history.csv")
_FOLDERS = ("checkpoint", "tensorboard")
# Enough steps for the ramp of a budget to be gentle, within bounds that keep small data short.
_STEPS = 2500
_FEWEST_EPOCHS, _MOST_EPOCHS = 20, 200
_SMALL_MODEL = 300_000
_MOST_THREADS = 8


def run_recipe(
    recipe: Recipe,
    *,
    resume: bool = False,
    overwrite: bool = False,
    command: str = "",
    console: Console | None = None,
) -> dict[str, Any]:
    """Train to a recipe and write its output folder.

    Parameters
    ----------
    recipe : Recipe
    resume : bool
        Go on from what the folder holds; what is missing is run from the start.
    overwrite : bool
        Replace the files of an earlier run in the folder.
    command : str
        The command line, for the record.
    console : rich.console.Console, optional
        Where progress is shown; by default nowhere.

    Returns
    -------
    dict
        The content of ``metrics.json``.

    Raises
    ------
    InvalidArgumentError
        For bad data or a bad recipe, before anything is written; or when the folder is not empty.
    InterruptedRunError
        After Ctrl-C; the folder holds a checkpoint.
    NonFiniteError
        When the loss is NaN or infinite.
    """
    folder = recipe.folder()
    _check_folder(folder, resume, overwrite)
    accelerator = _accelerator(recipe)
    data = split_source(
        read_source(recipe.data, recipe.target), recipe.validation_fraction, recipe.test_fraction, recipe.seed
    )
    with _torch_settings():
        recipe = _decided(recipe, data, accelerator.num_processes)
        torch.set_num_threads(recipe.threads or 1)
        data = data.to(accelerator.device)
        seeds = range(recipe.seed, recipe.seed + recipe.seeds)
        # Whatever the model, the penalty or the groups refuse comes up here, with the folder untouched.
        first = Trainer(recipe, data, seeds[0], accelerator)
        check_tracker(recipe.tracker)
        if accelerator.is_main_process:
            if overwrite:
                _clear(folder)
            folder.mkdir(parents=True, exist_ok=True)
            write_atomically(folder / "recipe.yaml", lambda f: f.write_text(recipe.to_yaml(), encoding="utf-8"))
        accelerator.wait_for_everyone()
        display = ProgressDisplay(console or Console(quiet=True), accelerator.is_main_process)
        runs: list[dict[str, Any]] = []
        with StopRequest() as stop, display:
            for seed in seeds:
                place = _place(folder, seeds, seed)
                run = _finished(place, identity(recipe, data, seed)) if resume else None
                if run is None:
                    if stop.asked:
                        raise InterruptedRunError(f"interrupted before seed {seed}")
                    trainer = first if seed == first.seed else Trainer(recipe, data, seed, _accelerator(recipe))
                    run = _run(trainer, place, resume, display, stop)
                    trainer.accelerator.free_memory()
                runs.append(run)
        metrics = plain_json(_metrics(recipe, data, runs, command))
        if accelerator.is_main_process:
            _write_results(folder, seeds, metrics)
        accelerator.wait_for_everyone()
        return dict(metrics)


def _run(trainer: Trainer, place: Path, resume: bool, display: ProgressDisplay, stop: StopRequest) -> dict[str, Any]:
    """Train one seed and write its own folder."""
    checkpoint = place / "checkpoint" / "state.pt"
    if resume and checkpoint.is_file():
        trainer.load(checkpoint)
    display.start(trainer)
    with tracking(trainer.accelerator, trainer.recipe.tracker, place) as track:

        def on_epoch(trainer: Trainer) -> None:
            display.epoch(trainer)
            track(trainer.history[-1])

        trainer.fit(checkpoint, stop, display.step, on_epoch)
    run: dict[str, Any] = plain_json(run_record(trainer))
    if trainer.accelerator.is_main_process:
        _save_model(place / "model.safetensors", trainer)
        named = identity(trainer.recipe, trainer.data, trainer.seed)
        write_json(place / "checkpoint" / "result.json", {"recipe": named, "run": run})
    return run


def _finished(place: Path, wanted: dict[str, Any]) -> dict[str, Any] | None:
    """The record of a run that was finished before, None where there is none."""
    path = place / "checkpoint" / "result.json"
    if not path.is_file() or not (place / "model.safetensors").is_file():
        return None
    found = read_json(path)
    if not isinstance(found, dict) or not isinstance(found.get("run"), dict):
        raise InvalidArgumentError(f"{path} is not the record of a run")
    same_recipe(found.get("recipe"), wanted, path)
    run: dict[str, Any] = found["run"]
    return run


def _place(folder: Path, seeds: range, seed: int) -> Path:
    return folder if len(seeds) == 1 else folder / f"seed-{seed}"


# ---------------------------------------------------------------------------------------------- the folder
def _check_folder(folder: Path, resume: bool, overwrite: bool) -> None:
    if resume and overwrite:
        raise InvalidArgumentError("--resume keeps what the folder holds and --overwrite replaces it: give one of them")
    if folder.exists() and not folder.is_dir():
        raise InvalidArgumentError(f"output folder {folder} is a file")
    if folder.is_dir() and any(folder.iterdir()) and not resume and not overwrite:
        raise InvalidArgumentError(
            f"output folder {folder} is not empty; choose another with --out, go on with --resume, "
            "or replace it with --overwrite"
        )


def _clear(folder: Path) -> None:
    """Remove what a study writes, and nothing else that may lie in the folder."""
    places = [folder, *folder.glob("seed-*")]
    for place in places:
        for name in _FILES:
            (place / name).unlink(missing_ok=True)
        for name in _FOLDERS:
            shutil.rmtree(place / name, ignore_errors=True)
    for place in places[1:]:
        if place.is_dir() and not any(place.iterdir()):
            place.rmdir()


def _save_model(path: Path, trainer: Trainer) -> None:
    """Weights under the keys of the plain model, with what is needed to feed it."""
    from safetensors.torch import save

    # Copies, for the format has no way to say that two keys share their memory.
    weights = {key: value.detach().cpu().contiguous().clone() for key, value in trainer.model.state_dict().items()}
    about = trainer.data.describe()
    metadata = {
        "obverse": __version__,
        "model": trainer.recipe.model,
        "classes": json.dumps(about["classes"]),
        "input_shape": json.dumps(about["input_shape"]),
        "normalization": json.dumps(about["normalization"]),
        "sparsity": repr(float(trainer.sparsifier.sparsity)),
        "seed": str(trainer.seed),
    }
    write_atomically(path, lambda file: file.write_bytes(save(weights, metadata)))


def _write_results(folder: Path, seeds: range, metrics: dict[str, Any]) -> None:
    if len(seeds) > 1:
        kept = _place(folder, seeds, metrics["summary"]["selected_seed"]) / "model.safetensors"
        write_atomically(folder / "model.safetensors", lambda file: shutil.copyfile(kept, file))
    write_json(folder / "metrics.json", metrics)
    from ..report import write_report

    write_atomically(folder / "report.html", lambda file: write_report(metrics, file))


def _metrics(recipe: Recipe, data: Data, runs: list[dict[str, Any]], command: str) -> dict[str, Any]:
    return {
        "obverse": __version__,
        "command": command,
        "recipe": recipe.numbers(),
        "versions": versions(),
        "data": data.describe(),
        "model": {
            "name": recipe.model,
            "parameters": runs[0]["parameters"],
            "weights": sum(layer["weights"] for layer in runs[0]["layers"]),
        },
        "penalty": {
            "name": recipe.penalty.name,
            "parameters": penalty_parameters(build_penalty(recipe.penalty)),
        },
        "runs": runs,
        "summary": summary(runs),
    }


# ---------------------------------------------------------------------------------------------- the machine
def _accelerator(recipe: Recipe) -> Any:
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
def _torch_settings() -> Iterator[None]:
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


def _decided(recipe: Recipe, data: Data, processes: int) -> Recipe:
    """The recipe with the fields that were left open filled in, so that what is written repeats the run."""
    epochs, threads = recipe.epochs, recipe.threads
    if epochs is None:
        per_epoch = math.ceil(len(data.train) / recipe.batch_size)
        epochs = min(max(math.ceil(_STEPS / per_epoch), _FEWEST_EPOCHS), _MOST_EPOCHS)
    if threads is None:
        model = build_model(recipe.model, data.input_shape, len(data.classes))
        small = sum(p.numel() for p in model.parameters()) < _SMALL_MODEL
        dense = not any(isinstance(module, torch.nn.modules.conv._ConvNd) for module in model.modules())
        # Waking a second thread costs more than a small matrix product.
        threads = 1 if small and dense else max(1, min(_cores(), _MOST_THREADS) // processes)
    return recipe.model_copy(update={"epochs": epochs, "threads": threads})


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
