"""Mixed samples: what is blended or pasted, the labels' shares, and that every criterion takes them."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from label_cases import CASES, K, build, extras
from torch import nn

from obverse.errors import InvalidArgumentError
from obverse.labels import AdaptiveLabelRegularization, CrossEntropy, LabelSmoothing, cutmix, mixup

WEIGHT = torch.tensor([0.5, 2.0, 1.0, 0.1, 3.0], dtype=torch.float64)
BOTH = pytest.mark.parametrize("mix", [mixup, cutmix])
Mix = Callable[..., tuple[torch.Tensor, torch.Tensor]]


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def one_hot(target: torch.Tensor) -> torch.Tensor:
    return torch.eye(K, dtype=torch.float64)[target].movedim(-1, 1)


def coded(count: int, *places: int) -> torch.Tensor:
    """Inputs that tell their sample and their place: the number of the sample everywhere."""
    return torch.arange(count, dtype=torch.float64).view(-1, 1, *[1] * len(places)).expand(count, 2, *places).clone()


@pytest.mark.parametrize("per_sample", [False, True])
@pytest.mark.parametrize("soft", [False, True])
def test_mixup_blends_inputs_and_targets_in_the_same_shares(per_sample: bool, soft: bool) -> None:
    # Inputs of one-hot samples: what comes out tells who was mixed, and in which shares.
    inputs = torch.eye(40, dtype=torch.float64)
    target = torch.arange(40) % K
    given = one_hot(target) if soft else target
    mixed, found = mixup(inputs, given, 0.7, num_classes=K, per_sample=per_sample, generator=seeded(1))
    torch.testing.assert_close(found, mixed @ one_hot(target), rtol=1e-12, atol=1e-12)
    shares = mixed.diagonal()
    others = (mixed - torch.diag(shares)).sum(1)
    torch.testing.assert_close(shares + others, torch.ones(40, dtype=torch.float64))
    different = len({round(float(s), 9) for s in shares if s < 1})
    assert different > 30 if per_sample else different == 1


@pytest.mark.parametrize("alpha", [0.2, 1.0, 4.0])
def test_shares_follow_the_beta_distribution(alpha: float) -> None:
    inputs = torch.zeros(4000, 1)
    inputs[:, 0] = 1.0
    target = torch.zeros(4000, dtype=torch.long)
    # Rows of sample numbers with two classes, so that the share is that of class 1 against class 0.
    target[2000:] = 1
    _, found = mixup(inputs, target, alpha, num_classes=2, per_sample=True, generator=seeded(0))
    own = found.gather(1, target[:, None])[:, 0]
    mixed = own[own < 1]
    assert float(mixed.mean()) == pytest.approx(0.5, abs=0.03)
    assert float(mixed.var()) == pytest.approx(1 / (4 * (2 * alpha + 1)), rel=0.1)


@pytest.mark.parametrize("per_sample", [False, True])
@pytest.mark.parametrize("places", [(12,), (9, 14), (5, 6, 4)])
def test_cutmix_pastes_one_box_and_labels_by_its_area(per_sample: bool, places: tuple[int, ...]) -> None:
    inputs, target = coded(30, *places), torch.arange(30) % K
    clipped = 0
    for seed in range(8):
        mixed, found = cutmix(inputs, target, num_classes=K, per_sample=per_sample, generator=seeded(seed))
        assert mixed.shape == inputs.shape
        assert torch.equal(mixed[:, 0], mixed[:, 1])
        for i in range(30):
            values, counts = mixed[i, 0].unique(return_counts=True)
            expected = torch.zeros(K, dtype=torch.float64)
            for value, number in zip(values.long(), counts, strict=True):
                expected[target[value]] += float(number) / mixed[i, 0].numel()
            torch.testing.assert_close(found[i], expected, rtol=1e-12, atol=1e-12)
            pasted = (mixed[i, 0] != i).nonzero()
            if len(pasted):
                extents = pasted.amax(0) - pasted.amin(0) + 1
                assert int(extents.prod()) == len(pasted)
                at_border = (pasted.amin(0) == 0) | (pasted.amax(0) == torch.tensor(places) - 1)
                clipped += int(at_border.any())
        boxes = {tuple((mixed[i, 0] != i).flatten().tolist()) for i in range(30)}
        # Of one box for the batch, or none where a sample is its own partner.
        assert len(boxes) > 5 if per_sample else len(boxes) <= 2
    assert clipped > 0


def test_clipping_keeps_more_than_was_drawn_and_the_correction_can_be_left_out() -> None:
    inputs, target = coded(2000, 32, 32).float(), torch.arange(2000) % 2
    shares = []
    for corrected in (True, False):
        mixed, found = cutmix(
            inputs, target, num_classes=2, per_sample=True, correct_share=corrected, generator=seeded(3)
        )
        other = (mixed[:, 0].amax((1, 2)) % 2 != target) | (mixed[:, 0].amin((1, 2)) % 2 != target)
        shares.append(found.gather(1, target[:, None])[:, 0][other].mean())
    # Samples whose box was empty are not among them, so that the drawn share is a little below a half.
    assert float(shares[1]) < 0.51
    assert float(shares[0] - shares[1]) > 0.1


@BOTH
def test_targets_by_position_are_mixed_by_position(mix: Mix) -> None:
    inputs = torch.randn(6, 3, 5, 4, generator=seeded(0), dtype=torch.float64)
    target = torch.randint(K, (6, 5, 4), generator=seeded(1))
    target[2, 1] = -100
    mixed, found = mix(inputs, target, num_classes=K, per_sample=True, generator=seeded(2))
    _, again = mix(inputs, one_hot(target.clamp(min=0)) * (target >= 0)[:, None], per_sample=True, generator=seeded(2))
    assert found.shape == (6, K, 5, 4)
    torch.testing.assert_close(found, again)
    mass = found.sum(1)
    assert ((mass - 1).abs().lt(1e-12) | (mass == 0)).all()
    if mix is cutmix:
        # Where the pixels are those of the sample itself, so is the label.
        own = (mixed == inputs).all(1)
        expected = one_hot(target.clamp(min=0)) * (target >= 0)[:, None]
        assert torch.equal(found.movedim(1, -1)[own], expected.movedim(1, -1)[own])
        assert 0 < own.float().mean() < 1


@BOTH
def test_the_label_that_counts_counts_alone(mix: Mix) -> None:
    inputs = torch.eye(8, dtype=torch.float64)[:, None, :].expand(8, 1, 8).clone()
    target = torch.tensor([0, 1, -100, 3, -100, 0, 1, -100])
    for seed in range(5):
        mixed, found = mix(inputs, target, num_classes=K, generator=seeded(seed))
        _, plain = mix(inputs, target.clamp(min=0), num_classes=K, generator=seeded(seed))
        _, who = mix(inputs, torch.eye(8, dtype=torch.float64), generator=seeded(seed))
        for i in range(8):
            # Who else is in the row; none besides itself where it is its own partner or nothing was pasted.
            pair = set(who[i].nonzero()[:, 0].tolist()) | {i}
            kept = [j for j in pair if target[j] >= 0]
            if len(kept) == len(pair):
                torch.testing.assert_close(found[i], plain[i])
            elif len(pair) == 2 and kept:
                torch.testing.assert_close(found[i], one_hot(target[kept])[0])
            elif not kept:
                assert (found[i] == 0).all()
        assert mixed.isfinite().all()


@BOTH
@pytest.mark.parametrize("case", CASES)
def test_every_criterion_takes_what_comes_out(mix: Mix, case: str) -> None:
    torch.manual_seed(0)
    inputs, target = torch.randn(10, 1, 3, 3), torch.arange(10) % K
    target[4] = -100
    mixed, probabilities = mix(inputs, target, num_classes=K, generator=seeded(0))
    network = nn.Sequential(nn.Flatten(), nn.Linear(9, K))
    criterion = build(case, weight=WEIGHT)
    logits = network(mixed)
    loss = criterion(logits, probabilities, **extras(criterion, (10,), torch.float32))
    loss.backward()
    assert loss.isfinite()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in network.parameters())


@BOTH
def test_losses_of_mixed_labels_are_mixed_losses(mix: Mix) -> None:
    """Linear in the target: also with class weights, where two mean losses of torch would not add up."""
    inputs = torch.randn(12, 1, 6, 6, generator=seeded(5), dtype=torch.float64)
    target = torch.arange(12) % K
    _, probabilities = mix(inputs, target, num_classes=K, generator=seeded(6))
    _, shares = mix(inputs, torch.eye(12, dtype=torch.float64), generator=seeded(6))
    logits = torch.randn(12, K, generator=seeded(7), dtype=torch.float64)
    for criterion in (CrossEntropy, LabelSmoothing):
        single = criterion(weight=WEIGHT, reduction="none")
        each = torch.stack([single(logits, target[j].expand(12)) for j in range(12)], 1)
        found = criterion(weight=WEIGHT)(logits, probabilities)
        torch.testing.assert_close(found, (shares * each).sum(1).mean(), rtol=1e-12, atol=1e-12)
    before = 0.9 * one_hot(target) + 0.1 / K
    _, smoothed = mix(inputs, before, generator=seeded(6))
    torch.testing.assert_close(LabelSmoothing(0.1)(logits, probabilities), CrossEntropy()(logits, smoothed))


def test_adaptive_labels_of_mixed_samples_are_mixed_terms() -> None:
    """The residual terms of both classes in their shares, and their class weights."""
    inputs = torch.randn(9, 4, generator=seeded(0), dtype=torch.float64)
    target = torch.arange(9) % K
    _, probabilities = mixup(inputs, target, num_classes=K, per_sample=True, generator=seeded(1))
    logits = torch.randn(9, K, generator=seeded(2), dtype=torch.float64)
    criterion = AdaptiveLabelRegularization(K, 0.8, weight=WEIGHT, reduction="none").double()
    with torch.no_grad():
        criterion.residual_logits.copy_(torch.randn(K, K, generator=seeded(3)))
    each = torch.stack([criterion(logits, torch.full((9,), k)) for k in range(K)], 1)
    found = criterion(logits, probabilities)
    torch.testing.assert_close(found, (probabilities * each).sum(1), rtol=1e-10, atol=1e-10)
    (slope,) = torch.autograd.grad(found.sum(), criterion.residual_logits)
    touched = probabilities.sum(0) > 0
    assert torch.equal(slope.abs().sum(1) > 0, touched)


@BOTH
def test_seeds_repeat_and_nothing_is_changed_in_place(mix: Mix) -> None:
    inputs = torch.randn(8, 2, 4, 4, generator=seeded(0))
    target = torch.arange(8) % K
    copies = inputs.clone(), target.clone()
    first = mix(inputs, target, num_classes=K, generator=seeded(4))
    second = mix(inputs, target, num_classes=K, generator=seeded(4))
    third = mix(inputs, target, num_classes=K, generator=seeded(5))
    assert torch.equal(first[0], second[0])
    assert torch.equal(first[1], second[1])
    assert not torch.equal(first[0], third[0])
    assert torch.equal(inputs, copies[0])
    assert torch.equal(target, copies[1])
    torch.manual_seed(3)
    drawn = mix(inputs, target, num_classes=K)
    torch.manual_seed(3)
    assert torch.equal(mix(inputs, target, num_classes=K)[0], drawn[0])
    nothing = mix(inputs, target, 0.0, num_classes=K, generator=seeded(4))
    assert torch.equal(nothing[0], inputs)
    assert torch.equal(nothing[1].double(), one_hot(target))


@BOTH
def test_types_of_mixed_samples(mix: Mix) -> None:
    target = torch.arange(6) % K
    for dtype, _wide in (
        (torch.float64, torch.float64),
        (torch.bfloat16, torch.float32),
        (torch.float16, torch.float32),
    ):
        mixed, probabilities = mix(torch.randn(6, 1, 4, 4).to(dtype), target, num_classes=K, generator=seeded(0))
        assert mixed.dtype == dtype
        assert probabilities.dtype == (dtype if dtype == torch.float64 else torch.float32)
    empty = mix(torch.zeros(0, 1, 4, 4), target[:0], num_classes=K, generator=seeded(0))
    assert empty[0].shape == (0, 1, 4, 4)
    assert empty[1].shape == (0, K)


@BOTH
def test_bad_input_of_mixing_is_refused(mix: Mix) -> None:
    inputs, target = torch.randn(4, 1, 3, 3), torch.arange(4)
    bad: list[tuple[Any, Any, dict[str, Any]]] = [
        (inputs.long(), target, {"num_classes": K}),
        (inputs, target[:3], {"num_classes": K}),
        (inputs, target, {}),
        (inputs, target, {"num_classes": 3}),
        (inputs, target, {"num_classes": 1}),
        (inputs, target > 1, {"num_classes": K}),
        (inputs, torch.rand(4), {}),
        (inputs, torch.rand(4, K), {"num_classes": K + 1}),
        (inputs, target, {"num_classes": K, "alpha": -1.0}),
        ([1.0], target, {"num_classes": K}),
    ]
    if mix is cutmix:
        bad.append((torch.randn(4, 3), target, {"num_classes": K}))
        bad.append((inputs, torch.zeros(4, 3, 4, dtype=torch.long), {"num_classes": K}))
    for given, labels, options in bad:
        with pytest.raises(InvalidArgumentError):
            mix(given, labels, **options)


@pytest.mark.parametrize("alpha", [0.0, 1e-4])
def test_infinite_inputs_are_mixed_with_a_share_of_zero(alpha: float) -> None:
    """Shares of Beta(1e-4, 1e-4) are exactly zero or one but for rounding; the other input has no part then."""
    inputs = torch.tensor([[0.0, -math.inf], [1.0, 2.0], [math.inf, 3.0]])
    for seed in range(8):
        mixed, _ = mixup(inputs, torch.arange(3), alpha, num_classes=3, per_sample=True, generator=seed)
        assert not bool(mixed.isnan().any())


@pytest.mark.parametrize("mix", [mixup, cutmix])
@pytest.mark.parametrize(
    ("target", "say"),
    [([0.5, 0.6], r"row 1 has the sum 1\.1"), ([1.5, -0.5], "row 1 has a negative"), ([math.nan, 1.0], "row 1 has a")],
)
def test_targets_that_are_no_probabilities_are_not_mixed(mix: Any, target: list[float], say: str) -> None:
    with pytest.raises(InvalidArgumentError, match=say):
        mix(torch.zeros(2, 1, 4), torch.tensor([[1.0, 0.0], target]))


@pytest.mark.parametrize("mix", [mixup, cutmix])
def test_seeds_of_mixing_are_numbers_or_generators(mix: Any) -> None:
    inputs = torch.randn(6, 1, 8, generator=torch.Generator().manual_seed(0))
    expected = mix(inputs, torch.arange(6), num_classes=6, generator=torch.Generator().manual_seed(4))
    found = mix(inputs, torch.arange(6), num_classes=6, generator=4)
    assert all(torch.equal(one, other) for one, other in zip(found, expected, strict=True))
