"""Gradients under activation checkpointing belong to the noise that the loss saw, for every layer and law."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.checkpoint import checkpoint, checkpoint_sequential

from obverse.dropout import (
    Bernoulli,
    Blocks,
    Channel,
    Connect,
    DropBlock1d,
    DropBlock2d,
    DropBlock3d,
    DropConnect,
    Dropout,
    DropPath,
    Empirical,
    Gaussian,
    MaskLaw,
    MaskLayer,
    Path,
    Rademacher,
    SlidingBlock,
    explicit_penalty,
    insert_dropout,
)
from obverse.errors import StateError

Build = Callable[[torch.Generator | None], nn.Module]


def fixed(module: nn.Module) -> nn.Module:
    with torch.no_grad():
        for place, parameter in enumerate(module.parameters()):
            parameter.copy_(torch.cos(torch.arange(parameter.numel()) + place).reshape(parameter.shape))
    return module


def inserted(rng: torch.Generator | None) -> nn.Module:
    model = fixed(nn.Sequential(nn.Linear(6, 6), nn.Tanh(), nn.Linear(6, 6)))
    insert_dropout(model, {"1": Dropout(0.5, generator=rng), "2": DropConnect(p=0.5, generator=rng)})
    return model


LAYERS: dict[str, tuple[Build, tuple[int, ...]]] = {
    "dropout": (lambda rng: Dropout(0.5, generator=rng), (4, 6)),
    "unequal": (lambda rng: Dropout([0.1, 0.5, 0.4], generator=rng), (4, 3)),
    "gaussian": (lambda rng: Dropout(0.5, noise="gaussian", generator=rng), (4, 6)),
    "rademacher": (lambda rng: Dropout(0.5, noise="rademacher", generator=rng), (4, 6)),
    "count": (lambda rng: Dropout(0.5, scale="count", generator=rng), (4, 6)),
    "shared": (lambda rng: Dropout(0.5, share="batch", generator=rng), (4, 6)),
    "blocks-1d": (lambda rng: DropBlock1d(0.3, 3, generator=rng), (4, 2, 9)),
    "blocks-2d": (lambda rng: DropBlock2d(0.3, 2, generator=rng), (4, 2, 5, 6)),
    "sparse-blocks": (lambda rng: DropBlock2d(0.1, 3, generator=rng), (4, 2, 8, 8)),
    "blocks-3d": (lambda rng: DropBlock3d(0.3, 2, generator=rng), (4, 2, 3, 4, 5)),
    "path": (lambda rng: DropPath(0.5, generator=rng), (16, 3)),
    "law": (lambda rng: MaskLayer(Blocks(0.5, 2), generator=rng), (4, 6)),
    "connect": (lambda rng: DropConnect(fixed(nn.Linear(6, 6)), 0.5, generator=rng), (4, 6)),
    "connect-shared": (lambda rng: DropConnect(fixed(nn.Linear(6, 6)), 0.5, share="batch", generator=rng), (4, 6)),
    "connect-bias": (lambda rng: DropConnect(fixed(nn.Linear(6, 6)), 0.5, bias=True, generator=rng), (4, 6)),
    "connect-local": (lambda rng: DropConnect(fixed(nn.Linear(6, 6)), 0.5, mode="local", generator=rng), (4, 6)),
    "connect-conv": (lambda rng: DropConnect(fixed(nn.Conv1d(2, 2, 3, padding=1)), 0.5, generator=rng), (4, 2, 5)),
    "inserted": (inserted, (4, 6)),
}

REENTRANT = pytest.mark.parametrize("reentrant", [False, True], ids=["plain", "reentrant"])
NOISE = pytest.mark.parametrize("own", [True, False], ids=["generator", "global"])


def once(module: nn.Module) -> Callable[[torch.Tensor], torch.Tensor]:
    """A function of the module that saves tensors before and behind its noise."""
    return lambda x: torch.tanh(module(x * 1.5)).square()


def gradients(build: Build, shape: tuple[int, ...], own: bool, forward: Callable[[nn.Module, Any], Any]) -> Any:
    """Loss, gradients and the next random numbers after some passes of ``forward(module, x)``."""
    torch.manual_seed(1)
    rng = torch.Generator().manual_seed(2) if own else None
    module = build(rng)
    x = torch.sin(torch.arange(float(torch.Size(shape).numel()))).reshape(shape).requires_grad_()
    loss = forward(module, x)
    leaves = [x, *module.parameters()]
    slopes = [leaf.grad.clone() for leaf in leaves if leaf.grad is not None]
    return float(loss.detach()), slopes, torch.rand(3, generator=rng)


def assert_same(first: Any, second: Any) -> None:
    assert first[0] == second[0]
    assert len(first[1]) == len(second[1]) > 0
    for one, other in zip(first[1], second[1], strict=True):
        torch.testing.assert_close(one, other)
    assert torch.equal(first[2], second[2])


def backward(loss: torch.Tensor) -> torch.Tensor:
    loss.backward()
    return loss


@REENTRANT
@NOISE
@pytest.mark.parametrize("name", LAYERS)
def test_every_layer_has_the_gradient_of_its_forward_pass(name: str, own: bool, reentrant: bool) -> None:
    build, shape = LAYERS[name]

    def plain(module: nn.Module, x: torch.Tensor) -> torch.Tensor:
        return backward(once(module)(x).sum())

    def checked(module: nn.Module, x: torch.Tensor) -> torch.Tensor:
        return backward(checkpoint(once(module), x, use_reentrant=reentrant).sum())

    assert_same(gradients(build, shape, own, plain), gradients(build, shape, own, checked))


def several(module: nn.Module, x: torch.Tensor, region: Callable[..., torch.Tensor]) -> torch.Tensor:
    """One layer outside of regions, in several, and more than once in each."""
    twice = lambda x: once(module)(once(module)(x) + x)  # noqa: E731
    x = region(twice, once(module)(x))
    return backward(region(twice, once(module)(x) + region(once(module), x)).sum())


def nested(module: nn.Module, x: torch.Tensor, region: Callable[..., torch.Tensor]) -> torch.Tensor:
    """Regions in regions in regions, with noise before and behind."""

    def middle(x: torch.Tensor) -> torch.Tensor:
        return once(module)(region(once(module), once(module)(x)))

    def outer(x: torch.Tensor) -> torch.Tensor:
        return once(module)(region(middle, once(module)(x))) + region(once(module), x)

    return backward((region(outer, x) + once(module)(x)).sum())


def accumulated(module: nn.Module, x: torch.Tensor, region: Callable[..., torch.Tensor]) -> torch.Tensor:
    """Two passes before their backward passes, the first of them first, then a third one."""
    losses = [region(once(module), x * factor).sum() for factor in (1.0, 2.0)]
    losses[0].backward()
    losses[1].backward()
    return backward(region(once(module), x * 3.0).sum()) + losses[0] + losses[1]


def forgotten(module: nn.Module, x: torch.Tensor, region: Callable[..., torch.Tensor]) -> torch.Tensor:
    """A pass that is never differentiated, and one without gradients, come between."""
    loss = region(once(module), x).sum()
    region(once(module), x)
    with torch.no_grad():
        region(once(module), x)
    return backward(loss + region(once(module), x).sum())


def retained(module: nn.Module, x: torch.Tensor, region: Callable[..., torch.Tensor]) -> torch.Tensor:
    """One graph, differentiated twice, with another draw between."""
    loss = region(once(module), x).sum()
    loss.backward(retain_graph=True)
    once(module)(x)
    return backward(loss)


def straight(function: Callable[..., torch.Tensor], x: torch.Tensor) -> torch.Tensor:
    return function(x)


@pytest.mark.filterwarnings("ignore:None of the inputs have requires_grad")  # of an inner reentrant region
@REENTRANT
@NOISE
@pytest.mark.parametrize("name", ["dropout", "sparse-blocks", "path", "connect", "connect-local", "inserted"])
@pytest.mark.parametrize("passes", [several, nested, accumulated, forgotten, retained])
def test_any_order_of_regions(passes: Callable[..., torch.Tensor], name: str, own: bool, reentrant: bool) -> None:
    build, shape = LAYERS[name]

    def region(function: Callable[..., torch.Tensor], x: torch.Tensor) -> torch.Tensor:
        return checkpoint(function, x, use_reentrant=reentrant)

    truth = gradients(build, shape, own, lambda module, x: passes(module, x, straight))
    assert_same(truth, gradients(build, shape, own, lambda module, x: passes(module, x, region)))


@pytest.mark.parametrize("inner", [False, True])
def test_regions_of_both_kinds_in_each_other(inner: bool) -> None:
    def mixed(module: nn.Module, x: torch.Tensor, checked: bool) -> torch.Tensor:
        def region(function: Any, x: torch.Tensor, reentrant: bool) -> torch.Tensor:
            return checkpoint(function, x, use_reentrant=reentrant) if checked else function(x)

        def outer(x: torch.Tensor) -> torch.Tensor:
            return once(module)(region(once(module), once(module)(x), inner))

        return backward(region(outer, x, not inner).sum())

    build, shape = LAYERS["dropout"]
    truth, found = (gradients(build, shape, True, lambda m, x, c=c: mixed(m, x, c)) for c in (False, True))
    assert_same(truth, found)


@REENTRANT
def test_layers_that_share_a_generator_and_restored_states_that_are_not_kept(reentrant: bool) -> None:
    def build(rng: torch.Generator | None) -> nn.Module:
        units, path = Dropout(0.5, generator=rng), DropPath(0.5, generator=rng)
        noise = Dropout(0.3, noise="gaussian", generator=rng)
        return nn.Sequential(nn.Linear(6, 6), units, nn.Tanh(), path, nn.Linear(6, 6), noise, nn.Tanh())

    def checked(module: nn.Module, x: torch.Tensor) -> torch.Tensor:
        parts = checkpoint_sequential(module, 3, x, use_reentrant=reentrant, preserve_rng_state=False)
        return backward(parts.square().sum())

    truth = gradients(build, (4, 6), True, lambda module, x: backward(module(x).square().sum()))
    assert_same(truth, gradients(build, (4, 6), True, checked))


@REENTRANT
@pytest.mark.parametrize(
    "law",
    [
        Bernoulli(0.5),
        Gaussian(0.5),
        Rademacher(0.5),
        Blocks(0.5, 2),
        Channel(0.5),
        Path(0.5),
        Connect(0.5),
        SlidingBlock(2, drop_rate=0.4),
        SlidingBlock(2, drop_rate=0.05),
        Empirical(torch.eye(24).reshape(24, 4, 6)),
    ],
    ids=repr,
)
def test_laws_that_are_sampled_in_a_region(law: MaskLaw, reentrant: bool) -> None:
    rng = torch.Generator().manual_seed(0)
    x = torch.ones(5, 4, 6, requires_grad=True)
    y = checkpoint(lambda x: (x * law.sample((5, 4, 6), rng)).square(), x, use_reentrant=reentrant)
    y.sum().backward()
    torch.testing.assert_close(x.grad, 2 * y.detach())


@pytest.mark.parametrize("options", [{"form": "sampled"}, {"form": "leave-one-out", "units": 2}], ids=str)
def test_random_penalties_in_a_region(options: dict[str, Any]) -> None:
    head = fixed(nn.Sequential(nn.Linear(6, 5), nn.Tanh(), nn.Linear(5, 3)))
    target = torch.tensor([0, 2, 1, 0])

    def penalty(module: nn.Module, x: torch.Tensor, rng: torch.Generator) -> torch.Tensor:
        hidden, law = x.tanh(), Bernoulli(0.8)
        return explicit_penalty(module, hidden, law, "cross-entropy", target=target, generator=rng, **options)

    found = []
    for checked in (False, True):
        rng, x = torch.Generator().manual_seed(3), torch.sin(torch.arange(24.0)).reshape(4, 6).requires_grad_()
        run = (lambda x, rng=rng: penalty(head, x, rng)) if checked else None
        value = penalty(head, x, rng) if run is None else checkpoint(run, x, use_reentrant=False)
        found.append((float(value.detach()), torch.autograd.grad(value, x)[0]))
    assert found[0][0] == found[1][0]
    torch.testing.assert_close(found[0][1], found[1][1])


@REENTRANT
def test_a_region_around_a_compiled_layer(reentrant: bool) -> None:
    torch._dynamo.reset()
    layer = Dropout(0.5, generator=torch.Generator().manual_seed(0))
    x = torch.ones(3, 8, requires_grad=True)
    compiled = torch.compile(lambda x: layer(x).square(), backend="aot_eager")
    y = checkpoint(compiled, x, use_reentrant=reentrant)
    y.sum().backward()
    torch.testing.assert_close(x.grad, 2 * y.detach())


@REENTRANT
@pytest.mark.parametrize("scheduled", [False, True])
def test_a_region_in_a_compiled_graph_is_exact_or_refused(scheduled: bool, reentrant: bool) -> None:
    torch._dynamo.reset()
    x = torch.ones(3, 8, requires_grad=True)
    rng = None if scheduled else torch.Generator().manual_seed(0)
    layer = Dropout(0.5, schedule=1 if scheduled else None, generator=rng)
    layer.step()
    run = torch.compile(
        lambda x: checkpoint(lambda x: layer(x).square(), x.square(), use_reentrant=reentrant), backend="aot_eager"
    )
    y = run(x)
    if scheduled:
        y.sum().backward()
        torch.testing.assert_close(x.grad, 4 * y.detach())
        return
    with pytest.raises(StateError, match="generator=None"):
        y.sum().backward()


def test_recomputation_by_others_is_refused() -> None:
    layer = Dropout(0.5, generator=torch.Generator().manual_seed(0))

    class Recomputed(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, x: torch.Tensor) -> torch.Tensor:
            ctx.save_for_backward(x)
            return layer(x).square()

        @staticmethod
        def backward(ctx: Any, slope: torch.Tensor) -> torch.Tensor:  # type: ignore[override]
            (x,) = ctx.saved_tensors
            return 2 * slope * layer(x)

    y = Recomputed.apply(torch.ones(2, 8, requires_grad=True))
    state = layer.generator.get_state()
    with pytest.raises(StateError, match="generator=None"):
        y.sum().backward()
    assert torch.equal(layer.generator.get_state(), state)


def test_notes_go_with_the_graph_and_are_not_copied() -> None:
    rng = torch.Generator().manual_seed(0)
    layer = Dropout(0.5, generator=rng)
    x = torch.ones(2, 8, requires_grad=True)
    y = checkpoint(lambda x: layer(x).square(), x, use_reentrant=False)
    twin = copy.deepcopy(layer)
    assert set(vars(layer)) == set(vars(twin))
    y.sum().backward()
    assert torch.equal(F.relu(layer(x)), F.relu(twin(x)))
