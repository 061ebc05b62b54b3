"""Files: a smaller model goes into the class it came from, tied and bit for bit, or nothing changes."""

from __future__ import annotations

import copy
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from compact_models import CASES, Attention, Language, Residual, gru, perceptron, thinned
from safetensors import safe_open
from torch import Tensor, nn

from obverse.compact import load, save
from obverse.errors import InvalidArgumentError


def first(answer: Any) -> Tensor:
    return answer if isinstance(answer, Tensor) else answer[0]


@pytest.mark.parametrize("zeros", [0.0, 0.7, 0.97])
@pytest.mark.parametrize("case", CASES)
def test_a_smaller_model_goes_into_its_class(case: str, zeros: float, tmp_path: Path) -> None:
    build, smaller, inputs = CASES[case]
    torch.manual_seed(0)
    small, x = thinned(smaller(), zeros), inputs()
    file = save(small, tmp_path / "deep" / "model.safetensors")
    model = load(file, into=build().eval())
    with torch.no_grad():
        assert torch.equal(first(model(x)), first(small(x)))
    state = model.state_dict()
    assert all(torch.equal(value, small.state_dict()[name]) for name, value in state.items())
    assert repr(model) == repr(small)
    assert [p.name for p in file.parent.iterdir()] == ["model.safetensors"]
    again = save(model, tmp_path / "again.safetensors")
    assert again.read_bytes() == file.read_bytes()


@pytest.mark.parametrize("case", CASES)
def test_a_loaded_model_trains(case: str, tmp_path: Path) -> None:
    build, smaller, inputs = CASES[case]
    model = load(save(smaller(), tmp_path / "m.safetensors"), into=build())
    first(model(inputs())).square().mean().backward()
    torch.optim.SGD(model.parameters(), 0.1).step()
    copy.deepcopy(model).load_state_dict(model.state_dict(), strict=True)


def test_tied_weights_are_stored_once_and_stay_tied(tmp_path: Path) -> None:
    file = save(Language(5, 4), tmp_path / "m.safetensors")
    with safe_open(file, framework="pt") as opened:
        assert "head.weight" not in opened.keys()  # noqa: SIM118
    model = Language()
    table = model.embedding.weight
    load(file, into=model)
    assert model.head.weight is model.embedding.weight is table
    assert tuple(table.shape) == (20, 5)


def test_ties_that_differ_are_refused(tmp_path: Path) -> None:
    untied = Language()
    untied.head.weight = nn.Parameter(untied.head.weight.detach().clone())
    with pytest.raises(InvalidArgumentError, match="ties differ"):
        load(save(untied, tmp_path / "m.safetensors"), into=Language())
    with pytest.raises(InvalidArgumentError, match="ties differ"):
        load(save(Language(), tmp_path / "m.safetensors"), into=untied)


def test_parameters_stay_the_same_objects(tmp_path: Path) -> None:
    model = perceptron()
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    first(model(torch.randn(2, 784))).sum().backward()
    load(save(perceptron(9, 8), tmp_path / "m.safetensors"), into=model)
    assert all(a is b for a, b in zip(optimizer.param_groups[0]["params"], model.parameters(), strict=True))
    assert all(p.grad is None for p in model.parameters())
    model[1].weight.requires_grad_(False)
    load(save(perceptron(7, 8), tmp_path / "m.safetensors"), into=model)
    assert not model[1].weight.requires_grad


def test_a_model_without_memory_arrives_on_the_cpu(tmp_path: Path) -> None:
    small = thinned(Language(6, 5), 0.9)
    with torch.device("meta"):
        model = Language()
    model.offset = torch.zeros(20)
    load(save(small, tmp_path / "m.safetensors"), into=model.eval())
    tokens = torch.randint(20, (2, 6))
    assert model.head.weight is model.embedding.weight
    assert torch.equal(model(tokens), small(tokens))


def test_a_bias_that_was_added_is_created(tmp_path: Path) -> None:
    small = nn.Sequential(nn.Linear(4, 3), nn.Linear(3, 2))
    model = nn.Sequential(nn.Linear(4, 6), nn.Linear(6, 2, bias=False))
    load(save(small, tmp_path / "m.safetensors"), into=model)
    x = torch.randn(3, 4)
    assert torch.equal(model(x), small(x))
    assert isinstance(model[1].bias, nn.Parameter)
    with pytest.raises(InvalidArgumentError, match=r"lacks 1\.bias"):
        load(save(nn.Sequential(nn.Linear(4, 3), nn.Linear(3, 2, bias=False)), tmp_path / "n.safetensors"), into=small)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.bfloat16], ids=str)
def test_dtypes(dtype: torch.dtype, tmp_path: Path) -> None:
    small = thinned(perceptron(20, 10), 0.9).to(dtype)
    file = save(small, tmp_path / "m.safetensors")
    model = load(file, into=perceptron().to(dtype))
    assert torch.equal(model[1].weight, small[1].weight)
    with pytest.raises(InvalidArgumentError, match="convert it"):
        load(file, into=perceptron())


def test_numbers_that_are_not_finite_come_back(tmp_path: Path) -> None:
    small = thinned(perceptron(20, 10), 0.98)
    with torch.no_grad():
        small[1].weight[0, :4] = torch.tensor([-0.0, math.nan, math.inf, -math.inf])
    model = load(save(small, tmp_path / "m.safetensors"), into=perceptron())
    assert model[1].weight.view(torch.int32).equal(small[1].weight.view(torch.int32))


def test_the_smallest_layouts_are_smaller_and_the_dense_one_is_plain(tmp_path: Path) -> None:
    model = thinned(perceptron(), 0.98)
    small, dense = save(model, tmp_path / "s"), save(model, tmp_path / "d", layout="dense")
    assert small.stat().st_size < 0.05 * dense.stat().st_size
    with safe_open(dense, framework="pt") as opened:
        assert set(opened.keys()) == set(model.state_dict())
    assert torch.equal(load(dense, into=perceptron())[1].weight, load(small, into=perceptron())[1].weight)
    with pytest.raises(InvalidArgumentError, match="layout"):
        save(model, tmp_path / "x", layout="csr")
    assert not (tmp_path / "x").exists()


class Stride(nn.Sequential):
    def __init__(self, stride: int = 1, calls: int = 0) -> None:
        super().__init__(nn.Conv2d(3, 4, 3, stride), nn.Flatten())
        self.calls = calls


@pytest.mark.parametrize(
    ("small", "model", "message"),
    [
        (lambda: perceptron(301, 50), perceptron, "can only shrink"),
        (lambda: nn.Sequential(nn.Flatten(), nn.Linear(784, 10)), perceptron, "lacks"),
        (perceptron, lambda: nn.Sequential(nn.Flatten(), nn.Linear(784, 300)), "has also"),
        (lambda: Stride(2), Stride, "stride"),
        (lambda: Stride(1, 7), Stride, "can only shrink"),
        (lambda: nn.GRU(8, 4), lambda: nn.RNN(8, 16), "only shrink|attributes say|shape"),
        (lambda: Language(12, 12, 1), Language, "lacks"),
        (Residual, Attention, "fit"),
    ],
)
def test_what_does_not_fit_is_refused(small: Any, model: Any, message: str, tmp_path: Path) -> None:
    file = save(small(), tmp_path / "m.safetensors")
    target = model()
    before, looks = copy.deepcopy(target.state_dict()), repr(target)
    with pytest.raises(InvalidArgumentError, match=message):
        load(file, into=target)
    assert repr(target) == looks
    assert all(torch.equal(value, before[name]) for name, value in target.state_dict().items())


def test_what_cannot_be_saved_is_refused(tmp_path: Path) -> None:
    class Extra(nn.Linear):
        def get_extra_state(self) -> Any:
            return {"a": 1}

        def set_extra_state(self, state: Any) -> None: ...

    lazy = nn.LazyLinear(3)
    sparse = nn.Linear(3, 3)
    sparse.weight = nn.Parameter(torch.eye(3).to_sparse())
    with torch.device("meta"):
        empty = nn.Linear(2, 2)
    named = nn.Module()
    named.register_parameter("a#b", nn.Parameter(torch.ones(2)))
    for model, message in [
        (Extra(2, 2), "no plain tensor"),
        (lazy, "no shape yet"),
        (sparse, "not a plain"),
        (empty, "with values"),
        (named, "'#'"),
    ]:
        with pytest.raises(InvalidArgumentError, match=message):
            save(model, tmp_path / "m.safetensors")
    assert list(tmp_path.iterdir()) == []


def test_bad_arguments(tmp_path: Path) -> None:
    with pytest.raises(InvalidArgumentError, match="no such"):
        load(tmp_path / "none", into=gru())
    with pytest.raises(InvalidArgumentError, match="must be a module"):
        load(tmp_path / "none", into="model")  # type: ignore[arg-type]
    (tmp_path / "text").write_text("hello")
    with pytest.raises(InvalidArgumentError, match="cannot be read"):
        load(tmp_path / "text", into=gru())


def test_an_error_in_the_middle_of_the_change_undoes_it(tmp_path: Path) -> None:
    class Stubborn(nn.Linear):
        fresh = False

        def __setattr__(self, name: str, value: Any) -> None:
            if name == "out_features" and "out_features" in vars(self):
                raise RuntimeError("no")
            super().__setattr__(name, value)

    model = nn.Sequential(nn.Linear(4, 6), Stubborn(6, 5))
    before, looks = copy.deepcopy(model.state_dict()), repr(model)
    file = save(nn.Sequential(nn.Linear(4, 3), nn.Linear(3, 2)), tmp_path / "m.safetensors")
    with pytest.raises(RuntimeError, match="no"):
        load(file, into=model)
    assert repr(model) == looks
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


class Inner(nn.Module):
    """Looks its words up in a table that belongs to somebody else."""

    def __init__(self, table: nn.Embedding, width: int) -> None:
        super().__init__()
        self.table, self.hidden = table, nn.Linear(4, width)
        self.back = nn.Linear(width, 4)

    def forward(self, words: Tensor) -> Tensor:
        answer: Tensor = self.back(self.hidden(self.table(words)).relu()).mean(1)
        return answer


class SharedParts(nn.Module):
    """One table, one block and one whole branch, each with two names."""

    def __init__(self, width: int = 6) -> None:
        super().__init__()
        self.shared = nn.Embedding(10, 4)
        self.encoder = Inner(self.shared, width)
        self.decoder = nn.ModuleDict({"first": self.encoder, "norm": nn.BatchNorm1d(4)})
        self.norm = self.decoder["norm"]
        self.head = nn.Linear(4, 2)

    def forward(self, words: Tensor) -> Tensor:
        answer: Tensor = self.head(self.norm(self.encoder(words) + self.decoder["first"](words)))
        return answer


@pytest.mark.parametrize("layout", ["smallest", "dense"])
def test_modules_with_several_names_go_into_a_file_and_back(layout: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    small, x = thinned(SharedParts(3), 0.5).eval(), torch.randint(0, 10, (5, 7))
    file = save(small, tmp_path / "m.safetensors", layout=layout)
    model = load(file, into=SharedParts()).eval()
    assert torch.equal(model(x), small(x))
    assert model.encoder.hidden.out_features == 3
    assert model.decoder["first"] is model.encoder
    assert model.encoder.table is model.shared
    model.load_state_dict(small.state_dict(), strict=True)
    with torch.device("meta"):
        empty = SharedParts()
    assert torch.equal(load(file, into=empty).eval()(x), small(x))
