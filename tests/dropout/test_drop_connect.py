"""DropConnect: masks of weights per example, the local draw, moment-matched inference."""

from __future__ import annotations

import copy
import itertools
from typing import Any

import pytest
import torch
from torch import nn

from obverse.dropout._connect import Connect
from obverse.dropout._drop_connect import DropConnect
from obverse.dropout._explicit import explicit_penalty
from obverse.dropout._insert import insert_dropout
from obverse.errors import InvalidArgumentError, StateError, UnknownNameError

LAYERS: list[tuple[Any, tuple[int, ...]]] = [
    (lambda: nn.Linear(4, 3), (4,)),
    (lambda: nn.Linear(4, 3, bias=False), (2, 4)),
    (lambda: nn.Conv1d(4, 6, 3, stride=2, padding=1, groups=2), (4, 9)),
    (lambda: nn.Conv2d(2, 3, (3, 2), padding="same", dilation=2), (2, 5, 6)),
    (lambda: nn.Conv2d(2, 3, 3, padding=1, padding_mode="circular", bias=False), (2, 4, 5)),
    (lambda: nn.Conv3d(2, 3, 2), (2, 3, 3, 4)),
]


def seeded(build: Any) -> nn.Module:
    torch.manual_seed(0)
    module: nn.Module = build().double()
    return module


@pytest.mark.parametrize(("build", "shape"), LAYERS)
@pytest.mark.parametrize("bias", [False, True])
def test_each_example_sees_weights_of_its_own(build: Any, shape: tuple[int, ...], bias: bool) -> None:
    plain = seeded(build)
    layer = DropConnect(copy.deepcopy(plain), 0.4, bias=bias, generator=torch.Generator().manual_seed(1))
    x = torch.randn(5, *shape, dtype=torch.float64, requires_grad=True)
    output = layer(x)
    rng = torch.Generator().manual_seed(1)
    masks = Connect(0.6).sample((5, *plain.weight.shape), rng, dtype=torch.float64)
    biases = Connect(0.6).sample((5, 1 if plain.bias is None else len(plain.bias)), rng, dtype=torch.float64)
    rows = []
    for example in range(5):
        one = {"weight": plain.weight * masks[example]}
        if plain.bias is not None:
            one["bias"] = plain.bias * biases[example] if bias else plain.bias
        rows.append(torch.func.functional_call(plain, one, (x[example : example + 1],)))
    torch.testing.assert_close(output, torch.cat(rows))
    (truth,) = torch.autograd.grad(torch.cat(rows).square().sum(), plain.weight)
    output.square().sum().backward()
    torch.testing.assert_close(layer.weight.grad, truth)


@pytest.mark.parametrize(("build", "shape"), LAYERS)
@pytest.mark.parametrize("mode", ["weights", "local"])
def test_evaluation_names_and_variance(build: Any, shape: tuple[int, ...], mode: str) -> None:
    plain = seeded(build)
    layer = DropConnect(plain, 0.3, mode=mode, bias=True, generator=torch.Generator().manual_seed(0))
    assert list(layer.state_dict()) == list(plain.state_dict())
    assert dict(layer.named_parameters())["weight"] is plain.weight
    x = torch.randn(1, *shape, dtype=torch.float64)
    noisy = layer(x.expand(4000, *shape)).detach()
    mean = plain(x).detach()
    squared = {name: value.square() for name, value in plain.named_parameters()}
    variance = 0.3 / 0.7 * torch.func.functional_call(plain, squared, (x.square(),)).detach()
    assert ((noisy.mean(0) - mean[0]).abs() < 5 * (variance[0] / 4000).sqrt()).all()
    torch.testing.assert_close(noisy.var(0), variance[0], rtol=0.2, atol=1e-9)
    layer.eval()
    assert torch.equal(layer(x), plain(x))


@pytest.mark.parametrize(("build", "shape"), LAYERS)
@pytest.mark.parametrize("mode", ["weights", "local"])
@pytest.mark.parametrize("share", [(), "batch"])
def test_empty_batch_unbatched_input_copy_and_gradient(
    build: Any, shape: tuple[int, ...], mode: str, share: Any
) -> None:
    layer = DropConnect(seeded(build), 0.3, mode=mode, share=share)
    assert len(layer(torch.ones(0, *shape, dtype=torch.float64))) == 0
    single = shape[-1:] if len(shape) == 2 and "Linear" in repr(build()) else shape
    torch.manual_seed(1)
    one = layer(torch.ones(single, dtype=torch.float64))
    torch.manual_seed(1)
    torch.testing.assert_close(one, copy.deepcopy(layer)(torch.ones(1, *single, dtype=torch.float64))[0])
    one.sum().backward()
    assert layer.weight.grad is not None
    assert torch.isfinite(layer.weight.grad).all()


def test_expected_squared_loss_is_that_of_the_penalty() -> None:
    plain = seeded(lambda: nn.Linear(3, 2))
    x = torch.randn(4, 3, dtype=torch.float64)
    expected = torch.zeros((), dtype=torch.float64)
    for coins in itertools.product((0.0, 1.0), repeat=6):
        kept = sum(coins)
        mask = torch.tensor(coins, dtype=torch.float64).reshape(2, 3) / 0.7
        output = torch.nn.functional.linear(x, plain.weight * mask, plain.bias)
        expected += 0.7**kept * 0.3 ** (6 - kept) * output.square().sum() / 4
    truth = plain(x).square().sum() / 4 + explicit_penalty(plain, x, Connect(0.7))
    assert expected.item() == pytest.approx(truth.item(), rel=1e-12)


def test_moment_inference_averages_behind_the_activation() -> None:
    plain = seeded(lambda: nn.Linear(3, 2))
    layer = DropConnect(
        plain,
        0.5,
        inference="moments",
        activation=torch.relu,
        samples=20_000,
        generator=torch.Generator().manual_seed(0),
    )
    x = torch.randn(6, 3, dtype=torch.float64)
    assert (layer(x) >= 0).all()
    layer.eval()
    mean, deviation = plain(x), (x.square() @ plain.weight.square().T).sqrt()
    normal = torch.distributions.Normal(0.0, 1.0)
    ratio = mean / deviation
    truth = mean * normal.cdf(ratio) + deviation * normal.log_prob(ratio).exp()
    torch.testing.assert_close(layer(x), truth, rtol=0.0, atol=0.03)
    assert (truth - torch.relu(mean)).abs().max() > 0.1
    mean_only = DropConnect(plain, 0.5, activation=torch.relu).eval()
    assert torch.equal(mean_only(x), torch.relu(mean))


def test_no_noise_at_zero_inputs_has_finite_gradients() -> None:
    layer = DropConnect(nn.Linear(3, 2, bias=False), 0.5, mode="local")
    x = torch.zeros(2, 3, requires_grad=True)
    layer(x).sum().backward()
    assert torch.isfinite(x.grad).all()
    assert torch.isfinite(layer.weight.grad).all()


@pytest.mark.parametrize("mode", ["weights", "local"])
def test_compile_autocast_and_schedule(mode: str) -> None:
    torch._dynamo.reset()
    layer = DropConnect(nn.Conv2d(2, 3, 3), 0.4, mode=mode, schedule=4)
    x = torch.ones(2, 2, 5, 5)
    compiled = torch.compile(layer, fullgraph=True, backend="eager")
    torch.testing.assert_close(compiled(x), torch.nn.functional.conv2d(x, layer.weight, layer.bias))
    for _ in range(4):
        layer.step()
        assert not torch.equal(compiled(x)[0], compiled(x)[0])
    assert list(layer.state_dict()) == ["weight", "bias", "steps"]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert layer(x).dtype == torch.bfloat16


@pytest.mark.parametrize("mode", ["weights", "local"])
def test_inserted_on_the_layers_of_a_model(mode: str) -> None:
    model = nn.Sequential(nn.Conv2d(2, 3, 3), nn.Flatten(), nn.Linear(27, 2)).double()
    keys = list(model.state_dict())
    x = torch.randn(4, 2, 5, 5, dtype=torch.float64)
    plain = model(x)
    rng = torch.Generator().manual_seed(0)
    rules = {nn.Conv2d: DropConnect(p=0.4, mode=mode, generator=rng), "2": DropConnect(p=0.4, mode=mode)}
    with insert_dropout(model, rules) as inserted:
        assert list(model.state_dict()) == keys
        own = DropConnect(copy.deepcopy(model[0]), 0.4, mode=mode, generator=torch.Generator().manual_seed(0))
        torch.testing.assert_close(model[0](x), own(x))
        assert not torch.equal(model(x), model(x))
        model.eval()
        assert torch.equal(model(x), plain)
        assert not inserted.layers["2"].training
    assert torch.equal(model.train()(x), plain)


def test_refusals_and_repr() -> None:
    linear = nn.Linear(3, 2)
    assert repr(DropConnect(linear, 0.2, mode="local", bias=True)) == (
        "DropConnect(weight=(2, 3), p=0.2, mode='local', bias=True)"
    )
    for options in ({"mode": "noise"}, {"inference": "median"}, {"share": "pixel"}):
        with pytest.raises(UnknownNameError):
            DropConnect(linear, **options)
    for options in ({"p": 1.0}, {"inference": "moments"}, {"samples": 0}, {"share": "channel"}):
        with pytest.raises(InvalidArgumentError):
            DropConnect(linear, **options)
    with pytest.raises(InvalidArgumentError, match="Conv1d"):
        DropConnect(nn.LSTM(2, 2))
    with pytest.raises(InvalidArgumentError, match="parametrization"):
        DropConnect(nn.utils.parametrizations.weight_norm(nn.Linear(2, 2)))
    with pytest.raises(StateError, match="no layer"):
        DropConnect(p=0.5)(torch.ones(2, 3))
    model = nn.Sequential(nn.Linear(3, 2), nn.ReLU())
    with pytest.raises(InvalidArgumentError, match="Conv1d"):
        insert_dropout(model, {nn.ReLU: DropConnect()})
    with pytest.raises(InvalidArgumentError, match="activation"):
        insert_dropout(model, {"0": DropConnect(activation=torch.relu)})
    with pytest.raises(InvalidArgumentError, match="layer of its own"):
        insert_dropout(model, {"0": DropConnect(nn.Linear(3, 2))})
    with pytest.raises(InvalidArgumentError, match="not before"):
        insert_dropout(model, {}, before={"0": DropConnect()})
