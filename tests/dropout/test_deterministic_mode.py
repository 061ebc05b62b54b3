"""The deterministic mode: the penalty in place of noise, against the expected loss over all masks."""

from __future__ import annotations

import copy
import gc
import itertools
import weakref
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from obverse.dropout._drop_connect import DropConnect
from obverse.dropout._explicit import explicit_penalty
from obverse.dropout._insert import insert_dropout
from obverse.dropout._layers import DropBlock1d, DropBlock2d, Dropout, DropPath
from obverse.dropout._marginal import marginalized
from obverse.errors import InvalidArgumentError, StateError, UnknownNameError


def data(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def squared(outputs: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    return (outputs - target).square().sum() / len(outputs)


def seeded(*layers: nn.Module) -> nn.Sequential:
    model = nn.Sequential(*layers).double()
    rng = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=rng, dtype=torch.float64))
    return model


@pytest.mark.parametrize("wrapped", [False, True])
def test_one_layer_below_a_linear_head_is_exact(wrapped: bool) -> None:
    head: nn.Module = nn.Linear(4, 2)
    model = seeded(nn.Linear(3, 4), nn.Tanh(), Dropout(0.3), nn.Sequential(head, nn.Identity()) if wrapped else head)
    x, y = data(5, 3), data(5, 2, seed=1)
    hidden = model[1](model[0](x))
    total = torch.zeros((), dtype=torch.float64)
    for coins in itertools.product((0.0, 1.0), repeat=4):
        share = 0.7 ** sum(coins) * 0.3 ** (4 - sum(coins))
        total = total + share * squared(model[3](hidden * torch.tensor(coins).double() / 0.7), y)
    truth = torch.autograd.grad(total, list(model.parameters()))
    for form in ("auto", "quadratic"):
        with marginalized(model, "squared", form="quadratic" if wrapped else form) as m:
            outputs = model(x)
            value = squared(outputs, y) + m.penalty(outputs, y)
        assert value.item() == pytest.approx(total.item(), rel=1e-10)
        for slope, other in zip(truth, torch.autograd.grad(value, list(model.parameters())), strict=True):
            torch.testing.assert_close(other, slope)


@pytest.mark.parametrize(
    ("layer", "shape"),
    [
        (DropBlock1d(0.3, 2), (2, 5)),
        (DropBlock1d(0.3, 2, share="channel"), (2, 5)),
        (DropPath(0.4), (2, 5)),
        (DropBlock2d(0.3, (1, 2), share="batch"), (2, 2, 3)),
        (Dropout([0.1, 0.2, 0.3, 0.4, 0.5]), (2, 5)),
    ],
)
def test_penalty_is_the_variance_of_the_output(layer: Any, shape: tuple[int, ...]) -> None:
    size = torch.Size(shape).numel()
    model = seeded(nn.Flatten(), nn.Linear(3, size), nn.Unflatten(1, shape), layer, nn.Flatten(), nn.Linear(size, 2))
    x = data(4, 3)
    with torch.no_grad():
        hidden = model[:3](x)
        rows = model[5].weight.reshape(2, 1, *shape) * hidden
        truth = layer.law.quadratic_form(rows.reshape(8, *shape), share=layer.share).sum() / 4
        if layer.share != ("batch",):
            draws = layer(hidden.repeat(3000, *[1] * len(shape)))
            noise = (draws - hidden.repeat(3000, *[1] * len(shape))).flatten(1) @ model[5].weight.T
            assert noise.square().sum().item() / 12000 == pytest.approx(truth.item(), rel=0.1)
    with marginalized(model, "squared", form="quadratic") as m:
        assert m.penalty(model(x)).item() == pytest.approx(truth.item(), rel=1e-10)


def test_sampled_form_over_all_layers_in_one_pass() -> None:
    model = seeded(Dropout(0.1), nn.Linear(3, 4), nn.Tanh(), DropPath(0.2), nn.Linear(4, 4), nn.Tanh(), nn.Linear(4, 3))
    x, y = data(5, 3), torch.tensor([0, 1, 2, 1, 0])
    model.eval()
    parts = explicit_penalty(model[1:], x, model[0].law, "cross-entropy", form="quadratic")
    parts = parts + explicit_penalty(model[4:], model[1:3](x), model[3].law, "cross-entropy", form="quadratic")
    model.train()
    with marginalized(model, "cross-entropy", form="quadratic") as m:
        exact = m.penalty(model(x), y)
    assert exact.item() == pytest.approx(parts.item(), rel=1e-10)
    rng = torch.Generator().manual_seed(0)
    wanted = list(model.parameters())[:-1]
    with marginalized(model, nn.CrossEntropyLoss(), form="sampled", samples=1000, generator=rng) as m:
        value = m.penalty(model(x), y)
    assert value.item() == pytest.approx(exact.item(), rel=0.08)
    slopes = torch.cat([s.flatten() for s in torch.autograd.grad(exact, wanted)])
    others = torch.cat([s.flatten() for s in torch.autograd.grad(value, wanted)])
    assert (slopes - others).norm() < 0.15 * slopes.norm()


def test_the_layer_before_the_last_linear_one_is_left_out_unit_by_unit() -> None:
    model = seeded(nn.Linear(3, 4), nn.ReLU(), Dropout(0.01), nn.Linear(4, 3))
    x, y = data(5, 3), torch.tensor([0, 1, 2, 1, 0])
    hidden = model[:2](x)
    with marginalized(model, "cross-entropy") as m:
        value = m.penalty(model(x), y)
    assert torch.equal(value, explicit_penalty(model[3], hidden, model[2].law, "cross-entropy", form="leave-one-out"))
    total = -F.cross_entropy(model[3](hidden), y)
    for coins in itertools.product((0.0, 1.0), repeat=4):
        share = 0.99 ** sum(coins) * 0.01 ** (4 - sum(coins))
        total = total + share * F.cross_entropy(model[3](hidden * torch.tensor(coins).double() / 0.99), y)
    assert value.item() == pytest.approx(total.item(), rel=0.05)


def test_paths_around_the_mask_do_not_count() -> None:
    class Residual(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.branch, self.drop, self.head = nn.Linear(3, 3), DropPath(0.3), nn.Linear(3, 2)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            y = self.branch(x)
            return self.head(y + self.drop(y))

    model = Residual().double()
    x = data(4, 3)
    truth = 0.3 / 0.7 * (model.branch(x) @ model.head.weight.T).square().sum() / 4
    with marginalized(model, "squared", form="quadratic") as m:
        assert m.penalty(model(x)).item() == pytest.approx(truth.item(), rel=1e-10)


def test_drop_connect_and_inserted_layers() -> None:
    model = seeded(DropConnect(nn.Linear(3, 4), 0.3), nn.Tanh(), nn.Linear(4, 2))
    x = data(5, 3)
    hidden = model[0].weight
    slope = 1 - torch.tanh(F.linear(x, hidden, model[0].bias)).square()
    variance = 0.3 / 0.7 * (x.square() @ hidden.square().T) * slope.square()
    truth = (variance @ model[2].weight.square().T).sum() / 5
    with marginalized(model, "squared", form="quadratic") as m:
        assert m.penalty(model(x)).item() == pytest.approx(truth.item(), rel=1e-10)
    plain = seeded(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2))
    insert_dropout(plain, {"0": DropConnect(p=0.3)}, before={"2": Dropout(0.2)})
    last = 0.2 / 0.8 * (torch.tanh(plain[0].forward(x)).square() @ plain[2].weight.square().T).sum() / 5
    with marginalized(plain, "squared", form="quadratic") as m:
        assert m.penalty(plain(x)).item() == pytest.approx((truth + last).item(), rel=1e-10)


@pytest.mark.parametrize("loss", [nn.MSELoss(), nn.MSELoss(reduction="sum"), nn.BCEWithLogitsLoss()])
def test_averaging_of_torch_losses(loss: Any) -> None:
    model = seeded(nn.Linear(3, 4), Dropout(0.2), nn.Linear(4, 2))
    x, y = data(5, 3), torch.ones(5, 2, dtype=torch.float64)
    with marginalized(model, loss) as m:
        value = m.penalty(model(x), y)
    torch.testing.assert_close(value, explicit_penalty(model[2], model[0](x), model[1].law, loss))


def test_nothing_is_kept_after_the_step() -> None:
    model = seeded(nn.Linear(3, 4), nn.Tanh(), Dropout(0.2), nn.Linear(4, 2))
    seen: list[weakref.ref[Any]] = []
    model[1].register_forward_hook(lambda module, inputs, output: seen.append(weakref.ref(output)))
    x = data(5, 3)
    with marginalized(model, "squared") as m:
        for _ in range(3):
            m.penalty(model(x)).backward()
        model(x)  # a pass without a penalty goes with the next one
        model(x)
        gc.collect()
        assert [ref() is None for ref in seen] == [True, True, True, True, False]
    gc.collect()
    assert seen[-1]() is None
    assert not model._forward_pre_hooks
    assert not model[3]._forward_hooks
    assert not torch.equal(model(x), model(x))  # noise is back


def test_a_copy_made_inside_is_on_its_own() -> None:
    model = seeded(nn.Linear(3, 4), Dropout(0.2), nn.Linear(4, 2))
    x = data(5, 3)
    with marginalized(model, "squared") as m:
        outputs = model(x)
        twin = copy.deepcopy(model)
        assert not torch.equal(twin(x), twin(x))
        value = m.penalty(outputs)
    assert value.item() > 0


def test_no_noise_no_penalty() -> None:
    model = seeded(nn.Linear(3, 4), Dropout(0.2, schedule=5), nn.Linear(4, 2))
    x = data(5, 3)
    with marginalized(model, "squared") as m:
        assert m.penalty(model(x)) == 0
        model[1].step()
        assert m.penalty(model(x)) > 0
        model.eval()
        assert m.penalty(model(x)) == 0


def test_errors_say_what_to_do() -> None:
    model = seeded(nn.Linear(3, 4), Dropout(0.2), nn.Linear(4, 2))
    x = data(5, 3)
    with marginalized(model, "squared") as m:
        with pytest.raises(StateError, match="forward pass"):
            m.penalty(torch.ones(5, 2))
        m.penalty(model(x))
        with pytest.raises(StateError, match="each pass gives one"):
            m.penalty(torch.ones(5, 2))
        with torch.no_grad():
            outputs = model(x)
        with pytest.raises(StateError, match="gradients"):
            m.penalty(outputs)
        with pytest.raises(StateError, match="already"), marginalized(model, "squared"):
            pass
        torch._dynamo.reset()
        with pytest.raises(Exception, match="uncompiled"):
            torch.compile(model, fullgraph=True, backend="eager")(x)
        model(x)
        with pytest.raises(InvalidArgumentError, match="no gradient"):
            m.penalty(torch.ones(5, 2, dtype=torch.float64))
    with pytest.raises(InvalidArgumentError, match="no dropout layer"):
        marginalized(nn.Sequential(nn.Dropout(0.5)), "squared")
    with pytest.raises(UnknownNameError):
        marginalized(model, "hinge")
    with pytest.raises(UnknownNameError):
        marginalized(model, "squared", form="exactly")
    for option in ("samples", "units"):
        with pytest.raises(InvalidArgumentError, match=option):
            marginalized(model, "squared", **{option: 0})
    raw = seeded(nn.Linear(3, 4), Dropout(0.2, scale="none"), nn.Linear(4, 2))
    with marginalized(raw, "squared"), pytest.raises(InvalidArgumentError, match="scale='none'"):
        raw(x)
