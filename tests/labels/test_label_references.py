"""Every criterion against plain formulas in float64, row by row, on the classes that a row does not mask."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from label_cases import CASES, extras
from torch import Tensor

from obverse.errors import InvalidArgumentError, NonFiniteError
from obverse.labels import DisturbLabel, LabelCriterion, label_criterion

# Draws, decisions of earlier epochs, and sums over classes of means are looked at elsewhere.
REFERENCES = [case for case in CASES if case not in ("disturb", "generalized, pruned", "adaptive, class")]
ROWS = 7


def criterion_of(case: str, classes: int, **options: Any) -> LabelCriterion:
    return label_criterion(case.split(",")[0], classes, **{**CASES[case], **options})


def log_residual(values: Tensor, place: int) -> Tensor:
    return torch.cat([values[:place], values[place + 1 :]]).log_softmax(0)


def kl(log_a: Tensor, log_b: Tensor) -> Tensor:
    return (log_a.exp() * (log_a - log_b)).sum() if len(log_a) else torch.zeros(())


def reference(case: str, z: Tensor, t: Tensor, w: Tensor, partner: Tensor | None, is_index: bool) -> Tensor:
    """The weighted loss of a row of logits (K,) with target probabilities, both without masked classes."""
    log_p = z.log_softmax(0)
    p = log_p.exp()
    row = (w * t).sum()
    uniform = torch.full_like(z, 1.0 / len(z))

    def against(q: Tensor) -> Tensor:
        return -sum(w[k] * q[k] * log_p[k] for k in range(len(z)) if float(q[k].detach()) != 0.0) + 0.0 * z.sum()

    plain = against(t)
    name = case.split(",")[0]
    if name in ("cross-entropy", "progressive"):  # nothing is remembered yet
        return plain
    if name == "smoothing":
        return 0.9 * plain + 0.1 * against(uniform)
    if name in ("pairwise", "online"):  # the head and the table begin uniform
        return 0.5 * plain + 0.5 * against(uniform)
    if name == "adaptive":  # so does the table of residual labels
        total = plain
        for k in (int(t.argmax()),) if is_index else t.topk(min(2, len(t))).indices.tolist():
            log_res = log_residual(z, k)
            log_even = torch.zeros_like(log_res).log_softmax(0)
            total = total + 0.5 * w[k] * t[k] * kl(log_res, log_even)
            if CASES[case].get("update") != "average":
                learns = not CASES[case].get("only_correct") or int(z.detach().argmax()) == int(t.argmax())
                total = total + (0.5 * w[k] * t[k] * kl(log_even, log_res.detach()) if learns else 0.0)
        return total
    if name == "confidence":
        negative = sum(p[k] * log_p[k] for k in range(len(z)) if float(p[k].detach()) > 0.0)
        if "threshold" in CASES[case]:
            negative = (CASES[case]["threshold"] + negative).clamp(min=0.0)
        return plain + 0.1 * row * negative
    if case == "bootstrapping":
        return 0.95 * plain + 0.05 * against(p)
    if case == "bootstrapping, hard":
        answer = int(z.detach().argmax())
        return 0.8 * plain - 0.2 * w[answer] * log_p[answer]
    if name == "early-learning":
        average = 0.3 * p.detach()
        return plain + 3.0 * row * torch.log1p(-(p * average).sum().clamp(max=1.0 - 1e-4))
    if name == "generalized":
        q = 0.7
        value = sum(
            t[k] * (1.0 - p[k] ** q) / q for k in range(len(z)) if float(t[k]) > 0.0 and float(p[k].detach()) > 0.0
        )
        value = value + sum(t[k] / q for k in range(len(z)) if float(p[k].detach()) == 0.0)
        limit = CASES[case].get("truncation")
        if limit is not None and float((t * p).sum().detach()) <= limit:
            value = torch.full_like(row, (1.0 - limit**q) / q)
        return row * value
    if name == "symmetric":
        reverse = -sum(p[k] * max(math.log(float(t[k])) if t[k] > 0 else -4.0, -4.0) for k in range(len(z)))
        return 0.1 * plain + row * reverse
    if name == "class-wise":
        assert partner is not None
        return plain + 16.0 * row * kl((partner / 4.0).log_softmax(0), (z / 4.0).log_softmax(0))
    raise AssertionError(case)


CONDITIONS = [
    *("plain", "masked by -inf", "masked by the lowest number", "one row", "ignored rows", "soft", "soft, masked"),
    *("float16, masked", "bfloat16, masked", "float32, masked", "huge", "equal", "two classes", "many classes"),
    *("class weights with zeros", "class weights with zeros, soft, masked"),
]


def make(condition: str) -> tuple[Tensor, Tensor, Tensor, Tensor | None]:
    """Logits, target, which classes are masked (R, K), class weights."""
    generator = torch.Generator().manual_seed(7)
    rows = 1 if condition == "one row" else ROWS
    classes = {"two classes": 2, "many classes": 1000}.get(condition, 5)
    logits = 1.5 * torch.randn(rows, classes, generator=generator, dtype=torch.float64)
    target = torch.randint(classes, (rows,), generator=generator)
    if condition == "huge":
        logits = logits * 1e4
    if condition == "equal":
        logits = torch.full_like(logits, 3.0)
    masked = torch.zeros(rows, classes, dtype=torch.bool)
    if "masked" in condition:
        masked = torch.rand(rows, classes, generator=generator) < 0.4
        masked[0] = torch.arange(classes) != target[0]  # a single answer is left
        masked[torch.arange(rows), target] = False
    dtype = next((d for d in (torch.float16, torch.bfloat16, torch.float32) if str(d)[6:] in condition), torch.float64)
    logits = logits.to(dtype)
    lowest = torch.finfo(dtype).min if "lowest" in condition else -math.inf
    logits = logits.masked_fill(masked, lowest)
    given = target
    if "soft" in condition:
        shares = torch.rand(rows, classes, generator=generator, dtype=torch.float64).masked_fill(masked, 0.0)
        shares[:, 3] = 0.0
        shares[torch.arange(rows), target] += 0.3
        given = shares / shares.sum(1, keepdim=True)
        given[4] = 0.0
    if condition == "ignored rows":
        given = target.clone()
        given[[0, 3]] = -100
        logits[0] = math.nan
    weight = None
    if "weights" in condition:
        weight = torch.tensor([0.5, 0.0, 2.0, 1.0, 0.0], dtype=torch.float64)
    return logits, given, masked, weight


def expected(case: str, logits: Tensor, target: Tensor, masked: Tensor, weight: Tensor | None, pairs: Tensor) -> Any:
    """Sum of the losses and its gradient, and what the mean divides by."""
    wide = logits.detach().double().requires_grad_()
    classes = logits.shape[1]
    w = torch.ones(classes, dtype=torch.float64) if weight is None else weight
    total, denominator = torch.zeros((), dtype=torch.float64), 0.0
    is_index = not target.is_floating_point()
    for i in range(len(logits)):
        t = target[i]
        if is_index:
            if int(t) == -100:
                continue
            t = torch.nn.functional.one_hot(t, classes).double()
        elif not bool(t.any()):
            continue
        denominator += float((w * t).sum()) if is_index else 1.0
        left = ~masked[i]
        total = total + reference(case, wide[i][left], t[left], w[left], pairs[i][left], is_index)
    slope = torch.autograd.grad(total, wide)[0] if total.requires_grad else torch.zeros_like(wide)
    return total.detach(), slope.nan_to_num(0.0), denominator


@pytest.mark.parametrize(
    ("case", "condition"),
    [(a, b) for a in REFERENCES for b in CONDITIONS if b != "two classes" or not a.startswith("adaptive")],
)
def test_value_and_gradient_are_those_of_plain_formulas(case: str, condition: str) -> None:
    logits, target, masked, weight = make(condition)
    criterion = criterion_of(case, logits.shape[1], weight=weight, reduction="sum").double()
    if case == "online":
        criterion.soft_labels.fill_(1.0 / logits.shape[1])  # type: ignore[operator,union-attr]
    more = extras(criterion, (len(logits),), torch.float64)
    pairs = torch.randn(*logits.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    if case == "class-wise":
        more["pair_logits"] = pairs
    logits.requires_grad_()
    found = criterion(logits, target, **more)
    (slope,) = torch.autograd.grad(found, logits)
    value, reference_slope, denominator = expected(case, logits, target, masked, weight, pairs)
    low = logits.dtype != torch.float64
    torch.testing.assert_close(found.double(), value, rtol=1e-5 if low else 1e-9, atol=1e-5 if low else 1e-9)
    rough = {torch.float16: 2e-3, torch.bfloat16: 2e-2, torch.float32: 1e-5, torch.float64: 1e-9}[logits.dtype]
    torch.testing.assert_close(slope.double(), reference_slope, rtol=rough, atol=rough)
    assert bool((slope[masked] == 0).all())
    mean = criterion_of(case, logits.shape[1], weight=weight).double()
    rough = 1e-5 if low else 1e-6
    averaged = mean(logits.detach(), target, **more)
    torch.testing.assert_close(averaged.double() * denominator, value, rtol=rough, atol=rough)


SMOOTH = [
    *("cross-entropy", "smoothing", "adaptive, average", "pairwise", "online", "confidence", "bootstrapping"),
    *("generalized", "symmetric", "progressive"),
]


@pytest.mark.parametrize("condition", ["plain", "masked by -inf", "soft, masked", "class weights with zeros"])
@pytest.mark.parametrize("case", SMOOTH)
def test_gradients_are_slopes(case: str, condition: str) -> None:
    """Criteria in which nothing is held fixed."""
    logits, target, masked, weight = make(condition)
    moving = logits[~masked].requires_grad_()

    def loss(values: Tensor) -> Tensor:
        criterion = criterion_of(case, logits.shape[1], weight=weight).double()
        filled = logits.masked_scatter(~masked, values)
        result: Tensor = criterion(filled, target, **extras(criterion, (len(logits),), torch.float64))
        return result

    assert torch.autograd.gradcheck(loss, moving)


@pytest.mark.parametrize("case", [case for case in CASES if case != "disturb"])  # its draws are among all classes
@pytest.mark.parametrize("lowest", ["-inf", "finite"])
@pytest.mark.parametrize("soft", [False, True])
def test_a_masked_class_is_a_class_that_is_not_there(case: str, lowest: str, soft: bool) -> None:
    """Over several steps, in which criteria learn and remember."""
    whole, fewer = criterion_of(case, 5), criterion_of(case, 4)
    generator = torch.Generator().manual_seed(2)
    for step in range(4):
        logits = 2.0 * torch.randn(9, 4, generator=generator)
        target = torch.randint(4, (9,), generator=generator)
        if soft:
            target = torch.rand(9, 4, generator=generator)
            target = target / target.sum(1, keepdim=True)
        more = extras(whole, (9,), torch.float32, 9 * (step % 2))
        fill = -math.inf if lowest == "-inf" else torch.finfo(torch.float32).min
        left, right = logits.clone().requires_grad_(), logits.clone().requires_grad_()
        wide = torch.cat([left[:, :2], torch.full((9, 1), fill), left[:, 2:]], 1)
        padded = target
        if soft:
            padded = torch.cat([target[:, :2], torch.zeros(9, 1), target[:, 2:]], 1)
        else:
            padded = torch.where(target >= 2, target + 1, target)
        found, without = whole(wide, padded, **more), fewer(right, target, **more)
        torch.testing.assert_close(found, without, rtol=1e-5, atol=1e-5)
        (of_left,), (of_right,) = torch.autograd.grad(found, left), torch.autograd.grad(without, right)
        torch.testing.assert_close(of_left, of_right, rtol=1e-4, atol=1e-5)
        if step % 2:
            whole.end_epoch()
            fewer.end_epoch()
    assert all(bool(value.isfinite().all()) for value in whole.state_dict().values())


def test_the_masked_batch_of_the_guide() -> None:
    logits, target = torch.tensor([[2.0, 1.0, -math.inf], [0.0, 1.0, -math.inf]]), torch.tensor([0, 1])
    assert float(label_criterion("confidence", 3)(logits, target)) == pytest.approx(0.2550, abs=5e-5)
    assert float(label_criterion("bootstrapping", 3)(logits, target)) == pytest.approx(0.3267, abs=5e-5)


def test_drawn_labels_are_even_among_the_classes_that_are_left() -> None:
    """In the mean the loss is that of label smoothing over them, as without masks."""
    rows = 40_000
    logits = torch.tensor([0.3, -math.inf, 1.1, -math.inf, -0.4]).expand(rows, 5)
    target = torch.zeros(rows, dtype=torch.long)
    found = DisturbLabel(0.6, seed=1)(logits, target)
    smooth = label_criterion("smoothing", 5, smoothing=0.6)(logits, target)
    assert float(found) == pytest.approx(float(smooth), abs=0.02)
    # Nothing more is drawn than without masks.
    generator = torch.Generator().manual_seed(0)
    first = DisturbLabel(0.6, generator=generator)
    first(logits[:9], target[:9])
    again = torch.Generator().manual_seed(0)
    DisturbLabel(0.6, generator=again)(torch.zeros(9, 5), target[:9])
    assert torch.equal(generator.get_state(), again.get_state())


@pytest.mark.parametrize("case", CASES)
def test_rows_without_a_loss_are_named_and_nothing_is_counted(case: str) -> None:
    criterion = criterion_of(case, 5)
    before = {name: value.clone() for name, value in criterion.state_dict().items()}
    more = extras(criterion, (6,), torch.float32)
    target = torch.tensor([0, 1, 2, 3, 4, 0])

    def logits(row: list[float]) -> Tensor:
        found = torch.randn(6, 5, generator=torch.Generator().manual_seed(0))
        found[4] = torch.tensor(row)
        return found

    infinite = math.inf
    for bad in ([math.nan, 0, 0, 0, 0], [0, infinite, 0, 0, 0], [-infinite] * 5):
        with pytest.raises(NonFiniteError, match="row 4"):
            criterion(logits(bad), target, **more)
        ignoring = torch.where(torch.arange(6) == 4, -100, target)
        if not case.startswith("disturb"):
            values = logits(bad).requires_grad_()
            build = criterion_of(case, 5)
            build(values, ignoring, **more).backward()
            assert values.grad is not None
            assert bool(values.grad.isfinite().all())
            assert bool((values.grad[4] == 0).all())
            assert all(p.grad is None or bool(p.grad.isfinite().all()) for p in build.parameters())
    for lowest in (-infinite, torch.finfo(torch.float32).min):
        with pytest.raises(InvalidArgumentError, match="target of row 4"):
            criterion(logits([0, 0, 0, 0, lowest]), target, **more)
        shares = torch.full((6, 5), 0.2)
        with pytest.raises(InvalidArgumentError, match="target of row 4"):
            criterion(logits([0, lowest, 0, 0, 0]), shares, **more)
    assert all(torch.equal(value, before[name]) for name, value in criterion.state_dict().items())


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize(
    ("row", "say"),
    [
        ([0.5, 0.6, -0.1, 0.0, 0.0], "row 2 has a negative"),
        ([0.5, math.nan, 0.5, 0.0, 0.0], "row 2 has a negative or NaN"),
        ([0.5, 0.4, 0.0, 0.0, 0.0], r"row 2 has the sum 0\.9"),
        ([1.0, 1.0, 0.0, 0.0, 0.0], "row 2 has the sum 2"),
    ],
)
def test_targets_that_are_no_probabilities_are_refused(case: str, row: list[float], say: str) -> None:
    criterion = criterion_of(case, 5)
    target = torch.full((4, 5), 0.2)
    target[2] = torch.tensor(row)
    with pytest.raises(InvalidArgumentError, match=say):
        criterion(torch.zeros(4, 5), target, **extras(criterion, (4,), torch.float32))


@pytest.mark.parametrize("case", CASES)
def test_the_largest_floats_give_a_number_or_name_their_row(case: str) -> None:
    largest = torch.finfo(torch.float32).max
    for row in ([largest, 0, 0, 0, 0], [0, largest, 0, 0, 0], [largest] * 5, [0.9 * largest, -0.9 * largest, 0, 0, 0]):
        criterion = criterion_of(case, 5)
        logits = torch.tensor([row, [0.0] * 5]).requires_grad_()
        try:
            loss = criterion(logits, torch.tensor([0, 1]), **extras(criterion, (2,), torch.float32))
        except NonFiniteError as error:
            assert "row 0" in str(error) or "overflows" in str(error)  # noqa: PT017
            continue
        loss.backward()
        assert logits.grad is not None
        assert bool(loss.isfinite())
        assert bool(logits.grad.isfinite().all())


def test_positions_are_named_by_all_their_axes() -> None:
    logits = torch.zeros(2, 3, 4)
    logits[1, 0, 2] = math.nan
    with pytest.raises(NonFiniteError, match=r"row \(1, 2\)"):
        label_criterion("cross-entropy", 3)(logits, torch.zeros(2, 4, dtype=torch.long))


@pytest.mark.parametrize(
    ("logits", "target", "say"),
    [
        (torch.zeros(3, 5), torch.ones(3), r"\.long\(\)"),
        (torch.zeros(3, 5), torch.eye(5, dtype=torch.long)[:3], r"\.float\(\)"),
        (torch.zeros(3, 5), torch.eye(5, dtype=torch.bool)[:3], r"\.float\(\)"),
        (torch.zeros(3, 1), torch.zeros(3, dtype=torch.long), "2 classes or more"),
    ],
)
def test_messages_say_the_way_out(logits: Tensor, target: Tensor, say: str) -> None:
    with pytest.raises(InvalidArgumentError, match=say):
        label_criterion("cross-entropy", 5)(logits, target)


def test_weights_of_another_number_of_classes_are_refused_at_once() -> None:
    with pytest.raises(InvalidArgumentError, match="each of 5 classes, got 3"):
        label_criterion("smoothing", 5, weight=[1.0, 2.0, 3.0])


@pytest.mark.parametrize("name", ["early-learning", "progressive", "online", "adaptive", "pairwise"])
def test_a_state_of_another_number_of_classes_changes_nothing(name: str) -> None:
    options: dict[str, Any] = {"top": 2} if name in ("early-learning", "progressive") else {}
    given = label_criterion(name, 9, **options)
    logits = torch.randn(20, 9, generator=torch.Generator().manual_seed(0))
    given(logits, torch.arange(20) % 9, index=torch.arange(20))
    criterion = label_criterion(name, 4, **options)
    before = {key: value.clone() for key, value in criterion.state_dict().items()}
    with pytest.raises(RuntimeError, match=r"classes|shape|size"):
        criterion.load_state_dict(given.state_dict())
    assert all(torch.equal(value, before[key]) for key, value in criterion.state_dict().items())
