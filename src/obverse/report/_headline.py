"""The figures a reader looks for first, and the one sentence that says them in words."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import final

from ._record import Record, as_number
from ._scales import finite
from ._wording import byte_size, count, factor, percent, plural

__all__ = ["Headline", "mean"]


def mean(values: Iterable[float | None]) -> float | None:
    """Mean of the finite numbers among ``values``; None if there are none."""
    known = [value for value in values if value is not None and math.isfinite(value)]
    return math.fsum(known) / len(known) if known else None


@final
@dataclass(frozen=True)
class Headline:
    """What a run amounts to. Fractions and bytes; None where the record does not say.

    The record's own summary comes first; what it leaves out is worked out from the runs.
    """

    seeds: int
    test_error: float | None
    interval: tuple[float, float] | None
    sparsity: float | None
    compression: float | None
    dense_bytes: float | None
    sparse_bytes: float | None
    nonzero: float | None
    weights: float | None

    @classmethod
    def of(cls, metrics: Record, runs: list[Record]) -> Headline:
        test_error = metrics.number("summary.test_error.mean")
        if test_error is None:
            test_error = mean(run.number("test.error") for run in runs)
        weights = metrics.number("model.weights")
        if weights is None and runs:
            weights = math.fsum(layer.number("weights") or 0 for layer in runs[0].records("layers")) or None
        nonzero = mean(run.number("size.nonzero") for run in runs)
        sparsity = metrics.number("summary.sparsity.mean")
        if sparsity is None and nonzero is not None and weights:
            sparsity = 1 - nonzero / weights
        if sparsity is None:
            last = [(run.records("trajectory") or run.records("history"))[-1:] for run in runs]
            sparsity = mean(point.number("sparsity") for points in last for point in points)
        dense = mean(run.number("size.dense_bytes") for run in runs)
        sparse = mean(run.number("size.bitmask_bytes") for run in runs)
        compression = metrics.number("summary.compression")
        if compression is None and dense and sparse:
            compression = dense / sparse
        return cls(
            seeds=len(runs),
            test_error=test_error,
            interval=_interval(metrics.get("summary.test_error.interval"), test_error),
            sparsity=sparsity,
            compression=compression,
            dense_bytes=dense,
            sparse_bytes=sparse,
            nonzero=nonzero,
            weights=weights,
        )

    def tiles(self) -> list[dict[str, str]]:
        """The figures as name, value and a line of context each."""
        over = f"mean of {plural(self.seeds, 'seed')}" if self.seeds > 1 else "one seed, so no interval"
        if self.interval is not None:
            over = f"interval {percent(self.interval[0])} to {percent(self.interval[1])}"
            over += f" over {plural(self.seeds, 'seed')}" if self.seeds else ""
        kept = "share of exact zeros"
        if self.nonzero is not None and self.weights is not None:
            kept = f"{count(self.nonzero)} of {count(self.weights)} weights kept"
        return [
            {"name": "Test error", "value": percent(self.test_error), "context": over},
            {
                "name": "Sparsity",
                "value": percent(self.sparsity),
                "context": kept,
            },
            {
                "name": "Compression",
                "value": factor(self.compression),
                "context": "dense bytes over bitmask bytes",
            },
            {
                "name": "Size",
                "value": byte_size(self.sparse_bytes),
                "context": f"from {byte_size(self.dense_bytes)} dense, in a bitmask layout",
            },
        ]

    def sentence(self, metrics: Record) -> str:
        """The run in one sentence; a clause whose figures are missing is left out."""
        model = metrics.text("model.name", 80)
        data = metrics.text("data.name", 80)
        penalty = metrics.text("penalty.name", 80)
        how = (f" on {data}" if data else "") + (f" with the {penalty} penalty" if penalty else "")
        subject = f"Trained{how}, {model or 'the model'}" if how else model or "The model"
        clauses: list[str] = []
        if self.sparsity is not None:
            of = f" of its {count(self.weights)} regularized weights" if self.weights else " of its weights"
            clauses.append(f"keeps {percent(1 - self.sparsity)}{of}")
        if self.test_error is not None:
            text = f"errs on {percent(self.test_error)} of the test set"
            if self.seeds > 1:
                text += f" (mean of {self.seeds:,} seeds)"
            clauses.append(text)
        if self.sparse_bytes is not None and self.dense_bytes is not None:
            text = f"needs {byte_size(self.sparse_bytes)} instead of {byte_size(self.dense_bytes)}"
            clauses.append(f"{text} when stored as a bitmask and the weights that are left")
        if not clauses:
            return f"{subject} has no results on record yet."
        said = clauses[0] if len(clauses) == 1 else f"{', '.join(clauses[:-1])} and {clauses[-1]}"
        return f"{subject} {said}."


def _interval(value: object, center: float | None) -> tuple[float, float] | None:
    """Two ends, from two ends or from a half width around ``center``."""
    if isinstance(value, list | tuple):
        ends = finite(as_number(end) for end in value)
        return (ends[0], ends[1]) if len(ends) == len(value) == 2 else None
    half = as_number(value)
    if half is None or center is None or not math.isfinite(half):
        return None
    return max(center - half, 0.0), center + half
