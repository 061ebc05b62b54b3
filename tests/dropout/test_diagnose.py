"""Diagnosis of trained models: exact values, fixed features against descent, and nothing left behind."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from scipy.optimize import minimize
from torch import nn
from torch.utils.data import DataLoader, IterableDataset, TensorDataset

from obverse.dropout import (
    Bernoulli,
    Blocks,
    Channel,
    Connect,
    DropBlock2d,
    DropConnect,
    Dropout,
    SlidingBlock,
    deep_linear,
    diagnose,
    explicit_penalty,
    insert_dropout,
    marginalized,
)
from obverse.errors import InvalidArgumentError, NonFiniteError


def relu_net(bias: bool = True, p: float = 0.3) -> nn.Sequential:
    torch.manual_seed(1)
    return nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Dropout(p), nn.Linear(8, 3, bias=bias))


def regression(rows: int = 90) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(2)
    x = torch.randn(rows, 6, generator=generator)
    return x, x @ torch.randn(6, 3, generator=generator) + 0.5


def features_of(model: nn.Sequential, x: torch.Tensor) -> torch.Tensor:
    with torch.no_grad():
        return model[:-1].eval()(x).double().flatten(1)


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("law", [Bernoulli(0.7), Bernoulli(np.linspace(0.4, 0.9, 8)), Blocks(0.6, 4)])
def test_values_are_exact_and_the_fixed_optimum_is_what_descent_finds(bias: bool, law: Any) -> None:
    model, (x, y) = relu_net(bias), regression()
    found = diagnose(model, (x, y), law=law)
    h, wide = features_of(model, x), y.double()
    weight = model[-1].weight.detach().double()
    assert found.regularizer == pytest.approx(float(explicit_penalty(weight, h, law)), rel=1e-10)
    assert found.exact
    offset = model[-1].bias.detach().double() if bias else torch.zeros(3, dtype=torch.float64)
    error = float((h @ weight.T + offset - wide).square().sum(1).mean())
    assert found.mean_squared_error == pytest.approx(error, rel=1e-6)
    assert found.expected_loss == pytest.approx(error + found.regularizer, rel=1e-6)
    assert sum(found.unit_shares["3"]) == pytest.approx(1)

    def objective(flat: np.ndarray) -> tuple[float, np.ndarray]:
        free = torch.tensor(flat, requires_grad=True)
        u, b = free[:24].reshape(3, 8), free[24:]
        value = (h @ u.T + (b if bias else 0.0) - wide).square().sum(1).mean() + explicit_penalty(u, h, law)
        (slope,) = torch.autograd.grad(value, free)
        return float(value.detach()), slope.numpy()

    best = minimize(objective, np.zeros(27), jac=True, method="L-BFGS-B", options={"ftol": 1e-16, "gtol": 1e-10})
    assert found.fixed_optimum == pytest.approx(best.fun, rel=1e-9)
    predictions = h.numpy() @ best.x[:24].reshape(3, 8).T
    centered = predictions - predictions.mean(0) if bias else predictions
    singular = np.linalg.svd(centered / np.sqrt(len(x)), compute_uv=False)
    np.testing.assert_allclose(found.fixed_singular_values, singular, rtol=1e-4, atol=1e-7)
    assert found.fixed_optimum <= found.expected_loss
    assert found.free_optimum <= found.fixed_optimum
    assert found.ratio >= 1
    assert found.equalization_gap == pytest.approx(found.regularizer - found.bound)


def test_free_features_are_shrunk_as_one_hidden_layer_shrinks() -> None:
    model, (x, y) = relu_net(), regression()
    found = diagnose(model, DataLoader(TensorDataset(x, y), batch_size=32))  # 32, 32, 26
    centered = (y - y.mean(0)).double().numpy() / np.sqrt(len(x))
    m = np.linalg.svd(centered, compute_uv=False)
    np.testing.assert_allclose(found.target_singular_values, m, rtol=1e-6)
    optimum = deep_linear.global_optimum(None, np.diag(m), keep_probability=0.7, widths=8)
    np.testing.assert_allclose(found.predicted_singular_values, optimum.singular_values, rtol=1e-6)
    assert found.free_optimum == pytest.approx(optimum.value, rel=1e-6)
    with torch.no_grad():
        outputs = model.eval()(x).double()
    actual = np.linalg.svd((outputs - outputs.mean(0)).numpy() / np.sqrt(len(x)), compute_uv=False)
    np.testing.assert_allclose(found.singular_values, actual, rtol=1e-5)
    assert found.stable_rank == pytest.approx((actual**2).sum() / actual[0] ** 2, rel=1e-5)


class Stream(IterableDataset[Any]):
    def __init__(self, x: torch.Tensor, y: torch.Tensor) -> None:
        self.pairs = list(zip(x, y, strict=True))

    def __iter__(self) -> Any:
        return iter(self.pairs)


def test_every_source_of_batches_gives_the_same() -> None:
    model, (x, y) = relu_net(), regression()
    wanted = diagnose(model, (x, y))
    for data in (
        (x.numpy(), y.numpy()),
        TensorDataset(x, y),
        Stream(x, y),
        DataLoader(TensorDataset(x, y), batch_size=40),
        [(x[:50], y[:50]), (x[50:50], y[50:50]), [x[50:], y[50:]]],
        ((x[i : i + 7].numpy(), y[i : i + 7].numpy()) for i in range(0, 90, 7)),
    ):
        found = diagnose(model, data)
        assert found.examples == 90
        assert found.regularizer == pytest.approx(wanted.regularizer, rel=1e-10)
        np.testing.assert_allclose(found.fixed_singular_values, wanted.fixed_singular_values, rtol=1e-8)
    assert diagnose(model, [(x, y)], max_examples=25).regularizer == pytest.approx(
        diagnose(model, (x[:25], y[:25])).regularizer
    )
    drawn = [diagnose(model, (x, y), max_examples=25, generator=torch.Generator().manual_seed(s)) for s in (0, 0, 1)]
    assert drawn[0].regularizer == drawn[1].regularizer != drawn[2].regularizer
    assert drawn[0].examples == 25


def test_a_large_mean_does_not_cancel() -> None:
    head = nn.Sequential(nn.Linear(4, 2)).double()
    x = 1e7 + torch.randn(300, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    y = torch.randn(300, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    found = diagnose(head, [(x[i : i + 13], y[i : i + 13]) for i in range(0, 300, 13)], keep_probability=0.5)
    predictions = ((x - x.mean(0)) @ head[0].weight.detach().T).numpy() / np.sqrt(300)
    np.testing.assert_allclose(found.singular_values, np.linalg.svd(predictions, compute_uv=False), rtol=1e-6)


@pytest.mark.parametrize("law", [Bernoulli(0.7), Blocks(0.6, 4), Connect(0.7)])
def test_cross_entropy_has_the_quadratic_form(law: Any) -> None:
    model, (x, _) = relu_net(), regression()
    labels = torch.arange(90) % 3
    h = features_of(model, x)
    head = nn.Linear(8, 3).double().requires_grad_(False)
    head.load_state_dict(model[-1].state_dict())
    for loss in (None, nn.CrossEntropyLoss(weight=torch.tensor([1.0, 2.0, 3.0], dtype=torch.float64))):
        found = diagnose(model, DataLoader(TensorDataset(x, labels), batch_size=40), law=law, loss=loss)
        wanted = explicit_penalty(head, h, law, loss or "cross-entropy", target=labels, form="quadratic")
        assert found.regularizer == pytest.approx(float(wanted), rel=1e-8)
        assert found.loss == "cross-entropy"
        assert not found.exact
        assert found.expected_loss is None
        assert sum(found.unit_shares["3"]) == pytest.approx(1)
        assert found.squared_regularizer == pytest.approx(float(explicit_penalty(head.weight, h, law)), rel=1e-8)


def test_kinds_of_labels() -> None:
    model, (x, y) = relu_net(), regression()
    labels = torch.arange(90) % 3
    wanted = diagnose(model, (x, labels), loss="squared")
    for same in (labels.int(), labels.unsqueeze(1), F.one_hot(labels, 3), F.one_hot(labels, 3).double()):
        found = diagnose(model, (x, same), loss="squared")
        assert found.fixed_optimum == pytest.approx(wanted.fixed_optimum)
    assert diagnose(model, (x, F.one_hot(labels, 3))).loss == "squared"
    one = nn.Sequential(nn.Linear(6, 5), nn.Tanh(), nn.Linear(5, 1))
    assert diagnose(one, (x, y[:, 0])).loss == "squared"
    assert diagnose(one, (x, y[:, 0] > 0)).loss == "logistic"
    for wrong in (labels + 1, labels - 1, y[:, :2], y[:, 0]):
        with pytest.raises(InvalidArgumentError, match="class labels"):
            diagnose(model, (x, wrong))


def test_centered_labels_have_one_rank_less_than_classes_at_every_rate() -> None:
    model, (x, _) = relu_net(), regression(200)
    for seed in range(5):
        labels = torch.randint(0, 3, (200,), generator=torch.Generator().manual_seed(seed))
        found = diagnose(model, (x, labels), keep_probability=0.999)
        assert (found.predicted_rank, found.target_singular_values[2]) == (2, 0.0)


def test_a_rate_of_zero_costs_nothing() -> None:
    found = diagnose(relu_net(p=0.0), regression())
    assert (found.regularizer, found.bound) == (0.0, 0.0)
    assert np.isnan(found.ratio)
    np.testing.assert_array_equal(found.predicted_singular_values, found.target_singular_values)
    with pytest.raises(InvalidArgumentError, match="never keeps"):
        diagnose(relu_net(p=1.0), regression())


def test_modes_come_back_and_hooks_go_also_after_an_error() -> None:
    model, (x, y) = relu_net(), regression()
    model.train()
    model[0].eval()
    before = {name: module.training for name, module in model.named_modules()}
    hooks = [len(module._forward_hooks) for module in model.modules()]
    diagnose(model, (x, y))
    for wrong in ([(x, y), (x, y[:, :2])], [(x, y), (x[:, :2], y)], [(x * torch.nan, y)]):
        with pytest.raises((InvalidArgumentError, RuntimeError)):
            diagnose(model, wrong)
    assert {name: module.training for name, module in model.named_modules()} == before
    assert [len(module._forward_hooks) for module in model.modules()] == hooks
    assert all(parameter.grad is None for parameter in model.parameters())
    with pytest.raises(NonFiniteError, match="layer '3'"):
        diagnose(model, (x * torch.inf, y))


def test_the_rate_is_that_of_the_layer_right_before() -> None:
    x, y = regression()
    assert diagnose(relu_net(p=0.2), (x, y)).laws == ("Bernoulli(keep_probability=0.8)",)
    bare = nn.Sequential(nn.Linear(6, 8), nn.Dropout(0.2), nn.ReLU(), nn.Linear(8, 3))
    found = diagnose(bare, (x, y))
    assert found.laws == ("Bernoulli(keep_probability=0.5)",)
    assert found.rate_source.startswith("assumed")
    own = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), Dropout(0.4, noise="gaussian"), nn.Identity(), nn.Linear(8, 3))
    assert "Gaussian" in diagnose(own, (x, y)).laws[0]
    bare = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 3))
    with insert_dropout(bare, {}, before={"2": Dropout(0.1)}):
        assert "2:input" in diagnose(bare, (x, y)).rate_source
    connected = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), DropConnect(nn.Linear(8, 3), p=0.3))
    plain = nn.Sequential(*connected[:2], nn.Dropout(0.3), nn.Linear(8, 3))
    plain[3].load_state_dict(connected[2].state_dict())
    assert diagnose(connected, (x, y)).regularizer == pytest.approx(diagnose(plain, (x, y)).regularizer)


def test_a_convolutional_head() -> None:
    torch.manual_seed(0)
    x, labels = torch.randn(40, 1, 6, 6), torch.arange(40) % 4
    body = [nn.Conv2d(1, 3, 3), nn.ReLU()]
    linear = nn.Linear(48, 4)
    for layer, law in ((nn.Dropout2d(0.2), Channel(0.8)), (DropBlock2d(0.2, 2), SlidingBlock(2, drop_rate=0.2))):
        model = nn.Sequential(*body, layer, nn.Flatten(), linear)
        with torch.no_grad():
            maps = nn.Sequential(*body)(x).double()
        found = diagnose(model, (x, labels), loss="squared")
        weight = linear.weight.detach().double()
        assert found.regularizer == pytest.approx(float(explicit_penalty(weight, maps, law)), rel=1e-8)
        assert diagnose(model, (x, labels), loss="squared", law=law).regularizer == pytest.approx(found.regularizer)
        form = explicit_penalty(linear.double(), maps, law, "cross-entropy", form="quadratic")
        assert diagnose(model.float(), (x, labels)).regularizer == pytest.approx(float(form.detach()), rel=1e-6)
        assert found.ratio >= 1
    assert found.predicted_singular_values is None  # sliding blocks
    assert any("closed form" in caveat for caveat in found.caveats)


def test_a_linear_stack_is_a_deep_linear_network() -> None:
    torch.manual_seed(3)
    x, y = regression(200)
    model = nn.Sequential(
        nn.Linear(6, 7, bias=False),
        nn.Dropout(0.2),
        nn.Linear(7, 5, bias=False),
        Dropout(0.4),
        nn.Linear(5, 3, bias=False),
    )
    found = diagnose(model, (x, y))
    weights = [model[i].weight.detach().double() for i in (0, 2, 4)]
    covariance, cross, energy = deep_linear.second_moments(x, y)
    wanted = deep_linear.diagnose(weights, [0.8, 0.6], covariance, cross)
    assert found.kind == "linear stack"
    assert list(found.layer_values) == ["2", "4"]
    np.testing.assert_allclose(list(found.layer_values.values()), wanted.layer_values, rtol=1e-9)
    np.testing.assert_allclose(found.predicted_singular_values, wanted.predicted_singular_values, atol=1e-9)
    assert found.equalization_gap == pytest.approx(wanted.equalization_gap)
    loss = deep_linear.objective(weights, [0.8, 0.6], covariance, cross, energy)
    assert found.expected_loss == pytest.approx(float(loss), rel=1e-5)
    assert found.expected_loss - found.free_optimum == pytest.approx(wanted.optimality_gap, rel=1e-4)
    given = diagnose(model, (x, y), keep_probability=[0.8, 0.6])
    assert given.regularizer == pytest.approx(found.regularizer)
    assert diagnose(model, (x, y), law=Bernoulli(0.5)).laws == ("Bernoulli(keep_probability=0.5)",) * 2


def test_the_regularizer_of_a_stack_with_biases_is_the_variance_of_its_output() -> None:
    torch.manual_seed(4)
    x, y = regression(20)
    model = nn.Sequential(nn.Linear(6, 2), nn.Dropout(0.5), nn.Linear(2, 2), nn.Dropout(0.25), nn.Linear(2, 3))
    model = model.double().requires_grad_(False)
    found = diagnose(model, (x.double(), y.double()))
    mean = model.eval()(x.double())
    total = 0.0
    for masks in np.ndindex(2, 2, 2, 2):
        chance = np.prod([0.5, 0.5, *(0.75 if mask else 0.25 for mask in masks[2:])])
        hidden = model[0](x.double()) * torch.tensor(masks[:2]) / 0.5
        hidden = model[2](hidden) * torch.tensor(masks[2:]) / 0.75
        total += chance * float((model[4](hidden) - mean).square().sum(1).mean())
    assert found.regularizer == pytest.approx(total, rel=1e-10)
    assert 0 < found.mean_cost < total
    assert found.free_optimum <= found.expected_loss


@pytest.mark.parametrize("bias", [True, False])
def test_a_stack_trained_to_the_end_has_the_predicted_singular_values(bias: bool) -> None:
    torch.manual_seed(0)
    x, y = (part.double() for part in regression(60))
    model = nn.Sequential(nn.Linear(6, 8, bias=bias), Dropout(0.4), nn.Linear(8, 3, bias=bias)).double()
    optimizer = torch.optim.LBFGS(model.parameters(), max_iter=400, line_search_fn="strong_wolfe", tolerance_change=0)

    def loss() -> torch.Tensor:
        optimizer.zero_grad()
        outputs = model(x)
        total = (outputs - y).square().sum(1).mean() + noise.penalty(outputs, y)
        total.backward()
        return total

    with marginalized(model, "squared") as noise:
        optimizer.step(loss)
    found = diagnose(model, (x, y))
    assert found.expected_loss == pytest.approx(found.free_optimum, rel=1e-6)
    np.testing.assert_allclose(found.singular_values, found.predicted_singular_values, rtol=1e-3, atol=1e-4)
    assert found.ratio == pytest.approx(1, abs=1e-4)
    assert found.mean_cost == pytest.approx(0, abs=1e-6)


class Functional(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.last, self.unused = nn.Linear(6, 8), nn.Linear(8, 3), nn.Linear(3, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.last(F.relu(self.first(x), inplace=True)).softmax(1)


def test_what_a_functional_model_hides_is_seen_in_the_numbers() -> None:
    x, y = regression()
    found = diagnose(Functional(), (x, y), keep_probability=0.9)
    assert (found.kind, found.layer, found.units) == ("last layer", "last", 8)
    assert any("goes on after" in caveat for caveat in found.caveats)


def test_bad_input_is_refused() -> None:
    model, (x, y) = relu_net(), regression()
    with pytest.raises(InvalidArgumentError, match=r"no torch\.nn\.Linear.*Conv2d"):
        diagnose(nn.Sequential(nn.Conv2d(1, 1, 3)), (x, y))
    with pytest.raises(InvalidArgumentError, match="not both"):
        diagnose(model, (x, y), law=Bernoulli(0.5), keep_probability=0.5)
    with pytest.raises(InvalidArgumentError, match="no example"):
        diagnose(model, [])
    with pytest.raises(InvalidArgumentError, match="pair"):
        diagnose(model, [x])
    with pytest.raises(InvalidArgumentError, match="iterable of pairs"):
        diagnose(model, 3)
    with pytest.raises(InvalidArgumentError, match="pair up"):
        diagnose(model, (x, y[:5]))
    with pytest.raises(InvalidArgumentError, match="broadcast"):
        diagnose(model, (x, y), keep_probability=[0.5, 0.6])
    with pytest.raises(InvalidArgumentError, match="max_examples"):
        diagnose(model, (x, y), max_examples=0)
    with pytest.raises(InvalidArgumentError, match=r"torch\.nn\.Module"):
        diagnose(lambda x: x, (x, y))  # type: ignore[arg-type]


def test_the_result_reads_and_is_plain() -> None:
    model, (x, y) = relu_net(), regression()
    found = diagnose(model, (x, y))
    for words in ("last layer '3'", "0.7", "equalization gap", "fixed features", "predicted rank", "ReLU"):
        assert words in str(found), words
    content = json.loads(json.dumps(found.to_dict(), allow_nan=False))
    assert content["regularizer"] == found.regularizer
    assert content["unit_shares"]["3"] == list(found.unit_shares["3"])
    assert content["singular_values"] == found.singular_values.tolist()
    dead = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 3))
    nn.init.zeros_(dead[2].weight)
    assert diagnose(dead, (x, y)).to_dict()["ratio"] is None
