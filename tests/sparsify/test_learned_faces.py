"""What a learned strategy minimizes is the penalty that is its other face; and how its parameters come and go."""

from __future__ import annotations

import copy
import math
import warnings
from collections.abc import Callable

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from scipy.special import dawsn
from sparsify_matrix import STEPS, start
from torch import nn

from obverse import Budget, Rule, Sparsifier
from obverse.errors import InvalidArgumentError, NonFiniteError, StateError
from obverse.penalties import MCP, Lasso, LogSum, Penalty, VariationalDropout
from obverse.sparsify import ConcreteNoise, Face, HardConcreteGates, LearnedEta, TargetedNoise, VariationalNoise
from obverse.sparsify.faces._divergence import Divergence

STRENGTH = 0.03


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_divergence_and_its_slope(dtype: torch.dtype) -> None:
    log_eta = torch.linspace(-25, 30, 4001, dtype=torch.float64)
    eta = log_eta.exp().to(dtype).requires_grad_()
    divergence = Divergence(torch.device("cpu"), dtype)(eta)
    divergence.sum().backward()
    x = np.sqrt(eta.detach().double().numpy() / 2)
    slope = np.where(x < 1e-3, 0.5 * (1 - 2 * x**2 / 3), dawsn(x) / (2 * x))
    np.testing.assert_allclose(eta.grad.numpy(), slope, rtol=1e-5)
    expected = VariationalDropout().dual(eta.detach().double()) / 2
    torch.testing.assert_close(divergence.detach().double(), expected, rtol=1e-6, atol=1e-6)


def test_the_divergence_at_its_ends() -> None:
    eta = torch.tensor([0.0, 1e-30, 1e30], requires_grad=True)
    divergence = Divergence(torch.device("cpu"), torch.float32)(eta)
    divergence.sum().backward()
    assert divergence[0] == 0
    assert abs(float(divergence[2].detach()) - (math.log(1e30) / 2 + 0.635181)) < 1e-4
    torch.testing.assert_close(eta.grad, torch.tensor([0.5, 0.5, 0.5e-30]))


FACES = {
    "variational-additive": (lambda: VariationalNoise("additive"), 1e-4),
    "variational-multiplicative": (lambda: VariationalNoise("multiplicative"), 1e-4),
    "hard-concrete": (HardConcreteGates, 1e-3),
    "concrete-dropout": (ConcreteNoise, 1e-4),
    "learned-eta": (LearnedEta, 1e-4),
}


def _one_weight(face: Face, weight: float, penalty: Penalty | None = None) -> Sparsifier:
    layer = nn.Linear(1, 1, bias=False).double()
    nn.init.constant_(layer.weight, weight)
    optimizer = torch.optim.SGD(layer.parameters(), lr=0.1)
    return Sparsifier(layer, optimizer, penalty, face=face, strength=STRENGTH)


@pytest.mark.parametrize("weight", [0.004, 0.03, 0.1, 0.4])
@pytest.mark.parametrize("name", FACES)
def test_the_best_noise_costs_what_the_penalty_does(name: str, weight: float) -> None:
    make, tolerance = FACES[name]
    face = make()
    penalty = LogSum(0.2) if name == "learned-eta" else None
    sparsifier = _one_weight(face, weight, penalty)
    (member,), (learned,) = sparsifier._members, sparsifier.parameters()
    best = math.inf
    with torch.no_grad():
        for place in np.linspace(-11.9, 11.9, 1201):
            learned.fill_(place)
            cost = float(sparsifier.penalty())
            if name != "learned-eta":
                # In a linear model of unit curvature the noise adds half its variance.
                cost += float(face.variance(member, STRENGTH)) * weight**2 / 2
            best = min(best, cost)
    dual, strength = face.dual(member.penalty, STRENGTH)
    assert best == pytest.approx(strength * float(dual.value(np.float64(weight))), rel=tolerance, abs=2e-6)


@pytest.mark.parametrize("name", [name for name in FACES if name != "learned-eta"])  # which has a direction of its own
def test_costs_have_the_gradients_they_show(name: str) -> None:
    sparsifier = _one_weight(FACES[name][0](), 0.1)
    (learned,) = sparsifier.parameters()
    (gradient,) = torch.autograd.grad(sparsifier.penalty(), learned)
    with torch.no_grad():
        start_at, values = learned.clone(), []
        for side in (1e-4, -1e-4):
            learned.copy_(start_at + side)
            values.append(float(sparsifier.penalty()))
    assert float(gradient) == pytest.approx((values[0] - values[1]) / 2e-4, rel=1e-3)


@pytest.mark.parametrize("penalty", ["lasso", "mcp", "empirical-bayes"])
@pytest.mark.parametrize("optimizer", ["sgd", pytest.param("adam", marks=pytest.mark.slow)])
def test_the_joint_trick_ends_where_the_proximal_face_ends(penalty: str, optimizer: str) -> None:
    ends = []
    for face in ("proximal", LearnedEta(cutoff=0.02)):
        torch.manual_seed(0)
        features = torch.randn(200, 6, dtype=torch.float64)
        response = features @ torch.tensor([1.5, -0.8, 0.5, 0.0, 0.0, 0.0], dtype=torch.float64)
        response = response + 0.1 * torch.randn(200, dtype=torch.float64)
        layer = nn.Linear(6, 1, bias=False).double()
        trainer: torch.optim.Optimizer = torch.optim.SGD(layer.parameters(), lr=0.05)
        if optimizer == "adam":
            trainer = torch.optim.Adam(layer.parameters(), lr=0.01)
        sparsifier = Sparsifier(layer, trainer, penalty, face=face, strength=0.1)
        sparsifier.join(lr=0.05)
        for step in range(1500):
            for group in trainer.param_groups:
                group["lr"] = 0.05 * (1 - step / 1500)
            loss = ((layer(features)[:, 0] - response) ** 2).mean() / 2 + sparsifier.penalty()
            loss.backward()
            trainer.step()
            sparsifier.step()
            trainer.zero_grad()
        sparsifier.finish()
        ends.append(layer.weight.detach().clone())
    torch.testing.assert_close(ends[0], ends[1], rtol=0.01, atol=0.005)
    assert torch.equal(ends[0] == 0, ends[1] == 0)


# ---------------------------------------------------------------------- parameters that come and go
def test_learned_parameters_must_join_and_leave_nothing() -> None:
    model = nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 2))
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3, weight_decay=0.1)
    sparsifier = Sparsifier(model, optimizer, face="variational-dropout", budget=0.5, total_steps=20)
    names = dict(sparsifier.named_parameters())
    assert list(names) == ["0.weight:log_sigma", "2.weight:log_sigma"]
    with pytest.raises(StateError, match=r"sparsifier\.join\(\)"):
        sparsifier.step()
    sparsifier.join()
    group = optimizer.param_groups[-1]
    assert group["weight_decay"] == 0
    assert [id(p) for p in group["params"]] == [id(p) for p in names.values()]
    assert group["lr"] == 0.4  # 8 / total_steps, as that is more than the optimizer's own
    with pytest.raises(StateError, match="joined"):
        sparsifier.join()
    for _ in range(20):
        F.cross_entropy(model(torch.randn(8, 4)), torch.randint(0, 2, (8,))).backward()
        optimizer.step()
        sparsifier.step()
    sparsifier.finish()
    assert len(optimizer.param_groups) == 2  # as many as a schedule knows
    assert optimizer.param_groups[-1]["params"] == []
    assert set(optimizer.state) <= set(model.parameters())
    assert not list(sparsifier.parameters())


@pytest.mark.parametrize(("kind", "rates"), [("sgd", 2), ("adam", 1)])
def test_every_strength_has_the_learning_rate_that_belongs_to_it(kind: str, rates: int) -> None:
    """A plain optimizer moves by the gradient, which the strength scales."""
    model = nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 2))
    optimizer = (torch.optim.SGD if kind == "sgd" else torch.optim.Adam)(model.parameters(), lr=0.1)
    rules = [Rule("0.weight", strength=1e-2), Rule("2.weight", strength=1e-4)]
    sparsifier = Sparsifier(model, optimizer, face="variational-dropout", strength=1e-3, total_steps=100, rules=rules)
    sparsifier.join()
    groups = optimizer.param_groups[1:]
    assert len(groups) == rates
    if kind == "sgd":
        assert groups[1]["lr"] == pytest.approx(100 * groups[0]["lr"])
    sparsifier.switch("hard-concrete")
    sparsifier.join()
    assert optimizer.param_groups[1:] == groups
    assert [len(group["params"]) for group in groups] == [2 // rates] * rates


def test_faces_that_learn_nothing_need_not_join() -> None:
    model = nn.Linear(4, 2)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    sparsifier = Sparsifier(model, optimizer, strength=0.1)
    sparsifier.join()
    assert len(optimizer.param_groups) == 1
    assert float(sparsifier.penalty()) == 0


def test_a_learned_parameter_that_is_not_finite_is_named() -> None:
    run = start("mlp", "variational")
    run.step(2)
    with torch.no_grad():
        next(run.sparsifier.parameters()).fill_(math.nan)
    with pytest.raises(NonFiniteError, match="log_sigma"):
        run.step(3)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: VariationalNoise("both"), "parametrization"),
        (lambda: VariationalNoise(initial=math.nan), "initial"),
        (lambda: VariationalNoise(warmup=(5, 2)), "warmup"),
        (lambda: HardConcreteGates(initial=1.0), "initial"),
        (lambda: HardConcreteGates(gamma=0.1), "gamma"),
        (lambda: ConcreteNoise(temperature=0), "temperature"),
        (lambda: LearnedEta(cutoff=1.0), "cutoff"),
        (lambda: TargetedNoise(rate=0), "rate"),
    ],
)
def test_options_out_of_range(make: Callable[[], Face], message: str) -> None:
    with pytest.raises(InvalidArgumentError, match=message):
        make()


def test_a_face_with_a_penalty_of_its_own_takes_no_other() -> None:
    with pytest.raises(InvalidArgumentError, match="penalty of its own"):
        start("mlp", "variational", penalty="mcp")
    with pytest.raises(InvalidArgumentError, match="Face"):
        start("mlp", "proximal", face=3)


def test_the_divergence_warms_up() -> None:
    run = start("mlp", "proximal", face=VariationalNoise(warmup=(5, 15)), strength=0.1)
    pool = run.sparsifier._pools[0]
    shares = []
    for _ in range(20):
        shares.append(float(pool.coefficient) / 0.1)
        run.step()
    assert shares == pytest.approx([*[0.0] * 6, *(k / 10 for k in range(1, 11)), *[1.0] * 4])


# ---------------------------------------------------------------------- changing face
def test_eta_is_continuous_from_dropout_to_reweighted() -> None:
    run = start("mlp", "dropout", strength=0.01, penalty="log-sum:epsilon=0.1")
    run.step(5)
    variance = {member.name: member.memory.clone() for member in run.sparsifier._members}
    run.sparsifier.switch("reweighted")
    for member in run.sparsifier._members:
        torch.testing.assert_close(0.01 / member.memory, variance[member.name])
    assert not any(module._forward_hooks for module in run.model.modules())
    run.step(3)
    run.sparsifier.switch("proximal")
    run.step(3)
    run.sparsifier.finish()


@pytest.mark.filterwarnings("ignore:no weights were set to zero:UserWarning")  # concrete dropout has no zeros
@pytest.mark.parametrize("learned", ["variational", "hard-concrete", "concrete-dropout", "learned-eta"])
@pytest.mark.parametrize("after", ["dropout", "variational-dropout", "learned-eta", "reweighted"])
def test_noise_is_continuous_from_a_learned_strategy(learned: str, after: str) -> None:
    if learned == "variational" and after == "variational-dropout":
        after = "concrete-dropout"
    run = start("mlp", learned, strength=0.01)
    run.step(5)
    face = run.sparsifier._face
    before = {m.name: face.variance(m, 0.01).clone() for m in run.sparsifier._members}
    snapshot = run.sparsifier.snapshot().eval()(run.inputs)
    run.sparsifier.switch(after)
    # What evaluation sees does not change.
    torch.testing.assert_close(run.sparsifier.snapshot().eval()(run.inputs), snapshot)
    pool = run.sparsifier._pools[0]
    for member in run.sparsifier._members:
        expected = before[member.name].clamp(1e-4, 1e3)
        if after == "reweighted":
            found = pool.strength / member.memory
        else:
            found = run.sparsifier._face.variance(member, pool.strength)
        if after == "dropout":  # a function of the weights, taken up at the next step
            continue
        torch.testing.assert_close(found.clamp(1e-4, 1e3), expected, rtol=2e-3, atol=1e-5)
    run.sparsifier.join()
    run.step(3)
    run.sparsifier.finish()


def test_a_stated_strength_keeps_its_objective_across_a_switch() -> None:
    run = start("mlp", "variational", strength=0.01)
    run.step(3)
    run.sparsifier.switch("proximal")
    member = run.sparsifier._members[0]
    assert member.penalty == VariationalDropout(scale=10.0)
    assert run.sparsifier.strength == 0.01
    run = start("mlp", "hard-concrete", strength=0.01)
    run.step(3)
    run.sparsifier.switch("proximal", penalty=MCP())
    assert run.sparsifier._members[0].penalty == MCP()


@pytest.mark.parametrize("first", ["dropout", "variational", "hard-concrete", "targeted-dropout"])
@pytest.mark.parametrize("then", ["proximal", "learned-eta", "magnitude"])
def test_a_budget_is_met_across_a_switch(first: str, then: str) -> None:
    run = start("residual", first)
    run.step(10)
    run.sparsifier.switch(then)
    run.sparsifier.join()
    run.step(STEPS - 10)
    run.sparsifier.finish()
    assert abs(run.sparsifier.sparsity - 0.7) < 0.01
    with pytest.raises(StateError, match="finished"):
        run.sparsifier.switch("proximal")


def test_a_switch_that_is_refused_changes_nothing() -> None:
    run = start("mlp", "variational")
    run.step(3)
    learned = dict(run.sparsifier.named_parameters())
    with pytest.raises(InvalidArgumentError, match="penalty of its own"):
        run.sparsifier.switch("hard-concrete", penalty="mcp")
    with pytest.raises(InvalidArgumentError, match="another face object"):
        run.sparsifier.switch(run.sparsifier._face)
    assert dict(run.sparsifier.named_parameters()) == learned
    run.step(3)


# ---------------------------------------------------------------------- scale
def test_the_scale_of_so_many_examples() -> None:
    model = nn.Linear(6, 3)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    sparsifier = Sparsifier(model, optimizer, examples=2500, noise=0.25)
    assert sparsifier.strength == 1e-4
    penalty = sparsifier._members[0].penalty
    # Slope of variational dropout's penalty at zero: strength / width = noise**0.5 / examples**0.5.
    assert 1e-4 * penalty.slope_at_zero == pytest.approx(0.01)
    reference = VariationalDropout(scale=100.0)
    w = np.linspace(0, 0.08, 9)
    np.testing.assert_allclose(penalty.value(w), reference.value(w), atol=0.33)
    del sparsifier
    sparsifier = Sparsifier(model, optimizer, "lasso", examples=2500)
    assert sparsifier.strength * sparsifier._members[0].penalty.slope_at_zero == pytest.approx(0.02)
    del sparsifier
    sparsifier = Sparsifier(model, optimizer, face="variational-dropout", examples=2500)
    assert sparsifier.strength == 1 / 2500
    for wrong in ({"examples": 0}, {"examples": 10, "noise": 0}, {}):
        with pytest.raises(InvalidArgumentError):
            Sparsifier(model, optimizer, **wrong)


def test_a_wide_penalty_narrows() -> None:
    run = start("mlp", "proximal", penalty=LogSum(0.1), continuation=16.0)
    member = run.sparsifier._members[0]
    widths = []
    for _ in range(STEPS):
        run.step()
        widths.append(1 / member.penalty.slope_at_zero)
    assert widths[0] > 1.2
    assert widths == sorted(widths, reverse=True)
    assert widths[-1] == pytest.approx(0.1)
    run.sparsifier.finish()
    assert abs(run.sparsifier.sparsity - 0.7) < 0.01
    with pytest.raises(InvalidArgumentError, match="continuation"):
        start("mlp", "proximal", continuation=0.5)
    with pytest.raises(InvalidArgumentError, match="total_steps"):
        start("mlp", "proximal", continuation=2.0, strength=0.1, total_steps=None)


@pytest.mark.parametrize("penalty", [Lasso(), LogSum(0.3)])
def test_with_the_curvature_of_the_inputs_units_of_a_feature_play_no_part(penalty: Penalty) -> None:
    torch.manual_seed(0)
    features = torch.randn(300, 5, dtype=torch.float64)
    response = features @ torch.tensor([1.0, 0.6, -0.4, 0.1, 0.0], dtype=torch.float64)
    units = torch.tensor([1.0, 3.0, 0.5, 2.0, 0.25], dtype=torch.float64)
    ends = []
    for scale in (torch.ones(5, dtype=torch.float64), units):
        layer = nn.Linear(5, 1, bias=False).double()
        nn.init.zeros_(layer.weight)
        optimizer = torch.optim.SGD(layer.parameters(), lr=0.05)
        sparsifier = Sparsifier(layer, optimizer, penalty, strength=0.15, curvature="inputs")
        scaled = features * scale
        for _ in range(1500):
            (((layer(scaled)[:, 0] - response) ** 2).mean() / 2).backward()
            optimizer.step()
            sparsifier.step()
            optimizer.zero_grad()
        curvature = sparsifier._members[0].curve ** 2
        torch.testing.assert_close(
            curvature / curvature.mean(), (scaled**2).mean(0) / (scaled**2).mean(), rtol=1e-6, atol=1e-9
        )
        # Relative curvature: its mean sets the unit, which the strength has to follow.
        ends.append((layer.weight.detach()[0] * scale, float((scaled**2).mean())))
    assert bool((ends[0][0] == 0).any())
    if isinstance(penalty, Lasso):
        # The same weights per unit of the feature where the mean curvature is taken out of the strength.
        layer = nn.Linear(5, 1, bias=False).double()
        nn.init.zeros_(layer.weight)
        optimizer = torch.optim.SGD(layer.parameters(), lr=0.05)
        strength = 0.15 * (ends[1][1] / ends[0][1]) ** 0.5
        sparsifier = Sparsifier(layer, optimizer, penalty, strength=strength, curvature="inputs")
        for _ in range(1500):
            (((layer(features * units)[:, 0] - response) ** 2).mean() / 2).backward()
            optimizer.step()
            sparsifier.step()
            optimizer.zero_grad()
        torch.testing.assert_close(layer.weight.detach()[0] * units, ends[0][0], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("curvature", ["gradients", "inputs", "none"])
@pytest.mark.parametrize("model", ["residual", "mlp"])
def test_a_measured_curvature_meets_the_budget_and_resumes(curvature: str, model: str) -> None:
    run = start(model, "proximal", curvature=curvature)
    run.step(10)
    state = run.sparsifier.state_dict()
    weights, trained = run.model.state_dict(), copy.deepcopy(run.optimizer.state_dict())
    again = start(model, "proximal", seed=3, curvature=curvature)
    again.model.load_state_dict(weights)
    again.optimizer.load_state_dict(trained)
    again.sparsifier.load_state_dict(state)
    for each in (run, again):
        each.step(STEPS - 10)
        each.sparsifier.finish()
        assert abs(each.sparsifier.sparsity - 0.7) < 0.01
    for ours, theirs in zip(run.model.parameters(), again.model.parameters(), strict=True):
        assert torch.equal(ours, theirs)
    assert not any(module._forward_pre_hooks for module in run.model.modules())


def test_what_the_curvature_of_inputs_does_not_reach() -> None:
    with pytest.raises(InvalidArgumentError, match="gradients"):
        start("lstm", "proximal", curvature="inputs")
    with pytest.raises(InvalidArgumentError, match="curvature"):
        start("mlp", "proximal", curvature="hessian")


def test_targeted_dropout_at_rate_one_is_gradual_magnitude() -> None:
    ends = []
    for face in (TargetedNoise(rate=1.0), "magnitude"):
        run = start("mlp", "proximal", "sgd", face=face, budget=Budget(0.7, ramp=0.9, hold=0.0), every=1)
        run.step(STEPS - 4)
        member = run.sparsifier._members[0]
        shown = member.parameter * (member.memory if isinstance(face, TargetedNoise) else 1.0)
        ends.append(int((shown != 0).sum()))
    assert abs(ends[0] - ends[1]) <= 0.1 * ends[1]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        run.step(4)
        run.sparsifier.finish()
