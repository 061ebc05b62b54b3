"""Whole runs of the Sparsifier on the embedded digits: budgets, resume, plain models, errors."""

from __future__ import annotations

import copy
import io
import math
from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from sklearn.datasets import load_digits
from torch import nn

from obverse import Budget, Rule, Sparsifier
from obverse.errors import InvalidArgumentError, NonFiniteError, StateError, UnknownNameError
from obverse.penalties import LogSum, catalogue
from obverse.sparsify import release_zeros

FACES = ["proximal", "reweighted", "dropout"]
OPTIMIZERS: dict[str, Callable[[Any], torch.optim.Optimizer]] = {
    "sgd": lambda p: torch.optim.SGD(p, lr=0.1),
    "momentum": lambda p: torch.optim.SGD(p, lr=0.02, momentum=0.9, weight_decay=1e-4),
    "adam": lambda p: torch.optim.Adam(p, lr=2e-3),
    "adamw": lambda p: torch.optim.AdamW(p, lr=2e-3),
    "rmsprop": lambda p: torch.optim.RMSprop(p, lr=1e-3),
    "adagrad": lambda p: torch.optim.Adagrad(p, lr=1e-2),
}


@pytest.fixture(scope="module")
def digits() -> tuple[torch.Tensor, torch.Tensor]:
    features, labels = load_digits(return_X_y=True)
    return torch.tensor(features / 16, dtype=torch.float32), torch.tensor(labels)


def mlp(seed: int = 0) -> nn.Sequential:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(64, 48), nn.ReLU(), nn.Linear(48, 32), nn.ReLU(), nn.Linear(32, 10))


def convnet(seed: int = 0) -> nn.Sequential:
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.Unflatten(1, (1, 8, 8)),
        nn.Conv2d(1, 8, 3),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(288, 10),
    )


def batches(digits: tuple[torch.Tensor, torch.Tensor], steps: int, seed: int = 0) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.randint(len(digits[1]), (100,), generator=generator) for _ in range(steps)]


def run(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    sparsifier: Sparsifier,
    digits: tuple[torch.Tensor, torch.Tensor],
    indices: list[torch.Tensor],
) -> None:
    for index in indices:
        loss = F.cross_entropy(model(digits[0][index]), digits[1][index]) + sparsifier.penalty()
        loss.backward()
        optimizer.step()
        sparsifier.step()
        optimizer.zero_grad()


def accuracy(model: nn.Module, digits: tuple[torch.Tensor, torch.Tensor]) -> float:
    return float((model.eval()(digits[0]).argmax(1) == digits[1]).float().mean())


# ---------------------------------------------------------------------- budgets
@pytest.mark.parametrize("face", FACES)
@pytest.mark.parametrize("name", sorted(catalogue()))
def test_every_penalty_and_face_lands_on_the_budget_and_learns(
    name: str, face: str, digits: tuple[torch.Tensor, torch.Tensor]
) -> None:
    model = mlp()
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    sparsifier = Sparsifier(model, optimizer, penalty=name, face=face, budget=0.8, total_steps=150)
    run(model, optimizer, sparsifier, digits, batches(digits, 150))
    sparsifier.finish()
    assert abs(sparsifier.sparsity - 0.8) < 1e-3
    assert accuracy(model, digits) > 0.8


@pytest.mark.parametrize("face", FACES)
@pytest.mark.parametrize("kind", OPTIMIZERS)
def test_every_optimizer_lands_on_the_budget(kind: str, face: str, digits: tuple[torch.Tensor, torch.Tensor]) -> None:
    model = mlp()
    optimizer = OPTIMIZERS[kind](model.parameters())
    sparsifier = Sparsifier(model, optimizer, LogSum(0.1), face=face, budget=0.9, total_steps=120)
    run(model, optimizer, sparsifier, digits, batches(digits, 120))
    sparsifier.finish()
    assert abs(sparsifier.sparsity - 0.9) < 1e-3


def test_an_optimizer_with_matrix_updates_keeps_its_zeros(digits: tuple[torch.Tensor, torch.Tensor]) -> None:
    model = mlp()
    matrices = [p for p in model.parameters() if p.ndim == 2]
    optimizer = torch.optim.Muon(matrices, lr=2e-3)
    sparsifier = Sparsifier(model, optimizer, budget=0.9, total_steps=100)
    run(model, optimizer, sparsifier, digits, batches(digits, 100))
    assert abs(sparsifier.sparsity - 0.9) < 1e-3
    sparsifier.finish()
    assert abs(sparsifier.sparsity - 0.9) < 1e-3


@pytest.mark.parametrize("groups", ["units", "filters"])
@pytest.mark.parametrize("face", FACES)
def test_groups_fall_whole(groups: str, face: str, digits: tuple[torch.Tensor, torch.Tensor]) -> None:
    model = convnet() if groups == "filters" else mlp()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
    sparsifier = Sparsifier(model, optimizer, face=face, groups=groups, budget=0.5, total_steps=120)
    run(model, optimizer, sparsifier, digits, batches(digits, 120))
    sparsifier.finish()
    for layer in sparsifier.layers():
        rows = dict(model.named_parameters())[layer["name"]].flatten(1)
        zeros = (rows == 0).float().mean(1)
        assert set(zeros.tolist()) <= {0.0, 1.0}
    names = [layer["name"] for layer in sparsifier.layers()]
    assert names == (["1.weight"] if groups == "filters" else ["0.weight", "2.weight"])  # not the output layer
    assert abs(sparsifier.sparsity - 0.5) < 0.06
    assert accuracy(model, digits) > 0.7


def test_groups_of_inputs_fall_whole(digits: tuple[torch.Tensor, torch.Tensor]) -> None:
    model = mlp()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
    sparsifier = Sparsifier(model, optimizer, groups="inputs", budget=0.5, total_steps=120)
    run(model, optimizer, sparsifier, digits, batches(digits, 120))
    sparsifier.finish()
    parameters = dict(model.named_parameters())
    for layer in sparsifier.layers():
        assert set((parameters[layer["name"]] == 0).float().mean(0).tolist()) <= {0.0, 1.0}
    # The output layer too: its columns are hidden units.
    assert [layer["name"] for layer in sparsifier.layers()] == ["0.weight", "2.weight", "4.weight"]
    assert abs(sparsifier.sparsity - 0.5) < 0.06
    assert accuracy(model, digits) > 0.7
    grouped = nn.Conv2d(4, 4, 3, groups=2)
    with pytest.raises(InvalidArgumentError, match="grouped convolution"):
        Sparsifier(grouped, torch.optim.SGD(grouped.parameters(), lr=0.1), groups="inputs", strength=0.1)


def test_rules_have_budgets_of_their_own(digits: tuple[torch.Tensor, torch.Tensor]) -> None:
    model = mlp()
    optimizer = torch.optim.Adam(model.parameters())
    rules = [Rule("0.weight", budget=0.95), Rule("4.weight", skip=True)]
    sparsifier = Sparsifier(model, optimizer, budget=0.5, total_steps=60, rules=rules)
    run(model, optimizer, sparsifier, digits, batches(digits, 60))
    sparsifier.finish()
    found = {layer["name"]: 1 - layer["nonzero"] / layer["weights"] for layer in sparsifier.layers()}
    assert found == {"0.weight": pytest.approx(0.95, abs=1e-3), "2.weight": pytest.approx(0.5, abs=1e-3)}
    assert bool((model[4].weight != 0).all())


def test_a_floor_keeps_every_layer_alive(digits: tuple[torch.Tensor, torch.Tensor]) -> None:
    model = mlp()
    with torch.no_grad():
        model[2].weight.mul_(1e-4)  # a layer whose weights are all far below the others'
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-4)
    sparsifier = Sparsifier(model, optimizer, budget=Budget(0.95, floor=0.04), total_steps=20)
    run(model, optimizer, sparsifier, digits, batches(digits, 20))
    sparsifier.finish()
    kept = {layer["name"]: layer["nonzero"] / layer["weights"] for layer in sparsifier.layers()}
    assert kept["2.weight"] >= 0.039
    assert abs(sparsifier.sparsity - 0.95) < 1e-3


def test_the_trajectory_follows_the_target(digits: tuple[torch.Tensor, torch.Tensor]) -> None:
    model = mlp()
    optimizer = torch.optim.Adam(model.parameters())
    sparsifier = Sparsifier(model, optimizer, budget=Budget(0.9, warmup=0.1), total_steps=100)
    phases = []
    for index in batches(digits, 100):
        run(model, optimizer, sparsifier, digits, [index])
        phases.append(sparsifier.phase)
    assert list(dict.fromkeys(phases)) == ["warmup", "ramp", "hold", "finetune"]
    for point in sparsifier.trajectory:
        assert abs(point["sparsity"] - point["target"]) < 5e-3
    assert sparsifier.target == 0.9


def test_a_long_trajectory_stays_small() -> None:
    model = nn.Linear(4, 4)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.0)
    sparsifier = Sparsifier(model, optimizer, strength=0.0)
    for _ in range(5000):
        optimizer.step()
        sparsifier.step()
    assert 400 < len(sparsifier.trajectory) <= 1001
    steps = [point["step"] for point in sparsifier.trajectory]
    assert steps == sorted(steps)
    assert steps[-1] > 4900


def test_cut_short_it_still_meets_the_budget_and_says_so(digits: tuple[torch.Tensor, torch.Tensor]) -> None:
    model = mlp()
    optimizer = torch.optim.Adam(model.parameters())
    sparsifier = Sparsifier(model, optimizer, budget=0.9, total_steps=1000)
    run(model, optimizer, sparsifier, digits, batches(digits, 10))
    with pytest.warns(UserWarning, match="before the fine-tune"):
        sparsifier.finish()
    assert abs(sparsifier.sparsity - 0.9) < 1e-3


# ---------------------------------------------------------------------- strengths
def test_the_largest_strength_empties_the_model_and_a_little_less_does_not() -> None:
    torch.manual_seed(0)
    x = torch.randn(300, 5, dtype=torch.float64)
    y = x @ torch.tensor([[1.0], [0.5], [0.0], [-0.3], [0.2]], dtype=torch.float64)
    ends = {}
    for share in (1.001, 0.9):
        model = nn.Linear(5, 1, bias=False, dtype=torch.float64)
        nn.init.zeros_(model.weight)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        sparsifier = Sparsifier(model, optimizer, "lasso", strength=0.0)
        (F.mse_loss(model(x), y) / 2).backward()
        sparsifier.strength = share * sparsifier.largest_strength()
        for _ in range(200):
            optimizer.zero_grad()
            (F.mse_loss(model(x), y) / 2).backward()
            optimizer.step()
            sparsifier.step()
        ends[share] = int((model.weight != 0).sum())
    assert ends == {1.001: 0, 0.9: 1}


def test_the_largest_strength_knows_its_limits() -> None:
    model = nn.Linear(3, 2)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    sparsifier = Sparsifier(model, optimizer, "standout", strength=0.1)
    with pytest.raises(StateError, match="backward"):
        sparsifier.largest_strength()
    model(torch.ones(1, 3)).sum().backward()
    assert sparsifier.largest_strength() == math.inf
    del sparsifier
    assert Sparsifier(model, optimizer, "l0.5", strength=0.1).largest_strength() == 0.0


@pytest.mark.parametrize("groups", ["weights", "units"])
@pytest.mark.parametrize("kind", ["sgd", "adam"])
def test_a_stated_strength_makes_exact_zeros_in_a_network(
    kind: str, groups: str, digits: tuple[torch.Tensor, torch.Tensor]
) -> None:
    sparsity = {}
    for strength in (1e-4, 1e-2):
        model = mlp()
        optimizer = OPTIMIZERS[kind](model.parameters())
        sparsifier = Sparsifier(model, optimizer, LogSum(1.0), groups=groups, strength=strength)
        run(model, optimizer, sparsifier, digits, batches(digits, 200))
        sparsifier.finish()
        sparsity[strength] = sparsifier.sparsity
    assert sparsity[1e-4] < sparsity[1e-2]
    assert sparsity[1e-2] > 0.2


def test_a_schedule_of_strengths_and_every_few_steps(digits: tuple[torch.Tensor, torch.Tensor]) -> None:
    model = mlp()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    sparsifier = Sparsifier(model, optimizer, "lasso", strength=0.0, every=5)
    for index in batches(digits, 100):
        sparsifier.strength += 1e-4
        run(model, optimizer, sparsifier, digits, [index])
    assert sparsifier.sparsity > 0.1


# ---------------------------------------------------------------------- plain models
@pytest.mark.parametrize("face", FACES)
def test_the_model_stays_plain_and_copies_are_free(face: str, digits: tuple[torch.Tensor, torch.Tensor]) -> None:
    model, fresh = mlp(), mlp(1)
    optimizer = torch.optim.Adam(model.parameters())
    sparsifier = Sparsifier(model, optimizer, face=face, budget=0.9, total_steps=60)
    run(model, optimizer, sparsifier, digits, batches(digits, 30))
    fresh.load_state_dict(model.state_dict(), strict=True)
    copied = copy.deepcopy(model)
    other = torch.optim.Adam(copied.parameters())
    second = Sparsifier(copied, other, face=face, budget=0.5, total_steps=10)  # the copy is held by nobody
    run(copied, other, second, digits, batches(digits, 10))
    second.finish()
    run(model, optimizer, sparsifier, digits, batches(digits, 30))
    sparsifier.finish()
    assert abs(second.sparsity - 0.5) < 1e-3
    assert abs(sparsifier.sparsity - 0.9) < 1e-3
    assert type(model) is nn.Sequential
    buffer = io.BytesIO()
    torch.save(model.state_dict(), buffer)
    buffer.seek(0)
    fresh.load_state_dict(torch.load(buffer, weights_only=True), strict=True)


@pytest.mark.parametrize("kind", OPTIMIZERS)
def test_zeros_stay_zero_while_fine_tuning_with_old_and_new_optimizers(
    kind: str, digits: tuple[torch.Tensor, torch.Tensor]
) -> None:
    model = mlp()
    optimizer = OPTIMIZERS[kind](model.parameters())
    sparsifier = Sparsifier(model, optimizer, budget=0.9, total_steps=40)
    run(model, optimizer, sparsifier, digits, batches(digits, 40))
    sparsifier.finish()
    pruned = {name: p == 0 for name, p in model.named_parameters() if p.ndim == 2}
    before = copy.deepcopy(model.state_dict())
    for tuner in (optimizer, torch.optim.AdamW(model.parameters(), weight_decay=0.1)):
        for index in batches(digits, 10, seed=1):
            tuner.zero_grad()
            F.cross_entropy(model(digits[0][index]), digits[1][index]).backward()
            tuner.step()
        for name, zero in pruned.items():
            weights = dict(model.named_parameters())[name]
            assert bool((weights[zero] == 0).all())
            assert not torch.equal(weights[~zero], before[name][~zero])
    release_zeros(model)
    F.cross_entropy(model(digits[0][:100]), digits[1][:100]).backward()
    tuner.step()
    assert any(bool((dict(model.named_parameters())[name][zero] != 0).any()) for name, zero in pruned.items())


def test_tied_weights_stay_tied_and_are_counted_once() -> None:
    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embedding = nn.Embedding(20, 8)
            self.head = nn.Linear(8, 20, bias=False)
            self.head.weight = self.embedding.weight

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.head(self.embedding(x))

    for face in FACES:
        model = Tied()
        optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
        sparsifier = Sparsifier(model, optimizer, face=face, budget=0.75, total_steps=30)
        for _ in range(30):
            F.cross_entropy(model(torch.arange(20)), torch.arange(20).roll(1)).backward()
            optimizer.step()
            sparsifier.step()
            optimizer.zero_grad()
        sparsifier.finish()
        assert model.head.weight is model.embedding.weight
        assert [layer["weights"] for layer in sparsifier.layers()] == [160]
        assert abs(sparsifier.sparsity - 0.75) < 0.01


def test_recurrent_and_attention_weights_are_regularized() -> None:
    torch.manual_seed(0)
    model = nn.ModuleDict({"lstm": nn.LSTM(4, 6), "attention": nn.MultiheadAttention(6, 2), "norm": nn.LayerNorm(6)})
    optimizer = torch.optim.Adam(model.parameters())
    sparsifier = Sparsifier(model, optimizer, budget=0.5, total_steps=10)
    names = [layer["name"] for layer in sparsifier.layers()]
    assert names == [
        "lstm.weight_ih_l0",
        "lstm.weight_hh_l0",
        "attention.in_proj_weight",
        "attention.out_proj.weight",
    ]
    for _ in range(10):
        hidden = model["lstm"](torch.randn(5, 3, 4))[0]
        model["norm"](model["attention"](hidden, hidden, hidden)[0]).square().sum().backward()
        optimizer.step()
        sparsifier.step()
        optimizer.zero_grad()
    sparsifier.finish()
    assert abs(sparsifier.sparsity - 0.5) < 0.01


# ---------------------------------------------------------------------- checkpoints
@pytest.mark.parametrize("face", FACES)
@pytest.mark.parametrize("aim", [{"budget": 0.9, "total_steps": 60}, {"strength": 1e-3}])
@pytest.mark.parametrize("at", [7, 50])
def test_a_resumed_run_is_bit_equal_to_an_uninterrupted_one(
    face: str, aim: dict[str, Any], at: int, digits: tuple[torch.Tensor, torch.Tensor]
) -> None:
    def start() -> tuple[nn.Module, torch.optim.Optimizer, Sparsifier]:
        model = mlp()
        optimizer = torch.optim.Adam(model.parameters(), lr=2e-3)
        return model, optimizer, Sparsifier(model, optimizer, LogSum(0.1), face=face, seed=3, **aim)

    indices = batches(digits, 60)
    model, optimizer, sparsifier = start()
    run(model, optimizer, sparsifier, digits, indices[:at])
    buffer = io.BytesIO()
    parts = {"model": model, "optimizer": optimizer, "sparsifier": sparsifier}
    torch.save({name: part.state_dict() for name, part in parts.items()}, buffer)
    run(model, optimizer, sparsifier, digits, indices[at:])
    sparsifier.finish()

    resumed_model, resumed_optimizer, resumed = start()
    buffer.seek(0)
    state = torch.load(buffer, weights_only=True)
    resumed_model.load_state_dict(state["model"])
    resumed_optimizer.load_state_dict(state["optimizer"])
    resumed.load_state_dict(state["sparsifier"])
    run(resumed_model, resumed_optimizer, resumed, digits, indices[at:])
    resumed.finish()
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, resumed_model.state_dict()[name]), name
    assert resumed.trajectory == sparsifier.trajectory


def test_a_state_of_something_else_is_refused_and_changes_nothing() -> None:
    def make(width: int = 4, face: str = "proximal", **aim: Any) -> Sparsifier:
        model = nn.Linear(3, width)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        keep.append((model, optimizer))
        return Sparsifier(model, optimizer, face=face, **(aim or {"strength": 0.1}))

    keep: list[Any] = []
    target = make(face="dropout")
    before = target.state_dict()
    for state in (
        {},
        {**before, "version": 99},
        make().state_dict(),
        make(width=5, face="dropout").state_dict(),
        {**before, "memory": {"else": torch.zeros(4, 3)}},
    ):
        with pytest.raises(InvalidArgumentError):
            target.load_state_dict(state)
    after = target.state_dict()
    assert torch.equal(after["memory"]["weight"], before["memory"]["weight"])
    assert after["step"] == before["step"]


# ---------------------------------------------------------------------- refusals
def test_a_second_sparsifier_on_the_same_parameter_is_refused_until_the_first_is_finished_or_gone() -> None:
    model = nn.Linear(3, 4)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    first = Sparsifier(model, optimizer, strength=0.1)
    with pytest.raises(StateError, match="another Sparsifier"):
        Sparsifier(model, optimizer, strength=0.1)
    first.finish()
    second = Sparsifier(model, optimizer, strength=0.1)
    del second
    Sparsifier(model, optimizer, strength=0.1)


def test_a_finished_sparsifier_is_refused() -> None:
    model = nn.Linear(3, 4)
    sparsifier = Sparsifier(model, torch.optim.SGD(model.parameters(), lr=0.1), strength=0.1)
    sparsifier.finish()
    with pytest.raises(StateError, match="finished"):
        sparsifier.step()
    with pytest.raises(StateError, match="finished"):
        sparsifier.finish()


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_weight_that_is_not_finite_stops_the_run_with_its_name_and_step(value: float) -> None:
    model = mlp()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    sparsifier = Sparsifier(model, optimizer, strength=0.1)
    optimizer.step()
    sparsifier.step()
    with torch.no_grad():
        model[2].weight[3, 4] = value
    optimizer.step()
    with pytest.raises(NonFiniteError, match=r"'2\.weight'.*step 2"):
        sparsifier.step()


def test_a_parameter_the_optimizer_does_not_train_is_refused() -> None:
    model = mlp()
    optimizer = torch.optim.SGD(model[0].parameters(), lr=0.1)
    with pytest.raises(InvalidArgumentError, match=r"'2\.weight'.*optimizer does not train"):
        Sparsifier(model, optimizer, strength=0.1)
    Sparsifier(model, optimizer, strength=0.1, rules=[Rule(["2", "4"], skip=True)])


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({}, InvalidArgumentError, "budget"),
        ({"budget": 0.9}, InvalidArgumentError, "total_steps"),
        ({"budget": 1.5, "total_steps": 10}, InvalidArgumentError, "between 0 and 1"),
        ({"budget": 0.9, "strength": 1.0, "total_steps": 10}, InvalidArgumentError, "not both"),
        ({"strength": -1.0}, InvalidArgumentError, "at least 0"),
        ({"strength": math.nan}, InvalidArgumentError, "at least 0"),
        ({"strength": 1.0, "face": "proximall"}, UnknownNameError, "proximal"),
        ({"strength": 1.0, "groups": "unit"}, UnknownNameError, "units"),
        ({"strength": 1.0, "groups": "filters"}, InvalidArgumentError, "filters"),
        ({"strength": 1.0, "penalty": "logsum"}, UnknownNameError, "log-sum"),
        ({"strength": 1.0, "law": "cauchy"}, UnknownNameError, "gaussian"),
        ({"strength": 1.0, "every": 0}, InvalidArgumentError, "every"),
        ({"budget": 0.9, "total_steps": 0}, InvalidArgumentError, "total_steps"),
    ],
)
def test_bad_arguments_are_refused_and_leave_the_model_free(
    arguments: dict[str, Any], error: type[Exception], message: str
) -> None:
    model = mlp()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    before = copy.deepcopy(model.state_dict())
    with pytest.raises(error, match=message):
        Sparsifier(model, optimizer, **arguments)
    assert not any(module._forward_hooks for module in model.modules())
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())
    Sparsifier(model, optimizer, strength=0.1)
    with pytest.raises(InvalidArgumentError, match="torch optimizer"):
        Sparsifier(mlp(), object(), strength=0.1)


def test_a_compiled_model_trains(digits: tuple[torch.Tensor, torch.Tensor]) -> None:
    model = mlp()
    optimizer = torch.optim.Adam(model.parameters())
    sparsifier = Sparsifier(model, optimizer, budget=0.8, total_steps=20)
    compiled = torch.compile(model, backend="eager", fullgraph=True)
    run(compiled, optimizer, sparsifier, digits, batches(digits, 20))
    sparsifier.finish()
    assert abs(sparsifier.sparsity - 0.8) < 1e-3
    assert np.isfinite(accuracy(model, digits))


# ---------------------------------------------------------------------- what happens around a loop
def test_weights_moved_or_loaded_after_the_freeze_still_end_at_the_budget(
    digits: tuple[torch.Tensor, torch.Tensor],
) -> None:
    for change in ("step", "load"):
        model = mlp()
        optimizer = torch.optim.Adam(model.parameters())
        dense = copy.deepcopy(model.state_dict())
        sparsifier = Sparsifier(model, optimizer, budget=0.9, total_steps=30)
        run(model, optimizer, sparsifier, digits, batches(digits, 30))
        if change == "step":
            F.cross_entropy(model(digits[0]), digits[1]).backward()
            optimizer.step()
        else:
            model.load_state_dict(dense)
        with pytest.warns(UserWarning, match="given values since") if change == "load" else nullcontext():
            sparsifier.finish()
        assert abs(sparsifier.sparsity - 0.9) < 1e-3


def test_the_floor_holds_on_the_way_too(digits: tuple[torch.Tensor, torch.Tensor]) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(64, 256), nn.ReLU(), nn.Linear(256, 16), nn.ReLU(), nn.Linear(16, 10))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    sparsifier = Sparsifier(model, optimizer, groups="units", budget=0.8, total_steps=100, every=1)
    for index in batches(digits, 100):
        run(model, optimizer, sparsifier, digits, [index])
        assert all(layer["nonzero"] > 0 for layer in sparsifier.layers())
    sparsifier.finish()


def test_half_precision_counts_its_weights(digits: tuple[torch.Tensor, torch.Tensor]) -> None:
    model = nn.Sequential(nn.Linear(784, 300), nn.Linear(300, 300), nn.Linear(300, 10)).half()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.0)
    sparsifier = Sparsifier(model, optimizer, groups="units", budget=Budget(0.8, ramp=0.1, hold=0.8), total_steps=50)
    for _ in range(20):
        optimizer.step()
        sparsifier.step()
    assert abs(sparsifier.sparsity - 0.8) < 0.01


def test_skipped_optimizer_steps_are_not_counted() -> None:
    model = nn.Linear(8, 4)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    sparsifier = Sparsifier(model, optimizer, "lasso", strength=0.1)
    for micro in range(1, 41):
        model(torch.randn(4, 8)).square().mean().div(8).backward()
        if micro % 8 == 0:
            optimizer.step()
            optimizer.zero_grad()
        before = model.weight.detach().clone()
        sparsifier.step()
        if micro % 8:
            assert torch.equal(model.weight, before)
    assert sparsifier.state_dict()["step"] == 5


def test_an_optimizer_that_never_steps_is_found_out() -> None:
    model = nn.Linear(8, 4)
    sparsifier = Sparsifier(model, torch.optim.SGD(model.parameters(), lr=0.1), "lasso", strength=0.1)
    for _ in range(999):
        sparsifier.step()
    with pytest.raises(StateError, match="never stepped"):
        sparsifier.step()


def test_the_output_layer_is_left_alone_whatever_else_is(digits: tuple[torch.Tensor, torch.Tensor]) -> None:
    def regularized(model: nn.Module, **options: Any) -> list[str]:
        optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.1)
        return [layer["name"] for layer in Sparsifier(model, optimizer, strength=0.1, **options).layers()]

    assert regularized(mlp(), groups="units", rules=[Rule("4", skip=True)]) == ["0.weight", "2.weight"]
    frozen = mlp()
    frozen[4].requires_grad_(False)
    assert regularized(frozen, groups="units") == ["0.weight", "2.weight"]
    convolutional = nn.Sequential(nn.Conv2d(3, 16, 3), nn.ReLU(), nn.Conv2d(16, 10, 1))
    assert regularized(convolutional, groups="filters") == ["0.weight"]
    assert regularized(mlp(), groups="units", rules=[Rule("4.weight", strength=0.1)])[-1] == "4.weight"


def test_a_tensor_the_optimizer_has_not_trained_is_compared_in_the_unit_of_the_others() -> None:
    torch.manual_seed(0)
    model = nn.ModuleDict({"used": nn.Linear(32, 32), "unused": nn.Linear(32, 32)})
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    sparsifier = Sparsifier(model, optimizer, budget=0.5, total_steps=20)
    for _ in range(20):
        model["used"](torch.randn(16, 32)).square().mean().backward()
        optimizer.step()
        sparsifier.step()
        optimizer.zero_grad()
    kept = {layer["name"]: layer["nonzero"] / layer["weights"] for layer in sparsifier.layers()}
    assert kept["used.weight"] > 0.2


@pytest.mark.parametrize("kind", ["Adafactor", "Muon", "Rprop"])
def test_an_optimizer_without_a_metric_takes_a_budget_and_keeps_its_zeros(kind: str) -> None:
    model = nn.Linear(16, 16, bias=False)
    optimizer = getattr(torch.optim, kind)(model.parameters(), lr=1e-3)
    sparsifier = Sparsifier(model, optimizer, budget=0.75, total_steps=10)
    for _ in range(10):
        model(torch.randn(4, 16)).square().sum().backward()
        optimizer.step()
        sparsifier.step()
        optimizer.zero_grad()
    sparsifier.finish()
    for _ in range(3):  # zeros stay, also under updates of whole matrices
        model(torch.randn(4, 16)).square().sum().backward()
        optimizer.step()
    assert abs(float((model.weight == 0).float().mean()) - 0.75) < 0.01


def test_a_budget_that_whole_groups_cannot_reach_is_said() -> None:
    model = nn.Sequential(nn.Linear(4, 3), nn.Linear(3, 2))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.0)
    sparsifier = Sparsifier(model, optimizer, groups="units", budget=0.9, total_steps=1)
    optimizer.step()
    with pytest.warns(UserWarning, match=r"0\.667 is the nearest"):
        sparsifier.step()


def test_a_finished_model_moves_to_another_precision() -> None:
    model = nn.Linear(8, 4)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    sparsifier = Sparsifier(model, optimizer, budget=0.5, total_steps=1)
    optimizer.step()
    sparsifier.step()
    sparsifier.finish()
    model.to(torch.bfloat16)
    model(torch.randn(2, 8, dtype=torch.bfloat16)).sum().backward()
    assert bool((model.weight.grad[model.weight == 0] == 0).all())


def test_a_finished_state_is_taken_up_with_its_zeros(digits: tuple[torch.Tensor, torch.Tensor]) -> None:
    def start() -> tuple[nn.Module, torch.optim.Optimizer, Sparsifier]:
        model = mlp()
        optimizer = torch.optim.Adam(model.parameters())
        return model, optimizer, Sparsifier(model, optimizer, budget=0.9, total_steps=20)

    model, optimizer, sparsifier = start()
    run(model, optimizer, sparsifier, digits, batches(digits, 20))
    sparsifier.finish()
    again, other, resumed = start()
    again.load_state_dict(model.state_dict())
    resumed.load_state_dict(sparsifier.state_dict())
    F.cross_entropy(again(digits[0]), digits[1]).backward()
    other.step()
    assert abs(resumed.sparsity - 0.9) < 1e-3
    Sparsifier(again, other, budget=0.95, total_steps=20)  # the parameters are free


def test_a_state_of_another_aim_is_refused() -> None:
    model = nn.Linear(8, 4)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    state = Sparsifier(model, optimizer, budget=0.5, total_steps=10).state_dict()
    other = Sparsifier(model, optimizer, "mcp", budget=0.9, total_steps=10)
    with pytest.raises(InvalidArgumentError, match="budget"):
        other.load_state_dict(state)


def test_no_hook_outlives_its_sparsifier() -> None:
    model = nn.ModuleDict({"linear": nn.Linear(4, 4), "lstm": nn.LSTM(4, 4)})
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with pytest.raises(InvalidArgumentError, match="budget"):
        Sparsifier(model, optimizer, face="targeted-dropout", strength=0.1)
    assert not model["linear"]._forward_hooks
    for _ in range(3):
        sparsifier = Sparsifier(model, optimizer, face="dropout", strength=0.1)
        assert len(model["linear"]._forward_hooks) == 1
        del sparsifier
    assert not model["linear"]._forward_hooks
    assert not model["lstm"]._forward_pre_hooks
    assert not optimizer._optimizer_step_post_hooks


def test_not_a_number_is_found_in_gradients_and_in_what_is_not_regularized() -> None:
    model = nn.Linear(4, 4)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    sparsifier = Sparsifier(model, optimizer, "lasso", strength=0.1)
    model(torch.full((2, 4), math.nan)).sum().backward()
    with pytest.raises(NonFiniteError, match="gradient of 'weight'"):
        sparsifier.largest_strength()
    with torch.no_grad():
        model.bias[0] = math.nan
    optimizer.zero_grad()
    optimizer.step()
    with pytest.raises(NonFiniteError, match="'bias'"):
        sparsifier.step()


@pytest.mark.parametrize(
    "arguments", [{"budget": "0.9"}, {"strength": "1"}, {"strength": 1.0, "seed": "x"}, {"budget": True}]
)
def test_arguments_of_a_wrong_kind_are_refused(arguments: dict[str, Any]) -> None:
    model = nn.Linear(4, 4)
    with pytest.raises(InvalidArgumentError):
        Sparsifier(model, torch.optim.SGD(model.parameters(), lr=0.1), total_steps=10, **arguments)
    assert Sparsifier(model, torch.optim.SGD(model.parameters(), lr=0.1), budget=np.float32(0.5), total_steps=9)
