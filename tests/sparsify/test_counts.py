"""Every number of zeros that a Sparsifier reports is the number of zeros in the model, and what compaction leaves."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from spanning_models import NETWORKS, digits
from sparsify_matrix import MODELS, start
from torch import nn

from obverse import Budget, Rule, Sparsifier, compact
from obverse.compact import parameters
from obverse.errors import InvalidArgumentError

X, Y = digits()
STEPS = 12

# Whole groups of small models miss a budget by more than a point.
pytestmark = pytest.mark.filterwarnings("ignore:the budget asks for:UserWarning")

PERCEPTRON = "perceptron"


def perceptron() -> nn.Module:
    """Two hidden layers: every weight between them belongs to a unit of either."""
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 48), nn.ReLU(), nn.Linear(48, 32), nn.ReLU(), nn.Linear(32, 10))


def spanning(name: str, groups: str, **options: object) -> tuple[nn.Module, Sparsifier, torch.Tensor]:
    """A model, trained a little toward a budget of groups that span its tensors."""
    torch.manual_seed(0)
    model = perceptron() if name == PERCEPTRON else NETWORKS[name]()
    inputs = (16 * X.flatten(1)).long() if name == "bag" else X
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    arguments = {"budget": Budget(0.6), "total_steps": STEPS, "example_inputs": inputs[:2], **options}
    sparsifier = Sparsifier(model, optimizer, groups=groups, **arguments)
    for step in range(STEPS):
        at = slice(64 * step, 64 * step + 64)
        F.cross_entropy(model(inputs[at])[:, :10], Y[at]).backward()
        optimizer.step()
        sparsifier.step()
        optimizer.zero_grad()
    return model, sparsifier, inputs


def zeros(model: nn.Module) -> int:
    return sum(int((p == 0).sum()) for p in model.parameters())


KINDS = ("units", "filters", "heads", "hidden", "embedding", "channels")
OWN = {  # the kinds of groups that a network has
    PERCEPTRON: ("units",),
    "convolutional": ("units", "filters"),
    "encoder": ("units", "heads"),
    "grouped queries": ("units", "heads"),
    "root mean square": ("units", "heads"),
    "lstm": ("hidden",),
    "gru": ("hidden",),
    "bag": ("units", "embedding"),
}


@pytest.mark.parametrize(("name", "groups"), [(name, kind) for name in (PERCEPTRON, *NETWORKS) for kind in KINDS])
def test_groups_that_span_tensors_are_counted_as_compaction_counts(name: str, groups: str) -> None:
    if groups not in (*OWN[name], "channels"):
        with pytest.raises(InvalidArgumentError, match="nothing to regularize"):
            spanning(name, groups)
        return
    model, sparsifier, inputs = spanning(name, groups)
    before = parameters(model)
    sparsifier.finish()
    layers = sparsifier.layers()
    weights, nonzero = sum(row["weights"] for row in layers), sum(row["nonzero"] for row in layers)
    assert {type(row[key]) for row in layers for key in ("weights", "nonzero")} == {int}
    assert all(0 <= row["nonzero"] <= row["weights"] for row in layers)
    assert weights <= before
    assert sparsifier.sparsity == 1 - nonzero / weights
    assert sparsifier.trajectory[-1]["sparsity"] == pytest.approx(sparsifier.sparsity, abs=1e-12)
    # Biases and normalization start at zero: only what the groups hold is counted, and all of that is zero.
    assert zeros(model) >= weights - nonzero
    small, _ = compact(model.eval(), inputs[:2])
    assert parameters(small) == before - (weights - nonzero)


def test_families_of_several_budgets_are_counted_once_too() -> None:
    model, sparsifier, inputs = spanning(PERCEPTRON, "channels", rules=[Rule("3.weight", budget=0.4)])
    sparsifier.finish()
    layers = sparsifier.layers()
    weights, nonzero = sum(row["weights"] for row in layers), sum(row["nonzero"] for row in layers)
    assert weights == parameters(model) - 10  # all but the biases of the outputs
    assert sparsifier.sparsity == 1 - nonzero / weights
    small, _ = compact(model.eval(), inputs[:2])
    assert parameters(small) == parameters(model) - (weights - nonzero)


@pytest.mark.parametrize("groups", ["weights", "units", "inputs", "filters"])
@pytest.mark.parametrize("name", MODELS)
def test_groups_within_a_tensor_are_counted_as_they_are_in_the_model(name: str, groups: str) -> None:
    try:
        run = start(name, "proximal", groups=groups, budget=Budget(0.5), total_steps=STEPS)
    except InvalidArgumentError:
        return  # there are no such groups
    run.step(STEPS)
    run.sparsifier.finish()
    tensors = dict(run.model.named_parameters())
    layers = run.sparsifier.layers()
    for row in layers:
        assert row["weights"] == tensors[row["name"]].numel()
        assert row["nonzero"] == int(tensors[row["name"]].count_nonzero())
    weights, nonzero = sum(row["weights"] for row in layers), sum(row["nonzero"] for row in layers)
    assert run.sparsifier.sparsity == 1 - nonzero / weights
    assert run.sparsifier.trajectory[-1]["sparsity"] == run.sparsifier.sparsity


def test_a_weight_of_two_families_belongs_to_the_unit_it_leads_to() -> None:
    _, sparsifier, _ = spanning(PERCEPTRON, "channels")
    rows = {row["name"]: row["weights"] for row in sparsifier.layers()}
    # The second family has its own rows and biases, and the columns that read it; the first nothing but its own.
    assert rows == {"1.weight": 64 * 48 + 48, "3.weight": 48 * 32 + 32 + 32 * 10}
