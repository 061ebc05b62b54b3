"""How sure a network is when it is right, when it is wrong, and where it cannot know."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch

from .._core import checks
from ..errors import InvalidArgumentError
from ._rows import flat
from ._streaming import Predictions, StreamingMetric, Sums

__all__ = ["ScoreSummary", "WinningScores"]

_GROUPS = ("correct", "wrong", "outside")


@dataclass(frozen=True)
class ScoreSummary:
    """Winning scores of one group.

    Parameters
    ----------
    count : int
        Rows.
    mean : float
        Mean score, NaN without rows.
    quantiles : dict of float to float
        Score by level.
    histogram : tuple of int
        Rows in bins of equal width from 0 to 1.
    """

    count: int
    mean: float
    quantiles: dict[float, float]
    histogram: tuple[int, ...]


class WinningScores(StreamingMetric):
    """Largest probabilities ``max_k p_k`` of correct and wrong predictions, and of inputs from outside.

    Parameters
    ----------
    resolution : int
        Cells of equal width that scores are counted in; quantiles are exact to ``1 / resolution``.
    inputs : {"logits", "probabilities"}
        What `update` is given.
    ignore_index : int
        Class index of rows that do not count.

    Notes
    -----
    `update` counts inputs with a label, `update_outside` inputs that belong to no class. The label of a probability
    target is its largest share. Means are exact. State: ``24 (resolution + 1)`` bytes. What Guo (2021) reports of
    pairwise label smoothing.
    """

    def __init__(self, resolution: int = 1000, *, inputs: str = "logits", ignore_index: int = -100) -> None:
        self.resolution = checks.count("resolution", resolution)
        super().__init__(Sums((len(_GROUPS), resolution + 1)), inputs, ignore_index)

    @torch.no_grad()
    def update_outside(self, predictions: torch.Tensor) -> None:
        """Count predictions (N, K) or (N, K, ...) for inputs that belong to none of the classes."""
        if not isinstance(predictions, torch.Tensor) or predictions.dim() < 2:
            raise InvalidArgumentError("predictions must be a tensor of shape (N, K) or (N, K, ...)")
        rows = flat(predictions)
        given = self._predictions(rows, torch.full((len(rows),), self._no_label(), device=rows.device))
        self._add(given.p.amax(1), torch.full((len(rows),), 2, device=rows.device))

    def _no_label(self) -> int:
        return 0 if self.ignore_index != 0 else 1

    def _count(self, predictions: Predictions) -> None:
        scores, answers = predictions.p.max(1)
        labels = predictions.index if predictions.index is not None else predictions.target().argmax(1)
        self._add(scores, (answers != labels).long())

    def _add(self, scores: torch.Tensor, groups: torch.Tensor) -> None:
        cells = (scores * self.resolution).long().clamp(max=self.resolution - 1)
        counts = scores.new_zeros(len(_GROUPS), self.resolution + 1)
        counts.index_put_((groups, cells), torch.ones_like(scores), accumulate=True)
        counts[:, -1].index_add_(0, groups, scores)
        self.counted.add(counts)

    def compute(self, levels: tuple[float, ...] = (0.1, 0.5, 0.9), bins: int = 20) -> dict[str, ScoreSummary]:
        """Summaries of the groups "correct", "wrong" and "outside".

        Parameters
        ----------
        levels : tuple of float
            Of the quantiles, in [0, 1].
        bins : int
            Of the histogram; a divisor of the resolution.
        """
        for level in levels:
            checks.fraction("levels", level)
        if self.resolution % checks.count("bins", bins):
            raise InvalidArgumentError(f"bins must divide the resolution {self.resolution}, got {bins}")
        found = {}
        for name, row in zip(_GROUPS, self.counted.value.cpu(), strict=True):
            counts, total = row[:-1], float(row[-1])
            count = int(counts.sum())
            found[name] = ScoreSummary(
                count,
                total / count if count else math.nan,
                {level: self._quantile(counts, level) for level in levels},
                tuple(int(n) for n in counts.view(bins, -1).sum(1)),
            )
        return found

    def _quantile(self, counts: torch.Tensor, level: float) -> float:
        """The middle of the cell that holds the row of this rank."""
        reached = counts.cumsum(0)
        if not reached[-1]:
            return math.nan
        rank = min(max(math.ceil(level * float(reached[-1])), 1), int(reached[-1]))
        return (int(torch.searchsorted(reached, float(rank))) + 0.5) / self.resolution

    def extra_repr(self) -> str:
        """Resolution and what is not as usual."""
        return ", ".join(filter(None, (f"resolution={self.resolution}", super().extra_repr())))
