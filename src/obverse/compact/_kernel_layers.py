"""Linear layers for inference over sparse weights: each computes what the dense layer does, by another product."""

from __future__ import annotations

import os
import warnings
from abc import ABC, abstractmethod
from concurrent.futures import ThreadPoolExecutor
from functools import cache, partial
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import StateError

__all__ = ["BlockLinear", "CompiledLinear", "FastLinear", "SemiStructuredLinear", "SparseProductLinear"]


class FastLinear(nn.Module, ABC):
    """``x W' + b`` for inference.

    Activations leave feature-major in memory (the batch is contiguous) where that is what the product makes; shapes
    are those of the dense layer, and a following layer of the same kind takes them without a copy.

    Parameters
    ----------
    dense : torch.nn.Linear
        Its weight and bias are copied.
    """

    kind: str
    """What a receipt calls this product."""

    bias: Tensor | None

    def __init__(self, dense: nn.Linear) -> None:
        super().__init__()
        self.in_features, self.out_features = dense.in_features, dense.out_features
        bias = dense.bias.detach().clone() if dense.bias is not None else None
        self.register_buffer("bias", bias)

    def forward(self, x: Tensor) -> Tensor:
        """Shape (..., in_features) to (..., out_features)."""
        if x.requires_grad and torch.is_grad_enabled():
            raise StateError("an accelerated layer is for inference; run it under torch.no_grad()")
        return self.product(x.reshape(-1, self.in_features)).reshape(*x.shape[:-1], self.out_features)

    @abstractmethod
    def product(self, x: Tensor) -> Tensor:
        """Shape (batch, in_features) to (batch, out_features)."""

    def extra_repr(self) -> str:
        """What ``print`` shows."""
        return f"in_features={self.in_features}, out_features={self.out_features}, product={self.kind!r}"


class CompiledLinear(FastLinear):
    """Feature-major CSR with the library's compiled product; CPU, float32 and float64."""

    pointers: Tensor
    columns: Tensor
    values: Tensor

    def __init__(self, dense: nn.Linear, parallel: bool = False) -> None:
        super().__init__(dense)
        self.parallel = parallel
        self.kind = "compiled CSR, parallel" if parallel else "compiled CSR"
        pointers, columns, values = _csr(dense.weight)
        self.register_buffer("pointers", pointers)
        self.register_buffer("columns", columns)
        self.register_buffer("values", values)
        if self.bias is None:
            self.bias = torch.zeros(self.out_features, dtype=values.dtype)

    def product(self, x: Tensor) -> Tensor:
        """As the base class says."""
        import numpy as np

        from ._kernels import multiply, multiply_vector, row_shares

        assert self.bias is not None
        if x.device.type != "cpu" or x.dtype != self.values.dtype:
            raise StateError(f"this layer computes in {self.values.dtype} on the CPU; got {x.dtype} on {x.device}")
        batch = len(x)
        y = torch.empty(self.out_features, batch, dtype=x.dtype)
        if batch == 0:
            return y.t()
        pointers = self.pointers.numpy()
        fixed = (pointers, self.columns.numpy().view(np.uint32), self.values.numpy())
        moving = (x.detach().t().contiguous().numpy(), self.bias.numpy(), y.numpy())
        call: Any = multiply
        if batch == 1:
            call, moving = multiply_vector, (moving[0][:, 0], moving[1], moving[2][:, 0])
        shares = row_shares(pointers, torch.get_num_threads()) if self.parallel else [(0, self.out_features)]
        waiting = [_pool().submit(partial(call, *fixed, *moving, *share)) for share in shares[1:]]
        for share in shares[:1]:
            call(*fixed, *moving, *share)
        for part in waiting:
            part.result()
        return y.t()


class SparseProductLinear(FastLinear):
    """Feature-major CSR with torch's own sparse product, 32-bit indices."""

    kind = "torch CSR"

    pointers: Tensor
    columns: Tensor
    values: Tensor

    def __init__(self, dense: nn.Linear) -> None:
        super().__init__(dense)
        for name, part in zip(("pointers", "columns", "values"), _csr(dense.weight), strict=True):
            self.register_buffer(name, part)
        self._matrix: Tensor | None = None

    def product(self, x: Tensor) -> Tensor:
        """As the base class says."""
        if self._matrix is None:
            self._matrix = self._built()
        columns = x.t().contiguous()
        if self.bias is None:
            return (self._matrix @ columns).t()
        return torch.addmm(self.bias[:, None], self._matrix, columns).t()

    def _built(self) -> Tensor:
        shape = (self.out_features, self.in_features)
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="Sparse CSR tensor support", category=UserWarning)
            return torch.sparse_csr_tensor(self.pointers, self.columns, self.values, shape, check_invariants=False)

    def _apply(self, fn: Any, recurse: bool = True) -> Any:
        self._matrix = None
        return super()._apply(fn, recurse)  # type: ignore[no-untyped-call]

    def __getstate__(self) -> dict[str, Any]:
        # A compressed tensor cannot be copied; its parts can.
        return {**self.__dict__, "_matrix": None}


class BlockLinear(SparseProductLinear):
    """Dense blocks at sparse places, with torch's own product; features must be multiples of the block's side."""

    def __init__(self, dense: nn.Linear, side: int) -> None:
        FastLinear.__init__(self, dense)
        self.side = side
        self.kind = f"blocks of {side}"
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="Sparse", category=UserWarning)
            blocks = dense.weight.detach().to_sparse_bsr((side, side))
        self.register_buffer("pointers", blocks.crow_indices().int())
        self.register_buffer("columns", blocks.col_indices().int())
        self.register_buffer("values", blocks.values().clone())
        self._matrix = None

    def _built(self) -> Tensor:
        shape = (self.out_features, self.in_features)
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="Sparse", category=UserWarning)
            return torch.sparse_bsr_tensor(self.pointers, self.columns, self.values, shape, check_invariants=False)


class SemiStructuredLinear(FastLinear):
    """Two of every four entries zero, on a GPU that knows this form; float16 and bfloat16."""

    kind = "2:4"

    def __init__(self, dense: nn.Linear) -> None:
        super().__init__(dense)
        from torch.sparse import to_sparse_semi_structured

        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)
            packed = to_sparse_semi_structured(dense.weight.detach())
        self.weight = nn.Parameter(packed, requires_grad=False)

    def product(self, x: Tensor) -> Tensor:
        """As the base class says."""
        return nn.functional.linear(x, self.weight, self.bias)


def _csr(weight: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    held = weight.detach()
    mask = held != 0
    pointers = torch.zeros(len(held) + 1, dtype=torch.int32, device=held.device)
    pointers[1:] = mask.sum(1).cumsum(0)
    return pointers, mask.nonzero()[:, 1].int().contiguous(), held[mask].clone()


@cache
def _pool() -> ThreadPoolExecutor:
    """Threads that the compiled product shares its rows with."""
    return ThreadPoolExecutor(max(1, (os.cpu_count() or 1) - 1), thread_name_prefix="obverse-product")
