"""Which array library a value belongs to, and the dtype in which a formula is evaluated on it."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import array_api_compat.numpy as np_namespace
import numpy as np

__all__ = ["Array", "floating", "in_blocks", "namespace", "np_namespace", "quiet", "square_root", "tracing"]

# A NumPy array or a torch tensor; anything that speaks the array API works as well.
Array = Any

_BLOCK = 1 << 14  # elements at a time: the temporaries of a formula then stay in the fast cache


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
    """
    if isinstance(x, (float, int, list, tuple, np.generic)):
        x = np.asarray(x)
    xp = namespace(x)
    if not xp.isdtype(x.dtype, "real floating"):
        if not xp.isdtype(x.dtype, ("integral", "bool")):
            raise TypeError(f"weights must be real numbers, got an array of dtype {x.dtype}")
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


def in_blocks(formula: Callable[[Array, Array], Array], x: Array, y: Array, xp: Any) -> Array:
    """``formula(x, y)``, elementwise; on large arrays in main memory block by block.

    The temporaries of a formula then stay in the fast cache and in memory that is at hand, which costs half the time in
    NumPy and a fraction of it in torch. Gradients and compilers get the formula whole.
    """
    whole = isinstance(y, (float, int))
    if isinstance(x, np.ndarray):
        block, empty = _BLOCK, np.empty_like
    elif _plain_on_host(x, xp) and (whole or _plain_on_host(y, xp)):
        block, empty = 2 * _BLOCK, xp.empty_like
    else:
        return formula(x, y)
    if math.prod(x.shape) <= 2 * block or not (whole or y.shape == x.shape):
        return formula(x, y)
    flat, other = x.reshape(-1), y if whole else y.reshape(-1)
    result = empty(flat)
    for start in range(0, flat.shape[0], block):
        piece = slice(start, start + block)
        result[piece] = formula(flat[piece], other if whole else other[piece])
    return result.reshape(x.shape)


def _plain_on_host(x: Array, xp: Any) -> bool:
    """Whether ``x`` is a torch tensor in main memory of which no gradient is wanted and no compiler sees."""
    torch = sys.modules.get("torch")
    return (
        torch is not None
        and isinstance(x, torch.Tensor)
        and not tracing(xp)
        and type(x) in (torch.Tensor, torch.nn.Parameter)
        and x.device.type == "cpu"
        and not (x.requires_grad and torch.is_grad_enabled())
    )


def square_root(x: Array, xp: Any) -> Array:
    """Square root, 0 where ``x`` is negative, with gradient 0 (not infinite) wherever the result is 0."""
    if getattr(x, "requires_grad", False):
        inside = x > 0
        return xp.sqrt(xp.where(inside, x, 1.0)) * inside
    return xp.sqrt(xp.clip(x, 0.0, None))
