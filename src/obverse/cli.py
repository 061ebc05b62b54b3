"""The command line: parse, call, print."""

from __future__ import annotations

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


def main() -> None:
    """Run the command line; anything Obverse refuses is one clear line and exit code 2."""
    try:
        app()
    except ObverseError as error:
        errors.print(f"obverse: {error}", style="red", markup=False, highlight=False)
        sys.exit(2)


if __name__ == "__main__":
    main()
