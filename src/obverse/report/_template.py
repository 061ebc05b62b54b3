"""Filling the templates of this package: what is given is escaped, what is missing is an error."""

from __future__ import annotations

import os
from importlib.resources import files
from pathlib import Path
from typing import Any

from .._core.files import write_bytes

__all__ = ["write_page"]


def write_page(
    template: str, content: dict[str, Any], path: str | os.PathLike[str], beside: Path | None = None
) -> Path:
    """Write one page with the style and the script inside, atomically; missing folders are made.

    Parameters
    ----------
    template : str
        Name of a file of this package, or of the folder ``beside``.
    content : dict
        What the template shows.
    path : path-like
    beside : Path, optional
        A folder with templates that build on those of this package.

    Raises
    ------
    FileWriteError
        The disk is full, or the folder cannot be written to; an earlier page is as it was.
    """
    from jinja2 import ChoiceLoader, Environment, FileSystemLoader, FunctionLoader, StrictUndefined

    here = files(__package__)
    own = FunctionLoader(lambda name: (here / name).read_text("utf-8"))
    environment = Environment(
        loader=own if beside is None else ChoiceLoader([FileSystemLoader(beside), own]),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=StrictUndefined,
    )
    style, script = ((here / name).read_text("utf-8") for name in ("page.css", "page.js"))
    page = environment.get_template(template).render(style=style, script=script, **content)
    # A file name that is no UTF-8 comes as lone surrogates, which a page can only show as escapes.
    return write_bytes(path, page.encode("utf-8", "backslashreplace"))
