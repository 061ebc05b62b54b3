"""Labels that are wrong on purpose, at random."""

from __future__ import annotations

from typing import Any

import torch

from .._core import checks
from .._core.distributed import rank
from .._core.random import Seed, seed_number
from ..errors import InvalidArgumentError
from ._criterion import Given, LabelCriterion
from ._rows import Rows

__all__ = ["DisturbLabel"]


class DisturbLabel(LabelCriterion):
    """Cross-entropy against a label that is, with probability ``rate``, drawn uniformly from all classes.

    Parameters
    ----------
    rate : float
        Probability of drawing anew, in [0, 1]; the label changes with probability ``rate (K-1)/K``. Percent in the
        paper: its 10 is 0.1 here.
    seed : int, torch.Generator or numpy.random.Generator
        Draws follow from the seed, the process and the number of the call, which is part of the state, so that a
        resumed run draws as an uninterrupted one. A generator contributes only its initial seed.
    generator : torch.Generator, optional
        Draw from this one instead; its state is the caller's to save.
    **options
        ``weight``, ``ignore_index``, ``reduction`` of `LabelCriterion`.

    Notes
    -----
    In expectation equal to `LabelSmoothing` with the same rate, class weights included (a drawn class is weighted by
    its own weight, the mean divides by the weights of the given labels): it is label smoothing plus noise in the
    gradient. In evaluation, and without gradients, the plain cross-entropy. A probability target is replaced whole.
    Source: Xie et al. (2016).
    """

    name = "disturb"
    state_counters = ("calls",)
    is_stateful = True

    def __init__(
        self, rate: float = 0.1, *, seed: Seed = 0, generator: torch.Generator | None = None, **options: Any
    ) -> None:
        super().__init__(**options)
        if generator is not None and not isinstance(generator, torch.Generator):
            raise InvalidArgumentError(f"generator must be a torch.Generator or None, got {generator!r}")
        self.rate = checks.fraction("rate", rate)
        self.seed = seed_number(seed)
        self.generator = generator
        self.calls = 0

    def _values(self, rows: Rows, given: Given) -> torch.Tensor:
        if not self.is_learning:
            return rows.cross_entropy()
        count, classes = rows.logits.shape
        drawn, numbers = self._draw(count, classes, rows.logits.device)
        replaced = numbers < self.rate
        if rows.masked is not None and self.rate > 0.0:
            drawn = _allowed(drawn, numbers / self.rate, rows.masked)
        of_drawn = -rows.log_p.gather(1, drawn[:, None])[:, 0]
        if rows.weight is not None:
            of_drawn = of_drawn * rows.weight[drawn]
        return torch.where(replaced & rows.kept, of_drawn, rows.cross_entropy())

    def _draw(self, count: int, classes: int, device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
        """(R,) classes, and numbers in [0, 1) of which those below the rate replace a label."""
        generator = self.generator
        if generator is None:
            mixed = (self.seed * 1_000_003 + rank()) * 1_000_003 + self.calls
            generator = torch.Generator().manual_seed(mixed % 2**63)
            self.calls += 1
        where = generator.device
        drawn = torch.randint(classes, (count,), generator=generator, device=where)
        numbers = torch.rand(count, generator=generator, device=where)
        return drawn.to(device), numbers.to(device)

    def extra_repr(self) -> str:
        """Rate and the options of the base."""
        return ", ".join(filter(None, (f"rate={self.rate}, seed={self.seed}", super().extra_repr())))


def _allowed(drawn: torch.Tensor, shares: torch.Tensor, masked: torch.Tensor) -> torch.Tensor:
    """Drawn classes (R,), in place of masked ones a class that is not; ``shares`` (R,) in [0, 1) choose it.

    Below the rate, a number that decided to replace a label is uniform itself once it is divided by the rate: it
    chooses evenly among the classes that are left, and nothing more has to be drawn.
    """
    reached = (~masked).long().cumsum(1)
    left = reached[:, -1]
    rank = torch.minimum((shares * left).long(), left - 1)
    chosen = (reached > rank[:, None]).long().argmax(1)
    return torch.where(masked.gather(1, drawn[:, None])[:, 0], chosen, drawn)
