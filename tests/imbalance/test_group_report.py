"""The report by groups: closed forms, scikit-learn where they overlap, containers, table and plot."""

from __future__ import annotations

import json
import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from sklearn.metrics import balanced_accuracy_score, f1_score, log_loss

from obverse.errors import InvalidArgumentError
from obverse.imbalance import group_report

GENERATOR = np.random.default_rng(0)
TARGET = GENERATOR.integers(0, 3, 600)
LOGITS = GENERATOR.normal(size=(600, 3)) + 1.5 * np.eye(3)[TARGET]
PROBABILITIES = np.exp(LOGITS) / np.exp(LOGITS).sum(1, keepdims=True)


def test_balanced_figures_are_those_of_scikit_learn() -> None:
    report = group_report(TARGET, PROBABILITIES)
    answers = PROBABILITIES.argmax(1)
    assert report.balanced_error == pytest.approx(1 - balanced_accuracy_score(TARGET, answers))
    assert report.macro_f1 == pytest.approx(f1_score(TARGET, answers, average="macro"))
    assert report.error == pytest.approx((answers != TARGET).mean())
    assert np.average([row.nll for row in report.rows], weights=np.bincount(TARGET)) == pytest.approx(
        log_loss(TARGET, PROBABILITIES)
    )
    assert report.worst_error == max(row.error for row in report.rows)
    assert report.geometric_mean == pytest.approx(math.prod(1 - row.error for row in report.rows) ** (1 / 3))


def test_probabilities_logits_and_labels_agree() -> None:
    by_probability = group_report(TARGET, PROBABILITIES)
    by_logits = group_report(torch.from_numpy(TARGET), torch.from_numpy(LOGITS), from_logits=True)
    by_label = group_report(TARGET.tolist(), PROBABILITIES.argmax(1).tolist())
    assert [row.error for row in by_logits.rows] == [row.error for row in by_probability.rows]
    assert [row.nll for row in by_logits.rows] == pytest.approx([row.nll for row in by_probability.rows])
    assert by_label.balanced_error == by_probability.balanced_error
    assert math.isnan(by_label.rows[0].confidence)
    words = np.array(["ant", "bee", "fly"])
    named = group_report(words[TARGET].tolist(), PROBABILITIES)
    assert [row.group for row in named.rows] == ["ant", "bee", "fly"]
    assert named.balanced_error == by_probability.balanced_error
    assert group_report(torch.tensor([0, 1]), torch.eye(2).bfloat16()).error == 0.0


def test_groups_noise_and_calibration_by_hand() -> None:
    target = [0, 0, 1, 1]
    sure = [[0.9, 0.1], [0.4, 0.6], [0.2, 0.8], [0.2, 0.8]]
    report = group_report(
        target, sure, ["a", "a", "b", "b"], clean=[0, 1, 1, 1], train_counts={"a": 7, "b": 300}, bins=10
    )
    first, second = report.rows
    assert (first.error, first.noise, first.train_count) == (0.5, 0.5, 7)
    assert (second.error, second.noise, second.train_count) == (0.0, 0.0, 300)
    assert first.confidence == pytest.approx(0.75)
    assert first.gap == pytest.approx(0.25)
    assert first.calibration_error == pytest.approx((0.1 + 0.6) / 2)
    assert second.calibration_error == pytest.approx(0.2)
    assert first.nll == pytest.approx(-(math.log(0.9) + math.log(0.4)) / 2)
    assert report.worst_group == "a"
    assert report.balanced_error == 0.25


def test_intervals_cover() -> None:
    generator = np.random.default_rng(1)
    covered = []
    for _ in range(300):
        groups = np.repeat([0, 1], [40, 400])
        wrong = generator.random(440) < np.where(groups == 0, 0.5, 0.1)
        report = group_report(np.zeros(440, dtype=int), wrong.astype(int), groups)
        covered.append(
            [
                report.rows[0].error_interval[0] <= 0.5 <= report.rows[0].error_interval[1],
                report.rows[1].error_interval[0] <= 0.1 <= report.rows[1].error_interval[1],
                report.balanced_interval[0] <= 0.3 <= report.balanced_interval[1],
            ]
        )
    assert (np.mean(covered, axis=0) > 0.91).all()
    perfect = group_report([0] * 10, [0] * 10).rows[0]
    assert perfect.error_interval[0] == 0.0
    assert 0.2 < perfect.error_interval[1] < 0.3


def test_table_record_and_plot() -> None:
    report = group_report(TARGET, PROBABILITIES, clean=TARGET, train_counts={0: 5, 1: 6, 2: 7})
    text = str(report)
    assert len(text.splitlines()) == 4 + 5
    for word in ("trained on", "noise", "calibration", "worst group", "balanced error"):
        assert word in text
    json.dumps(report.to_dict())
    pytest.importorskip("matplotlib")
    ax = report.plot()
    assert [label.get_text() for label in ax.get_yticklabels()] == ["0 (5)", "1 (6)", "2 (7)"]
    assert group_report(TARGET, PROBABILITIES.argmax(1)).plot(ax) is ax


@pytest.mark.parametrize(
    "call",
    [
        lambda: group_report([], []),
        lambda: group_report([0, 1], [0]),
        lambda: group_report([0, 1], [0, 1], ["a"]),
        lambda: group_report([0, 1], [0, 1], clean=[1]),
        lambda: group_report([0, 1], [[0.2, 0.2], [0.5, 0.5]]),
        lambda: group_report([0, 1], [[3.0, -2.0], [0.5, 0.5]]),
        lambda: group_report([0, 5], [[0.5, 0.5, 0.0], [0.5, 0.5, 0.0]]),
        lambda: group_report([0, 1], [[0.5, 0.5], [0.5, 0.5]], classes=["a", "b"]),
        lambda: group_report([0, 1], [[0.5, 0.5], [0.5, 0.5]], classes=[0, 1, 2]),
        lambda: group_report([0, 1], [0, 1], from_logits=True),
        lambda: group_report([0, 1], [0, 1], confidence=1.0),
        lambda: group_report([0, 1], [0, 1], bins=0),
    ],
)
def test_bad_input(call: Callable[[], object]) -> None:
    with pytest.raises(InvalidArgumentError):
        call()
