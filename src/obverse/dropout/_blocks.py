"""Masks in which groups of units live and die together: blocks, channels, whole examples."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Sequence
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray

from obverse.dropout._arrays import Array
from obverse.dropout._law import Event, MaskLaw, checked_shape, single_probability
from obverse.errors import InvalidArgumentError

__all__ = ["Blocks", "Channel", "Path"]


class _Tied(MaskLaw):
    """One Bernoulli variable for each group of a partition of the units: ``Cbar = lam`` inside a group, 0 across."""

    def __init__(self, keep_probability: float) -> None:
        self.keep_probability = single_probability(keep_probability, "keep_probability")

    def factor(self, shape: Sequence[int]) -> NDArray[np.float64]:
        """The rows ``g_k`` of ``Cbar = sum_k g_k g_k'``, ``(groups, d)``: ``sqrt(lam)`` on the units of group ``k``."""
        event = checked_shape(shape)
        self._require_kept(event)
        groups = self._groups(event).reshape(-1)
        return np.where(groups == np.arange(groups.max() + 1)[:, None], math.sqrt(self._lam()), 0.0)

    @abstractmethod
    def _groups(self, event: Event) -> NDArray[np.int64]:
        """The number of the group of every unit, as an array of the event's shape."""

    @abstractmethod
    def _sums(self, values: Array, event: Event, xp: Any) -> Array:
        """Sums over the groups, ``(..., groups)``."""

    def _lam(self) -> float:
        return (1.0 - self.keep_probability) / self.keep_probability

    def _mean(self, event: Event) -> NDArray[np.float64]:
        self._require_axes(event)
        return np.full(event, self.keep_probability)

    def _variance(self, event: Event) -> NDArray[np.float64]:
        return np.full(event, self._lam())

    def _covariance(self, event: Event) -> NDArray[np.float64]:
        groups = self._groups(event).reshape(-1)
        return np.where(groups[:, None] == groups, self._lam(), 0.0)

    def _quadratic_form(self, values: Array, event: Event, xp: Any) -> Array:
        return self._lam() * xp.sum(self._sums(values, event, xp) ** 2, axis=-1)

    def _hadamard(self, matrix: Array, event: Event, xp: Any) -> Array:
        groups = self._groups(event).reshape(-1)
        return xp.where(_is(groups[:, None] == groups, matrix), self._lam() * matrix, xp.zeros_like(matrix))

    def _draw_normalized(
        self,
        rows: int,
        event: Event,
        generator: torch.Generator | None,
        dtype: torch.dtype,
        device: torch.device | str | None,
    ) -> torch.Tensor:
        if self.keep_probability == 0.0:
            self._require_kept(event)
        return self._draw(rows, event, generator, dtype, device).mul_(1.0 / self.keep_probability)

    def _coins(
        self,
        shape: tuple[int, ...],
        generator: torch.Generator | None,
        dtype: torch.dtype,
        device: torch.device | str | None,
    ) -> torch.Tensor:
        return torch.empty(shape, dtype=dtype, device=device).bernoulli_(self.keep_probability, generator=generator)

    def _require_axes(self, event: Event) -> None:
        if not event:
            raise InvalidArgumentError(f"{type(self).__name__} needs an event of at least one axis")


class Blocks(_Tied):
    """Disjoint blocks of neighbors along the event's last axis, each kept with its own coin.

    ``Cbar = lam I (x) 1 1'``, the DropBlock of Pal, Lane, Vidal and Haeffele (2020). Axes before the last one have
    blocks of their own. If ``block_size`` does not divide the axis, the last block is shorter; one that is larger than
    the axis is clipped to it.

    Parameters
    ----------
    keep_probability : float, in [0, 1]
    block_size : int, positive
        Units in a block.
    """

    def __init__(self, keep_probability: float, block_size: int) -> None:
        super().__init__(keep_probability)
        if not isinstance(block_size, (int, np.integer)) or block_size < 1:
            raise InvalidArgumentError(f"block_size must be a positive integer, got {block_size!r}")
        self.block_size = int(block_size)

    def with_rate(self, drop_rate: float) -> Self:
        """The same blocks, dropped with probability ``drop_rate``."""
        return type(self)(_keep(drop_rate), self.block_size)

    def _groups(self, event: Event) -> NDArray[np.int64]:
        per_row = -(-event[-1] // self.block_size)
        rows = np.arange(math.prod(event[:-1]))[:, None]
        return (rows * per_row + np.arange(event[-1]) // self.block_size).reshape(event)

    def _sums(self, values: Array, event: Event, xp: Any) -> Array:
        *outer, width = values.shape
        whole = width // self.block_size * self.block_size
        sums = xp.sum(xp.reshape(values[..., :whole], (*outer, -1, self.block_size)), axis=-1)
        if whole < width:
            sums = xp.concat([sums, xp.sum(values[..., whole:], axis=-1, keepdims=True)], axis=-1)
        lead = values.shape[: values.ndim - len(event)]
        return xp.reshape(sums, (*lead, math.prod(sums.shape[len(lead) :])))

    def _draw(
        self,
        rows: int,
        event: Event,
        generator: torch.Generator | None,
        dtype: torch.dtype,
        device: torch.device | str | None,
    ) -> torch.Tensor:
        self._require_axes(event)
        blocks = -(-event[-1] // self.block_size)
        coins = self._coins((rows, *event[:-1], blocks), generator, dtype, device)
        return coins.repeat_interleave(self.block_size, dim=-1)[..., : event[-1]]


class Channel(_Tied):
    """Whole channels (the event's first axis): the law of `torch.nn.Dropout2d`, ``Cbar = lam 1 1'`` in a channel.

    Parameters
    ----------
    keep_probability : float, in [0, 1]
    """

    def with_rate(self, drop_rate: float) -> Self:
        """Channels dropped with probability ``drop_rate``."""
        return type(self)(_keep(drop_rate))

    def _channel_axes(self, event: Event) -> int:
        return min(len(event), 1)

    def _groups(self, event: Event) -> NDArray[np.int64]:
        return np.arange(event[0]).repeat(math.prod(event[1:])).reshape(event)

    def _sums(self, values: Array, event: Event, xp: Any) -> Array:
        lead = values.shape[: values.ndim - len(event)]
        return xp.sum(xp.reshape(values, (*lead, event[0], math.prod(event[1:]))), axis=-1)

    def _draw(
        self,
        rows: int,
        event: Event,
        generator: torch.Generator | None,
        dtype: torch.dtype,
        device: torch.device | str | None,
    ) -> torch.Tensor:
        self._require_axes(event)
        return self._coins((rows, event[0], *(1 for _ in event[1:])), generator, dtype, device)


class Path(_Tied):
    """The whole example: stochastic depth, one coin for all units of a residual branch (Huang et al. 2016).

    Parameters
    ----------
    keep_probability : float, in [0, 1]
    """

    def with_rate(self, drop_rate: float) -> Self:
        """Examples dropped with probability ``drop_rate``."""
        return type(self)(_keep(drop_rate))

    def _single_channel(self, event: Event, shared: tuple[str, ...]) -> Event:
        return event  # channels share the coin as it is

    def _require_axes(self, event: Event) -> None:
        pass

    def _groups(self, event: Event) -> NDArray[np.int64]:
        return np.zeros(event, dtype=np.int64)

    def _sums(self, values: Array, event: Event, xp: Any) -> Array:
        lead = values.shape[: values.ndim - len(event)]
        return xp.sum(xp.reshape(values, (*lead, 1, math.prod(event))), axis=-1)

    def _draw(
        self,
        rows: int,
        event: Event,
        generator: torch.Generator | None,
        dtype: torch.dtype,
        device: torch.device | str | None,
    ) -> torch.Tensor:
        return self._coins((rows, *(1 for _ in event)), generator, dtype, device)


def _keep(drop_rate: float) -> float:
    return 1.0 - single_probability(drop_rate, "drop_rate")


def _is(condition: NDArray[np.bool_], values: Array) -> Array:
    return torch.as_tensor(condition, device=values.device) if isinstance(values, torch.Tensor) else condition
