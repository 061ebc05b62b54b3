"""Example inputs: a tensor, positional arguments, or keyword arguments, as a model takes them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ..errors import InvalidArgumentError

__all__ = ["Inputs", "as_inputs"]


@dataclass(frozen=True)
class Inputs:
    """Arguments of a call.

    Attributes
    ----------
    args : tuple
    kwargs : dict of str
    """

    args: tuple[Any, ...]
    kwargs: dict[str, Any]

    def call(self, model: Callable[..., Any]) -> Any:
        """What the model gives for these arguments."""
        return model(*self.args, **self.kwargs)

    def map(self, change: Callable[[Tensor], Tensor]) -> Inputs:
        """The same arguments with every tensor replaced, however deep it stands."""
        return Inputs(_map(self.args, change), _map(self.kwargs, change))

    def tensors(self) -> list[Tensor]:
        """All tensors among the arguments, in order."""
        found: list[Tensor] = []

        def note(tensor: Tensor) -> Tensor:
            found.append(tensor)
            return tensor

        self.map(note)
        return found

    def copied(self) -> Inputs:
        """The same arguments with copies of the tensors, one for each, so that a model can write into them."""
        copies: dict[int, Tensor] = {}

        def copy(tensor: Tensor) -> Tensor:
            return copies.setdefault(id(tensor), tensor.detach().clone())

        with torch.inference_mode(False):
            return self.map(copy)

    @property
    def batch(self) -> int:
        """Length of the first axis of the first tensor that has one; 1 where none has."""
        return next((len(tensor) for tensor in self.tensors() if tensor.ndim), 1)


def _map(value: Any, change: Callable[[Tensor], Tensor]) -> Any:
    if isinstance(value, Tensor):
        return change(value)
    if type(value) in (list, tuple):
        return type(value)(_map(one, change) for one in value)
    if isinstance(value, dict):
        return {key: _map(one, change) for key, one in value.items()}
    if isinstance(value, torch.nn.utils.rnn.PackedSequence):
        return value._replace(data=change(value.data))
    return value


def as_inputs(inputs: Any) -> Inputs:
    """Arguments from a tensor, a sequence of positional or a mapping of keyword arguments, or a tokenizer's output.

    Raises
    ------
    InvalidArgumentError
        Anything else, or nothing at all.
    """
    if isinstance(inputs, Inputs):
        return inputs
    if isinstance(inputs, Tensor | torch.nn.utils.rnn.PackedSequence):
        return Inputs((inputs,), {})
    if isinstance(inputs, Mapping) and len(inputs) and all(isinstance(key, str) for key in inputs):
        return Inputs((), dict(inputs))
    if isinstance(inputs, Sequence) and not isinstance(inputs, str) and len(inputs) > 0:
        return Inputs(tuple(inputs), {})
    raise InvalidArgumentError(
        "example inputs must be a tensor, a tuple of positional or a mapping of keyword arguments; "
        f"got {type(inputs).__name__}"
    )
