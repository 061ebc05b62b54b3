"""Dropout layers hung on a plain model: names stay, modes are followed, copies live."""

from __future__ import annotations

import copy
import io
from typing import Any

import pytest
import torch
from torch import nn

from obverse.dropout._insert import insert_dropout, inserted_dropout
from obverse.dropout._layers import DropBlock2d, Dropout, DropPath
from obverse.dropout._noise import follow
from obverse.errors import InvalidArgumentError, StateError


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 4, 3, padding=1)
        self.blocks = nn.ModuleList(nn.Sequential(nn.Conv2d(4, 4, 3, padding=1), nn.ReLU()) for _ in range(3))
        self.fc = nn.Linear(4, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.stem(x)
        for block in self.blocks:
            x = x + block(x)
        return self.fc(input=x.mean((2, 3)))


X = torch.randn(5, 3, 6, 6, generator=torch.Generator().manual_seed(0))


def test_names_stay_and_the_layers_act_in_training_alone() -> None:
    model = Net()
    plain, keys = model(X), list(model.state_dict())
    state = io.BytesIO()
    inserted = insert_dropout(
        model, {"blocks.*.1": DropBlock2d(0.3, 3), nn.Conv2d: DropPath(0.2)}, before={"fc": Dropout(0.5)}
    )
    assert sorted(inserted.layers) == [
        "blocks.0.0",
        "blocks.0.1",
        "blocks.1.0",
        "blocks.1.1",
        "blocks.2.0",
        "blocks.2.1",
        "fc:input",
        "stem",
    ]
    assert len({id(layer) for layer in inserted.layers.values()}) == 8
    assert list(model.state_dict()) == keys
    assert not any("Drop" in type(module).__name__ for module in model.modules())
    torch.save(model.state_dict(), state)
    state.seek(0)
    Net().load_state_dict(torch.load(state), strict=True)
    assert not torch.equal(model(X), model(X))
    model.eval()
    assert torch.equal(model(X), plain)
    model.train()
    model.blocks.eval()
    model.stem.eval()
    model.fc.eval()
    assert torch.equal(model(X), plain)
    model.train()
    inserted.remove()
    inserted.remove()
    assert torch.equal(model(X), plain)
    for module in model.modules():
        for table in (module._forward_hooks, module._forward_hooks_with_kwargs, module._forward_pre_hooks):
            assert not table


def test_where_layers_sit() -> None:
    model = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 2))
    x = torch.randn(2, 3)

    class Double(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return 2 * x if self.training else x

    with insert_dropout(model, {"0": Double()}):
        torch.testing.assert_close(model(x), model[1](2 * nn.functional.linear(x, model[0].weight, model[0].bias)))
    with insert_dropout(model, {}, before={"0": Double()}):
        torch.testing.assert_close(model(x), model[1](model[0].forward(2 * x)))
    lstm = nn.LSTM(3, 4)
    plain, (hidden, _) = lstm(x)
    with insert_dropout(lstm, {nn.LSTM: Double()}):
        output, (other, _) = lstm(x)
    torch.testing.assert_close(output, 2 * plain)
    assert torch.equal(hidden, other)


def test_the_first_rule_holds_and_functions_choose() -> None:
    model = Net()
    depth = iter((0.1, 0.2))

    def by_depth(name: str, module: nn.Module) -> nn.Module | None:
        return None if name.startswith("blocks.0") else DropPath(next(depth))

    inserted = insert_dropout(model, {"blocks.?": by_depth, "blocks.*": Dropout(0.9), "stem": Dropout(0.3)})
    assert inserted.layers["blocks.1"].p == 0.1
    assert inserted.layers["blocks.2"].p == 0.2
    assert "blocks.0" not in inserted.layers
    assert inserted.layers["blocks.0.0"].p == 0.9
    assert "blocks.2: DropPath(p=0.2)" in repr(inserted)


def test_layers_of_one_rule_share_their_generator_and_differ_in_their_masks() -> None:
    model = nn.Sequential(nn.Identity(), nn.Identity())
    rng = torch.Generator().manual_seed(0)
    inserted = insert_dropout(model, {nn.Identity: Dropout(0.5, generator=rng)})
    layers = list(inserted.layers.values())
    assert all(layer.generator is rng for layer in layers)
    one, other = (layer(torch.ones(50)) for layer in layers)
    assert not torch.equal(one, other)


def test_a_copy_has_layers_of_its_own_and_trains() -> None:
    model = Net()
    inserted = insert_dropout(model, {"blocks.*.1": DropBlock2d(0.3, 3, schedule=10)})
    twin = copy.deepcopy(model)
    handle = inserted_dropout(twin)
    assert list(handle.layers) == list(inserted.layers)
    for name, layer in handle.layers.items():
        assert layer is not inserted.layers[name]
    optimizer = torch.optim.SGD(twin.parameters(), 0.1)
    follow([handle], optimizer)
    before = [parameter.clone() for parameter in twin.parameters()]
    twin(X).square().sum().backward()
    optimizer.step()
    assert all(not torch.equal(a, b) for a, b in zip(before, twin.parameters(), strict=True))
    assert [layer.drop_rate for layer in handle.layers.values()] == pytest.approx([0.03] * 3)
    assert all(layer.drop_rate == 0 for layer in inserted.layers.values())
    inserted.remove()
    assert not torch.equal(twin(X), twin(X))
    handle.remove()
    assert torch.equal(twin(X), twin(X))
    with pytest.raises(StateError):
        inserted_dropout(twin)


def test_schedules_are_saved_and_taken_up() -> None:
    model = Net()
    inserted = insert_dropout(model, {nn.ReLU: DropBlock2d(0.4, 3, schedule=10), "fc": Dropout(0.1)})
    inserted.step()
    state = inserted.state_dict()
    assert sorted(state) == [f"blocks.{i}.1.steps" for i in range(3)]
    other = insert_dropout(Net(), {nn.ReLU: DropBlock2d(0.4, 3, schedule=10), "fc": Dropout(0.1)})
    other.load_state_dict(state)
    assert other.layers["blocks.0.1"].drop_rate == pytest.approx(0.04)
    with pytest.raises(InvalidArgumentError, match=r"missing \['blocks.0.1.steps'\]"):
        other.load_state_dict({key: state[key] for key in list(state)[1:]})


def test_compiled_models_follow() -> None:
    torch._dynamo.reset()
    model = Net()
    plain = model(X)
    insert_dropout(model, {nn.ReLU: DropBlock2d(0.3, 3)}, before={"fc": Dropout(0.5)})
    compiled = torch.compile(model, fullgraph=True, backend="eager")
    assert not torch.equal(compiled(X), compiled(X))
    model.eval()
    torch.testing.assert_close(compiled(X), plain)


def test_a_model_may_be_stored_whole() -> None:
    model = nn.Sequential(nn.Linear(3, 3))
    insert_dropout(model, {"0": Dropout(0.5)})
    stored = io.BytesIO()
    torch.save(model, stored)
    stored.seek(0)
    assert list(inserted_dropout(torch.load(stored, weights_only=False)).layers) == ["0"]


def test_errors_leave_the_model_as_it_was() -> None:
    model = Net()

    def fails(name: str, module: nn.Module) -> Any:
        return "layer" if name == "fc" else Dropout()

    cases: list[tuple[Any, str]] = [
        ({"block.*": Dropout()}, "blocks.0"),
        ({"fc": Dropout(), "fcc": Dropout()}, "'fc'"),
        ({nn.BatchNorm2d: Dropout()}, "there are Conv2d"),
        ({3: Dropout()}, "name pattern"),
        ({int: Dropout()}, "name pattern"),
        ({"fc": 0.5}, "needs a layer"),
        ({"fc": Dropout}, "needs a layer"),
        ({nn.Module: fails}, "which is no layer"),
        ({"fc": nn.Linear(2, 2)}, "parameters"),
        ({}, "no rules"),
    ]
    for rules, words in cases:
        with pytest.raises(InvalidArgumentError, match=words):
            insert_dropout(model, rules)
        assert not any(module._forward_hooks for module in model.modules())
    insert_dropout(model, {"fc": Dropout()})
    with pytest.raises(StateError, match="remove"):
        insert_dropout(model, {"stem": Dropout()})


def test_an_output_that_is_no_tensor() -> None:
    class Named(nn.Module):
        def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
            return {"x": x}

    model = nn.Sequential(Named())
    insert_dropout(model, {"0": Dropout()})
    with pytest.raises(InvalidArgumentError, match="returns dict"):
        model(torch.ones(2))
