"""Values as floating arrays of their own library, and constants moved to where the values live."""

from __future__ import annotations

from typing import Any

import array_api_compat
import numpy as np
import torch
from numpy.typing import NDArray

from obverse.errors import InvalidArgumentError

__all__ = ["Array", "beside", "floating"]

# A NumPy array or a torch tensor.
Array = Any


def floating(values: Array, name: str = "values") -> tuple[Array, Any]:
    """``values`` as a real floating array, with its array-API namespace.

    Lists, integers and booleans become float64 arrays (in torch the default dtype); half precision is widened to
    float32, in which sums of squares are accurate.
    """
    if not isinstance(values, (np.ndarray, torch.Tensor)):
        values = np.asarray(values)
    xp = array_api_compat.array_namespace(values)
    if xp.isdtype(values.dtype, ("integral", "bool")):
        return xp.astype(values, np.float64 if isinstance(values, np.ndarray) else torch.get_default_dtype()), xp
    if not xp.isdtype(values.dtype, "real floating"):
        raise InvalidArgumentError(f"{name} must be real numbers, got an array of dtype {values.dtype}")
    return (xp.astype(values, xp.float32) if values.dtype.itemsize < 4 else values), xp


def beside(constant: NDArray[np.float64], values: Array) -> Array:
    """``constant`` as an array of the library, dtype and device of ``values``."""
    if isinstance(values, torch.Tensor):
        return torch.as_tensor(constant, dtype=values.dtype, device=values.device)
    return np.asarray(constant, dtype=values.dtype)
