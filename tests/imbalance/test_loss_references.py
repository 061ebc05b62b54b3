"""Long-tail losses against plain formulas in float64, row by row, on the classes that a row does not mask."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor

from obverse.errors import InvalidArgumentError, NonFiniteError
from obverse.imbalance import (
    BalancedSoftmaxLoss,
    ClassBalancedSampler,
    CrossEntropyLoss,
    DeferredReweighting,
    FocalLoss,
    HeteroskedasticRegularizer,
    LDAMLoss,
    LogitAdjustedLoss,
    ResamplingSampler,
    WeightedLoss,
    adjust_logits,
    class_balanced_weights,
    corrupt_labels,
    corrupt_targets,
    diagnose_groups,
    estimate_group_noise,
    gain_along_path,
    group_report,
    group_strengths,
    inverse_frequency_weights,
)
from obverse.labels import CalibrationError, CrossEntropy, NegativeLogLikelihood

Row = Callable[[Tensor, int, Tensor], Tensor]


def log_softmax_of(z: Tensor, y: int) -> Tensor:
    return z[y] - z.logsumexp(0)


def cross_entropy(z: Tensor, y: int, places: Tensor) -> Tensor:
    return -log_softmax_of(z, y)


def focal(gamma: float) -> Row:
    def row(z: Tensor, y: int, places: Tensor) -> Tensor:
        others = torch.cat([z[:y], z[y + 1 :]])
        if not len(others):
            return 0.0 * z.sum()
        return torch.exp(gamma * (others.logsumexp(0) - z.logsumexp(0))) * -log_softmax_of(z, y)

    return row


def sigmoid_focal(z: Tensor, y: int, places: Tensor) -> Tensor:
    total = torch.zeros((), dtype=torch.float64)
    for k in range(len(z)):
        right = z[k] if k == y else -z[k]
        total = total + (1 - right.sigmoid()) * torch.nn.functional.softplus(-right)
    return total


def ldam(z: Tensor, y: int, places: Tensor) -> Tensor:
    margin = 0.5 * (counts_of(int(places.max()) + 1)[places[y]] / 2.0) ** -0.25
    moved = z - margin * torch.nn.functional.one_hot(torch.tensor(y), len(z))
    return -log_softmax_of(3.0 * moved, y)


def adjusted(temperature: float) -> Row:
    def row(z: Tensor, y: int, places: Tensor) -> Tensor:
        return -log_softmax_of(z + temperature * counts_of(int(places.max()) + 1)[places].log(), y)

    return row


def counts_of(classes: int) -> Tensor:
    """Counts whose least is that of the first class, however many there are."""
    return 2.0 * (1.0 + torch.arange(classes, dtype=torch.float64))


LOSSES: dict[str, tuple[Callable[..., WeightedLoss], Row]] = {
    "cross-entropy": (lambda k, **o: CrossEntropyLoss(**o), cross_entropy),
    "focal": (lambda k, **o: FocalLoss(**o), focal(2.0)),
    "focal below one": (lambda k, **o: FocalLoss(0.5, **o), focal(0.5)),
    "focal at zero": (lambda k, **o: FocalLoss(0.0, **o), focal(0.0)),
    "focal sigmoid": (lambda k, **o: FocalLoss(1.0, form="sigmoid", **o), sigmoid_focal),
    "ldam": (lambda k, **o: LDAMLoss(counts_of(k), scale=3.0, **o), ldam),
    "logit-adjusted": (lambda k, **o: LogitAdjustedLoss(counts_of(k), temperature=0.7, **o), adjusted(0.7)),
    "balanced": (lambda k, **o: BalancedSoftmaxLoss(counts_of(k), **o), adjusted(1.0)),
}
CONDITIONS = [
    *("plain", "masked by -inf", "masked by the lowest number", "one row", "ignored rows", "float16, masked"),
    *("bfloat16, masked", "float32, masked", "huge", "equal", "two classes", "many classes"),
    *("class weights with zeros", "row weights with zeros", "all weights, masked"),
]


def make(condition: str) -> tuple[Tensor, Tensor, Tensor, Tensor | None, Tensor | None]:
    """Logits, target, masked classes, weights of classes and of rows."""
    generator = torch.Generator().manual_seed(3)
    rows = 1 if condition == "one row" else 7
    classes = {"two classes": 2, "many classes": 1000}.get(condition, 5)
    logits = 1.5 * torch.randn(rows, classes, generator=generator, dtype=torch.float64)
    target = torch.randint(classes, (rows,), generator=generator)
    if condition == "huge":
        logits = logits * 1e4
    if condition == "equal":
        logits = torch.full_like(logits, -2.0)
    masked = torch.zeros(rows, classes, dtype=torch.bool)
    if "masked" in condition:
        masked = torch.rand(rows, classes, generator=generator) < 0.4
        masked[0] = torch.arange(classes) != target[0]
        masked[torch.arange(rows), target] = False
    dtype = next((d for d in (torch.float16, torch.bfloat16, torch.float32) if str(d)[6:] in condition), torch.float64)
    logits = logits.to(dtype)
    logits = logits.masked_fill(masked, torch.finfo(dtype).min if "lowest" in condition else -math.inf)
    of_class = of_row = None
    if "class weights" in condition or "all weights" in condition:
        of_class = torch.tensor([0.5, 0.0, 2.0, 1.0, 0.25], dtype=torch.float64)
    if "row weights" in condition or "all weights" in condition:
        of_row = torch.tensor([1.0, 0.0, 2.0, 0.5, 0.0, 1.0, 3.0], dtype=torch.float64)
        logits[1] = math.nan  # of weight zero
    if condition == "ignored rows":
        target[[0, 3]] = -100
        logits[3] = -math.inf
    return logits, target, masked, of_class, of_row


@pytest.mark.parametrize("condition", CONDITIONS)
@pytest.mark.parametrize("name", LOSSES)
def test_value_and_gradient_are_those_of_plain_formulas(name: str, condition: str) -> None:
    build, row = LOSSES[name]
    logits, target, masked, of_class, of_row = make(condition)
    classes = logits.shape[1]
    wide = logits.detach().double().requires_grad_()
    total, below = torch.zeros((), dtype=torch.float64), 0.0
    for i in range(len(logits)):
        y = int(target[i])
        weight = 0.0 if y == -100 else 1.0 if of_row is None else float(of_row[i])
        weight *= 1.0 if of_class is None or y == -100 else float(of_class[y])
        below += weight
        if weight:
            left = torch.nonzero(~masked[i])[:, 0]
            total = total + weight * row(wide[i][left], int((left == y).nonzero()), left)
    slope = torch.autograd.grad(total, wide)[0].nan_to_num(0.0) if total.requires_grad else torch.zeros_like(wide)
    logits.requires_grad_()
    found = build(classes, class_weights=of_class, reduction="sum")(logits, target, of_row)
    (own,) = torch.autograd.grad(found, logits)
    rough = {torch.float16: 2e-3, torch.bfloat16: 2e-2, torch.float32: 1e-5, torch.float64: 2e-6}[logits.dtype]
    torch.testing.assert_close(found.double(), total.detach(), rtol=2e-6, atol=2e-6)
    torch.testing.assert_close(own.double(), slope, rtol=rough, atol=rough)
    mean = build(classes, class_weights=of_class)(logits.detach(), target, of_row)
    torch.testing.assert_close(mean.double() * below, total.detach(), rtol=5e-6, atol=5e-6)


@pytest.mark.parametrize("condition", ["plain", "masked by -inf", "all weights, masked"])
@pytest.mark.parametrize("name", LOSSES)
def test_gradients_are_slopes(name: str, condition: str) -> None:
    logits, target, masked, of_class, of_row = make(condition)
    if of_row is not None:
        logits[1] = 0.0
    moving = logits[~masked].requires_grad_()

    def loss(values: Tensor) -> Tensor:
        result: Tensor = LOSSES[name][0](5, class_weights=of_class)(
            logits.masked_scatter(~masked, values), target, of_row
        )
        return result

    assert torch.autograd.gradcheck(loss, moving)
    assert torch.autograd.gradgradcheck(loss, moving)


@pytest.mark.parametrize("name", LOSSES)
def test_rows_without_a_loss_are_named(name: str) -> None:
    loss = LOSSES[name][0](5)
    target = torch.tensor([0, 1, 2, 3])
    infinite = math.inf
    for bad in ([math.nan, 0, 0, 0, 0], [0, infinite, 0, 0, 0], [-infinite] * 5):
        logits = torch.zeros(4, 5)
        logits[2] = torch.tensor(bad)
        with pytest.raises(NonFiniteError, match="row 2"):
            loss(logits, target)
        assert bool(loss(logits, torch.tensor([0, 1, -100, 3])).isfinite())
        assert bool(loss(logits, target, torch.tensor([1.0, 1.0, 0.0, 1.0])).isfinite())
    for lowest in (-infinite, torch.finfo(torch.float32).min):
        logits = torch.zeros(4, 5)
        logits[2, 2] = lowest
        with pytest.raises(InvalidArgumentError, match="target of row 2"):
            loss(logits, target)
    with pytest.raises(InvalidArgumentError, match=r"\.long\(\)"):
        loss(torch.zeros(4, 5), target > 1)
    with pytest.raises(InvalidArgumentError, match="finite and not negative"):
        loss(torch.zeros(4, 5), target, torch.tensor([1.0, math.nan, 1.0, 1.0]))


@pytest.mark.parametrize("condition", CONDITIONS)
def test_both_rooms_have_one_cross_entropy(condition: str) -> None:
    """`CrossEntropyLoss` and `obverse.labels.CrossEntropy`, for class indices without weights of rows."""
    logits, target, _, of_class, of_row = make(condition)
    if of_row is not None:
        logits[1], of_row = logits[2], None
        target[1] = target[2]
    for reduction in ("mean", "sum", "none"):
        one = CrossEntropyLoss(class_weights=of_class, reduction=reduction)(logits, target)  # type: ignore[arg-type]
        other = CrossEntropy(weight=of_class, reduction=reduction)(logits, target)
        torch.testing.assert_close(one, other, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("from_logits", [False, True])
def test_both_rooms_have_one_calibration_error_and_one_likelihood(from_logits: bool) -> None:
    """Also at the edges of bins, and where a label is impossible."""
    p = torch.tensor([[0.6, 0.4], [0.8, 0.2], [1.0, 0.0], [0.5, 0.5], [0.2, 0.8], [0.4, 0.6]], dtype=torch.float64)
    labels = torch.tensor([0, 1, 0, 1, 1, 0])
    inputs = "logits" if from_logits else "probabilities"
    given = p.log() if from_logits else p
    error, likelihood = CalibrationError(5, inputs=inputs), NegativeLogLikelihood(inputs=inputs)
    error.update(given, labels)
    likelihood.update(given, labels)
    everything = np.zeros(6, dtype=int)
    row = group_report(labels, given, everything, from_logits=from_logits, bins=5).rows[0]
    assert row.calibration_error == pytest.approx(error.compute(), abs=1e-12)
    assert row.nll == pytest.approx(likelihood.compute())
    labels[2] = 1
    likelihood.update(given, labels)
    assert group_report(labels, given, everything, from_logits=from_logits).rows[0].nll == math.inf
    assert likelihood.compute() == math.inf


def test_a_likelihood_of_logits_does_not_underflow() -> None:
    logits = torch.tensor([[0.0, 2000.0], [0.0, 2000.0]], dtype=torch.float64)
    report = group_report([0, 1], logits, [0, 0], from_logits=True)
    assert report.rows[0].nll == pytest.approx(1000.0)


def test_reports_refuse_what_does_not_fit() -> None:
    p = torch.tensor([[0.6, 0.4], [0.2, 0.8]])
    with pytest.raises(InvalidArgumentError, match="row 1 are NaN"):
        group_report([0, 1], torch.tensor([[0.0, 1.0], [math.nan, 0.0]]), from_logits=True)
    with pytest.raises(InvalidArgumentError, match="differ from each other"):
        group_report(["a", "a"], p, classes=["a", "a"])
    with pytest.raises(InvalidArgumentError, match="none of the groups"):
        group_report([0, 1], p, train_counts={"0": 5, "1": 6})
    with pytest.raises(InvalidArgumentError, match="labels of one kind"):
        group_report([0, 1], ["0", "1"])
    with pytest.raises(InvalidArgumentError, match="missing"):
        group_report([0, 1], [0.0, math.nan])


def test_many_groups_have_a_geometric_mean() -> None:
    labels = np.repeat(np.arange(3000), 2)
    answers = labels.copy()
    answers[::2] = -1
    assert group_report(labels, answers).geometric_mean == pytest.approx(0.5)


def test_adjusted_logits_stay_masked() -> None:
    logits = torch.tensor([[1.0, -math.inf, 0.0]])
    assert adjust_logits(logits, [1, 2, 3])[0, 1] == -math.inf


@pytest.mark.parametrize("backend", ["double-backward", "last-layer"])
def test_the_jacobian_penalty_of_masked_logits_is_that_without_the_class(backend: str) -> None:
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(4, 6), torch.nn.Tanh(), torch.nn.Linear(6, 3)).double()
    fewer = torch.nn.Sequential(torch.nn.Linear(4, 6), torch.nn.Tanh(), torch.nn.Linear(6, 2)).double()
    with torch.no_grad():
        fewer[0].load_state_dict(model[0].state_dict())
        fewer[2].weight.copy_(model[2].weight[:2])
        fewer[2].bias.copy_(model[2].bias[:2])

    class Masked(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = model

        def forward(self, inputs: Tensor) -> Tensor:
            return self.inner(inputs).masked_fill(torch.tensor([False, False, True]), -math.inf)

    inputs, target = torch.randn(8, 4, dtype=torch.float64), torch.tensor([0, 1] * 4)
    penalties, slopes = [], []
    for network, first in ((Masked(), model[0]), (fewer, fewer[0])):
        regularizer = HeteroskedasticRegularizer(network, backend=backend)  # type: ignore[arg-type]
        with regularizer.capture():
            logits = network(inputs)
        penalty = regularizer(logits, target)
        penalties.append(penalty)
        slopes.append(torch.autograd.grad(penalty, first.weight)[0])
    torch.testing.assert_close(penalties[0], penalties[1])
    torch.testing.assert_close(slopes[0], slopes[1])


def test_deferred_weights_of_masked_logits_are_those_of_the_loss() -> None:
    deferred = DeferredReweighting(CrossEntropyLoss(), [9, 3, 1], start=0)
    logits = torch.tensor([[1.0, 0.0, -math.inf], [0.0, 2.0, -math.inf]])
    target = torch.tensor([0, 1])
    weights = class_balanced_weights([9, 3, 1])[:2]
    expected = torch.nn.functional.cross_entropy(logits[:, :2], target, weight=weights)
    torch.testing.assert_close(deferred(logits, target), expected)


class _Chosen(ResamplingSampler):
    probabilities = torch.tensor([0.0, 1.0, 0.0], dtype=torch.float64)

    def class_probabilities(self, epoch: int) -> Tensor:
        return self.probabilities


def test_samplers_never_draw_what_has_no_probability() -> None:
    sampler = _Chosen([0, 1, 2, 1, 2], num_samples=200)
    assert set(sampler) == {1, 3}
    for bad in ([0.0, 0.0, 0.0], [math.nan, 1.0, 0.0], [-1.0, 2.0, 0.0], [1.0, 1.0]):
        sampler.probabilities = torch.tensor(bad, dtype=torch.float64)
        with pytest.raises(InvalidArgumentError, match="class_probabilities must be 3"):
            next(iter(sampler))


@pytest.mark.parametrize("seed", [3, torch.Generator().manual_seed(3)])
def test_seeds_of_samplers_are_numbers_or_generators(seed: int | torch.Generator) -> None:
    labels = [0, 0, 0, 1]
    assert list(ClassBalancedSampler(labels, seed=seed)) == list(ClassBalancedSampler(labels, seed=3))
    with pytest.raises(InvalidArgumentError, match="seed must be"):
        ClassBalancedSampler(labels, seed=-1)


def test_numpy_generators_are_seeds_as_well() -> None:
    labels = np.arange(60) % 3
    one, other = (corrupt_labels(labels, 0.5, seed=np.random.default_rng(4)).labels for _ in range(2))
    assert (one == other).all()
    assert (one != labels).any()


@pytest.mark.parametrize("rate", [-0.1, 1.1, math.nan, math.inf, "half", True])
def test_impossible_rates_are_refused(rate: float) -> None:
    with pytest.raises(InvalidArgumentError, match="rate must be"):
        corrupt_labels([0, 1, 2], rate)


def test_what_is_not_finite_is_not_corrupted() -> None:
    with pytest.raises(InvalidArgumentError, match="row 1 is nan"):
        corrupt_targets([1.0, math.nan], 0.1)
    with pytest.raises(InvalidArgumentError, match="beyond float32"):
        inverse_frequency_weights([1.0, 1e300], 2.0)


def test_measures_at_their_bounds_say_so() -> None:
    labels = np.array([0, 1] * 20)
    groups = np.array(["easy"] * 20 + ["hopeless"] * 20)

    def answers(train: np.ndarray, held_out: np.ndarray) -> np.ndarray:
        right = labels[held_out]
        return np.where(groups[held_out] == "easy", right, 1 - right)

    found = estimate_group_noise(answers, labels, groups)
    assert found.at_bound == ("easy", "hopeless")
    assert str(found).count("(bound)") == 2

    def sure(train: np.ndarray, held_out: np.ndarray) -> np.ndarray:
        return np.eye(2)[labels[held_out]] * 0.8 + 0.1

    with pytest.warns(UserWarning, match="temperature of groups easy, hopeless ended at its bound"):
        estimate_group_noise(sure, labels, groups, measure="impurity")

    def broken(train: np.ndarray, held_out: np.ndarray) -> np.ndarray:
        return np.full(len(held_out), 2)

    with pytest.raises(InvalidArgumentError, match="integers from 0 to 1"):
        estimate_group_noise(broken, labels, groups)


def test_a_path_whose_end_is_best_says_so() -> None:
    inside = gain_along_path([0.0, 1.0, 2.0], [[0.3, 0.4], [0.1, 0.2], [0.2, 0.3]])
    assert not inside.at_end
    assert "extend" not in str(inside)
    outside = gain_along_path([0.0, 1.0, 2.0], [[0.3, 0.4], [0.2, 0.2], [0.1, 0.3]])
    assert outside.at_end
    assert "extend" in str(outside)
    assert not gain_along_path([0.0, 1.0], [[0.1, 0.1], [0.2, 0.2]]).at_end  # no less than no penalty
    assert gain_along_path([0.5, 1.0], [[0.1, 0.1], [0.2, 0.2]]).at_end


def test_strengths_that_vanish_say_so() -> None:
    with pytest.warns(UserWarning, match="strengths of groups 0 are zero though they have noise"):
        found = group_strengths([1e-200, 1.0], [1, 1], (3.0, 0.4), smoothing=0.0)
    assert found.tolist() == [0.0, 1.0]


def test_learners_must_answer_in_classes_or_probabilities() -> None:
    data, labels = np.random.default_rng(0).normal(size=(30, 2)), np.arange(30) % 2

    def learner(answer: Callable[[int], object]) -> Callable[..., object]:
        return lambda rows, codes: lambda other: answer(len(other))

    for answer, say in (
        (lambda n: np.full(n, 0.5), "classes from 0 to 1"),
        (lambda n: np.zeros(1), "must give labels"),
        (lambda n: np.full((n, 2), 3.0), "softmax of logits"),
    ):
        with pytest.raises(InvalidArgumentError, match=say):
            diagnose_groups(learner(answer), data, labels)  # type: ignore[arg-type]
