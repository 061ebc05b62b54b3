"""Metrics of predictions against direct formulas, however the data comes in parts."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch
from label_cases import overconfident as data

from obverse.errors import InvalidArgumentError, UnknownNameError
from obverse.labels import (
    BrierScore,
    CalibrationError,
    NegativeLogLikelihood,
    WinningScores,
)

K = 6
Metric = Any


def softmax(logits: torch.Tensor) -> np.ndarray:
    z = logits.numpy().astype(np.float64)
    e = np.exp(z - z.max(1, keepdims=True))
    return np.asarray(e / e.sum(1, keepdims=True))


def norm_of(bins: list[tuple[np.ndarray, np.ndarray]], rows: int, norm: str) -> float:
    parts = [(len(score) / rows, abs(hit.mean() - score.mean())) for score, hit in bins if len(score)]
    if norm == "max":
        return max(gap for _, gap in parts)
    if norm == "l2":
        return math.sqrt(sum(share * gap**2 for share, gap in parts))
    return sum(share * gap for share, gap in parts)


def reference(score: np.ndarray, hit: np.ndarray, bins: int, binning: str, norm: str) -> float:
    if binning == "adaptive":
        order = np.argsort(score, kind="stable")
        groups = [(score[i], hit[i]) for i in np.array_split(order, bins)]
    else:
        groups = []
        for b in range(bins):
            inside = (score > b / bins) & (score <= (b + 1) / bins)
            if b == 0:
                inside |= score == 0
            groups.append((score[inside], hit[inside]))
    return norm_of(groups, len(score), norm)


KINDS = pytest.mark.parametrize("kind", ["top-label", "class-wise"])
BINNINGS = pytest.mark.parametrize("binning", ["uniform", "adaptive"])


@KINDS
@BINNINGS
@pytest.mark.parametrize("norm", ["l1", "l2", "max"])
@pytest.mark.parametrize(("rows", "bins"), [(400, 15), (137, 10), (7, 15), (1, 3)])
def test_calibration_error_is_the_direct_formula(kind: str, binning: str, norm: str, rows: int, bins: int) -> None:
    logits, labels = data(rows, seed=rows)
    metric = CalibrationError(bins, kind=kind, binning=binning, norm=norm, num_classes=K)
    for part, target in zip(logits.split(50), labels.split(50), strict=True):
        metric.update(part, target)
    p, y = softmax(logits), labels.numpy()
    if kind == "top-label":
        expected = reference(p.max(1), (p.argmax(1) == y).astype(float), bins, binning, norm)
    else:
        each = [reference(p[:, k], (y == k).astype(float), bins, binning, norm) for k in range(K)]
        expected = {"l1": np.mean(each), "l2": np.sqrt(np.mean(np.square(each))), "max": np.max(each)}[norm]
    assert metric.compute() == pytest.approx(expected, rel=1e-12, abs=1e-14)


def test_a_score_of_one_is_in_the_last_bin_and_edges_belong_to_the_lower_one() -> None:
    metric = CalibrationError(10, inputs="probabilities")
    metric.update(torch.tensor([[1.0, 0.0], [0.95, 0.05]], dtype=torch.float64), torch.tensor([0, 1]))
    # (1 + 0.95) / 2 against an accuracy of a half, in one bin; 0.525 where 1 is given a bin of its own.
    assert metric.compute() == pytest.approx(0.475, abs=1e-12)
    table = metric.reliability_table()
    assert [row.rows for row in table] == [0] * 9 + [2]
    assert table[-1].confidence == pytest.approx(0.975)
    assert table[-1].accuracy == 0.5
    assert math.isnan(table[0].accuracy)
    metric.reset()
    half = torch.tensor([[0.5, 0.5], [0.6, 0.4]], dtype=torch.float64)
    metric.update(half, torch.tensor([0, 0]))
    assert [row.rows for row in metric.reliability_table()] == [0] * 4 + [1, 1] + [0] * 4
    low = CalibrationError()
    low.update(torch.tensor([[40.0, -40.0]], dtype=torch.bfloat16), torch.tensor([0]))
    assert low.compute() == 0.0
    assert low.reliability_table()[-1].rows == 1


def test_the_table_of_adaptive_bins_and_of_a_class() -> None:
    logits, labels = data(101)
    table = CalibrationError(7, binning="adaptive")
    table.update(logits, labels)
    rows = table.reliability_table()
    sizes = [len(part) for part in np.array_split(np.arange(101), 7)]
    assert [row.rows for row in rows] == sizes
    for before, after in pairwise(rows):
        assert before.lower <= before.confidence <= before.upper < after.lower
    assert sum(row.rows * abs(row.accuracy - row.confidence) for row in rows) / 101 == pytest.approx(table.compute())
    wise = CalibrationError(5, kind="class-wise", num_classes=K)
    wise.update(logits, labels)
    assert sum(row.rows for row in wise.reliability_table()) == 101 * K
    p = softmax(logits)[:, 2]
    inside = (p > 0.2) & (p <= 0.4)
    row = wise.reliability_table(2)[1]
    assert (row.lower, row.upper, row.rows) == (0.2, 0.4, inside.sum())
    assert row.confidence == pytest.approx(p[inside].mean())
    assert row.accuracy == pytest.approx((labels.numpy()[inside] == 2).mean())


def test_equal_scores_are_shared_whatever_their_order() -> None:
    p = torch.tensor([[0.9, 0.1]] * 6 + [[0.6, 0.4]] * 3, dtype=torch.float64)
    labels = torch.tensor([0, 0, 0, 1, 1, 1, 0, 0, 1])
    found = []
    for order in (range(9), range(8, -1, -1)):
        metric = CalibrationError(2, binning="adaptive", inputs="probabilities")
        for i in order:
            metric.update(p[i : i + 1], labels[i : i + 1])
        found.append(metric.compute())
        table = metric.reliability_table()
    # Five rows below: the three at 0.6 and two of the six at 0.9, of which half are right.
    expected = (5 * abs((2 + 1) / 5 - (1.8 + 1.8) / 5) + 4 * abs(0.5 - 0.9)) / 9
    assert found == [pytest.approx(expected, abs=1e-12)] * 2
    assert [(row.lower, row.upper, row.rows) for row in table] == [(0.6, 0.9, 5), (0.9, 0.9, 4)]


@KINDS
@pytest.mark.parametrize("norm", ["l1", "l2", "max"])
@pytest.mark.parametrize("resolution", [15, 40, 4000])
def test_a_resolution_keeps_to_its_bound(kind: str, norm: str, resolution: int) -> None:
    options: dict[str, Any] = {"kind": kind, "binning": "adaptive", "norm": norm, "num_classes": K}
    exact, coarse = CalibrationError(15, **options), CalibrationError(15, resolution=resolution, **options)
    logits, labels = data(600, seed=3)
    exact.update(logits, labels)
    coarse.update(logits, labels)
    bound = coarse.approximation_bound()
    assert abs(exact.compute() - coarse.compute()) <= bound + 1e-12
    assert exact.approximation_bound() == 0.0
    assert bound > 0
    if resolution == 4000 and kind == "top-label":
        assert bound < 0.03


def test_brier_and_likelihood_are_the_direct_formulas() -> None:
    logits, labels = data(300)
    p, y = softmax(logits), labels.numpy()
    one_hot = np.eye(K)[y]
    brier, likelihood = BrierScore(), NegativeLogLikelihood()
    for metric in (brier, likelihood):
        assert math.isnan(metric.compute())
        metric.update(logits[:100], labels[:100])
        metric.update(logits[100:], labels[100:])
    assert brier.compute() == pytest.approx(((p - one_hot) ** 2).sum(1).mean(), rel=1e-12)
    assert likelihood.compute() == pytest.approx(-np.log(p[np.arange(300), y]).mean(), rel=1e-12)
    worst = BrierScore(inputs="probabilities")
    worst.update(torch.tensor([[1.0, 0.0]]), torch.tensor([1]))
    assert worst.compute() == 2.0
    impossible = NegativeLogLikelihood(inputs="probabilities")
    impossible.update(torch.tensor([[1.0, 0.0]]), torch.tensor([[1.0, 0.0]]))
    assert impossible.compute() == 0.0
    impossible.update(torch.tensor([[1.0, 0.0]]), torch.tensor([1]))
    assert impossible.compute() == math.inf


def test_winning_scores_of_three_groups() -> None:
    logits, labels = data(500)
    outside = data(200, seed=9, scale=0.3)[0]
    metric = WinningScores(1000)
    metric.update(logits[:250], labels[:250])
    metric.update(logits[250:], labels[250:])
    metric.update_outside(outside)
    p, y = softmax(logits), labels.numpy()
    right = p.argmax(1) == y
    expected = {"correct": p.max(1)[right], "wrong": p.max(1)[~right], "outside": softmax(outside).max(1)}
    for name, summary in metric.compute((0.0, 0.1, 0.5, 1.0), bins=10).items():
        scores = expected[name]
        assert summary.count == len(scores)
        assert summary.mean == pytest.approx(scores.mean(), rel=1e-12)
        assert summary.histogram == tuple(np.histogram(scores, bins=10, range=(0, 1))[0])
        for level, value in summary.quantiles.items():
            assert value == pytest.approx(np.quantile(scores, level, method="inverted_cdf"), abs=1e-3)
    empty = WinningScores().compute()["outside"]
    assert empty.count == 0
    assert math.isnan(empty.mean)
    assert math.isnan(empty.quantiles[0.5])
    sure = WinningScores(inputs="probabilities", ignore_index=0)
    sure.update_outside(torch.tensor([[[1.0, 0.5], [0.0, 0.5]]]))
    assert sure.compute(bins=2)["outside"].histogram == (0, 2)


METRICS: dict[str, Callable[[], Metric]] = {
    "top-label": lambda: CalibrationError(10),
    "class-wise": lambda: CalibrationError(10, kind="class-wise", num_classes=K),
    "adaptive": lambda: CalibrationError(10, binning="adaptive"),
    "adaptive, class-wise": lambda: CalibrationError(10, binning="adaptive", kind="class-wise", num_classes=K),
    "adaptive, resolution": lambda: CalibrationError(10, binning="adaptive", resolution=200),
    "brier": BrierScore,
    "likelihood": NegativeLogLikelihood,
    "scores": WinningScores,
}
EVERY = pytest.mark.parametrize("name", METRICS)


def same(one: Metric, other: Metric) -> None:
    first, second = one.compute(), other.compute()
    if not isinstance(first, float):
        first, second = first["correct"].mean, second["correct"].mean
    assert first == pytest.approx(second, rel=1e-12)
    assert not math.isnan(first)


@EVERY
def test_parts_merge_to_the_whole(name: str) -> None:
    logits, labels = data(90)
    whole, first, second = METRICS[name](), METRICS[name](), METRICS[name]()
    whole.update(logits, labels)
    first.update(logits[:20], labels[:20])
    for i in range(20, 90, 7):
        second.update(logits[i : i + 7], labels[i : i + 7])
    first.merge(second)
    first.merge(METRICS[name]())
    first.synchronize()
    same(first, whole)
    with pytest.raises(InvalidArgumentError, match="same kind"):
        first.merge(CalibrationError(3))
    same(first, whole)


@EVERY
def test_state_is_saved_and_survives_casts_and_resets(name: str) -> None:
    logits, labels = data(80)
    metric, whole = METRICS[name](), METRICS[name]()
    whole.update(logits, labels)
    metric.update(logits[:30], labels[:30])
    metric.half()
    fresh = METRICS[name]()
    fresh.update(logits[:5], labels[:5])
    fresh.load_state_dict(copy.deepcopy(metric.state_dict()))
    fresh.update(logits[30:], labels[30:])
    same(fresh, whole)
    assert fresh.state_bytes > 0
    assert not list(fresh.buffers())
    fresh.reset()
    fresh.update(logits, labels)
    same(fresh, whole)
    with pytest.raises(RuntimeError, match="Missing key"):
        fresh.load_state_dict({})


@EVERY
def test_positions_ignored_rows_and_one_hot_targets(name: str) -> None:
    logits, labels = data(60)
    plain, dense, soft = METRICS[name](), METRICS[name](), METRICS[name]()
    kept = torch.arange(60) % 4 != 1
    plain.update(logits[kept], labels[kept])
    ignoring = torch.where(kept, labels, -100)
    dense.update(logits.view(5, 3, 4, K).movedim(-1, 1).requires_grad_(), ignoring.view(5, 3, 4))
    soft.update(logits, torch.eye(K, dtype=torch.float64)[labels] * kept[:, None])
    same(dense, plain)
    same(soft, plain)
    before = copy.deepcopy(plain)
    plain.update(logits[:3], torch.full((3,), -100))
    plain.update(logits[:0], labels[:0])
    same(plain, before)


def test_a_probability_target_counts_in_part() -> None:
    metric = CalibrationError(1, inputs="probabilities")
    p = torch.tensor([[0.7, 0.3], [0.2, 0.8]], dtype=torch.float64)
    metric.update(p, p)
    assert metric.compute() == pytest.approx(0.0, abs=1e-15)
    likelihood = NegativeLogLikelihood(inputs="probabilities")
    likelihood.update(p, p)
    entropy = -(p * p.log()).sum(1).mean()
    assert likelihood.compute() == pytest.approx(float(entropy))


@EVERY
def test_bad_predictions_are_refused_and_not_counted(name: str) -> None:
    metric = METRICS[name]()
    before = metric.state_dict()["counted.total"].clone()
    logits, labels = data(4)
    bad = logits.clone()
    bad[1, 2] = math.nan
    for predictions, target in ((bad, labels), (logits, labels[:3]), (logits[0], labels[0]), (logits, labels + K)):
        with pytest.raises(InvalidArgumentError):
            metric.update(predictions, target)
    assert torch.equal(metric.state_dict()["counted.total"], before)


def test_bad_options_of_metrics_are_refused() -> None:
    for options in (
        {"bins": 0},
        {"kind": "class-wise"},
        {"resolution": 100},
        {"binning": "adaptive", "resolution": 3},
        {"ignore_index": 0.5},
    ):
        with pytest.raises(InvalidArgumentError):
            CalibrationError(**options)
    with pytest.raises(UnknownNameError, match="did you mean 'adaptive'"):
        CalibrationError(binning="adaptiv")
    with pytest.raises(UnknownNameError):
        BrierScore(inputs="scores")
    with pytest.raises(InvalidArgumentError, match="sum to one"):
        BrierScore(inputs="probabilities").update(*data(3))
    with pytest.raises(InvalidArgumentError, match="divide"):
        WinningScores(100).compute(bins=7)
    with pytest.raises(InvalidArgumentError, match="class_index"):
        CalibrationError().reliability_table(0)
    with pytest.raises(InvalidArgumentError, match="class_index"):
        CalibrationError(kind="class-wise", num_classes=3, binning="adaptive").reliability_table()
    with pytest.raises(InvalidArgumentError, match="6 classes"):
        CalibrationError(kind="class-wise", num_classes=6).update(torch.randn(2, 5), torch.zeros(2, dtype=torch.long))
    with pytest.raises(InvalidArgumentError):
        WinningScores().update_outside(torch.randn(3))


@EVERY
def test_logits_that_are_no_prediction_are_named(name: str) -> None:
    for row in ([math.nan] + [0.0] * (K - 1), [math.inf] + [0.0] * (K - 1), [-math.inf] * K):
        metric = METRICS[name]()
        logits, labels = data(8)
        logits[3] = torch.tensor(row, dtype=torch.float64)
        with pytest.raises(InvalidArgumentError, match="row 3"):
            metric.update(logits, labels)
        labels[3] = -100
        metric.update(logits, labels)
        assert math.isfinite(float(metric.counted.value.sum()))


@EVERY
@pytest.mark.parametrize("lowest", [-math.inf, torch.finfo(torch.float64).min])
def test_masked_classes_have_no_probability(name: str, lowest: float) -> None:
    logits, labels = data(50)
    labels = labels.clamp(max=K - 2)
    logits[:, K - 1] = lowest
    masked, certain = METRICS[name](), METRICS[name]()
    masked.update(logits, labels)
    certain.update(torch.cat([logits[:, : K - 1], torch.full((50, 1), -1e4, dtype=torch.float64)], 1), labels)
    torch.testing.assert_close(masked.counted.value, certain.counted.value)


def test_a_true_class_that_is_masked_has_an_infinite_likelihood() -> None:
    for lowest in (-math.inf, torch.finfo(torch.float32).min):
        score = NegativeLogLikelihood()
        score.update(torch.tensor([[0.0, lowest]]), torch.tensor([1]))
        assert score.compute() == math.inf


def test_confidences_of_exactly_zero_and_one_are_counted() -> None:
    error = CalibrationError(4, inputs="probabilities", kind="class-wise", num_classes=2)
    error.update(torch.tensor([[0.0, 1.0], [1.0, 0.0]]), torch.tensor([1, 0]))
    assert error.compute() == 0.0
    assert [row.rows for row in error.reliability_table(0)] == [1, 0, 0, 1]


def test_metrics_refuse_targets_and_states_that_do_not_fit() -> None:
    with pytest.raises(InvalidArgumentError, match=r"row 0 has the sum 0\.5"):
        BrierScore().update(torch.zeros(1, 2), torch.tensor([[0.25, 0.25]]))
    with pytest.raises(InvalidArgumentError, match="3 classes, got 2"):
        CalibrationError(num_classes=3).update(torch.zeros(1, 2), torch.tensor([0]))
    of_classes = CalibrationError(binning="adaptive", kind="class-wise", num_classes=K)
    of_classes.update(*data(20))
    other = CalibrationError(binning="adaptive")
    with pytest.raises(RuntimeError, match="more than 1 groups"):
        other.load_state_dict(of_classes.state_dict())
    assert len(other.counted.value) == 0
