"""Whether what is called seventy percent sure is right in seventy percent of cases."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import torch

from .._core import checks
from ..errors import InvalidArgumentError, UnknownNameError
from ._cells import Cells
from ._streaming import Accumulator, Predictions, StreamingMetric, Sums

__all__ = ["CalibrationError", "ReliabilityBin"]

_KINDS = ("top-label", "class-wise")
_BINNINGS = ("uniform", "adaptive")
_NORMS = ("l1", "l2", "max")


class ReliabilityBin(NamedTuple):
    """One bin: its scores are above ``lower`` and at most ``upper``; means are NaN where it is empty.

    Parameters
    ----------
    lower, upper : float
    rows : float
        Their number; a fraction where equal scores are shared between bins.
    confidence, accuracy : float
        Mean score, and mean of how often it was right.
    """

    lower: float
    upper: float
    rows: float
    confidence: float
    accuracy: float


class CalibrationError(StreamingMetric):
    """Distance between confidence and accuracy, over bins of confidence.

    Parameters
    ----------
    bins : int
        B.
    kind : {"top-label", "class-wise"}
        Confidence of the predicted class only, or of every class: then the mean over the classes.
    binning : {"uniform", "adaptive"}
        Bins of equal width, or of equal numbers of rows.
    norm : {"l1", "l2", "max"}
        ``sum_b n_b/N |gap_b|`` (the expected calibration error), the root of ``sum_b n_b/N gap_b^2``, or the largest
        gap of all bins (the maximum calibration error), where ``gap_b`` is accuracy minus confidence.
    num_classes : int, optional
        K, needed for "class-wise"; predictions of another number of classes are refused.
    resolution : int, optional
        For "adaptive": count in so many cells of equal width instead of keeping every distinct score. By default scores
        are kept and the result is exact.
    inputs : {"logits", "probabilities"}
        What `update` is given.
    ignore_index : int
        Class index of rows that do not count.

    Notes
    -----
    Bins of equal width are ``(l, u]``; the first one holds 0, and the last one 1, which low precision often gives.
    Bins of equal numbers are those of ``numpy.array_split`` of the ordered rows, the first ones one row larger. Rows of
    equal score have no order: they share what lies on both sides of a boundary in proportion, so that the result
    depends neither on the order of batches nor on the number of processes.

    State: ``24 B`` bytes for bins of equal width and top labels, K times that class-wise; 32 bytes for each distinct
    score with adaptive bins, of each class if class-wise; with a resolution m as with m bins of equal width. The
    approximation is then bounded by the rows of the cells that a boundary goes through: see `approximation_bound`.

    A probability target counts as right with the share of the predicted class. In "class-wise" the norm "l2" is the
    root of the mean of squares over the classes, "max" the largest gap of all.

    Compare networks that are less sure than right, such as those of `PairwiseLabelSmoothing`, after
    `TemperatureScaling`. The binned estimate is biased upward for few rows in a bin. Source: Naeini et al. (2015), Guo
    et al. (2017); class-wise and adaptive: Nixon et al. (2019); the sharing of ties and the bound are derived.
    """

    def __init__(
        self,
        bins: int = 15,
        *,
        kind: str = "top-label",
        binning: str = "uniform",
        norm: str = "l1",
        num_classes: int | None = None,
        resolution: int | None = None,
        inputs: str = "logits",
        ignore_index: int = -100,
    ) -> None:
        for what, given, known in (("kind", kind, _KINDS), ("binning", binning, _BINNINGS), ("norm", norm, _NORMS)):
            if given not in known:
                raise UnknownNameError(f"{what} of calibration error", str(given), known)
        self.bins = checks.count("bins", bins)
        if kind == "class-wise" and num_classes is None:
            raise InvalidArgumentError('kind="class-wise" needs num_classes')
        if num_classes is not None:
            checks.count("num_classes", num_classes, 2)
        if resolution is not None and (binning != "adaptive" or checks.count("resolution", resolution) < bins):
            raise InvalidArgumentError(
                f'resolution is for binning="adaptive" and at least bins={bins}, got {resolution} and {binning!r}'
            )
        self.kind, self.binning, self.norm, self.num_classes = kind, binning, norm, num_classes
        self.resolution = resolution
        groups = (num_classes or 1) if kind == "class-wise" else 1
        is_exact = binning == "adaptive" and resolution is None
        accumulator: Accumulator = Cells(groups) if is_exact else Sums((groups, resolution or bins, 3))
        super().__init__(accumulator, inputs, ignore_index)
        self._groups = groups

    def _settings(self) -> tuple[Any, ...]:
        return self.bins, self.kind, self.binning, self._groups, self.resolution

    def _count(self, predictions: Predictions) -> None:
        classes = predictions.scores.shape[1]
        if self.num_classes is not None and classes != self.num_classes:
            raise InvalidArgumentError(f"this metric is for {self.num_classes} classes, got {classes}")
        if self.kind == "top-label":
            scores, answers = predictions.p.max(1)
            hits = predictions.right(answers)
            groups = torch.zeros_like(answers)
        else:
            p = predictions.p
            groups = torch.arange(p.shape[1], device=p.device).repeat(len(p))
            scores, hits = p.reshape(-1), predictions.target().reshape(-1)
        scores = scores.clamp(max=1.0)
        ones = torch.ones_like(scores)
        if isinstance(self.counted, Cells):
            self.counted.add(torch.stack([scores, groups.double(), ones, hits], 1))
            return
        cells = self.counted.shape[1]
        inner = torch.arange(1, cells, dtype=torch.float64, device=scores.device) / cells
        place = groups * cells + torch.bucketize(scores, inner)
        sums = scores.new_zeros(self._groups * cells, 3)
        sums.index_add_(0, place, torch.stack([ones, scores, hits], 1))
        self.counted.add(sums.view(self.counted.shape))

    def compute(self) -> float:
        """The calibration error over all rows; NaN before the first."""
        sums, _, _ = self._binned()
        return self._norm_of(sums[..., 0], (sums[..., 2] - sums[..., 1]).abs())

    def approximation_bound(self) -> float:
        """How far `compute` can be from the exact value because of the resolution; 0 without one.

        Notes
        -----
        A boundary that leaves k of the c rows of a cell on one side has the others' sums in proportion, which is wrong
        by at most ``k (c - k) / c`` right answers, and by the width of a cell times that in confidence. The same norm
        of these deviations bounds that of the difference (derived).
        """
        if self.resolution is None:
            return 0.0
        sums, _, wrong = self._binned()
        return self._norm_of(sums[..., 0], wrong)

    def reliability_table(self, class_index: int | None = None) -> list[ReliabilityBin]:
        """What a reliability diagram shows: count, mean confidence and accuracy of each bin.

        Parameters
        ----------
        class_index : int, optional
            Which class of a class-wise error; by default bins of equal width are put together over all classes.
        """
        sums, edges, _ = self._binned()
        if self.kind == "top-label":
            if class_index is not None:
                raise InvalidArgumentError('class_index is for kind="class-wise"')
            sums, edges = sums[0], edges[0]
        elif class_index is None:
            if self.binning == "adaptive":
                raise InvalidArgumentError("bins of equal numbers differ between classes: give class_index")
            sums, edges = sums.sum(0), edges[0]
        elif not 0 <= class_index < self._groups:
            raise InvalidArgumentError(f"class_index must be in [0, {self._groups - 1}], got {class_index}")
        else:
            sums, edges = sums[class_index], edges[class_index]
        return [
            ReliabilityBin(low, high, n, s / n if n else math.nan, hits / n if n else math.nan)
            for (low, high), (n, s, hits) in zip(edges.tolist(), sums.tolist(), strict=True)
        ]

    def _norm_of(self, counts: torch.Tensor, deviations: torch.Tensor) -> float:
        """The norm of ``deviations / counts`` (G, B) with weights ``counts``."""
        rows = counts.sum(1, keepdim=True)
        if not bool(rows.any()):
            return math.nan
        gaps = torch.where(counts > 0, deviations / torch.where(counts > 0, counts, 1.0), 0.0)
        if self.norm == "max":
            return float(gaps.max())
        shares = counts / rows
        if self.norm == "l1":
            return float((shares * gaps).sum(1).mean())
        return float((shares * gaps.square()).sum(1).mean().sqrt())

    def _binned(self) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """(G, B, 3) counts, scores and hits, (G, B, 2) edges, and (G, B) how wrong sums of gaps may be."""
        value = self.counted.value.cpu()
        if self.binning == "uniform":
            ends = torch.arange(self.bins + 1, dtype=torch.float64) / self.bins
            edges = torch.stack([ends[:-1], ends[1:]], 1).expand(self._groups, -1, -1)
            return value, edges, value.new_zeros(value.shape[:2])
        found = [self._split(*self._cells(value, group)) for group in range(self._groups)]
        return (
            torch.stack([f[0] for f in found]),
            torch.stack([f[1] for f in found]),
            torch.stack([f[2] for f in found]),
        )

    def _cells(self, value: torch.Tensor, group: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Sums (M, 3) of the cells of a group in ascending order, and their ends (M, 2)."""
        if self.resolution is not None:
            lower = torch.arange(self.resolution, dtype=torch.float64) / self.resolution
            held = value[group][:, 0] > 0
            return value[group][held], torch.stack([lower, lower + 1.0 / self.resolution], 1)[held]
        begin, end = torch.searchsorted(value[:, 1].contiguous(), torch.tensor([group, group + 1.0]).double()).tolist()
        rows = value[begin:end]
        return torch.stack([rows[:, 2], rows[:, 0] * rows[:, 2], rows[:, 3]], 1), rows[:, :1].expand(-1, 2)

    def _split(self, cells: torch.Tensor, ends: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Bins of equal numbers from cells in ascending order."""
        if not len(cells):
            return cells.new_zeros(self.bins, 3), cells.new_full((self.bins, 2), math.nan), cells.new_zeros(self.bins)
        reached = torch.cat([cells.new_zeros(1, 3), cells.cumsum(0)])
        rows = round(float(reached[-1, 0]))
        sizes = torch.full((self.bins,), rows // self.bins)
        sizes[: rows % self.bins] += 1
        ranks = torch.cat([sizes.new_zeros(1), sizes.cumsum(0)]).double()
        # The cell in which each boundary lies, and how many of its rows are below.
        cell = (torch.searchsorted(reached[:, 0].contiguous(), ranks, right=True) - 1).clamp(max=len(cells) - 1)
        count = cells[cell, 0]
        below = ranks - reached[cell, 0]
        at = reached[cell] + (below / count)[:, None] * cells[cell]
        width = (ends[:, 1] - ends[:, 0])[cell]
        wrong = torch.where(width > 0, below * (count - below) / count * (1.0 + width), 0.0)
        last = (torch.searchsorted(reached[:, 0].contiguous(), ranks[1:]) - 1).clamp(min=0)
        edges = torch.stack([ends[cell[:-1], 0], ends[last, 1]], 1)
        return at[1:] - at[:-1], edges, wrong[1:] + wrong[:-1]

    def extra_repr(self) -> str:
        """Bins, norm and what is not as usual."""
        own = f"bins={self.bins}, kind={self.kind!r}, binning={self.binning!r}, norm={self.norm!r}"
        if self.num_classes is not None:
            own += f", num_classes={self.num_classes}"
        if self.resolution is not None:
            own += f", resolution={self.resolution}"
        return ", ".join(filter(None, (own, super().extra_repr())))
