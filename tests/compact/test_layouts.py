"""Layouts: every bit comes back, the smallest is chosen, and parts that do not fit are refused."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from obverse.compact._layout import LAYOUTS, decode, encode, layout_sizes, parts_of
from obverse.errors import InvalidArgumentError

DTYPES = (
    torch.float64,
    torch.float32,
    torch.float16,
    torch.bfloat16,
    torch.int64,
    torch.int32,
    torch.int16,
    torch.int8,
    torch.uint8,
    torch.bool,
    torch.complex64,
)


def bits(tensor: Tensor) -> bytes:
    return tensor.contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()


def sparse(shape: tuple[int, ...], zeros: float, dtype: torch.dtype, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    whole = torch.randn(shape, generator=generator, dtype=torch.float64) * 50
    whole[torch.rand(shape, generator=generator) < zeros] = 0
    return whole.to(dtype)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_every_bit_comes_back(layout: str, dtype: torch.dtype) -> None:
    for zeros in (0.0, 0.5, 0.99, 0.9999, 1.0):
        tensor = sparse((61, 1000), zeros, dtype)
        name, parts = encode(tensor, layout)
        again = decode(name, parts, tuple(tensor.shape), dtype)
        assert name == layout
        assert set(parts) == set(parts_of(layout))
        assert again.dtype == dtype
        assert again.shape == tensor.shape
        assert bits(again) == bits(tensor)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16], ids=str)
def test_numbers_that_compare_oddly_come_back(layout: str, dtype: torch.dtype) -> None:
    tiny = torch.finfo(dtype).smallest_normal / 4
    tensor = torch.tensor([0.0, -0.0, math.nan, -math.nan, math.inf, -math.inf, tiny, 0.0, 1.0], dtype=dtype)
    again = decode(layout, encode(tensor, layout)[1], (9,), dtype)
    assert bits(again) == bits(tensor)
    assert torch.signbit(again[1])


def test_a_payload_of_nan_comes_back() -> None:
    tensor = torch.tensor([0, 0x7FC12345, 0, -1], dtype=torch.int32).view(torch.float32)
    for layout in LAYOUTS:
        assert bits(decode(layout, encode(tensor, layout)[1], (4,), torch.float32)) == bits(tensor)


@pytest.mark.parametrize("gap", [0, 1, 253, 254, 255, 256, 509, 510, 511, 65534, 65535, 65536, 131070, 131071])
@pytest.mark.parametrize("layout", ["gaps8", "gaps16", "deflated"])
def test_gaps_around_the_filler(layout: str, gap: int) -> None:
    tensor = torch.zeros(2 * gap + 3)
    tensor[gap], tensor[2 * gap + 1] = 1.0, 2.0
    assert torch.equal(decode(layout, encode(tensor, layout)[1], (2 * gap + 3,), torch.float32), tensor)


@settings(deadline=None, max_examples=60)
@given(
    shape=st.lists(st.integers(0, 9), max_size=4).map(tuple),
    zeros=st.floats(0, 1),
    dtype=st.sampled_from(DTYPES),
    seed=st.integers(0, 10),
)
def test_any_tensor_comes_back(shape: tuple[int, ...], zeros: float, dtype: torch.dtype, seed: int) -> None:
    tensor = sparse(shape, zeros, dtype, seed)
    layout, parts = encode(tensor)
    assert bits(decode(layout, parts, shape, dtype)) == bits(tensor)


def test_sizes_are_those_of_the_parts_and_the_smallest_is_chosen() -> None:
    best = set()
    for zeros in (0.01, 0.3, 0.8, 0.98, 0.9995):
        tensor = sparse((300, 784), zeros, torch.float32)
        sizes = layout_sizes(tensor.numel(), tensor.reshape(-1).nonzero()[:, 0].numpy(), 4)
        for layout in LAYOUTS:
            parts = encode(tensor, layout)[1]
            taken = sum(part.numel() * part.element_size() for part in parts.values())
            assert sizes.setdefault(layout, taken) == taken
        chosen = encode(tensor)[0]
        assert sizes[chosen] == min(sizes.values())
        best.add(chosen)
    assert best == {"dense", "bitmask", "deflated", "gaps16"}
    # Gaps that all occur alike have nothing to deflate.
    gaps = torch.randperm(200 * 254, generator=torch.Generator().manual_seed(0)) % 254 + 1
    even = torch.zeros(int(gaps.sum()), dtype=torch.int8)
    even[gaps.cumsum(0) - 1] = 1
    assert encode(even)[0] in ("gaps8", "bitmask")


def test_a_stream_that_unpacks_to_too_much_is_refused() -> None:
    import zlib

    bomb = torch.frombuffer(bytearray(zlib.compress(b"\0" * 10_000_000)), dtype=torch.uint8)
    cut = encode(torch.eye(30), "deflated")[1]["gaps"][:-5]
    for stream in (bomb, cut, torch.cat([encode(torch.eye(30), "deflated")[1]["gaps"], torch.zeros(1).byte()])):
        with pytest.raises(InvalidArgumentError, match="gaps"):
            decode("deflated", {"gaps": stream, "values": torch.ones(30)}, (30, 30), torch.float32)


def test_views_and_unaligned_memory() -> None:
    base = sparse((40, 60), 0.9, torch.float32)
    for view in (base.t(), base[1:, 3:], base[:, ::2], base.expand(2, 40, 60)):
        layout, parts = encode(view)
        assert torch.equal(decode(layout, parts, tuple(view.shape), torch.float32), view)


def test_what_has_no_words_is_dense() -> None:
    assert encode(torch.zeros(3, 4, dtype=torch.complex128))[0] == "dense"
    assert encode(torch.zeros(0, 4))[0] == "dense"
    with pytest.raises(InvalidArgumentError, match="dense only"):
        encode(torch.zeros(0, 4), "bitmask")
    with pytest.raises(InvalidArgumentError, match="unknown layout"):
        encode(torch.ones(3), "huffman")


@pytest.mark.parametrize(
    ("layout", "change", "message"),
    [
        ("bitmask", {"mask": torch.zeros(3, dtype=torch.uint8)}, "mask"),
        ("bitmask", {"mask": torch.full((13,), 255, dtype=torch.uint8)}, "past the last"),
        ("bitmask", {"values": torch.ones(2)}, "values for"),
        ("bitmask", {"values": torch.ones(3, dtype=torch.float64)}, "values are"),
        ("gaps8", {"gaps": torch.full((5,), 254, dtype=torch.uint8)}, "past the last"),
        ("gaps8", {"gaps": torch.zeros(3, dtype=torch.int16)}, "gaps are"),
        ("gaps8", {"values": torch.ones(3, 1)}, "values are"),
        ("deflated", {"gaps": torch.zeros(4, dtype=torch.uint8)}, "zlib"),
        ("gaps8", {"more": torch.ones(3)}, "parts"),
    ],
)
def test_parts_that_do_not_fit_are_refused(layout: str, change: dict[str, Tensor], message: str) -> None:
    tensor = torch.zeros(10, 10)
    tensor[2, 3] = tensor[5, 5] = tensor[9, 9] = 1
    parts = {**encode(tensor, layout)[1], **change}
    with pytest.raises(InvalidArgumentError, match=message):
        decode(layout, parts, (10, 10), torch.float32)


def test_an_unknown_layout_is_refused() -> None:
    with pytest.raises(InvalidArgumentError, match="unknown layout"):
        decode("zip", {}, (1,), torch.float32)
    with pytest.raises(InvalidArgumentError, match=r"not torch\.float32 of"):
        decode("dense", {"": torch.ones(2)}, (1,), torch.float32)
