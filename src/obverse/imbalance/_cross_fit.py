"""Predictions of every row by a model that has not seen it, fold by fold, kept in a folder where one is given."""

from __future__ import annotations

import hashlib
import json
import os
import zipfile
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from ..errors import InvalidArgumentError, NonFiniteError, StateError

__all__ = ["FitPredict", "cross_predict", "fingerprint"]

Rows = NDArray[np.int64]
FitPredict = Callable[[Rows, Rows], Any]
_STUDY = "study.json"


def fingerprint(*parts: Any) -> str:
    """A digest of what the folds and labels are: arrays by their bytes, everything else by its representation."""
    digest = hashlib.sha256()
    for part in parts:
        digest.update(part.tobytes() if isinstance(part, np.ndarray) else repr(part).encode())
        digest.update(b"|")
    return digest.hexdigest()


def cross_predict(
    fit_predict: FitPredict,
    assigned: Rows,
    columns: int | None,
    folder: str | os.PathLike[str] | None,
    identity: str,
) -> NDArray[np.float64]:
    """Predictions of all rows, each by the model of the other folds.

    Parameters
    ----------
    fit_predict : callable
        ``fit_predict(train, held_out)`` with sorted row numbers; returns one prediction for each row held out.
    assigned : ndarray of int, shape (N,)
        Fold of every row, from 0.
    columns : int, optional
        K for predictions of shape (n, K), where (n,) is allowed as well; None for (n,) only.
    folder : path, optional
        Where the predictions of every finished fold are kept, and read back.
    identity : str
        Of `fingerprint`: a folder with another one is refused.
    """
    place = None if folder is None else _opened(Path(folder), identity)
    parts: list[NDArray[np.float64]] = []
    held = [np.flatnonzero(assigned == fold) for fold in range(int(assigned.max()) + 1)]
    for fold, rows in enumerate(held):
        path = None if place is None else place / f"fold-{fold}.npz"
        kept = None if path is None or not path.exists() else _read(path, rows)
        if kept is None:
            kept = _checked(fit_predict(np.flatnonzero(assigned != fold), rows), len(rows), columns)
            if path is not None:
                _write(path, rows, kept)
        else:
            kept = _checked(kept, len(rows), columns)
        parts.append(kept)
    if len({part.ndim for part in parts}) > 1:
        raise InvalidArgumentError("the folds give predictions of different shapes")
    whole = np.empty((len(assigned), *parts[0].shape[1:]))
    for rows, part in zip(held, parts, strict=True):
        whole[rows] = part
    return whole


def _checked(given: Any, rows: int, columns: int | None) -> NDArray[np.float64]:
    values = given.detach().cpu().double().numpy() if isinstance(given, Tensor) else given
    try:
        array = np.asarray(values, dtype=float)
    except (TypeError, ValueError) as error:
        raise InvalidArgumentError(f"predictions must be numbers, got {type(given).__name__}: {error}") from error
    if array.ndim == 2 and array.shape[1] == 1 and columns is None:
        array = array[:, 0]
    allowed = [(rows,)] if columns is None else [(rows,), (rows, columns)]
    if array.shape not in allowed:
        raise InvalidArgumentError(
            f"fit_predict must give predictions of shape {' or '.join(map(str, allowed))}, got {array.shape}"
        )
    if not np.isfinite(array).all():
        raise NonFiniteError("the model predicts values that are not finite")
    return array


def _opened(folder: Path, identity: str) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    study = folder / _STUDY
    if not study.exists():
        if any(folder.glob("fold-*.npz")):
            raise StateError(f"{folder} holds folds without {_STUDY}, so whose they are is unknown; use another folder")
        _replace(study, json.dumps({"identity": identity}).encode())
    try:
        known = json.loads(study.read_text())["identity"]
    except (ValueError, KeyError, TypeError) as error:
        raise StateError(f"{study} is damaged; delete the folder to start again") from error
    if known != identity:
        raise StateError(
            f"{folder} holds predictions for other labels, groups, folds or another seed or estimator; "
            "use another folder, or delete this one"
        )
    return folder


def _read(path: Path, rows: Rows) -> NDArray[np.float64]:
    try:
        # From memory: np.load leaves a damaged file open.
        with np.load(BytesIO(path.read_bytes()), allow_pickle=False) as stored:
            found, predictions = stored["rows"], stored["predictions"]
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise StateError(f"{path} is damaged; delete it and the fold is run again") from error
    if not np.array_equal(found, rows):
        raise StateError(f"{path} holds predictions of other rows; delete it and the fold is run again")
    return np.asarray(predictions)


def _write(path: Path, rows: Rows, predictions: NDArray[np.float64]) -> None:
    buffer = BytesIO()
    np.savez(buffer, rows=rows, predictions=predictions)
    _replace(path, buffer.getvalue())


def _replace(path: Path, content: bytes) -> None:
    """A file that is whole or not there, whenever the process ends."""
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    partial.write_bytes(content)
    os.replace(partial, path)
