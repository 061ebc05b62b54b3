"""Groups that span tensors: what training zeroes is what compaction takes out, from the first step to the file."""

from __future__ import annotations

import copy

import pytest
import torch
import torch.nn.functional as F
from spanning_models import NETWORKS, Convolutional, Recurrent, digits
from torch import nn

from obverse import Budget, Rule, Sparsifier, compact
from obverse.compact import parameters
from obverse.errors import InvalidArgumentError, StateError, UnknownNameError

X, Y = digits()
STEPS = 40


# Whole heads and channels of small models are more than 1 % of their parameters.
pytestmark = pytest.mark.filterwarnings("ignore:the budget asks for:UserWarning")


def images(name):
    return (16 * X.flatten(1)).long() if name == "bag" else X


def train(model, sparsifier, optimizer, steps=STEPS, inputs=X):
    for step in range(steps):
        at = slice(64 * (step % 20), 64 * (step % 20) + 64)
        loss = F.cross_entropy(model(inputs[at])[:, :10], Y[at]) + sparsifier.penalty()
        loss.backward()
        optimizer.step()
        sparsifier.step()
        optimizer.zero_grad()


def begin(name, seed=0, **options):
    torch.manual_seed(seed)
    model = NETWORKS[name]()
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    arguments = {
        "groups": "channels",
        "budget": Budget(0.6),
        "total_steps": STEPS,
        "example_inputs": images(name)[:2],
        **options,
    }
    return model, optimizer, Sparsifier(model, optimizer, **arguments)


@pytest.mark.parametrize(
    ("name", "face"),
    [
        *((name, "proximal") for name in NETWORKS),
        *(("convolutional", "reweighted"), ("lstm", "reweighted"), ("encoder", "magnitude"), ("gru", "random")),
    ],
)
def test_what_training_zeroes_is_what_compaction_takes_out(name, face):
    model, optimizer, sparsifier = begin(name, face=face)
    before, total = parameters(model), sum(pool.weights for pool in sparsifier._pools)
    train(model, sparsifier, optimizer, inputs=images(name))
    sparsifier.finish()
    nearest = max(member.group_size for member in sparsifier._members) / total / 2
    assert sparsifier.sparsity == pytest.approx(0.6, abs=nearest + 0.01)
    small, certificate = compact(model.eval(), images(name)[:4])
    assert not any("refused" in note for note in certificate.notes)
    assert all(d.difference <= 1e-10 * max(1, d.scale) for d in certificate.differences if d.dtype == "float64")
    assert parameters(small) == before - round(sparsifier.sparsity * total)
    assert [r for r in certificate.refusals if "output" not in r.reason] == []


def test_the_network_still_knows_its_digits():
    model, optimizer, sparsifier = begin("convolutional", budget=Budget(0.7), total_steps=200)
    train(model, sparsifier, optimizer, 200)
    sparsifier.finish()
    small, _ = compact(model.eval(), X[:4])
    assert parameters(small) < 0.4 * parameters(model)
    with torch.no_grad():
        assert float((small(X[1280:]).argmax(1) == Y[1280:]).float().mean()) > 0.8


def test_zeros_stay_zero_in_all_tensors_of_a_group():
    model, optimizer, sparsifier = begin("convolutional")
    train(model, sparsifier, optimizer)
    sparsifier.finish()
    size = parameters(compact(model.eval(), X[:2])[0])
    free = torch.optim.AdamW(model.train().parameters(), lr=1e-2, weight_decay=0.1)
    for _ in range(5):
        F.cross_entropy(model(X[:64]), Y[:64]).backward()
        free.step()
        free.zero_grad()
    assert parameters(compact(model.eval(), X[:2])[0]) == size


def test_the_magnitude_of_a_group_is_that_of_all_its_weights():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3), nn.ReLU(), nn.Linear(3, 2)).eval()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    sparsifier = Sparsifier(
        model, optimizer, groups="units", budget=0.5, total_steps=10, example_inputs=torch.randn(2, 4)
    )
    (member,) = sparsifier._members
    for unit in range(3):
        whole = [model[0].weight[unit], model[0].bias[unit], model[1].weight[unit], model[1].bias[unit]]
        whole = torch.cat([part.reshape(-1) for part in (*whole, model[3].weight[:, unit])])
        assert member.magnitude()[unit] == pytest.approx(whole.detach().square().mean().sqrt().item(), rel=1e-6)
    before = [parameter.detach().clone() for parameter in model.parameters()]
    member.multiply(torch.tensor([0.5, 1.0, 0.0]))
    factor = torch.tensor([0.5, 1.0, 0.0])
    for old, new in zip(before[:4], list(model.parameters())[:4], strict=True):
        assert torch.equal(new, old * (factor[:, None] if old.ndim == 2 else factor))
    assert torch.equal(model[3].weight, before[4] * factor)
    assert torch.equal(model[3].bias, before[5])


def test_a_weight_that_a_group_reaches_twice_counts_once():
    torch.manual_seed(0)
    model = Recurrent()
    sparsifier = Sparsifier(
        model,
        torch.optim.SGD(model.parameters(), 0.1),
        groups="hidden",
        budget=0.5,
        total_steps=9,
        example_inputs=X[:2],
    )
    (member,) = sparsifier._members
    rows, columns = 4 * (8 + 32 + 2), 4 * 32 + 10
    assert member.group_size == rows + columns - 4
    inner = dict(model.named_parameters())["cell.weight_hh_l0"]
    before = inner.detach().clone()
    member.multiply(torch.cat([torch.tensor([0.5]), torch.ones(31)]))
    assert torch.equal(inner[::32, 0], before[::32, 0] * 0.5)
    assert torch.equal(inner[::32, 1], before[::32, 1] * 0.5)
    assert torch.equal(inner[1, 0], before[1, 0] * 0.5)


@pytest.mark.parametrize("face", ["proximal", "reweighted"])
def test_a_strength_empties_groups_at_its_stationary_point(face):
    # Inputs that say nothing of the labels: past the largest strength everything removable falls.
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 2))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    sparsifier = Sparsifier(model, optimizer, "lasso", face, "units", strength=0.3, example_inputs=torch.randn(2, 6))
    x, y = torch.randn(64, 6), torch.randint(2, (64,))
    F.cross_entropy(model(x), y).backward()
    assert sparsifier.largest_strength() > 0
    for _ in range(200):
        optimizer.zero_grad()
        F.cross_entropy(model(x), y).backward()
        optimizer.step()
        sparsifier.step()
    sparsifier.finish()
    assert sparsifier.sparsity == 1
    assert sparsifier.layers()[0]["nonzero"] == 0


def test_resume_equals_uninterrupted():
    model, optimizer, sparsifier = begin("lstm", face="reweighted")
    train(model, sparsifier, optimizer, 20)
    saved = [{k: v.clone() for k, v in model.state_dict().items()}, optimizer.state_dict(), sparsifier.state_dict()]
    saved = copy.deepcopy(saved)
    train(model, sparsifier, optimizer, 20)
    sparsifier.finish()
    again, optimizer, sparsifier = begin("lstm", seed=5, face="reweighted")
    again.load_state_dict(saved[0])
    optimizer.load_state_dict(saved[1])
    sparsifier.load_state_dict(saved[2])
    train(again, sparsifier, optimizer, 20)
    sparsifier.finish()
    for a, b in zip(model.parameters(), again.parameters(), strict=True):
        assert torch.equal(a, b)


def test_rules_speak_of_the_tensor_that_names_a_family():
    _, _, sparsifier = begin("convolutional")
    assert [row["name"] for row in sparsifier.layers()] == ["stem.weight", "one.weight", "two.weight", "hidden.weight"]
    rules = [Rule("one", skip=True), Rule("hidden", groups="units", budget=0.5), Rule("stem", floor=0.9)]
    model, optimizer, sparsifier = begin("convolutional", rules=rules, groups="filters", budget=Budget(0.3))
    assert [row["name"] for row in sparsifier.layers()] == ["stem.weight", "two.weight", "hidden.weight"]
    train(model, sparsifier, optimizer)
    sparsifier.finish()
    small, _ = compact(model.eval(), X[:2])
    assert small.one.out_channels == 24
    assert small.hidden.out_features == 16
    assert small.stem.out_channels >= 14


def test_frozen_tensors_keep_their_groups():
    torch.manual_seed(0)
    model = Convolutional()
    model.hidden.weight.requires_grad_(False)
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.1)
    sparsifier = Sparsifier(model, optimizer, groups="channels", budget=0.5, total_steps=9, example_inputs=X[:2])
    assert [row["name"] for row in sparsifier.layers()] == ["stem.weight", "one.weight"]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"face": "dropout"}, "one draw"),
        ({"face": "hard-concrete"}, "one draw"),
        ({"curvature": "gradients"}, "tensor by tensor"),
        ({"groups": "heads"}, "nothing to regularize"),
        ({"example_inputs": None}, "give example_inputs"),
        ({"example_inputs": torch.randn(2, 3)}, "does not run"),
    ],
)
def test_what_cannot_be_is_refused_in_words(options, words):
    with pytest.raises(InvalidArgumentError, match=words):
        begin("lstm", **options)


def test_other_refusals():
    for groups in ("weights", "inputs"):
        with pytest.raises(UnknownNameError, match="example_inputs"):
            begin("lstm", groups=groups)
    model, optimizer, sparsifier = begin("lstm")
    with pytest.raises(StateError, match="another Sparsifier"):
        Sparsifier(model, optimizer, groups="hidden", budget=0.5, total_steps=9, example_inputs=X[:2])
    with pytest.raises(InvalidArgumentError, match="one draw"):
        sparsifier.switch("dropout")
    sparsifier.switch("reweighted")


def test_shards_are_refused(monkeypatch):
    monkeypatch.setattr("obverse.sparsify._spanning.is_sharded", lambda tensor: True)
    with pytest.raises(InvalidArgumentError, match="FSDP"):
        begin("lstm")
