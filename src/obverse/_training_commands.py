"""The commands that train: their options are fields of a recipe."""

from __future__ import annotations

import os
import shlex
import sys
from typing import Any

import typer

from . import _options as option
from ._core.files import expanded
from ._terminal import FAILED, INTERRUPTED, terminal

__all__ = ["compare", "robust", "sparsify", "train"]


def sparsify(
    ctx: typer.Context,
    data: str | None = option.DATA,
    target: str | None = option.TARGET,
    model: str | None = option.MODEL,
    budget: str | None = typer.Option(None, help="Sparsity to end with: 95%, 0.95 or 20x [95%]."),
    strength: float | None = typer.Option(None, help="Strength of the penalty, in place of a budget."),
    penalty: str | None = typer.Option(None, help="Name, or name:parameter=number [log-sum]."),
    face: str | None = typer.Option(None, help="proximal, reweighted, dropout, magnitude, ... or none [proximal]."),
    groups: str | None = option.GROUPS,
    epochs: int | None = option.EPOCHS,
    batch_size: int | None = option.BATCH_SIZE,
    optimizer: str | None = option.OPTIMIZER,
    learning_rate: float | None = option.LEARNING_RATE,
    momentum: float | None = option.MOMENTUM,
    weight_decay: float | None = option.WEIGHT_DECAY,
    schedule: str | None = option.SCHEDULE,
    label_smoothing: float | None = option.LABEL_SMOOTHING,
    labels: str | None = option.LABELS,
    augment: str | None = option.AUGMENT,
    seed: int | None = option.SEED,
    seeds: int | None = option.SEEDS,
    validation_fraction: float | None = option.VALIDATION_FRACTION,
    test_fraction: float | None = option.TEST_FRACTION,
    precision: str | None = option.PRECISION,
    device: str | None = option.DEVICE,
    threads: int | None = option.THREADS,
    tracker: str | None = option.TRACKER,
    out: str | None = option.OUT,
    recipe: str | None = option.RECIPE,
    resume: bool = option.RESUME,
    overwrite: bool = option.OVERWRITE,
) -> None:
    """Train a model to a sparsity budget; without options, a small one on the digits data in seconds."""
    _study(ctx, {}, "sparsify")


def train(
    ctx: typer.Context,
    data: str | None = option.DATA,
    target: str | None = option.TARGET,
    model: str | None = option.MODEL,
    labels: str | None = option.LABELS,
    epochs: int | None = option.EPOCHS,
    batch_size: int | None = option.BATCH_SIZE,
    optimizer: str | None = option.OPTIMIZER,
    learning_rate: float | None = option.LEARNING_RATE,
    momentum: float | None = option.MOMENTUM,
    weight_decay: float | None = option.WEIGHT_DECAY,
    schedule: str | None = option.SCHEDULE,
    label_smoothing: float | None = option.LABEL_SMOOTHING,
    augment: str | None = option.AUGMENT,
    seed: int | None = option.SEED,
    seeds: int | None = option.SEEDS,
    validation_fraction: float | None = option.VALIDATION_FRACTION,
    test_fraction: float | None = option.TEST_FRACTION,
    precision: str | None = option.PRECISION,
    device: str | None = option.DEVICE,
    threads: int | None = option.THREADS,
    tracker: str | None = option.TRACKER,
    out: str | None = option.OUT,
    recipe: str | None = option.RECIPE,
    resume: bool = option.RESUME,
    overwrite: bool = option.OVERWRITE,
) -> None:
    """Train a dense model on images, a table or texts, with labels that regularize; calibration is reported."""
    _study(ctx, {"face": "none"}, "train")


def robust(
    ctx: typer.Context,
    data: str | None = option.DATA,
    target: str | None = option.TARGET,
    model: str | None = option.MODEL,
    groups: str | None = typer.Option(
        None, help="classes, column:NAME of a table, or clusters:K of the inputs [classes]."
    ),
    strength: float | None = typer.Option(None, help="Factor on the penalty [0.3]."),
    epochs: int | None = typer.Option(None, help="Of each fold and of the second stage [40]."),
    batch_size: int | None = typer.Option(None, help="[64]"),
    learning_rate: float | None = typer.Option(None, help="Of SGD with momentum 0.9 [0.05]."),
    weight_decay: float | None = typer.Option(None, help="[0.0005]"),
    deferred: int | None = typer.Option(None, help="Epoch from which rare classes weigh more [never]."),
    folds: int | None = typer.Option(None, help="Of the first stage [3]."),
    every: int | None = typer.Option(None, help="The penalty acts in every so many steps [1]."),
    augment: str | None = option.AUGMENT,
    validation_fraction: float | None = option.VALIDATION_FRACTION,
    test_fraction: float | None = option.TEST_FRACTION,
    seed: int | None = typer.Option(None, help="[0]"),
    threads: int | None = option.THREADS,
    out: str | None = typer.Option(None, help="Output folder [runs/robust-<data>-<model>]."),
    resume: bool = option.RESUME,
    overwrite: bool = option.OVERWRITE,
) -> None:
    """Train on noisy, rare classes or groups: measure their noise by cross-fitting, then adapt the strengths to it."""
    from .training import RobustChoices, robust_folder, train_robust

    own = {"out", "resume", "overwrite"}
    given = {name: value for name, value in ctx.params.items() if value is not None and name not in own}
    choices = RobustChoices(**given)
    folder = robust_folder(choices) if out is None else expanded(out, "output folder")
    console = terminal()

    def tell(line: str) -> None:
        console.print(line, soft_wrap=True)

    command = shlex.join(["obverse", *sys.argv[1:]])
    try:
        result = train_robust(choices, folder, resume=resume, overwrite=overwrite, tell=tell, command=command)
    except KeyboardInterrupt:
        if not folder.is_dir():
            raise
        tell(f"obverse: interrupted; the same command with --resume goes on in {folder}")
        raise typer.Exit(INTERRUPTED) from None
    typer.echo(f"\n{result}\n")
    tell(f"{folder}: robust.json, groups.png, stages/model.safetensors")


def compare(
    ctx: typer.Context,
    methods: str | None = typer.Option(
        None, help="With commas: dense, small, random, magnitude, a face, penalty@face [all of proximal's rivals]."
    ),
    budgets: str | None = typer.Option(None, help="Sparsities, with commas [80%,95%,98%]."),
    storage: str | None = typer.Option(None, help="Database URL or journal file [study.log in the output folder]."),
    data: str | None = option.DATA,
    target: str | None = option.TARGET,
    model: str | None = option.MODEL,
    groups: str | None = option.GROUPS,
    epochs: int | None = option.EPOCHS,
    batch_size: int | None = option.BATCH_SIZE,
    optimizer: str | None = option.OPTIMIZER,
    learning_rate: float | None = option.LEARNING_RATE,
    momentum: float | None = option.MOMENTUM,
    weight_decay: float | None = option.WEIGHT_DECAY,
    schedule: str | None = option.SCHEDULE,
    label_smoothing: float | None = option.LABEL_SMOOTHING,
    labels: str | None = option.LABELS,
    augment: str | None = option.AUGMENT,
    seed: int | None = option.SEED,
    seeds: int | None = option.SEEDS,
    validation_fraction: float | None = option.VALIDATION_FRACTION,
    test_fraction: float | None = option.TEST_FRACTION,
    precision: str | None = option.PRECISION,
    device: str | None = option.DEVICE,
    threads: int | None = option.THREADS,
    tracker: str | None = option.TRACKER,
    recipe: str | None = option.RECIPE,
    out: str | None = typer.Option(None, help="Output folder [runs/compare-<what was run>]."),
) -> None:
    """Compare methods over budgets and seeds; the same command again resumes, joins or extends the study."""
    from .training import InterruptedRunError, compare, compare_folder, comparison_table, hide_password, read_recipe

    own = {"recipe", "methods", "budgets", "storage"}
    given = {name: value for name, value in ctx.params.items() if value is not None and name not in own}
    chosen = read_recipe(given, recipe)
    # The command line is kept with the results, and a password in it is nobody else's business.
    command = shlex.join(["obverse", *(hide_password(word, storage) for word in sys.argv[1:])])
    console = terminal()
    try:
        comparison = compare(chosen, methods, budgets, storage=storage, command=command, console=console)
    except InterruptedRunError as error:
        console.print(f"obverse: {error}; go on with: {command}", style="yellow", soft_wrap=True)
        raise typer.Exit(INTERRUPTED) from None
    console.print(comparison_table(comparison))
    failed = [cell for cell in comparison["cells"] if cell["state"] == "failed"]
    for cell in failed:
        console.print(f"failed: {cell['folder']}: {cell['error']}", style="yellow", soft_wrap=True)
    console.print(f"{compare_folder(chosen)}: compare.html, compare.json, cells", soft_wrap=True)
    if failed:
        raise typer.Exit(FAILED)


def _study(ctx: typer.Context, fixed: dict[str, Any], name: str) -> None:
    """Run the recipe that a command's options describe."""
    from .training import InterruptedRunError, is_factory, read_recipe, results_table, run_recipe

    own = {"recipe", "resume", "overwrite"}
    given = {name: value for name, value in ctx.params.items() if value is not None and name not in own}
    resume, overwrite = ctx.params["resume"], ctx.params["overwrite"]
    chosen = read_recipe({**given, **fixed}, ctx.params["recipe"], resume)
    command = shlex.join(["obverse", *sys.argv[1:]])
    console = terminal(quiet=os.environ.get("RANK", "0") != "0")
    try:
        metrics = run_recipe(chosen, resume=resume, overwrite=overwrite, command=command, console=console)
    except InterruptedRunError as error:
        # A file does not get to run code: a model to import is named again.
        code = ["--model", chosen.model] if is_factory(chosen.model) else []
        again = shlex.join(["obverse", name, "--resume", "--out", str(chosen.folder()), *code])
        console.print(f"obverse: {error}; go on with: {again}", style="yellow", soft_wrap=True)
        raise typer.Exit(INTERRUPTED) from None
    console.print(results_table(metrics))
    console.print(f"{chosen.folder()}: report.html, metrics.json, recipe.yaml, model.safetensors", soft_wrap=True)
