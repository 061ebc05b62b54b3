"""The Jacobian penalty: against explicit Jacobians, its backends against each other, scales, draws, and bad input."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from obverse.errors import InvalidArgumentError, StateError, UnknownNameError
from obverse.imbalance import (
    CrossEntropyLoss,
    DeferredReweighting,
    FocalLoss,
    HeteroskedasticRegularizer,
    NormalizedLinear,
)
from obverse.imbalance._jacobian_operators import QuickOperators

STRENGTHS = [0.1, 0.5, 1.0]


def seeded(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


def build(
    activation: Callable[[], nn.Module] = nn.SiLU, norm: str = "group", dtype: torch.dtype = torch.float64
) -> nn.Sequential:
    """A small convolutional network whose norms have scales and shifts that are not trivial."""
    torch.manual_seed(0)
    norms: dict[str, Callable[[int], nn.Module]] = {
        "group": lambda c: nn.GroupNorm(2, c),
        "batch": nn.BatchNorm2d,
        "instance": lambda c: nn.InstanceNorm2d(c, affine=True),
        "none": lambda c: nn.Identity(),
    }
    make = norms[norm]
    model = nn.Sequential(
        nn.Conv2d(2, 4, 3, padding=1),
        make(4),
        activation(),
        nn.Conv2d(4, 6, 3, padding=1, stride=2),
        make(6),
        activation(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(6, 3),
    ).to(dtype)
    with torch.no_grad():
        for number, parameter in enumerate(model.parameters()):
            if parameter.ndim == 1:
                parameter.add_(0.3 * seeded(*parameter.shape, seed=number).to(dtype))
    return model


def batch(dtype: torch.dtype = torch.float64, rows: int = 6) -> tuple[Tensor, Tensor]:
    return seeded(rows, 2, 6, 6, seed=5, dtype=dtype), torch.arange(rows) % 3


def penalty_of(
    model: nn.Module, inputs: Tensor, target: Tensor, groups: Tensor | None = None, **options: Any
) -> tuple[Tensor, list[Tensor]]:
    """The penalty and its gradients with respect to all parameters."""
    regularizer = HeteroskedasticRegularizer(model, options.pop("strengths", STRENGTHS), **options)
    with regularizer.capture():
        logits = model(inputs)
    penalty = regularizer(logits, target, groups)
    return penalty.detach(), gradients(model, penalty)


def gradients(model: nn.Module, value: Tensor) -> list[Tensor]:
    parameters = list(model.parameters())
    found = torch.autograd.grad(value, parameters, allow_unused=True)
    return [torch.zeros_like(p) if g is None else g for p, g in zip(parameters, found, strict=True)]


def distance(first: list[Tensor], second: list[Tensor]) -> float:
    a, b = (torch.cat([g.flatten().double() for g in side]) for side in (first, second))
    return float((a - b).norm() / b.norm())


def explicit(model: nn.Sequential, inputs: Tensor, target: Tensor, places: list[int], power: int, root: bool) -> Tensor:
    """The penalty row by row from explicit Jacobians, the network written out in its normalized tensors.

    A place is the number of a norm without batch statistics; its scale and shift are applied to what is perturbed.
    """
    strengths = torch.tensor(STRENGTHS, dtype=inputs.dtype)
    total = inputs.new_zeros(())
    for row, label in zip(inputs, target, strict=True):

        def loss_of(*offsets: Tensor, row: Tensor = row, label: Tensor = label) -> Tensor:
            hidden, remaining = row[None], iter(offsets)
            for number, layer in enumerate(model):
                if number in places:
                    assert isinstance(layer, nn.GroupNorm)
                    normalized = F.group_norm(hidden, layer.num_groups, eps=layer.eps) + next(remaining)
                    hidden = normalized * layer.weight[:, None, None] + layer.bias[:, None, None]
                else:
                    hidden = layer(hidden)
            return F.cross_entropy(hidden, label[None])

        with torch.no_grad():
            shapes, hidden = [], row[None]
            for number, layer in enumerate(model):
                hidden = layer(hidden)
                if number in places:
                    shapes.append(hidden.shape)
        zeros = tuple(inputs.new_zeros(shape) for shape in shapes)
        jacobians = torch.autograd.functional.jacobian(loss_of, zeros, create_graph=True)
        squares = torch.stack([jacobian.square().sum() for jacobian in jacobians])
        by_power = {2: squares.sum(), 1: squares.sum().sqrt() if root else squares.sqrt().sum()}
        total = total + strengths[label] * by_power[power]
    return total / len(target)


@pytest.mark.parametrize(
    ("power", "aggregate"), [(2, "sum"), (1, "sum"), (1, "root-sum-square"), (2, "root-sum-square")]
)
@pytest.mark.parametrize("activation", [nn.SiLU, nn.ReLU])
def test_double_backward_is_the_explicit_jacobian_of_every_row(
    power: int, aggregate: Any, activation: Callable[[], nn.Module]
) -> None:
    model = build(activation)
    inputs, target = batch()
    found, slopes = penalty_of(
        model, inputs, target, backend="double-backward", power=power, aggregate=aggregate, strength=0.7
    )
    expected = 0.7 * explicit(model, inputs, target, [1, 4], power, aggregate == "root-sum-square")
    torch.testing.assert_close(found, expected.detach(), rtol=1e-10, atol=0)
    assert distance(slopes, gradients(model, expected)) < 1e-9


@pytest.mark.parametrize("power", [1, 2])
@pytest.mark.parametrize(
    ("norm", "dtype"),
    [(norm, dtype) for norm in ("group", "batch", "none") for dtype in (torch.float64, torch.float32)]
    + [("instance", torch.float64)],
)
def test_finite_difference_is_double_backward_on_a_smooth_network(norm: str, power: int, dtype: torch.dtype) -> None:
    inputs, target = batch(dtype)
    exact = penalty_of(build(norm=norm, dtype=dtype), inputs, target, backend="double-backward", power=power)
    found = penalty_of(build(norm=norm, dtype=dtype), inputs, target, backend="finite-difference", power=power)
    torch.testing.assert_close(found[0], exact[0], rtol=1e-5, atol=0)
    assert distance(found[1], exact[1]) < (1e-3 if dtype == torch.float32 else 1e-5)


def test_the_total_is_the_sum_and_shares_passes_only_where_that_is_the_same() -> None:
    inputs, target = batch()
    deferred = DeferredReweighting(CrossEntropyLoss(), [30, 20, 10], start=0)
    extra = nn.Parameter(torch.ones((), dtype=torch.float64))
    criteria: dict[str, Callable[[nn.Module, Tensor], Tensor]] = {
        "mean": lambda model, logits: F.cross_entropy(logits, target),
        "scaled sum": lambda model, logits: 3.0 * F.cross_entropy(logits, target, reduction="sum"),
        "weighted": lambda model, logits: deferred(logits, target),
        "with another term": lambda model, logits: F.cross_entropy(logits, target) + extra * model[0].weight.sum(),
    }
    forwards = {}
    for name, criterion in criteria.items():
        model = build()
        regularizer = HeteroskedasticRegularizer(model, STRENGTHS, strength=0.7, backend="finite-difference")
        exact = HeteroskedasticRegularizer(model, STRENGTHS, strength=0.7, backend="double-backward")
        for _ in range(2):  # the first difference is checked, and shares nothing
            with regularizer.capture():
                logits = model(inputs)
            total = regularizer.total(criterion(model, logits), logits, target)
            found = gradients(model, total)
        with exact.capture():
            logits = model(inputs)
        expected = exact.total(criterion(model, logits), logits, target)
        torch.testing.assert_close(total, expected, rtol=1e-9, atol=0)
        assert distance(found, gradients(model, expected)) < 1e-5, name
        forwards[name] = total.grad_fn is not None and "_Known" in _names(total)
    assert forwards == {"mean": True, "scaled sum": True, "weighted": False, "with another term": False}


def _names(value: Tensor) -> str:
    stack, names = [value.grad_fn], []
    for _ in range(12):
        node = stack.pop(0) if stack else None
        if node is not None:
            names.append(node.name())
            stack.extend(following for following, _ in node.next_functions)
    return " ".join(names)


@pytest.mark.parametrize("activation", [nn.ReLU, nn.Hardswish, lambda: nn.MaxPool2d(2)])
def test_a_finite_difference_is_refused_where_derivatives_jump(activation: Callable[[], nn.Module]) -> None:
    with pytest.raises(InvalidArgumentError, match="jumps"):
        HeteroskedasticRegularizer(build(activation), backend="finite-difference")
    chosen = HeteroskedasticRegularizer(build(activation))
    assert chosen.backend == "double-backward"
    assert "jumps" in chosen.reason


class Functional(nn.Module):
    """A kink that only the graph shows."""

    def __init__(self, kink: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.kink = kink
        self.first, self.norm, self.last = nn.Linear(4, 8), nn.LayerNorm(8), nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        scores: Tensor = self.last(self.kink(self.norm(self.first(x))))
        return scores


@pytest.mark.parametrize(
    ("kink", "name"),
    [
        (F.relu, "Relu"),
        (torch.abs, "Abs"),
        (F.selu, "Elu"),
        (lambda x: x.clamp(-1, 1), "Clamp"),
        (F.leaky_relu, "Leaky"),
    ],
)
def test_a_functional_kink_shows_in_the_first_pass(kink: Callable[[Tensor], Tensor], name: str) -> None:
    torch.manual_seed(0)
    model = Functional(kink).double()
    inputs, target = seeded(6, 4), torch.arange(6) % 3
    auto = HeteroskedasticRegularizer(model, STRENGTHS)
    assert auto.backend == "finite-difference"
    with auto.capture():
        logits = model(inputs)
    value = auto(logits, target)
    assert auto.backend == "double-backward"
    assert name in auto.reason
    assert value == penalty_of(model, inputs, target, backend="double-backward")[0]
    stubborn = HeteroskedasticRegularizer(model, STRENGTHS, backend="finite-difference")
    with stubborn.capture():
        logits = model(inputs)
    with pytest.raises(InvalidArgumentError, match=name):
        stubborn(logits, target)


@pytest.mark.parametrize("smooth", [F.silu, F.gelu, torch.tanh, F.softplus, F.elu, F.celu, F.mish])
def test_smooth_activations_keep_the_finite_difference(smooth: Callable[[Tensor], Tensor]) -> None:
    torch.manual_seed(0)
    model = Functional(smooth)
    regularizer = HeteroskedasticRegularizer(model, STRENGTHS)
    with regularizer.capture():
        logits = model(seeded(6, 4, dtype=torch.float32))
    regularizer(logits, torch.arange(6) % 3)
    assert regularizer.backend == "finite-difference"
    assert "no kink" in regularizer.reason


@pytest.mark.parametrize("criterion", [None, FocalLoss(gamma=2.0), lambda z, y: (z[:, 0] - y).square()])
def test_the_last_layer_in_closed_form_is_double_backward_there(criterion: Any) -> None:
    model = build(nn.ReLU)
    inputs, target = batch()
    closed = penalty_of(model, inputs, target, backend="last-layer", loss=criterion, power=1)
    exact = penalty_of(model, inputs, target, backend="double-backward", layers=["8"], loss=criterion, power=1)
    torch.testing.assert_close(closed[0], exact[0], rtol=1e-10, atol=0)
    assert distance(closed[1], exact[1]) < 1e-10


def test_the_last_layer_may_be_followed_by_other_operations() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 3), nn.Softmax(1)).double()
    inputs, target = seeded(6, 4), torch.arange(6) % 3
    closed = penalty_of(model, inputs, target, backend="last-layer")
    exact = penalty_of(model, inputs, target, backend="double-backward", layers=["2"])
    torch.testing.assert_close(closed[0], exact[0], rtol=1e-10, atol=0)
    assert distance(closed[1], exact[1]) < 1e-10


@pytest.mark.parametrize("backend", ["double-backward", "finite-difference", "last-layer"])
@pytest.mark.parametrize("power", [1, 2])
def test_the_value_does_not_depend_on_the_size_of_the_batch(backend: Any, power: int) -> None:
    model = build(dtype=torch.float32)
    inputs, target = batch(torch.float32)
    once, slopes = penalty_of(model, inputs, target, backend=backend, power=power)
    twice, again = penalty_of(
        model, torch.cat([inputs, inputs]), torch.cat([target, target]), backend=backend, power=power
    )
    torch.testing.assert_close(twice, once, rtol=1e-6, atol=0)
    assert distance(again, slopes) < 2e-3
    released = [
        penalty_of(model, x, y, backend=backend, power=power, scale="batch_mean")[0]
        for x, y in ((inputs, target), (torch.cat([inputs, inputs]), torch.cat([target, target])))
    ]
    torch.testing.assert_close(released[0], once / 6**power, rtol=1e-6, atol=0)
    torch.testing.assert_close(released[1], once / 12**power, rtol=1e-6, atol=0)


def test_the_released_convention_is_what_the_released_code_computes() -> None:
    """Norms of the gradient of the mean loss at normalized outputs of BatchNorm, summed, weighted, averaged."""
    model = build(nn.ReLU, "batch")
    inputs, target = batch()
    hidden: list[Tensor] = []
    scores = inputs
    for layer in model:
        if isinstance(layer, nn.BatchNorm2d):
            hidden.append(F.batch_norm(scores, None, None, training=True, eps=layer.eps))
            scores = hidden[-1] * layer.weight[:, None, None] + layer.bias[:, None, None]
        else:
            scores = layer(scores)
    found = torch.autograd.grad(F.cross_entropy(scores, target), hidden, create_graph=True)
    norms = sum(gradient.flatten(1).norm(dim=1) for gradient in found)
    expected = (torch.tensor(STRENGTHS, dtype=torch.float64)[target] * norms).mean()
    value, slopes = penalty_of(model, inputs, target, scale="batch_mean", power=1)
    torch.testing.assert_close(value, expected.detach(), rtol=1e-10, atol=0)
    assert distance(slopes, gradients(model, expected)) < 1e-9


def test_strengths_and_groups() -> None:
    model = build()
    inputs, target = batch()
    groups = torch.tensor([1, 1, 0, 0, 1, 0])
    rows = [
        penalty_of(model, inputs[i : i + 1], target[i : i + 1], strengths=None, backend="double-backward")[0]
        for i in range(6)
    ]
    options: dict[str, Any] = {"backend": "double-backward", "strengths": [0.25, 2.0]}
    found = penalty_of(model, inputs, target, groups, **options)[0]
    expected = sum(options["strengths"][g] * row for g, row in zip(groups.tolist(), rows, strict=True)) / 6
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=0)
    by_class = penalty_of(model, inputs, target, backend="double-backward")[0]
    expected = sum(STRENGTHS[y] * row for y, row in zip(target.tolist(), rows, strict=True)) / 6
    torch.testing.assert_close(by_class, expected, rtol=1e-10, atol=0)
    none, slopes = penalty_of(model, inputs, target, strengths=[0.0, 0.0, 0.0])
    assert none == 0
    assert all(not slope.any() for slope in slopes)


def test_the_weights_of_a_criterion_do_not_enter_and_ignored_rows_do_not_count() -> None:
    model = build()
    inputs, target = batch()
    plain, slopes = penalty_of(model, inputs, target, backend="double-backward")
    weighted = CrossEntropyLoss(class_weights=[9.0, 1.0, 4.0])
    again, same = penalty_of(model, inputs, target, backend="double-backward", loss=weighted)
    torch.testing.assert_close(again, plain, rtol=1e-12, atol=0)
    assert distance(same, slopes) < 1e-12
    ignored = torch.cat([target, torch.full((3,), -100)])
    extended = torch.cat([inputs, torch.full_like(inputs[:3], 1e3)])
    for backend in ("double-backward", "last-layer"):
        few, more = (penalty_of(model, x, y, backend=backend) for x, y in ((inputs, target), (extended, ignored)))
        torch.testing.assert_close(more[0], few[0], rtol=1e-10, atol=0)
        assert distance(more[1], few[1]) < 1e-10


def test_a_row_that_fits_exactly_has_no_slope_that_is_not_a_number() -> None:
    model = nn.Sequential(nn.Linear(2, 4), nn.Tanh(), nn.Linear(4, 2)).double()
    loss = lambda z, y: (z[:, 0] - z[:, 0].detach()).square()  # noqa: E731
    for backend in ("double-backward", "finite-difference", "last-layer"):
        value, slopes = penalty_of(
            model, seeded(3, 2), torch.zeros(3).long(), strengths=None, power=1, loss=loss, backend=backend
        )
        assert value == 0
        assert all(torch.isfinite(slope).all() for slope in slopes), backend


def test_every_is_unbiased_over_steps_and_resumes() -> None:
    model = build(norm="group")
    inputs, target = batch()
    full = penalty_of(model, inputs, target)[0]

    def go_on(regularizer: HeteroskedasticRegularizer, steps: int) -> list[float]:
        values = []
        for _ in range(steps):
            with regularizer.capture():
                logits = model(inputs)
            values.append(regularizer(logits, target).item())
        return values

    regularizer = HeteroskedasticRegularizer(model, STRENGTHS, every=3)
    values = go_on(regularizer, 6)
    assert values == pytest.approx([3 * full.item(), 0, 0] * 2, rel=1e-12)
    go_on(regularizer, 1)
    resumed = HeteroskedasticRegularizer(model, STRENGTHS, every=3)
    resumed.load_state_dict(copy.deepcopy(regularizer.state_dict()))
    assert go_on(resumed, 5) == go_on(regularizer, 5)
    loss = torch.ones(())
    assert go_on(resumed, 1)[0] > 0
    assert not resumed.is_active
    with resumed.capture():
        logits = model(inputs)
    assert resumed.total(loss, logits, target) is loss


@pytest.mark.parametrize("backend", ["double-backward", "finite-difference"])
def test_a_subset_is_unbiased_and_resumes(backend: Any) -> None:
    model = build()
    inputs, target = batch(rows=4)
    full, slopes = penalty_of(model, inputs, target, backend=backend)
    regularizer = HeteroskedasticRegularizer(model, STRENGTHS, backend=backend, subset=0.5, seed=3)
    seen: dict[float, list[Tensor]] = {}
    for _ in range(30):
        with regularizer.capture():
            logits = model(inputs)
        penalty = regularizer(logits, target)
        seen[round(penalty.item(), 12)] = gradients(model, penalty)
    assert len(seen) == 6  # two rows of four
    assert sum(seen) / 6 == pytest.approx(full.item(), rel=1e-9)
    mean = [torch.stack(parts).mean(0) for parts in zip(*seen.values(), strict=True)]
    assert distance(mean, slopes) < 1e-5

    other = HeteroskedasticRegularizer(model, STRENGTHS, backend=backend, subset=0.5, seed=4)
    other.load_state_dict(regularizer.state_dict())
    for one in (regularizer, other):
        with one.capture():
            logits = model(inputs)
        values = [one(logits, target).item()]
    assert other.step == regularizer.step == 31
    assert values[0] == pytest.approx(values[-1], rel=0)


def test_running_statistics_and_noise_are_as_without_the_penalty() -> None:
    """A second pass must not move buffers, and must see the same dropout."""
    inputs, target = batch()
    for options in ({"backend": "finite-difference"}, {"subset": 0.5}, {"backend": "double-backward"}):
        torch.manual_seed(0)
        model = nn.Sequential(*build(norm="batch")[:-1], nn.Dropout(0.5), nn.Linear(6, 3).double())
        plain = copy.deepcopy(model)
        regularizer = HeteroskedasticRegularizer(model, STRENGTHS, **options)
        torch.manual_seed(7)
        with regularizer.capture():
            logits = model(inputs)
        regularizer(logits, target)
        after = torch.rand(3)
        torch.manual_seed(7)
        torch.testing.assert_close(plain(inputs), logits, rtol=0, atol=0)
        torch.testing.assert_close(torch.rand(3), after, rtol=0, atol=0)
        for name, value in plain.state_dict().items():
            torch.testing.assert_close(model.state_dict()[name], value, rtol=0, atol=0)


def test_dropout_is_the_same_on_both_sides_of_a_difference() -> None:
    model = nn.Sequential(*build()[:-1], nn.Dropout(0.5), nn.Linear(6, 3).double())
    inputs, target = batch()
    torch.manual_seed(7)
    exact = penalty_of(model, inputs, target, backend="double-backward")
    torch.manual_seed(7)
    found = penalty_of(model, inputs, target, backend="finite-difference")
    assert distance(found[1], exact[1]) < 1e-5


class Restless(nn.Module):
    """Noise that no generator of torch repeats."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def forward(self, x: Tensor) -> Tensor:
        self.count += 1
        return x * (1 + self.count)


def test_a_pass_that_does_not_repeat_is_found_out() -> None:
    model = nn.Sequential(nn.Linear(4, 8), nn.LayerNorm(8), nn.Tanh(), Restless(), nn.Linear(8, 3)).double()
    inputs, target = seeded(6, 4), torch.arange(6) % 3
    with pytest.raises(InvalidArgumentError, match="another loss"):
        penalty_of(model, inputs, target, backend="finite-difference")
    auto = HeteroskedasticRegularizer(model, STRENGTHS)
    with auto.capture():
        logits = model(inputs)
    auto(logits, target).backward()
    assert auto.backend == "double-backward"
    assert "another loss" in auto.reason


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_under_autocast_norms_are_in_float32(dtype: torch.dtype) -> None:
    inputs, target = batch(torch.float32)
    exact = penalty_of(build(dtype=torch.float32), inputs, target, backend="double-backward")
    model = build(dtype=torch.float32)
    regularizer = HeteroskedasticRegularizer(model, STRENGTHS)
    with torch.autocast("cpu", dtype):
        with regularizer.capture():
            logits = model(inputs)
        penalty = regularizer(logits, target)
    assert regularizer.backend == "double-backward"
    assert "half precision" in regularizer.reason
    assert penalty.dtype == torch.float32
    torch.testing.assert_close(penalty, exact[0], rtol=0.05, atol=0)
    assert distance(gradients(model, penalty), exact[1]) < 0.1
    model = build(dtype=torch.float32)
    with pytest.raises(InvalidArgumentError, match="half precision"), torch.autocast("cpu", dtype):
        penalty_of(model, inputs, target, backend="finite-difference")
    with torch.autocast("cpu", dtype):
        last = penalty_of(model, inputs, target, backend="last-layer")[0]
    torch.testing.assert_close(last, penalty_of(model, inputs, target, backend="last-layer")[0], rtol=0.05, atol=0)


class Text(nn.Module):
    """Token and position embeddings, with or without an encoder."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.token, self.position = nn.Embedding(20, 8), nn.Embedding(5, 8)
        self.inside: nn.Module
        if kind == "encoder":
            self.inside = nn.TransformerEncoderLayer(8, 2, 16, 0.0, activation="gelu", batch_first=True)
        else:
            self.inside = nn.LSTM(8, 8, batch_first=True)
        self.head = nn.Linear(8, 3)

    def forward(self, tokens: Tensor) -> Tensor:
        hidden = self.token(tokens) + self.position(torch.arange(tokens.shape[1]))
        hidden = self.inside(hidden)
        hidden = hidden[0] if isinstance(hidden, tuple) else hidden
        scores: Tensor = self.head(hidden.mean(1))
        return scores


@pytest.mark.parametrize(
    ("kind", "layers"), [("encoder", ("inside.norm1", "inside.norm2")), ("lstm", ("token", "position"))]
)
def test_text(kind: str, layers: tuple[str, ...]) -> None:
    torch.manual_seed(0)
    model = Text(kind).double()
    tokens = torch.randint(20, (6, 5), generator=torch.Generator().manual_seed(0))
    target = torch.arange(6) % 3
    assert HeteroskedasticRegularizer(model).layers == layers
    exact = penalty_of(model, tokens, target, backend="double-backward")
    found = penalty_of(model, tokens, target, backend="finite-difference")
    torch.testing.assert_close(found[0], exact[0], rtol=1e-10, atol=0)
    assert distance(found[1], exact[1]) < 1e-5
    if kind == "lstm":  # positions have no row for each text: they are passed over by default, and refused by name
        assert exact[0] == penalty_of(model, tokens, target, backend="double-backward", layers=["token"])[0]
        with pytest.raises(InvalidArgumentError, match="'position'"):
            penalty_of(model, tokens, target, layers=["position"])


def test_time_first_needs_the_axis_of_the_rows() -> None:
    torch.manual_seed(0)
    layer = nn.TransformerEncoderLayer(8, 2, 16, 0.0, activation="gelu").double()

    class First(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer, self.head = layer, nn.Linear(8, 3).double()

        def forward(self, x: Tensor) -> Tensor:
            scores: Tensor = self.head(self.layer(x.transpose(0, 1)).mean(0))
            return scores

    model, inputs, target = First(), seeded(6, 5, 8), torch.arange(6) % 3
    found = penalty_of(model, inputs, target, batch_axis=1, backend="double-backward")
    layer.self_attn.batch_first = True
    model.forward = lambda x: model.head(layer(x).mean(1))  # type: ignore[method-assign]
    expected = penalty_of(model, inputs, target, backend="double-backward")
    torch.testing.assert_close(found[0], expected[0], rtol=1e-10, atol=0)
    assert distance(found[1], expected[1]) < 1e-10


@pytest.mark.parametrize("norm", [nn.LayerNorm, nn.RMSNorm, nn.BatchNorm1d, lambda size: nn.GroupNorm(2, size)])
@pytest.mark.parametrize("affine", [True, False])
def test_norms_of_every_kind_are_met_before_scale_and_shift(norm: Callable[..., nn.Module], affine: bool) -> None:
    torch.manual_seed(0)
    inner = norm(8).double()
    with torch.no_grad():
        if affine:
            inner.weight.copy_(seeded(8, seed=2))
        else:
            inner.weight.fill_(1.0)
    if not affine:
        inner.weight = None  # type: ignore[assignment]
        if hasattr(inner, "bias"):
            inner.bias = None  # type: ignore[assignment]
    model = nn.Sequential(nn.Linear(4, 8).double(), inner, nn.Tanh(), nn.Linear(8, 3).double())
    inputs, target = seeded(6, 4), torch.arange(6) % 3
    value = penalty_of(model, inputs, target, strengths=None, backend="double-backward")[0]
    bare = copy.deepcopy(inner)
    bare.weight = bare.bias = None  # type: ignore[assignment]
    hidden = bare(model[0](inputs)).detach().requires_grad_()
    shifted = hidden * (1 if inner.weight is None else inner.weight)
    if getattr(inner, "bias", None) is not None:
        shifted = shifted + inner.bias
    (slope,) = torch.autograd.grad(F.cross_entropy(model[3](torch.tanh(shifted)), target, reduction="sum"), hidden)
    torch.testing.assert_close(value, slope.square().sum() / 6, rtol=1e-10, atol=0)


def test_without_norms_hidden_linear_layers_are_met_at_their_inputs() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 8), nn.Tanh(), nn.Linear(8, 3)).double()
    inputs, target = seeded(6, 4), torch.arange(6) % 3
    default = penalty_of(model, inputs, target, backend="double-backward")[0]
    hidden = penalty_of(model, inputs, target, backend="double-backward", layers=["2", "4"])[0]
    assert default == hidden
    with_data = penalty_of(model, inputs, target, backend="double-backward", layers=["0", "[24]"])
    assert with_data[0] > hidden
    alone, slopes = penalty_of(model, inputs, target, strengths=None, backend="double-backward", layers=["0"])
    data = inputs.clone().requires_grad_()
    (slope,) = torch.autograd.grad(F.cross_entropy(model(data), target, reduction="sum"), data, create_graph=True)
    expected = slope.square().sum() / 6
    torch.testing.assert_close(alone, expected.detach(), rtol=1e-10, atol=0)
    assert distance(slopes, gradients(model, expected)) < 1e-10
    difference = penalty_of(model, inputs, target, backend="finite-difference", layers=["0", "[24]"])
    assert distance(difference[1], with_data[1]) < 1e-5


@pytest.mark.parametrize("norm", ["batch", "group"])
def test_channels_last_is_the_same(norm: str) -> None:
    inputs, target = batch()
    expected = penalty_of(build(nn.ReLU, norm), inputs, target)
    model = build(nn.ReLU, norm).to(memory_format=torch.channels_last)
    found = penalty_of(model, inputs.to(memory_format=torch.channels_last), target)
    torch.testing.assert_close(found[0], expected[0], rtol=1e-12, atol=0)
    assert distance(found[1], expected[1]) < 1e-12


def test_layers_that_overwrite_their_input_do_not_change_what_is_measured() -> None:
    inputs, target = batch()
    careful = penalty_of(build(nn.ReLU), inputs, target)
    hasty = penalty_of(build(lambda: nn.ReLU(inplace=True)), inputs, target)
    torch.testing.assert_close(hasty[0], careful[0], rtol=0, atol=0)
    assert distance(hasty[1], careful[1]) < 1e-14


def test_a_model_stays_plain() -> None:
    model = build()
    before = model.state_dict().keys()
    regularizer = HeteroskedasticRegularizer(model, STRENGTHS)
    inputs, target = batch()
    with pytest.raises(RuntimeError, match="channels"), regularizer.capture():
        model(inputs[:, :1])
    for module in model.modules():
        assert not module._forward_hooks
        assert not module._forward_pre_hooks
    with regularizer.capture():
        logits = model(inputs)
    for module in model.modules():
        assert not module._forward_hooks
        assert not module._forward_pre_hooks
    assert model.state_dict().keys() == before
    (F.cross_entropy(logits, target) + regularizer(logits, target)).backward()
    copied = copy.deepcopy(model)
    assert all(p.grad is not None for p in model.parameters())
    torch.testing.assert_close(copied(inputs), model(inputs))


def test_bad_input_is_refused_and_changes_nothing() -> None:
    model = build()
    inputs, target = batch()
    for options, match in (
        ({"backend": "exact"}, "backend"),
        ({"scale": "mean"}, "scale"),
        ({"aggregate": "max"}, "aggregate"),
    ):
        with pytest.raises(UnknownNameError, match=match):
            HeteroskedasticRegularizer(model, **options)
    for options, match in (
        ({"power": 3}, "power"),
        ({"every": 0}, "every"),
        ({"subset": 0.0}, "subset"),
        ({"radius": -1.0}, "radius"),
        ({"strength": float("nan")}, "strength"),
        ({"strengths": [1.0, -1.0]}, "strengths"),
        ({"layers": ["9"]}, "no layer"),
        ({"layers": []}, "empty"),
        ({"layers": "1"}, "list"),
        ({"backend": "last-layer", "layers": ["1"]}, "linear layer"),
        ({"backend": "last-layer", "subset": 0.5}, "subset"),
        ({"loss": 3}, "callable"),
        ({"seed": "a"}, "seed"),
        ({"batch_axis": -1}, "batch_axis"),
    ):
        with pytest.raises(InvalidArgumentError, match=match):
            HeteroskedasticRegularizer(model, **options)
    with pytest.raises(InvalidArgumentError, match="Linear"):
        HeteroskedasticRegularizer(nn.Sequential(NormalizedLinear(3, 2)), backend="last-layer")
    with pytest.raises(InvalidArgumentError, match=r"nn\.Module"):
        HeteroskedasticRegularizer(lambda x: x)  # type: ignore[arg-type]

    regularizer = HeteroskedasticRegularizer(model, STRENGTHS)
    with pytest.raises(StateError, match="captured"):
        regularizer(model(inputs), target)
    with torch.no_grad(), pytest.raises(StateError, match="gradients"), regularizer.capture():
        pass
    with regularizer.capture(), pytest.raises(StateError, match="open"), regularizer.capture():
        pass
    with regularizer.capture():
        logits = model(inputs)
    for bad, match in ((target + 1, "target"), (target[:3], "target"), (target.double(), "target")):
        with pytest.raises(InvalidArgumentError, match=match):
            regularizer(logits, bad)
    with pytest.raises(InvalidArgumentError, match="groups"):
        regularizer(logits, target, target + 1)
    assert regularizer.step == 0
    regularizer(logits, target)
    assert regularizer.step == 1
    with pytest.raises(InvalidArgumentError, match="entries"):
        regularizer.load_state_dict({"step": torch.tensor(4)})
    with pytest.raises(InvalidArgumentError, match="generator"):
        regularizer.load_state_dict({"step": torch.tensor(4), "generator": torch.zeros(3)})
    assert regularizer.step == 1


def test_logits_of_another_pass_are_found_out() -> None:
    model = build(nn.ReLU)
    inputs, target = batch()
    regularizer = HeteroskedasticRegularizer(model, STRENGTHS)
    with regularizer.capture():
        model(inputs)
    with pytest.raises(StateError, match="logits"):
        regularizer(model(inputs), target)
    with regularizer.capture():
        pass
    with pytest.raises(StateError, match="capture"):
        regularizer(model(inputs), target)
    smooth = HeteroskedasticRegularizer(build(), STRENGTHS)
    with smooth.capture():
        logits = 2.0 * smooth.model(inputs)
    smooth(logits, target)
    assert smooth.backend == "double-backward"
    assert "returned" in smooth.reason


@pytest.mark.slow
def test_a_compiled_model_runs_eagerly_in_captured_passes() -> None:
    plain = build(nn.ReLU, dtype=torch.float32)
    inputs, target = batch(torch.float32)
    expected = penalty_of(plain, inputs, target)
    compiled = torch.compile(plain, backend="aot_eager")
    regularizer = HeteroskedasticRegularizer(compiled, STRENGTHS)  # type: ignore[arg-type]
    compiled(inputs).sum().backward()
    plain.zero_grad()
    with regularizer.capture():
        logits = compiled(inputs)
    penalty = regularizer(logits, target)
    torch.testing.assert_close(penalty.detach(), expected[0], rtol=1e-6, atol=0)
    assert distance(gradients(plain, penalty), expected[1]) < 1e-6


def test_training_with_accumulation_is_training_on_the_whole_batch() -> None:
    inputs, target = batch()
    slopes = []
    for parts in (1, 2):
        model = build()
        regularizer = HeteroskedasticRegularizer(model, STRENGTHS, strength=0.5)
        for x, y in zip(inputs.chunk(parts), target.chunk(parts), strict=True):
            with regularizer.capture():
                logits = model(x)
            ((F.cross_entropy(logits, y) + regularizer(logits, y)) / parts).backward()
        slopes.append([p.grad.clone() for p in model.parameters() if p.grad is not None])
    assert distance(slopes[1], slopes[0]) < 1e-5


@pytest.mark.parametrize("affine", [True, False])
@pytest.mark.parametrize("name", ["batch", "group", "silu"])
def test_operators_of_captured_passes_have_the_derivatives_of_torch(name: str, affine: bool) -> None:
    inputs = seeded(3, 4, 5).requires_grad_()
    scale = [seeded(4, seed=1).requires_grad_(), seeded(4, seed=2).requires_grad_()] if affine else [None, None]
    functions: dict[str, Callable[..., Tensor]] = {
        "batch": lambda x, *s: F.batch_norm(x, None, None, *s, training=True),
        "group": lambda x, *s: F.group_norm(x, 2, *s),
        "silu": lambda x, *s: F.silu(x),
    }

    def quick(*given: Tensor | None) -> Tensor:
        with QuickOperators():
            return functions[name](*given)

    assert type(quick(inputs, *scale).grad_fn).__name__.startswith("_")
    torch.testing.assert_close(quick(inputs, *scale), functions[name](inputs, *scale), rtol=0, atol=1e-14)
    given = tuple(x for x in (inputs, *scale) if x is not None and (name != "silu" or x is inputs))
    assert torch.autograd.gradcheck(lambda *x: quick(*x, *scale[len(x) - 1 :]), given)
    assert torch.autograd.gradgradcheck(lambda *x: quick(*x, *scale[len(x) - 1 :]), given)
