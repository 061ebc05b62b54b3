"""Crosses between NumPy and torch: the caller's kind, at least single precision, and no silent loss of numbers."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from obverse._core import arrays
from obverse.errors import InvalidArgumentError, WrongTypeError

NO_REALS = {
    "complex": np.ones(2) * 1j,
    "complex-tensor": torch.ones(2, dtype=torch.complex64),
    "text": np.array(["a"]),
    "word": "abc",
    "none": None,
    "object": object(),
    "ragged": [[1, 2], [3]],
}


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64, np.int32, np.uint8, bool])
def test_numpy_comes_back_as_numpy(dtype: Any) -> None:
    values = np.array([[1, 0], [0, 1]], dtype=dtype)
    (tensor,), back = arrays.admit(values)
    expected = {np.float16: torch.float32, np.float32: torch.float32}.get(dtype)
    assert tensor.dtype == (expected or torch.float64)
    assert isinstance(back(tensor), np.ndarray)
    assert isinstance(back(tensor.sum()), np.generic)
    np.testing.assert_array_equal(back(tensor), values)
    tensor.add_(1)
    assert values[0, 0] == 1  # the caller's array is his own


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64, torch.int64])
def test_tensors_stay_tensors_with_their_graph(dtype: torch.dtype) -> None:
    values = torch.ones(2, dtype=dtype, requires_grad=dtype.is_floating_point)
    (tensor, number, row), back = arrays.admit(values, 2, np.ones(2, dtype=np.float32))
    assert tensor.dtype == number.dtype == row.dtype
    assert tensor.dtype.itemsize >= 4
    result = back((tensor * number * row).sum())
    assert isinstance(result, torch.Tensor)
    if dtype.is_floating_point:
        result.backward()
        assert values.grad is not None
        assert values.grad.tolist() == [2.0, 2.0]


@pytest.mark.parametrize("name", NO_REALS)
def test_what_holds_no_real_numbers_is_refused(name: str) -> None:
    with pytest.raises(InvalidArgumentError, match=r"^expected .*real numbers, got [^\n]+$"):
        arrays.admit(NO_REALS[name])
    with pytest.raises(InvalidArgumentError, match=r"^expected .*real numbers, got [^\n]+$"):
        arrays.numbers(NO_REALS[name])


def test_numbers_are_float64_without_a_graph() -> None:
    for values in ([1, 2], np.array([1, 2]), torch.tensor([1.0, 2.0], requires_grad=True), torch.tensor([1, 2])):
        found = arrays.numbers(values)
        assert found.dtype == np.float64
        assert found.tolist() == [1.0, 2.0]


def test_floating_widens_and_refuses() -> None:
    for values, dtype in ((2, np.float64), ([1, 2], np.float64), (np.ones(2, np.float16), np.float32)):
        assert arrays.floating(values)[0].dtype == dtype
    assert arrays.floating(torch.ones(2, dtype=torch.bfloat16))[0].dtype == torch.float32
    assert arrays.floating(torch.ones(2, dtype=torch.int64))[0].dtype == torch.get_default_dtype()
    for values in (np.ones(2) * 1j, torch.ones(2, dtype=torch.complex64)):
        with pytest.raises(WrongTypeError, match="real numbers"):
            arrays.floating(values)


def test_wide_and_beside() -> None:
    assert arrays.wide(torch.ones(2, dtype=torch.float16)).dtype == torch.float32
    assert arrays.wide(torch.ones(2, dtype=torch.int64)).dtype == torch.float32
    kept = torch.ones(2, dtype=torch.float64)
    assert arrays.wide(kept) is kept
    assert arrays.beside(np.ones(2), torch.ones(1)).dtype == torch.float32
