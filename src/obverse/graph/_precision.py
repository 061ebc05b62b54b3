"""Running a model in double precision throughout, also where its code casts to a narrower type."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch.overrides import TorchFunctionMode

__all__ = ["double_precision"]

_NARROW = (torch.float32, torch.float16, torch.bfloat16)


class _Widened(TorchFunctionMode):
    """Replaces every narrower floating type that a function is told by float64."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = getattr(func, "__name__", "")
        if name in ("float", "half", "bfloat16") and args and isinstance(args[0], torch.Tensor):
            return args[0].double()
        return func(*_wide(args), **_wide(kwargs or {}))


def _wide(value: Any) -> Any:
    if isinstance(value, torch.dtype):
        return torch.float64 if value in _NARROW else value
    if type(value) in (tuple, list):
        return type(value)(_wide(one) for one in value)
    if type(value) is dict:
        return {key: _wide(one) for key, one in value.items()}
    return value


@contextmanager
def double_precision() -> Iterator[None]:
    """While entered, code that asks for single or half precision gets double precision.

    Two models that are equal in exact arithmetic then agree to rounding in float64, whatever casts stand in their code.
    """
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    try:
        with _Widened():
            yield
    finally:
        torch.set_default_dtype(before)
