"""A compact model as a folder in the layout of the Hugging Face hub: weights, configuration, model card."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import nn

from .._core.files import write_text
from .._version import __version__
from ..errors import InvalidArgumentError
from ..graph import parameters
from ._file import load, save

__all__ = ["load_from_folder", "push_to_folder", "push_to_hub"]

WEIGHTS = "model.safetensors"
_REPLACED = (WEIGHTS, "config.json", "README.md")


def push_to_folder(
    model: nn.Module,
    folder: str | os.PathLike[str],
    *,
    name: str | None = None,
    certificate: Any = None,
    receipt: Any = None,
    config: Mapping[str, Any] | None = None,
    layout: str = "dense",
) -> Path:
    """Write ``model.safetensors``, ``config.json`` and a model card into a folder.

    Parameters
    ----------
    model : torch.nn.Module
    folder : path-like
        Made if missing. Of an earlier model the three files are replaced; other files stay.
    name : str, optional
        Title of the card; by default that of the folder.
    certificate, receipt : optional
        As `compact` and `accelerate` return them; shown on the card.
    config : mapping, optional
        Entries of ``config.json``, such as the arguments that the model's class is built with.
    layout : {"dense", "smallest"}
        As for `save`; other libraries read dense tensors only.

    Returns
    -------
    Path
        The folder.

    Raises
    ------
    InvalidArgumentError
        The model cannot be saved, or the configuration is not JSON.
    """
    place = Path(folder)
    if place.exists() and not place.is_dir():
        raise InvalidArgumentError(f"{place} is not a folder")
    dtypes = {str(p.dtype).removeprefix("torch.") for p in model.parameters()}
    about = {
        **(dict(config) if config is not None else {}),
        "architectures": [type(model).__name__],
        "torch_dtype": dtypes.pop() if len(dtypes) == 1 else None,
        "obverse_version": __version__,
    }
    try:
        configuration = json.dumps(about, indent=2, allow_nan=False) + "\n"
    except (TypeError, ValueError) as error:
        raise InvalidArgumentError(f"the configuration cannot be written as JSON: {error}") from error
    card = _card(model, name or place.resolve().name, certificate, receipt)
    save(model, place / WEIGHTS, layout=layout, certificate=certificate)
    write_text(place / "config.json", configuration)
    write_text(place / "README.md", card)
    return place


def load_from_folder(folder: str | os.PathLike[str], into: nn.Module) -> nn.Module:
    """Read a folder that `push_to_folder` wrote into a model of its class; see `load`."""
    place = Path(folder)
    if not (place / WEIGHTS).is_file():
        raise InvalidArgumentError(f"{place} holds no model: there is no {WEIGHTS}")
    return load(place / WEIGHTS, into=into)


def push_to_hub(folder: str | os.PathLike[str], repository: str, *, private: bool = False) -> str:
    """Upload such a folder to the Hugging Face hub, with the account that its own tools are logged in with.

    Parameters
    ----------
    folder : path-like
    repository : str
        ``"owner/name"``; made if it does not exist.
    private : bool
        Of a repository that is made.

    Returns
    -------
    str
        Address of the upload.

    Raises
    ------
    InvalidArgumentError
        The folder holds no model, or ``huggingface_hub`` is not installed.
    """
    place = Path(folder)
    if not (place / WEIGHTS).is_file():
        raise InvalidArgumentError(f"{place} holds no model: there is no {WEIGHTS}")
    try:
        from huggingface_hub import HfApi
    except ImportError as error:
        raise InvalidArgumentError(
            "uploading needs huggingface_hub; install it with: pip install huggingface_hub"
        ) from error
    api = HfApi()
    api.create_repo(repository, private=private, exist_ok=True)
    return str(api.upload_folder(repo_id=repository, folder_path=place, allow_patterns=list(_REPLACED)))


def _card(model: nn.Module, name: str, certificate: Any, receipt: Any) -> str:
    title = " ".join(name.split())
    lines = [
        "---",
        "library_name: pytorch",
        "tags: [pruning, sparsity, obverse]",
        "---",
        "",
        f"# {title}",
        "",
        f"A plain `{type(model).__name__}` with {parameters(model):,} parameters, made smaller with Obverse "
        f"{__version__}.",
        "Its file holds plain tensors and the sizes of the layers; it loads into the unmodified class:",
        "",
        "```python",
        "from obverse.compact import load_from_folder",
        "",
        f"model = load_from_folder({title!r}, into={type(model).__name__}(...))  # built with the original's arguments",
        "```",
        "",
    ]
    for heading, content in (("Certificate", certificate), ("Receipt", receipt)):
        if content is not None:
            # Longer than any fence inside it.
            text = str(content)
            fence = "`" * max(3, 1 + max(len(run) for run in _runs(text)))
            lines += [f"## {heading}", "", fence, text, fence, ""]
    return "\n".join(lines)


def _runs(text: str) -> list[str]:
    """Runs of backticks in a text, and an empty one."""
    return ["", *"".join(c if c == "`" else " " for c in text).split()]
