from __future__ import annotations

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from obverse.sparsify._selection import Bounds, boundaries, keepers


@settings(deadline=None)
@given(
    shapes=st.lists(st.tuples(st.integers(1, 40), st.sampled_from([1, 3, 7])), min_size=1, max_size=4),
    sparsity=st.floats(0.05, 0.99),
    share=st.floats(0, 1),
    seed=st.integers(0, 1000),
)
def test_keepers_land_within_one_group_and_respect_floors(
    shapes: list[tuple[int, int]], sparsity: float, share: float, seed: int
) -> None:
    generator = torch.Generator().manual_seed(seed)
    magnitudes = [torch.rand(count, generator=generator) for count, _ in shapes]
    sizes = [size for _, size in shapes]
    floor = share * (1 - sparsity)
    masks = keepers(magnitudes, sizes, sparsity, [Bounds(floor)] * len(sizes))
    total = sum(count * size for count, size in shapes)
    kept = sum(int(mask.sum()) * size for mask, size in zip(masks, sizes, strict=True))
    least = sum(max(1, int(floor * count)) * size for count, size in shapes) if floor > 0 else 0
    wanted = total - round(sparsity * total)
    # Floors come first; for the rest the nearest that whole groups allow, which is half of the largest away at most.
    assert kept <= max(wanted, least) + max(sizes) / 2
    assert kept >= wanted - max(sizes) / 2
    for mask, magnitude in zip(masks, magnitudes, strict=True):
        assert int(mask.sum()) >= (max(1, int(floor * mask.numel())) if floor > 0 else 0)
        if 0 < int(mask.sum()) < mask.numel():  # within a tensor the largest are kept
            assert magnitude[mask].min() >= magnitude[~mask].max()


def test_one_boundary_is_the_order_statistic() -> None:
    values = torch.arange(1.0, 101.0)
    assert boundaries([values], [1], 0.9, [Bounds()]) == [90.0]
    assert boundaries([values], [1], 0.0, [Bounds()]) == [0.0]


def test_a_floor_lowers_the_boundary_of_a_small_tensor_and_the_others_make_up_for_it() -> None:
    large, small = torch.arange(100.0, 200.0), torch.arange(1.0, 11.0)
    first, second = boundaries([large, small], [1, 1], 0.5, [Bounds(0.2)] * 2)
    assert second == 8.0  # the smallest 8 of 10 fall, 2 are kept
    assert first == 146.0  # 55 - 8 = 47 of 100 fall
    masks = keepers([large, small], [1, 1], 0.5, [Bounds(0.2)] * 2)
    assert [int(mask.sum()) for mask in masks] == [53, 2]


def test_groups_are_counted_by_their_weights() -> None:
    # Ten groups of nine weights are heavier than ten of one: zeroing all small ones is 10 % of the weights.
    heavy, light = torch.full((10,), 5.0), torch.full((10,), 1.0)
    assert [int(mask.sum()) for mask in keepers([heavy, light], [9, 1], 0.1, [Bounds(0.0)] * 2)] == [10, 0]
    _, boundary = boundaries([heavy, light], [9, 1], 0.1, [Bounds(0.0)] * 2)
    assert boundary == 1.0


def test_equal_magnitudes_still_land_on_the_target() -> None:
    (mask,) = keepers([torch.ones(1000)], [1], 0.9, [Bounds()])
    assert int(mask.sum()) == 100


def test_a_sample_meets_a_large_target_closely() -> None:
    values = torch.rand(1_000_000, generator=torch.Generator().manual_seed(0))
    (boundary,) = boundaries([values], [1], 0.97, [Bounds()])
    assert abs(float((values <= boundary).float().mean()) - 0.97) < 2e-3


def test_a_sample_sees_every_column() -> None:
    weights = torch.rand(1024, 1024, generator=torch.Generator().manual_seed(0))
    weights[:, ::16] *= 4
    (boundary,) = boundaries([weights], [1], 0.5, [Bounds()])
    assert abs(float((weights <= boundary).float().mean()) - 0.5) < 0.01


def test_a_ceiling_raises_the_boundary_of_a_large_tensor_and_the_others_keep_more() -> None:
    large, small = torch.arange(100.0, 200.0), torch.arange(1.0, 101.0)
    bounds = [Bounds(ceiling=0.3), Bounds()]
    first, second = boundaries([large, small], [1, 1], 0.5, bounds)
    assert first == 169.0  # 30 of 100 stay
    assert second == 30.0  # and 70 of the small ones
    assert [int(mask.sum()) for mask in keepers([large, small], [1, 1], 0.5, bounds)] == [30, 70]
    assert Bounds(0.5, 0.1).of(10) == (5, 5)
