"""Errors of a linear model on some rows, beside those of a model without features."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from ._losses import POISSON, values
from ._model import LinearModel

__all__ = ["confusion", "measures"]

Floats = npt.NDArray[np.float64]


def measures(
    model: LinearModel,
    X: Any,
    y: npt.NDArray[Any],
    weights: Floats,
    train_y: npt.NDArray[Any],
    train_weights: Floats,
) -> list[dict[str, Any]]:
    """Named errors, the one that goes with the loss first.

    Parameters
    ----------
    model : LinearModel
    X, y, weights
        The rows to measure on.
    train_y, train_weights
        What a model without features learns from: the mean (squared, poisson), the median (huber), or the frequencies
        of the classes.

    Returns
    -------
    list of dict
        ``name``, ``model``, ``null``, and ``is_share`` where the number is a share of rows.
    """
    if model.classes is not None:
        return _of_classes(model, X, y, weights, train_y, train_weights)
    predicted = np.asarray(model.predict(X), dtype=np.float64)
    center = _median(train_y, train_weights) if model.loss == "huber" else np.average(train_y, weights=train_weights)
    flat = np.full(y.size, center)
    squared = _row("root mean squared error", *(np.sqrt(_mean((y - p) ** 2, weights)) for p in (predicted, flat)))
    absolute = _row("mean absolute error", *(_mean(np.abs(y - p), weights) for p in (predicted, flat)))
    spread = _mean((y - np.average(y, weights=weights)) ** 2, weights)
    explained = (
        [_row("R²", *(1 - _mean((y - p) ** 2, weights) / spread for p in (predicted, flat)))] if spread > 0 else []
    )
    if model.loss == "poisson":
        return [
            _row("mean Poisson deviance", *(_deviance(y, p, weights) for p in (predicted, flat))),
            squared,
            absolute,
        ]
    return [absolute, squared, *explained] if model.loss == "huber" else [squared, absolute, *explained]


def confusion(y: npt.NDArray[Any], predicted: npt.NDArray[Any], classes: npt.NDArray[Any]) -> list[list[int]]:
    """Counts of rows by true class and predicted class."""
    counts = np.zeros((classes.size, classes.size), dtype=np.int64)
    np.add.at(counts, (np.searchsorted(classes, y), np.searchsorted(classes, predicted)), 1)
    table: list[list[int]] = counts.tolist()
    return table


def _of_classes(
    model: LinearModel, X: Any, y: Any, weights: Floats, train_y: Any, train_weights: Floats
) -> list[dict[str, Any]]:
    classes: Any = model.classes
    truth = np.searchsorted(classes, y)
    frequencies = np.array([train_weights[train_y == label].sum() for label in classes])
    flat = np.repeat((frequencies / frequencies.sum())[None], y.size, axis=0)
    probabilities = np.asarray(model.predict_proba(X), dtype=np.float64)
    rows: list[dict[str, Any]] = []
    decided = (np.searchsorted(classes, model.predict(X)), flat.argmax(axis=1))
    errors = [_mean((choice != truth).astype(float), weights) for choice in decided]
    rows.append({**_row("error rate", *errors), "is_share": True})
    balanced = []
    for choice in decided:
        present = [k for k in range(classes.size) if weights[truth == k].sum() > 0]
        balanced.append(
            float(np.mean([_mean((choice[truth == k] != k).astype(float), weights[truth == k]) for k in present]))
        )
    rows.append({**_row("balanced error rate", *balanced), "is_share": True})
    least = np.finfo(np.float64).tiny
    loss = [-_mean(np.log(np.maximum(p[np.arange(y.size), truth], least)), weights) for p in (probabilities, flat)]
    rows.append(_row("log loss", *loss))
    return rows


def _row(name: str, model: float, null: float) -> dict[str, Any]:
    return {"name": name, "model": float(model), "null": float(null)}


def _mean(numbers: Floats, weights: Floats) -> float:
    return float(np.average(numbers, weights=weights))


def _median(numbers: Floats, weights: Floats) -> float:
    order = np.argsort(numbers)
    share = np.cumsum(weights[order])
    return float(numbers[order][np.searchsorted(share, share[-1] / 2)])


def _deviance(y: Floats, predicted: Floats, weights: Floats) -> float:
    """Twice the mean loss at the logarithm of the predictions."""
    with np.errstate(divide="ignore"):
        scores = np.log(np.asarray(predicted, dtype=np.float64))
    return 2 * _mean(np.asarray(values(POISSON, np.asarray(y, dtype=np.float64), scores, 1.0)), weights)
