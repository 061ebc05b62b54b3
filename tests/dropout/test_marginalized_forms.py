"""Every form, at every place of a network and for every law, is what it says by enumeration of masks, or is refused."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.checkpoint import checkpoint

from obverse.dropout import (
    Bernoulli,
    Blocks,
    DropConnect,
    Dropout,
    MaskLaw,
    MaskLayer,
    NoiseLayer,
    Path,
    Rademacher,
    explicit_penalty,
    insert_dropout,
    marginalized,
)
from obverse.errors import InvalidArgumentError, StateError

X = torch.sin(torch.arange(15.0, dtype=torch.float64)).reshape(5, 3)
TARGETS = {
    "cross-entropy": torch.tensor([0, 1, 2, 1, 0]),
    "squared": torch.cos(torch.arange(15.0, dtype=torch.float64)).reshape(5, 3),
}
UNITS = (3, 4, 6)
FORMS = ("auto", "quadratic", "sampled", "leave-one-out")


def network(layer: NoiseLayer, place: int, activation: type[nn.Module] = nn.Tanh, seed: int = 0) -> nn.Sequential:
    """The network 3-4-6-3 with a layer on its inputs (0), its first (1) or second (2) hidden units."""
    parts = [nn.Linear(3, 4), activation(), nn.Linear(4, 6), activation(), nn.Linear(6, 3)]
    parts.insert((0, 2, 4)[place], layer)
    model = nn.Sequential(*parts).double()
    rng = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(0.8 * torch.randn(parameter.shape, generator=rng, dtype=torch.float64))
    return model


def split(model: nn.Sequential, layer: nn.Module) -> tuple[torch.Tensor, nn.Sequential]:
    """What the layer masks, and what follows it."""
    place = list(model).index(layer)
    with torch.no_grad():
        return model[:place](X), model[place + 1 :]


def loss_of(kind: str, outputs: torch.Tensor) -> torch.Tensor:
    target = TARGETS[kind]
    if kind == "squared":
        return (outputs - target).square().sum() / len(outputs)
    return F.cross_entropy(outputs, target)


def masks(law: MaskLaw, units: int) -> Iterator[tuple[float, torch.Tensor]]:
    """All masks of mean one with their probabilities."""
    if isinstance(law, Rademacher):
        size = torch.as_tensor(law.variance((units,))).sqrt()
        for signs in itertools.product((-1.0, 1.0), repeat=units):
            yield 0.5**units, 1 + torch.tensor(signs).double() * size
        return
    keep = torch.as_tensor(law.mean((units,)))
    width = {Blocks: 2, Path: units}.get(type(law), 1)
    groups = -(-units // width)
    for coins in itertools.product((0.0, 1.0), repeat=groups):
        coin = torch.tensor(coins).double()
        theta = keep[::width]
        share = torch.where(coin > 0, theta, 1 - theta).prod()
        yield float(share), coin.repeat_interleave(width)[:units] / keep


def enumerated(law: MaskLaw, hidden: torch.Tensor, tail: nn.Module, kind: str) -> float:
    """Mean loss over all masks, one for each example, minus the loss without."""
    with torch.no_grad():
        parts = [share * loss_of(kind, tail(hidden * mask)) for share, mask in masks(law, hidden.shape[1])]
        return float(sum(parts) - loss_of(kind, tail(hidden)))


def penalty(model: nn.Module, kind: str, form: str, **options: Any) -> float:
    with marginalized(model, kind, form=form, **options) as noise:
        return float(noise.penalty(model(X), TARGETS[kind]).detach())


LAWS: dict[str, Any] = {
    "bernoulli": lambda units, rate: Bernoulli(1 - rate),
    "unequal": lambda units, rate: Bernoulli(1 - rate * torch.linspace(0.5, 1.5, units, dtype=torch.float64)),
    "blocks": lambda units, rate: Blocks(1 - rate, 2),
    "path": lambda units, rate: Path(1 - rate),
    "rademacher": lambda units, rate: Rademacher(variance=rate),
}


def test_leave_one_out_below_another_hidden_layer_is_refused_with_the_way_out() -> None:
    layer = Dropout(0.1)
    model = network(layer, 1, seed=9)
    hidden, tail = split(model, layer)
    truth = enumerated(layer.law, hidden, tail, "cross-entropy")
    # The quadratic form has the other sign here, which is why it may not stand in.
    assert truth < 0 < penalty(model, "cross-entropy", "quadratic")
    with pytest.raises(InvalidArgumentError, match=r"'2' \(Dropout\).*explicit_penalty"):
        penalty(model, "cross-entropy", "leave-one-out")
    target = TARGETS["cross-entropy"]
    instead = explicit_penalty(tail, hidden, layer.law, "cross-entropy", target=target, form="leave-one-out")
    assert float(instead.detach()) == pytest.approx(truth, rel=0.1)


@pytest.mark.parametrize("kind", TARGETS)
@pytest.mark.parametrize("name", LAWS)
@pytest.mark.parametrize("place", [0, 1, 2])
def test_leave_one_out_is_the_mean_over_masks_or_refused(place: int, name: str, kind: str) -> None:
    law = LAWS[name](UNITS[place], 1e-3)
    layer = MaskLayer(law)
    model = network(layer, place)
    if place < 2:
        with pytest.raises(InvalidArgumentError, match="explicit_penalty"):
            penalty(model, kind, "leave-one-out")
        return
    if name == "rademacher":
        with pytest.raises(InvalidArgumentError, match="form='quadratic'"):
            penalty(model, kind, "leave-one-out")
        return
    assert penalty(model, kind, "leave-one-out") == pytest.approx(enumerated(law, *split(model, layer), kind), rel=0.02)


@pytest.mark.parametrize("name", LAWS)
@pytest.mark.parametrize("place", [0, 1, 2])
@pytest.mark.parametrize("form", FORMS[:3])
def test_squared_loss_of_an_affine_network_is_exact(form: str, place: int, name: str) -> None:
    law = LAWS[name](UNITS[place], 0.3)
    layer = MaskLayer(law)
    model = network(layer, place, nn.Identity)
    samples = 300 if form == "sampled" or (form == "auto" and place < 2) else 1
    found = penalty(model, "squared", form, samples=samples, generator=torch.Generator().manual_seed(0))
    truth = enumerated(law, *split(model, layer), "squared")
    assert found == pytest.approx(truth, rel=1e-9 if samples == 1 else 0.2)


@pytest.mark.parametrize("kind", TARGETS)
@pytest.mark.parametrize("name", LAWS)
def test_default_form_before_the_last_layer_is_the_mean_over_masks(name: str, kind: str) -> None:
    law = LAWS[name](6, 1e-3)
    layer = MaskLayer(law)
    model = network(layer, 2)
    assert penalty(model, kind, "auto") == pytest.approx(enumerated(law, *split(model, layer), kind), rel=0.02)


@pytest.mark.parametrize("kind", TARGETS)
@pytest.mark.parametrize("name", LAWS)
@pytest.mark.parametrize("place", [0, 1, 2])
def test_quadratic_forms_are_those_of_explicit_penalty(place: int, name: str, kind: str) -> None:
    law = LAWS[name](UNITS[place], 0.2)
    layer = MaskLayer(law)
    model = network(layer, place)
    hidden, tail = split(model, layer)
    exact = float(explicit_penalty(tail, hidden, law, kind, form="quadratic").detach())
    assert penalty(model, kind, "quadratic") == pytest.approx(exact, rel=1e-9)
    rng = torch.Generator().manual_seed(0)
    assert penalty(model, kind, "sampled", samples=300, generator=rng) == pytest.approx(exact, rel=0.25)


def test_small_noise_that_drops_nothing_is_the_mean_over_masks_in_the_quadratic_form() -> None:
    law = Rademacher(variance=1e-4)
    layer = MaskLayer(law)
    model = network(layer, 2)
    truth = enumerated(law, *split(model, layer), "cross-entropy")
    assert penalty(model, "cross-entropy", "quadratic") == pytest.approx(truth, rel=1e-3)


class TwoHeads(nn.Module):
    """The layer's output goes to the last linear layer and around it."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer, self.head = layer, nn.Linear(3, 3).double()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        masked = self.layer(x)
        outputs: torch.Tensor = self.head(masked) + masked.tanh()
        return outputs


class Shifted(TwoHeads):
    """The outputs are changed in place behind the last linear layer."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        outputs: torch.Tensor = self.head(self.layer(x))
        return outputs.tanh_()


def before_a_flatten() -> nn.Module:
    return nn.Sequential(nn.Unflatten(1, (3, 1)), Dropout(0.1), nn.Flatten(), nn.Linear(3, 3)).double()


def inserted_on_the_output() -> nn.Module:
    model = nn.Sequential(nn.Linear(3, 3)).double()
    insert_dropout(model, {"0": Dropout(0.1)})
    return model


@pytest.mark.parametrize(
    "build",
    [
        lambda: TwoHeads(Dropout(0.1)),
        lambda: Shifted(Dropout(0.1)),
        before_a_flatten,
        inserted_on_the_output,
        lambda: nn.Sequential(Dropout(0.1, share="channel"), nn.Linear(3, 3)).double(),
        lambda: nn.Sequential(DropConnect(nn.Linear(3, 3), 0.1)).double(),
        lambda: nn.Sequential(nn.Linear(3, 3), nn.Tanh(), DropConnect(nn.Linear(3, 3), 0.1)).double(),
        lambda: nn.Sequential(Dropout(0.1), nn.Tanh(), nn.Linear(3, 3)).double(),
        lambda: nn.Sequential(Dropout(0.1), nn.Linear(3, 3), Dropout(0.1), nn.Linear(3, 3)).double(),
    ],
    ids=["two-heads", "in-place", "flatten", "output", "channel", "connect", "connect-last", "activation", "both"],
)
def test_leave_one_out_is_refused_where_it_would_be_another_form(build: Any) -> None:
    model = build()
    with marginalized(model, "squared", form="leave-one-out") as noise:
        outputs = model(X)
        with pytest.raises(InvalidArgumentError, match="form='leave-one-out' is for"):
            noise.penalty(outputs)
    for form in ("auto", "quadratic"):
        with marginalized(build(), "squared", form=form):
            pass


@pytest.mark.parametrize("activation", [nn.ReLU, nn.SiLU, nn.ELU, nn.Hardswish])
@pytest.mark.parametrize("place", [0, 1])
def test_activations_that_work_in_place_change_nothing(place: int, activation: Any) -> None:
    found = []
    for inplace in (False, True):
        parts = [nn.Linear(3, 4), nn.Linear(4, 6), nn.Linear(6, 3)]
        order = [parts[0], Dropout(0.3), activation(inplace=inplace), parts[1], nn.Tanh(), parts[2]]
        if place:
            order = [parts[0], nn.Tanh(), parts[1], Dropout(0.3), activation(inplace=inplace), parts[2]]
        torch.manual_seed(0)
        model = nn.Sequential(*order).double()
        for part in parts:
            part.reset_parameters()
        found.append([penalty(model, "squared", form) for form in ("quadratic", "auto") if place or form != "auto"])
    assert found[0] == pytest.approx(found[1], rel=1e-9)


def test_an_input_changed_in_place_behind_the_layer_is_refused() -> None:
    class Late(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.below, self.drop, self.head = nn.Linear(3, 3), Dropout(0.3), nn.Linear(3, 3)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            hidden = self.below(x)
            masked = self.drop(hidden)
            hidden.mul_(2.0)
            outputs: torch.Tensor = self.head(masked)
            return outputs

    model = Late().double()
    with marginalized(model, "squared") as noise:
        outputs = model(X)
        with pytest.raises(InvalidArgumentError, match=r"'drop' \(Dropout\) was changed in place"):
            noise.penalty(outputs)


@pytest.mark.parametrize("scale", ["count", "none"])
def test_scales_whose_mean_is_not_one_have_no_penalty(scale: str) -> None:
    model = network(Dropout(0.1, scale=scale), 2)
    with marginalized(model, "squared"), pytest.raises(InvalidArgumentError, match=f"scale='{scale}'"):
        model(X)


class Checkpointed(nn.Module):
    def __init__(self, reentrant: bool | None) -> None:
        super().__init__()
        self.below = network(Dropout(0.2), 1)[:5]
        self.drop, self.head, self.reentrant = Dropout(0.2), nn.Linear(6, 3, bias=False).double(), reentrant
        with torch.no_grad():
            self.head.weight.copy_(torch.sin(torch.arange(18.0)).reshape(3, 6))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        hidden = self.below(x) if self.reentrant is None else checkpoint(self.below, x, use_reentrant=self.reentrant)
        outputs: torch.Tensor = self.head(self.drop(hidden))
        return outputs


@pytest.mark.parametrize("form", ["auto", "quadratic"])
def test_checkpointing_changes_neither_penalty_nor_gradient(form: str) -> None:
    found = []
    for reentrant in (None, False):
        model = Checkpointed(reentrant)
        with marginalized(model, "cross-entropy", form=form, generator=1) as noise:
            value = noise.penalty(model(X), TARGETS["cross-entropy"])
            value.backward()
        found.append((float(value.detach()), [parameter.grad for parameter in model.below.parameters()]))
    assert found[0][0] == pytest.approx(found[1][0], rel=1e-12)
    torch.testing.assert_close(found[0][1], found[1][1])


def test_a_layer_that_ran_without_gradients_is_not_left_out() -> None:
    model = Checkpointed(True)
    with marginalized(model, "cross-entropy") as noise:
        outputs = model(X.clone().requires_grad_())
        with pytest.raises(StateError, match=r"'below.2' \(Dropout\) ran without gradients.*use_reentrant=False"):
            noise.penalty(outputs, TARGETS["cross-entropy"])
