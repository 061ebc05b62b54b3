"""Masks in which groups of units live and die together: blocks, channels, whole examples."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Sequence
from typing import Self

import numpy as np
import torch
from numpy.typing import NDArray

from .._core.checks import count
from ..errors import InvalidArgumentError
from ._law import Event, MaskLaw, checked_shape, single_probability

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
    def _sums(self, values: torch.Tensor, event: Event) -> torch.Tensor:
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

    def _quadratic_form(self, values: torch.Tensor, event: Event) -> torch.Tensor:
        return self._lam() * self._sums(values, event).square().sum(-1)

    def _hadamard(self, matrix: torch.Tensor, event: Event) -> torch.Tensor:
        groups = torch.from_numpy(self._groups(event).reshape(-1)).to(matrix.device)
        return torch.where(groups[:, None] == groups, self._lam() * matrix, 0.0)

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
        self.block_size = count("block_size", block_size)

    def with_rate(self, drop_rate: float) -> Self:
        """The same blocks, dropped with probability ``drop_rate``."""
        return type(self)(_keep(drop_rate), self.block_size)

    def _groups(self, event: Event) -> NDArray[np.int64]:
        per_row = -(-event[-1] // self.block_size)
        rows = np.arange(math.prod(event[:-1]))[:, None]
        return (rows * per_row + np.arange(event[-1]) // self.block_size).reshape(event)

    def _sums(self, values: torch.Tensor, event: Event) -> torch.Tensor:
        *outer, width = values.shape
        blocks, rest = divmod(width, self.block_size)
        whole = blocks * self.block_size
        sums = values[..., :whole].reshape(*outer, blocks, self.block_size).sum(-1)
        if rest:
            sums = torch.cat([sums, values[..., whole:].sum(-1, keepdim=True)], -1)
        lead = values.shape[: values.ndim - len(event)]
        return sums.reshape(*lead, math.prod(sums.shape[len(lead) :]))

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

    def _sums(self, values: torch.Tensor, event: Event) -> torch.Tensor:
        lead = values.shape[: values.ndim - len(event)]
        return values.reshape(*lead, event[0], math.prod(event[1:])).sum(-1)

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

    def _sums(self, values: torch.Tensor, event: Event) -> torch.Tensor:
        lead = values.shape[: values.ndim - len(event)]
        return values.reshape(*lead, 1, math.prod(event)).sum(-1)

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
