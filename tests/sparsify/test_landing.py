"""A budget of costs is an upper bound: it is met, as nearly as the groups allow, or refused, or its miss is said."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from spanning_models import NETWORKS, digits
from torch import nn

from obverse import Budget, Rule, Sparsifier, compact
from obverse.compact import macs, parameters
from obverse.errors import InvalidArgumentError
from obverse.graph import estimated_bytes
from obverse.sparsify import SparsityWarning

X, Y = digits()
STEPS = 12


def perceptron() -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 48), nn.ReLU(), nn.Linear(48, 32), nn.ReLU(), nn.Linear(32, 10))


def begin(name: str, budget: Budget, steps: int = STEPS, **options: object) -> tuple[nn.Module, Sparsifier, object]:
    torch.manual_seed(0)
    model = perceptron() if name == "perceptron" else NETWORKS[name]()
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    arguments = {"groups": "channels", "example_inputs": X[:2], **options}
    if arguments["groups"] not in ("channels",):
        del arguments["example_inputs"]
    return model, Sparsifier(model, optimizer, budget=budget, total_steps=steps, **arguments), optimizer


def trained(name: str, budget: Budget, **options: object) -> tuple[nn.Module, Sparsifier]:
    model, sparsifier, optimizer = begin(name, budget, **options)
    for step in range(STEPS):
        at = slice(64 * step, 64 * step + 64)
        F.cross_entropy(model(X[at]), Y[at]).backward()
        optimizer.step()
        sparsifier.step()
        optimizer.zero_grad()
    sparsifier.finish()
    return model.eval(), sparsifier


@pytest.mark.parametrize(
    ("name", "share"),
    [
        (n, s)
        for n in ("perceptron", "convolutional", "encoder", "lstm")
        for s in ((0.61, 0.37) if n == "encoder" else (0.9, 0.37, 0.12))
    ],
)
def test_parameters_end_at_or_below_the_budget_and_near_it(name: str, share: float) -> None:
    dense = parameters(perceptron() if name == "perceptron" else NETWORKS[name]())
    limit = int(share * dense)
    model, sparsifier = trained(name, Budget(parameters=limit))
    left = parameters(compact(model, X[:2])[0])
    assert left <= limit
    # No group of any family could be given back.
    smallest = min(member.group_size for member in sparsifier._members)
    assert limit - left < max(smallest, 0.02 * dense)
    assert sparsifier.notes == []


@pytest.mark.parametrize("share", [0.8, 0.45, 0.2])
def test_products_and_bytes_are_bounds(share: float) -> None:
    dense = NETWORKS["convolutional"]()
    for name, cost in (("macs", lambda model: macs(model, X[:2])), ("bytes", estimated_bytes)):
        limit = int(share * cost(dense))
        model, _ = trained("convolutional", Budget(**{name: limit}))
        assert 0.9 * limit < cost(compact(model, X[:2])[0]) <= limit, name


@pytest.mark.parametrize("groups", ["weights", "units", "inputs"])
@pytest.mark.parametrize("limit", [5000, 2777, 1501])
def test_parameters_within_tensors_are_a_bound(groups: str, limit: int) -> None:
    model, sparsifier = trained("perceptron", Budget(parameters=limit), groups=groups)
    fixed = parameters(model) - sum(row["weights"] for row in sparsifier.layers())
    left = fixed + sum(row["nonzero"] for row in sparsifier.layers())
    assert limit - max(member.group_size for member in sparsifier._members) < left <= limit


def test_several_bounds_hold_together() -> None:
    dense = NETWORKS["lstm"]()
    bounds = {"parameters": int(0.5 * parameters(dense)), "macs": int(0.5 * macs(dense, X[:2]))}
    model, sparsifier = trained("lstm", Budget(0.2, **bounds))
    small = compact(model, X[:2])[0]
    assert parameters(small) <= bounds["parameters"]
    assert macs(small, X[:2]) <= bounds["macs"]
    assert sparsifier.sparsity >= 0.2


@pytest.mark.parametrize("name", ["parameters", "macs", "bytes"])
def test_a_budget_below_the_smallest_model_is_refused_with_its_size(name: str) -> None:
    with pytest.raises(
        InvalidArgumentError, match=rf"the smallest model .* has [\d,]+ {name}; the budget of 20 cannot"
    ):
        begin("convolutional", Budget(**{name: 20}))
    torch.manual_seed(0)
    model = NETWORKS["convolutional"]()
    Sparsifier(model, torch.optim.SGD(model.parameters(), 0.1), strength=0.1)  # nothing holds its weights


@pytest.mark.parametrize("groups", ["weights", "units"])
def test_parameters_that_single_tensors_cannot_reach_are_refused(groups: str) -> None:
    with pytest.raises(InvalidArgumentError, match="the smallest model"):
        begin("perceptron", Budget(parameters=80), groups=groups)


@pytest.mark.parametrize(("groups", "sparsity"), [("weights", 0.999999), ("units", 0.999)])
def test_a_sparsity_beyond_one_group_in_every_layer_is_refused(groups: str, sparsity: float) -> None:
    with pytest.raises(InvalidArgumentError, match=r"cannot be met beyond a sparsity of 0\.9"):
        begin("perceptron", Budget(sparsity), groups=groups)


@pytest.mark.filterwarnings("ignore:no weight left in:UserWarning")
def test_floors_of_rules_come_before_a_sparsity_and_the_miss_is_said() -> None:
    with pytest.warns(SparsityWarning, match=r"the budget asks for a sparsity of 0\.9; 0\.498 is the nearest"):
        _, sparsifier = trained("perceptron", Budget(0.9), groups="weights", rules=[Rule("1", floor=0.8)])
    assert any("the budget asks for a sparsity of 0.9" in line for line in sparsifier.notes)


@pytest.mark.filterwarnings("ignore:no weight left in:UserWarning")
def test_a_small_miss_of_a_small_remainder_is_said() -> None:
    # 0.2 % more than asked is five times what should be left.
    rules = [Rule("1", floor=0.004)]
    with pytest.warns(SparsityWarning, match=r"sparsity of 0\.999; 0\.99716 is the nearest"):
        trained("perceptron", Budget(0.999), groups="weights", rules=rules)


@pytest.mark.filterwarnings("ignore:no weight left in:UserWarning")
def test_a_tensor_without_weights_is_named() -> None:
    model, sparsifier, optimizer = begin("perceptron", Budget(0.9, floor=0.0), groups="weights")
    with torch.no_grad():
        model[3].weight.mul_(1e-6)
    for _ in range(7):
        optimizer.step()
        sparsifier.step()
    optimizer.step()
    with pytest.warns(SparsityWarning, match=r"'3\.weight' has no weight left"):
        sparsifier.step()


def test_weights_without_a_path_are_named() -> None:
    model, sparsifier, optimizer = begin("perceptron", Budget(0.9, ramp=0.0, hold=0.1), groups="weights")
    with torch.no_grad():  # what leads into the first half of the units is kept, what leaves the second half
        model[1].weight[:24] += 5 * model[1].weight[:24].sign()
        model[3].weight[:, 24:] += 5 * model[3].weight[:, 24:].sign()
        model[5].weight += 5 * model[5].weight.sign()
    for _ in range(STEPS):
        for group in optimizer.param_groups:
            group["lr"] = 1e-9
        F.cross_entropy(model(X[:64]), Y[:64]).backward()
        optimizer.step()
        sparsifier.step()
        optimizer.zero_grad()
    with pytest.warns(SparsityWarning, match=r"no weight left in '1\.weight' has a path"):
        sparsifier.finish()
