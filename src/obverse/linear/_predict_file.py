"""Predictions of a stored model for a table."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import InvalidArgumentError
from ._model_file import load_model
from ._table import read_table

__all__ = ["predict_file"]


def predict_file(model: str, data: str, *, probabilities: bool = False) -> tuple[str, list[str]]:
    """Predictions of a stored model for a table, as csv, and remarks on the rows.

    Parameters
    ----------
    model : str
        A file of `save_model`, or the folder of a fit.
    data : str
        A csv or parquet file with the columns of the selected features; others are not looked at.
    probabilities : bool
        Of the classes, beside the predictions.

    Returns
    -------
    (str, list of str)
        One line for every row of the table, empty where a row has missing values and training left such rows out.

    Raises
    ------
    InvalidArgumentError
        A bad model file or table, columns that are missing, or probabilities of a regression.
    """
    path = Path(model) / "model.safetensors" if Path(model).is_dir() else Path(model)
    loaded = load_model(path)
    if probabilities and loaded.classes is None:
        raise InvalidArgumentError(f"{path} is a regression model: it has no probabilities")
    if loaded.encoding is None:
        raise InvalidArgumentError(f"{path} was fitted on an array and does not know columns; predict from Python")
    categorical = [code.column for code in loaded.encoding.codes if code.kind == "category"]
    table = read_table(data, as_text=categorical)
    encoded = loaded.encode(table)
    remarks = [
        f"column {column!r}: {count:,} rows have a category that training did not have, such as {example!r}; "
        "it counts as none of the known ones"
        for column, (count, example) in encoded.unknown.items()
    ]
    left = int((~encoded.kept).sum())
    if left:
        remarks.append(f"{left:,} rows have missing values and get no prediction")
    heads = ["prediction"]
    columns: list[Iterable[Any]] = []
    if encoded.kept.any():
        with np.errstate(over="ignore", invalid="ignore"):
            predicted = loaded.predict(encoded.X)
        if loaded.classes is None and not np.isfinite(predicted).all():
            beyond = int((~np.isfinite(predicted)).sum())
            remarks.append(f"{beyond:,} predictions are beyond the range of a double")
        columns.append(predicted.tolist())
        if probabilities:
            columns += loaded.predict_proba(encoded.X).T.tolist()
    if probabilities and loaded.classes is not None:
        heads += [f"probability[{label}]" for label in loaded.classes.tolist()]
    rows = zip(*columns, strict=True)
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(heads)
    for kept in encoded.kept.tolist():
        cells = next(rows) if kept else [""] * len(heads)
        writer.writerow([repr(cell) if isinstance(cell, float) else cell for cell in cells])
    return buffer.getvalue(), remarks
