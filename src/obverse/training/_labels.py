"""Labels as integers 0..K-1 with a name each, or an error that says which row breaks that."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..errors import InvalidArgumentError

__all__ = ["encode_labels"]


def encode_labels(values: Sequence[Any], names: Sequence[str] | None, where: str) -> tuple[Tensor, tuple[str, ...]]:
    """Integer labels and class names.

    Parameters
    ----------
    values : sequence of int or str
        One label per row. Numbers must be integers from 0; anything else is taken as the name of a class.
    names : sequence of str or None
        Names known already (from metadata or the training split); None to derive them from ``values``.
    where : str
        What the rows are, for the error message.
    """
    if len(values) == 0:
        raise InvalidArgumentError(f"{where} is empty: no rows to learn from")
    numbers = _integers(values, where)
    if numbers is None:
        return _by_name([str(value) for value in values], names, where)
    low = int(numbers.min())
    if low < 0:
        row = int(np.argmin(numbers))
        raise InvalidArgumentError(f"{where}, row {row}: label {low} is negative; labels are integers 0..K-1")
    high = int(numbers.max())
    if names is not None and high >= len(names):
        row = int(np.argmax(numbers))
        raise InvalidArgumentError(f"{where}, row {row}: label {high} is out of range 0..{len(names) - 1}")
    if names is None:
        present = set(numbers.tolist())
        absent = next((label for label in range(high + 1) if label not in present), None)
        if absent is not None:
            raise InvalidArgumentError(
                f"{where}: labels go up to {high} but no row has label {absent}; "
                "number the classes 0..K-1 without gaps, or use names"
            )
        names = [str(label) for label in range(high + 1)]
    return torch.from_numpy(numbers), tuple(names)


def _integers(values: Sequence[Any], where: str) -> np.ndarray[Any, np.dtype[np.int64]] | None:
    """The labels as integers; None when they are names."""
    try:
        numbers = np.asarray(values, dtype=np.float64)
    except (TypeError, ValueError):
        if isinstance(values[0], str) and not any(value is None or value == "" for value in values):
            return None
        row = next((i for i, value in enumerate(values) if value is None or value == ""), 0)
        raise InvalidArgumentError(f"{where}, row {row}: the label is missing") from None
    broken = ~np.isfinite(numbers) | (numbers != np.floor(numbers)) | (np.abs(numbers) >= 2**53)
    if broken.any():
        row = int(np.argmax(broken))
        raise InvalidArgumentError(f"{where}, row {row}: label {values[row]!r} is not an integer")
    return numbers.astype(np.int64)


def _by_name(values: list[str], names: Sequence[str] | None, where: str) -> tuple[Tensor, tuple[str, ...]]:
    known = tuple(names) if names is not None else tuple(sorted(set(values)))
    index = {name: label for label, name in enumerate(known)}
    for row, value in enumerate(values):
        if value not in index:
            raise InvalidArgumentError(f"{where}, row {row}: label {value!r} is not a class of the training data")
    return torch.tensor([index[value] for value in values]), known
