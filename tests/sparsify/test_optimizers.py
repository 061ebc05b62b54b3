"""A stated strength and a budget under every optimizer: torch's, those that users write, and wrappers around them."""

from __future__ import annotations

import copy
import gc
import io
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from own_optimizers import (
    HiddenGradients,
    Lion,
    Lookahead,
    OwnSGD,
    QuantizedAdam,
    RenamedAdam,
    SharpnessAware,
    Uphill,
)
from sklearn.datasets import load_digits
from torch import nn

from obverse import Rule, Sparsifier
from obverse.errors import InvalidArgumentError, StateError
from obverse.sparsify import FACES, Face, keep_zeros

Make = Callable[[Any], Any]
O = torch.optim  # noqa: E741
TORCH: dict[str, Make] = {
    "sgd": lambda p: O.SGD(p, lr=0.1),
    "momentum": lambda p: O.SGD(p, lr=0.02, momentum=0.9, dampening=0.1),
    "nesterov": lambda p: O.SGD(p, lr=0.02, momentum=0.9, nesterov=True, foreach=True),
    "adam": lambda p: O.Adam(p, lr=1e-3),
    "adam-fused": lambda p: O.Adam(p, lr=1e-3, fused=True),
    "adam-foreach": lambda p: O.Adam(p, lr=1e-3, foreach=True),
    "adam-tensor-rate": lambda p: O.Adam(p, lr=torch.tensor(1e-3), foreach=False),
    "amsgrad": lambda p: O.Adam(p, lr=1e-3, amsgrad=True),
    "adamw": lambda p: O.AdamW(p, lr=1e-3),
    "nadam": lambda p: O.NAdam(p, lr=1e-3),
    "radam": lambda p: O.RAdam(p, lr=3e-3),
    "adamax": lambda p: O.Adamax(p, lr=2e-3),
    "adagrad": lambda p: O.Adagrad(p, lr=1e-2, lr_decay=1e-3),
    "adadelta": lambda p: O.Adadelta(p, lr=1.0),
    "rmsprop": lambda p: O.RMSprop(p, lr=5e-4, centered=True, momentum=0.5),
    "asgd": lambda p: O.ASGD(p, lr=0.1),
}
MEASURED: dict[str, Make] = {
    "adafactor": lambda p: O.Adafactor(p, lr=1e-2),
    "rprop": lambda p: O.Rprop(p, lr=1e-3, step_sizes=(1e-6, 3e-3)),
    "renamed-adam": lambda p: RenamedAdam(p, lr=1e-3),
    "renamed-adamw": lambda p: RenamedAdam(p, lr=1e-3, weight_decay=0.1, beside=True),
    "quantized-adam": lambda p: QuantizedAdam(p, lr=1e-3),
    "own-sgd": lambda p: OwnSGD(p, lr=0.1),
    "own-momentum": lambda p: OwnSGD(p, lr=0.02, inertia=0.9),
    "own-nesterov": lambda p: OwnSGD(p, lr=0.02, inertia=0.9, looks_ahead=True),
    "lion": lambda p: Lion(p, lr=5e-4),
    "lion-decay": lambda p: Lion(p, lr=5e-4, weight_decay=0.1),
}
WRAPPED: dict[str, Make] = {
    "lookahead": lambda p: Lookahead(O.Adam(p, lr=2e-3)),
    "lookahead-lion": lambda p: Lookahead(Lion(p, lr=1e-3)),
}
ALL = {**TORCH, **MEASURED, **WRAPPED}
# These need a budget.
NEEDS_BUDGET = {name for name, face in FACES.items() if face.needs_budget}
# The steps of these use the metric.
METRIC_FACES = ["proximal", "reweighted", "magnitude", "learned-eta"]

# Some two minutes in all; what a stated strength does under torch's own optimizers is in `test_sparsifier.py`.
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def digits() -> tuple[torch.Tensor, torch.Tensor]:
    features, labels = load_digits(return_X_y=True)
    return torch.tensor(features / 16, dtype=torch.float32), torch.tensor(labels)


def mlp(seed: int = 0) -> nn.Sequential:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 10))


def train(
    model: nn.Module,
    optimizer: Any,
    sparsifier: Sparsifier,
    digits: Any,
    steps: int,
    seed: int = 0,
    whole: bool = False,
) -> None:
    generator = torch.Generator().manual_seed(seed)
    for _ in range(steps):
        index = slice(None) if whole else torch.randint(len(digits[1]), (100,), generator=generator)
        (F.cross_entropy(model(digits[0][index]), digits[1][index]) + sparsifier.penalty()).backward()
        optimizer.step()
        sparsifier.step()
        optimizer.zero_grad()


def zeros(model: nn.Module) -> float:
    weights = torch.cat([p.detach().flatten() for p in model.parameters() if p.ndim == 2])
    return float((weights == 0).float().mean())


def run(make: Make, digits: Any, steps: int, face: str = "proximal", **options: Any) -> tuple[nn.Module, Sparsifier]:
    model = mlp()
    optimizer = make(model.parameters())
    penalty = None if face == "magnitude" else "lasso"
    sparsifier = Sparsifier(model, optimizer, penalty=penalty, face=face, **options)
    sparsifier.join()
    train(model, optimizer, sparsifier, digits, steps, whole=make is MEASURED["rprop"])
    return model, sparsifier


# ---------------------------------------------------------------------- strengths
@pytest.mark.parametrize("name", ALL)
def test_a_stated_strength_makes_zeros_under_every_optimizer(name: str, digits: Any) -> None:
    model, sparsifier = run(ALL[name], digits, 200, strength=3e-3)
    share = zeros(model)
    assert share == pytest.approx(sparsifier.sparsity)
    assert 0.2 < share < 0.97
    accuracy = float((model(digits[0]).argmax(1) == digits[1]).float().mean())
    assert accuracy > 0.6  # the loss is still heard


@pytest.mark.parametrize("face", METRIC_FACES)
@pytest.mark.parametrize("name", ["renamed-adam", "quantized-adam", "lion"])
def test_every_face_feels_a_strength_as_under_torch_s_adam(name: str, face: str, digits: Any) -> None:
    strength = 1e-5 if face == "magnitude" else 3e-3

    def small(make: Make) -> float:
        _, sparsifier = run(make, digits, 120, face=face, strength=strength)
        magnitudes = torch.cat([member.weights.abs().flatten() for member in sparsifier._members])
        return float((magnitudes < 1e-3).float().mean())

    usual, measured = small(TORCH["adam"]), small(ALL[name])
    assert usual > 0.1
    assert 0.5 * usual < measured < 1.7 * usual


@pytest.mark.parametrize("name", ["renamed-adam", "quantized-adam"])
def test_adam_under_other_names_ends_where_torch_s_does(name: str, digits: Any) -> None:
    usual, _ = run(TORCH["adam"], digits, 300, strength=3e-3)
    ours, _ = run(MEASURED[name], digits, 300, strength=3e-3)
    assert abs(zeros(usual) - zeros(ours)) < 0.06
    both = [torch.cat([p.detach().flatten() for p in model.parameters() if p.ndim == 2]) for model in (usual, ours)]
    assert float(((both[0] == 0) == (both[1] == 0)).float().mean()) > 0.9
    assert float(torch.corrcoef(torch.stack(both))[0, 1]) > 0.97


@pytest.mark.parametrize(
    ("ours", "usual"),
    [
        (MEASURED["own-sgd"], lambda p: O.SGD(p, lr=0.1)),
        (MEASURED["own-momentum"], lambda p: O.SGD(p, lr=0.02, momentum=0.9)),
    ],
)
def test_gradient_descent_is_measured_exactly(ours: Make, usual: Make, digits: Any) -> None:
    models = [run(make, digits, 150, strength=3e-3)[0] for make in (ours, usual)]
    assert abs(zeros(models[0]) - zeros(models[1])) < 0.01
    for one, other in zip(models[0].parameters(), models[1].parameters(), strict=True):
        assert float((one - other).detach().abs().mean()) < 5e-3


@pytest.mark.parametrize("name", ["sgd", "adam", "radam", "asgd", "own-momentum", "own-nesterov", "renamed-adam"])
def test_what_it_ends_at_is_the_minimum_of_loss_and_penalty(name: str) -> None:
    torch.manual_seed(0)
    x, strength = torch.randn(200, 20, dtype=torch.float64), 0.1
    y = x[:, :5].sum(1, keepdim=True) + 0.1 * torch.randn(200, 1, dtype=torch.float64)
    model = nn.Linear(20, 1, bias=False).double()
    optimizer = ALL[name](model.parameters())
    sparsifier = Sparsifier(model, optimizer, penalty="lasso", strength=strength)
    rate = float(optimizer.param_groups[0]["lr"]) * (10 if "adam" in name else 1)
    for step in range(900):
        optimizer.param_groups[0]["lr"] = rate * min(1.0, 3 * (1 - step / 900))
        optimizer.zero_grad()
        ((model(x) - y).square().mean() / 2).backward()
        optimizer.step()
        sparsifier.step()
    optimizer.zero_grad()
    ((model(x) - y).square().mean() / 2).backward()
    weights, pull = model.weight.detach(), model.weight.grad
    assert pull is not None
    kept = weights != 0
    assert int(kept.sum()) == 5
    allowed = 0.1 if name == "renamed-adam" else 0.03
    assert float((pull + strength * weights.sign())[kept].abs().max()) < allowed * strength
    assert float(pull[~kept].abs().max()) < strength


@pytest.mark.parametrize("decay", [{"weight_decay": 0.03}, {"weight_decay": 0.1, "beside": True}])
def test_weight_decay_is_told_apart_from_the_gradient(decay: dict[str, Any], digits: Any) -> None:
    beside = decay.pop("beside", False)
    usual = O.AdamW if beside else O.Adam
    expected, _ = run(lambda p: usual(p, lr=1e-3, **decay), digits, 200, strength=1e-3)
    ours, sparsifier = run(lambda p: RenamedAdam(p, lr=1e-3, beside=beside, **decay), digits, 200, strength=1e-3)
    assert abs(zeros(expected) - zeros(ours)) < 0.08
    measurement = sparsifier._metric._measurement
    assert measurement is not None
    assert {track.decay for track in measurement._tracks.values()} == {0 if beside else 1}


def test_maximizing_and_closures_are_measured_as_they_are(digits: Any) -> None:
    class Maximizing(RenamedAdam):
        def __init__(self, parameters: Any) -> None:
            super().__init__(parameters)
            self.param_groups[0]["maximize"] = True

        def move(self, parameter: torch.Tensor, group: dict[str, Any], state: dict[str, Any]) -> None:
            assert parameter.grad is not None
            parameter.grad.neg_()
            super().move(parameter, group, state)

    shares = []
    for sign, make in ((1, RenamedAdam), (-1, Maximizing), (0, RenamedAdam)):
        model = mlp()
        optimizer = make(model.parameters())
        sparsifier = Sparsifier(model, optimizer, penalty="lasso", strength=3e-3)

        def closure(model: nn.Module = model, optimizer: Any = optimizer, sign: int = sign) -> None:
            optimizer.zero_grad()
            ((sign or 1) * F.cross_entropy(model(digits[0]), digits[1])).backward()

        for _ in range(60):
            if sign:
                closure()
            optimizer.step() if sign else optimizer.step(closure)
            sparsifier.step()
        shares.append(zeros(model))
    assert shares[0] > 0.3
    assert shares == pytest.approx([shares[0]] * 3)


# ---------------------------------------------------------------------- what cannot be measured
@pytest.mark.parametrize(
    ("kind", "why"), [("Muon", "matrices"), ("LBFGS", "line searches"), ("SparseAdam", "rows that a batch has used")]
)
def test_an_optimizer_without_a_proximal_step_refuses_a_strength_and_says_the_way_out(kind: str, why: str) -> None:
    model = nn.Linear(8, 8, bias=False)
    optimizer = getattr(O, kind)(list(model.parameters()))
    with pytest.raises(InvalidArgumentError, match=rf"{why}, so no proximal step .*say a budget"):
        Sparsifier(model, optimizer, strength=0.1)
    Sparsifier(model, optimizer, budget=0.5, total_steps=10)


@pytest.mark.parametrize(("make", "why"), [(Uphill, "down its own gradient"), (HiddenGradients, r"not in \.grad")])
def test_an_optimizer_that_cannot_be_measured_stops_with_the_way_out(make: Make, why: str) -> None:
    model = nn.Linear(8, 8)
    optimizer = make(model.parameters())
    sparsifier = Sparsifier(model, optimizer, strength=0.1)

    def forty_steps() -> None:
        for _ in range(40):
            optimizer.zero_grad()
            if make is Uphill:
                model(torch.randn(4, 8)).square().mean().backward()
            optimizer.step()
            sparsifier.step()

    with pytest.raises(StateError, match=rf"{why}, so .*use budget="):
        forty_steps()


def test_torch_s_own_optimizers_are_not_measured(digits: Any) -> None:
    for name, make in TORCH.items():
        _, sparsifier = run(make, digits, 1, strength=1e-3)
        assert sparsifier._metric._measurement is None, name
        assert sparsifier.state_dict()["metric"] == {}
    _, sparsifier = run(MEASURED["lion"], digits, 1, budget=0.5, total_steps=10)
    assert sparsifier._metric._measurement is None  # a budget ranks by magnitude, without a cost in memory


def test_the_first_steps_of_radam_are_those_of_gradient_descent() -> None:
    model = nn.Linear(4, 4, bias=False)
    optimizer = O.RAdam(model.parameters(), lr=0.1)
    sparsifier = Sparsifier(model, optimizer, penalty="lasso", strength=1e-3)
    before = model.weight.detach().clone()
    model(torch.randn(8, 4)).square().mean().backward()
    optimizer.step()
    moved = model.weight.detach().clone()
    sparsifier.step()
    torch.testing.assert_close((moved - model.weight.detach()).abs(), torch.full_like(before, 1e-4))
    assert model.weight.grad is not None
    torch.testing.assert_close(before - moved, 0.1 * model.weight.grad)


# ---------------------------------------------------------------------- budgets, states, joining
@pytest.mark.parametrize("name", [*ALL, "muon"])
def test_a_budget_is_met_under_every_optimizer(name: str, digits: Any) -> None:
    def muon(parameters: Any) -> Any:
        return O.Muon([p for p in parameters if p.ndim == 2], lr=1e-3)

    model, sparsifier = run(ALL.get(name, muon), digits, 40, budget=0.8, total_steps=40)
    sparsifier.finish()
    assert abs(zeros(model) - 0.8) < 1e-3


@pytest.mark.parametrize("name", ["renamed-adam", "renamed-adamw", "quantized-adam", "lion", "own-nesterov", "rprop"])
def test_a_measured_run_resumes_bit_for_bit(name: str, digits: Any) -> None:
    model = mlp()
    optimizer = MEASURED[name](model.parameters())
    sparsifier = Sparsifier(model, optimizer, penalty="lasso", strength=3e-3)
    train(model, optimizer, sparsifier, digits, 12)
    states = io.BytesIO()
    torch.save([model.state_dict(), copy.deepcopy(optimizer.state_dict()), sparsifier.state_dict()], states)
    train(model, optimizer, sparsifier, digits, 12, seed=1)

    again = mlp(seed=3)
    resumed = MEASURED[name](again.parameters())
    taken_up = Sparsifier(again, resumed, penalty="lasso", strength=3e-3)
    states.seek(0)
    for one, state in zip((again, resumed, taken_up), torch.load(states, weights_only=True), strict=True):
        one.load_state_dict(state)
    train(again, resumed, taken_up, digits, 12, seed=1)
    assert zeros(model) > 0.05
    for one, other in zip(model.parameters(), again.parameters(), strict=True):
        assert torch.equal(one, other)


def test_a_broken_measured_state_is_refused_whole(digits: Any) -> None:
    _, sparsifier = run(MEASURED["lion"], digits, 3, strength=1e-3)
    state = sparsifier.state_dict()
    before = copy.deepcopy(state)
    broken = copy.deepcopy(state)
    next(iter(broken["metric"]["tensors"].values()))["averages"]["square"] = torch.zeros(3)
    broken["step"] = 77
    with pytest.raises(InvalidArgumentError, match="measured metric of the state belongs to another"):
        sparsifier.load_state_dict(broken)
    del next(iter(broken["metric"]["tensors"].values()))["averages"]
    with pytest.raises(InvalidArgumentError, match="measured metric of the state is broken"):
        sparsifier.load_state_dict(broken)
    assert sparsifier.state_dict()["step"] == before["step"] == 3


@pytest.mark.parametrize("face", ["variational-dropout", "hard-concrete", "learned-eta"])
@pytest.mark.parametrize("name", ["adam", "sgd", "renamed-adam", "own-momentum", "lion"])
def test_what_a_face_learns_moves_under_every_optimizer(name: str, face: str, digits: Any) -> None:
    model = mlp()
    optimizer = ALL[name](model.parameters())
    sparsifier = Sparsifier(model, optimizer, face=face, strength=1e-3, total_steps=60)
    sparsifier.join()
    before = [parameter.detach().clone() for parameter in sparsifier.parameters()]
    train(model, optimizer, sparsifier, digits, 30)
    moved = [float((p.detach() - b).abs().mean()) for p, b in zip(sparsifier.parameters(), before, strict=True)]
    # It may travel by 8 in the whole run, and does by a good part of it in a half.
    assert all(0.05 < one < 8 for one in moved)


@pytest.mark.parametrize("kind", ["Muon", "Adafactor", "Rprop", "SparseAdam"])
def test_learned_parameters_refuse_an_optimizer_of_another_scale_and_stay_unjoined(kind: str) -> None:
    model = nn.Linear(8, 8, bias=False)
    optimizer = getattr(O, kind)(list(model.parameters()))
    sparsifier = Sparsifier(model, optimizer, face="hard-concrete", budget=0.5, total_steps=20)
    with pytest.raises(InvalidArgumentError, match="optimizer of their own"):
        sparsifier.join()
    assert len(optimizer.param_groups) == 1
    sparsifier.join(O.Adam(sparsifier.parameters(), lr=1e-2))


def test_an_optimizer_that_refuses_a_group_is_left_as_it_was(digits: Any) -> None:
    class Strict(RenamedAdam):
        def add_param_group(self, param_group: dict[str, Any]) -> None:
            if self.param_groups:
                raise ValueError("one group only")
            super().add_param_group(param_group)

    model = mlp()
    optimizer = Strict(model.parameters())
    sparsifier = Sparsifier(model, optimizer, face="hard-concrete", strength=1e-3, total_steps=20)
    hooks = len(optimizer._optimizer_step_pre_hooks)
    with pytest.raises(ValueError, match="one group only"):
        sparsifier.join()
    assert len(optimizer.param_groups) == 1
    assert len(optimizer._optimizer_step_pre_hooks) == hooks
    sparsifier.join(O.Adam(sparsifier.parameters(), lr=1e-2))


# ---------------------------------------------------------------------- wrappers
@pytest.fixture
def accelerate() -> Iterator[Any]:
    module = pytest.importorskip("accelerate")
    yield module
    module.state.AcceleratorState._reset_state(True)
    module.state.GradientState._reset_state()


@pytest.mark.parametrize("name", ["adam", "lion"])
def test_accelerate_s_optimizer_is_the_one_inside_it(name: str, accelerate: Any, digits: Any) -> None:
    accelerator = accelerate.Accelerator(cpu=True, gradient_accumulation_steps=2)
    model = mlp()
    prepared, optimizer = accelerator.prepare(model, ALL[name](model.parameters()))
    sparsifier = Sparsifier(prepared, optimizer, penalty="lasso", strength=3e-3)
    for step in range(80):
        index = slice(step * 20, step * 20 + 50)
        with accelerator.accumulate(prepared):
            accelerator.backward(F.cross_entropy(prepared(digits[0][index]), digits[1][index]))
            optimizer.step()
            sparsifier.step()
            optimizer.zero_grad()
    assert sparsifier._step == 40  # accumulated batches are no steps
    assert zeros(model) > 0.3
    sparsifier.finish()
    keep_zeros(model, optimizer)  # a wrapper here too
    before = zeros(model)
    train_on = F.cross_entropy(prepared(digits[0]), digits[1])
    train_on.backward()
    optimizer.optimizer.step()
    assert zeros(model) >= before


@pytest.mark.parametrize("make", [lambda p: O.Adam(p, lr=1e-3, fused=True), TORCH["adam"], MEASURED["renamed-adam"]])
def test_a_step_that_a_gradient_scaler_leaves_out_is_not_counted(make: Make, digits: Any) -> None:
    model = mlp()
    optimizer = make(model.parameters())
    sparsifier = Sparsifier(model, optimizer, penalty="lasso", strength=3e-3)
    scaler = torch.amp.GradScaler("cpu", init_scale=64.0)
    for step in range(6):
        loss = F.cross_entropy(model(digits[0]), digits[1])
        scaler.scale(loss * torch.inf if step == 3 else loss).backward()
        scaler.step(optimizer)
        scaler.update()
        sparsifier.step()
        optimizer.zero_grad()
    assert sparsifier._step == 5


def test_a_sharpness_aware_optimizer_steps_the_one_inside_it(digits: Any) -> None:
    model = mlp()
    optimizer = SharpnessAware(model.parameters(), O.Adam, lr=1e-3)
    sparsifier = Sparsifier(model, optimizer, penalty="lasso", strength=3e-3)
    for _ in range(60):
        for move in (optimizer.climb, optimizer.descend):
            optimizer.zero_grad()
            F.cross_entropy(model(digits[0]), digits[1]).backward()
            move()
        sparsifier.step()
    assert sparsifier._step == 60
    assert zeros(model) > 0.3


def test_what_is_no_optimizer_is_refused_and_leaves_nothing() -> None:
    class Duck:
        def __init__(self, parameters: Any) -> None:
            self.param_groups = [{"params": list(parameters), "lr": 0.1}]

        def step(self) -> None: ...

    class Unfinished(O.Optimizer):
        def __init__(self, parameters: Any) -> None:
            self.param_groups, self.state = [{"params": list(parameters), "lr": 0.1}], {}  # type: ignore[assignment]

    model = mlp()
    for make in (Duck, Unfinished):
        with pytest.raises(InvalidArgumentError, match=rf"got {make.__name__}; give the torch.optim.Optimizer inside"):
            Sparsifier(model, make(model.parameters()), strength=1e-3)
    Sparsifier(model, O.Adam(model.parameters()), strength=1e-3)


# ---------------------------------------------------------------------- making
@pytest.mark.parametrize("curvature", ["optimizer", "gradients", "inputs"])
@pytest.mark.parametrize("name", ["adam", "lion"])
@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_a_sparsifier_that_fails_to_be_made_leaves_nothing(error: type, name: str, curvature: str) -> None:
    class Failing(Face):
        acts_in_forward = True
        calls = 0

        def attach(self, member: Any, forward: Any, handed: Any) -> None:
            self.calls += 1
            if self.calls == 2:
                raise error("in the middle")

    model = mlp()
    optimizer = ALL[name](model.parameters())
    with pytest.raises(error, match="in the middle"):
        Sparsifier(model, optimizer, face=Failing(), strength=1e-3, curvature=curvature)
    gc.collect()
    assert not optimizer._optimizer_step_pre_hooks
    assert not optimizer._optimizer_step_post_hooks
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())
    Sparsifier(model, optimizer, strength=1e-3)


def test_a_failure_at_the_very_end_leaves_nothing_either() -> None:
    class Failing(Face):
        acts_in_forward = True

        def renew(self, *given: Any) -> None:
            raise ArithmeticError("at the start")

    model = mlp()
    optimizer = Lion(model.parameters())
    with pytest.raises(ArithmeticError, match="at the start"):
        Sparsifier(model, optimizer, face=Failing(), strength=1e-3)
    assert not optimizer._optimizer_step_pre_hooks
    assert not optimizer._optimizer_step_post_hooks
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())
    Sparsifier(model, optimizer, strength=1e-3)


@pytest.mark.parametrize("name", ["adam", "lion"])
def test_finishing_leaves_no_measurement_behind(name: str, digits: Any) -> None:
    model = mlp()
    optimizer = ALL[name](model.parameters())
    sparsifier = Sparsifier(model, optimizer, penalty="lasso", strength=3e-3)
    train(model, optimizer, sparsifier, digits, 60)
    sparsifier.finish()
    assert sparsifier._metric._measurement is None
    assert not optimizer._optimizer_step_pre_hooks
    share = zeros(model)
    for _ in range(3):  # zeros stay, also under an optimizer whose momentum was out of reach
        F.cross_entropy(model(digits[0]), digits[1]).backward()
        optimizer.step()
    assert zeros(model) == pytest.approx(share)


def test_parameters_that_only_one_side_has(digits: Any) -> None:
    model, other = mlp(), nn.Linear(3, 3)
    # The optimizer may train another model as well.
    optimizer = Lion([*model.parameters(), *other.parameters()], lr=5e-4)
    sparsifier = Sparsifier(model, optimizer, penalty="lasso", strength=3e-3)
    untouched = other.weight.detach().clone()
    train(model, optimizer, sparsifier, digits, 60)
    assert zeros(model) > 0.1
    assert torch.equal(other.weight, untouched)
    sparsifier.finish()
    # What it does not train cannot be regularized, unless it is left out.
    partly = Lion(model[0].parameters())
    with pytest.raises(InvalidArgumentError, match=r"'2\.weight' is regularized but the optimizer does not train it"):
        Sparsifier(model, partly, strength=1e-3)
    Sparsifier(model, partly, strength=1e-3, rules=[Rule("2.weight", skip=True)])


# ---------------------------------------------------------------------- seeds
def test_seeds_of_every_kind() -> None:
    def noise(seed: Any) -> torch.Tensor:
        model = mlp()
        sparsifier = Sparsifier(model, O.SGD(model.parameters(), lr=0.1), face="dropout", strength=1e-2, seed=seed)
        out: torch.Tensor = model(torch.ones(2, 64)).detach()
        sparsifier.finish()
        return out

    assert torch.equal(noise(7), noise(torch.Generator().manual_seed(7)))
    assert torch.equal(noise(np.random.default_rng(3)), noise(np.random.default_rng(3)))
    assert not torch.equal(noise(np.random.default_rng(3)), noise(np.random.default_rng(4)))
    model = mlp()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(InvalidArgumentError, match="seed must be an integer"):
            Sparsifier(model, O.SGD(model.parameters(), lr=0.1), strength=1e-2, seed=1.5)  # type: ignore[arg-type]
