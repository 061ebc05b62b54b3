"""Labels and rows of whatever container they come in: lists, arrays, tensors, tables, datasets."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset, Subset

from ..errors import InvalidArgumentError

__all__ = ["as_list", "decode", "encode", "like", "rows_of", "take", "take_labels"]


def as_list(labels: Any) -> list[Any]:
    """Labels as plain Python values; one for each row."""
    if isinstance(labels, str | bytes | Mapping):
        raise InvalidArgumentError(
            f"labels must be a sequence with one entry for each row, got {type(labels).__name__}"
        )
    if isinstance(labels, Tensor):
        labels = labels.detach().cpu().numpy()
    if hasattr(labels, "to_numpy"):
        labels = labels.to_numpy()
    if isinstance(labels, np.ndarray):
        if labels.ndim != 1:
            raise InvalidArgumentError(f"labels must have one axis, got shape {labels.shape}")
        return list(labels.tolist())
    try:
        return [value.item() if isinstance(value, np.generic | Tensor) else value for value in labels]
    except TypeError as error:
        raise InvalidArgumentError(f"labels must be a sequence, got {type(labels).__name__}") from error


def encode(labels: Any, classes: Sequence[Any] | None = None) -> tuple[Tensor, list[Any]]:
    """Labels as integers of shape (N,) and the classes they stand for, sorted unless given."""
    values = as_list(labels)
    if any(value is None or value != value for value in values):
        raise InvalidArgumentError("labels must not be missing (None or NaN)")
    try:
        known = sorted(set(values)) if classes is None else as_list(classes)
        places = {value: place for place, value in enumerate(known)}
    except TypeError as error:
        raise InvalidArgumentError(f"labels must be of one kind that can be sorted and hashed: {error}") from error
    if len(places) < len(known):
        raise InvalidArgumentError(f"classes must differ from each other, got {known}")
    unknown = next((value for value in values if value not in places), None)
    if unknown is not None:
        raise InvalidArgumentError(f"label {unknown!r} is not among the classes {known}")
    return torch.tensor([places[value] for value in values], dtype=torch.int64), known


def decode(codes: Tensor, classes: Sequence[Any], template: Any) -> Any:
    """The labels that ``codes`` stand for, in the container of ``template``."""
    return like([classes[code] for code in codes.tolist()], template)


def like(values: Sequence[Any], template: Any) -> Any:
    """Values in a container of the kind and type of ``template``."""
    if isinstance(template, Tensor):
        return torch.tensor(values, dtype=template.dtype, device=template.device)
    if isinstance(template, np.ndarray):
        return np.array(values, dtype=template.dtype)
    if hasattr(template, "to_numpy") and hasattr(template, "index"):
        return type(template)(values, index=template.index, name=template.name)
    return tuple(values) if isinstance(template, tuple) else list(values)


def take(data: Any, rows: Tensor) -> Any:
    """The given rows of tensors, arrays, tables, sparse matrices, lists, datasets, and dicts or tuples of such."""
    if data is None:
        return None
    if isinstance(data, Tensor):
        return data[rows.to(data.device)]
    if isinstance(data, Mapping):
        return {key: take(part, rows) for key, part in data.items()}
    if isinstance(data, tuple):
        return tuple(take(part, rows) for part in data)
    if isinstance(data, Dataset):
        return Subset(data, rows.tolist())
    if hasattr(data, "iloc"):
        return data.iloc[rows.numpy()]
    if hasattr(data, "select") and hasattr(data, "features"):  # a data set of Hugging Face
        return data.select(rows.tolist())
    if hasattr(data, "shape"):
        return data[rows.numpy()]
    return [data[row] for row in rows.tolist()]


def take_labels(labels: Any, rows: Tensor) -> Any:
    """The given rows of a sequence of labels; a tuple is one sequence here, not several."""
    return tuple(labels[row] for row in rows.tolist()) if isinstance(labels, tuple) else take(labels, rows)


def rows_of(data: Any) -> int | None:
    """The number of rows of such data; None where there are none to count."""
    if data is None:
        return None
    if isinstance(data, Mapping):
        data = tuple(data.values())
    if isinstance(data, tuple):
        lengths = {rows_of(part) for part in data}
        if len(lengths) > 1:
            raise InvalidArgumentError(
                f"the parts of data differ in their numbers of rows: {sorted(map(str, lengths))}"
            )
        return lengths.pop() if lengths else None
    return int(data.shape[0]) if hasattr(data, "shape") else len(data)
