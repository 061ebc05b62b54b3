"""Resampling: samplers of torch that draw rare classes more often."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from typing import Any, final

import torch
from torch import Tensor
from torch.utils.data import Sampler

from .._core import checks
from .._core.random import Seed, seed_number
from ..errors import InvalidArgumentError
from ._counts import class_balanced_weights
from ._labeled import encode

__all__ = [
    "ClassBalancedSampler",
    "DeferredSampler",
    "ProgressiveSampler",
    "ResamplingSampler",
    "SquareRootSampler",
]


class ResamplingSampler(Sampler[int], ABC):
    """Draws a class, then one of its rows, with replacement.

    Parameters
    ----------
    labels : array, tensor or list of shape (N,)
        Class, or any other group, of every row.
    num_samples : int, optional
        Rows in an epoch; by default N.
    seed : int, torch.Generator or numpy.random.Generator
        A generator contributes only its initial seed. With the number of the epoch it fixes the draws.

    Notes
    -----
    Every pass is the next epoch, with other draws; `set_epoch` says which one comes next, as after a resume.
    """

    def __init__(self, labels: Sequence[Any] | Tensor | Any, *, num_samples: int | None = None, seed: Seed = 0) -> None:
        codes, self.classes = encode(labels)
        if not len(codes):
            raise InvalidArgumentError("labels are empty: nothing to draw from")
        self.num_samples = len(codes) if num_samples is None else checks.count("num_samples", num_samples)
        self.seed = seed_number(seed)
        self.epoch = 0
        self.counts = torch.bincount(codes, minlength=len(self.classes))
        self._codes = codes

    @abstractmethod
    def class_probabilities(self, epoch: int) -> Tensor:
        """Probability of every class in an epoch, float64 of shape (K,), in the order of ``classes``."""

    def set_epoch(self, epoch: int) -> None:
        """The next pass is that of ``epoch``, 0 the first."""
        self.epoch = checks.count("epoch", epoch, 0)

    def __len__(self) -> int:
        return self.num_samples

    def __iter__(self) -> Iterator[int]:
        epoch = self.epoch
        self.epoch += 1
        generator = torch.Generator().manual_seed((self.seed * 1_000_003 + epoch) % 2**63)
        rows = (self._checked_probabilities(epoch) / self.counts)[self._codes]
        # By bisection of the cumulated probabilities: torch.multinomial takes at most 2^24 rows.
        edges = rows.cumsum(0)
        draws = torch.rand(self.num_samples, generator=generator, dtype=torch.float64) * edges[-1]
        # Rounding may put a draw on the last edge, which belongs to the last row that can be drawn.
        last = int(rows.nonzero()[-1])
        yield from torch.searchsorted(edges, draws, right=True).clamp(max=last).tolist()

    def _checked_probabilities(self, epoch: int) -> Tensor:
        found = torch.as_tensor(self.class_probabilities(epoch), dtype=torch.float64)
        fits = found.shape == self.counts.shape and bool((found.isfinite() & (found >= 0)).all())
        if not fits or not float(found.sum()) > 0.0:
            raise InvalidArgumentError(
                f"class_probabilities must be {len(self.counts)} finite numbers of at least 0 with a positive sum, got "
                f"{found.tolist()} in epoch {epoch}"
            )
        return found


@final
class ClassBalancedSampler(ResamplingSampler):
    """Every class equally often, as for retraining a classifier (Kang et al., 2020)."""

    def class_probabilities(self, epoch: int) -> Tensor:
        """``1 / K``."""
        return torch.full((len(self.counts),), 1.0 / len(self.counts), dtype=torch.float64)


@final
class SquareRootSampler(ResamplingSampler):
    """Classes by the square root of their counts (Mahajan et al., 2018)."""

    def class_probabilities(self, epoch: int) -> Tensor:
        """``sqrt(n_c) / sum_k sqrt(n_k)``."""
        roots = self.counts.double().sqrt()
        return roots / roots.sum()


@final
class ProgressiveSampler(ResamplingSampler):
    """From the classes as they are in the first epoch to equally often in the last (Kang et al., 2020).

    Parameters
    ----------
    labels, num_samples, seed
        As for `ResamplingSampler`.
    epochs : int
        Epochs from the first to the last mixture, at least 2; later ones stay at the last.
    """

    def __init__(self, labels: Any, *, epochs: int, num_samples: int | None = None, seed: Seed = 0) -> None:
        super().__init__(labels, num_samples=num_samples, seed=seed)
        self.epochs = checks.count("epochs", epochs, 2)

    def class_probabilities(self, epoch: int) -> Tensor:
        """``(1 - t) n_c / n + t / K`` with ``t`` from 0 to 1."""
        t = min(max(epoch / (self.epochs - 1), 0.0), 1.0)
        shares = self.counts.double()
        return (1.0 - t) * shares / shares.sum() + t / len(self.counts)


@final
class DeferredSampler(ResamplingSampler):
    """Deferred resampling: rows as they are up to ``start``, then classes by inverse effective number.

    Parameters
    ----------
    labels, num_samples, seed
        As for `ResamplingSampler`.
    start : int
        The first epoch with resampling; before it an epoch is a permutation of the rows (without replacement).
    beta : float
        Of `class_balanced_weights`; a row is drawn with probability proportional to its class weight.

    Notes
    -----
    Source: deferred resampling of Cao, Wei, Gaidon, Arechiga and Ma (2019).
    """

    def __init__(
        self, labels: Any, *, start: int, beta: float = 0.9999, num_samples: int | None = None, seed: Seed = 0
    ) -> None:
        super().__init__(labels, num_samples=num_samples, seed=seed)
        self.start = checks.count("start", start, 0)
        self.beta = beta
        self._weights = class_balanced_weights(self.counts, beta).double()

    def class_probabilities(self, epoch: int) -> Tensor:
        """``n_c / n`` before ``start``, then in proportion to ``n_c w_c``."""
        mass = self.counts.double() * (self._weights if epoch >= self.start else 1.0)
        return mass / mass.sum()

    def __iter__(self) -> Iterator[int]:
        if self.epoch >= self.start:
            yield from super().__iter__()
            return
        generator = torch.Generator().manual_seed((self.seed * 1_000_003 + self.epoch) % 2**63)
        self.epoch += 1
        rows = len(self._codes)
        passes = [torch.randperm(rows, generator=generator) for _ in range(-(-self.num_samples // rows))]
        yield from torch.cat(passes)[: self.num_samples].tolist()
