"""A study: one recipe, one or several seeds, one output folder."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import torch
from rich.console import Console

from .. import __version__
from ..errors import InvalidArgumentError
from ._checkpoint import read_checkpoint, read_json, write_atomically, write_json
from ._faces import own_penalty
from ._interrupt import Asking, InterruptedRunError, StopRequest
from ._machine import accelerator_of, decided, torch_settings
from ._output_folder import check_folder
from ._penalty import build_penalty, penalty_parameters
from ._progress import Display, ProgressDisplay
from ._recipe import Recipe
from ._record import plain_json, run_record, summary, versions
from ._sources import read_source
from ._split import Data, split_source
from ._trackers import check_tracker, tracking
from ._trainer import Trainer, identity, same_recipe

__all__ = ["read_data", "run_recipe", "run_seeds"]

_FILES = (
    *("model.safetensors", "metrics.json", "recipe.yaml", "report.html", "history.csv"),
    *("compact.safetensors", "certificate.json", "receipt.json"),  # made of the model
)
_FOLDERS = ("checkpoint", "tensorboard")
_STATE, _RESULT = Path("checkpoint/state.pt"), Path("checkpoint/result.json")


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
        For bad data or a bad recipe, for what the folder holds of another study, or for a folder that cannot be
        written to; all before anything is written.
    InterruptedRunError
        After Ctrl-C; the folder holds a checkpoint.
    NonFiniteError
        When the loss is NaN or infinite.
    """
    seeds = range(recipe.seed, recipe.seed + recipe.seeds)
    display = ProgressDisplay(console or Console(quiet=True))
    return run_seeds(recipe, seeds, display, StopRequest(), resume=resume, overwrite=overwrite, command=command)


def read_data(recipe: Recipe) -> Data:
    """What a recipe trains on, split as all of its seeds share it."""
    source = read_source(recipe.data, recipe.target)
    return split_source(source, recipe.validation_fraction, recipe.test_fraction, recipe.seed)


def run_seeds(
    recipe: Recipe,
    seeds: range,
    display: AbstractContextManager[Display],
    stop: AbstractContextManager[Asking],
    *,
    resume: bool = False,
    overwrite: bool = False,
    command: str = "",
    data: Data | None = None,
) -> dict[str, Any]:
    """`run_recipe` for some of a recipe's seeds, with a display and a stop request of the caller's.

    Both are entered once nothing can refuse the run any more; ``nullcontext`` keeps what is entered already.
    ``data`` is what `read_data` gives, where the caller has it already.
    """
    folder = recipe.folder()
    with _disk(folder):
        # A run that ended before its first checkpoint leaves its recipe and nothing to lose.
        check_folder(folder, resume, overwrite, worthless={"recipe.yaml"})
    accelerator = accelerator_of(recipe)
    if data is None:
        data = read_data(recipe)
    with torch_settings():
        recipe = decided(recipe, data, accelerator.num_processes)
        torch.set_num_threads(recipe.threads or 1)
        data = data.to(accelerator.device)
        # Whatever the model, the penalty, the groups or an earlier run refuse comes up here, with the folder untouched.
        finished = _finished_runs(folder, seeds, recipe, data) if resume else {}
        left = [seed for seed in seeds if seed not in finished]
        first = _trainer(recipe, data, left[0], accelerator, _stored(folder, seeds, left[0], resume)) if left else None
        check_tracker(recipe.tracker)
        # No process may find the folder changed while it still looks.
        accelerator.wait_for_everyone()
        if accelerator.is_main_process:
            with _disk(folder):
                _open_folder(folder, seeds, recipe, overwrite)
        accelerator.wait_for_everyone()
        runs: list[dict[str, Any]] = []
        with stop as asking, display if accelerator.is_main_process else ProgressDisplay() as shown:
            for seed in seeds:
                run = finished.get(seed)
                if run is None:
                    if asking.asked:
                        raise InterruptedRunError(f"interrupted before seed {seed}")
                    if first is not None and first.seed == seed:
                        trainer = first
                    else:
                        stored = _stored(folder, seeds, seed, resume)
                        trainer = _trainer(recipe, data, seed, accelerator_of(recipe), stored)
                    run = _run(trainer, _place(folder, seeds, seed), shown, asking)
                    trainer.accelerator.free_memory()
                runs.append(run)
        metrics = plain_json(_metrics(recipe, data, runs, command))
        if accelerator.is_main_process:
            _write_results(folder, seeds, metrics)
        accelerator.wait_for_everyone()
        return dict(metrics)


def _trainer(recipe: Recipe, data: Data, seed: int, accelerator: Any, stored: Path | None) -> Trainer:
    """The trainer of one seed, at the place where an earlier run left it."""
    trainer = Trainer(recipe, data, seed, accelerator)
    if stored is not None and (stored / _STATE).is_file():
        trainer.load(stored / _STATE)
    return trainer


def _run(trainer: Trainer, place: Path, display: Display, stop: Asking) -> dict[str, Any]:
    """Train one seed and write its own folder."""
    checkpoint = place / _STATE
    display.start(trainer)
    with tracking(trainer.accelerator, trainer.recipe.tracker, place) as track:

        def on_epoch(trainer: Trainer) -> None:
            display.epoch(trainer)
            track(trainer.history[-1])

        trainer.fit(checkpoint, stop, display.step, on_epoch)
    display.end(trainer)
    run: dict[str, Any] = plain_json(run_record(trainer))
    if trainer.accelerator.is_main_process:
        _save_model(place / "model.safetensors", trainer)
        named = identity(trainer.recipe, trainer.data, trainer.seed)
        write_json(place / _RESULT, {"recipe": named, "run": run})
    return run


def _finished_runs(folder: Path, seeds: range, recipe: Recipe, data: Data) -> dict[int, dict[str, Any]]:
    """The records of the seeds that were finished before; raises when anything stored is of another study."""
    for path in sorted(folder.glob("seed-*")):
        number = path.name.removeprefix("seed-")
        if number.isdecimal() and int(number) not in seeds and _has_state(path):
            raise InvalidArgumentError(
                f"cannot resume {folder}: it holds seed {number}, which --seed {recipe.seed} --seeds {recipe.seeds} "
                "leaves out; the seeds of a study may grow in number, not shrink"
            )
    finished = {}
    for seed in seeds:
        place, wanted = _stored(folder, seeds, seed), identity(recipe, data, seed)
        if place is None:
            continue
        run = _finished(place, wanted)
        if run is not None:
            finished[seed] = run
        elif (place / _STATE).is_file():
            same_recipe(read_checkpoint(place / _STATE).get("recipe"), wanted, place / _STATE)
    return finished


def _finished(place: Path, wanted: dict[str, Any]) -> dict[str, Any] | None:
    """The record of a run that was finished before, None where there is none."""
    path = place / _RESULT
    if not path.is_file() or not (place / "model.safetensors").is_file():
        return None
    found = read_json(path)
    if not isinstance(found, dict) or not isinstance(found.get("run"), dict):
        raise InvalidArgumentError(f"{path} is not the record of a run")
    same_recipe(found.get("recipe"), wanted, path)
    run: dict[str, Any] = found["run"]
    return run


def _place(folder: Path, seeds: range, seed: int) -> Path:
    """Where a seed writes: at the top when it is alone, unless it began as one of several."""
    own = folder / f"seed-{seed}"
    return own if len(seeds) > 1 or _has_state(own) else folder


def _stored(folder: Path, seeds: range, seed: int, resume: bool = True) -> Path | None:
    """Where an earlier run left the state of a seed: in a folder of its own, or at the top if it was alone."""
    places = [folder / f"seed-{seed}", *([folder] if seed == seeds[0] else [])]
    return next((place for place in places if resume and _has_state(place)), None)


def _has_state(place: Path) -> bool:
    return (place / _STATE).is_file() or (place / _RESULT).is_file()


# ---------------------------------------------------------------------------------------------- the folder
def _open_folder(folder: Path, seeds: range, recipe: Recipe, overwrite: bool) -> None:
    """The first writes of a study, when nothing can refuse it any more."""
    if overwrite:
        _clear(folder)
    folder.mkdir(parents=True, exist_ok=True)
    if len(seeds) > 1:
        _move_down(folder, folder / f"seed-{seeds[0]}")
    write_atomically(folder / "recipe.yaml", lambda file: file.write_text(recipe.to_yaml(), encoding="utf-8"))


def _move_down(folder: Path, own: Path) -> None:
    """Give a seed that was alone a folder of its own, now that there are several."""
    if _has_state(own) or not _has_state(folder):
        return
    own.mkdir(exist_ok=True)
    model = folder / "model.safetensors"
    if model.is_file():
        write_atomically(own / model.name, lambda file: shutil.copyfile(model, file))
    for name in ("history.csv", "tensorboard"):
        if (folder / name).exists() and not (own / name).exists():
            os.replace(folder / name, own / name)
    # Last: the checkpoint is what says where the state lies, and what may lie in its way is no state.
    shutil.rmtree(own / "checkpoint", ignore_errors=True)
    os.replace(folder / "checkpoint", own / "checkpoint")


@contextmanager
def _disk(folder: Path) -> Iterator[None]:
    """What the disk refuses, as one line."""
    try:
        yield
    except OSError as error:
        raise InvalidArgumentError(f"cannot use output folder {folder}: {error.strerror or error}") from error


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
    from ..report import write_report

    write_atomically(folder / "report.html", lambda file: write_report(metrics, file))
    place = _place(folder, seeds, metrics["summary"]["selected_seed"])
    if place != folder:
        kept = place / "model.safetensors"
        write_atomically(folder / "model.safetensors", lambda file: shutil.copyfile(kept, file))
    # Last: with the metrics, the study is done.
    write_json(folder / "metrics.json", metrics)


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
        "penalty": _penalty(recipe),
        "runs": runs,
        "summary": summary(runs),
    }


def _penalty(recipe: Recipe) -> dict[str, Any]:
    """The penalty for the record: the one named, else the one that the face implies."""
    if recipe.penalty is not None:
        return {"name": recipe.penalty.name, "parameters": penalty_parameters(build_penalty(recipe.penalty))}
    # What is pruned at random is pruned by no penalty.
    own = None if recipe.face == "random" else own_penalty(recipe.face)
    return (
        {"name": None, "parameters": {}} if own is None else {"name": own.name, "parameters": penalty_parameters(own)}
    )
