"""The model that is analyzed: taken out of its wrappers, and copied so that the original stays as it is."""

from __future__ import annotations

import copy
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
    computed = [
        (module, name, value)
        for module in model.modules()
        for name, value in vars(module).items()
        if isinstance(value, torch.Tensor) and not value.is_leaf
    ]
    try:
        for module, name, value in computed:
            vars(module)[name] = value.detach()
        return copy.deepcopy(model, dict(shared or {}))
    except Exception as error:
        raise InvalidArgumentError(
            f"{type(model).__name__} cannot be copied ({type(error).__name__}: {str(error)[:200]}); "
            "a model that is made smaller is a copy"
        ) from error
    finally:
        for module, name, value in computed:
            vars(module)[name] = value
