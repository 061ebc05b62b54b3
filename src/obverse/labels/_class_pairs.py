"""Batches in which every sample has another one of its class."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch.utils.data import Sampler

from .._core import checks
from .._core.random import Seed, seed_number
from ..errors import InvalidArgumentError

__all__ = ["ClassPairSampler"]


class ClassPairSampler(Sampler[list[int]]):
    """A batch sampler: half of each batch goes through the data once, the other half are partners of the same class.

    Parameters
    ----------
    labels : torch.Tensor or sequence of int
        (N,) class of each sample.
    batch_size : int
        Even; sample ``i`` of the first half has its partner at ``i + len(batch) / 2``.
    seed : int, torch.Generator or numpy.random.Generator
        A generator contributes only its initial seed. Epochs draw from the seed and their number.
    drop_last : bool
        Whether to leave out a last batch that is not full.
    num_processes, process : int
        Shares of an epoch for data-parallel training; the largest number of samples that divides evenly is used.

    Notes
    -----
    A partner is uniform over the other samples of the class; the only sample of a class is its own partner. An epoch
    has as many first halves as the data needs, so that twice as many samples are shown. Give it to
    ``DataLoader(batch_sampler=...)``; the epoch advances with every pass, and `set_epoch` states it.
    """

    def __init__(
        self,
        labels: torch.Tensor | Sequence[int],
        batch_size: int,
        *,
        seed: Seed = 0,
        drop_last: bool = False,
        num_processes: int = 1,
        process: int = 0,
    ) -> None:
        self.labels = torch.as_tensor(labels)
        if self.labels.dim() != 1 or self.labels.is_floating_point() or not len(self.labels):
            raise InvalidArgumentError(f"labels must be (N,) classes, got shape {tuple(self.labels.shape)}")
        if checks.count("batch_size", batch_size, 2) % 2:
            raise InvalidArgumentError(f"batch_size must be even, half of it are partners, got {batch_size}")
        self.batch_size = batch_size
        self.seed = seed_number(seed)
        self.drop_last = bool(drop_last)
        self.num_processes = checks.count("num_processes", num_processes)
        self.process = checks.count("process", process, 0)
        if process >= num_processes:
            raise InvalidArgumentError(f"process must be below num_processes {num_processes}, got {process}")
        self.epoch = 0
        ordered, self._members = self.labels.sort(stable=True)
        self._first = torch.searchsorted(ordered, self.labels)
        self._size = torch.searchsorted(ordered, self.labels, right=True) - self._first
        self._rank = torch.empty_like(self._members)
        self._rank[self._members] = torch.arange(len(ordered))
        self._rank -= self._first

    def set_epoch(self, epoch: int) -> None:
        """State the number of the next epoch."""
        self.epoch = checks.count("epoch", epoch, 0)

    def __len__(self) -> int:
        """Batches in an epoch of this process."""
        half, own = self.batch_size // 2, len(self.labels) // self.num_processes
        return own // half if self.drop_last else -(-own // half)

    def __iter__(self) -> Iterator[list[int]]:
        """Batches of one epoch."""
        generator = torch.Generator().manual_seed((self.seed * 1_000_003 + self.epoch) % 2**63)
        self.epoch += 1
        count = len(self.labels)
        samples = torch.randperm(count, generator=generator)
        partners = self._partners(samples, generator)
        own = slice(self.process, count - count % self.num_processes, self.num_processes)
        samples, partners = samples[own], partners[own]
        half = self.batch_size // 2
        for begin in range(0, len(self) * half, half):
            yield torch.cat([samples[begin : begin + half], partners[begin : begin + half]]).tolist()

    def _partners(self, samples: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        others = (self._size[samples] - 1).clamp(min=1)
        step = 1 + (torch.rand(len(samples), generator=generator, dtype=torch.float64) * others).long()
        rank = (self._rank[samples] + step).remainder(self._size[samples])
        return self._members[self._first[samples] + rank]
