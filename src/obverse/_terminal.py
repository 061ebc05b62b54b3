"""How the command line speaks: plain text on any terminal, and every refusal in one line with an exit code.

What a user typed is printed as it is: brackets are no markup and ``:name:`` is no emoji. Characters that a terminal
cannot encode are written as escapes.
"""

from __future__ import annotations

import math
import os
import re
import sys
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import typer
from rich.console import Console
from typer.core import TyperCommand

from ._core.resources import is_out_of_memory
from .errors import ObverseError

__all__ = ["FAILED", "INTERRUPTED", "PlainCommand", "refuse", "run_app", "terminal"]

# Newer releases of typer carry their own copy of click: its errors are found through one that typer exports.
_UsageError: Any = typer.BadParameter.__bases__[0]
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]+")
_LONGEST = 1000
FAILED, REFUSED, INTERRUPTED = 1, 2, 130


def terminal(*, stderr: bool = False, quiet: bool = False) -> Console:
    """A console that prints text as it is: no markup, no emoji, no highlighting."""
    return Console(stderr=stderr, quiet=quiet, markup=False, emoji=False, highlight=False)


class PlainCommand(TyperCommand):
    """A command that refuses values which no option of Obverse allows: empty text, NaN and infinity."""

    def invoke(self, ctx: Any) -> Any:
        """Check the values given, then run the command."""
        parameters: list[Any] = list(self.params)
        for parameter in parameters:
            given = ctx.params.get(parameter.name)
            for value in given if isinstance(given, list | tuple) else [given]:
                if isinstance(value, str) and not value.strip():
                    raise typer.BadParameter("the text is empty; leave the option out or give a value", ctx, parameter)
                if isinstance(value, float) and not math.isfinite(value):
                    raise typer.BadParameter(f"{value} is not a finite number", ctx, parameter)
        return super().invoke(ctx)


def refuse(text: str) -> None:
    """Print one line on standard error, in red; line ends and other control characters become spaces."""
    line = _CONTROL.sub(" ", text).strip()
    line = line if len(line) <= _LONGEST else line[: _LONGEST - 1] + "…"
    terminal(stderr=True).print(f"obverse: {line}", style="red", soft_wrap=True)


def run_app(app: Callable[..., Any]) -> int:
    """Run a Typer app and give its exit code; anything that Obverse or the system refuses is one line and code 2.

    Ctrl-C ends with code 130, and a reader that closes the pipe (``obverse ... | head``) ends the command quietly
    with code 1. An error that is none of these is a fault in the program and keeps its traceback.
    """
    for stream in (sys.stdout, sys.stderr):
        with suppress(AttributeError, ValueError, OSError):
            stream.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]
    try:
        code = _exit_code(app)
    except SystemExit as ended:  # rich and typer leave in this way where the reader of a pipe is gone
        code = ended.code if isinstance(ended.code, int) else FAILED
    try:
        sys.stdout.flush()
    except OSError as error:
        _close_output()
        if isinstance(error, BrokenPipeError):
            return FAILED
        refuse(f"cannot write the output: {error.strerror or error}")
        return REFUSED
    return code


def _exit_code(app: Callable[..., Any]) -> int:
    try:
        code = app(standalone_mode=False)
    except BrokenPipeError:
        _close_output()
        return FAILED
    except _UsageError as error:
        if type(error).__name__ == "NoArgsIsHelpError":
            error.show()
        else:
            path = getattr(error.ctx, "command_path", None) or "obverse"
            refuse(f"{error.format_message().rstrip('.')}; see {path} --help")
        return REFUSED
    except (KeyboardInterrupt, typer.Abort):
        return INTERRUPTED
    except (ObverseError, OSError) as error:  # what the disk refuses is no fault in the program either
        refuse(str(error) or type(error).__name__)
        return REFUSED
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        refuse("out of memory; reduce the model's width, the batch size or the data, or give the process more memory")
        return REFUSED
    return code if isinstance(code, int) else 0


def _close_output() -> None:
    """Let nothing be written any more, so that the interpreter has nothing to complain of when it ends."""
    with suppress(OSError, ValueError):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, sys.stdout.fileno())
        os.close(nowhere)
