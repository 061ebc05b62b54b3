"""What all criteria have in common with each other, and with torch's cross-entropy."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
import torch
from label_cases import CASES, K, batch, build, extras
from torch import nn

from obverse.errors import InvalidArgumentError, UnknownNameError
from obverse.labels import CrossEntropy, LabelCriterion, LabelSmoothing, label_criteria, label_criterion

WEIGHT = torch.tensor([0.5, 2.0, 1.0, 0.1, 3.0], dtype=torch.float64)
EVERY = pytest.mark.parametrize("case", CASES)


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
@pytest.mark.parametrize("weight", [None, WEIGHT], ids=["plain", "weighted"])
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("positions", [(9,), (3, 4), (2, 3, 2)])
def test_equals_cross_entropy_of_torch(
    reduction: str, weight: torch.Tensor | None, smoothing: float, positions: tuple[int, ...]
) -> None:
    logits, target = batch(*positions)
    target.view(-1)[::4] = 2
    ignoring = target.clone()
    ignoring.view(-1)[::4] = 7
    probabilities = batch(*positions, seed=1)[0].detach().softmax(1)
    options: dict[str, Any] = {"weight": weight, "ignore_index": 7, "reduction": reduction}
    theirs = nn.CrossEntropyLoss(label_smoothing=smoothing, **options)
    ours = LabelSmoothing(smoothing, **options) if smoothing else CrossEntropy(**options)
    soft = nn.CrossEntropyLoss(label_smoothing=smoothing, **{**options, "ignore_index": -100})
    for given, reference in ((target, theirs), (ignoring, theirs), (probabilities, soft)):
        found, expected = ours(logits, given), reference(logits, given)
        torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)
        slope = torch.autograd.grad(found.sum(), logits)[0]
        torch.testing.assert_close(slope, torch.autograd.grad(expected.sum(), logits)[0], rtol=1e-12, atol=1e-12)


NEUTRAL: dict[str, dict[str, Any]] = {
    "smoothing": {"smoothing": 0.0},
    "adaptive": {"strength": 0.0},
    "online": {"hard_share": 1.0},
    "disturb": {"rate": 0.0},
    "confidence": {"strength": 0.0},
    "bootstrapping": {"label_share": 1.0},
    "bootstrapping, hard": {"label_share": 1.0},
    "early-learning": {"strength": 0.0},
    "generalized": {"q": 1e-13},
    "symmetric": {"forward_strength": 1.0, "reverse_strength": 0.0},
    "progressive": {"final_share": 0.0},
    "class-wise": {"strength": 0.0},
}


@pytest.mark.parametrize("case", NEUTRAL)
@pytest.mark.parametrize("weight", [None, WEIGHT], ids=["plain", "weighted"])
def test_without_its_own_term_a_criterion_is_cross_entropy(case: str, weight: torch.Tensor | None) -> None:
    criterion = build(case, **NEUTRAL[case], weight=weight, ignore_index=1)
    logits, target = batch(11)
    theirs = nn.CrossEntropyLoss(weight=weight, ignore_index=1)(logits, target)
    found = criterion(logits, target, **extras(criterion, (11,), torch.float64))
    tolerance = 1e-3 if case == "generalized" else 1e-12
    torch.testing.assert_close(found, theirs, rtol=tolerance, atol=tolerance)


@EVERY
@pytest.mark.parametrize("weight", [None, WEIGHT], ids=["plain", "weighted"])
@pytest.mark.parametrize("soft", [False, True], ids=["classes", "probabilities"])
def test_reductions_agree_and_ignored_rows_do_not_count(case: str, weight: torch.Tensor | None, soft: bool) -> None:
    logits, target = batch(10)
    given: torch.Tensor = target.clone()
    given[[1, 4, 5]] = -100
    if soft:
        given = batch(10, seed=5)[0].detach().softmax(1)
        given[[1, 4, 5]] = 0.0
    kept = torch.tensor([0, 2, 3, 6, 7, 8, 9])

    def value(reduction: str, rows: torch.Tensor) -> torch.Tensor:
        criterion = build(case, weight=weight, reduction=reduction)
        more = {key: value[rows] for key, value in extras(criterion, (10,), torch.float64).items()}
        return criterion(logits[rows], given[rows], **more)

    everything = torch.arange(10)
    if case.startswith("disturb"):
        everything = kept  # the draws of a row depend on how many rows there are
    mean, total, single = (value(reduction, everything) for reduction in ("mean", "sum", "none"))
    torch.testing.assert_close(single.sum(), total, rtol=1e-12, atol=1e-12)
    denominator = len(kept) if soft or weight is None else weight[target[kept]].sum()
    torch.testing.assert_close(mean * denominator, total, rtol=1e-12, atol=1e-12)
    if not case.startswith("disturb"):
        assert (single[[1, 4, 5]] == 0).all()
        torch.testing.assert_close(value("mean", kept), mean, rtol=1e-12, atol=1e-12)


@EVERY
@pytest.mark.parametrize("soft", [False, True], ids=["classes", "probabilities"])
def test_positions_are_rows(case: str, soft: bool) -> None:
    logits, target = batch(3, 2, 4)
    given = batch(3, 2, 4, seed=3)[0].detach().softmax(1) if soft else target
    dense, rows = build(case, reduction="none"), build(case, reduction="none")
    more = extras(dense, (3, 2, 4), torch.float64)

    def flat(tensor: torch.Tensor) -> torch.Tensor:
        if tensor.dim() == 4:
            return tensor.movedim(1, -1).reshape(-1, tensor.shape[1])
        return tensor.reshape(-1)

    found = dense(logits, given, **more)
    expected = rows(flat(logits), flat(given), **{key: flat(value) for key, value in more.items()})
    assert found.shape == (3, 2, 4)
    assert torch.equal(found.reshape(-1), expected)


@EVERY
@pytest.mark.parametrize("training", [True, False])
def test_nothing_to_learn_from_gives_zero_with_a_graph(case: str, training: bool) -> None:
    criterion = build(case).train(training)
    ignored = torch.full((4,), -100)
    for count, target in ((0, torch.zeros(0, dtype=torch.long)), (0, torch.zeros(0, K)), (4, ignored)):
        logits = torch.randn(count, K, requires_grad=True)
        before = {name: value.clone() for name, value in criterion.state_dict().items()}
        loss = criterion(logits, target, **extras(criterion, (count,), torch.float32))
        loss.backward()
        assert loss == 0
        assert logits.grad is not None
        assert (logits.grad == 0).all()
        for parameter in criterion.parameters():
            assert parameter.grad is None or (parameter.grad == 0).all()
        unchanged = criterion.state_dict()
        for name, value in before.items():
            if name.split(".")[-1] not in ("calls", "values", "classes", "flags"):
                assert torch.equal(value, unchanged[name])
    criterion.end_epoch()
    assert all(bool(value.isfinite().all()) for value in criterion.state_dict().values())


@EVERY
def test_half_precision_and_autocast_compute_in_float32(case: str) -> None:
    plain, low, inside = build(case), build(case).bfloat16(), build(case)
    logits = batch(16, dtype=torch.float32)[0].detach().bfloat16()
    target = batch(16)[1]
    expected = plain(logits.float(), target, **extras(plain, (16,), torch.float32))
    found = low(logits, target, **extras(low, (16,), torch.float32))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        cast = inside(logits, target, **extras(inside, (16,), torch.float32))
    assert found.dtype == cast.dtype == torch.float32
    assert torch.equal(found, expected)
    assert torch.equal(cast, expected)
    for kept, value in zip(low.state_dict().values(), plain.state_dict().values(), strict=True):
        assert kept.dtype == value.dtype
        assert torch.equal(kept, value)


@EVERY
def test_extreme_logits_stay_finite(case: str) -> None:
    for scale in (1e4, 1e8):
        criterion = build(case)
        logits = (batch(16, dtype=torch.float32)[0].detach() * scale).requires_grad_()
        loss = criterion(logits, batch(16)[1], **extras(criterion, (16,), torch.float32))
        loss.backward()
        assert loss.isfinite()
        assert logits.grad is not None
        assert logits.grad.isfinite().all()


@EVERY
def test_evaluation_leaves_the_state_alone(case: str) -> None:
    criterion = build(case)
    logits, target = batch(12)
    criterion(logits, target, **extras(criterion, (12,), torch.float64))
    before = {name: value.clone() for name, value in criterion.state_dict().items()}
    other, labels = batch(12, seed=9)
    for training in (True, False):
        criterion.train(training)
        with torch.set_grad_enabled(not training):
            criterion(other, labels, **extras(criterion, (12,), torch.float64))
    assert all(torch.equal(value, before[name]) for name, value in criterion.state_dict().items())
    criterion.eval()
    assert criterion(other, labels).isfinite()  # needs neither ids nor features
    criterion(other, labels).backward()
    assert all(parameter.grad is None for parameter in criterion.parameters())


@EVERY
def test_bad_input_is_refused_and_changes_nothing(case: str) -> None:
    criterion = build(case)
    logits, target = batch(6)
    more = extras(criterion, (6,), torch.float64)
    before = {name: value.clone() for name, value in criterion.state_dict().items()}
    bad: list[tuple[Any, Any, dict[str, Any]]] = [
        (logits, target[:5], more),
        (logits[0], target[0], more),
        (logits, target.double(), more),
        (logits, target > 1, more),
        (logits, torch.full((6,), K), more),
        (logits, torch.full((6,), -1), more),
        (logits.long(), target, more),
        (logits, [1] * 6, more),
        (logits, target, {**more, "index": torch.arange(5)}),
        (logits, target, {**more, "index": torch.rand(6)}),
        (logits, target, {**more, "features": torch.rand(5, 7)}),
        (logits, target, {**more, "pair_logits": torch.rand(6, K - 1)}),
    ]
    if criterion.num_classes is not None:
        bad.append((torch.randn(6, K + 1), target, more))
    if criterion.needs_index:
        bad += [(logits, target, {}), (logits, target, {"index": torch.arange(-1, 5)})]
    if case == "generalized, pruned":
        bad.append((logits, target, {"index": torch.arange(40, 46)}))
    if criterion.needs_features:
        bad += [(logits, target, {}), (logits, target, {"features": torch.rand(6, 8)})]
    for given, labels, options in bad:
        with pytest.raises(InvalidArgumentError):
            criterion(given, labels, **options)
    assert all(torch.equal(value, before[name]) for name, value in criterion.state_dict().items())


def test_bad_options_are_refused() -> None:
    refused: list[tuple[str, dict[str, Any]]] = [
        ("smoothing", {"smoothing": 1.5}),
        ("smoothing", {"smoothing": "much"}),
        ("cross-entropy", {"reduction": "average"}),
        ("cross-entropy", {"weight": [1.0, -1.0]}),
        ("cross-entropy", {"weight": [[1.0]]}),
        ("cross-entropy", {"weight": "heavy"}),
        ("cross-entropy", {"ignore_index": 1.5}),
        ("cross-entropy", {"smoothing": 0.1}),
        ("adaptive", {"strength": -1.0}),
        ("adaptive", {"update": "magic"}),
        ("adaptive", {"normalization": "row"}),
        ("adaptive", {"momentum": 1.0}),
        ("pairwise", {"pairs": "flip"}),
        ("online", {"start": "ones"}),
        ("online", {"fallback": "zeros"}),
        ("disturb", {"rate": -0.1}),
        ("disturb", {"generator": 3}),
        ("bootstrapping", {"form": "medium"}),
        ("generalized", {"q": 0.0}),
        ("generalized", {"truncation": 0.0}),
        ("symmetric", {"log_zero": 0.0}),
        ("progressive", {"epochs": 0}),
        ("early-learning", {"num_samples": 0}),
        ("class-wise", {"temperature": 0.0}),
    ]
    for name, options in refused:
        with pytest.raises(InvalidArgumentError):
            label_criterion(name, K, **options)
    with pytest.raises(InvalidArgumentError, match="at least 3"):
        label_criterion("adaptive", 2)
    with pytest.raises(InvalidArgumentError, match="weights for 3 classes"):
        CrossEntropy(weight=[1.0, 2.0, 3.0])(*batch(4))
    with pytest.raises(UnknownNameError, match="did you mean 'smoothing'"):
        label_criterion("smooting", K)


def test_names_and_attributes() -> None:
    assert isinstance(label_criterion("none", K), CrossEntropy)
    for name, cls in label_criteria().items():
        criterion = label_criterion(name, K)
        assert isinstance(criterion, LabelCriterion)
        assert type(criterion) is cls
        assert criterion.name == name
        assert criterion.is_stateful or name == "generalized" or not criterion.state_dict()
        assert name == "adaptive" or name == "pairwise" or not criterion.parameter_groups()
        assert len(repr(criterion)) > len(cls.__name__)
        inputs = torch.randn(4, 3)
        assert criterion.prepare(inputs, torch.arange(4))[0] is inputs  # the first batch is never of midpoints
    groups = label_criterion("adaptive", K, learning_rate=0.3).parameter_groups()
    assert [(group["lr"], group["weight_decay"]) for group in groups] == [(0.3, 0.0)]


def test_a_mean_over_weights_that_are_zero_is_finite() -> None:
    logits, _ = batch(3)
    assert CrossEntropy(weight=[0.0] + [1.0] * 4)(logits, torch.zeros(3, dtype=torch.long)) == 0


@pytest.mark.parametrize(("case", "soft"), list(itertools.product(CASES, [False, True])))
def test_a_step_down_the_gradient_lowers_the_loss(case: str, soft: bool) -> None:
    logits, target = batch(8)
    given = batch(8, seed=2)[0].detach().softmax(1) if soft else target
    criterion = build(case, weight=WEIGHT)
    more = extras(criterion, (8,), torch.float64)
    value = criterion(logits, given, **more)
    (slope,) = torch.autograd.grad(value, logits)
    again = build(case, weight=WEIGHT)
    assert again(logits - 1e-4 * slope, given, **more) < value
