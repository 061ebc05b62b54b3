"""DropBlock's rate, as published and exactly: the table of realized mean drops, and bounds of its quadratic form."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from obverse.dropout import DropBlock2d, SlidingBlock

# Side, block, nominal rate; published gamma, true drop with valid seeds and with seeds anywhere, exact gamma, keep at
# the center and at the corner with the published gamma.
TABLE = [
    (14, 7, 0.10, 0.00625, 0.0929, 0.2092, 0.00676, 0.736, 0.994),
    (7, 7, 0.10, 0.1000, 0.1000, 0.9300, 0.1000, 0.9, 0.9),
    (28, 7, 0.10, 0.00331, 0.0939, 0.1329, 0.00353, 0.850, 0.997),
    (14, 7, 0.25, 0.01562, 0.2095, 0.4413, 0.01940, 0.462, 0.984),
    (8, 3, 0.10, 0.01975, 0.0947, 0.1396, 0.02092, 0.836, 0.980),
]


@pytest.mark.parametrize("row", TABLE)
def test_table_of_rates(row: tuple[float, ...]) -> None:
    side, block, p, published_gamma, valid, anywhere, exact_gamma, center, corner = row
    shape = (int(side), int(side))
    published = SlidingBlock(int(block), drop_rate=p, published=True)
    assert published.seed_probability(shape) == pytest.approx(published_gamma, abs=6e-6)
    assert published.drop_rate(shape) == pytest.approx(valid, abs=6e-5)
    loose = SlidingBlock(int(block), drop_rate=p, published=True, seeds="anywhere")
    assert loose.drop_rate(shape) == pytest.approx(anywhere, abs=6e-5)
    exact = SlidingBlock(int(block), drop_rate=p)
    assert exact.seed_probability(shape) == pytest.approx(exact_gamma, abs=6e-6)
    assert exact.drop_rate(shape) == pytest.approx(p, abs=1e-12)
    kept = published.mean(shape)
    assert kept[shape[0] // 2, shape[0] // 2] == pytest.approx(center, abs=6e-4)
    assert kept[0, 0] == pytest.approx(corner, abs=6e-4)


def test_the_published_scale_is_biased_by_position_and_the_default_is_not() -> None:
    torch.manual_seed(0)
    x = torch.ones(4000, 1, 10, 10)
    count = DropBlock2d(0.2, 5, gamma="published", scale="count")(x)[:, 0].mean(0)
    exact = DropBlock2d(0.2, 5)(x)[:, 0].mean(0)
    assert count[5, 5] < 0.9 < 1.1 < count[0, 0]
    assert (exact - 1).abs().max() < 0.12
    assert exact.mean().item() == pytest.approx(1.0, abs=0.02)


@pytest.mark.parametrize(("side", "block"), [((6,), 3), ((5, 6), 2), ((3, 4, 3), 2)])
def test_first_term_is_a_lower_bound_that_gets_tight(side: tuple[int, ...], block: int) -> None:
    values = np.random.default_rng(0).standard_normal((5, *side))
    gaps = []
    for gamma in (0.3, 0.05, 1e-4):
        law = SlidingBlock(block, gamma=gamma, dims=len(side))
        exact, bound = law.quadratic_form(values), law.window_bound(values)
        assert np.all(bound <= exact * (1 + 1e-12))
        gaps.append(float((1 - bound / exact).max()))
    assert gaps[0] > gaps[1] > gaps[2]
    assert gaps[2] < 2e-3


def test_a_block_as_large_as_the_map_drops_it_whole() -> None:
    law = SlidingBlock(9, drop_rate=0.3)
    masks = law.sample((500, 1, 4, 3), torch.Generator().manual_seed(0), scale="none").reshape(500, -1)
    assert set(masks.sum(1).tolist()) == {0.0, 12.0}


def test_layers_compile() -> None:
    layer = DropBlock2d(0.3, 3)
    compiled = torch.compile(layer, backend="eager", fullgraph=True)
    out = compiled(torch.ones(4, 2, 8, 8))
    assert out.shape == (4, 2, 8, 8)
    assert (out == 0).any()
