"""A finished run, read back: its recipe, its data, and its model with the weights that it ended with."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from .._core.files import check_seal
from ..errors import InvalidArgumentError, UnknownNameError
from ._models import build_model
from ._recipe import RECIPE, Recipe, read_recipe
from ._split import Data
from ._study import read_data

__all__ = ["PARTS", "SavedRun", "diagnose_run", "read_run"]

PARTS = ("train", "validation", "test")

_ROWS = 2048


@dataclass(frozen=True)
class SavedRun:
    """What a run folder holds.

    Attributes
    ----------
    folder : Path
    recipe : Recipe
    data : Data
        Read and split again, as the recipe says.
    model : torch.nn.Module
        In evaluation mode.
    """

    folder: Path
    recipe: Recipe
    data: Data
    model: nn.Module

    def batches(self, part: str) -> Iterator[tuple[Tensor, Tensor]]:
        """Normalized inputs and labels of one part of the data."""
        if part not in PARTS:
            raise UnknownNameError("part", part, PARTS)
        samples = getattr(self.data, part)
        for start in range(0, len(samples), _ROWS):
            rows = slice(start, start + _ROWS)
            yield self.data.normalize(samples.inputs[rows]), samples.labels[rows]


def read_run(folder: str | Path, model: str | None = None) -> SavedRun:
    """Read a run folder of ``obverse sparsify``.

    Parameters
    ----------
    folder : path-like
        With ``recipe.yaml`` and ``model.safetensors``.
    model : str, optional
        Must be given where the recipe names a model to import: a file does not get to run code.

    Returns
    -------
    SavedRun

    Raises
    ------
    InvalidArgumentError
        The folder is none of a run, or the weights do not fit the model (`DamagedFileError` where a file is not what
        the run wrote; files without a digest are taken as they are).
    """
    folder = Path(folder).expanduser()
    if not folder.is_dir():
        raise InvalidArgumentError(f"no such run folder: {folder}")
    weights = folder / "model.safetensors"
    for path in (folder / RECIPE, weights):
        if not path.is_file():
            raise InvalidArgumentError(f"{folder} is no finished run of obverse sparsify: it has no {path.name}")
    path = check_seal(folder / RECIPE, required=False, advice="if you edited it, delete its last line")
    check_seal(weights, required=False, advice="delete it and obverse sparsify --resume makes it again")
    recipe = read_recipe({} if model is None else {"model": model}, path)
    data = read_data(recipe)
    built = build_model(recipe.model, data.input_shape, len(data.classes), recipe.width, data.tokens)
    _load(built, weights)
    return SavedRun(folder, recipe, data, built.eval())


def diagnose_run(
    folder: str | Path, *, drop_rate: float | None = None, part: str = "test", model: str | None = None
) -> dict[str, Any]:
    """What dropout would do to the last layer of a run's model; see `obverse.dropout.diagnose`.

    Parameters
    ----------
    folder : path-like
    drop_rate : float, optional
        In [0, 1); by default that of the model's own dropout layer, else 0.5.
    part : {"test", "train", "validation"}
    model : str, optional
        As in `read_run`.

    Returns
    -------
    dict
        The diagnosis as plain numbers, with what it was made from.

    Raises
    ------
    InvalidArgumentError
        Also for a drop rate out of range.
    """
    from ..dropout import diagnose
    from ._record import versions

    if drop_rate is not None and not 0.0 <= drop_rate < 1.0:
        raise InvalidArgumentError(f"a drop rate lies in [0, 1), got {drop_rate}")
    if part not in PARTS:
        raise UnknownNameError("part", part, PARTS)
    run = read_run(folder, model)
    found = diagnose(run.model, run.batches(part), keep_probability=None if drop_rate is None else 1.0 - drop_rate)
    from .. import __version__

    return {
        "obverse": __version__,
        "run": str(run.folder),
        "model": {"name": run.recipe.model},
        "data": {"name": run.data.name, "part": part, "classes": list(run.data.classes)},
        "diagnosis": found.to_dict(),
        "text": str(found),
        "recipe": run.recipe.numbers(),
        "versions": versions(),
    }


def _load(model: nn.Module, path: Path) -> None:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        state = load_file(path)
    except (SafetensorError, OSError) as error:
        raise InvalidArgumentError(f"cannot read {path}: {error}") from error
    own = model.state_dict()
    for key, tensor in state.items():
        # Loading would convert them without a word.
        if key in own and tensor.dtype != own[key].dtype:
            raise InvalidArgumentError(
                f"{path} does not fit the model of its recipe: {key} is {tensor.dtype} there and {own[key].dtype} here"
            )
        if tensor.is_floating_point() and not tensor.isfinite().all():
            raise InvalidArgumentError(f"{path}: {key} is not finite; train the model again")
    try:
        with torch.no_grad():
            model.load_state_dict(state)
    except RuntimeError as error:
        line = str(error).strip().splitlines()[-1].strip()
        raise InvalidArgumentError(f"{path} does not fit the model of its recipe: {line}") from error
