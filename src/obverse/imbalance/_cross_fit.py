"""Predictions of every row by a model that has not seen it, fold by fold, kept in a folder where one is given."""

from __future__ import annotations

import hashlib
import os
import zipfile
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from .._core.files import check_seal, locked, read_json, write_sealed
from ..errors import DamagedFileError, InvalidArgumentError, NonFiniteError, StateError

__all__ = ["FitPredict", "cross_predict", "fingerprint"]

Rows = NDArray[np.int64]
FitPredict = Callable[[Rows, Rows], Any]
_STUDY = "study.json"
_AGAIN = "delete it and the fold is run again"


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
    if folder is None:
        parts = [_fold(fit_predict, assigned, fold, columns) for fold in range(int(assigned.max()) + 1)]
        return _whole(parts, assigned)
    place = Path(folder)
    with locked(place):
        _open(place, identity)
        return _whole(
            [
                _kept(place / f"fold-{fold}.npz", fit_predict, assigned, fold, columns, identity)
                for fold in range(int(assigned.max()) + 1)
            ],
            assigned,
        )


def _fold(fit_predict: FitPredict, assigned: Rows, fold: int, columns: int | None) -> NDArray[np.float64]:
    """Predictions of the rows of a fold, in their order."""
    rows = np.flatnonzero(assigned == fold)
    return _checked(fit_predict(np.flatnonzero(assigned != fold), rows), len(rows), columns)


def _kept(
    path: Path, fit_predict: FitPredict, assigned: Rows, fold: int, columns: int | None, identity: str
) -> NDArray[np.float64]:
    """The same, read from its file, or written there."""
    if path.exists():
        rows = np.flatnonzero(assigned == fold)
        return _checked(_read(path, rows, identity), len(rows), columns)
    predictions = _fold(fit_predict, assigned, fold, columns)
    _write(path, np.flatnonzero(assigned == fold), predictions, identity)
    return predictions


def _whole(parts: list[NDArray[np.float64]], assigned: Rows) -> NDArray[np.float64]:
    """The predictions of all rows from those of the folds."""
    if len({part.ndim for part in parts}) > 1:
        raise InvalidArgumentError("the folds give predictions of different shapes")
    whole = np.empty((len(assigned), *parts[0].shape[1:]))
    for fold, part in enumerate(parts):
        whole[assigned == fold] = part
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


def _open(folder: Path, identity: str) -> None:
    """Raise unless a folder is new, or of this study."""
    study = folder / _STUDY
    if not study.exists():
        if any(folder.glob("fold-*.npz")):
            raise StateError(f"{folder} holds folds without {_STUDY}, so whose they are is unknown; use another folder")
        write_sealed(study, {"identity": identity})
    if read_json(study, sealed=True, advice="delete the folder to start again").get("identity") != identity:
        raise StateError(
            f"{folder} holds predictions for other labels, groups, folds or another seed or estimator; "
            "use another folder, or delete this one"
        )


def _read(path: Path, rows: Rows, identity: str) -> NDArray[np.float64]:
    check_seal(path, advice=_AGAIN)
    try:
        # From memory: np.load leaves a damaged file open.
        with np.load(BytesIO(path.read_bytes()), allow_pickle=False) as stored:
            found, predictions, owner = stored["rows"], stored["predictions"], str(stored["identity"])
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise DamagedFileError(f"{path} is damaged: {error}; {_AGAIN}") from error
    if owner != identity or not np.array_equal(found, rows):
        raise StateError(f"{path} holds predictions of other rows or another study; {_AGAIN}")
    return np.asarray(predictions)


def _write(path: Path, rows: Rows, predictions: NDArray[np.float64], identity: str) -> None:
    write_sealed(path, lambda file: np.savez(file, rows=rows, predictions=predictions, identity=np.array(identity)))
