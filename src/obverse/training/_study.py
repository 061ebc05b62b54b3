"""A study: one recipe, one or several seeds, one output folder."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from pathlib import Path
from typing import Any

import torch
from rich.console import Console

from .. import __version__
from .._core.files import (
    check_output_folder,
    check_seal,
    digest_of,
    locked,
    read_json,
    remove_temporaries,
    unsealed,
    write_atomically,
    write_sealed,
)
from ..errors import DamagedFileError, FileWriteError, InvalidArgumentError
from ._checkpoint import read_checkpoint
from ._faces import own_penalty
from ._interrupt import Asking, InterruptedRunError, StopRequest
from ._machine import accelerator_of, decided, torch_settings
from ._penalty import build_penalty, penalty_parameters
from ._progress import Display, ProgressDisplay
from ._recipe import RECIPE, Recipe, stored_recipe
from ._record import plain_json, run_record, summary, versions
from ._replaced import Replaced
from ._sources import read_source
from ._split import Data, split_source
from ._trackers import check_tracker, tracking, write_history
from ._trainer import Trainer, identity, same_recipe

__all__ = ["read_data", "run_recipe", "run_seeds"]

_MODEL, _METRICS = "model.safetensors", "metrics.json"
_NAMES = (
    *(RECIPE, _MODEL, _METRICS, "report.html", "history.csv", "checkpoint", "tensorboard"),
    *("compact.safetensors", "certificate.json", "receipt.json"),  # made of the model
)
_WRITTEN = (*_NAMES, *(f"seed-*/{name}" for name in _NAMES))
"""What a study writes: what ``--overwrite`` replaces."""

_WORTHLESS = frozenset({RECIPE})
"""A run that ended before its first checkpoint leaves its recipe and nothing to lose."""

_STATE, _RESULT = Path("checkpoint/state.pt"), Path("checkpoint/result.json")
_AGAIN = "delete it and --resume ends the run again from its checkpoint"


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
        Replace the files of an earlier run in the folder. They are deleted when the new ones are there, and put back
        if the new run fails.
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
        For bad data or a bad recipe, for what the folder holds of another study, for a folder that cannot be
        written to or that another process writes to, or for one that holds nothing to resume; all before anything is
        written.
    DamagedFileError
        A file that is read back is not what was written.
    FileWriteError
        The disk is full or refuses to write; what was written before stays.
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
    is_held: bool = False,
) -> dict[str, Any]:
    """`run_recipe` for some of a recipe's seeds, with a display and a stop request of the caller's.

    Both are entered once nothing can refuse the run any more; ``nullcontext`` keeps what is entered already.
    ``data`` is what `read_data` gives, where the caller has it already, and ``is_held`` says that the caller keeps
    other processes out of the folder of a run that is resumed.
    """
    folder = recipe.folder()
    check_output_folder(folder, resume=resume, overwrite=overwrite, worthless=_WORTHLESS)
    if resume and not is_held:
        _check_resumable(folder)
    accelerator = accelerator_of(recipe)
    if data is None:
        data = read_data(recipe)
    with torch_settings(), ExitStack() as holding:
        recipe = decided(recipe, data, accelerator.num_processes, folder / "recipe.yaml" if resume else None)
        torch.set_num_threads(recipe.threads or 1)
        data = data.to(accelerator.device)
        if resume and not is_held:
            # Nobody may write what is read here.
            holding.enter_context(_held(folder, accelerator, resume, overwrite))
        # Whatever the model, the penalty, the groups or an earlier run refuse comes up here, with the folder untouched.
        finished = _finished_runs(folder, seeds, recipe, data) if resume else {}
        left = [seed for seed in seeds if seed not in finished]
        first = _trainer(recipe, data, left[0], accelerator, _stored(folder, seeds, left[0], resume)) if left else None
        check_tracker(recipe.tracker)
        if not resume:
            holding.enter_context(_held(folder, accelerator, resume, overwrite))
        # No process may find the folder changed while it still looks.
        accelerator.wait_for_everyone()
        replaced = Replaced(folder, _WRITTEN)
        with replaced.kept(put_back=overwrite) if accelerator.is_main_process else nullcontext():
            if accelerator.is_main_process:
                _open_folder(folder, seeds, recipe, replaced, overwrite)
            accelerator.wait_for_everyone()
            runs: list[dict[str, Any]] = []
            with stop as asking, display if accelerator.is_main_process else ProgressDisplay() as shown:
                for seed in seeds:
                    if (run := finished.get(seed)) is None:
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
                _write_results(folder, seeds, recipe, metrics)
        accelerator.wait_for_everyone()
        return dict(metrics)


@contextmanager
def _held(folder: Path, accelerator: Any, resume: bool, overwrite: bool) -> Iterator[None]:
    """Hold the output folder against other commands, which may have used it since it was looked at."""
    from accelerate.utils import broadcast_object_list

    refusal: list[InvalidArgumentError | None] = [None]
    with ExitStack() as stack:
        if accelerator.is_main_process:
            try:
                stack.enter_context(locked(folder))
                Replaced(folder, _WRITTEN).recover()
                check_output_folder(folder, resume=resume, overwrite=overwrite, worthless=_WORTHLESS)
            except InvalidArgumentError as error:
                refusal = [error]
        if accelerator.num_processes > 1:
            broadcast_object_list(refusal)  # none of the others may wait for a process that gave up
        if refusal[0] is not None:
            raise refusal[0]
        yield


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
    with tracking(trainer.accelerator, trainer.recipe.tracker, place, trainer.history) as track:

        def on_epoch(trainer: Trainer) -> None:
            display.epoch(trainer)
            track(trainer.history[-1])

        trainer.fit(checkpoint, stop, display.step, on_epoch)
    display.end(trainer)
    run: dict[str, Any] = plain_json(run_record(trainer))
    if trainer.accelerator.is_main_process:
        model = _save_model(place / _MODEL, trainer)
        named = identity(trainer.recipe, trainer.data, trainer.seed)
        write_sealed(place / _RESULT, {"recipe": named, "run": run, "model": digest_of(model)})
    return run


def _finished_runs(folder: Path, seeds: range, recipe: Recipe, data: Data) -> dict[int, dict[str, Any]]:
    """The records of the seeds that were finished before; raises when anything stored is of another study."""
    if not _has_any_state(folder):
        _check_recipe(folder, recipe)
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
    path, model = place / _RESULT, place / _MODEL
    if not path.is_file() or not model.is_file():
        return None
    found = read_json(path, sealed=True, advice=_AGAIN)
    if not isinstance(found.get("run"), dict):
        raise DamagedFileError(f"{path} is not the record of a run; {_AGAIN}")
    same_recipe(found.get("recipe"), wanted, path)
    if digest_of(model, advice=_AGAIN) != found.get("model"):
        raise DamagedFileError(f"{model} is not the model that {path} belongs to; {_AGAIN}")
    run: dict[str, Any] = found["run"]
    return run


def _check_recipe(folder: Path, recipe: Recipe) -> None:
    """Raise unless a folder without any state, if it holds a recipe, holds this one."""
    path = stored_recipe(folder)
    if path is None:
        return
    ours, theirs = recipe.numbers(), Recipe.read(path).numbers()
    for fields in (ours, theirs):
        for name in ("seeds", "tracker"):
            fields.pop(name, None)
    same_recipe(theirs, ours, path)


def _place(folder: Path, seeds: range, seed: int) -> Path:
    """Where a seed writes: at the top when it is alone, unless it began as one of several."""
    own = folder / f"seed-{seed}"
    return own if len(seeds) > 1 or _has_state(own) else folder


def _stored(folder: Path, seeds: range, seed: int, resume: bool = True) -> Path | None:
    """Where an earlier run left the state of a seed: in a folder of its own, or at the top if it was alone."""
    places = [folder / f"seed-{seed}", *([folder] if seed == seeds[0] else [])]
    return next((place for place in places if resume and _has_state(place)), None)


def _check_resumable(folder: Path) -> None:
    """Raise unless a folder holds a run, or at least the recipe of one."""
    if not folder.exists():
        raise InvalidArgumentError(
            f"cannot resume {folder}: there is no such folder; leave out --resume to start a run"
        )
    if not (folder / RECIPE).is_file() and not _has_any_state(folder):
        raise InvalidArgumentError(f"cannot resume {folder}: it holds no run; leave out --resume to start one")


def _has_state(place: Path) -> bool:
    return (place / _STATE).is_file() or (place / _RESULT).is_file()


def _has_any_state(folder: Path) -> bool:
    return any(_has_state(place) for place in (folder, *folder.glob("seed-*")))


# ---------------------------------------------------------------------------------------------- the folder
def _open_folder(folder: Path, seeds: range, recipe: Recipe, replaced: Replaced, overwrite: bool) -> None:
    """The first writes of a study, when nothing can refuse it any more."""
    try:
        if overwrite:
            if (folder / _METRICS).is_file():
                replaced.drop()  # a run that was killed between its last file and this
            replaced.set_aside()
        folder.mkdir(parents=True, exist_ok=True)
        for place in (folder, *folder.glob("seed-*")):
            remove_temporaries(place)
            remove_temporaries(place / "checkpoint")
        if len(seeds) > 1:
            _move_down(folder, folder / f"seed-{seeds[0]}")
    except OSError as error:
        raise FileWriteError(f"cannot use output folder {folder}: {error.strerror or error}") from error
    write_sealed(folder / RECIPE, lambda file: file.write_text(recipe.to_yaml(), encoding="utf-8"))


def _move_down(folder: Path, own: Path) -> None:
    """Give a seed that was alone a folder of its own, now that there are several."""
    if _has_state(own) or not _has_state(folder):
        return
    own.mkdir(exist_ok=True)
    model = folder / _MODEL
    if model.is_file():
        write_atomically(own / model.name, lambda file: shutil.copyfile(model, file))
    for name in ("history.csv", "tensorboard"):
        if (folder / name).exists() and not (own / name).exists():
            os.replace(folder / name, own / name)
    # Last: the checkpoint is what says where the state lies, and what may lie in its way is no state.
    shutil.rmtree(own / "checkpoint", ignore_errors=True)
    os.replace(folder / "checkpoint", own / "checkpoint")


def _save_model(path: Path, trainer: Trainer) -> Path:
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
        **unsealed(),
    }
    return write_sealed(path, lambda file: file.write_bytes(save(weights, metadata)))


def _write_results(folder: Path, seeds: range, recipe: Recipe, metrics: dict[str, Any]) -> None:
    from ..report import write_report

    write_atomically(folder / "report.html", lambda file: write_report(metrics, file))
    if recipe.tracker == "csv":
        for run in metrics["runs"]:
            write_history(_place(folder, seeds, run["seed"]), run["history"])
    place = _place(folder, seeds, metrics["summary"]["selected_seed"])
    if place != folder:
        kept = check_seal(place / _MODEL, advice=_AGAIN)
        write_atomically(folder / _MODEL, lambda file: shutil.copyfile(kept, file))
    # Last: with the metrics, the study is done.
    write_sealed(folder / _METRICS, metrics)


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
