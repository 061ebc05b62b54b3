"""Budgets of a whole model: parameters, products, bytes and seconds, each met within a point, several at once."""

from __future__ import annotations

import types

import pytest
import torch
import torch.nn.functional as F
from spanning_models import NETWORKS, digits
from torch import nn

from obverse import Budget, Rule, Sparsifier, compact
from obverse.compact import file_bytes, macs, parameters
from obverse.errors import InvalidArgumentError
from obverse.sparsify import _aims

X, Y = digits()
STEPS = 30


def begin(name="convolutional", seed=0, **options):
    torch.manual_seed(seed)
    model = NETWORKS[name]()
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    arguments = {"groups": "channels", "total_steps": STEPS, "example_inputs": X[:4], **options}
    return model, optimizer, Sparsifier(model, optimizer, **arguments)


def train(model, optimizer, sparsifier, steps=STEPS):
    for step in range(steps):
        at = slice(64 * (step % 20), 64 * (step % 20) + 64)
        F.cross_entropy(model(X[at]), Y[at]).backward()
        optimizer.step()
        sparsifier.step()
        optimizer.zero_grad()


def shrunk(name, budget, **options):
    model, optimizer, sparsifier = begin(name, budget=budget, **options)
    train(model, optimizer, sparsifier)
    sparsifier.finish()
    return compact(model.eval(), X[:4])[0]


@pytest.mark.filterwarnings("ignore:the budget asks for macs:UserWarning")
@pytest.mark.parametrize("share", [0.4])
def test_parameters_products_and_bytes_of_what_is_left(share):
    dense = NETWORKS["convolutional"]()
    for name, cost, near in (
        ("parameters", parameters, 0.01),
        ("macs", lambda model: macs(model, X[:4]), 0.02),  # a channel of the residual stream is 5 %
        ("bytes", file_bytes, 0.01),
    ):
        small = shrunk("convolutional", Budget(**{name: int(share * cost(dense))}))
        assert abs(cost(small) / cost(dense) - share) < near, name


def test_several_aims_and_the_tightest_wins():
    dense = NETWORKS["lstm"]()
    small = shrunk("lstm", Budget(0.2, parameters=int(0.4 * parameters(dense)), macs=int(0.9 * macs(dense, X[:4]))))
    assert parameters(small) == pytest.approx(0.4 * parameters(dense), rel=0.05)
    assert macs(small, X[:4]) < 0.9 * macs(dense, X[:4])


@pytest.mark.parametrize("face", ["proximal", "hard-concrete"])
def test_parameters_and_bytes_where_single_weights_fall(face):
    dense = nn.Sequential(
        nn.Flatten(), nn.Linear(64, 200), nn.ReLU(), nn.Linear(200, 100), nn.ReLU(), nn.Linear(100, 10)
    )
    for name, limit, cost in (
        ("parameters", 5000, lambda model: parameters(model, nonzero=True)),
        ("bytes", 20_000, file_bytes),
    ):
        torch.manual_seed(0)
        model = nn.Sequential(*(type(m)(m.in_features, m.out_features) if hasattr(m, "weight") else m for m in dense))
        optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
        sparsifier = Sparsifier(model, optimizer, face=face, budget=Budget(**{name: limit}), total_steps=STEPS)
        sparsifier.join()
        train(model, optimizer, sparsifier)
        sparsifier.finish()
        assert not any(bool(torch.signbit(p[p == 0]).any()) for p in model.parameters())  # -0.0 has to be stored
        assert abs(cost(model) - limit) < 0.01 * cost(dense), name


def test_seconds_are_measured_on_the_smaller_model(monkeypatch):
    seen = []

    def clock(model, inputs, repeats):
        assert torch.equal(inputs.args[0], X[:4])
        return types.SimpleNamespace(median=1e-9 * parameters(model))

    def ratio(model, reference, inputs, repeats):
        assert torch.equal(inputs.args[0], X[:4])
        assert not model.training
        seen.append(parameters(model))
        return parameters(model) / parameters(reference)

    monkeypatch.setattr(_aims, "latency", clock)
    monkeypatch.setattr(_aims, "time_ratio", ratio)
    dense = parameters(NETWORKS["convolutional"]())
    small = shrunk("convolutional", Budget(latency=0.5e-9 * dense))
    assert abs(parameters(small) / dense - 0.5) < 0.05
    # At each stage on the way and at the freeze; never the model with zeros in it.
    assert len(seen) > 20
    assert min(seen) < 0.4 * dense


def test_a_real_clock_runs():
    with pytest.raises(InvalidArgumentError, match="latency of at most 1000"):
        begin(budget=Budget(latency=1000.0))
    model, optimizer, sparsifier = begin(budget=Budget(latency=1e-9), total_steps=4)
    with pytest.warns(UserWarning, match="latency of at most 1e-09"):
        train(model, optimizer, sparsifier, 4)
    assert sparsifier.sparsity > 0.8


def test_a_resumed_run_knows_what_was_found():
    dense = parameters(NETWORKS["lstm"]())
    budget = Budget(parameters=dense // 2)
    model, optimizer, sparsifier = begin("lstm", budget=budget)
    train(model, optimizer, sparsifier, 10)
    assert "parameters" in repr(sparsifier)
    again = begin("lstm", budget=budget)
    again[0].load_state_dict(model.state_dict())
    again[1].load_state_dict(optimizer.state_dict())
    again[2].load_state_dict(sparsifier.state_dict())
    assert again[2].target == sparsifier.target > 0


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"budget": Budget(macs=1000), "example_inputs": None, "groups": "weights"}, "example_inputs"),
        ({"budget": Budget(latency=1e-3), "example_inputs": None, "groups": "units"}, "example_inputs"),
        ({"budget": Budget(parameters=10**9)}, "as it is"),
        ({"budget": Budget(parameters=5000), "rules": [Rule("stem", budget=0.5)]}, "leave out one or the other"),
        ({"budget": Budget(0.5), "rules": [Rule("stem", budget=Budget(bytes=5000))]}, "costs of the whole model"),
    ],
)
def test_what_cannot_be_told_is_refused(options, words):
    with pytest.raises(InvalidArgumentError, match=words):
        begin(**options)


@pytest.mark.parametrize("name", ["parameters", "macs", "bytes", "latency"])
@pytest.mark.parametrize("value", [0, -1.0, float("inf"), float("nan"), True, "5"])
def test_costs_out_of_range(name, value):
    with pytest.raises(InvalidArgumentError, match=name):
        Budget(**{name: value})


def test_ceilings_out_of_range():
    for ceiling in (0, 1.5, True):
        with pytest.raises(InvalidArgumentError, match="ceiling"):
            Budget(0.5, ceiling=ceiling)
    with pytest.raises(InvalidArgumentError, match="ceiling"):
        Budget(0.5, floor=0.3, ceiling=0.2)
    with pytest.raises(InvalidArgumentError, match="floor"):
        Rule("a", floor=2.0)
    with pytest.raises(InvalidArgumentError, match="above ceiling"):
        Rule("a", floor=0.5, ceiling=0.2)


@pytest.mark.filterwarnings("ignore:the budget asks for:UserWarning")
def test_floors_and_ceilings_of_layers():
    rules = [Rule("stem", ceiling=0.25), Rule("hidden", floor=0.75)]
    small = shrunk("convolutional", Budget(0.5), rules=rules)
    assert small.stem.out_channels == 4
    assert small.hidden.out_features >= 24
