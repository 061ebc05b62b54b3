"""What goes wrong around learned faces, and what must not go wrong with it."""

from __future__ import annotations

import copy
import gc
import math
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from sparsify_matrix import STEPS, start
from torch import nn
from torch.utils.checkpoint import checkpoint

from obverse import Budget, Rule, Sparsifier
from obverse.errors import InvalidArgumentError, StateError
from obverse.penalties import LogSum
from obverse.sparsify import HardConcreteGates, LearnedEta
from obverse.sparsify.faces._learned_eta import _dual


def _model() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 16), nn.ReLU(), nn.Linear(16, 4))


# ---------------------------------------------------------------------- learned eta
@pytest.mark.parametrize("curvature", ["optimizer", "gradients", "none"])
@pytest.mark.parametrize("optimizer", ["adam", "sgd"])
def test_at_a_budget_learned_eta_shrinks_like_the_proximal_face(optimizer: str, curvature: str) -> None:
    norms = []
    for method in ("proximal", "learned-eta"):
        run = start("mlp", method, optimizer, penalty="log-sum", curvature=curvature, every=1)
        run.step(int(0.6 * STEPS))
        norms.append(sum(float(m.weights.norm()) for m in run.sparsifier._members))
    assert norms[1] == pytest.approx(norms[0], rel=0.02)


def test_eta_is_pulled_back_from_where_the_dual_is_infinite() -> None:
    value, rise = _dual(LogSum(0.1), torch.tensor([1.0]))
    assert 0 < float(rise) < 1e3
    from obverse.penalties import Ridge

    _, rise = _dual(Ridge(), torch.tensor([0.5, 2.0]))
    assert float(rise[0]) == 0
    assert float(rise[1]) > 1e20
    assert bool(value.isfinite().all())


def test_what_is_learned_stays_where_it_has_a_gradient() -> None:
    run = start("mlp", "proximal", penalty="mcp", face=LearnedEta(), strength=0.01)
    run.step(STEPS)
    for parameter in run.sparsifier.parameters():
        assert float(parameter.detach().abs().max()) <= 20
        assert bool(torch.autograd.grad(run.sparsifier.penalty(), parameter)[0].ne(0).any())


# ---------------------------------------------------------------------- precision
@pytest.mark.parametrize("face", ["variational-dropout", "hard-concrete", "concrete-dropout", "learned-eta", "dropout"])
def test_half_precision_weights_learn_in_single(face: str) -> None:
    model = _model().bfloat16()
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    sparsifier = Sparsifier(model, optimizer, face=face, budget=0.5, total_steps=40)
    sparsifier.join(lr=1e-3)
    before = [parameter.detach().clone() for parameter in sparsifier.parameters()]
    for _ in range(25):
        scores = model(torch.randn(8, 8).bfloat16())
        (F.cross_entropy(scores, torch.randint(0, 4, (8,))) + sparsifier.penalty()).backward()
        optimizer.step()
        sparsifier.step()
        optimizer.zero_grad()
    assert all(p.dtype == torch.float32 for p in sparsifier.parameters())
    assert all(not torch.equal(a, b) for a, b in zip(before, sparsifier.parameters(), strict=True))
    assert {p.dtype for p in model.parameters()} == {torch.bfloat16}


def test_half_precision_activations_do_not_overflow() -> None:
    layer = nn.Linear(4, 4).half()
    optimizer = torch.optim.SGD(layer.parameters(), lr=1e-3)
    sparsifier = Sparsifier(layer, optimizer, face="dropout", strength=0.01)
    assert bool(layer(torch.full((2, 4), 300.0).half()).isfinite().all())
    assert sparsifier is not None


# ---------------------------------------------------------------------- gates
def test_a_frozen_gate_leaves_what_is_kept_alive() -> None:
    run = start("mlp", "hard-concrete", budget=Budget(0.5))
    run.step(5)
    for parameter in run.sparsifier.parameters():
        parameter.detach().fill_(-6.0)
    run.sparsifier._pools[0]._freeze(run.sparsifier._face)
    assert abs(run.sparsifier.sparsity - 0.5) < 0.01


# ---------------------------------------------------------------------- refusals
@pytest.mark.parametrize("face", ["targeted-dropout", "random"])
def test_faces_that_need_a_budget_say_so_first(face: str) -> None:
    model = _model()
    optimizer = torch.optim.Adam(model.parameters())
    with pytest.raises(InvalidArgumentError, match="aims at a budget"):
        Sparsifier(model, optimizer, face=face, strength=0.1)
    sparsifier = Sparsifier(model, optimizer, face="variational-dropout", strength=0.1)  # nothing was left behind
    sparsifier.join()
    groups = [len(group["params"]) for group in optimizer.param_groups]
    with pytest.raises(InvalidArgumentError, match="aims at a budget"):
        sparsifier.switch(face)
    assert [len(group["params"]) for group in optimizer.param_groups] == groups
    optimizer.step()
    sparsifier.step()


def test_a_rule_may_not_give_a_face_another_penalty() -> None:
    model = _model()
    with pytest.raises(InvalidArgumentError, match="penalty of its own"):
        Sparsifier(
            model,
            torch.optim.Adam(model.parameters()),
            face="hard-concrete",
            budget=0.5,
            total_steps=10,
            rules=[Rule("0", penalty="lasso")],
        )


def test_checkpointed_activations_are_refused_where_noise_is_drawn() -> None:
    model = _model()
    sparsifier = Sparsifier(model, torch.optim.Adam(model.parameters()), face="dropout", strength=0.1)
    loss = checkpoint(model, torch.randn(4, 8), use_reentrant=False).sum()
    with pytest.raises(StateError, match="activation checkpointing"):
        loss.backward()
    assert sparsifier is not None


def test_optimizers_without_the_scale_of_learned_parameters() -> None:
    model = _model()
    optimizer = torch.optim.Rprop(model.parameters())
    sparsifier = Sparsifier(model, optimizer, face="variational-dropout", budget=0.5, total_steps=20)
    with pytest.raises(InvalidArgumentError, match="optimizer of their own"):
        sparsifier.join()
    own = torch.optim.Adam(sparsifier.parameters(), lr=1e-2)
    sparsifier.join(own)
    assert len(own.param_groups) == len(optimizer.param_groups) == 1


# ---------------------------------------------------------------------- what is left behind
def test_a_dropped_sparsifier_takes_its_parameters_along() -> None:
    model = _model()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    sparsifier = Sparsifier(model, optimizer, face="variational-dropout", budget=0.5, total_steps=20)
    sparsifier.join()
    del sparsifier
    gc.collect()
    assert [len(group["params"]) for group in optimizer.param_groups] == [6, 0]
    assert not optimizer._optimizer_step_pre_hooks
    assert not optimizer._optimizer_step_post_hooks


def test_a_snapshot_carries_no_hooks() -> None:
    run = start("transformer", "hard-concrete", curvature="gradients")
    run.step(3)
    copied = run.sparsifier.snapshot()
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in copied.modules())
    torch.testing.assert_close(copied.eval()(run.inputs), run.model.eval()(run.inputs), rtol=1e-4, atol=1e-5)


def test_the_penalty_may_be_added_to_in_place() -> None:
    run = start("mlp", "proximal")
    for _ in range(3):
        loss = run.sparsifier.penalty()
        loss += F.cross_entropy(run.model(run.inputs), run.labels)
        loss.backward()
        run.optimizer.step()
        run.sparsifier.step()


# ---------------------------------------------------------------------- curvature
def test_empty_batches_do_not_spoil_the_curvature() -> None:
    model = _model()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    sparsifier = Sparsifier(model, optimizer, strength=1e-6, curvature="inputs")
    model(torch.randn(0, 8))
    model(torch.randn(4, 8)).sum().backward()
    optimizer.step()
    sparsifier.step()
    assert sparsifier.sparsity < 0.1


def test_a_layer_that_is_not_used_does_not_switch_the_curvature_off() -> None:
    model = nn.ModuleDict({"used": nn.Linear(4, 4), "idle": nn.Linear(4, 4)})
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    sparsifier = Sparsifier(model, optimizer, strength=1e-3, curvature="gradients")
    model["used"](torch.randn(8, 4)).sum().backward()
    optimizer.step()
    sparsifier.step()
    assert all(member.curve is not None for member in sparsifier._members)


@pytest.mark.parametrize("face", ["proximal", "variational-dropout", "hard-concrete"])
@pytest.mark.parametrize("curvature", ["optimizer", "gradients"])
def test_the_largest_strength_knows_the_face_and_the_curvature(face: str, curvature: str) -> None:
    penalty = "lasso" if face == "proximal" else None
    run = start("mlp", "proximal", "sgd", face=face, penalty=penalty, strength=1e-3, curvature=curvature)
    run.step(3)
    F.cross_entropy(run.model(run.inputs), run.labels).backward()
    largest = run.sparsifier.largest_strength()
    pulls = [
        float((m.parameter.grad / (1.0 if m.curve is None else m.curve)).abs().max()) for m in run.sparsifier._members
    ]
    dual, strength = run.sparsifier._face.dual(run.sparsifier._members[0].penalty, largest)
    assert strength * dual.slope_at_zero == pytest.approx(max(pulls), rel=1e-3)


# ---------------------------------------------------------------------- resume and schedules
@pytest.mark.parametrize(
    ("first", "then"),
    [("variational-dropout", "proximal"), ("dropout", "learned-eta"), ("hard-concrete", "variational-dropout")],
)
@pytest.mark.parametrize("aim", [{"budget": Budget(0.7)}, {"strength": 1e-3}], ids=["budget", "strength"])
def test_a_run_that_switched_resumes(first: str, then: str, aim: dict[str, Any]) -> None:
    def fresh() -> Any:
        return start("mlp", "proximal", face=first, **aim)

    run = fresh()
    run.step(5)
    run.sparsifier.switch(then)
    run.sparsifier.join()
    run.step(5)
    states = copy.deepcopy([run.model.state_dict(), run.optimizer.state_dict(), run.sparsifier.state_dict()])
    again = fresh()
    again.sparsifier.switch(then)
    again.sparsifier.join()
    for part, state in zip((again.model, again.optimizer, again.sparsifier), states, strict=True):
        part.load_state_dict(state)
    for each in (run, again):
        each.step(STEPS - 10)
        each.sparsifier.finish()
    for ours, theirs in zip(run.model.parameters(), again.model.parameters(), strict=True):
        assert torch.equal(ours, theirs)


def test_a_schedule_survives_a_switch_between_learned_faces() -> None:
    run = start("mlp", "variational")
    schedule = torch.optim.lr_scheduler.LambdaLR(run.optimizer, lambda step: 1 - step / 100)
    for step in range(STEPS):
        if step == 8:
            run.sparsifier.switch("hard-concrete")
            run.sparsifier.join()
        run.step()
        schedule.step()
    run.sparsifier.finish()
    assert abs(run.sparsifier.sparsity - 0.7) < 0.01


@pytest.mark.parametrize("method", ["dropout", "learned-eta"])
def test_a_width_on_its_way_resumes(method: str) -> None:
    def fresh() -> Any:
        return start("mlp", method, penalty="log-sum:epsilon=0.1", continuation=8.0, every=5)

    run, again = fresh(), fresh()
    assert run.sparsifier._members[0].width == 8.0
    run.step(8)
    states = copy.deepcopy([run.model.state_dict(), run.optimizer.state_dict(), run.sparsifier.state_dict()])
    for part, state in zip((again.model, again.optimizer, again.sparsifier), states, strict=True):
        part.load_state_dict(state)
    for each in (run, again):
        each.step(STEPS - 8)
    for ours, theirs in zip(run.model.parameters(), again.model.parameters(), strict=True):
        assert torch.equal(ours, theirs)


def test_a_broken_state_changes_nothing() -> None:
    run = start("mlp", "variational")
    run.step(4)
    before = copy.deepcopy(run.sparsifier.state_dict())
    broken = copy.deepcopy(before)
    del broken["pools"][0]["trajectory"]
    broken["pools"][0]["strength"] = 5.0
    with pytest.raises(InvalidArgumentError, match="incomplete"):
        run.sparsifier.load_state_dict(broken)
    assert run.sparsifier.state_dict()["pools"] == before["pools"]
    for field, other in (("law", "bernoulli"), ("seed", 9), ("curvature", "none")):
        changed = copy.deepcopy(before)
        changed["options"][field] = other
        with pytest.raises(InvalidArgumentError, match=field):
            run.sparsifier.load_state_dict(changed)


def test_a_strategy_that_overshot_does_not_silence_the_next() -> None:
    run = start("mlp", "hard-concrete")
    run.step(6)
    run.sparsifier._pools[0]._overshot = True
    run.sparsifier.switch("concrete-dropout")
    run.sparsifier.join()
    run.step(3)
    assert float(run.sparsifier._pools[0].coefficient) > 0


@pytest.mark.parametrize("face", ["variational-dropout", "hard-concrete"])
def test_a_strength_of_zero_may_switch(face: str) -> None:
    run = start("mlp", "proximal", face=face, strength=0.0)
    run.step(2)
    run.sparsifier.switch("proximal")
    run.step(2)
    run.sparsifier.finish()


def test_gates_take_up_the_noise_and_leave_the_function() -> None:
    run = start("mlp", "variational", strength=1e-3)
    run.step(5)
    before = {m.name: run.sparsifier._face.variance(m, 1e-3).clone() for m in run.sparsifier._members}
    seen = run.model.eval()(run.inputs)
    run.sparsifier.switch(HardConcreteGates())
    torch.testing.assert_close(run.model.eval()(run.inputs), seen, rtol=0.05, atol=0.02)
    for member in run.sparsifier._members:
        found = run.sparsifier._face.variance(member, 1e-3)
        expected = before[member.name].clamp(2e-3, 1e3)
        middle = (expected > 0.01) & (expected < 100)
        torch.testing.assert_close(found[middle], expected[middle], rtol=0.05, atol=0.01)


def test_a_compiled_model_sees_a_face_that_begins_to_draw() -> None:
    torch._dynamo.reset()
    run = start("mlp", "proximal")
    compiled = torch.compile(run.model, backend="eager")
    compiled.train()
    assert torch.equal(compiled(run.inputs), compiled(run.inputs))
    run.step(3)
    run.sparsifier.switch("variational-dropout")
    assert not torch.equal(compiled(run.inputs), compiled(run.inputs))
    assert math.isfinite(float(run.sparsifier.penalty().detach()))
