"""The noise of the dropout face has the mean and variance it states, and leaves no trace on the module."""

from __future__ import annotations

import copy
import io

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from obverse import Sparsifier
from obverse.sparsify import Rule

LAYERS = {
    "linear": (lambda: nn.Linear(6, 4), (3, 6)),
    "conv1d": (lambda: nn.Conv1d(2, 3, 3, padding=1, stride=2), (2, 2, 8)),
    "conv2d": (lambda: nn.Conv2d(4, 4, 3, padding=1, groups=2, padding_mode="circular"), (2, 4, 5, 5)),
    "conv3d": (lambda: nn.Conv3d(1, 2, 2), (1, 1, 3, 3, 3)),
    "transposed": (lambda: nn.ConvTranspose2d(2, 3, 2), (1, 2, 3, 3)),
}


def attached(layer: nn.Module, law: str = "gaussian", groups: str = "weights", seed: int = 0) -> Sparsifier:
    optimizer = torch.optim.SGD(layer.parameters(), lr=1e-3)
    return Sparsifier(
        layer, optimizer, penalty="log-sum", face="dropout", strength=0.05, law=law, groups=groups, seed=seed
    )


@pytest.mark.parametrize("kind", LAYERS)
@pytest.mark.parametrize("law", ["gaussian", "bernoulli"])
def test_mean_and_variance_of_the_output(kind: str, law: str) -> None:
    torch.manual_seed(0)
    build, shape = LAYERS[kind]
    layer, x = build(), torch.randn(shape)
    sparsifier = attached(layer, law)
    plain = layer.eval()(x).detach()
    layer.train()
    (member,) = sparsifier._members
    variance = member.memory.clone()
    outputs = torch.stack([layer(x).detach() for _ in range(4000)])
    # The variance that independent noise on the weights gives: the layer applied to squares.
    squares = copy.deepcopy(layer).eval()
    with torch.no_grad():
        squares.weight.copy_(layer.weight**2 * variance)
        squares.bias.zero_()
    expected = squares(x**2).detach()
    standard_error = (expected / 4000).sqrt()
    assert float(((outputs.mean(0) - plain).abs() / (5 * standard_error + 1e-6)).max()) < 1
    assert float((outputs.var(0) / expected - 1).abs().mean()) < 0.06
    assert float((outputs.var(0).mean() / expected.mean() - 1).abs()) < 0.05


def test_evaluation_is_plain_and_nothing_is_renamed() -> None:
    model = nn.Sequential(nn.Linear(6, 4), nn.ReLU(), nn.Linear(4, 2))
    plain = copy.deepcopy(model)
    x = torch.randn(5, 6)
    sparsifier = attached(model)
    assert not torch.equal(model(x), plain(x))
    assert torch.equal(model.eval()(x), plain(x))
    assert list(model.state_dict()) == list(plain.state_dict())
    plain.load_state_dict(model.state_dict(), strict=True)
    model.train()
    copied = copy.deepcopy(model)
    assert torch.equal(copied(x), plain(x))  # a copy is a plain model
    buffer = io.BytesIO()
    torch.save(model, buffer)
    buffer.seek(0)
    assert torch.equal(torch.load(buffer, weights_only=False)(x), plain(x))
    sparsifier.finish(keep_zeros_after=False)
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())


def test_a_dropped_sparsifier_leaves_no_noise() -> None:
    model = nn.Linear(6, 4)
    x = torch.randn(5, 6)
    plain = model(x)
    sparsifier = attached(model)
    del sparsifier
    assert torch.equal(model(x), plain)


@pytest.mark.parametrize("kind", ["embedding", "attention", "units"])
def test_other_layers_see_a_noisy_weight_only_inside_the_forward_pass(kind: str) -> None:
    torch.manual_seed(0)
    if kind == "embedding":
        model: nn.Module = nn.Embedding(10, 4)
        run = lambda: model(torch.arange(10))  # noqa: E731
    elif kind == "attention":
        model = nn.MultiheadAttention(8, 2, batch_first=True)
        x = torch.randn(2, 3, 8)
        run = lambda: model(x, x, x)[0]  # noqa: E731
    else:
        model = nn.Linear(6, 4)
        inputs = torch.randn(2, 6)
        run = lambda: model(inputs)  # noqa: E731
    sparsifier = attached(model, groups="units" if kind == "units" else "weights")
    first, second = run(), run()
    assert not torch.equal(first, second)
    first.sum().backward()
    assert all(p.grad is not None and bool(p.grad.isfinite().all()) for p in model.parameters())
    assert not any("weight" in module.__dict__ or "in_proj_weight" in module.__dict__ for module in model.modules())
    model.eval()
    assert torch.equal(run(), run())
    assert sparsifier.phase == "train"


def test_a_failing_forward_pass_lifts_the_shadow() -> None:
    model = nn.Embedding(10, 4)
    sparsifier = attached(model)
    with pytest.raises(IndexError):
        model(torch.tensor([99]))
    assert "weight" not in model.__dict__
    assert sparsifier is not None


def test_the_gradient_of_the_noise_is_that_of_the_penalty() -> None:
    """E[grad] of the masked squared loss is grad of loss + strength/2 * w^2/eta (eta held), columns of unit norm."""
    torch.manual_seed(0)
    x = torch.randn(500, 6, dtype=torch.float64)
    x /= x.square().mean(0).sqrt()
    y = torch.randn(500, 1, dtype=torch.float64)
    layer = nn.Linear(6, 1, bias=False, dtype=torch.float64)
    sparsifier = attached(layer)
    total = torch.zeros_like(layer.weight)
    draws = 3000
    for _ in range(draws):
        layer.zero_grad()
        (F.mse_loss(layer(x), y) / 2).backward()
        total += layer.weight.grad / draws
    weights = layer.weight.detach()
    eta = sparsifier._members[0].penalty.eta(weights)
    expected = (x.T @ (x @ weights.T - y)).T / 500 + 0.05 * weights / eta
    torch.testing.assert_close(total, expected, atol=5e-3, rtol=0)


def test_noise_repeats_with_its_seed() -> None:
    x = torch.randn(5, 6)
    layer = nn.Linear(6, 4)
    outputs = []
    for seed in (1, 1, 2):
        sparsifier = attached(layer, seed=seed)
        outputs.append(layer(x))
        del sparsifier
    assert torch.equal(outputs[0], outputs[1])
    assert not torch.equal(outputs[0], outputs[2])


def test_recurrent_layers_see_noise_and_get_their_weights_back() -> None:
    torch.manual_seed(0)
    model = nn.LSTM(3, 4)
    x = torch.randn(2, 3)
    sparsifier = attached(model)
    assert not torch.equal(model(x)[0], model(x)[0])
    model(x)[0].sum().backward()
    assert all(p.grad is not None and bool(p.grad.isfinite().all()) for p in model.parameters())
    assert all(entry is own for entry, own in zip(model._flat_weights, model.parameters(), strict=True))
    assert torch.equal(model.eval()(x)[0], model(x)[0])
    assert sparsifier is not None


def test_attention_reads_its_output_projection_with_noise() -> None:
    model = nn.MultiheadAttention(8, 2, batch_first=True)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    rules = [Rule("in_proj_weight", skip=True)]
    sparsifier = Sparsifier(model, optimizer, face="dropout", strength=1.0, rules=rules)
    x = torch.randn(2, 3, 8)
    assert not torch.equal(model(x, x, x)[0], model(x, x, x)[0])
    assert "weight" not in model.out_proj.__dict__
    assert [layer["name"] for layer in sparsifier.layers()] == ["out_proj.weight"]


def test_a_layer_may_be_called_by_keyword() -> None:
    layer = nn.Linear(6, 4)
    sparsifier = attached(layer)
    x = torch.randn(2, 6)
    assert not torch.equal(layer(input=x), layer(input=x))
    assert sparsifier.phase == "train"


def test_a_weight_that_is_used_without_its_layer_is_named() -> None:
    layer = nn.Linear(6, 4)
    sparsifier = attached(layer)
    optimizer = sparsifier._metric.optimizer
    for _ in range(2):
        optimizer.step()
        sparsifier.step()
    optimizer.step()
    with pytest.warns(UserWarning, match="no noise was drawn for weight"):
        sparsifier.step()
