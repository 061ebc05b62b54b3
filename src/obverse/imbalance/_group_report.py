"""One row for each group: how many, how often wrong, how noisy, how well calibrated; and the balanced figures."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from .._core import checks
from .._core.text import aligned
from ..errors import InvalidArgumentError
from ._intervals import normal_quantile, wilson
from ._labeled import as_list, encode

__all__ = ["GroupReport", "GroupRow", "group_report"]

Interval = tuple[float, float]


@final
@dataclass(frozen=True)
class GroupRow:
    """One group. Shares are in [0, 1]; what was not given is NaN.

    Attributes
    ----------
    group
        Its name.
    count, train_count : int or None
        Rows here, and rows that the model was trained on.
    error, error_interval
        Share of wrong predictions, with Wilson's interval.
    noise, noise_interval
        Share of labels that are not the true ones, likewise.
    confidence, calibration_error, gap
        Mean largest probability; mean distance of confidence and accuracy over bins; confidence minus accuracy,
        positive where the model is too sure.
    nll : float
        Mean negative log-probability of the label, in nats; infinite where a label has probability zero.
    """

    group: Any
    count: int
    train_count: int | None
    error: float
    error_interval: Interval
    noise: float
    noise_interval: Interval
    confidence: float
    calibration_error: float
    gap: float
    nll: float


@final
@dataclass(frozen=True)
class GroupReport:
    """What `group_report` found; printing it gives a table.

    Attributes
    ----------
    rows : tuple of GroupRow
        Sorted by group, or in the order asked for.
    level : float
        Confidence level of all intervals.
    error, error_interval
        Share of wrong predictions among all rows.
    balanced_error, balanced_interval
        Mean over the groups, each counting the same, with a normal interval.
    worst_group, worst_error, worst_interval
        The group with the highest error, and its interval.
    macro_f1 : float
        Mean of the F1 scores of the classes.
    geometric_mean : float
        Geometric mean of the accuracies of the groups; 0 as soon as one group is all wrong.
    """

    rows: tuple[GroupRow, ...]
    level: float
    error: float
    error_interval: Interval
    balanced_error: float
    balanced_interval: Interval
    worst_group: Any
    worst_error: float
    worst_interval: Interval
    macro_f1: float
    geometric_mean: float

    def to_dict(self) -> dict[str, Any]:
        """Everything as plain values, for a JSON file."""
        return asdict(self)

    def table(self) -> str:
        """A table as text: one line for each group, then the figures over all."""
        columns = ["group", "rows", "error, %", "interval"]
        some = {
            "trained on": any(row.train_count is not None for row in self.rows),
            "noise, %": any(not math.isnan(row.noise) for row in self.rows),
            "confidence, %": any(not math.isnan(row.confidence) for row in self.rows),
        }
        columns += [name for name, there in some.items() if there]
        if some["confidence, %"]:
            columns += ["calibration, %", "nll"]
        lines = [columns]
        for row in self.rows:
            cells = [str(row.group), str(row.count), _percent(row.error), _range(row.error_interval)]
            if some["trained on"]:
                cells.append("" if row.train_count is None else str(row.train_count))
            if some["noise, %"]:
                cells.append(_percent(row.noise))
            if some["confidence, %"]:
                cells += [_percent(row.confidence), _percent(row.calibration_error), f"{row.nll:.3f}"]
            lines.append(cells)
        text = [
            aligned(lines),
            "",
            f"all rows        {_percent(self.error)} % [{_range(self.error_interval)}]",
            f"balanced error  {_percent(self.balanced_error)} % [{_range(self.balanced_interval)}]",
            f"worst group     {_percent(self.worst_error)} % [{_range(self.worst_interval)}]: {self.worst_group}",
            f"macro F1        {_percent(self.macro_f1)} %",
        ]
        return "\n".join(text)

    def __str__(self) -> str:
        return self.table()

    def plot(self, ax: Any = None) -> Any:
        """Draw the errors with their intervals, the noise where known, and the balanced error; needs matplotlib.

        Parameters
        ----------
        ax : matplotlib Axes, optional
            By default a new figure's.

        Returns
        -------
        Axes
        """
        if ax is None:
            from matplotlib.figure import Figure

            ax = Figure(figsize=(6.4, 1.2 + 0.36 * len(self.rows)), layout="constrained").subplots()
        heights = np.arange(len(self.rows))[::-1]
        errors = 100 * np.array([row.error for row in self.rows])
        ends = 100 * np.array([row.error_interval for row in self.rows])
        spread = np.abs(ends.T - errors)
        ax.errorbar(errors, heights, xerr=spread, fmt="o", color="tab:blue", capsize=3, label="error")
        noise = 100 * np.array([row.noise for row in self.rows])
        if np.isfinite(noise).any():
            ax.plot(noise, heights, "D", color="tab:orange", mfc="none", label="noise")
        ax.axvline(100 * self.balanced_error, color="gray", linestyle="--", linewidth=1, label="balanced error")
        names = [f"{row.group} ({row.count if row.train_count is None else row.train_count})" for row in self.rows]
        ax.set_yticks(heights, names)
        ax.set_xlim(left=0)
        ax.set_xlabel(f"error, % (intervals: {100 * self.level:g} %)")
        ax.legend(frameon=False)
        return ax


def group_report(
    target: Any,
    predicted: Any,
    groups: Any = None,
    *,
    clean: Any = None,
    train_counts: Any = None,
    from_logits: bool = False,
    classes: Sequence[Any] | None = None,
    confidence: float = 0.95,
    bins: int = 15,
) -> GroupReport:
    """Errors, counts, noise and calibration by group.

    Parameters
    ----------
    target : array, tensor or list of shape (N,)
        Labels to compare with.
    predicted : array of shape (N,), or (N, K)
        Predicted labels, or the probabilities of K classes, by which the calibration is measured.
    groups : array of shape (N,), optional
        Group of every row; by default its label.
    clean : array of shape (N,), optional
        True labels where known: the noise of a group is the share of its rows whose ``target`` is not the true label.
    train_counts : mapping from group to int, optional
        Rows of each group that the model was trained on, to stand beside.
    from_logits : bool
        ``predicted`` holds logits, of which a softmax is taken; -inf masks a class.
    classes : sequence of length K, optional
        Labels of the columns of ``predicted``; by default the sorted labels if there are K, else 0 to K - 1.
    confidence : float
        Level of the intervals, in (0, 1).
    bins : int
        Bins of equal width for the calibration error.

    Returns
    -------
    GroupReport

    Raises
    ------
    InvalidArgumentError
        When there are no rows, lengths differ, probabilities are none, logits are NaN, or names do not fit each other.

    Notes
    -----
    Calibration error: ``sum_b (n_b / n) |accuracy_b - confidence_b|`` within the group, bins ``(l, u]``. It equals
    `obverse.labels.CalibrationError`, and ``nll`` equals `obverse.labels.NegativeLogLikelihood`. Intervals of shares
    are Wilson's (1927); that of the balanced error is normal, with variance ``sum_g v_g / G^2`` of shares shrunk as
    Wilson's centers are.
    """
    labels = as_list(target)
    if not labels:
        raise InvalidArgumentError("target is empty: there is nothing to report on")
    normal_quantile(confidence)
    bins = checks.count("bins", bins)
    answers, logs, columns = _answers(predicted, labels, from_logits, classes)
    if len(answers) != len(labels):
        raise InvalidArgumentError(f"predicted has {len(answers)} rows and target {len(labels)}")
    members, names = encode(labels if groups is None else groups)
    true = None if clean is None else as_list(clean)
    for name, part in (("groups", members), ("clean", true)):
        if part is not None and len(part) != len(labels):
            raise InvalidArgumentError(f"{name} must have one entry for each of {len(labels)} rows, got {len(part)}")
    if train_counts is not None and not any(name in train_counts for name in names):
        raise InvalidArgumentError(f"train_counts has none of the groups {names}, it has {list(train_counts)}")
    wrong = np.array([a != b for a, b in zip(answers, labels, strict=True)])
    noisy = None if true is None else np.array([a != b for a, b in zip(true, labels, strict=True)])
    inside = [members.numpy() == place for place in range(len(names))]
    rows = tuple(
        _row(name, mask, wrong, noisy, logs, columns, labels, train_counts, confidence, bins)
        for name, mask in zip(names, inside, strict=True)
    )
    errors = np.array([row.error for row in rows])
    worst = rows[int(errors.argmax())]
    low, high = wilson(wrong.sum(), len(wrong), confidence)
    return GroupReport(
        rows,
        confidence,
        float(wrong.mean()),
        (float(low), float(high)),
        float(errors.mean()),
        _balanced_interval(rows, confidence),
        worst.group,
        worst.error,
        worst.error_interval,
        _macro_f1(answers, labels),
        0.0 if errors.max() >= 1.0 else float(np.exp(np.log1p(-errors).mean())),
    )


def _answers(
    predicted: Any, labels: list[Any], from_logits: bool, classes: Sequence[Any] | None
) -> tuple[list[Any], NDArray[np.float64] | None, list[Any]]:
    values = predicted.detach().cpu() if isinstance(predicted, Tensor) else predicted
    # bfloat16 is unknown to NumPy.
    if isinstance(values, Tensor) and values.is_floating_point():
        values = values.double()
    array = np.asarray(values)
    if array.ndim != 2:
        if from_logits or classes is not None:
            raise InvalidArgumentError("from_logits and classes belong to predictions of shape (N, K)")
        answers = as_list(predicted)
        if any(answer is None or answer != answer for answer in answers):
            raise InvalidArgumentError("predicted labels must not be missing (None or NaN)")
        if answers and len({isinstance(value, str) for value in (*answers, *labels)}) > 1:
            raise InvalidArgumentError(
                f"predicted and target must be labels of one kind, got {answers[0]!r} and {labels[0]!r}"
            )
        return answers, None, []
    scores = array.astype(float)
    size = scores.shape[1]
    found = sorted(set(labels))
    columns = as_list(classes) if classes is not None else found if len(found) == size else list(range(size))
    if len(set(columns)) < len(columns):
        raise InvalidArgumentError(f"classes must differ from each other, got {columns}")
    if len(columns) != size or (unknown := [name for name in found if name not in columns]):
        reason = f"label {unknown[0]!r} has no column" if len(columns) == size else f"{len(columns)} classes"
        raise InvalidArgumentError(f"predicted has {size} columns: {reason}; give classes, the labels of the columns")
    if from_logits:
        broken = (np.isnan(scores) | (scores == np.inf)).any(1) | (scores == -np.inf).all(1)
        if broken.any():
            raise InvalidArgumentError(
                f"predicted has logits that are no prediction: those of row {int(broken.argmax())} are NaN, +inf, or "
                "-inf for every class"
            )
        logs = torch.log_softmax(torch.from_numpy(scores), dim=1).numpy()
    else:
        if not np.isfinite(scores).all() or (scores < 0).any() or not np.allclose(scores.sum(1), 1.0, atol=1e-3):
            raise InvalidArgumentError(
                "predicted must be probabilities, rows with sum 1; for logits say from_logits=True"
            )
        with np.errstate(divide="ignore"):
            logs = np.log(scores)
    return [columns[place] for place in scores.argmax(1)], logs, columns


def _row(
    name: Any,
    mask: NDArray[np.bool_],
    wrong: NDArray[np.bool_],
    noisy: NDArray[np.bool_] | None,
    logs: NDArray[np.float64] | None,
    columns: list[Any],
    labels: list[Any],
    train_counts: Any,
    level: float,
    bins: int,
) -> GroupRow:
    count = int(mask.sum())
    error, error_interval = _share(wrong[mask], level)
    noise, noise_interval = (math.nan, (math.nan, math.nan)) if noisy is None else _share(noisy[mask], level)
    sure = calibration = gap = nll = math.nan
    if logs is not None:
        part = logs[mask]
        largest, right = np.minimum(np.exp(part.max(1)), 1.0), ~wrong[mask]
        sure, gap = float(largest.mean()), float(largest.mean() - right.mean())
        # Bins are (l, u], as those of `obverse.labels.CalibrationError`.
        places = np.searchsorted(np.arange(1, bins) / bins, largest)
        sums = np.bincount(places, weights=right - largest, minlength=bins)
        calibration = float(np.abs(sums).sum() / count)
        own = [columns.index(label) for label, here in zip(labels, mask, strict=True) if here]
        nll = float(-part[np.arange(count), own].mean())
    trained = None if train_counts is None or name not in train_counts else int(train_counts[name])
    return GroupRow(name, count, trained, error, error_interval, noise, noise_interval, sure, calibration, gap, nll)


def _share(hits: NDArray[np.bool_], level: float) -> tuple[float, Interval]:
    low, high = wilson(hits.sum(), len(hits), level)
    return float(hits.mean()), (float(low), float(high))


def _balanced_interval(rows: tuple[GroupRow, ...], level: float) -> Interval:
    z = normal_quantile(level)
    count = np.array([row.count for row in rows], dtype=float)
    shrunk = (np.array([row.error for row in rows]) * count + z * z / 2) / (count + z * z)
    half = z * math.sqrt(float((shrunk * (1 - shrunk) / (count + z * z)).sum())) / len(rows)
    mean = float(np.mean([row.error for row in rows]))
    return max(mean - half, 0.0), min(mean + half, 1.0)


def _macro_f1(answers: list[Any], labels: list[Any]) -> float:
    scores = []
    for name in sorted(set(labels) | set(answers)):
        both = sum(a == name and b == name for a, b in zip(answers, labels, strict=True))
        scores.append(2 * both / (answers.count(name) + labels.count(name)))
    return float(np.mean(scores))


def _percent(value: float) -> str:
    return "" if math.isnan(value) else f"{100 * value:.1f}"


def _range(interval: Interval) -> str:
    return f"{_percent(interval[0])} to {_percent(interval[1])}"
