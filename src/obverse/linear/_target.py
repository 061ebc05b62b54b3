"""The target of a table: which task it sets, its values, its weights, and which rows are held out."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from .._core.random import numpy_generator
from ..errors import InvalidArgumentError
from ._choices import Choices, Task
from ._table import Column, Table, option

__all__ = ["loss_of", "refuse_extremes", "split_rows", "target_values", "task_of", "weights_of"]

Floats = npt.NDArray[np.float64]

# Whole numbers with as few values as this, each met this often, are taken for classes.
_MOST_CLASSES = 10
_ROWS_PER_CLASS = 5
# Numbers beyond it, or all below its inverse, have squares that cannot be added up.
_LARGEST = 1e150


def task_of(column: Column, choices: Choices) -> tuple[Task, str]:
    """The task, and in words why it was taken."""
    if choices.task is not None:
        return choices.task, ""
    if choices.loss in ("squared", "huber", "poisson"):
        return "regression", f", as the loss {choices.loss} says"
    if choices.loss in ("logistic", "multinomial"):
        return "classification", f", as the loss {choices.loss} says"
    if column.kind != "number":
        return "classification", ", because the target is not a number"
    values = np.unique(column.values)
    if column.is_whole and values.size <= _MOST_CLASSES and column.values.size >= _ROWS_PER_CLASS * values.size:
        return "classification", f", because the target has {values.size} whole values (else --task regression)"
    return "regression", ", because the target is a number"


def target_values(table: Table, choices: Choices, task: Task) -> npt.NDArray[Any]:
    column = table.columns[choices.target]
    if column.kind == "other":
        raise InvalidArgumentError(
            f"{table.where}: target {choices.target!r} holds {column.type_name}; it must be numbers or text"
        )
    if task == "regression":
        if column.kind == "text":
            raise InvalidArgumentError(
                f"{table.where}: target {choices.target!r} holds text such as {column.values[0]!r}, and regression "
                "needs numbers"
            )
        if not np.isfinite(column.values).all():
            raise InvalidArgumentError(f"{table.where}: target {choices.target!r} has infinite values")
        return column.values
    if column.kind == "text":
        labels: npt.NDArray[Any] = column.values.astype(str)
    elif column.kind == "boolean":
        labels = column.values.astype(np.bool_)
    else:
        whole = bool((column.values == np.round(column.values)).all() and (np.abs(column.values) < 2**53).all())
        if column.is_whole and not whole:
            raise _unusable_classes(table, choices)
        labels = column.values.astype(np.int64) if whole else column.values
    found = np.unique(labels)
    if found.size < 2:
        raise InvalidArgumentError(
            f"{table.where}: target {choices.target!r} has the one class {found[0]}; a classifier needs two"
        )
    if found.size > max(_MOST_CLASSES, 0.5 * labels.size):
        raise InvalidArgumentError(
            f"{table.where}: target {choices.target!r} has {found.size:,} classes in {labels.size:,} rows; "
            "for numbers give --task regression"
        )
    if labels.dtype == np.float64:
        raise _unusable_classes(table, choices)
    return labels


def _unusable_classes(table: Table, choices: Choices) -> InvalidArgumentError:
    return InvalidArgumentError(
        f"{table.where}: target {choices.target!r} has classes that are no whole numbers below 2**53; take them as "
        f"text with {option('--categorical', choices.target)}, or give --task regression"
    )


def refuse_extremes(table: Table, name: str, values: Floats) -> None:
    """Raise where the squares of a column's numbers leave the range of a double, so that errors could not be compared.

    Raises
    ------
    InvalidArgumentError
    """
    size = float(np.abs(values[np.isfinite(values)]).max(initial=0.0))
    if size > _LARGEST or 0 < size < 1 / _LARGEST:
        raise InvalidArgumentError(
            f"{table.where}: the numbers of column {name!r} reach {size:.3g}, and their squares leave the range of a "
            "double; give the column in another unit"
        )


def weights_of(table: Table, choices: Choices) -> Floats | None:
    if choices.weights is None:
        return None
    column = table.columns[choices.weights]
    if column.kind != "number" or not np.isfinite(column.values).all() or (column.values < 0).any():
        raise InvalidArgumentError(f"{table.where}: weights {choices.weights!r} must be finite numbers, at least 0")
    if not column.values.any():
        raise InvalidArgumentError(f"{table.where}: weights {choices.weights!r} are 0 in all rows")
    return column.values


def loss_of(choices: Choices, task: Task, y: npt.NDArray[Any]) -> str:
    if task == "classification":
        loss = "logistic" if np.unique(y).size == 2 else "multinomial"
        if choices.loss not in (None, loss):
            raise InvalidArgumentError(
                f"loss {choices.loss!r} does not fit a classification with {np.unique(y).size} classes, which is {loss}"
            )
        return loss
    if choices.loss in ("logistic", "multinomial"):
        raise InvalidArgumentError(f"loss {choices.loss!r} is for classification, and the task is regression")
    if choices.loss == "poisson" and (y < 0).any():
        raise InvalidArgumentError(f"target {choices.target!r} has negative values; the poisson loss is for counts")
    return choices.loss or "squared"


def _rows(count: int) -> str:
    return "1 training row" if count == 1 else f"{count} training rows"


def split_rows(
    y: npt.NDArray[Any], task: Task, choices: Choices
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Rows to train on and rows to test on; of every class some stay in training."""
    rng = numpy_generator(choices.seed)
    parts = [np.flatnonzero(y == label) for label in np.unique(y)] if task == "classification" else [np.arange(y.size)]
    held = []
    for part in parts:
        count = min(round(choices.test_fraction * part.size), part.size - 1)
        held.append(rng.permutation(part)[:count])
    test = np.sort(np.concatenate(held)).astype(np.int64)
    train = np.setdiff1d(np.arange(y.size), test).astype(np.int64)
    least = {"cv": 2 * choices.folds, "stability": 4}.get(choices.criterion, 2)
    if train.size < least:
        few = "1 training row is" if train.size == 1 else f"{train.size} training rows are"
        raise InvalidArgumentError(
            f"{few} too few for {choices.folds} folds; give more rows, fewer folds, or a smaller --test-fraction"
            if choices.criterion == "cv"
            else f"{few} too few for --criterion {choices.criterion}, which needs {least}; give more rows, or a "
            "smaller --test-fraction"
        )
    if task == "classification":
        labels, counts = np.unique(y[train], return_counts=True)
        if choices.criterion == "cv" and counts.min() < choices.folds:
            raise InvalidArgumentError(
                f"class {labels[counts.argmin()]} has {_rows(int(counts.min()))}, too few for {choices.folds} folds; "
                "leave the class out, or give fewer --folds, a smaller --test-fraction, or --criterion bic"
            )
    return train, test
