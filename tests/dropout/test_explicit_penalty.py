"""The explicit penalty against the expected loss over all masks."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from obverse.dropout._blocks import Blocks, Channel, Path
from obverse.dropout._connect import Connect
from obverse.dropout._explicit import explicit_penalty
from obverse.dropout._independent import Bernoulli, Gaussian, Rademacher
from obverse.dropout._law import MaskLaw
from obverse.dropout._sliding import SlidingBlock
from obverse.errors import InvalidArgumentError, ObverseError

Masks = Iterator[tuple[float, torch.Tensor]]


def group_masks(keep: float, groups: list[int], event: tuple[int, ...]) -> Masks:
    """All normalized masks of groups that share a coin, with their probabilities."""
    labels = torch.tensor(groups)
    for coins in itertools.product((0, 1), repeat=max(groups) + 1):
        kept = sum(coins)
        share = keep**kept * (1 - keep) ** (len(coins) - kept)
        yield share, torch.tensor(coins, dtype=torch.float64)[labels].reshape(event) / keep


def sliding_masks(gamma: float, block: int, channels: int, length: int) -> Masks:
    starts = length - block + 1
    for seeds in itertools.product((0, 1), repeat=channels * starts):
        mask = torch.ones(channels, length, dtype=torch.float64)
        share = 1.0
        for place, seed in enumerate(seeds):
            channel, start = divmod(place, starts)
            share *= gamma if seed else 1 - gamma
            if seed:
                mask[channel, start : start + block] = 0
        covers = torch.tensor([min(i, length - block) - max(i - block + 1, 0) + 1 for i in range(length)]).double()
        yield share, mask / (1 - gamma) ** covers


def masks_of(law: MaskLaw, event: tuple[int, ...]) -> Masks:
    size = int(np.prod(event))
    if isinstance(law, SlidingBlock):
        assert law.gamma is not None
        return sliding_masks(law.gamma, law.block_size[0], event[0], event[1])
    groups = {
        Bernoulli: list(range(size)),
        Blocks: [i // event[-1] * -(-event[-1] // 2) + i % event[-1] // 2 for i in range(size)],
        Channel: [i // (size // event[0]) for i in range(size)],
        Path: [0] * size,
    }[type(law)]
    return group_masks(float(law.keep_probability), groups, event)  # type: ignore[attr-defined]


def excess(
    head: Callable[[torch.Tensor], torch.Tensor],
    features: torch.Tensor,
    masks: Masks,
    loss: Callable[[torch.Tensor], torch.Tensor],
) -> torch.Tensor:
    """Expected loss over masks, drawn for each example on its own, minus the loss without: a mean over examples."""
    return sum(share * loss(head(features * mask)) for share, mask in masks) - loss(head(features))  # type: ignore


def laws(keep: float, event: tuple[int, ...]) -> list[MaskLaw]:
    found: list[MaskLaw] = [Bernoulli(keep), Blocks(keep, 2), Channel(keep), Path(keep)]
    if len(event) == 2:
        found.append(SlidingBlock(2, gamma=1 - keep, dims=1))
    return found


def setting(event: tuple[int, ...], outputs: int, seed: int = 0) -> tuple[torch.Tensor, nn.Module, torch.Generator]:
    rng = torch.Generator().manual_seed(seed)
    features = torch.randn((4, *event), generator=rng, dtype=torch.float64, requires_grad=True)
    if len(event) == 1:
        head: nn.Module = nn.Linear(event[0], outputs, dtype=torch.float64)
    else:
        linear = nn.Linear(event[0], outputs, dtype=torch.float64)
        head = nn.Sequential(nn.AdaptiveAvgPool1d(1), nn.Flatten(), linear)
    with torch.no_grad():
        for parameter in head.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=rng, dtype=torch.float64))
    return features, head, rng


class Opaque(nn.Module):
    """Hides what a head is."""

    def __init__(self, head: nn.Module) -> None:
        super().__init__()
        self.head = head

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        return self.head(features)


EVENTS = [(5,), (2, 4)]
CASES = [(event, index) for event in EVENTS for index in range(len(laws(0.7, event)))]


@pytest.mark.parametrize(("event", "index"), CASES)
def test_squared_penalty_is_the_expected_excess_with_its_gradient(event: tuple[int, ...], index: int) -> None:
    features, head, rng = setting(event, 3)
    law = laws(0.7, event)[index]
    target = torch.randn((4, 3), generator=rng, dtype=torch.float64)
    truth = excess(head, features, masks_of(law, event), lambda u: (u - target).square().sum() / 4)
    wanted = [features, *(p for p in head.parameters() if p.dim() == 2)]
    slopes = torch.autograd.grad(truth, wanted)
    for given, form in ((head, "auto"), (head, "exact"), (Opaque(head), "exact"), (Opaque(head), "quadratic")):
        value = explicit_penalty(given, features, law, form=form)
        assert value.item() == pytest.approx(truth.item(), rel=1e-10)
        for slope, other in zip(slopes, torch.autograd.grad(value, wanted), strict=True):
            torch.testing.assert_close(other, slope, rtol=1e-9, atol=1e-10)
    left = explicit_penalty(head, features, law, form="leave-one-out")
    opaque = explicit_penalty(Opaque(head), features, law, form="leave-one-out", target=target)
    torch.testing.assert_close(left, opaque)
    if not isinstance(law, SlidingBlock):  # windows overlap, which is of second order in the rate
        assert left.item() == pytest.approx(truth.item(), rel=1e-10)


LOSSES = {
    "plain": nn.CrossEntropyLoss(),
    "sum": nn.CrossEntropyLoss(reduction="sum"),
    "weighted": nn.CrossEntropyLoss(weight=torch.tensor([0.5, 2.0, 1.0])),
    "smoothed": nn.CrossEntropyLoss(weight=torch.tensor([0.5, 2.0, 1.0]), label_smoothing=0.2),
    "ignoring": nn.CrossEntropyLoss(ignore_index=2),
    "probabilities": nn.CrossEntropyLoss(label_smoothing=0.1),
    "logistic": nn.BCEWithLogitsLoss(),
    "positive": nn.BCEWithLogitsLoss(pos_weight=torch.tensor([0.5, 2.0, 1.0]), weight=torch.tensor([1.0, 3.0, 2.0])),
    "mse": nn.MSELoss(),
}


def targets(name: str) -> torch.Tensor:
    if name in ("logistic", "positive", "mse"):
        return torch.tensor([[0.0, 1, 1], [1, 0, 1], [0, 0, 1], [1, 1, 0]], dtype=torch.float64)
    if name == "probabilities":
        return torch.tensor([[0.2, 0.3, 0.5], [1, 0, 0], [0.1, 0.1, 0.8], [0, 0.5, 0.5]], dtype=torch.float64)
    return torch.tensor([0, 2, 1, 2])


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("event", EVENTS)
def test_leave_one_out_is_exact_to_first_order_for_every_loss(name: str, event: tuple[int, ...]) -> None:
    features, head, _ = setting(event, 3)
    loss, target = LOSSES[name].double(), targets(name)
    for law, few in zip(laws(0.99, event), laws(0.9999, event), strict=True):
        truth = excess(head, features, masks_of(law, event), lambda u: loss(u, target))
        value = explicit_penalty(head, features, law, loss, target=target, form="leave-one-out")
        assert value.item() == pytest.approx(truth.item(), rel=0.05)
        torch.testing.assert_close(
            explicit_penalty(Opaque(head), features, law, loss, target=target, form="leave-one-out"), value
        )
        truth = excess(head, features, masks_of(few, event), lambda u: loss(u, target))
        value = explicit_penalty(head, features, few, loss, target=target, form="leave-one-out")
        assert value.item() == pytest.approx(truth.item(), rel=5e-4)
        for slope, other in zip(
            torch.autograd.grad(truth, features), torch.autograd.grad(value, features), strict=True
        ):
            torch.testing.assert_close(other, slope, rtol=5e-3, atol=1e-8)


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("event", EVENTS)
def test_quadratic_is_half_the_variance_of_the_outputs_in_the_metric_of_the_loss(
    name: str, event: tuple[int, ...]
) -> None:
    features, head, _ = setting(event, 3)
    loss, target = LOSSES[name].double(), targets(name)
    outputs = head(features).detach()
    curvature = torch.autograd.functional.hessian(lambda u: loss(u, target), outputs)
    for law in laws(0.7, event):
        truth = torch.zeros((), dtype=torch.float64)
        for share, mask in masks_of(law, event):
            moved = (head(features * mask) - outputs).detach()
            truth += 0.5 * share * torch.einsum("nk,nknl,nl->", moved, curvature, moved)
        value = explicit_penalty(head, features, law, loss, target=target, form="quadratic")
        assert value.item() == pytest.approx(truth.item(), rel=1e-9)
        general = explicit_penalty(Opaque(head), features, law, loss, target=target, form="quadratic")
        torch.testing.assert_close(general, value, rtol=1e-9, atol=1e-12)
        wanted = [features, *(p for p in head.parameters() if p.dim() == 2)]
        for one, other in zip(torch.autograd.grad(value, wanted), torch.autograd.grad(general, wanted), strict=True):
            torch.testing.assert_close(other, one, rtol=1e-8, atol=1e-10)


@pytest.mark.parametrize("loss", ["squared", "cross-entropy", "logistic"])
def test_sampled_form_is_unbiased_in_value_and_gradient(loss: str) -> None:
    features, head, _ = setting((5,), 3)
    net = nn.Sequential(nn.Tanh(), head)
    law = Bernoulli(0.7)
    truth = explicit_penalty(net, features, law, loss, form="quadratic")
    wanted = [features, head.weight]
    slopes = torch.autograd.grad(truth, wanted)
    rng = torch.Generator().manual_seed(1)
    value = explicit_penalty(net, features, law, loss, form="sampled", generator=rng, samples=1500)
    assert value.item() == pytest.approx(truth.item(), rel=0.05)
    for slope, other in zip(slopes, torch.autograd.grad(value, wanted), strict=True):
        assert (slope - other).norm() < 0.1 * slope.norm()


@pytest.mark.parametrize("linear", [False, True])
def test_random_units_are_unbiased(linear: bool) -> None:
    features, head, _ = setting((4,), 2)
    net = head if linear else nn.Sequential(nn.Tanh(), head)
    law, target = Bernoulli(0.8), torch.tensor([0, 1, 0, 1])
    options = {"loss": "cross-entropy", "target": target, "form": "leave-one-out"}
    truth = explicit_penalty(net, features, law, **options).item()
    rng = torch.Generator().manual_seed(0)
    draws = [explicit_penalty(net, features, law, **options, units=2, generator=rng).item() for _ in range(400)]
    assert np.std(draws) > 0
    assert np.mean(draws) == pytest.approx(truth, abs=4 * np.std(draws) / 20)
    assert explicit_penalty(net, features, law, **options, units=9).item() == pytest.approx(truth)


def test_leave_one_out_of_a_curved_head_at_a_small_rate() -> None:
    features, head, _ = setting((5,), 3)
    net = nn.Sequential(nn.Tanh(), head)
    law, target = Bernoulli(0.99), torch.tensor([0, 2, 1, 2])
    truth = excess(net, features, masks_of(law, (5,)), lambda u: F.cross_entropy(u, target)).item()
    left = explicit_penalty(net, features, law, "cross-entropy", target=target, form="leave-one-out").item()
    quadratic = explicit_penalty(net, features, law, "cross-entropy", form="quadratic").item()
    assert left == pytest.approx(truth, rel=0.02)
    assert abs(quadratic - truth) > 0.05 * abs(truth)  # as documented: no small error for masks that drop


@pytest.mark.parametrize("loss", ["squared", "cross-entropy", "logistic"])
def test_masks_on_weights(loss: str) -> None:
    features, _, rng = setting((3,), 2)
    weight = torch.randn((2, 3), generator=rng, dtype=torch.float64, requires_grad=True)
    keep = 0.999
    targeted = torch.tensor([0, 1, 1, 0])
    criterion = {
        "squared": lambda u: u.square().sum() / 4,
        "cross-entropy": lambda u: F.cross_entropy(u, targeted),
        "logistic": lambda u: F.softplus(u).sum() / 4,
    }[loss]
    truth = -criterion(features @ weight.T)
    variance = torch.zeros((4, 2), dtype=torch.float64)
    for share, mask in group_masks(keep, list(range(6)), (2, 3)):
        moved = features @ (weight * mask).T
        truth = truth + share * criterion(moved)
        variance += share * (moved - features @ weight.T).detach().square()
    law = Connect(keep)
    left = explicit_penalty(weight, features, law, loss, form="leave-one-out")
    assert left.item() == pytest.approx(truth.item(), rel=1e-10 if loss == "squared" else 5e-3)
    (slope,) = torch.autograd.grad(truth, weight)
    (other,) = torch.autograd.grad(left, weight)
    torch.testing.assert_close(other, slope, rtol=2e-2, atol=1e-7)
    outputs = (features @ weight.T).detach()
    p = outputs.softmax(1) if loss == "cross-entropy" else outputs.sigmoid()
    bend = 2.0 if loss == "squared" else p * (1 - p)
    value = explicit_penalty(weight, features, law, loss, form="quadratic")
    assert value.item() == pytest.approx((0.5 * bend * variance).sum().item() / 4, rel=1e-9)


def test_on_the_last_layer_masks_of_weights_are_dropout_for_the_squared_loss() -> None:
    features, head, _ = setting((5,), 3)
    torch.testing.assert_close(
        explicit_penalty(head, features, Connect(0.6)), explicit_penalty(head, features, Bernoulli(0.6))
    )


def test_auto_takes_the_best_form_that_is_closed() -> None:
    features, head, _ = setting((5,), 3)
    dropping, noise = Bernoulli(0.7), Gaussian(0.7)
    for law, loss, form in (
        (dropping, "squared", "exact"),
        (noise, "squared", "exact"),
        (dropping, "cross-entropy", "leave-one-out"),
        (Connect(0.7), "logistic", "leave-one-out"),
        (noise, "cross-entropy", "quadratic"),
        (Rademacher(0.7), "logistic", "quadratic"),
    ):
        best = explicit_penalty(head, features, law, loss)
        assert torch.equal(best, explicit_penalty(head, features, law, loss, form=form))
    rng = [torch.Generator().manual_seed(3) for _ in range(2)]
    sampled = explicit_penalty(Opaque(head), features, dropping, "cross-entropy", form="sampled", generator=rng[0])
    assert torch.equal(explicit_penalty(Opaque(head), features, dropping, "cross-entropy", generator=rng[1]), sampled)


def test_positions_share_one_probe_of_signs() -> None:
    features, _, rng = setting((3, 4), 2)
    head = nn.Conv1d(3, 2, 1).double()
    weight = head.weight[:, :, 0]
    p = head(features).softmax(1)
    spread = torch.einsum("nkl,kc->ncl", p, weight.square()) - torch.einsum("nkl,kc->ncl", p, weight).square()
    truth = 0.5 * (3 / 7) * (features.square() * spread).sum() / 4
    value = explicit_penalty(head, features, Bernoulli(0.7), "cross-entropy", generator=rng, samples=2000)
    assert value.item() == pytest.approx(truth.item(), rel=0.03)
    with pytest.raises(InvalidArgumentError, match="positions"):
        explicit_penalty(head, features, Bernoulli(0.7), "cross-entropy", form="quadratic")


def test_all_ignored_is_zero_and_no_example_too() -> None:
    features, head, _ = setting((5,), 3)
    loss = nn.CrossEntropyLoss(ignore_index=0)
    assert explicit_penalty(head, features, Bernoulli(0.5), loss, target=torch.zeros(4, dtype=torch.int64)) == 0
    for form in ("leave-one-out", "quadratic"):
        assert explicit_penalty(head, features[:0], Bernoulli(0.5), "cross-entropy", form=form) == 0


def test_refusals_name_what_is_possible() -> None:
    features, head, _ = setting((5,), 3)
    law = Bernoulli(0.7)
    for options, words in (
        ({"loss": "cross-entropy", "form": "exact"}, "no closed form"),
        ({"loss": "hinge"}, "squared"),
        ({"loss": nn.L1Loss()}, "MSELoss"),
        ({"loss": nn.MSELoss(reduction="none")}, "reduction"),
        ({"loss": nn.CrossEntropyLoss(weight=torch.ones(3))}, "target"),
        ({"loss": nn.BCEWithLogitsLoss(pos_weight=torch.ones(3))}, "target"),
        ({"loss": "cross-entropy", "target": torch.zeros(3, dtype=torch.int64)}, "class indices"),
        ({"form": "best"}, "form"),
        ({"samples": 0}, "samples"),
        ({"units": 0}, "units"),
    ):
        with pytest.raises(ObverseError, match=words):
            explicit_penalty(head, features, law, **options)
    with pytest.raises(InvalidArgumentError, match="affine"):
        explicit_penalty(nn.Sequential(nn.ReLU(), head), features, law, form="exact")
    with pytest.raises(InvalidArgumentError, match="drops no groups"):
        explicit_penalty(head, features, Gaussian(0.7), "cross-entropy", form="leave-one-out")
    with pytest.raises(InvalidArgumentError, match="target"):
        explicit_penalty(Opaque(head), features, law, "cross-entropy", form="leave-one-out")
    with pytest.raises(InvalidArgumentError, match="AdaptiveAvgPool2d"):
        explicit_penalty(head, features[:, :, None, None].expand(4, 5, 2, 2), law)
    with pytest.raises(InvalidArgumentError, match="weights"):
        explicit_penalty(Opaque(head), features, Connect(0.5))
    with pytest.raises(InvalidArgumentError, match="units"):
        explicit_penalty(head, features, Connect(0.5), "cross-entropy", units=2)
