"""Imbalanced data: profiles, order of noise and choice, any container, seeds."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch.utils.data import TensorDataset

from obverse.errors import InvalidArgumentError
from obverse.imbalance import CorruptedTargets, make_imbalanced

LABELS = np.tile(np.arange(10), 500)
ROWS = np.arange(5000)


def test_an_exponential_profile() -> None:
    made = make_imbalanced(ROWS, LABELS, ratio=0.01)
    assert list(made.counts.values()) == [round(500 * 0.01 ** (k / 9)) for k in range(10)]
    assert made.counts == dict(Counter(made.labels.tolist()))
    np.testing.assert_array_equal(made.data, made.indices)
    np.testing.assert_array_equal(made.labels, LABELS[made.indices])
    assert (np.diff(made.indices) > 0).all()
    assert made.noise is None
    assert made.transition is None
    assert not made.flipped.any()
    turned = make_imbalanced(ROWS, LABELS, ratio=0.01, ranking=list(range(9, -1, -1)))
    assert turned.counts[9] == 500
    assert turned.counts[0] == 5


def test_a_step_with_noise_first_counts_noisy_labels() -> None:
    made = make_imbalanced(
        ROWS,
        LABELS,
        ratio=0.1,
        kind="step",
        rare=[1, 9, 3, 5],
        noise={"rate": 0.4, "pairs": [(1, 9), (3, 5)]},
        seed=3,
    )
    assert made.order == "noise-first"
    assert made.transition is not None
    assert made.transition[1, 9] == pytest.approx(0.4)
    counts = Counter(made.labels.tolist())
    assert {name: counts[name] for name in made.counts} == made.counts
    assert {made.counts[k] for k in (1, 3, 5, 9)} == {50}
    assert {made.counts[k] for k in (0, 2, 4, 6, 7, 8)} == {500}
    np.testing.assert_array_equal(made.clean, LABELS[made.indices])
    assert 0.25 < made.flipped[np.isin(made.labels, [1, 3, 5, 9])].mean() < 0.55
    assert not made.flipped[~np.isin(made.labels, [1, 3, 5, 9])].any()


def test_imbalance_first_counts_true_labels() -> None:
    made = make_imbalanced(
        ROWS, LABELS, ratio=0.1, kind="step", noise={"rate": 0.5}, order="imbalance-first", largest=200
    )
    true = Counter(made.clean.tolist())
    assert {name: true[name] for name in made.counts} == made.counts
    assert made.counts[0] == 200
    assert made.counts[9] == 20
    assert made.flipped.mean() == pytest.approx(0.5, abs=0.06)


def test_any_container_is_selected_alike() -> None:
    words = [f"document {row}" for row in ROWS]
    tensors = torch.arange(5000)
    made = make_imbalanced(
        {"text": words, "pixels": (tensors, TensorDataset(tensors))}, LABELS.tolist(), ratio=0.1, seed=7
    )
    rows = made.indices.tolist()
    assert made.data["text"] == [words[row] for row in rows]
    assert made.data["pixels"][0].tolist() == rows
    assert [int(item[0]) for item in made.data["pixels"][1]] == rows
    assert isinstance(made.labels, list)
    named = make_imbalanced(None, tuple(np.array(list("abcdefghij"))[LABELS].tolist()), ratio=0.1, seed=7)
    assert named.indices.tolist() == rows
    assert isinstance(named.labels, tuple)
    assert named.data is None


def test_numbers_are_balanced_by_bins() -> None:
    values = np.linspace(0.0, 1.0, 5000)
    bins = np.minimum((values * 5).astype(int), 4)
    for order in ("noise-first", "imbalance-first"):
        made = make_imbalanced(
            values[:, None],
            values,
            ratio=0.2,
            by=bins,
            noise={"scale": {4: 0.3}, "groups": bins},
            order=order,  # type: ignore[arg-type]
        )
        assert isinstance(made.noise, CorruptedTargets)
        assert made.counts == dict(Counter(bins[made.indices].tolist()))
        np.testing.assert_array_equal(made.clean, values[made.indices])
        np.testing.assert_array_equal(made.flipped, bins[made.indices] == 4)


def test_seeds() -> None:
    first, again, other = (make_imbalanced(None, LABELS, ratio=0.1, seed=seed).indices for seed in (0, 0, 1))
    np.testing.assert_array_equal(first, again)
    assert first.tolist() != other.tolist()


def test_the_largest_class_is_as_large_as_the_rows_allow() -> None:
    labels = [0] * 100 + [1] * 3
    assert make_imbalanced(None, labels, ratio=0.1).counts == {0: 34, 1: 3}
    assert make_imbalanced(None, labels, ratio=1e-6).counts == {0: 100, 1: 1}
    assert make_imbalanced(None, [], ratio=0.5).counts == {}


@pytest.mark.parametrize(
    "call",
    [
        lambda: make_imbalanced(None, LABELS, ratio=0.0),
        lambda: make_imbalanced(None, LABELS, ratio=2.0),
        lambda: make_imbalanced(None, LABELS, ratio=0.1, kind="pareto"),  # type: ignore[arg-type]
        lambda: make_imbalanced(None, LABELS, ratio=0.1, order="both"),  # type: ignore[arg-type]
        lambda: make_imbalanced(None, LABELS, ratio=0.1, ranking=[0, 1]),
        lambda: make_imbalanced(None, LABELS, ratio=0.1, rare=[1]),
        lambda: make_imbalanced(None, LABELS, ratio=0.1, kind="step", rare=[77]),
        lambda: make_imbalanced(None, LABELS, ratio=0.1, kind="step", rare=list(range(10))),
        lambda: make_imbalanced(None, LABELS, ratio=0.1, largest=501),
        lambda: make_imbalanced(None, LABELS, ratio=0.1, largest=0),
        lambda: make_imbalanced([1, 2], LABELS, ratio=0.1),
        lambda: make_imbalanced((ROWS, [1]), LABELS, ratio=0.1),
        lambda: make_imbalanced(None, LABELS, ratio=0.1, noise={"rates": 0.1}),
        lambda: make_imbalanced(None, LABELS, ratio=0.1, by=[1]),
    ],
)
def test_bad_input(call: Callable[[], object]) -> None:
    with pytest.raises(InvalidArgumentError):
        call()
