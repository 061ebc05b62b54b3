"""Crosses between array libraries: formulas are written once and answer in the caller's kind and at least in float32.

`floating` serves formulas written against the array API, which never import torch; `admit` serves formulas written in
torch that NumPy arrays may enter and leave.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Any

import array_api_compat.numpy as np_namespace
import numpy as np
from numpy.typing import NDArray

from ..errors import InvalidArgumentError, WrongTypeError
from .text import brief

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["Array", "admit", "beside", "floating", "namespace", "np_namespace", "numbers", "quiet", "tracing", "wide"]

# A NumPy array or a torch tensor; anything that speaks the array API works as well.
Array = Any


# ------------------------------------------------------------------------------------------------- the array API
def namespace(x: Array) -> Any:
    """The array-API namespace of ``x``; torch is looked up, never imported."""
    if isinstance(x, (np.ndarray, np.generic, float, int)):
        return np_namespace
    torch = sys.modules.get("torch")
    if torch is not None and isinstance(x, torch.Tensor):
        import array_api_compat.torch as torch_namespace

        return torch_namespace
    import array_api_compat

    return array_api_compat.array_namespace(x)


def floating(x: Array) -> tuple[Array, Any]:
    """``x`` as an array of at least float32, with its namespace.

    Numbers, sequences and integers become float64 NumPy arrays (torch integers become the default dtype);
    half precision is widened to float32, in which the formulas are accurate.

    Raises
    ------
    WrongTypeError
        ``x`` is complex, or holds no numbers.
    """
    if isinstance(x, (float, int, list, tuple, np.generic)):
        x = np.asarray(x)
    xp = namespace(x)
    if not xp.isdtype(x.dtype, "real floating"):
        if not xp.isdtype(x.dtype, ("integral", "bool")):
            raise WrongTypeError(f"weights must be real numbers, got an array of dtype {x.dtype}")
        return xp.astype(x, np.float64 if xp is np_namespace else sys.modules["torch"].get_default_dtype()), xp
    if x.dtype.itemsize < 4:
        return xp.astype(x, xp.float32), xp
    return x, xp


def quiet(xp: Any) -> AbstractContextManager[Any]:
    """Silence NumPy's floating-point warnings: the formulas mean their infinities and choose afterwards."""
    return np.errstate(all="ignore") if xp is np_namespace else nullcontext()


def tracing(xp: Any) -> bool:
    """Whether a compiler is tracing torch code, in which no branch may depend on numbers."""
    if xp is np_namespace:
        return False
    torch = sys.modules.get("torch")
    return torch is not None and bool(torch.compiler.is_compiling())


# ------------------------------------------------------------------------------------------------------- torch
def admit(*values: Array) -> tuple[list[Tensor], Callable[[Tensor], Array]]:
    """``values`` as tensors of one floating dtype and device, and what turns a result back into the caller's kind.

    With a torch tensor among them the result stays a tensor (and keeps its graph); otherwise it becomes a NumPy array,
    or a NumPy scalar when it has no axes. Half precision is widened to float32, integers become float64 (torch
    integers the default dtype).

    Raises
    ------
    InvalidArgumentError
        A value is complex, or holds no numbers.
    """
    import torch

    tensors = [value for value in values if isinstance(value, torch.Tensor)]
    device = tensors[0].device if tensors else torch.device("cpu")
    converted = [value if isinstance(value, torch.Tensor) else _from_numpy(value, bool(tensors)) for value in values]
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
    import torch

    return torch.as_tensor(constant, dtype=values.dtype, device=values.device)


def numbers(value: Array) -> NDArray[np.float64]:
    """``value`` as a float64 NumPy array, for what is computed once and needs no gradient.

    Raises
    ------
    InvalidArgumentError
        It is complex, ragged, or holds no numbers.
    """
    torch = sys.modules.get("torch")
    if torch is not None and isinstance(value, torch.Tensor):
        if value.is_complex():
            raise InvalidArgumentError(f"expected real numbers, got a tensor of dtype {value.dtype}")
        converted: NDArray[np.float64] = value.detach().to(device="cpu", dtype=torch.float64).numpy()
        return converted
    return np.asarray(_real(value), dtype=np.float64)


def wide(tensor: Tensor) -> Tensor:
    """The tensor in at least single precision, in which sums of squares and small steps of logarithms are kept."""
    return tensor.float() if tensor.dtype.itemsize < 4 or not tensor.is_floating_point() else tensor


def _real(value: Array) -> NDArray[Any]:
    """``value`` as an array of real numbers of any type."""
    try:
        array = np.asarray(value)
    except (TypeError, ValueError):
        raise InvalidArgumentError(f"expected an array of real numbers, got {brief(value)}") from None
    if array.dtype.kind not in "fiub":
        raise InvalidArgumentError(f"expected real numbers, got an array of dtype {array.dtype}")
    return array


def _from_numpy(value: Array, among_tensors: bool) -> Tensor:
    import torch

    array = np.array(_real(value), order="C")
    if isinstance(value, (int, float)) and among_tensors:
        return torch.tensor(value, dtype=torch.get_default_dtype())
    if array.dtype not in (np.float16, np.float32, np.float64):
        array = array.astype(np.float64)
    return torch.from_numpy(array)


def _unchanged(result: Tensor) -> Array:
    return result


def _to_numpy(result: Tensor) -> Array:
    return result.numpy()[()]
