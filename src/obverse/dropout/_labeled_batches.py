"""Batches of inputs and targets from whatever holds them, and targets as numbers."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import chain
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch.utils.data import DataLoader, Dataset, IterableDataset

from .._core.checks import count
from .._core.text import brief
from ..errors import InvalidArgumentError
from ._finite import LARGEST

__all__ = ["Targets", "labeled_batches", "targets_of"]

_ROWS = 512  # examples in a batch where the data come without batches


def labeled_batches(
    data: Any, max_examples: int | None, generator: torch.Generator | None
) -> Iterator[tuple[Any, torch.Tensor]]:
    """Pairs of inputs and targets, together no more than ``max_examples`` examples.

    From a tuple of arrays and from a data set with a length the examples are drawn at random; what comes in batches is
    read from the start.
    """
    if max_examples is not None:
        max_examples = count("max_examples", max_examples)
    batches = _limited(_batches(data, max_examples, generator), max_examples)
    first = next(batches, None)
    if first is None:
        raise InvalidArgumentError("the data hold no example")
    return chain([first], batches)


def _batches(data: Any, most: int | None, generator: torch.Generator | None) -> Iterator[tuple[Any, torch.Tensor]]:
    if (
        isinstance(data, tuple)
        and len(data) == 2
        and all(isinstance(part, (torch.Tensor, np.ndarray)) for part in data)
    ):
        inputs, targets = _tensor(data[0]), _tensor(data[1])
        if inputs.dim() == 0 or targets.dim() == 0 or len(inputs) != len(targets):
            raise InvalidArgumentError(
                f"inputs and targets must pair up, got shapes {tuple(inputs.shape)} and {tuple(targets.shape)}"
            )
        for index in torch.split(_chosen(len(inputs), most, generator), _ROWS):
            yield inputs[index], targets[index]
        return
    if isinstance(data, IterableDataset):
        data = DataLoader(data, batch_size=_ROWS)
    elif isinstance(data, Dataset):
        size = len(data)  # type: ignore[arg-type]
        data = DataLoader(data, batch_size=_ROWS, sampler=_chosen(size, most, generator).tolist())
    if not isinstance(data, Iterable) or isinstance(data, (str, bytes, torch.Tensor, dict)):
        raise InvalidArgumentError(
            "data must be (inputs, targets), a Dataset, a DataLoader or another iterable of pairs (inputs, targets), "
            f"got {type(data).__name__}"
        )
    for batch in data:
        if not isinstance(batch, (tuple, list)) or len(batch) != 2:
            what = f"{len(batch)} parts" if isinstance(batch, (tuple, list)) else type(batch).__name__
            raise InvalidArgumentError(f"every batch must be a pair (inputs, targets), got {what}")
        yield _tensors(batch[0]), _tensor(batch[1])


def _chosen(size: int, most: int | None, generator: torch.Generator | None) -> torch.Tensor:
    if most is None or most >= size:
        return torch.arange(size)
    return torch.randperm(size, generator=generator)[:most].sort().values


def _limited(batches: Iterator[tuple[Any, torch.Tensor]], most: int | None) -> Iterator[tuple[Any, torch.Tensor]]:
    left = most
    for inputs, targets in batches:
        size = len(targets) if targets.dim() else 0
        if size == 0:
            continue
        if left is not None and size > left:
            inputs, targets = _cut(inputs, left), targets[:left]
        yield inputs, targets
        if left is not None:
            left -= len(targets)
            if left <= 0:
                return


def _tensors(inputs: Any) -> Any:
    return _tensor(inputs) if isinstance(inputs, np.ndarray) else inputs


def _tensor(values: Any) -> torch.Tensor:
    try:
        return torch.as_tensor(values)
    except (TypeError, ValueError, RuntimeError):
        raise InvalidArgumentError(f"inputs and targets must be arrays of numbers, got {brief(values)}") from None


def _cut(inputs: Any, rows: int) -> Any:
    if isinstance(inputs, torch.Tensor):
        return inputs[:rows]
    if isinstance(inputs, dict):
        return {name: _cut(part, rows) for name, part in inputs.items()}
    return type(inputs)(_cut(part, rows) for part in inputs) if isinstance(inputs, (tuple, list)) else inputs


@dataclass(frozen=True)
class Targets:
    """Targets as numbers (n, K) in float64, as the loss takes them, and the loss they suggest."""

    numbers: torch.Tensor
    given: torch.Tensor
    suggests: str


def targets_of(given: torch.Tensor, outputs: torch.Tensor) -> Targets:
    """Read targets for outputs (n, K): class labels become one-hot rows, numbers stay."""
    rows, width = outputs.shape
    given = given.to(outputs.device)
    whole = not given.is_floating_point()
    if given.is_complex():
        raise InvalidArgumentError(f"targets must be real numbers or class labels, got {given.dtype}")
    if given.numel() and not float(given.abs().max() if given.dtype != torch.bool else 1) <= LARGEST:
        raise InvalidArgumentError("targets must be finite, and so must be their squares")
    if given.numel() == rows and (width == 1 or whole):
        flat = given.reshape(-1)
        if width == 1:
            numbers = flat.to(torch.float64).unsqueeze(1)
            return Targets(numbers, numbers, "logistic" if given.dtype == torch.bool else "squared")
        labels = flat.long()
        if bool(((labels < 0) | (labels >= width)).any()):
            raise InvalidArgumentError(
                f"class labels must lie in 0..{width - 1} for {width} outputs, got {int(labels.min())} to "
                f"{int(labels.max())}"
            )
        return Targets(F.one_hot(labels, width).to(torch.float64), labels, "cross-entropy")
    if given.numel() == rows * width and given.shape[-1] == width:
        numbers = given.reshape(rows, width).to(torch.float64)
        return Targets(numbers, numbers, "squared")
    raise InvalidArgumentError(
        f"targets of shape {tuple(given.shape)} and dtype {given.dtype} do not fit {rows} examples with {width} "
        f"outputs; give class labels ({rows},) of an integer dtype, or numbers ({rows}, {width})"
    )
