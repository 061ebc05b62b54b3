"""Every reason for which zeros stay, each provoked once; and what the user may ask to stay."""

from __future__ import annotations

import re

import pytest
import torch
from compact_zoo import Attention, Transformer
from torch import nn
from torch.nn import functional

from obverse import compact, load, save
from obverse.compact import latency, macs, parameters
from obverse.errors import InvalidArgumentError
from obverse.graph import dependencies


def dead(layer, count=2):
    """Rows of zeros; biases stay alive."""
    with torch.no_grad():
        layer.weight[:count] = 0
    return layer


def silent(layer, count=2):
    """Rows and biases of zeros."""
    with torch.no_grad():
        layer.bias[:count] = 0
    return dead(layer, count)


def unread(layer, columns):
    with torch.no_grad():
        layer.weight[:, columns] = 0
    return layer


class Calls(nn.Module):
    """Layers, and a function of them and the input."""

    def __init__(self, forward, **layers):
        super().__init__()
        for name, layer in layers.items():
            setattr(self, name, layer)
        self._forward = forward

    def forward(self, x):
        return self._forward(self, x)


def pair(between, first=None, last=None):
    first, last = first or dead(nn.Linear(3, 4)), last or nn.Linear(4, 2)
    return Calls(lambda m, x: m.last(between(m, m.first(x))), first=first, last=last)


def heads(kept=(0, 1), **options):
    attention = Attention(8, 4, 4, **options)
    unread(attention.o, [i for i in range(8) if i // 2 not in kept])
    return attention


def partial_heads():
    attention = Attention(8, 2, 2)
    unread(attention.o, [0, 1])  # half of a head
    return attention


def lone_axis():
    """A reshape to a grid of which one class is a corner."""
    return Calls(
        lambda m, x: m.last(m.first(x).view(-1, 2, 2).flatten(1)),
        first=silent(nn.Linear(3, 4), 1),
        last=unread(nn.Linear(4, 2), [0]),
    )


def uneven_directions():
    model = nn.Sequential(nn.LSTM(3, 4, bidirectional=True, batch_first=True), nn.Linear(8, 2))
    cell = model[0]
    with torch.no_grad():
        cell.weight_hh_l0[:, :2] = 0
        model[1].weight[:, :2] = 0
    return Calls(lambda m, x: m.last(m.cell(x)[0]), cell=cell, last=model[1])


def uneven_halves():
    def forward(m, x):
        a, b = m.first(x).chunk(2, -1)
        return m.one(a) + m.two(b)

    return Calls(forward, first=nn.Linear(3, 8), one=unread(nn.Linear(4, 2), [0, 1]), two=nn.Linear(4, 2))


def twice():
    """One layer reads two layers whose dead units have different constants."""
    return Calls(
        lambda m, x: m.last(m.one(x)) + m.last(m.two(x)),
        one=dead(nn.Linear(3, 4)),
        two=dead(nn.Linear(3, 4)),
        last=nn.Linear(4, 2),
    )


def twice_alone():
    """One layer is called twice on one tensor and on its negative: constants differ, channels are shared."""
    return Calls(lambda m, x: m.last(m.one(x)) + m.last(-m.one(x)), one=dead(nn.Linear(3, 4)), last=nn.Linear(4, 2))


def unbatched():
    return Calls(lambda m, x: m.last(m.first(x)), first=dead(nn.Conv2d(1, 4, 1)), last=nn.Conv2d(4, 2, 1))


X3 = torch.randn(2, 3)
SEQUENCE = torch.randn(2, 5, 3)

REASONS = {
    "a convolution without a batch axis": (unbatched, torch.randn(1, 4, 4), "without a batch axis"),
    "no running statistics": (
        lambda: nn.Sequential(dead(nn.Linear(3, 4)), nn.BatchNorm1d(4, track_running_stats=False), nn.Linear(4, 2)),
        X3,
        "no running statistics",
    ),
    "a group norm": (
        lambda: nn.Sequential(dead(nn.Conv2d(1, 6, 1)), nn.GroupNorm(2, 6), nn.Conv2d(6, 2, 1)),
        torch.randn(1, 1, 4, 4),
        "whole groups of 3",
    ),
    "a root mean square over several axes": (
        lambda: nn.Sequential(dead(nn.Linear(3, 4)), nn.RMSNorm((5, 4)), nn.Linear(4, 2)),
        SEQUENCE,
        "over several axes",
    ),
    "a root mean square of constants": (
        lambda: nn.Sequential(dead(nn.Linear(3, 4)), nn.RMSNorm(4, eps=1e-6), nn.Linear(4, 2)),
        X3,
        "channels that are not zero",
    ),
    "a root mean square without a scale": (
        lambda: nn.Sequential(silent(nn.Linear(3, 4)), nn.RMSNorm(4, elementwise_affine=False), nn.Linear(4, 2)),
        X3,
        "no scale and eps",
    ),
    "a vocabulary": (
        lambda: nn.Sequential(dead(nn.Embedding(6, 4)), nn.Linear(4, 2)),
        torch.randint(6, (2, 3)),
        "vocabulary",
    ),
    "rescaled vectors": (
        lambda: nn.Sequential(unread(nn.Embedding(6, 4, max_norm=1.0), [0]), unread(nn.Linear(4, 2), [0])),
        torch.randint(6, (2, 3)),
        "max_norm",
    ),
    "broadcasting over channels": (
        lambda: Calls(
            lambda m, x: m.last(m.first(x).mean(1, keepdim=True) * 1.0 + m.second(x)),
            first=dead(nn.Linear(3, 4)),
            second=nn.Linear(3, 4),
            last=nn.Linear(4, 2),
        ),
        X3,
        "runs over channels",
    ),
    "a constant of the code": (
        lambda: pair(lambda m, y: y + torch.arange(4.0), last=unread(nn.Linear(4, 2), [0, 1])),
        X3,
        "combines it with something of fixed size",
    ),
    "a mean over channels": (lambda: pair(lambda m, y: y - y.mean(-1, keepdim=True)), X3, "mean in .* runs over"),
    "a softmax over channels": (lambda: pair(lambda m, y: y.softmax(-1)), X3, "softmax in .* runs over"),
    "a product of matrices": (
        lambda: pair(lambda m, y: y @ y.mT, first=dead(nn.Linear(3, 4)), last=nn.Linear(2, 2)),
        X3,
        "a product in .* sums over channels that are not zero",
    ),
    "a sum over channels": (lambda: pair(lambda m, y: y.cumsum(-1)), X3, "cumsum in .* runs over channels"),
    "a length": (lambda: pair(lambda m, y: functional.normalize(y)), X3, "normalize in .* runs over channels"),
    "a function": (lambda: pair(lambda m, y: torch.fft.fft(y).real), X3, "fft_fft in .* is not understood"),
    "a function of weights": (
        lambda: Calls(
            lambda m, x: m.last(functional.linear(x, torch.linalg.qr(m.first.weight.T)[0].T)),
            first=dead(nn.Linear(4, 4)),
            last=nn.Linear(4, 2),
        ),
        torch.randn(2, 4),
        "linalg_qr in .* is not understood",
    ),
    "a branch on values": (
        lambda: pair(lambda m, y: y if y.sum() > 0 else -y),
        X3,
        "sum in .* runs over channels",
    ),
    "a branch on one value": (
        lambda: pair(lambda m, y: y if y[0, 0] > 0 else -y),
        X3,
        "lets its values decide what the code does",
    ),
    "an index from the input": (
        lambda: pair(lambda m, y: y.gather(1, y.argsort(1).detach() % 2), last=nn.Linear(4, 2)),
        X3,
        "runs over channels|not understood",
    ),
    "writing into what another shows": (
        lambda: pair(lambda m, y: (y, y.view(-1, 2, 2)[:, 0].zero_())[0], last=unread(nn.Linear(4, 2), [0, 1])),
        X3,
        "writes into memory that another tensor shows",
    ),
    "a projected state": (
        lambda: Calls(
            lambda m, x: m.last(m.cell(m.first(x))[0]),
            first=dead(nn.Linear(3, 4)),
            cell=nn.LSTM(4, 6, proj_size=2, batch_first=True),
            last=nn.Linear(2, 2),
        ),
        SEQUENCE,
        "projects its hidden state",
    ),
    "the attention of torch": (
        lambda: Calls(
            lambda m, x: m.last(m.attention(m.first(x), m.first(x), m.first(x))[0]),
            first=dead(nn.Linear(3, 4)),
            attention=nn.MultiheadAttention(4, 2, batch_first=True),
            last=nn.Linear(4, 2),
        ),
        SEQUENCE,
        "heads cannot go alone",
    ),
    "a part of a head": (partial_heads, torch.randn(2, 5, 8), "it is read|of a head|reads it|output"),
    "a corner of a grid": (lone_axis, X3, "a reshape needs the rest"),
    "one direction": (uneven_directions, SEQUENCE, "all layers and directions of cell have the same hidden size"),
    "one half": (uneven_halves, X3, "chunk in .* cuts equal parts"),
    "the last channel": (
        lambda: nn.Sequential(nn.Linear(3, 4), nn.Tanh(), unread(nn.Linear(4, 2), [0, 1, 2, 3])),
        X3,
        "keeps at least one channel",
    ),
    "two calls with different constants": (twice, X3, "called twice with different constants"),
    "a bias that cannot be": (
        lambda: nn.Sequential(dead(nn.Linear(3, 4)), nn.Linear(4, 2, bias=False)),
        X3,
        "no bias to fold the constant into",
    ),
    "a border": (
        lambda: nn.Sequential(dead(nn.Conv2d(1, 4, 1)), nn.Conv2d(4, 2, 3, padding=1)),
        torch.randn(1, 1, 4, 4),
        "zero padding makes a constant differ",
    ),
}


@pytest.mark.filterwarnings("ignore:LSTM with projections")
@pytest.mark.parametrize("name", REASONS)
def test_reason(name):
    torch.manual_seed(0)
    build, inputs, words = REASONS[name]
    model = build().eval()
    _, certificate = compact(model, inputs)
    told = " | ".join([*(r.reason for r in certificate.refusals), *certificate.notes])
    assert re.search(words, told), str(certificate)
    assert all(d.difference <= 1e-10 * max(1, d.scale) for d in certificate.differences if d.dtype == "float64")


def test_rounded_counts_say_so():
    model = nn.Sequential(nn.Linear(3, 8), nn.ReLU(), unread(nn.Linear(8, 2), [0, 1, 2]))
    model[0] = silent(model[0], 3)
    _, certificate = compact(model, X3, rounding=4)
    assert any("multiples of 4" in refusal.reason for refusal in certificate.refusals)


class Fixed(nn.Module):
    """A size written down in the code, which no attribute follows."""

    def __init__(self):
        super().__init__()
        self.first, self.last = nn.Linear(3, 4), nn.Linear(4, 2)

    def forward(self, x):
        return self.last(self.first(x).view(-1, 2, 2).reshape(-1, 4))


def test_a_size_that_cannot_follow_is_found_by_running():
    model = Fixed()
    with torch.no_grad():
        model.last.weight[:, :2] = 0
    small, certificate = compact(model, X3)
    assert any("stay whole: the smaller model does not run" in note for note in certificate.notes)
    assert any("left out: the smaller model does not run" in refusal.reason for refusal in certificate.refusals)
    assert parameters(small) == parameters(model)
    assert torch.allclose(small(X3), model(X3))


def test_a_plan_that_is_not_equal_is_refused():
    class Odd(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.last, self.size = nn.Linear(3, 4), nn.Linear(4, 2), 4

        def forward(self, x):
            return self.last(self.first(x)) * self.first.weight.shape[0]

    model = Odd()
    with torch.no_grad():
        model.last.weight[:, :2] = 0
    small, certificate = compact(model, X3)
    assert any("stay whole: outputs differ by" in note for note in certificate.notes)
    assert any("left out: outputs differ by" in refusal.reason for refusal in certificate.refusals)
    assert parameters(small) == parameters(model)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: compact("model", X3), "nn.Module"),
        (lambda: compact(nn.Linear(3, 2), "text"), "a tensor, a tuple"),
        (lambda: compact(nn.Linear(3, 2), []), "a tensor, a tuple"),
        (lambda: compact(nn.Linear(4, 2), X3), "does not run"),
        (lambda: latency(nn.Linear(3, 2), X3, repeats=0), "repeats"),
        (lambda: macs(nn.Linear(3, 2), 5), "a tensor, a tuple"),
        (lambda: compact(nn.Linear(3, 2), X3, keep="("), "regular expression"),
        (lambda: compact(nn.Linear(3, 2), X3, keep="nothing"), "matches no tensor"),
        (lambda: compact(nn.Linear(3, 2), X3, keep=[5]), "keep takes"),
        (
            lambda: compact(
                nn.Linear(3, 2), X3, keep=dependencies(nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 2)), X3).keep("0")
            ),
            "another model",
        ),
    ],
)
def test_bad_arguments(call, words):
    with pytest.raises(InvalidArgumentError, match=words):
        call()


def test_what_the_user_asks_to_stay():
    model = nn.Sequential(nn.Linear(3, 8), nn.ReLU(), nn.Linear(8, 6), nn.ReLU(), nn.Linear(6, 2))
    with torch.no_grad():
        model[2].weight[:, :3] = 0
        model[4].weight[:, :2] = 0
    assert [m.out_features for m in compact(model, X3)[0][::2]] == [5, 4, 2]
    small, certificate = compact(model, X3, keep=r"^0\.")
    assert [m.out_features for m in small[::2]] == [8, 4, 2]
    assert any("asked for by the user" in refusal.reason for refusal in certificate.refusals)
    marked = dependencies(model, X3).keep(r"^4\.weight", "the next model reads them")
    small, certificate = compact(model, X3, keep=marked)
    assert [m.out_features for m in small[::2]] == [5, 6, 2]
    assert any("the next model reads them" in refusal.reason for refusal in certificate.refusals)
    assert parameters(compact(model, X3, keep=[r"^0\.", r"^4\."])[0]) == parameters(model)


class Root(nn.Module):
    def __init__(self, eps=1e-6, slope=0.1):
        super().__init__()
        self.first, self.norm = nn.Linear(6, 12, bias=False), nn.RMSNorm(12, eps=eps)
        self.bend, self.last = nn.LeakyReLU(slope), nn.Linear(12, 3)

    def forward(self, x):
        return self.last(self.bend(self.norm(self.first(x))))


def test_a_file_carries_the_eps_of_a_norm_that_shrank(tmp_path):
    torch.manual_seed(0)
    model = Root()
    dead(model.first, 5)
    x = torch.randn(4, 6)
    small, _ = compact(model, x)
    assert small.norm.eps > model.norm.eps
    save(small, tmp_path / "small.safetensors")
    again = load(tmp_path / "small.safetensors", into=Root())
    assert again.norm.eps == small.norm.eps
    assert torch.equal(again(x), small(x))
    for other in (Root(eps=1e-3), Root(slope=0.2)):
        before = {k: v.clone() for k, v in other.state_dict().items()}
        with pytest.raises(InvalidArgumentError, match=r"norm\.eps|bend\.negative_slope"):
            load(tmp_path / "small.safetensors", into=other)
        assert all(torch.equal(v, before[k]) for k, v in other.state_dict().items())
    # What did not shrink has the eps it was made with.
    save(Root(eps=1e-3), tmp_path / "whole.safetensors")
    with pytest.raises(InvalidArgumentError, match=r"norm\.eps"):
        load(tmp_path / "whole.safetensors", into=Root())


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of torch's compiler, about parts of torch
@pytest.mark.parametrize("name", ["convolutional", "transformer"])
def test_the_result_compiles(name):
    torch.manual_seed(0)
    if name == "transformer":
        model, inputs = Transformer(kv=2), torch.randint(20, (2, 6))
        unread(model.attention.o, list(range(8)))
    else:
        model = nn.Sequential(
            *(silent(nn.Conv2d(3, 8, 3), 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 6, 3), nn.ReLU()),
            *(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, 4)),
        )
        inputs = torch.randn(2, 3, 8, 8)
    small, certificate = compact(model.eval(), inputs)
    assert certificate.after.parameters < certificate.before.parameters
    compiled = torch.compile(small, fullgraph=True)
    assert torch.allclose(compiled(inputs), model(inputs), atol=1e-5)
