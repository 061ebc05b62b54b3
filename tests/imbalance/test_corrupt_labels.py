"""Label noise: the law asked for is the law drawn, containers come back, seeds repeat."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch

from obverse.errors import InvalidArgumentError
from obverse.imbalance import corrupt_labels, corrupt_targets

LABELS = np.repeat(np.arange(4), 5000)


def test_symmetric_noise_goes_to_every_other_class_alike() -> None:
    made = corrupt_labels(LABELS, 0.3, seed=1)
    np.testing.assert_allclose(made.transition, 0.1 + 0.6 * np.eye(4))
    np.testing.assert_allclose(made.realized(), made.transition, atol=0.025)
    np.testing.assert_array_equal(made.flipped, made.labels != LABELS)
    assert made.flipped.mean() == pytest.approx(0.3, abs=0.015)


def test_pairs_flip_both_ways_and_a_mapping_one_way() -> None:
    both = corrupt_labels(LABELS, 0.4, pairs=[(1, 3)], seed=2)
    one = corrupt_labels(LABELS, 0.4, pairs={1: 3}, seed=2)
    expected = np.eye(4)
    expected[1, 1], expected[1, 3] = 0.6, 0.4
    np.testing.assert_allclose(one.transition, expected)
    expected[3, 3], expected[3, 1] = 0.6, 0.4
    np.testing.assert_allclose(both.transition, expected)
    assert not both.flipped[(LABELS == 0) | (LABELS == 2)].any()
    assert not one.flipped[LABELS != 1].any()
    np.testing.assert_allclose(both.realized(), expected, atol=0.025)


def test_a_matrix_is_drawn_as_given() -> None:
    matrix = np.array([[0.5, 0.5, 0, 0], [0, 1, 0, 0], [0.1, 0.2, 0.3, 0.4], [0, 0, 1, 0]])
    made = corrupt_labels(LABELS, matrix=matrix, seed=3)
    np.testing.assert_allclose(made.realized(), matrix, atol=0.025)
    assert (made.realized()[matrix == 0] == 0).all()


def test_groups_have_their_own_rates() -> None:
    groups = np.where(np.arange(len(LABELS)) % 2 == 0, "web", "expert")
    made = corrupt_labels(LABELS, {"web": 0.6}, groups=groups, seed=4)
    assert made.flipped[groups == "web"].mean() == pytest.approx(0.6, abs=0.02)
    assert not made.flipped[groups == "expert"].any()
    np.testing.assert_allclose(made.by_group["expert"], np.eye(4))
    np.testing.assert_allclose(made.transition, 0.1 + 0.6 * np.eye(4), atol=1e-12)
    np.testing.assert_allclose(made.by_group["web"].sum(1), 1.0)
    paired = corrupt_labels(LABELS, {"web": 1.0}, pairs=[(0, 1)], groups=groups, seed=4)
    assert made.by_group.keys() == paired.by_group.keys()
    assert paired.flipped[(groups == "web") & (LABELS < 2)].all()
    matrices = corrupt_labels(LABELS, matrix={"web": made.by_group["web"]}, groups=groups, seed=4)
    np.testing.assert_array_equal(matrices.labels, made.labels)


def test_containers_come_back_as_they_were() -> None:
    words = ["cat", "dog", "owl"] * 4
    assert corrupt_labels(words, 1.0, pairs=[("cat", "dog")]).labels == ["dog", "cat", "owl"] * 4
    tensor = torch.arange(3, dtype=torch.int32).repeat(4)
    noisy = corrupt_labels(tensor, 0.5, seed=1).labels
    assert noisy.dtype == torch.int32
    assert isinstance(noisy, torch.Tensor)
    array = np.array(words)
    assert corrupt_labels(array, 0.5, seed=1).labels.dtype == array.dtype
    assert [words.index(word) for word in corrupt_labels(words, 0.5, seed=1).labels] == noisy.tolist()
    assert corrupt_labels(tuple(words), 0.5).labels.__class__ is tuple
    empty = corrupt_labels([], 0.0, classes=["a", "b"])
    assert empty.labels == []
    assert empty.transition.shape == (2, 2)
    assert corrupt_labels([], 0.5, classes=[0, 1], groups=[]).labels == []


def test_seeds_repeat_and_generators_go_on() -> None:
    first, again, other = (corrupt_labels(LABELS, 0.5, seed=seed).labels for seed in (5, 5, 6))
    np.testing.assert_array_equal(first, again)
    assert (first != other).any()
    generator = torch.Generator().manual_seed(5)
    np.testing.assert_array_equal(corrupt_labels(LABELS, 0.5, seed=generator).labels, first)
    assert (corrupt_labels(LABELS, 0.5, seed=generator).labels != first).any()


@pytest.mark.parametrize("law", ["gaussian", "laplace", "uniform"])
def test_noise_on_numbers_has_the_spread_asked_for(law: str) -> None:
    values = np.linspace(0, 1, 20000)
    groups = np.repeat(["calm", "wild"], 10000)
    made = corrupt_targets(values, {"wild": 2.0}, groups=groups, law=law, seed=1)  # type: ignore[arg-type]
    noise = made.targets - values
    assert (noise[groups == "calm"] == 0).all()
    assert noise[groups == "wild"].std() == pytest.approx(2.0, rel=0.04)
    assert noise.mean() == pytest.approx(0.0, abs=0.06)
    assert made.scale[-1] == 2.0
    rows = corrupt_targets(torch.zeros(3), [0.0, 1.0, 2.0], law=law, seed=1)  # type: ignore[arg-type]
    assert rows.targets.dtype == torch.float32
    assert float(rows.targets[0]) == 0.0


@pytest.mark.parametrize(
    "call",
    [
        lambda: corrupt_labels(LABELS),
        lambda: corrupt_labels(LABELS, 1.5),
        lambda: corrupt_labels(LABELS, True),
        lambda: corrupt_labels(LABELS, 0.1, matrix=np.eye(4)),
        lambda: corrupt_labels(LABELS, matrix=np.eye(4), pairs=[(0, 1)]),
        lambda: corrupt_labels(LABELS, matrix=np.eye(3)),
        lambda: corrupt_labels(LABELS, matrix=np.full((4, 4), 0.3)),
        lambda: corrupt_labels(LABELS, 0.1, pairs=[(0, 9)]),
        lambda: corrupt_labels(LABELS, 0.1, pairs=[(0, 0)]),
        lambda: corrupt_labels(LABELS, 0.1, pairs=[(0, 1), (1, 2)]),
        lambda: corrupt_labels(LABELS, {"a": 0.1}),
        lambda: corrupt_labels([0, 1], {"b": 0.1}, groups=["a", "a"]),
        lambda: corrupt_labels([0, 1], 0.1, groups=["a"]),
        lambda: corrupt_labels([0, 1], 0.1, classes=[0]),
        lambda: corrupt_labels([0, None], 0.1),
        lambda: corrupt_labels("text", 0.1),
        lambda: corrupt_labels([0, 1], 0.1, seed=0.5),  # type: ignore[arg-type]
        lambda: corrupt_targets([1.0], -1.0),
        lambda: corrupt_targets(np.arange(3), 1.0),
        lambda: corrupt_targets([1.0, 2.0], [1.0]),
        lambda: corrupt_targets([1.0], 1.0, law="cauchy"),  # type: ignore[arg-type]
        lambda: corrupt_targets([1.0], {"a": 1.0}),
    ],
)
def test_bad_input(call: Callable[[], object]) -> None:
    with pytest.raises(InvalidArgumentError):
        call()
