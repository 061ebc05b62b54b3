"""Laws of masks: exact moments against enumeration of all masks, samples against moments."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch

from obverse.dropout import Bernoulli, Blocks, Channel, Empirical, Gaussian, MaskLaw, Path, Rademacher, SlidingBlock
from obverse.dropout._connect import Connect
from obverse.errors import InvalidArgumentError

RATES = np.array([0.9, 0.5, 0.7, 0.2, 1.0])
SEEN = np.array([[1.0, 0, 2, 1], [0, 1, 1, 1], [1, 1, 0, 2]])
Outcomes = Iterator[tuple[float, np.ndarray]]


def coins(count: int, keep: Any) -> Outcomes:
    chances = np.broadcast_to(keep, count)
    for kept in itertools.product((0.0, 1.0), repeat=count):
        mask = np.array(kept)
        yield float(np.prod(np.where(mask > 0, chances, 1 - chances))), mask


def sliding(shape: tuple[int, ...], block: tuple[int, ...], gamma: float) -> Outcomes:
    """All sets of seeds on the valid positions, each dropping its block."""
    positions = list(itertools.product(*(range(side - min(b, side) + 1) for side, b in zip(shape, block, strict=True))))
    for chosen in itertools.product((False, True), repeat=len(positions)):
        mask = np.ones(shape)
        for seed, position in zip(chosen, positions, strict=True):
            if seed:
                mask[tuple(slice(p, p + b) for p, b in zip(position, block, strict=True))] = 0.0
        count = sum(chosen)
        yield gamma**count * (1 - gamma) ** (len(positions) - count), mask.ravel()


def grouped(groups: list[int], keep: float) -> Outcomes:
    for chance, kept in coins(max(groups) + 1, keep):
        yield chance, kept[groups]


def two_point(deviation: float, count: int) -> Outcomes:
    for signs in itertools.product((-1.0, 1.0), repeat=count):
        yield 0.5**count, 1 + deviation * np.array(signs)


CASES: list[tuple[MaskLaw, tuple[int, ...], list[tuple[float, np.ndarray]]]] = [
    (Bernoulli(0.7), (5,), list(coins(5, 0.7))),
    (Bernoulli(RATES), (5,), list(coins(5, RATES))),
    (Bernoulli([[0.3], [0.8]]), (2, 3), list(coins(6, np.repeat([0.3, 0.8], 3)))),
    (Rademacher(0.8), (4,), list(two_point(0.5, 4))),
    (Blocks(0.6, 2), (5,), list(grouped([0, 0, 1, 1, 2], 0.6))),
    (Blocks(0.6, 2), (2, 3), list(grouped([0, 0, 1, 2, 2, 3], 0.6))),
    (Channel(0.6), (3, 2), list(grouped([0, 0, 1, 1, 2, 2], 0.6))),
    (Path(0.6), (3,), list(grouped([0, 0, 0], 0.6))),
    (Connect(0.75), (2, 3), list(coins(6, 0.75))),
    (Empirical(SEEN), (4,), [(1 / 3, row) for row in SEEN]),
    (SlidingBlock(3, gamma=0.2, dims=1), (7,), list(sliding((7,), (3,), 0.2))),
    (SlidingBlock(2, gamma=0.3), (3, 4), list(sliding((3, 4), (2, 2), 0.3))),
    (SlidingBlock((3, 2), gamma=0.1), (4, 5), list(sliding((4, 5), (3, 2), 0.1))),
    (SlidingBlock(2, gamma=0.15, dims=3), (3, 2, 3), list(sliding((3, 2, 3), (2, 2, 2), 0.15))),
    (SlidingBlock(9, gamma=0.25), (3, 2), list(sliding((3, 2), (9, 9), 0.25))),
]
names = [f"{law!r}{shape}" for law, shape, _ in CASES]


def moments(outcomes: list[tuple[float, np.ndarray]]) -> tuple[np.ndarray, np.ndarray, float]:
    chances = np.array([chance for chance, _ in outcomes])
    masks = np.array([mask for _, mask in outcomes])
    assert chances.sum() == pytest.approx(1.0)
    mean = chances @ masks
    scaled = masks / mean - 1
    return mean, (scaled * chances[:, None]).T @ scaled, float(chances @ (masks == 0).mean(1))


@pytest.mark.parametrize(("law", "shape", "outcomes"), CASES, ids=names)
def test_moments_are_those_of_all_masks(law: MaskLaw, shape: tuple[int, ...], outcomes: Any) -> None:
    mean, covariance, dropped = moments(outcomes)
    np.testing.assert_allclose(law.mean(shape).ravel(), mean, rtol=0, atol=1e-12)
    np.testing.assert_allclose(law.covariance(shape), covariance, rtol=1e-10, atol=1e-10)
    np.testing.assert_allclose(law.variance(shape).ravel(), np.diag(covariance), rtol=1e-10, atol=1e-10)
    assert law.drop_rate(shape) == pytest.approx(dropped, abs=1e-12)


@pytest.mark.parametrize(("law", "shape", "outcomes"), CASES, ids=names)
def test_quadratic_forms_and_products_need_no_dense_matrix(law: MaskLaw, shape: tuple[int, ...], outcomes: Any) -> None:
    _, covariance, _ = moments(outcomes)
    rng = np.random.default_rng(0)
    values, matrix = rng.standard_normal((4, *shape)), rng.standard_normal(covariance.shape)
    flat = values.reshape(4, -1)
    expected = np.einsum("ni,ij,nj->n", flat, covariance, flat)
    np.testing.assert_allclose(law.quadratic_form(values), expected, rtol=1e-10, atol=1e-10)
    np.testing.assert_allclose(law.hadamard(matrix, shape), covariance * matrix, rtol=1e-10, atol=1e-10)
    tensor = torch.from_numpy(values[:2]).requires_grad_()
    np.testing.assert_allclose(law.quadratic_form(tensor).detach().numpy(), expected[:2], rtol=1e-10, atol=1e-10)
    assert torch.autograd.gradcheck(law.quadratic_form, tensor)


@pytest.mark.parametrize(("law", "shape", "outcomes"), CASES, ids=names)
def test_samples_have_these_moments(law: MaskLaw, shape: tuple[int, ...], outcomes: Any) -> None:
    mean, covariance, _ = moments(outcomes)
    count = 20000
    raw = law.sample((count, *shape), torch.Generator().manual_seed(0), scale="none", dtype=torch.float64)
    flat = raw.reshape(count, -1).numpy()
    # Five standard errors.
    spread = mean**2 * np.diag(covariance)
    assert np.all(np.abs(flat.mean(0) - mean) <= 5 * np.sqrt(spread / count) + 1e-12)
    drawn = (
        law.sample((count, *shape), torch.Generator().manual_seed(1), dtype=torch.float64).reshape(count, -1).numpy()
    )
    scaled = drawn - 1
    fourth = (scaled[:, :, None] * scaled[:, None, :]).std(0)
    estimate = scaled.T @ scaled / count
    assert np.all(np.abs(estimate - covariance) <= 6 * fourth / np.sqrt(count) + 1e-9)


@pytest.mark.parametrize(("law", "shape", "outcomes"), CASES, ids=names)
def test_one_state_one_mask(law: MaskLaw, shape: tuple[int, ...], outcomes: Any) -> None:
    one = law.sample((3, *shape), torch.Generator().manual_seed(5))
    assert torch.equal(one, law.sample((3, *shape), torch.Generator().manual_seed(5)))
    assert one.dtype == torch.get_default_dtype()
    assert law.sample((0, *shape)).shape == (0, *shape)
    shared = law.sample((4, *shape), torch.Generator().manual_seed(5), share="batch")
    assert torch.equal(shared, shared[:1].expand_as(shared))
    assert law.sample((2, *shape), dtype=torch.float64).dtype == torch.float64


def test_gaussian_moments_and_rates() -> None:
    law = Gaussian(0.8)
    np.testing.assert_allclose(law.covariance((3,)), 0.25 * np.eye(3))
    assert Gaussian(variance=0.25).covariance((3,)) == pytest.approx(law.covariance((3,)))
    drawn = law.sample((200_000, 2), torch.Generator().manual_seed(0), dtype=torch.float64)
    assert drawn.mean().item() == pytest.approx(1.0, abs=5 * 0.5 / 400_000**0.5)
    assert drawn.var().item() == pytest.approx(0.25, rel=0.02)


@pytest.mark.parametrize(
    ("law", "shape"),
    [(Bernoulli(0.5), (6,)), (Blocks(0.5, 2), (6,)), (Channel(0.5), (3, 4)), (SlidingBlock(2, drop_rate=0.5), (5, 5))],
)
def test_another_rate_is_that_rate(law: Any, shape: tuple[int, ...]) -> None:
    for rate in (0.0, 0.1, 0.35):
        other = law.with_rate(rate)
        assert type(other) is type(law)
        assert other.drop_rate(shape) == pytest.approx(rate, abs=1e-9)
    assert torch.equal(law.with_rate(0.0).sample((3, *shape)), torch.ones(3, *shape))


def test_scaling_by_the_realized_share() -> None:
    law = Bernoulli(0.05)
    masks = law.sample((400, 8), torch.Generator().manual_seed(0), scale="count")
    assert torch.isfinite(masks).all()
    assert law.sample((1, 8), scale="count", share="batch").isfinite().all()
    assert (law.sample((50, 8), torch.Generator().manual_seed(0), scale="none").unique() <= 1).all()


def test_sharing_channels() -> None:
    law = SlidingBlock(2, drop_rate=0.4)
    masks = law.sample((50, 3, 6, 6), torch.Generator().manual_seed(0), share="channel")
    assert torch.equal(masks, masks[:, :1].expand_as(masks))
    values = np.random.default_rng(0).standard_normal((2, 3, 6, 6))
    flat = values.reshape(2, -1)
    dense = law.covariance((3, 6, 6), share="channel")
    np.testing.assert_allclose(law.quadratic_form(values, share="channel"), np.einsum("ni,ij,nj->n", flat, dense, flat))


@pytest.mark.parametrize("call", [
    lambda: Bernoulli(1.5),
    lambda: Bernoulli(float("nan")),
    lambda: Blocks(0.5, 0),
    lambda: SlidingBlock(3),
    lambda: SlidingBlock(3, drop_rate=0.1, gamma=0.1),
    lambda: SlidingBlock(0, drop_rate=0.1),
    lambda: SlidingBlock((3, 3), drop_rate=0.1, dims=1),
    lambda: SlidingBlock(3, drop_rate=0.1).mean((5,)),
    lambda: Bernoulli(0.0).covariance((3,)),
    lambda: Bernoulli(0.5).covariance((30_000,)),
    lambda: Bernoulli(0.5).sample((2, 3), scale="sum"),
    lambda: Bernoulli(0.5).sample((2, 3), share="rows"),
    lambda: Bernoulli(0.5).hadamard(np.ones((2, 3))),
])  # fmt: skip
def test_what_is_refused(call: Any) -> None:
    with pytest.raises(InvalidArgumentError):
        call()
