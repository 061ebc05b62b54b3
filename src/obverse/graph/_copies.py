"""The model that is analyzed: taken out of its wrappers, and copied so that the original stays as it is."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any

import torch
from torch import nn

from ..errors import InvalidArgumentError

__all__ = ["plain_copy", "shared_copy", "unwrapped"]


def unwrapped(model: Any) -> nn.Module:
    """The module inside a compiled one or inside a wrapper of data parallelism.

    Raises
    ------
    InvalidArgumentError
        Not a module.
    """
    if not isinstance(model, nn.Module):
        raise InvalidArgumentError(f"model must be an nn.Module, not {type(model).__name__}")
    found: nn.Module = model
    while True:
        inner = getattr(found, "_orig_mod", None)
        if inner is None and isinstance(found, nn.DataParallel | nn.parallel.DistributedDataParallel):
            inner = found.module
        if not isinstance(inner, nn.Module):
            return found
        found = inner


def shared_copy(model: nn.Module) -> nn.Module:
    """A copy of the modules that shares their parameters, for a run that changes none; buffers are copied."""
    return plain_copy(model, {id(parameter): parameter for parameter in model.parameters()})


def plain_copy(model: nn.Module, shared: dict[int, Any] | None = None) -> nn.Module:
    """A deep copy; tensors that a layer computes before every call come as plain numbers.

    ``shared`` has objects by their id that the copy refers to instead.
    """
    computed = [value for module in model.modules() for value in _tensors(vars(module)) if not value.is_leaf]
    try:
        return copy.deepcopy(model, {**(shared or {}), **{id(value): value.detach().clone() for value in computed}})
    except Exception as error:
        raise InvalidArgumentError(
            f"{type(model).__name__} cannot be copied ({type(error).__name__}: {str(error)[:200]}); "
            "a model that is made smaller is a copy"
        ) from error


def _tensors(value: Any) -> Iterator[torch.Tensor]:
    """Tensors that a module holds, caches in containers included; its parameters and submodules have their own."""
    if isinstance(value, torch.Tensor):
        yield value
    elif isinstance(value, dict):
        for one in value.values():
            yield from _tensors(one)
    elif isinstance(value, list | tuple):
        for one in value:
            yield from _tensors(one)
