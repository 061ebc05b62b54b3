"""What a model runs, seen from outside: hooks on its modules for as long as someone looks."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from .._core.text import one_line
from ..errors import InvalidArgumentError, ObverseError
from ._drop_connect import DropConnect
from ._insert import inserted_dropout, inserted_layers
from ._noise import NoiseLayer

__all__ = ["Call", "calls_of", "evaluated", "is_linear", "named_leaves", "run"]


@dataclass(frozen=True)
class Call:
    """One call of a module without children: its name, what went in and what came out."""

    name: str
    module: nn.Module
    input: torch.Tensor
    output: torch.Tensor


def is_linear(module: nn.Module) -> bool:
    """Whether a module is a linear layer, also one of which weights are dropped."""
    if isinstance(module, DropConnect):
        return module.weight is not None and module.weight.dim() == 2 and module.activation is None
    return isinstance(module, nn.Linear)


def named_leaves(model: nn.Module) -> list[tuple[str, nn.Module]]:
    """Modules that do the work, inserted layers among them, with their names."""
    found = [
        (name, module)
        for name, module in model.named_modules()
        if is_linear(module) or isinstance(module, NoiseLayer) or next(module.children(), None) is None
    ]
    if inserted_layers(model):
        found += list(inserted_dropout(model).layers.items())
    return found


@contextmanager
def evaluated(model: nn.Module) -> Iterator[None]:
    """Evaluation mode and no gradients; afterwards every module is in the mode that it was in."""
    modes = [(module, module.training) for module in [*model.modules(), *inserted_layers(model)]]
    try:
        model.eval()
        with torch.no_grad():
            yield
    finally:
        for module, mode in modes:
            module.training = mode


@contextmanager
def calls_of(modules: Iterable[tuple[str, nn.Module]]) -> Iterator[list[Call]]:
    """A list that grows by every call of these modules on a tensor, until the end."""
    calls: list[Call] = []
    handles = []

    def hook(name: str) -> Any:
        def note(module: nn.Module, inputs: tuple[Any, ...], named: dict[str, Any], output: Any) -> None:
            taken = next((part for part in (*inputs, *named.values()) if isinstance(part, torch.Tensor)), None)
            if taken is not None and isinstance(output, torch.Tensor):
                calls.append(Call(name, module, taken, output))

        return note

    try:
        for name, module in modules:
            handles.append(module.register_forward_hook(hook(name), with_kwargs=True, prepend=True))
        yield calls
    finally:
        for handle in handles:
            handle.remove()


def run(model: nn.Module, inputs: Any) -> Any:
    """A forward pass on the model's device; tuples are several arguments, dicts are named ones.

    Raises
    ------
    InvalidArgumentError
        The model fails on them.
    """
    first = next(chain_of(model), None)
    device = None if first is None else first.device
    moved = _moved(inputs, device)
    try:
        if isinstance(moved, dict):
            return model(**moved)
        return model(*moved) if isinstance(moved, (tuple, list)) else model(moved)
    except (RuntimeError, TypeError, ValueError, IndexError) as error:
        if isinstance(error, ObverseError):
            raise
        raise InvalidArgumentError(f"the model does not take these inputs: {one_line(error)}") from error


def chain_of(model: nn.Module) -> Iterator[torch.Tensor]:
    """Parameters and buffers."""
    yield from model.parameters()
    yield from model.buffers()


def _moved(inputs: Any, device: torch.device | None) -> Any:
    if isinstance(inputs, torch.Tensor):
        return inputs.to(device)
    if isinstance(inputs, dict):
        return {name: _moved(part, device) for name, part in inputs.items()}
    return [_moved(part, device) for part in inputs] if isinstance(inputs, Sequence) else inputs
