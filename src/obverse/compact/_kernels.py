# mypy: disable-error-code="no-untyped-call"
"""A sparse matrix times feature-major activations, compiled on first use.

The weight is CSR with 32-bit indices. Activations are feature-major, one row per feature with the batch along it, so
that an entry of the weight multiplies a contiguous piece of memory: a tile of the batch stays in vector registers while
the entries of one row of the weight pass by.
"""

from __future__ import annotations

from functools import cache
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt
from llvmlite import ir
from numba import njit, types
from numba.core import cgutils
from numba.extending import intrinsic

__all__ = ["multiply", "multiply_vector", "row_shares"]

_LANES = (64, 32, 16, 8, 4, 1)
_CONTRACT = {"contract"}


@cache
def _tile(lanes: int) -> Any:  # the compiler's own interface has no types
    """Compiled inner loop: ``y[:lanes] = bias + sum over k of values[k] * x[columns[k], :lanes]``, at addresses."""

    @intrinsic
    def tile(
        typing: Any, columns: Any, values: Any, start: Any, stop: Any, x: Any, stride: Any, y: Any, bias: Any
    ) -> Any:
        number = bias
        signature = types.void(
            types.CPointer(types.uint32),
            types.CPointer(number),
            types.intp,
            types.intp,
            types.CPointer(number),
            types.intp,
            types.CPointer(number),
            number,
        )

        def build(context: Any, builder: Any, _: Any, given: Any) -> Any:
            columns, values, start, stop, x, stride, y, bias = given
            vector = ir.VectorType(bias.type, lanes)
            size = 8 if isinstance(bias.type, ir.DoubleType) else 4

            def spread(scalar: Any) -> Any:
                one = builder.insert_element(ir.Constant(vector, ir.Undefined), scalar, ir.Constant(ir.IntType(32), 0))
                order = ir.Constant(ir.VectorType(ir.IntType(32), lanes), [0] * lanes)
                return builder.shuffle_vector(one, ir.Constant(vector, ir.Undefined), order)

            total = cgutils.alloca_once_value(builder, spread(bias))
            with cgutils.for_range_slice(builder, start, stop, ir.Constant(start.type, 1)) as (k, _count):
                column = builder.zext(builder.load(builder.gep(columns, [k])), stride.type)
                place = builder.gep(x, [builder.mul(column, stride)])
                piece = builder.load(builder.bitcast(place, vector.as_pointer()), align=size)
                weight = spread(builder.load(builder.gep(values, [k])))
                product = builder.fmul(weight, piece, flags=("contract",))
                builder.store(builder.fadd(builder.load(total), product, flags=("contract",)), total)
            builder.store(builder.load(total), builder.bitcast(y, vector.as_pointer()), align=size)
            return context.get_dummy_value()

        return signature, build

    return tile


def _address(typing: Any, array: Any, index: Any) -> Any:
    """Address of an entry of a contiguous array, counted in entries."""
    signature = types.CPointer(array.dtype)(array, types.intp)

    def build(context: Any, builder: Any, signature: Any, given: Any) -> Any:
        held = context.make_array(signature.args[0])(context, builder, given[0])
        return builder.gep(held.data, [given[1]])

    return signature, build


_at: Any = intrinsic(_address)

_tile_64, _tile_32, _tile_16, _tile_8, _tile_4, _tile_1 = (_tile(lanes) for lanes in _LANES)


@njit(nogil=True)
def multiply(
    pointers: npt.NDArray[np.int32],
    columns: npt.NDArray[np.uint32],
    values: npt.NDArray[Any],
    x: npt.NDArray[Any],
    bias: npt.NDArray[Any],
    y: npt.NDArray[Any],
    first: int,
    last: int,
) -> None:
    """Rows ``first`` to ``last`` of ``y = W x + bias``; ``x`` (inputs, batch) and ``y`` (outputs, batch) contiguous."""
    batch = x.shape[1]
    c, v = _at(columns, 0), _at(values, 0)
    t = 0
    # Tile by tile, so that the piece of the activations that all rows read stays in a near cache.
    while t < batch:
        left = batch - t
        if left >= 64:
            for row in range(first, last):
                _tile_64(c, v, pointers[row], pointers[row + 1], _at(x, t), batch, _at(y, row * batch + t), bias[row])
            t += 64
        elif left >= 32:
            for row in range(first, last):
                _tile_32(c, v, pointers[row], pointers[row + 1], _at(x, t), batch, _at(y, row * batch + t), bias[row])
            t += 32
        elif left >= 16:
            for row in range(first, last):
                _tile_16(c, v, pointers[row], pointers[row + 1], _at(x, t), batch, _at(y, row * batch + t), bias[row])
            t += 16
        elif left >= 8:
            for row in range(first, last):
                _tile_8(c, v, pointers[row], pointers[row + 1], _at(x, t), batch, _at(y, row * batch + t), bias[row])
            t += 8
        elif left >= 4:
            for row in range(first, last):
                _tile_4(c, v, pointers[row], pointers[row + 1], _at(x, t), batch, _at(y, row * batch + t), bias[row])
            t += 4
        else:
            for row in range(first, last):
                _tile_1(c, v, pointers[row], pointers[row + 1], _at(x, t), batch, _at(y, row * batch + t), bias[row])
            t += 1


@njit(nogil=True, fastmath=_CONTRACT)
def multiply_vector(
    pointers: npt.NDArray[np.int32],
    columns: npt.NDArray[np.uint32],
    values: npt.NDArray[Any],
    x: npt.NDArray[Any],
    bias: npt.NDArray[Any],
    y: npt.NDArray[Any],
    first: int,
    last: int,
) -> None:
    """As `multiply` for one sample: ``x`` (inputs,), ``y`` (outputs,)."""
    for row in range(first, last):
        k, stop = pointers[row], pointers[row + 1]
        # Four sums at once: one sum alone waits for the addition before it.
        s0, s1, s2, s3 = bias[row], bias[row] * 0, bias[row] * 0, bias[row] * 0
        while k + 4 <= stop:
            s0 += values[k] * x[columns[k]]
            s1 += values[k + 1] * x[columns[k + 1]]
            s2 += values[k + 2] * x[columns[k + 2]]
            s3 += values[k + 3] * x[columns[k + 3]]
            k += 4
        while k < stop:
            s0 += values[k] * x[columns[k]]
            k += 1
        y[row] = (s0 + s1) + (s2 + s3)


def row_shares(pointers: npt.NDArray[np.int32], parts: int) -> list[tuple[int, int]]:
    """Ranges of rows with about the same number of entries in each of ``parts``; empty ranges are left out."""
    rows = len(pointers) - 1
    # A row costs something even when it is empty.
    cost = pointers.astype(np.int64) + 8 * np.arange(rows + 1)
    edges = np.searchsorted(cost, np.linspace(0, cost[-1], parts + 1)[1:-1]).tolist()
    edges = [0, *edges, rows]
    return [(a, b) for a, b in pairwise(edges) if b > a]
