"""Losses under weights: torch where both are defined, repeated rows, closed forms, empty and ignored rows."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from obverse.errors import InvalidArgumentError, UnknownNameError
from obverse.imbalance import (
    BalancedSoftmaxLoss,
    CrossEntropyLoss,
    DeferredReweighting,
    FocalLoss,
    LDAMLoss,
    LogitAdjustedLoss,
    NormalizedLinear,
    WeightedLoss,
    adjust_logits,
    class_balanced_weights,
    inverse_frequency_weights,
)

COUNTS = [50, 10, 5, 2]
LOSSES: dict[str, Callable[..., WeightedLoss]] = {
    "cross-entropy": CrossEntropyLoss,
    "focal": FocalLoss,
    "focal below one": lambda **options: FocalLoss(0.5, **options),
    "focal sigmoid": lambda **options: FocalLoss(1.0, form="sigmoid", **options),
    "ldam": lambda **options: LDAMLoss(COUNTS, scale=3.0, **options),
    "logit-adjusted": lambda **options: LogitAdjustedLoss(COUNTS, temperature=0.7, **options),
    "balanced softmax": lambda **options: BalancedSoftmaxLoss(COUNTS, **options),
}
every_loss = pytest.mark.parametrize("make", LOSSES.values(), ids=LOSSES.keys())


def batch(rows: int = 7, seed: int = 0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(rows, 4, generator=generator, dtype=torch.float64)
    return logits, torch.randint(0, 4, (rows,), generator=generator)


@every_loss
def test_a_whole_weight_is_a_repeated_row(make: Callable[..., WeightedLoss]) -> None:
    logits, target = batch()
    times = torch.tensor([3, 1, 0, 2, 1, 1, 4])
    repeated = make()(logits.repeat_interleave(times, 0), target.repeat_interleave(times))
    torch.testing.assert_close(make()(logits, target, times.double()), repeated)


@every_loss
def test_class_weights_are_weights_of_rows(make: Callable[..., WeightedLoss]) -> None:
    logits, target = batch()
    of_class = torch.tensor([1.0, 2.0, 5.0, 0.5], dtype=torch.float64)
    torch.testing.assert_close(make(class_weights=of_class)(logits, target), make()(logits, target, of_class[target]))


@every_loss
def test_denominators_and_reductions(make: Callable[..., WeightedLoss]) -> None:
    logits, target = batch()
    target[2] = -100
    weight = torch.rand(7, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    rows = make(reduction="none")(logits, target, weight)
    assert rows.shape == (7,)
    assert float(rows[2]) == 0.0
    kept = torch.arange(7) != 2
    torch.testing.assert_close(rows[kept], weight[kept] * make().values(logits[kept], target[kept]))
    torch.testing.assert_close(make(reduction="sum")(logits, target, weight), rows.sum())
    torch.testing.assert_close(make()(logits, target, weight), rows.sum() / weight[kept].sum())
    torch.testing.assert_close(make(denominator="count")(logits, target, weight), rows.sum() / 6)


@every_loss
def test_gradients(make: Callable[..., WeightedLoss]) -> None:
    logits, target = batch(5)
    weight = torch.tensor([1.0, 0.0, 2.0, 0.5, 1.0], dtype=torch.float64, requires_grad=True)
    logits.requires_grad_()
    assert torch.autograd.gradcheck(lambda z: make()(z, target, weight.detach()), logits)
    assert torch.autograd.gradgradcheck(lambda z: make()(z, target, weight.detach()), logits)


@every_loss
def test_what_is_ignored_reaches_no_gradient(make: Callable[..., WeightedLoss]) -> None:
    logits, target = batch()
    target[[1, 4]] = -100
    kept = target != -100
    expected = make()(logits[kept], target[kept])
    logits[1], logits[4, 0] = torch.nan, torch.inf
    logits.requires_grad_()
    loss = make()(logits, target)
    torch.testing.assert_close(loss, expected)
    loss.backward()
    assert logits.grad is not None
    assert bool((logits.grad[~kept] == 0).all())
    assert bool(torch.isfinite(logits.grad).all())


@every_loss
def test_nothing_to_learn_from_is_zero_with_a_graph(make: Callable[..., WeightedLoss]) -> None:
    for rows, target, weight in [
        (0, torch.empty(0, dtype=torch.long), None),
        (3, torch.full((3,), -100), None),
        (3, torch.tensor([0, 1, 2]), torch.zeros(3)),
    ]:
        logits = torch.randn(rows, 4, requires_grad=True)
        loss = make()(logits, target, weight)
        loss.backward()
        assert loss.item() == 0.0
        assert logits.grad is not None
        assert bool((logits.grad == 0).all())


@every_loss
def test_half_precision_is_computed_in_single(make: Callable[..., WeightedLoss]) -> None:
    logits, target = batch()
    half = logits.bfloat16()
    with torch.autocast("cpu", torch.bfloat16):
        loss = make()(half, target)
    assert loss.dtype == torch.float32
    torch.testing.assert_close(loss, make()(half.float(), target))


@every_loss
def test_extreme_logits_stay_finite(make: Callable[..., WeightedLoss]) -> None:
    for scale in (1e4, 1e30):
        logits = scale * torch.tensor([[1.0, -1.0, 0.0, 0.5], [-1.0, 1.0, 0.0, 0.5]])
        logits.requires_grad_()
        loss = make()(logits, torch.tensor([0, 0]))
        loss.backward()
        assert math.isfinite(loss.item())
        assert logits.grad is not None
        assert bool(torch.isfinite(logits.grad).all())


def test_equal_to_torch_where_they_overlap() -> None:
    logits, target = batch()
    target[3] = 9
    of_class = torch.tensor([1.0, 2.0, 5.0, 0.5], dtype=torch.float64)
    ours = CrossEntropyLoss(class_weights=of_class, ignore_index=9)(logits, target)
    torch.testing.assert_close(ours, F.cross_entropy(logits, target, weight=of_class, ignore_index=9))


def test_neutral_settings_are_the_cross_entropy() -> None:
    logits, target = batch()
    expected = F.cross_entropy(logits, target)
    neutral: list[WeightedLoss] = [
        FocalLoss(0.0),
        LogitAdjustedLoss([3, 3, 3, 3]),
        LogitAdjustedLoss(COUNTS, temperature=0.0),
        BalancedSoftmaxLoss([7, 7, 7, 7]),
        LDAMLoss(COUNTS, max_margin=1e-12, scale=1.0),
    ]
    for loss in neutral:
        torch.testing.assert_close(loss(logits, target), expected)
    sigmoid = FocalLoss(0.0, form="sigmoid")(logits, target)
    one_hot = F.one_hot(target, 4).double()
    torch.testing.assert_close(sigmoid, F.binary_cross_entropy_with_logits(logits, one_hot, reduction="sum") / 7)


def test_focal_by_hand_and_with_the_models_own_probabilities() -> None:
    logits = torch.tensor([[math.log(3.0), 0.0], [0.0, math.log(4.0)]], dtype=torch.float64)
    target = torch.tensor([0, 0])
    by_hand = [0.25**2 * -math.log(0.75), 0.8**2 * -math.log(0.2)]
    weight = torch.tensor([2.0, 7.0], dtype=torch.float64)
    value = float(FocalLoss(2.0)(logits, target, weight))
    assert value == pytest.approx((2 * by_hand[0] + 7 * by_hand[1]) / 9)


def test_ldam_by_hand() -> None:
    logits = torch.tensor([[0.9, 0.1], [0.2, 0.6]], dtype=torch.float64)
    loss = LDAMLoss([160, 10], max_margin=0.5, scale=30.0)
    assert loss.margins.tolist() == pytest.approx([0.25, 0.5])
    first = math.log1p(math.exp(30 * (0.1 - (0.9 - 0.25))))
    second = math.log1p(math.exp(30 * (0.2 - (0.6 - 0.5))))
    assert float(loss(logits, torch.tensor([0, 1]))) == pytest.approx((first + second) / 2)


def test_logit_adjustment_in_training_undoes_itself_afterwards() -> None:
    logits, target = batch()
    adjusted = adjust_logits(logits, COUNTS)
    torch.testing.assert_close(
        LogitAdjustedLoss(COUNTS)(adjusted, target), F.cross_entropy(logits, target), rtol=1e-6, atol=1e-6
    )
    torch.testing.assert_close(BalancedSoftmaxLoss(COUNTS)(logits, target), LogitAdjustedLoss(COUNTS)(logits, target))
    weighted = torch.tensor(COUNTS) * logits.exp()
    balanced = -(weighted / weighted.sum(1, keepdim=True)).gather(1, target[:, None]).log().mean()
    torch.testing.assert_close(BalancedSoftmaxLoss(COUNTS)(logits, target), balanced, rtol=1e-6, atol=1e-6)


def test_class_balanced_weights_and_their_limits() -> None:
    weights = class_balanced_weights([5000, 50], beta=0.9999)
    effective = [(1 - 0.9999**n) / (1 - 0.9999) for n in (5000, 50)]
    assert float(weights[1] / weights[0]) == pytest.approx(effective[0] / effective[1], rel=1e-6)
    assert float(weights.sum()) == pytest.approx(2.0)
    assert class_balanced_weights(COUNTS, 0.0).tolist() == [1.0] * 4
    torch.testing.assert_close(class_balanced_weights(COUNTS, 1.0), inverse_frequency_weights(COUNTS))
    near = class_balanced_weights(COUNTS, 1.0 - 1e-12)
    torch.testing.assert_close(near, class_balanced_weights(COUNTS, 1.0))
    assert inverse_frequency_weights(COUNTS, 0.0).tolist() == [1.0] * 4


def test_a_cosine_head_sees_directions_only() -> None:
    torch.manual_seed(0)
    head = NormalizedLinear(6, 3, scale=2.0)
    features = torch.randn(5, 6)
    out = head(features)
    assert out.abs().max().item() <= 2.0
    torch.testing.assert_close(head(7 * features), out)
    torch.testing.assert_close(out[0, 1] / 2, F.cosine_similarity(features[0], head.weight[1], dim=0))
    assert bool((head(torch.zeros(1, 6)) == 0).all())
    torch.nn.Linear(6, 3, bias=False).load_state_dict(head.state_dict())


def test_deferred_weights_switch_on_and_survive_a_resume() -> None:
    logits, target = batch()
    deferred = DeferredReweighting(FocalLoss(), COUNTS, start=2)
    plain = FocalLoss()(logits, target)
    for _ in range(2):
        assert not deferred.active
        torch.testing.assert_close(deferred(logits, target), plain)
        deferred.step()
    balanced = class_balanced_weights(COUNTS)
    torch.testing.assert_close(deferred(logits, target), FocalLoss(class_weights=balanced)(logits, target))
    weight = torch.rand(7, dtype=torch.float64)
    torch.testing.assert_close(
        deferred(logits, target, weight), FocalLoss(class_weights=balanced)(logits, target, weight)
    )
    resumed = DeferredReweighting(FocalLoss(), COUNTS, start=2)
    resumed.load_state_dict(deferred.state_dict())
    assert resumed.active
    target[0] = -100
    torch.testing.assert_close(deferred(logits, target), FocalLoss(class_weights=balanced)(logits, target))


@pytest.mark.parametrize(
    ("arguments", "say"),
    [
        ((torch.zeros(3), torch.zeros(3, dtype=torch.long)), "shape"),
        ((torch.zeros(3, 1), torch.zeros(3, dtype=torch.long)), "K >= 2"),
        ((torch.zeros(3, 4), torch.zeros(2, dtype=torch.long)), "target"),
        ((torch.zeros(3, 4), torch.zeros(3)), "integers"),
        ((torch.zeros(3, 4), torch.tensor([0, 4, 1])), "got 4"),
        ((torch.zeros(3, 4), torch.tensor([0, 1, 1]), torch.ones(4)), "weight"),
        ((torch.zeros(3, 4), torch.tensor([0, 1, 1]), torch.tensor([1.0, -1.0, 1.0])), "negative"),
    ],
)
def test_bad_batches(arguments: tuple[Any, ...], say: str) -> None:
    with pytest.raises(InvalidArgumentError, match=say):
        CrossEntropyLoss()(*arguments)


@pytest.mark.parametrize(
    "call",
    [
        lambda: FocalLoss(-1.0),
        lambda: FocalLoss(form="tanh"),  # type: ignore[arg-type]
        lambda: CrossEntropyLoss(denominator="rows"),
        lambda: CrossEntropyLoss(reduction="median"),
        lambda: CrossEntropyLoss(class_weights=[1.0, -2.0]),
        lambda: CrossEntropyLoss(class_weights=[1.0, 2.0])(torch.zeros(1, 3), torch.tensor([0])),
        lambda: LDAMLoss([3, 0]),
        lambda: LDAMLoss(COUNTS, max_margin=0.0),
        lambda: LDAMLoss(COUNTS)(torch.zeros(1, 3), torch.tensor([0])),
        lambda: LogitAdjustedLoss([1.0]),
        lambda: LogitAdjustedLoss(COUNTS, temperature=math.nan),
        lambda: adjust_logits(torch.zeros(2, 3), COUNTS),
        lambda: class_balanced_weights(COUNTS, 1.5),
        lambda: NormalizedLinear(0, 3),
        lambda: DeferredReweighting(FocalLoss(), COUNTS, start=-1),
    ],
)
def test_bad_settings(call: Callable[[], object]) -> None:
    with pytest.raises(InvalidArgumentError):
        call()


def test_an_unknown_form_suggests_the_known() -> None:
    with pytest.raises(UnknownNameError, match="softmax"):
        FocalLoss(form="softmx")  # type: ignore[arg-type]
