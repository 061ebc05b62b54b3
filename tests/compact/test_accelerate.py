"""Products: each equals the dense layer, the choice is told honestly, and the model given stays as it was."""

from __future__ import annotations

import copy
import json

import pytest
import torch
from torch import Tensor, nn

from obverse.compact import _accelerate as module
from obverse.compact import accelerate, file_bytes, latency, macs, parameters
from obverse.compact._kernel_layers import BlockLinear, CompiledLinear, FastLinear, SparseProductLinear
from obverse.compact._kernels import row_shares
from obverse.errors import InvalidArgumentError, StateError
from obverse.graph._timing import Interval, compare_times, interval_of


def layer(inputs: int, outputs: int, zeros: float, dtype: torch.dtype = torch.float32, bias: bool = True) -> nn.Linear:
    torch.manual_seed(inputs + outputs)
    dense = nn.Linear(inputs, outputs, bias, dtype=dtype)
    with torch.no_grad():
        dense.weight[torch.rand(outputs, inputs) < zeros] = 0
    return dense


def products(dense: nn.Linear) -> list[FastLinear]:
    found: list[FastLinear] = [CompiledLinear(dense), CompiledLinear(dense, parallel=True), SparseProductLinear(dense)]
    if all(size % 16 == 0 for size in dense.weight.shape):
        found.append(BlockLinear(dense, 16))
    return found


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize(("inputs", "outputs"), [(32, 48), (7, 5), (1, 1), (100, 1), (16, 16)])
def test_products_equal_the_dense_layer(inputs: int, outputs: int, bias: bool, dtype: torch.dtype) -> None:
    for zeros in (0.0, 0.9, 1.0):
        dense = layer(inputs, outputs, zeros, dtype, bias)
        for product in products(dense):
            for batch in (1, 2, 3, 5, 8, 31, 64, 127):
                x = torch.randn(batch, inputs, dtype=dtype)
                with torch.no_grad():
                    found, answer = product(x), dense(x)
                assert found.shape == answer.shape
                torch.testing.assert_close(found, answer, rtol=0, atol=2e-6 if dtype == torch.float32 else 1e-14)


def test_shapes_strides_copies_and_threads() -> None:
    dense = layer(48, 32, 0.9)
    threads = torch.get_num_threads()
    with torch.no_grad():
        for product in products(dense):
            for x in (torch.randn(48), torch.randn(2, 3, 48), torch.randn(48, 6).t(), torch.randn(4, 96)[:, ::2]):
                torch.testing.assert_close(product(x), dense(x))
            assert product(torch.randn(0, 48)).shape == (0, 32)
            again = copy.deepcopy(product)
            again.load_state_dict(product.state_dict())
            x = torch.randn(9, 48)
            assert torch.equal(again(x), product(x))
            assert "32" in repr(product)
        try:
            torch.set_num_threads(3)
            product = CompiledLinear(dense, parallel=True)
            torch.testing.assert_close(product(x), dense(x))
        finally:
            torch.set_num_threads(threads)


def test_numbers_that_are_not_finite_stay_so() -> None:
    dense = layer(20, 8, 0.5)
    x = torch.randn(5, 20)
    x[2, 3] = torch.inf
    with torch.no_grad():
        dense.weight[:, 3] = 1.0
        assert torch.equal(torch.isfinite(CompiledLinear(dense)(x)), torch.isfinite(dense(x)))


def test_products_are_for_inference() -> None:
    product = CompiledLinear(layer(8, 4, 0.5))
    with pytest.raises(StateError, match="no_grad"):
        product(torch.randn(2, 8, requires_grad=True))
    with pytest.raises(StateError, match="float32"):
        product(torch.randn(2, 8, dtype=torch.float64))


@pytest.mark.parametrize("parts", [1, 2, 3, 8])
def test_rows_are_shared_out_once(parts: int) -> None:
    import numpy as np

    for counts in ([5], [0, 0, 0], [100, 1, 1, 1], list(range(50))):
        pointers = np.concatenate([[0], np.cumsum(counts)]).astype(np.int32)
        shares = row_shares(pointers, parts)
        assert [row for a, b in shares for row in range(a, b)] == list(range(len(counts)))
        assert len(shares) <= parts


class Net(nn.Module):
    """A dense layer, a sparse one used twice, one that is never called, and attention."""

    def __init__(self) -> None:
        super().__init__()
        self.dense, self.sparse, self.unused = nn.Linear(64, 512), layer(512, 512, 0.97), layer(512, 512, 0.97)
        self.attention = nn.MultiheadAttention(512, 4, batch_first=True)
        self.drop = nn.Dropout(0.5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.sparse(self.sparse(self.dense(x)).relu())
        return self.drop(self.attention(x, x, x, need_weights=False)[0])


def test_accelerate_replaces_what_wins_and_says_so() -> None:
    model = Net()
    before, looks = copy.deepcopy(model.state_dict()), repr(model)
    x = torch.randn(16, 2, 64)
    fast, receipt = accelerate(model, x, repeats=9)
    assert repr(model) == looks
    assert model.training
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert not fast.training
    with torch.no_grad():
        torch.testing.assert_close(fast(x), model.eval()(x), rtol=1e-4, atol=1e-5)
    told = {choice.name: choice for choice in receipt.layers}
    assert set(told) == {"dense", "sparse"}
    assert told["dense"].chosen == "dense"
    assert "Fewer than" in told["dense"].reason
    for choice in receipt.layers:
        assert isinstance(fast.get_submodule(choice.name), nn.Linear) == (choice.chosen == "dense")
    assert {"dense", "dense bf16", "dynamic int8"} <= set(receipt.seconds) | set(receipt.unavailable)
    assert receipt.batch == 16
    assert receipt.dtype == "float32"
    assert json.loads(receipt.to_json()) == receipt.to_dict()
    for word in ("batch 16", "thread", "interval", "float32", "sparse: 512 x 512"):
        assert word in str(receipt)


def test_a_winner_alone_that_does_not_win_in_the_model_is_taken_back(monkeypatch: pytest.MonkeyPatch) -> None:
    gains = iter([Interval(3, 2, 4)] * 50)

    def speedups(samples: dict[str, list[float]]) -> dict[str, Interval]:
        return {name: Interval(0.9, 0.8, 1.0) if name == "accelerated" else next(gains) for name in samples}

    monkeypatch.setattr(module, "_speedups", speedups)
    model = nn.Sequential(layer(32, 32, 0.9))
    fast, receipt = accelerate(model, torch.randn(4, 32), repeats=5, rivals=False)
    assert type(fast[0]) is nn.Linear
    assert not receipt.gained
    assert "No gain: kept dense." in str(receipt)


def test_a_product_that_computes_something_else_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(CompiledLinear, "product", lambda self, x: torch.zeros(len(x), self.out_features))
    _, receipt = accelerate(nn.Sequential(layer(64, 64, 0.99)), torch.randn(64, 64), repeats=5, rivals=False)
    assert "compiled CSR" not in receipt.layers[0].speedups


def test_models_without_linear_layers_and_in_other_dtypes() -> None:
    fast, receipt = accelerate(nn.Sequential(nn.Conv1d(2, 3, 3)), torch.randn(4, 2, 8), repeats=5)
    assert "No linear layer" in str(receipt)
    assert isinstance(fast[0], nn.Conv1d)
    model = nn.Sequential(layer(64, 64, 0.9)).to(torch.bfloat16)
    _, receipt = accelerate(model, torch.randn(4, 64, dtype=torch.bfloat16), repeats=5)
    assert receipt.dtype == "bfloat16"
    assert "dynamic int8" in receipt.unavailable


def test_bad_arguments() -> None:
    model = nn.Linear(2, 2)
    for inputs in (None, "x", 3, [], torch.tensor(1.0), [1]):
        with pytest.raises(InvalidArgumentError):
            accelerate(model, inputs)
    with pytest.raises(InvalidArgumentError, match="repeats"):
        accelerate(model, torch.randn(1, 2), repeats=2)
    with pytest.raises(InvalidArgumentError, match="repeats"):
        latency(model, torch.randn(1, 2), repeats=0)


def test_intervals_hold_the_median_as_often_as_they_say() -> None:
    generator = torch.Generator().manual_seed(0)
    held = 0
    for _ in range(400):
        found = interval_of((torch.rand(21, generator=generator) ** 3).tolist())
        assert found.low <= found.median <= found.high
        held += found.low <= 0.125 <= found.high
    assert held >= 0.94 * 400
    assert interval_of([2.0]) == Interval(2.0, 2.0, 2.0)


def test_every_call_is_timed_in_every_round() -> None:
    samples = compare_times({"a": lambda: None, "b": lambda: sum(range(2000))}, 6)
    assert [len(times) for times in samples.values()] == [6, 6]
    assert sorted(samples["b"])[3] > sorted(samples["a"])[3] > 0


def test_multiply_accumulates_by_hand() -> None:
    assert macs(nn.Linear(8, 5), torch.randn(3, 8)) == 3 * 40
    assert macs(nn.Conv2d(4, 6, 3, groups=2), torch.randn(2, 4, 7, 7)) == 2 * 25 * 6 * 2 * 9
    assert macs(nn.LSTM(8, 16), torch.randn(3, 2, 8)) == 6 * (8 * 64 + 16 * 64)
    encoder = nn.TransformerEncoderLayer(16, 2, 32, batch_first=True).eval()
    assert macs(encoder, torch.randn(2, 5, 16)) == 10 * (4 * 256 + 2 * 512) + 2 * 2 * 25 * 16
    model = nn.Sequential(nn.Linear(4, 4), nn.Dropout()).train()
    assert macs(model, [torch.randn(1, 4)]) == 16
    assert model.training
    assert torch.backends.mha.get_fastpath_enabled()


def test_parameters_bytes_and_latency() -> None:
    model = nn.Sequential(nn.Embedding(10, 4), nn.Linear(4, 10, bias=False))
    model[1].weight = model[0].weight
    with torch.no_grad():
        model[0].weight[3:] = 0
    assert parameters(model) == 40
    assert parameters(model, nonzero=True) == 12
    wide = nn.Linear(500, 500)
    nn.init.zeros_(wide.weight)
    assert file_bytes(wide) < 5000 < 1_000_000 < file_bytes(wide, layout="dense")
    took = latency(wide.train(), torch.randn(2, 500), repeats=7)
    assert 0 < took.low <= took.median <= took.high
    assert wide.training
