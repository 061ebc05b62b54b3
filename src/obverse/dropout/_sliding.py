"""Overlapping blocks: the mask of DropBlock, with its exact moments."""

from __future__ import annotations

import math
import operator
from collections.abc import Iterable, Sequence
from typing import Any, Self

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray

from .._core.arrays import Array, beside
from .._core.checks import choice, count
from .._core.text import brief
from ..errors import InvalidArgumentError
from ._finite import admit_finite
from ._law import Event, MaskLaw, Share, checked_shape, single_probability
from ._seeds import drop_blocks, pooled_blocks, sparse
from ._windows import (
    band_counts,
    clipped,
    constants,
    covers_of_map,
    log_keep,
    offsets,
    pair_counts,
)

__all__ = ["SlidingBlock"]

_ACCURACY = 1e-17  # of a term of the exponential series, relative to the sum
_DENSE_SIDE = 4096  # units: a matrix of 128 MB
_PASS = 24  # multiply-adds of a matrix product in the time of one pass over memory


class SlidingBlock(MaskLaw):
    """Contiguous blocks at random seeds, in one, two or three dimensions (DropBlock: Ghiasi, Lin and Le 2018).

    Every position of a block inside the map is a seed with probability ``gamma``; a seed drops its whole block. The law
    acts on the event's last axes, as many as the block has; axes before them are channels, independent unless shared.
    With ``n_p`` the number of positions that cover unit ``p`` and ``n_pq`` of those that cover both ``p`` and ``q``
    (products over the axes), exactly (derived, theory note, section 6.2)::

        P(p is kept) = (1 - gamma)^n_p
        Cbar(p, q)   = (1 - gamma)^(-n_pq) - 1

    Parameters
    ----------
    block_size : int or tuple of int
        Side of the block, one for all axes or one each; even sides are allowed. A block is clipped to the map, so that
        one as large as the map drops it whole.
    drop_rate : float, optional
        Probability that a unit is dropped, averaged over the map. ``gamma`` is solved for, map by map, so that it holds
        exactly. At 1 everything is dropped and the mask cannot be divided by its mean.
    gamma : float, optional
        Probability of a seed, in place of ``drop_rate``.
    published : bool, default=False
        Use the ``gamma`` of Ghiasi et al. for ``drop_rate``, which neglects that blocks overlap and drops less:
        ``drop_rate / prod(b) * prod(side) / prod(side - b + 1)``.
    dims : int, optional
        Spatial axes: 1, 2 or 3; by default as many as ``block_size`` has numbers, 2 for a single number.
    seeds : {"valid", "anywhere"}, default="valid"
        ``"anywhere"`` centers blocks on every unit of the map and cuts them at its border, as timm does; with the
        published ``gamma`` the true rate is then up to nine times the nominal one. For comparison only.

    Raises
    ------
    InvalidArgumentError
        On a value that is not allowed, or both or neither of ``drop_rate`` and ``gamma``.
    """

    def __init__(
        self,
        block_size: int | Sequence[int],
        *,
        drop_rate: float | None = None,
        gamma: float | None = None,
        published: bool = False,
        dims: int | None = None,
        seeds: str = "valid",
    ) -> None:
        if (drop_rate is None) == (gamma is None):
            raise InvalidArgumentError("SlidingBlock takes drop_rate or gamma, one of them")
        if published and drop_rate is None:
            raise InvalidArgumentError("published=True turns a drop_rate into gamma; give drop_rate, not gamma")
        choice("seeds", seeds, ("valid", "anywhere"))
        self.block_size = _checked_block(block_size, dims)
        self.rate = None if drop_rate is None else single_probability(drop_rate, "drop_rate")
        self.gamma = None if gamma is None else single_probability(gamma, "gamma")
        self.published = bool(published)
        self.seeds = seeds

    def with_rate(self, drop_rate: float) -> Self:
        """The same blocks with mean drop probability ``drop_rate`` (nominal if ``published``)."""
        return type(self)(self.block_size, drop_rate=drop_rate, published=self.published, seeds=self.seeds)

    def seed_probability(self, shape: Sequence[int]) -> float:
        """``gamma``: the probability that a position in an event of this shape is a seed."""
        return -math.expm1(-self._log_keep(self._sides(checked_shape(shape))))

    def window_bound(self, values: Array, shape: Sequence[int] | None = None, share: Share = ()) -> Array:
        """First-order lower bound of `quadratic_form`, in one pass over the units; differentiable in torch.

        ``gamma / (1 - gamma)`` times the sum, over all positions of the block, of the squared sum of ``values`` in it:
        the block regularizer of Pal et al. (2020) over sliding blocks. It is the first term of
        ``(1 + r)^n_pq - 1 = sum_k C(n_pq, k) r^k``, ``r = gamma / (1 - gamma)``; the other terms are sums of squares
        over sets of positions, so the bound holds for values of any sign, and is tight as ``gamma`` vanishes (derived,
        theory note, section 6.3).

        Parameters
        ----------
        values : array (..., *event)
            NumPy array or torch tensor.
        shape : sequence of int, optional
            Shape of the event; by default all axes of ``values`` but the first.
        share : str or tuple of str, default=()
            With ``"channel"``, of a mask that all channels share.

        Returns
        -------
        array (...,)
        """
        (tensor,), back = admit_finite(values=values)
        tensor, event = self._summed(tensor, shape, share)
        sides = self._sides(event)
        block = clipped(self.block_size, sides)
        sums = tensor
        for axis, (side, b, before, after) in enumerate(
            zip(sides, block, *self._offsets(block), strict=True), -len(sides)
        ):
            starts = np.arange(side + before + after - b + 1) - before
            lines = F.pad(sums.movedim(axis, -1), (1, 0)).cumsum(-1)
            stops, starts = np.minimum(starts + b, side), np.maximum(starts, 0)
            sums = (lines[..., stops] - lines[..., starts]).movedim(-1, axis)
        axes = tuple(range(tensor.ndim - len(event), tensor.ndim))
        return back(math.expm1(self._log_keep(sides)) * sums.square().sum(axes))

    def _anywhere(self) -> bool:
        return self.seeds == "anywhere"

    def _offsets(self, block: tuple[int, ...]) -> tuple[tuple[int, ...], tuple[int, ...]]:
        return offsets(block, self._anywhere())

    def _channel_axes(self, event: Event) -> int:
        return max(0, len(event) - len(self.block_size))

    def _sides(self, event: Event) -> tuple[int, ...]:
        dims = len(self.block_size)
        if len(event) < dims:
            raise InvalidArgumentError(
                f"blocks of {dims} dimensions need an event of at least as many axes, got {event}"
            )
        return tuple(operator.index(side) for side in event[len(event) - dims :])

    def _log_keep(self, sides: tuple[int, ...]) -> float:
        return log_keep(sides, self.block_size, self._anywhere(), self.rate, self.gamma, self.published)

    def _exponents(self, event: Event) -> NDArray[np.float64]:
        """``t n_p`` for every unit of the event."""
        sides = self._sides(event)
        exponents = self._log_keep(sides) * covers_of_map(sides, self.block_size, self._anywhere())
        return np.array(np.broadcast_to(exponents, event))

    def _mean(self, event: Event) -> NDArray[np.float64]:
        return np.exp(-self._exponents(event))

    def drop_rate(self, shape: Sequence[int]) -> float:
        """Exact probability that a unit is dropped, averaged over the map."""
        return float(np.mean(-np.expm1(-self._exponents(checked_shape(shape)))))

    def _variance(self, event: Event) -> NDArray[np.float64]:
        return np.expm1(self._exponents(event))

    def _covariance(self, event: Event) -> NDArray[np.float64]:
        pairs: NDArray[Any] = np.ones((1, 1))
        for side, b in zip(self._sides(event), self.block_size, strict=True):
            pairs = np.kron(pairs, pair_counts(side, b, self._anywhere()))
        channels = math.prod(event[: self._channel_axes(event)])
        return np.asarray(np.kron(np.eye(channels), np.expm1(self._log_keep(self._sides(event)) * pairs)))

    def _quadratic_form(self, values: torch.Tensor, event: Event) -> torch.Tensor:
        # exp(t n_h n_w) - 1 = sum_k t^k/k! n_h^k n_w^k: every term is a Kronecker product, applied axis by axis, and
        # not negative: its matrices are Hadamard powers of positive semidefinite ones.
        sides = self._sides(event)
        axes = tuple(range(values.ndim - len(event), values.ndim))
        counts = [
            (pair_counts if _dense(side, b) else band_counts)(side, b, self._anywhere())
            for side, b in zip(sides, self.block_size, strict=True)
        ]
        largest = [float(along.max()) for along in counts]
        top = self._log_keep(sides) * math.prod(largest)
        if top == 0.0:
            return (0.0 * values).sum(axes)
        bases = [along / most for along, most in zip(counts, largest, strict=True)]
        if len(bases) == 1:
            smoothed = _along(values, [np.expm1(top * bases[0])], sides)
        else:
            smoothed, powers = torch.zeros_like(values), [np.ones_like(base) for base in bases]
            for coefficient in _series(top):
                powers = [power * base for power, base in zip(powers, bases, strict=True)]
                smoothed = smoothed + coefficient * _along(values, powers, sides)
        return (values * smoothed).sum(axes)

    def _draw(
        self,
        rows: int,
        event: Event,
        generator: torch.Generator | None,
        dtype: torch.dtype,
        device: torch.device | str | None,
    ) -> torch.Tensor:
        return self._blocks(rows, event, generator, dtype, device, normalized=False)

    def _draw_normalized(
        self,
        rows: int,
        event: Event,
        generator: torch.Generator | None,
        dtype: torch.dtype,
        device: torch.device | str | None,
    ) -> torch.Tensor:
        return self._blocks(rows, event, generator, dtype, device, normalized=True)

    def _blocks(
        self,
        rows: int,
        event: Event,
        generator: torch.Generator | None,
        dtype: torch.dtype,
        device: torch.device | str | None,
        *,
        normalized: bool,
    ) -> torch.Tensor:
        sides = self._sides(event)
        leading = (rows, *event[: len(event) - len(sides)])
        block = clipped(self.block_size, sides)
        before, after = self._offsets(block)
        canvas = tuple(side + low + high for side, low, high in zip(sides, before, after, strict=True))
        t: float
        reciprocal: torch.Tensor
        t, reciprocal = constants(
            len(sides), self.rate, self.gamma, self.published, self._anywhere(), dtype, *sides, *self.block_size
        )
        if normalized and t == math.inf:
            self._require_kept(event)
        gamma = -math.expm1(-t)
        if gamma == 0.0:
            return torch.ones((*leading, *sides), dtype=dtype, device=device)
        listed = sparse(torch.empty(0, device=device).device, gamma)
        if listed and normalized and canvas == sides:
            mask = reciprocal.expand(*leading, *sides).clone(memory_format=torch.contiguous_format)
            drop_blocks(mask, block, t, generator)
            return mask
        if listed:
            mask = torch.ones((*leading, *canvas), dtype=dtype, device="cpu")
            drop_blocks(mask, block, t, generator)
        else:
            mask = pooled_blocks(leading, canvas, block, gamma, generator, dtype, device)
        if canvas != sides:
            for axis, (low, side) in enumerate(zip(before, sides, strict=True), start=len(leading)):
                mask = mask.narrow(axis, low, side)
        if normalized:
            mask = mask * reciprocal.to(mask.device)
        return mask

    def _parameters(self) -> dict[str, Any]:
        return {
            "block_size": self.block_size,
            "drop_rate": self.rate,
            "gamma": self.gamma,
            "published": self.published or None,
            "seeds": "anywhere" if self._anywhere() else None,
        }


def _series(top: float) -> Iterable[float]:
    """``top^k / k!`` for ``k = 1, 2, ...`` until a term no longer counts beside the first terms' sum."""
    term = total = top
    order = 1
    while order <= top or term > _ACCURACY * total:
        yield term
        order += 1
        term *= top / order
        total += term


def _dense(side: int, b: int) -> bool:
    """Whether a product with the whole matrix of an axis beats one pass for every diagonal of its band."""
    return side <= min(_DENSE_SIDE, _PASS * (2 * b - 1))


def _along(values: torch.Tensor, matrices: list[NDArray[np.float64]], sides: tuple[int, ...]) -> torch.Tensor:
    """A symmetric matrix along each of the last axes, given whole or as its band (`band_counts`)."""
    for axis, (matrix, side) in enumerate(zip(matrices, sides, strict=True), start=-len(sides)):
        lines = values.movedim(axis, -1)
        if matrix.shape[0] == side:
            product = lines @ beside(matrix, values)
        else:
            reach = matrix.shape[0] // 2
            padded, product = F.pad(lines, (reach, reach)), torch.zeros_like(lines)
            for lag, row in enumerate(matrix):
                product = product + beside(row, values) * padded[..., lag : lag + side]
        values = product.movedim(-1, axis)
    return values


def _checked_block(block_size: int | Sequence[int], dims: int | None) -> tuple[int, ...]:
    if dims is not None:
        dims = count("dims", dims, 1, 3)
    if isinstance(block_size, Sequence) and not isinstance(block_size, (str, bytes)):
        block = tuple(count("block_size", side) for side in block_size)
    else:
        block = (count("block_size", block_size),) * (2 if dims is None else dims)
    if len(block) not in (1, 2, 3) or (dims is not None and len(block) != dims):
        raise InvalidArgumentError(
            f"blocks have 1, 2 or 3 dimensions, got block_size={brief(block_size)}, dims={dims!r}"
        )
    return block
