"""Radix selection keeps the groups that sorting keeps, to the last tie, and needs no memory for it."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from obverse.sparsify import _order, _selection
from obverse.sparsify._selection import Bounds, keepers

DTYPES = (torch.float32, torch.float64, torch.bfloat16, torch.float16)


def sorted_keepers(magnitudes, sizes, sparsity, bounds):
    """What `keepers` keeps, by sorting all groups together: floors first, then the largest, the first among equals."""
    total = sum(values.numel() * size for values, size in zip(magnitudes, sizes, strict=True))
    allowance = total - round(sparsity * total)
    entries, kept = [], [set() for _ in magnitudes]
    for index, (values, size, bound) in enumerate(zip(magnitudes, sizes, bounds, strict=True)):
        least, most = bound.of(values.numel())
        order = values.argsort(descending=True, stable=True).tolist()
        kept[index].update(order[:least])
        allowance -= least * size
        entries += [(float(values[place]), index, place) for place in order[least:most]]
    entries.sort(key=lambda entry: -entry[0])  # stable: earlier tensors first, in each the first among equals
    for _, index, place in entries if allowance > 0 else ():
        if sizes[index] > allowance:
            if 2 * allowance > sizes[index]:
                kept[index].add(place)
            break
        kept[index].add(place)
        allowance -= sizes[index]
    masks = [torch.zeros(values.numel(), dtype=torch.bool) for values in magnitudes]
    for mask, places in zip(masks, kept, strict=True):
        mask[list(places)] = True
    return masks


@st.composite
def problems(draw):
    generator = torch.Generator().manual_seed(draw(st.integers(0, 10_000)))
    dtype = draw(st.sampled_from(DTYPES))
    magnitudes, sizes, bounds = [], [], []
    for _ in range(draw(st.integers(1, 4))):
        count = draw(st.integers(1, 60))
        steps = draw(st.sampled_from([2, 5, 1000]))  # few steps: many ties
        magnitudes.append((torch.randint(0, steps, (count,), generator=generator) / steps).to(dtype))
        sizes.append(draw(st.sampled_from([1, 1, 3, 7])))
        floor = draw(st.sampled_from([0.0, 0.1, 0.5]))
        bounds.append(Bounds(floor, max(floor, draw(st.sampled_from([1.0, 0.7])))))
    return magnitudes, sizes, draw(st.floats(0.01, 0.99)), bounds


@settings(deadline=None, max_examples=200)
@given(problem=problems())
def test_large_tensors_keep_what_sorting_keeps(problem) -> None:
    expected = sorted_keepers(*problem)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_selection, "LARGE", 0)
        patch.setattr(_order, "_CHUNK", 7)
        found = keepers(*problem)
    assert all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))


@settings(deadline=None, max_examples=100)
@given(problem=problems())
def test_small_tensors_keep_as_many_of_the_same_values(problem) -> None:
    for values, mask, expected in zip(problem[0], keepers(*problem), sorted_keepers(*problem), strict=True):
        assert torch.equal(values[mask].sort().values, values[expected].sort().values)


@settings(deadline=None, max_examples=100)
@given(problem=problems())
def test_at_most_never_keeps_more(problem) -> None:
    magnitudes, sizes, sparsity, bounds = problem
    kept = [int(mask.sum()) for mask in keepers(*problem, at_most=True)]
    total = sum(values.numel() * size for values, size in zip(magnitudes, sizes, strict=True))
    least = [bound.of(values.numel())[0] for values, bound in zip(magnitudes, bounds, strict=True)]
    paid = sum(count * size for count, size in zip(kept, sizes, strict=True))
    assert paid <= max((1 - sparsity) * total + 2e-3, sum(n * size for n, size in zip(least, sizes, strict=True)))


@pytest.mark.parametrize("dtype", DTYPES)
def test_order_statistics_of_any_numbers(dtype: torch.dtype) -> None:
    values = torch.tensor([0.0, -0.0, 1e-40, -3.0, 2.5, 2.5, -1e-3, 7.0, 65000.0, -65000.0, 1e-7], dtype=dtype)
    expected = values.sort().values
    for rank in range(1, len(values) + 1):
        found, above = _order._largest(values, len(values) - rank + 1)
        assert found == expected[rank - 1]
        assert above == int((values > found).sum())


def test_ties_beyond_a_chunk_are_the_first_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_order, "_CHUNK", 10)
    mask = _order.mask_of_largest(torch.ones(100), 34)
    assert np.flatnonzero(mask.numpy()).tolist() == list(range(34))


def test_a_tensor_beyond_the_sorted_size() -> None:
    values = torch.rand(_order.LARGE + 5, generator=torch.Generator().manual_seed(0))
    (mask,) = keepers([values], [1], 0.9, [Bounds(0.01)])
    count = values.numel() - round(0.9 * values.numel())
    assert int(mask.sum()) == count
    assert torch.equal(values[mask].sort(descending=True).values, values.topk(count).values)
    assert _order.smallest(values, 17) == float(values.kthvalue(17).values)
