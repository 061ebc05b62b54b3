"""The target of a table: which task it sets, its values, its weights, and which rows are held out."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from .._core.random import numpy_generator
from ..errors import InvalidArgumentError
from ._choices import Choices, Task
from ._table import Column, Table

__all__ = ["loss_of", "split_rows", "target_values", "task_of", "weights_of"]

Floats = npt.NDArray[np.float64]

# Whole numbers with as few values as this, each met this often, are taken for classes.
_MOST_CLASSES = 10
_ROWS_PER_CLASS = 5


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
    return labels


def weights_of(table: Table, choices: Choices) -> Floats | None:
    if choices.weights is None:
        return None
    column = table.columns[choices.weights]
    if column.kind != "number" or not np.isfinite(column.values).all() or (column.values < 0).any():
        raise InvalidArgumentError(f"{table.where}: weights {choices.weights!r} must be finite numbers, at least 0")
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
    if train.size < 2 * choices.folds:
        raise InvalidArgumentError(
            f"{train.size} training rows are too few for {choices.folds} folds; give more rows, fewer folds, or a "
            "smaller --test-fraction"
        )
    if task == "classification":
        labels, counts = np.unique(y[train], return_counts=True)
        if choices.criterion == "cv" and counts.min() < choices.folds:
            raise InvalidArgumentError(
                f"class {labels[counts.argmin()]} has {counts.min()} training rows, too few for {choices.folds} folds; "
                "leave the class out, or give fewer --folds, a smaller --test-fraction, or --criterion bic"
            )
    return train, test
