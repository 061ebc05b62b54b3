"""The command line: parse, call, print."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path

import typer
from rich.console import Console

from ._training_commands import compare, robust, sparsify, train
from ._version import __version__
from .errors import InvalidArgumentError, ObverseError

__all__ = ["app", "main"]

app = typer.Typer(
    name="obverse",
    help="Regularization that adapts, with both of its faces in your hand.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
    rich_markup_mode=None,  # else the defaults in brackets are taken for markup, and not shown
)
dropout = typer.Typer(
    name="dropout",
    help="What dropout does to linear networks and to the last layer of any model.",
    no_args_is_help=True,
    rich_markup_mode=None,
)
app.add_typer(dropout)
errors = Console(stderr=True)


@app.callback(invoke_without_command=True)
def version(show: bool = typer.Option(False, "--version", help="Print the version and leave.")) -> None:
    if show:
        typer.echo(__version__)
        raise typer.Exit


for command in (sparsify, train, robust, compare):
    app.command()(command)


@app.command()
def fit(
    ctx: typer.Context,
    data: str = typer.Argument(help="A .csv, .csv.gz or .parquet file."),
    target: str = typer.Option(..., help="Column to predict."),
    penalty: str = typer.Option("log-sum", help="Name, name:parameter=number, or several with commas."),
    task: str | None = typer.Option(None, help="regression or classification; by default as the target looks."),
    loss: str | None = typer.Option(None, help="squared, huber or poisson; by default squared."),
    shapes: str | None = typer.Option(None, help="auto or given; by default auto for a penalty without parameters."),
    criterion: str = typer.Option("cv", help="cv, bic, ebic or stability."),
    rule: str = typer.Option("min", help="min or 1se: how far from the lowest error to stay for fewer features."),
    features: int | None = typer.Option(None, help="At most so many features."),
    folds: int = typer.Option(5, help="Of cross-validation."),
    test_fraction: float = typer.Option(0.2, help="Rows held out to test the model; 0 for none."),
    seed: int = typer.Option(0, help="Of the held-out rows and the folds."),
    weights: str | None = typer.Option(None, help="Column of sample weights."),
    drop: list[str] = typer.Option([], help="Column to leave out; may be repeated."),  # noqa: B008
    categorical: list[str] = typer.Option([], help="Column of numbers that are categories; may be repeated."),  # noqa: B008
    missing: str = typer.Option("error", help="error, drop (rows) or median (fill)."),
    standardize: bool = typer.Option(True, help="Penalize coefficients times their column's standard deviation."),
    out: str | None = typer.Option(None, help="Output folder; by default runs/fit-<data>-<target>-<penalty>."),
    overwrite: bool = typer.Option(False, "--overwrite", help="Replace an earlier fit in the output folder."),
) -> None:
    """Fit a sparse linear model to a table, choose its strength, and test it on rows held out."""
    from .linear._choices import Choices
    from .linear._fit_files import check_folder, default_folder, features_grid, measures_grid, write_fit
    from .linear._model_file import write_atomically
    from .linear._table_fit import fit_table

    given = {name: value for name, value in ctx.params.items() if name not in ("out", "overwrite")}
    choices = Choices(**{**given, "drop": tuple(drop), "categorical": tuple(categorical)})
    folder = default_folder(data, target, penalty) if out is None else Path(out).expanduser()
    check_folder(folder, overwrite)
    console = Console()
    with console.status("") as status:

        def tell(line: str) -> None:
            status.update(line)
            console.print(line, markup=False, highlight=False, soft_wrap=True)

        model, record = fit_table(choices, tell=tell, command=shlex.join(["obverse", *sys.argv[1:]]))
    console.print(features_grid(record))
    tested = measures_grid(record)
    if tested is not None:
        console.print(tested)

    from .report import write_linear

    write_atomically(folder / "report.html", lambda file: write_linear(record, file))
    write_fit(folder, model, record)
    console.print(f"{folder}: report.html, model.safetensors, features.csv, record.json", soft_wrap=True)


@app.command()
def predict(
    model: str = typer.Argument(help="model.safetensors of a fit, or its folder."),
    data: str = typer.Argument(help="A .csv, .csv.gz or .parquet file with the columns that the model uses."),
    out: str = typer.Option("predictions.csv", help="Where the predictions go; - prints them."),
    probabilities: bool = typer.Option(False, "--probabilities", help="Of the classes, beside the predictions."),
    overwrite: bool = typer.Option(False, "--overwrite", help="Replace the file."),
) -> None:
    """Predict with a fitted linear model, one line for every row of a table."""
    from .linear._model_file import write_atomically
    from .linear._predict_file import predict_file

    path = Path(out).expanduser()
    if out != "-" and path.exists() and not overwrite:
        raise InvalidArgumentError(
            f"{out} is there already; choose another file with --out, or replace it with --overwrite"
        )
    text, remarks = predict_file(model, data, probabilities=probabilities)
    for remark in remarks:
        errors.print(f"obverse: {remark}", style="yellow", markup=False, highlight=False, soft_wrap=True)
    if out == "-":
        typer.echo(text, nl=False)
        return
    write_atomically(path, lambda file: file.write_text(text, encoding="utf-8", newline=""))
    Console().print(f"{out}: {len(text.splitlines()) - 1:,} predictions", markup=False, highlight=False, soft_wrap=True)


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


@app.command()
def compact(
    run: str = typer.Argument(help="Output folder of obverse sparsify."),
    model: str | None = typer.Option(None, help="The run's package.module:factory, if you trust it."),
    as_json: bool = typer.Option(False, "--json", help="Print JSON."),
) -> None:
    """Remove the dead units of a run's model; the smaller model and its certificate go to the folder."""
    from .training import compact_run

    certificate = compact_run(run, model=model)
    typer.echo(certificate.to_json() if as_json else str(certificate))


@app.command()
def bench(
    run: str = typer.Argument(help="Output folder of obverse sparsify."),
    batches: str = typer.Option("1,32,256", "--batch", help="Batch sizes, with commas."),
    threads: int | None = typer.Option(None, help="CPU threads [as torch decides]."),
    repeats: int = typer.Option(21, help="Rounds of each comparison."),
    model: str | None = typer.Option(None, help="The run's package.module:factory, if you trust it."),
    as_json: bool = typer.Option(False, "--json", help="Print JSON."),
) -> None:
    """Time a run's model on this machine: dense, with the fastest product per layer, in bf16 and in int8."""
    import json

    from .training import bench_run

    try:
        sizes = tuple(int(size) for size in batches.split(","))
    except ValueError:
        raise InvalidArgumentError(f"--batch takes whole numbers with commas, such as 1,32; got {batches!r}") from None
    record = bench_run(run, batches=sizes, threads=threads, repeats=repeats, model=model)
    text = record.pop("text")
    typer.echo(json.dumps(record, indent=2, allow_nan=False) if as_json else text)


@app.command()
def export(
    run: str = typer.Argument(help="Output folder of obverse sparsify."),
    form: str = typer.Option("onnx", "--format", help="onnx, or torch for torch.export."),
    out: str | None = typer.Option(None, help="File to write [model.onnx or model.pt2 in the folder]."),
    trained: bool = typer.Option(False, "--trained", help="The trained model, even if there is a smaller one."),
    model: str | None = typer.Option(None, help="The run's package.module:factory, if you trust it."),
    as_json: bool = typer.Option(False, "--json", help="Print JSON."),
) -> None:
    """Export a run's model, run the exported one, and keep it only if the outputs agree."""
    import json

    from .training import export_run

    parity = export_run(run, form, out=out, trained=trained, model=model)
    typer.echo(json.dumps(parity.to_dict(), indent=2) if as_json else str(parity))


@dropout.command("diagnose")
def dropout_diagnose(
    run: str = typer.Argument(help="Output folder of obverse sparsify."),
    rate: float | None = typer.Option(None, help="Drop rate before the last layer [the model's own, else 0.5]."),
    part: str = typer.Option("test", help="Rows to look at: test, train or validation."),
    model: str | None = typer.Option(None, help="The run's package.module:factory, if you trust it."),
    out: str | None = typer.Option(None, help="Save a page, .html."),
    as_json: bool = typer.Option(False, "--json", help="Print JSON."),
) -> None:
    """Value of dropout's regularizer on a trained model, its bounds, and singular values against their prediction."""
    import json

    from .training import diagnose_run

    if out is not None and not out.lower().endswith((".html", ".htm")):
        raise InvalidArgumentError(f"the page must end in .html, got {out!r}")
    record = diagnose_run(run, drop_rate=rate, part=part, model=model)
    text = record.pop("text")
    record["command"] = shlex.join(["obverse", *sys.argv[1:]])
    if out is not None:
        from .report import write_dropout

        write_dropout(record, Path(out).expanduser())
    typer.echo(json.dumps({**record, "page": out}, indent=2, allow_nan=False) if as_json else text)
    if out is not None and not as_json:
        typer.echo(f"\npage saved to {out}")


@dropout.command("spectrum")
def dropout_spectrum(
    singular_values: str | None = typer.Option(None, help="Of the least-squares map, with commas: 3,2,1."),
    data: str | None = typer.Option(None, help="In their place: an .npz file with arrays X and y."),
    depth: int = typer.Option(1, help="Hidden layers with dropout."),
    width: int = typer.Option(..., help="Units of each of them."),
    keep: str | None = typer.Option(None, help="Keep probabilities to show, with commas."),
    block_size: int = typer.Option(1, help="Units that are dropped together."),
    out: str | None = typer.Option(None, help="Save a picture, .png or .svg."),
    as_json: bool = typer.Option(False, "--json", help="Print JSON."),
) -> None:
    """Predict singular values and rank of a deep linear network under dropout, and the rates where the rank falls."""
    from ._dropout_commands import numbers_of, print_spectrum
    from .dropout.deep_linear import singular_values_of_file, spectrum_summary

    if (singular_values is None) == (data is None):
        raise InvalidArgumentError("give --singular-values or --data, one of them")
    values = (
        singular_values_of_file(data) if data is not None else numbers_of(singular_values or "", "--singular-values")
    )
    rates = None if keep is None else numbers_of(keep, "--keep")
    if out is not None:
        from .report._faces import check_picture

        check_picture(out)
    summary = spectrum_summary(values, depth, width, block_size, rates)
    if out is not None:
        from .report import plot_spectrum

        plot_spectrum(summary, out)
    print_spectrum(summary, as_json, out)


def main() -> None:
    """Run the command line; anything Obverse refuses is one clear line and exit code 2."""
    try:
        app()
    except (ObverseError, OSError) as error:  # what the disk refuses is no fault in the program either
        errors.print(f"obverse: {error}", style="red", markup=False, highlight=False, soft_wrap=True)
        sys.exit(2)


if __name__ == "__main__":
    main()
