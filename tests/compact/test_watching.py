"""Any model that runs is watched: what its code does, half of every family goes, and the outputs stay."""

from __future__ import annotations

import copy
import re
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional
from watched_models import MODELS, Code, built, pair

from obverse import Sparsifier, compact, load, save
from obverse.errors import InvalidArgumentError
from obverse.graph import (
    _layers,
    analyze,
    as_inputs,
    dependencies,
    outputs_of,
    register_layer,
    removable,
    unwrapped,
)


def halved(model: nn.Module, inputs: Any) -> tuple[Any, float]:
    """Zero half of every family in place; the families, and the share of the parameters that they cover."""
    found = removable(model, inputs)
    named = dict(unwrapped(model).named_parameters(remove_duplicate=False))
    marks: dict[str, torch.Tensor] = {}
    with torch.no_grad():
        for family in found.families:
            for name, axes in family.axes.items():
                mark = marks.setdefault(name, torch.zeros(named[name].shape, dtype=torch.bool))
                for axis, groups in axes.items():
                    mark.index_fill_(axis, (groups >= 0).nonzero()[:, 0], True)
                    gone = ((groups >= 0) & (groups < len(family) // 2)).nonzero()[:, 0]
                    named[name].data.index_fill_(axis, gone, 0.0)
    total = sum(p.numel() for p in unwrapped(model).parameters())
    return found, sum(int(mark.sum()) for mark in marks.values()) / total


def exact(certificate: Any) -> bool:
    wide = [one for one in certificate.differences if one.dtype == "float64"]
    return len(wide) >= 2 and all(one.difference <= 1e-10 * max(1.0, one.scale) for one in wide)


@pytest.mark.filterwarnings("ignore:.*weight_norm.*is deprecated")
@pytest.mark.parametrize("name", MODELS)
def test_half_of_every_family_goes(name, tmp_path):
    model, inputs = built(name)
    found, share = halved(model, inputs)
    assert share >= MODELS[name][2], found.kept
    small, certificate = compact(model, inputs)
    assert certificate.after.parameters <= certificate.before.parameters * (1 - 0.35 * share)
    assert exact(certificate), str(certificate)
    given_ = as_inputs(inputs)
    with torch.no_grad():
        before, after = outputs_of(given_.call(unwrapped(model))), outputs_of(given_.call(small))
    assert [one.shape for one in before] == [one.shape for one in after]
    assert all(torch.allclose(a, b, atol=1e-5) for a, b in zip(before, after, strict=True))
    save(small, tmp_path / "small.safetensors")
    again = load(tmp_path / "small.safetensors", into=unwrapped(built(name)[0]))
    with torch.no_grad():
        assert all(map(torch.equal, outputs_of(given_.call(again.eval())), after))


@pytest.mark.parametrize(
    "name",
    ["casts", "softmax over maps", "weight norm", "both directions", "fused attention with a table", "index tensors"],
)
@pytest.mark.filterwarnings("ignore:the budget asks for a sparsity")
def test_what_training_zeroes_goes(name):
    model, inputs = built(name)
    model.train()
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    sparsifier = Sparsifier(model, optimizer, groups="channels", budget=0.5, total_steps=20, example_inputs=inputs)
    for _ in range(20):
        optimizer.zero_grad()
        loss = sum(one.square().mean() for one in outputs_of(as_inputs(inputs).call(model)))
        loss.backward()
        optimizer.step()
        sparsifier.step()
    removed = sparsifier.sparsity * MODELS[name][2]
    sparsifier.finish()
    assert removed >= 0.25
    _, certificate = compact(model.eval(), inputs)
    assert exact(certificate), str(certificate)
    assert certificate.after.parameters <= certificate.before.parameters * (1 - removed) + 1


# ------------------------------------------------------------------------------------------- silent wrongs
def test_the_original_and_its_inputs_stay_as_they_are():
    class Writes(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.last, self.size = nn.Linear(3, 4), nn.Linear(4, 2), 4
            self.register_buffer("calls", torch.zeros(1))

        def forward(self, x):
            self.calls += 1
            x.mul_(2)
            return self.last(self.first(x).relu())

    model, x = Writes(), torch.ones(2, 3)
    before = copy.deepcopy(model.state_dict())
    compact(model, x)
    removable(model, x)
    assert torch.equal(x, torch.ones(2, 3))
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    assert type(model.size) is int
    assert model.training
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())


def dead(model, rows, layer="a", biases=False):
    with torch.no_grad():
        getattr(model, layer).weight[:rows] = 0
        if biases:
            getattr(model, layer).bias[:rows] = 0
    return model


def into_a_view(m, y):
    out = torch.zeros(len(y), 16)
    out[:, :16].copy_(y)
    return out


def into_a_row(m, y):
    out = torch.ones(2, len(y), 16)
    row = out[0]
    row.add_(y)
    return out.sum(0)


def into_a_constant(m, y):
    out = torch.full((len(y), 16), 0.5)
    out.add_(y)
    total = torch.zeros(len(y), y.shape[1]).to(y).index_add_(0, torch.arange(len(y)), out)
    return out + total


def through_numpy(m, y):
    return y + torch.from_numpy(y.detach().numpy().copy()) * 0.5


def by_data(m, y):
    other = torch.zeros_like(y)
    other.data = y.relu()
    return other


def by_list(m, y):
    return torch.tensor(y.tolist()).to(y) + y


def by_index(m, y):
    return y.gather(1, m.c.weight[:1].repeat(len(y), 1).argsort(1) + 0 * y.argmax(1, keepdim=True))


def always_dropped(m, y):
    return functional.dropout(y, 0.5, training=True)


def random_numbers(m, y):
    return y * torch.randn(len(y), 1).to(y) + torch.rand(16).to(y)


@pytest.mark.parametrize(
    "between",
    [
        into_a_view,
        into_a_row,
        into_a_constant,
        through_numpy,
        by_data,
        by_list,
        by_index,
        always_dropped,
        random_numbers,
    ],
    ids=lambda one: one.__name__,
)
@pytest.mark.parametrize("live", [True, False], ids=["constant", "zero"])
def test_paths_that_are_hard_to_see_are_right_or_kept(between, live):
    """Whatever goes, the outputs are equal for inputs that the analysis never saw."""
    torch.manual_seed(0)
    model = dead(pair(between), 6, biases=not live).eval()
    model.c = nn.Linear(16, 1)
    small, certificate = compact(model, torch.randn(4, 5))
    assert exact(certificate)
    assert not any("nothing goes" in note for note in certificate.notes)
    for x in torch.randn(5, 4, 5):
        torch.manual_seed(3)
        wanted = model(x)
        torch.manual_seed(3)
        assert torch.allclose(small(x), wanted, atol=1e-5)


def test_rows_that_do_not_sum_to_one_are_no_averages():
    class Masked(nn.Module):
        def __init__(self, change):
            super().__init__()
            self.q, self.v, self.o, self.change = nn.Linear(8, 8), nn.Linear(8, 8), nn.Linear(8, 2), change

        def forward(self, x):
            weights = self.change((self.q(x) @ self.q(x).mT).softmax(-1))
            return self.o(weights @ self.v(x))

    mask = torch.tensor([True, False, False, True, False])
    for change in (lambda w: w.masked_fill(mask, 0.0), lambda w: w.transpose(-1, -2), lambda w: w * 0.5):
        torch.manual_seed(0)
        model = Masked(change).eval()
        with torch.no_grad():
            model.v.weight[:4] = 0  # constants, which an average of rows that sum to one would keep
        _, certificate = compact(model, torch.randn(2, 5, 8))
        assert exact(certificate)
        assert "v.weight" not in {change.tensor for change in certificate.changes if change.axis == 0}
    _, certificate = compact(
        (lambda m: (m.v.weight.data[:4].zero_(), m)[1])(Masked(lambda w: w.contiguous())), torch.randn(2, 5, 8)
    )
    assert exact(certificate)
    assert ("v.weight", 0, 4) in {(change.tensor, change.axis, change.after) for change in certificate.changes}


@pytest.mark.parametrize(("shape", "runs_over"), [((2, 5), True), ((3, 2, 5), False), ((1, 2, 5, 5), True)])
def test_the_axis_of_a_softmax_is_the_one_that_torch_takes(shape, runs_over):
    layer = {2: nn.Linear(5, 6), 3: nn.Linear(5, 6), 4: nn.Conv2d(2, 6, 1)}[len(shape)]
    last = {2: nn.Linear(6, 2), 3: nn.Linear(6, 2), 4: nn.Conv2d(6, 2, 1)}[len(shape)]
    model = Code(lambda m, x: m.b(functional.softmax(m.a(x))), a=layer, b=last)
    with pytest.warns(UserWarning, match="Implicit dimension choice"):
        found = dependencies(model, torch.randn(shape))
    assert any("runs over channels" in (group.kept or "") for group in found) == runs_over


def test_pooling_looks_at_its_own_axes():
    """A map without a batch axis is pooled over height and width; one of sequences as a map, over channels."""
    model = Code(lambda m, x: m.b(functional.max_pool2d(m.a(x), 2).flatten(1)), a=nn.Linear(6, 8), b=nn.Linear(8, 2))
    found = dependencies(model, torch.randn(3, 4, 6))  # (3, 4, 8) is pooled along its channels to (3, 2, 4)
    assert found.of("units") == []
    assert any("max_pool2d" in (group.kept or "") for group in found)


def test_another_path_for_other_sizes_is_found():
    """The smaller model must also run where the code takes another path: on another batch size or length."""

    class Paths(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = nn.Linear(5, 8), nn.Linear(8, 3)

        def forward(self, x):
            hidden = self.a(x)
            if len(x) != 4:
                hidden = hidden.view(-1, 2, 4).flatten(1)  # sizes that nothing follows
            return self.b(hidden)

    model = dead(Paths(), 2, biases=True)
    small, certificate = compact(model, torch.randn(4, 5))
    assert any("on another batch size" in note for note in certificate.notes)
    assert torch.allclose(small(torch.ones(3, 5)), model(torch.ones(3, 5)))
    assert {one.inputs for one in certificate.differences} == {"given", "random", "stress", "batch"}


def test_an_error_in_the_model_is_said_in_words():
    class Broken(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = Code(lambda m, x: m.l(x) + torch.ones(7), l=nn.Linear(3, 4))

        def forward(self, x):
            return self.inner(x)

    fast = torch.backends.mha.get_fastpath_enabled()
    with pytest.raises(InvalidArgumentError, match=r"Broken does not run on the example inputs .*in inner"):
        removable(Broken(), torch.randn(2, 3))
    assert torch.backends.mha.get_fastpath_enabled() == fast
    assert torch.ones(1).add(1).item() == 2.0  # the watch has ended


@pytest.mark.parametrize("inputs", ["text", 5, [], {}, {1: torch.ones(2)}, None])
def test_inputs_that_are_none(inputs):
    with pytest.raises(InvalidArgumentError, match="a tensor, a tuple of positional or a mapping of keyword"):
        analyze(nn.Linear(2, 2), inputs)


def test_plans_that_cannot_follow_are_known_before_training():
    model = Code(
        lambda m, x: m.c(m.b(m.a(x).view(-1, 2, 8).flatten(1)).relu()),
        a=nn.Linear(5, 16),
        b=nn.Linear(16, 12),
        c=nn.Linear(12, 3),
    )
    found = removable(model, torch.randn(4, 5))
    assert [family.writers[0] for family in found.families] == ["b.weight"]
    assert "rectangle" in found.kept["a.weight"] or "does not follow" in found.kept["a.weight"]


# ------------------------------------------------------------------------------------------- why things stay
def convolutions(between):
    return Code(lambda m, x: m.b(between(m, m.a(x))), a=nn.Conv2d(3, 8, 3, padding=1), b=nn.Conv2d(8, 2, 1))


def with_parameter(between, shape):
    model = pair(between)
    model.w = nn.Parameter(torch.randn(shape))
    return model


class Several(nn.Module):
    def forward(self, x, y):
        return x + y


class Nested(nn.Module):
    def forward(self, x):
        return {"x": x}


class HeadNorm(nn.Module):
    """Queries and keys that are normalized head by head."""

    def __init__(self, norm):
        super().__init__()
        self.q, self.k, self.v = (nn.Linear(8, 16) for _ in range(3))
        self.o, self.norm = nn.Linear(16, 3), norm

    def forward(self, x):
        b, n, _ = x.shape
        q, k, v = (one(x).view(b, n, -1, 4).transpose(1, 2) for one in (self.q, self.k, self.v))
        out = functional.scaled_dot_product_attention(self.norm(q), self.norm(k), v)
        return self.o(out.transpose(1, 2).reshape(b, n, -1))


def standardized(m, x):
    weight = functional.batch_norm(m.a.weight[None], None, None, training=True)[0]
    return m.b(functional.linear(x, weight, m.a.bias))


def table(m, x):
    return m.c((m.a(x)[:, :, None] + m.b(x)[:, None, :]).flatten(1))


ROW = (4, 5)
WHY = {
    "a parameter in a function": (
        lambda: with_parameter(lambda m, y: y * m.w.cumsum(0), (16,)),
        ROW,
        "cumsum in the model is not understood",
    ),
    "numbers of a parameter": (
        lambda: with_parameter(lambda m, y: y * float(m.w[0]), (16,)),
        ROW,
        "reads its numbers",
    ),
    "a parameter with a constant": (
        lambda: with_parameter(lambda m, y: y * (m.w * torch.arange(16.0)), (16,)),
        ROW,
        "combines it with a constant of its size",
    ),
    "a parameter beside a constant": (
        lambda: with_parameter(lambda m, y: y * torch.cat([m.w, torch.arange(8.0)]), (8,)),
        ROW,
        "puts constants beside it",
    ),
    "parts of a parameter": (
        lambda: with_parameter(lambda m, y: y * m.w[:16], (20,)),
        ROW,
        "parts of w are used apart",
    ),
    "padded channels": (
        lambda: convolutions(lambda m, y: functional.pad(y, (0, 0, 0, 0, 1, 0))[:, 1:]),
        (2, 3, 6, 6),
        "pad in the model counts channels",
    ),
    "a list that is written to": (
        lambda: pair(lambda m, y: (torch._foreach_add_([y], 1.0), y)[1]),
        ROW,
        "_foreach_add in the model",
    ),
    "a table of two kinds of channels": (
        lambda: Code(table, a=nn.Linear(5, 4), b=nn.Linear(5, 4), c=nn.Linear(16, 2)),
        ROW,
        "makes a table of two kinds of channels",
    ),
    "standardized weights": (
        lambda: Code(standardized, a=nn.Linear(5, 8), b=nn.Linear(8, 2)),
        ROW,
        "standardizes its weights over all that they read",
    ),
    "positions": (
        lambda: Code(
            lambda m, x: m.c(m.b(m.a(x).transpose(1, 2)).transpose(1, 2).relu()),
            a=nn.Linear(5, 8),
            b=nn.Linear(6, 6),
            c=nn.Linear(8, 2),
        ),
        (2, 6, 5),
        "b mixes positions",
    ),
    "the root mean square of a head": (lambda: HeadNorm(nn.RMSNorm(4, eps=1e-6)), (2, 5, 8), "over a whole head"),
    "the mean of a head": (lambda: HeadNorm(nn.LayerNorm(4)), (2, 5, 8), "norm takes mean and variance"),
}


@pytest.mark.parametrize("name", WHY)
def test_what_stays_says_why(name):
    torch.manual_seed(0)
    build, shape, words = WHY[name]
    model, inputs = build().eval(), torch.randn(shape)
    told = " | ".join([*removable(model, inputs).kept.values(), *(g.kept or "" for g in dependencies(model, inputs))])
    assert re.search(words, told), told
    halved(model, inputs)
    assert exact(compact(model, inputs)[1])


@pytest.mark.parametrize("norm", [nn.RMSNorm(4, eps=1e-6), nn.LayerNorm(4), nn.Identity()], ids=str)
def test_heads_that_are_normalized_go_whole(norm):
    torch.manual_seed(0)
    model, x = HeadNorm(norm).eval(), torch.randn(2, 5, 8)
    assert [len(family) for family in removable(model, x).of("heads")] == [4]
    halved(model, x)
    small, certificate = compact(model, x)
    assert exact(certificate)
    assert small.q.out_features == small.v.out_features == small.o.in_features == 8


def test_registered_layers_of_several_tensors_and_other_nestings(monkeypatch):
    monkeypatch.setattr(_layers, "LAYERS", dict(_layers.LAYERS))
    for kind in (Several, Nested):
        register_layer(kind)(lambda knowledge, name, layer, flow: flow)
    two = Code(lambda m, x: m.b(m.s(m.a(x), m.a(x))), a=nn.Linear(5, 8), s=Several(), b=nn.Linear(8, 2))
    assert "s (Several) takes several inputs" in removable(two, torch.randn(ROW)).kept["a.weight"]
    other = Code(lambda m, x: m.b(m.s(m.a(x))["x"]), a=nn.Linear(5, 8), s=Nested(), b=nn.Linear(8, 2))
    assert "nested in another way" in removable(other, torch.randn(ROW)).kept["a.weight"]


class Response(nn.Module):
    """Global response normalization of somebody's own, (batch, height, width, channels)."""

    def __init__(self, channels):
        super().__init__()
        self.eps = 1e-5
        self.weight, self.bias = nn.Parameter(torch.randn(channels)), nn.Parameter(torch.randn(channels))

    def forward(self, x):
        lengths = x.norm(dim=(1, 2), keepdim=True)
        return x + self.weight * x * lengths / (lengths.mean(-1, keepdim=True) + self.eps) + self.bias


def test_responses_are_rescaled(tmp_path):
    def build():
        return nn.Sequential(nn.Linear(3, 8), nn.ReLU(), Response(8), nn.Linear(8, 2)).eval()

    torch.manual_seed(0)
    model, x = build(), torch.randn(2, 4, 4, 3)
    halved(model, x)
    small, certificate = compact(model, x)
    assert exact(certificate)
    assert small[2].eps == pytest.approx(2e-5)
    save(small, tmp_path / "small.safetensors")
    assert torch.equal(load(tmp_path / "small.safetensors", into=build())(x), small(x))


class Table(nn.Module):
    """Heads whose dimensions are multiplied with a table that the module holds, and scaled in place as views."""

    def __init__(self):
        super().__init__()
        self.qkv, self.o = nn.Linear(8, 48), nn.Linear(16, 3)
        self.register_buffer("table", torch.randn(9, 4))
        self.shift = nn.Parameter(torch.randn(16))

    def forward(self, x):
        b, n, _ = x.shape
        q, k, v = self.qkv(x).view(b, n, -1, 12).transpose(1, 2).chunk(3, -1)
        q /= 2.0  # in place, where the whole projection is seen
        q = q * self.table[torch.arange(n)]
        q = q + self.shift.view(1, 1, -1, 4).transpose(1, 2)
        weights = (q @ k.transpose(-1, -2)).softmax(-1)
        return self.o((weights @ v).transpose(1, 2).reshape(b, n, -1))


def test_heads_go_beside_tables_and_writing_in_place():
    torch.manual_seed(0)
    model, x = Table().eval(), torch.randn(2, 5, 8)
    assert [len(family) for family in removable(model, x).of("heads")] == [4]
    halved(model, x)
    small, certificate = compact(model, x)
    assert exact(certificate)
    assert small.qkv.out_features == 24
    assert small.shift.shape == (8,)


class Single(torch.autograd.Function):
    """A kernel that takes single precision only."""

    @staticmethod
    def forward(ctx, x):
        if x.dtype != torch.float32:
            raise RuntimeError("float32 only")
        return x.relu()


def test_a_model_that_does_not_run_in_double_precision_is_compared_in_its_own():
    torch.manual_seed(0)
    model, x = pair(lambda m, y: Single.apply(y)).eval(), torch.randn(4, 5)
    _, share = halved(model, x)
    assert share > 0.95
    small, certificate = compact(model, x)
    assert small.a.out_features == 8
    assert {one.dtype for one in certificate.differences} == {"float32"}
    assert any("does not run in float64" in note for note in certificate.notes)


def test_tensors_that_a_module_keeps_from_a_run_are_copied():
    class Cached(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b, self.cache = nn.Linear(5, 8), nn.Linear(8, 3), {}

        def forward(self, x):
            self.cache["hidden"] = [self.a(x).relu()]
            return self.b(self.cache["hidden"][0])

    model, x = Cached(), torch.randn(4, 5)
    model(x)  # leaves a tensor with a gradient function behind
    halved(model, x)
    small, certificate = compact(model, x)
    assert exact(certificate)
    assert small.a.out_features == 4
    assert model.cache["hidden"][0].grad_fn is not None


# ------------------------------------------------------------------------------------------- random programs
STEPS = {
    "relu": lambda m, i, x: x.relu(),
    "gate": lambda m, i, x: x * torch.sigmoid(x),
    "twice": lambda m, i, x: torch.cat([x, -x], 1)[:, : x.shape[1]],
    "mean": lambda m, i, x: x + x.mean((2, 3), keepdim=True),
    "pool": lambda m, i, x: functional.avg_pool2d(x, 3, 1, 1),
    "turn": lambda m, i, x: x.permute(0, 2, 3, 1).contiguous().transpose(1, 2).permute(0, 3, 1, 2),
    "roll": lambda m, i, x: x.roll((1, 2), (2, 3)),
    "conv": lambda m, i, x: m.convs[i](x),
    "residual": lambda m, i, x: x + m.convs[i](x).tanh(),
    "depthwise": lambda m, i, x: m.wise[i](x),
    "norm": lambda m, i, x: m.norms[i](x),
    "linear": lambda m, i, x: m.lines[i](x.movedim(1, -1)).movedim(-1, 1),
    "squeeze": lambda m, i, x: x * m.lines[i](x.mean((2, 3))).sigmoid()[..., None, None],
    "write": lambda m, i, x: x.clone().mul_(2).add_(x),
    "split": lambda m, i, x: torch.stack(x.chunk(2, 1), 1).flip(1).flatten(1, 2),
    "maximum": lambda m, i, x: torch.maximum(x, m.convs[i](x)),
}


class Program(nn.Module):
    def __init__(self, steps, width=6):
        super().__init__()
        self.steps = steps
        self.first, self.last = nn.Conv2d(2, width, 1), nn.Linear(width, 2)
        count = len(steps)
        self.convs = nn.ModuleList(nn.Conv2d(width, width, 3, padding=1) for _ in range(count))
        self.wise = nn.ModuleList(nn.Conv2d(width, width, 3, padding=1, groups=width) for _ in range(count))
        self.norms = nn.ModuleList(nn.BatchNorm2d(width) for _ in range(count))
        self.lines = nn.ModuleList(nn.Linear(width, width) for _ in range(count))

    def forward(self, x):
        x = self.first(x)
        for place, step in enumerate(self.steps):
            x = STEPS[step](self, place, x)
        return self.last(x.mean((2, 3)))


@settings(max_examples=12, deadline=None, derandomize=True)
@given(steps=st.lists(st.sampled_from(sorted(STEPS)), min_size=1, max_size=6), seed=st.integers(0, 5))
def test_random_programs_stay_exact(steps, seed):
    torch.manual_seed(seed)
    model, x = Program(steps).eval(), torch.randn(2, 2, 4, 4)
    with torch.no_grad():  # some weights and biases die by chance, as training leaves them
        for parameter in model.parameters():
            axis = int(torch.randint(parameter.ndim, ()))
            parameter.index_fill_(axis, torch.randperm(parameter.shape[axis])[: parameter.shape[axis] // 2], 0.0)
    _, certificate = compact(model, x)
    assert exact(certificate), str(certificate)
    assert not any("refused" in note for note in certificate.notes)
    _, share = halved(model, x)
    _, certificate = compact(model, x)
    assert exact(certificate), str(certificate)
    assert share == 0 or certificate.after.parameters < certificate.before.parameters
