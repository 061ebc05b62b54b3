"""A linear model as one file: plain numbers, and JSON that says what they mean, so that reading it runs no code."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from .._core.files import check_seal, unsealed, write_sealed
from .._core.text import one_line
from ..errors import InvalidArgumentError
from ._encoding import Encoding
from ._model import LinearModel, check_model, linear_model

__all__ = ["load_model", "model_bytes", "plain", "save_model"]

# The entry of the metadata that says what the file is.
FORMAT = "obverse.linear"
VERSION = 1


def save_model(
    model: Any,
    path: str | os.PathLike[str],
    *,
    encoding: Encoding | None = None,
    target: str | None = None,
    summary: Mapping[str, Any] | None = None,
) -> Path:
    """Write a model to one ``.safetensors`` file: the coefficients, and JSON that says what they mean.

    Parameters
    ----------
    model : LinearModel or fitted estimator
    path : path-like
        An existing file is replaced; missing folders are made.
    encoding, target, summary
        As for `linear_model`, where ``model`` is an estimator.

    Returns
    -------
    Path
        The file written.

    Raises
    ------
    InvalidArgumentError
        The model is not fitted, or its numbers are not finite.
    FileWriteError
        The disk is full, or the folder cannot be written to; an old file is as it was.
    """
    if not isinstance(model, LinearModel):
        model = linear_model(model, encoding=encoding, target=target, summary=summary)
    content = model_bytes(model)
    return write_sealed(path, lambda file: file.write_bytes(content))


def model_bytes(model: LinearModel) -> bytes:
    """The content of a model's file, before it is sealed.

    Raises
    ------
    InvalidArgumentError
        The numbers of the model are not finite, or its parts do not fit together.
    """
    check_model(model)
    from safetensors.numpy import save

    classes = None
    if model.classes is not None:
        classes = {"dtype": str(model.classes.dtype), "labels": model.classes.tolist()}
    about = {
        **unsealed(),
        "version": VERSION,
        "task": model.task,
        "loss": model.loss,
        "penalty": model.penalty,
        "alpha": model.alpha,
        "classes": classes,
        "features": None if model.feature_names is None else list(model.feature_names),
        "encoding": None if model.encoding is None else model.encoding.to_plain(),
        "target": model.target,
        "summary": model.summary,
    }
    # One entry: the order of several is left to chance, and the same model is to give the same bytes.
    metadata = {FORMAT: json.dumps(plain(about), allow_nan=False)}
    tensors = {"coef": np.ascontiguousarray(model.coef), "intercept": np.array(model.intercept)}
    return bytes(save(tensors, metadata))


def load_model(path: str | os.PathLike[str]) -> LinearModel:
    """Read a model that `save_model` wrote. Nothing in the file is executed.

    Raises
    ------
    InvalidArgumentError
        No such file, a broken one, one of another kind, or of a newer version.
    DamagedFileError
        The file was changed or cut short after it was written.
    """
    file = Path(path)
    if not file.is_file():
        raise InvalidArgumentError(f"no such model file: {path}")
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(file, framework="numpy") as opened:
            metadata = opened.metadata() or {}
            if FORMAT not in metadata:
                raise InvalidArgumentError(f"{path} is not a linear model of Obverse; `obverse fit` writes such files")
            check_seal(file)
            about = json.loads(metadata[FORMAT])
            if isinstance(about, dict) and about["version"] != VERSION:
                raise InvalidArgumentError(
                    f"{path} has version {about['version']!r} of the format, and this Obverse reads {VERSION}; "
                    "read it with the version that wrote it, or a newer one"
                )
            coef, intercept = opened.get_tensor("coef"), opened.get_tensor("intercept")
        model = _assembled(about, coef, intercept)
        check_model(model)
    except InvalidArgumentError as error:
        raise (
            error if str(error).startswith(str(path)) else InvalidArgumentError(f"{path} is broken: {error}")
        ) from None
    except (SafetensorError, OSError) as error:
        raise InvalidArgumentError(f"cannot read {path}: {one_line(error)}") from error
    except (KeyError, TypeError, ValueError, AttributeError, RecursionError) as error:
        raise InvalidArgumentError(f"{path} is broken: {type(error).__name__}: {error}") from error
    return model


def _assembled(about: Any, coef: npt.NDArray[Any], intercept: npt.NDArray[Any]) -> LinearModel:
    """The model in the JSON and the tensors of a file."""
    if not isinstance(about, dict):
        raise InvalidArgumentError("its description is not a mapping")
    classes = about["classes"]
    labels = None
    if classes is not None:
        # Plain kinds only: what a name in a file can make of a label ends here.
        if not str(classes["dtype"]).startswith(("int", "uint", "float", "bool", "<U", ">U", "object", "str")):
            raise InvalidArgumentError(f"its classes have the type {classes['dtype']!r}")
        if classes["dtype"] == "object" and not all(isinstance(label, str) for label in classes["labels"]):
            raise InvalidArgumentError("its classes are neither numbers nor text")
        labels = np.array(classes["labels"], dtype=classes["dtype"])
    names = about["features"]
    for key, kind in (("penalty", dict), ("summary", dict)):
        if not isinstance(about[key], kind):
            raise InvalidArgumentError(f"its field {key!r} is not a mapping")
    return LinearModel(
        task=about["task"],
        loss=about["loss"],
        coef=coef,
        intercept=intercept[()],
        classes=labels,
        feature_names=None if names is None else tuple(str(name) for name in names),
        encoding=None if about["encoding"] is None else Encoding.from_plain(about["encoding"]),
        target=None if about["target"] is None else str(about["target"]),
        penalty=about["penalty"],
        alpha=None if about["alpha"] is None else float(about["alpha"]),
        summary=about["summary"],
    )


def plain(value: Any) -> Any:
    """The same content in types that JSON knows: NaN becomes null, infinity the string ``"inf"``."""
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, np.ndarray | np.generic):
        value = value.tolist()
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if isinstance(value, float):
        return None if math.isnan(value) else value if math.isfinite(value) else str(value)
    return value if isinstance(value, bool | str | int) or value is None else str(value)
