"""Admits finite real numbers alone to the formulas, and lets no result out that overflowed."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from .._core.arrays import Array, admit, numbers
from .._core.text import brief
from ..errors import InvalidArgumentError

__all__ = ["LARGEST", "admit_finite", "finite_numbers", "listed"]

# Sums of squares of numbers up to this one do not overflow float64.
LARGEST = 1e150


def admit_finite(**arguments: Array) -> tuple[list[Tensor], Callable[[Tensor], Array]]:
    """Arrays by name as tensors of one dtype and device, and what turns a result back into the caller's kind.

    As `admit`, for finite numbers. While a compiler traces, no number is looked at.

    Raises
    ------
    InvalidArgumentError
        An array holds no real numbers, or NaN or infinity; of the way back: the result is not finite.
    """
    for name, value in arguments.items():
        _require_numbers(name, value)
    tensors, back = admit(*arguments.values())
    for name, tensor in zip(arguments, tensors, strict=True):
        _require_finite(f"{name} must be finite", tensor)

    def checked(result: Tensor) -> Array:
        _require_finite(f"the result overflows {result.dtype}: scale the arguments down", result)
        return back(result)

    return tensors, checked


def finite_numbers(name: str, value: Array, *, squared: bool = False) -> NDArray[np.float64]:
    """``value`` as a float64 NumPy array of finite numbers, of which with ``squared`` the squares are finite as well.

    Raises
    ------
    InvalidArgumentError
        It holds no real numbers, or NaN or infinity.
    """
    _require_numbers(name, value)
    found = numbers(value)
    if not np.isfinite(found).all():
        raise InvalidArgumentError(f"{name} must be finite")
    if squared and np.abs(found).max(initial=0.0) > LARGEST:
        raise InvalidArgumentError(f"{name} is too large, its squares overflow float64: scale it down")
    return found


def listed(name: str, values: Any) -> list[Any]:
    """The entries of a sequence, an array or another iterable; text is none of these."""
    if isinstance(values, (str, bytes)) or not isinstance(values, Iterable) or getattr(values, "ndim", 1) == 0:
        raise InvalidArgumentError(f"{name} must be a sequence, got {brief(values)}")
    return list(values)


def _require_numbers(name: str, value: Array) -> None:
    try:
        dtype = value.dtype if isinstance(value, Tensor) else np.asarray(value).dtype
    except (TypeError, ValueError):
        dtype = None
    allowed = not dtype.is_complex if isinstance(dtype, torch.dtype) else dtype is not None and dtype.kind in "fiub"
    if not allowed:
        raise InvalidArgumentError(f"{name} must be an array of real numbers, got {brief(value)}")


def _require_finite(message: str, tensor: Tensor) -> None:
    if not torch.compiler.is_compiling() and not bool(tensor.isfinite().all()):
        raise InvalidArgumentError(message)
