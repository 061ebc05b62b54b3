"""The command line: parse, call, print."""

from __future__ import annotations

import os
import shlex
import sys

import typer
from rich.console import Console

from ._version import __version__
from .errors import ObverseError

__all__ = ["app", "main"]

app = typer.Typer(
    name="obverse",
    help="Regularization that adapts, with both of its faces in your hand.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)
errors = Console(stderr=True)


@app.callback(invoke_without_command=True)
def version(show: bool = typer.Option(False, "--version", help="Print the version and leave.")) -> None:
    if show:
        typer.echo(__version__)
        raise typer.Exit


@app.command()
def sparsify(
    ctx: typer.Context,
    data: str | None = typer.Option(None, help="digits, mnist, fashion-mnist, cifar10, owner/name or a path [digits]."),
    target: str | None = typer.Option(None, help="Label column of a table [label]."),
    model: str | None = typer.Option(
        None, help="mlp, lenet-300-100, lenet-5, resnet20 or package.module:factory [mlp]."
    ),
    budget: str | None = typer.Option(None, help="Sparsity to end with: 95%, 0.95 or 20x [95%]."),
    strength: float | None = typer.Option(None, help="Strength of the penalty, in place of a budget."),
    penalty: str | None = typer.Option(None, help="Name, or name:parameter=number [log-sum]."),
    face: str | None = typer.Option(None, help="proximal, reweighted or dropout [proximal]."),
    groups: str | None = typer.Option(None, help="weights, units or filters [weights]."),
    epochs: int | None = typer.Option(None, help="By default about 2500 steps."),
    batch_size: int | None = typer.Option(None, help="Over all processes [64]."),
    optimizer: str | None = typer.Option(None, help="sgd, adam or adamw [adam]."),
    learning_rate: float | None = typer.Option(None, help="[0.002]"),
    momentum: float | None = typer.Option(None, help="Of sgd [0.9]."),
    weight_decay: float | None = typer.Option(None, help="[0]"),
    schedule: str | None = typer.Option(None, help="constant, linear or cosine [cosine]."),
    label_smoothing: float | None = typer.Option(None, help="[0]"),
    augment: str | None = typer.Option(None, help="Images: none, shift, flip or shift+flip [none]."),
    seed: int | None = typer.Option(None, help="First seed, and that of the data split [0]."),
    seeds: int | None = typer.Option(None, help="How many seeds to run [1]."),
    validation_fraction: float | None = typer.Option(None, help="Of the training rows [0.1]."),
    test_fraction: float | None = typer.Option(None, help="Where the source has no test split [0.2]."),
    precision: str | None = typer.Option(None, help="fp32, bf16 or fp16 [fp32]."),
    device: str | None = typer.Option(None, help="auto or cpu [auto]."),
    threads: int | None = typer.Option(None, help="CPU threads [by the size of the model]."),
    tracker: str | None = typer.Option(None, help="none, csv or tensorboard [none]."),
    out: str | None = typer.Option(None, help="Output folder [runs/<what was run>]."),
    recipe: str | None = typer.Option(None, help="Start from this recipe.yaml; other options override it."),
    resume: bool = typer.Option(False, "--resume", help="Go on from the checkpoint in the output folder."),
    overwrite: bool = typer.Option(False, "--overwrite", help="Replace an earlier run in the output folder."),
) -> None:
    """Train a model to a sparsity budget; without options, a small one on the digits data in seconds."""
    from .training import InterruptedRunError, read_recipe, results_table, run_recipe

    own = {"recipe", "resume", "overwrite"}
    given = {name: value for name, value in ctx.params.items() if value is not None and name not in own}
    chosen = read_recipe(given, recipe, resume)
    command = shlex.join(["obverse", *sys.argv[1:]])
    console = Console(quiet=os.environ.get("RANK", "0") != "0")
    try:
        metrics = run_recipe(chosen, resume=resume, overwrite=overwrite, command=command, console=console)
    except InterruptedRunError as error:
        again = shlex.join(["obverse", "sparsify", "--resume", "--out", str(chosen.folder())])
        console.print(f"obverse: {error}; go on with: {again}", style="yellow", markup=False, soft_wrap=True)
        raise typer.Exit(130) from None
    console.print(results_table(metrics))
    console.print(f"{chosen.folder()}: report.html, metrics.json, recipe.yaml, model.safetensors", soft_wrap=True)


@app.command()
def penalties(as_json: bool = typer.Option(False, "--json", help="Print JSON.")) -> None:
    """List the catalogue: formula, slope at zero, exact zeros, tail and curvature limit."""
    from .duality._summary import catalogue_summary, print_catalogue

    print_catalogue(catalogue_summary(), as_json)


@app.command()
def duality(
    name: str | None = typer.Argument(None, help='Penalty, such as "log-sum" or "l0.5".'),
    epsilon: float | None = typer.Option(None, help="Shorthand for --set epsilon=..."),
    parameters: list[str] = typer.Option([], "--set", help="Parameter of the penalty, as name=value."),  # noqa: B008
    strength: float = typer.Option(1.0, help="Strength of the dropout, step of the proximal operator."),
    keep_probability: str | None = typer.Option(None, help='Instead of a name: a formula, "1/(1+exp(-w))".'),
    out: str | None = typer.Option(None, help="Save a picture, .png or .svg."),
    as_json: bool = typer.Option(False, "--json", help="Print JSON."),
) -> None:
    """Show both faces of a penalty, or of a keep probability."""
    from .duality._summary import chosen_penalty, duality_summary, print_duality

    chosen, title = chosen_penalty(name, epsilon, parameters, strength, keep_probability)
    summary = duality_summary(chosen, strength, title)
    if out is not None:
        from .report import plot_faces

        plot_faces(chosen, strength, out, title=title)
    print_duality(summary, as_json, out)


def main() -> None:
    """Run the command line; anything Obverse refuses is one clear line and exit code 2."""
    try:
        app()
    except (ObverseError, OSError) as error:  # what the disk refuses is no fault in the program either
        errors.print(f"obverse: {error}", style="red", markup=False, highlight=False, soft_wrap=True)
        sys.exit(2)


if __name__ == "__main__":
    main()
