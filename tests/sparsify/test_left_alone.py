"""Weights that the user freezes or writes while a Sparsifier holds them: left alone, or said in one line."""

from __future__ import annotations

import copy

import pytest
import torch
import torch.nn.functional as F
from spanning_models import Convolutional, digits
from sparsify_matrix import METHODS, STEPS, Run, start
from torch import nn

from obverse import Budget, Sparsifier, compact
from obverse.compact import parameters
from obverse.sparsify import SparsityWarning, release_zeros

X, Y = digits()
BUDGETED = sorted(METHODS)
STATED = sorted(set(METHODS) - {"random", "targeted-dropout"})


def weights(run: Run) -> tuple[torch.Tensor, torch.Tensor]:
    return run.model[0].weight, run.model[2].weight


# ---------------------------------------------------------------------- frozen after attaching
@pytest.mark.filterwarnings("ignore:no weights were set to zero:UserWarning")
@pytest.mark.parametrize(
    ("method", "aim"),
    [*((m, {"budget": Budget(0.7)}) for m in BUDGETED), *((m, {"strength": 0.05}) for m in STATED)],
)
def test_a_weight_that_is_frozen_later_is_never_touched(method: str, aim: dict) -> None:
    run = start("mlp", method, **aim)
    run.step(3)
    first, second = weights(run)
    first.requires_grad_(False)
    before = first.detach().clone()
    with pytest.warns(SparsityWarning, match=r"'0\.weight' was frozen"):
        run.step(1)
    run.step(STEPS - 4)
    run.sparsifier.finish()
    assert torch.equal(first, before)
    assert [row["name"] for row in run.sparsifier.layers()] == ["2.weight"]
    assert run.sparsifier.sparsity == pytest.approx(float((second == 0).float().mean()))
    if "budget" in aim:
        assert run.sparsifier.sparsity == pytest.approx(0.7, abs=0.5 / second.numel())
    assert sum("frozen" in line for line in run.sparsifier.notes) == 1


def test_what_is_thawed_in_time_counts_again() -> None:
    run = start("mlp", "proximal")
    first, _ = weights(run)
    run.step(2)
    first.requires_grad_(False)
    with pytest.warns(SparsityWarning, match="frozen"):
        run.step(2)
    first.requires_grad_(True)
    run.step(STEPS - 4)
    run.sparsifier.finish()
    assert [row["name"] for row in run.sparsifier.layers()] == ["0.weight", "2.weight"]
    assert run.sparsifier.sparsity == pytest.approx(0.7, abs=1e-2)


@pytest.mark.parametrize("at", [20, 29])
def test_what_is_frozen_after_the_support_keeps_its_zeros_and_its_place(at: int) -> None:
    run = start("mlp", "proximal", budget=Budget(0.7, ramp=0.3, hold=0.1))
    run.step(at)
    run.model.requires_grad_(False)
    run.sparsifier.finish()
    assert run.sparsifier.sparsity == pytest.approx(0.7, abs=1e-2)
    assert run.sparsifier.notes == []


def test_all_frozen_is_a_budget_missed_and_said() -> None:
    run = start("mlp", "proximal")
    run.step(3)
    run.model.requires_grad_(False)
    before = copy.deepcopy(run.model.state_dict())
    with pytest.warns(SparsityWarning, match="after the"), pytest.warns(SparsityWarning, match="was not met"):
        run.sparsifier.finish()
    assert all(torch.equal(before[name], tensor) for name, tensor in run.model.state_dict().items())


def test_a_resumed_run_leaves_alone_what_was_left_alone() -> None:
    run = start("mlp", "hard-concrete")
    run.step(3)
    run.model[0].weight.requires_grad_(False)
    with pytest.warns(SparsityWarning, match="frozen"):
        run.step(24)
    again = start("mlp", "hard-concrete", seed=5)
    again.model.load_state_dict(run.model.state_dict())
    again.optimizer.load_state_dict(copy.deepcopy(run.optimizer.state_dict()))
    again.sparsifier.load_state_dict(run.sparsifier.state_dict())
    assert again.sparsifier.layers() == run.sparsifier.layers()
    assert again.sparsifier.notes == run.sparsifier.notes
    again.model[0].weight.requires_grad_(False)
    for one in (run, again):
        one.step(STEPS - 27)
        one.sparsifier.finish()
    for a, b in zip(run.model.parameters(), again.model.parameters(), strict=True):
        assert torch.equal(a, b)


def test_a_family_with_a_frozen_tensor_is_left_alone_whole() -> None:
    torch.manual_seed(0)
    model = Convolutional()
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    sparsifier = Sparsifier(
        model, optimizer, groups="channels", budget=Budget(0.5), total_steps=8, example_inputs=X[:2]
    )
    model.hidden.weight.requires_grad_(False)
    before = model.hidden.weight.detach().clone()
    for step in range(8):
        F.cross_entropy(model(X[64 * step : 64 * step + 64]), Y[64 * step : 64 * step + 64]).backward()
        optimizer.step()
        if step == 0:
            with pytest.warns(SparsityWarning, match="frozen"):
                sparsifier.step()
        else:
            sparsifier.step()
        optimizer.zero_grad()
    sparsifier.finish()
    assert torch.equal(model.hidden.weight, before)
    rows = sparsifier.layers()
    assert [row["name"] for row in rows] == ["stem.weight", "one.weight"]
    gone = sum(row["weights"] - row["nonzero"] for row in rows)
    assert parameters(compact(model.eval(), X[:2])[0]) == parameters(model) - gone
    assert sparsifier.sparsity == pytest.approx(0.5, abs=0.05)


# ---------------------------------------------------------------------- written between freeze and finish
def written(run: Run, state: dict[str, torch.Tensor], how: str) -> None:
    """Give the model other weights, as callbacks do."""
    if how == "load":
        run.model.load_state_dict(state)
    elif how == "data":
        for name, parameter in run.model.named_parameters():
            parameter.data.copy_(state[name])
    else:
        torch.nn.utils.vector_to_parameters(torch.cat([t.reshape(-1) for t in state.values()]), run.model.parameters())


@pytest.mark.parametrize("how", ["load", "data", "vector"])
def test_weights_from_before_the_freeze_are_told_from_trained_ones(how: str) -> None:
    run = start("mlp", "proximal")
    run.step(10)
    early = copy.deepcopy(run.model.state_dict())
    run.step(STEPS - 10)
    average = {name: (early[name] + tensor) / 2 for name, tensor in run.model.state_dict().items()}
    written(run, average, how)
    with pytest.warns(SparsityWarning, match=r"pruned weights had been given values since the last sparsifier\.step"):
        run.sparsifier.finish()
    assert run.sparsifier.sparsity == pytest.approx(0.7, abs=1e-2)


def test_averages_of_the_fine_tune_are_no_concern() -> None:
    run = start("mlp", "proximal")
    run.step(24)
    early = copy.deepcopy(run.model.state_dict())
    run.step(STEPS - 24)
    written(run, {name: (early[name] + tensor) / 2 for name, tensor in run.model.state_dict().items()}, "load")
    run.sparsifier.finish()
    assert run.sparsifier.notes == []
    assert run.sparsifier.sparsity == pytest.approx(0.7, abs=1e-2)


@pytest.mark.parametrize("at", [5, 25])
def test_a_documented_resume_raises_no_alarm(at: int) -> None:
    run = start("mlp", "proximal")
    run.step(at)
    again = start("mlp", "proximal", seed=3)
    again.model.load_state_dict(run.model.state_dict())
    again.optimizer.load_state_dict(copy.deepcopy(run.optimizer.state_dict()))
    again.sparsifier.load_state_dict(run.sparsifier.state_dict())
    again.step(STEPS - at)
    again.sparsifier.finish()
    assert again.sparsifier.notes == []


def test_an_optimizer_step_without_the_sparsifier_raises_no_alarm() -> None:
    run = start("mlp", "proximal")
    run.step(STEPS)
    F.cross_entropy(run.model(run.inputs), run.labels).backward()
    run.optimizer.step()
    run.sparsifier.finish()
    assert run.sparsifier.notes == []
    assert run.sparsifier.sparsity == pytest.approx(0.7, abs=1e-2)


def test_an_average_written_after_the_end_is_said_where_the_sparsity_is_asked_for() -> None:
    run = start("mlp", "proximal")
    run.step(10)
    early = copy.deepcopy(run.model.state_dict())
    run.step(STEPS - 10)
    run.sparsifier.finish()
    written(run, {name: (early[name] + tensor) / 2 for name, tensor in run.model.state_dict().items()}, "load")
    with pytest.warns(SparsityWarning, match=r"since finish\(\).*write averages before finish"):
        assert run.sparsifier.sparsity < 0.69


def test_zeros_that_were_released_may_train() -> None:
    run = start("mlp", "proximal")
    run.step(STEPS)
    run.sparsifier.finish()
    release_zeros(run.model)
    F.cross_entropy(run.model(run.inputs), run.labels).backward()
    run.optimizer.step()
    assert run.sparsifier.sparsity < 0.7
    assert run.sparsifier.notes == []


# ---------------------------------------------------------------------- the zeros of a stated strength
def stated(face: object, schedule: bool, strength: float = 0.1, **options: object) -> tuple[nn.Module, Sparsifier]:
    """A regression with five relevant features of ten, with a learning rate that falls to zero or stays."""
    torch.manual_seed(0)
    x = torch.randn(400, 10, dtype=torch.float64)
    x /= x.square().mean(0).sqrt()
    y = x @ torch.tensor([[2.0, -1.5, 1.0, 0.8, 0.6, 0, 0, 0, 0, 0]], dtype=torch.float64).T
    y += 0.3 * torch.randn(400, 1, dtype=torch.float64)
    model = nn.Linear(10, 1, bias=False, dtype=torch.float64)
    with torch.no_grad():
        model.weight.copy_(torch.linalg.lstsq(x, y).solution.T)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.03)
    sparsifier = Sparsifier(model, optimizer, face=face, strength=strength, total_steps=1500, **options)
    sparsifier.join(lr=1.0 if face == "hard-concrete" else 0.03)
    for step in range(1500):
        if schedule:
            optimizer.param_groups[0]["lr"] = 0.03 * (1 - step / 1500)
        loss = F.mse_loss(model(x), y) / 2 + sparsifier.penalty()
        loss.backward()
        optimizer.step()
        sparsifier.step()
        optimizer.zero_grad()
    return model, sparsifier


@pytest.mark.parametrize(
    ("face", "schedule", "options"),
    [
        *((face, 1, {"penalty": "mcp"}) for face in ("proximal", "reweighted", "dropout", "learned-eta")),
        *((face, 0, {"penalty": "mcp"}) for face in ("proximal", "reweighted", "dropout")),
        ("dropout", 1, {"penalty": "lasso"}),
        ("variational-dropout", 1, {}),
        ("hard-concrete", 1, {}),
        ("magnitude", 1, {}),
    ],
)
def test_every_face_with_a_strength_ends_in_the_zeros_of_its_penalty(face: str, schedule: bool, options: dict) -> None:
    strength = {"variational-dropout": 0.05, "magnitude": 0.02}.get(face, 0.1)
    model, sparsifier = stated(face, schedule, strength, **options)
    sparsifier.finish()
    assert (model.weight[0] == 0).tolist() == [False] * 5 + [True] * 5
    assert sparsifier.sparsity == 0.5


def test_masks_of_zero_and_one_end_near_the_zeros() -> None:
    """Their noise never ends, so that it decides about a weight at the edge; all others are as the penalty has them."""
    model, sparsifier = stated("dropout", True, 0.1, penalty="mcp", law="bernoulli")
    sparsifier.finish()
    weight = model.weight[0]
    assert bool((weight[:5].abs() > 0.3).all())
    assert bool((weight[5:].abs() < 0.05).all())
    assert int((weight[5:] == 0).sum()) >= 3


@pytest.mark.parametrize("face", ["concrete-dropout", "standout"])
def test_a_face_whose_penalty_has_no_zeros_says_so(face: str) -> None:
    model, sparsifier = stated(face, True)
    with pytest.warns(SparsityWarning, match=f"face='{face}'.*no exact zeros at any strength; say a budget"):
        sparsifier.finish()
    assert bool((model.weight != 0).all())


def test_attaching_the_noise_of_a_strength_changes_no_weight() -> None:
    torch.manual_seed(0)
    model = nn.Linear(8, 4)
    before = model.weight.detach().clone()
    optimizer = torch.optim.SGD(model.parameters(), lr=1.0)
    sparsifier = Sparsifier(model, optimizer, "lasso", face="dropout", strength=10.0)
    sparsifier.strength = 20.0
    assert torch.equal(model.weight, before)
