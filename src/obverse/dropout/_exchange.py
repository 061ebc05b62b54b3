"""NumPy arrays and torch tensors at the door: formulas are written once, in torch, and answer in the caller's kind."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..errors import InvalidArgumentError

__all__ = ["Array", "admit", "beside", "numbers"]

# A NumPy array, a torch tensor, or nested sequences of numbers.
Array = Any


def admit(*values: Array) -> tuple[list[Tensor], Callable[[Tensor], Array]]:
    """``values`` as tensors of one floating dtype and device, and what turns a result back into the caller's kind.

    With a torch tensor among them the result stays a tensor (and keeps its graph); otherwise it becomes a NumPy array,
    or a NumPy scalar when it has no axes. Half precision is widened to float32, integers become float64 (torch
    integers the default dtype).
    """
    tensors = [value for value in values if isinstance(value, Tensor)]
    device = tensors[0].device if tensors else torch.device("cpu")
    converted = [value if isinstance(value, Tensor) else _from_numpy(value, bool(tensors)) for value in values]
    dtype = converted[0].dtype
    for tensor in converted[1:]:
        dtype = torch.promote_types(dtype, tensor.dtype)
    if dtype.is_complex:
        raise InvalidArgumentError(f"expected real numbers, got a tensor of dtype {dtype}")
    if not dtype.is_floating_point:
        dtype = torch.get_default_dtype()
    if dtype.itemsize < 4:
        dtype = torch.float32
    result = [tensor.to(device=device, dtype=dtype) for tensor in converted]
    return result, _unchanged if tensors else _to_numpy


def beside(constant: float | NDArray[np.float64], values: Tensor) -> Tensor:
    """``constant`` with the dtype and device of ``values``."""
    return torch.as_tensor(constant, dtype=values.dtype, device=values.device)


def numbers(value: Array) -> NDArray[np.float64]:
    """``value`` as a float64 NumPy array, for what is computed once and needs no gradient."""
    if isinstance(value, Tensor):
        return value.detach().to(device="cpu", dtype=torch.float64).numpy()
    return np.asarray(value, dtype=np.float64)


def _from_numpy(value: Array, among_tensors: bool) -> Tensor:
    array = np.array(value, order="C")
    if array.dtype.kind not in "fiub":
        raise InvalidArgumentError(f"expected real numbers, got an array of dtype {array.dtype}")
    if isinstance(value, (int, float)) and among_tensors:
        return torch.tensor(value, dtype=torch.get_default_dtype())
    if array.dtype not in (np.float16, np.float32, np.float64):
        array = array.astype(np.float64)
    return torch.from_numpy(array)


def _unchanged(result: Tensor) -> Array:
    return result


def _to_numpy(result: Tensor) -> Array:
    return result.numpy()[()]
