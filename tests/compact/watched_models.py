"""Models whose code does what ordinary code does, and which no symbolic tracer takes."""

from __future__ import annotations

import functools
from collections import UserDict
from typing import Any

import torch
from torch import nn
from torch.nn import functional
from torch.nn.utils import parametrizations, prune

from obverse.dropout import DropBlock2d, DropPath


class Code(nn.Module):
    """Layers, and a forward pass over them."""

    def __init__(self, forward: Any, **layers: Any) -> None:
        super().__init__()
        self.code = forward
        for name, layer in layers.items():
            setattr(self, name, layer)

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        return self.code(self, *args, **kwargs)


def pair(between: Any, wide: int = 16, last: nn.Module | None = None) -> nn.Module:
    return Code(lambda m, x: m.b(between(m, m.a(x))), a=nn.Linear(5, wide), b=last or nn.Linear(wide, 3))


def maps(between: Any, last: nn.Module | None = None) -> nn.Module:
    return Code(lambda m, x: m.b(between(m, m.a(x))), a=nn.Conv2d(3, 16, 3), b=last or nn.Linear(16, 4))


def branches():
    def forward(m, x, mask=None):
        if mask is not None:
            x = x * mask
        assert x.ndim == 2
        rows = [m.a(x[i : i + 1]).relu() for i in range(x.shape[0])]
        return m.b(torch.cat(rows))[: len(x)]

    return Code(forward, a=nn.Linear(5, 16), b=nn.Linear(16, 3)), {"x": torch.randn(4, 5), "mask": torch.ones(4, 5)}


def decorated():
    def doubled(function):
        @functools.wraps(function)
        def call(*args, **kwargs):
            return 2 * function(*args, **kwargs)

        return call

    return Code(doubled(lambda m, x, *, scale=1.0: m.b(m.a(x).relu() * scale)), a=nn.Linear(5, 16), b=nn.Linear(16, 3))


def class_token():
    def forward(m, x):
        x = torch.cat([m.token.expand(x.shape[0], -1, -1), m.embed(x)], 1) + m.places
        return m.head(x[:, 0])

    model = Code(forward, embed=nn.Linear(6, 16), head=nn.Linear(16, 3))
    model.token, model.places = nn.Parameter(torch.randn(1, 1, 16)), nn.Parameter(torch.randn(1, 6, 16))
    return model


def coordinates():
    """Positions are concatenated to the channels, and constants are stacked."""

    def forward(m, x):
        x = m.a(x).relu()
        grid = torch.stack(
            torch.meshgrid(torch.linspace(-1, 1, x.shape[2]), torch.linspace(-1, 1, x.shape[3]), indexing="ij")
        )
        x = torch.cat([x, grid.to(x).expand(len(x), -1, -1, -1), torch.zeros(len(x), 1, *x.shape[2:]).to(x)], 1)
        return m.c(m.b(x).relu())

    return Code(forward, a=nn.Conv2d(3, 16, 3), b=nn.Conv2d(19, 8, 3), c=nn.Conv2d(8, 2, 1))


class Squeezed(nn.BatchNorm2d):
    """A batch norm of somebody's own."""

    def forward(self, x):
        return functional.relu(
            functional.batch_norm(
                x, self.running_mean, self.running_var, self.weight, self.bias, self.training, self.momentum, self.eps
            )
        )


def functional_layers():
    def forward(m, x):
        x = functional.conv2d(x, m.a.weight, m.a.bias, padding=1)
        x = functional.batch_norm(x, m.n.running_mean, m.n.running_var, m.n.weight, m.n.bias)
        x = x.relu().flatten(2).mean(2)
        return functional.linear(functional.layer_norm(m.b(x), (8,), m.l.weight, m.l.bias), m.c.weight)

    layers = {"a": nn.Conv2d(3, 16, 3), "n": nn.BatchNorm2d(16), "b": nn.Linear(16, 8), "l": nn.LayerNorm(8)}
    return Code(forward, **layers, c=nn.Linear(8, 4, bias=False))


def pruned():
    model = nn.Sequential(nn.Linear(5, 16), nn.ReLU(), nn.Linear(16, 4))
    prune.l1_unstructured(model[0], "weight", 0.3)
    return model


def packed():
    def forward(m, x):
        rows = nn.utils.rnn.pack_padded_sequence(x, torch.tensor([5, 3]), batch_first=True)
        out, _ = nn.utils.rnn.pad_packed_sequence(m.cell(rows)[0], batch_first=True)
        return m.head(out[:, -1]) + m.head(m.cell(rows)[1][-1])

    return Code(forward, cell=nn.GRU(6, 16, batch_first=True), head=nn.Linear(16, 4))


def given_state():
    def forward(m, x):
        start = torch.tanh(m.start(x[:, 0]))[None]
        return m.head(m.cell(x, (start, m.memory(x[:, 0])[None]))[0][:, -1])

    layers = {"start": nn.Linear(6, 16), "memory": nn.Linear(6, 16), "cell": nn.LSTM(6, 16, batch_first=True)}
    return Code(forward, **layers, head=nn.Linear(16, 4))


class EinsumAttention(nn.Module):
    def __init__(self, width=16, heads=4):
        super().__init__()
        self.heads = heads
        self.q, self.k, self.v = (nn.Linear(8, width) for _ in range(3))
        self.o = nn.Linear(width, 4)

    def forward(self, x):
        b, n, _ = x.shape
        q, k, v = (layer(x).view(b, n, self.heads, -1) for layer in (self.q, self.k, self.v))
        weights = torch.einsum("bihd,bjhd->bhij", q, k).softmax(-1)
        return self.o(torch.einsum("bhij,bjhd->bihd", weights, v).reshape(b, n, -1))


class Fused(nn.Module):
    """Fused queries, keys and values, class token, relative positions that are looked up, grouped keys."""

    def __init__(self, width=16, heads=4):
        super().__init__()
        self.num_heads, self.norm = heads, nn.LayerNorm(8)
        self.qkv, self.proj = nn.Linear(8, 3 * width), nn.Linear(width, 8)
        self.table = nn.Parameter(torch.randn(9, heads))
        self.register_buffer("index", torch.arange(5)[:, None] - torch.arange(5)[None] + 4)

    def forward(self, x):
        b, n, _ = x.shape
        q, k, v = self.qkv(self.norm(x)).reshape(b, n, 3, self.num_heads, -1).permute(2, 0, 3, 1, 4).unbind(0)
        bias = self.table[self.index.view(-1)].view(n, n, -1).permute(2, 0, 1)
        weights = (q @ k.transpose(-2, -1) * 0.5 + bias).softmax(-1)
        return x + self.proj((weights @ v).transpose(1, 2).reshape(b, n, -1))


class Rotary(nn.Module):
    """Rotary positions and two queries for each key."""

    def __init__(self):
        super().__init__()
        self.q, self.k, self.v, self.o = nn.Linear(8, 16), nn.Linear(8, 8), nn.Linear(8, 8), nn.Linear(16, 8)
        self.scale = nn.RMSNorm(8, eps=1e-6)

    def forward(self, x):
        b, n, _ = x.shape
        h = self.scale(x)
        q, k, v = (layer(h).view(b, n, -1, 4).transpose(1, 2) for layer in (self.q, self.k, self.v))
        angle = torch.arange(n)[:, None] / 10 ** torch.arange(0, 1, 0.5)[None]
        cos, sin = (torch.cat([t, t], -1).to(x) for t in (angle.cos(), angle.sin()))
        q, k = (t * cos + torch.cat([-t[..., 2:], t[..., :2]], -1) * sin for t in (q, k))
        groups = q.shape[1] // k.shape[1]
        k, v = (t[:, :, None].expand(b, -1, groups, n, 4).reshape(b, -1, n, 4) for t in (k, v))
        out = functional.scaled_dot_product_attention(q, k, v, is_causal=True)
        return x + self.o(out.transpose(1, 2).reshape(b, n, -1))


def matrices():
    model = Code(lambda m, x: torch.einsum("bi,io->bo", (x @ m.first).relu(), m.last).relu() @ m.out)
    for name, shape in (("first", (5, 16)), ("last", (16, 12)), ("out", (12, 3))):
        setattr(model, name, nn.Parameter(torch.randn(shape)))
    return model


class Conv1D(nn.Module):
    """The transposed linear layer of GPT-2."""

    def __init__(self, inside, outside):
        super().__init__()
        self.weight, self.bias = nn.Parameter(torch.randn(inside, outside)), nn.Parameter(torch.randn(outside))

    def forward(self, x):
        shape = (*x.size()[:-1], self.weight.shape[1])
        return torch.addmm(self.bias, x.view(-1, x.size(-1)), self.weight).view(shape)


def halves():
    model = Code(
        lambda m, x: (lambda h: m.b(h[:, : m.half]) * torch.sigmoid(m.c(h[:, m.half :])))(m.a(x)),
        a=nn.Linear(5, 32),
        b=nn.Linear(16, 3),
        c=nn.Linear(16, 3),
    )
    model.half = 16
    return model


def dropped():
    def forward(m, x):
        x = x + m.path(m.second(m.first(x).relu()))
        return m.head(m.block(x).mean((2, 3)))

    layers = {"first": nn.Conv2d(8, 16, 3, padding=1), "second": nn.Conv2d(16, 8, 3, padding=1), "path": DropPath(0.1)}
    return Code(forward, **layers, block=DropBlock2d(0.1, 3), head=nn.Linear(8, 3))


def graph():
    def forward(m, x, edges):
        hidden = m.a(x).relu()
        total = torch.zeros_like(hidden).index_add_(0, edges[1], m.w(hidden[edges[0]]))
        return m.b((hidden + total).relu()).mean(0, keepdim=True)

    model = Code(forward, a=nn.Linear(5, 16), w=nn.Linear(16, 16), b=nn.Linear(16, 3))
    return model, (torch.randn(6, 5), torch.randint(0, 6, (2, 10)))


def translation():
    def forward(m, source, target):
        memory, state = m.encoder(m.words(source))
        out, _ = m.decoder(m.other(target), state)
        weights = (out @ memory.transpose(1, 2)).softmax(-1)
        return {"logits": m.head(torch.cat([out, weights @ memory], -1)), "state": None}

    layers = {"words": nn.Embedding(20, 8), "other": nn.Embedding(20, 8)}
    layers |= {"encoder": nn.GRU(8, 16, batch_first=True), "decoder": nn.GRU(8, 16, batch_first=True)}
    inputs = {"source": torch.randint(0, 20, (2, 5)), "target": torch.randint(0, 20, (2, 4))}
    return Code(forward, **layers, head=nn.Linear(32, 20)), inputs


def written():
    """Code that writes into tensors: clipping in place, a part at a time, and into a new one."""

    def forward(m, x):
        x = m.a(x)
        x.clamp_(min=0)
        x += 0.5
        out = torch.empty_like(x)
        out[: len(x) // 2] = x[: len(x) // 2] * 2
        out[len(x) // 2 :] = x[len(x) // 2 :]
        return m.b(out)

    return Code(forward, a=nn.Linear(5, 16), b=nn.Linear(16, 3))


class Doubled(torch.autograd.Function):
    """A function with a gradient of its own."""

    @staticmethod
    def forward(ctx, x):
        return x * 2

    @staticmethod
    def backward(ctx, grad):
        return grad


def recommendation():
    def forward(m, numbers, ids):
        x = m.bottom(numbers).relu()
        every = torch.stack([x, *(table(ids[:, i]) for i, table in enumerate(m.tables))], 1)
        i, j = torch.tril_indices(3, 3, -1)
        return m.top(torch.cat([x, torch.bmm(every, every.transpose(1, 2))[:, i, j]], 1))

    tables = nn.ModuleList([nn.Embedding(10, 8), nn.Embedding(10, 8)])
    model = Code(forward, bottom=nn.Linear(5, 8), tables=tables, top=nn.Linear(11, 1))
    return model, (torch.randn(4, 5), torch.randint(0, 10, (4, 2)))


def unet(dimensions):
    layer = (nn.Conv2d, nn.Conv3d)[dimensions - 2]
    pool = (functional.max_pool2d, functional.max_pool3d)[dimensions - 2]

    def forward(m, x):
        a = m.a(x).relu()
        deep = functional.interpolate(m.b(pool(a, 2)).relu(), scale_factor=2)
        return m.o(torch.cat([deep, a], 1).relu())

    layers = {"a": layer(1, 8, 3, padding=1), "b": layer(8, 16, 3, padding=1), "o": layer(24, 2, 1)}
    return Code(forward, **layers), torch.randn(1, 1, *[8] * dimensions)


ROW = lambda: torch.randn(4, 5)  # noqa: E731
IMAGE = lambda: torch.randn(2, 3, 8, 8)  # noqa: E731
TOKENS = lambda: torch.randn(2, 5, 8)  # noqa: E731


def normalized(norm):
    return nn.Sequential(
        norm(nn.Conv1d(3, 16, 3)), nn.ReLU(), norm(nn.Conv1d(16, 16, 3)), nn.ReLU(), nn.Conv1d(16, 4, 3)
    )


def spectral():
    norm = parametrizations.spectral_norm
    return nn.Sequential(norm(nn.Linear(5, 16)), nn.ReLU(), nn.Linear(16, 16), nn.ReLU(), norm(nn.Linear(16, 4)))


# name -> (model or model and inputs, inputs, the least share of the parameters that is removable)
MODELS: dict[str, tuple[Any, Any, float]] = {
    "branches on None, loops, assertions": (branches, None, 0.95),
    "decorators": (decorated, ROW, 0.95),
    "class token and positions": (class_token, lambda: torch.randn(2, 5, 6), 0.95),
    "coordinates and zeros": (coordinates, IMAGE, 0.8),
    "casts": (
        lambda: Code(
            lambda m, x: m.b(m.a(x.float() / 255).relu().to(torch.float32)), a=nn.Linear(5, 16), b=nn.Linear(16, 3)
        ),
        lambda: torch.randint(0, 255, (4, 5)),
        0.95,
    ),
    "weight norm": (lambda: normalized(parametrizations.weight_norm), lambda: torch.randn(2, 3, 20), 0.8),
    "spectral norm": (spectral, ROW, 0.6),
    "pruned weights": (pruned, ROW, 0.95),
    "axis as a keyword": (
        lambda: maps(
            lambda m, y: y.relu().mean(axis=(2, 3)),
            Code(lambda m, x: functional.linear(input=x, weight=m.l.weight, bias=m.l.bias), l=nn.Linear(16, 4)),
        ),
        IMAGE,
        0.95,
    ),
    "sums along axes": (lambda: maps(lambda m, y: y.relu().sum(axis=3).amax(axis=2)), IMAGE, 0.95),
    "softmax over maps": (
        lambda: Code(
            lambda m, x: torch.softmax(m.b(m.a(x).relu()), axis=1), a=nn.Conv2d(3, 16, 3), b=nn.Conv2d(16, 4, 3)
        ),
        IMAGE,
        0.95,
    ),
    "functions of layers": (functional_layers, IMAGE, 0.6),
    "a subclass of a batch norm": (
        lambda: nn.Sequential(nn.Conv2d(3, 16, 3), Squeezed(16), nn.Conv2d(16, 4, 3)),
        IMAGE,
        0.95,
    ),
    "encoder, norm after": (
        lambda: nn.Sequential(
            nn.TransformerEncoder(nn.TransformerEncoderLayer(16, 2, 32, batch_first=True), 2), nn.Linear(16, 4)
        ),
        lambda: torch.randn(2, 5, 16),
        0.4,
    ),
    "encoder, norm before": (
        lambda: nn.TransformerEncoder(
            nn.TransformerEncoderLayer(16, 2, 32, batch_first=True, norm_first=True), 2, enable_nested_tensor=False
        ),
        lambda: torch.randn(2, 5, 16),
        0.4,
    ),
    "encoder and decoder": (
        lambda: (nn.Transformer(16, 2, 1, 1, 32, batch_first=True), (torch.randn(2, 5, 16), torch.randn(2, 4, 16))),
        None,
        0.3,
    ),
    "attention of torch between layers": (
        lambda: Code(
            lambda m, x: m.c(m.b(m.a(x, x, x)[0]).relu()),
            a=nn.MultiheadAttention(16, 2, batch_first=True),
            b=nn.Linear(16, 32),
            c=nn.Linear(32, 4),
        ),
        lambda: torch.randn(2, 5, 16),
        0.3,
    ),
    "bags with offsets": (
        lambda: (
            Code(lambda m, x, o: m.b(m.e(x, o).relu()), e=nn.EmbeddingBag(20, 16), b=nn.Linear(16, 4)),
            (torch.randint(0, 20, (10,)), torch.tensor([0, 4])),
        ),
        None,
        0.95,
    ),
    "packed sequences": (packed, lambda: torch.randn(2, 5, 6), 0.95),
    "given state": (given_state, lambda: torch.randn(2, 5, 6), 0.95),
    "no batch axis": (
        lambda: Code(lambda m, x: m.b(m.r(m.a(x))[0]), a=nn.Linear(6, 8), r=nn.LSTM(8, 16), b=nn.Linear(16, 4)),
        lambda: torch.randn(5, 6),
        0.95,
    ),
    "both directions": (
        lambda: Code(
            lambda m, x: m.b(m.r(x)[0].mean(1)),
            r=nn.LSTM(6, 16, 2, batch_first=True, bidirectional=True),
            b=nn.Linear(32, 4),
        ),
        lambda: torch.randn(2, 5, 6),
        0.95,
    ),
    "einsum attention": (EinsumAttention, TOKENS, 0.95),
    "fused attention with a table": (Fused, TOKENS, 0.85),
    "rotary grouped attention": (Rotary, TOKENS, 0.85),
    "matrices": (matrices, ROW, 0.95),
    "transposed linear layers": (
        lambda: nn.Sequential(Conv1D(8, 16), nn.GELU(), Conv1D(16, 8), nn.Tanh(), nn.Linear(8, 3)),
        TOKENS,
        0.95,
    ),
    "the larger of two": (
        lambda: Code(
            lambda m, x: m.c(torch.max(m.a(x), m.b(x))), a=nn.Linear(5, 16), b=nn.Linear(5, 16), c=nn.Linear(16, 3)
        ),
        ROW,
        0.95,
    ),
    "slopes": (
        lambda: nn.Sequential(nn.Conv2d(3, 16, 3), nn.PReLU(16), nn.Conv2d(16, 8, 3), nn.PReLU(), nn.Conv2d(8, 4, 3)),
        IMAGE,
        0.95,
    ),
    "slices up to a size": (halves, ROW, 0.95),
    "drop path and drop block": (dropped, lambda: torch.randn(2, 8, 8, 8), 0.95),
    "index tensors": (graph, None, 0.95),
    "compiled": (lambda: torch.compile(pair(lambda m, y: y.relu()), backend="eager"), ROW, 0.95),
    "data parallel": (lambda: nn.DataParallel(pair(lambda m, y: y.relu())), ROW, 0.95),
    "pixel shuffle": (
        lambda: nn.Sequential(
            nn.Conv2d(3, 16, 3), nn.ReLU(), nn.Conv2d(16, 32, 3), nn.PixelShuffle(2), nn.ReLU(), nn.Conv2d(8, 3, 3)
        ),
        IMAGE,
        0.95,
    ),
    "u-net": (lambda: unet(2), None, 0.95),
    "u-net 3-d": (lambda: unet(3), None, 0.95),
    "generator": (
        lambda: nn.Sequential(
            nn.ConvTranspose2d(8, 32, 4), nn.BatchNorm2d(32), nn.ReLU(True), nn.ConvTranspose2d(32, 3, 4, 2, 1)
        ),
        lambda: torch.randn(2, 8, 1, 1),
        0.95,
    ),
    "point cloud": (
        lambda: Code(
            lambda m, x: m.o(torch.max(m.b(m.a(x).relu()).relu(), 2)[0]),
            a=nn.Conv1d(3, 16, 1),
            b=nn.Conv1d(16, 32, 1),
            o=nn.Linear(32, 4),
        ),
        lambda: torch.randn(2, 3, 20),
        0.95,
    ),
    "recommendation": (recommendation, None, 0.9),
    "siamese towers": (
        lambda: (
            Code(
                lambda m, a, b: m.o((m.n(a) - m.n(b)).abs()),
                n=nn.Sequential(nn.Linear(5, 32), nn.ReLU(), nn.Linear(32, 16)),
                o=nn.Linear(16, 1),
            ),
            (ROW(), ROW()),
        ),
        None,
        0.95,
    ),
    "translation, outputs by name": (translation, None, 0.95),
    "writing in place": (written, ROW, 0.95),
    "a function with its own gradient": (lambda: pair(lambda m, y: Doubled.apply(y).relu()), ROW, 0.95),
    "inference mode inside": (lambda: pair(lambda m, y: torch.inference_mode()(torch.relu)(y)), ROW, 0.95),
    "inputs in a dictionary of their own": (
        lambda: (
            Code(lambda m, x, y=None: m.b(m.a(x).relu()), a=nn.Linear(5, 16), b=nn.Linear(16, 3)),
            UserDict({"x": ROW()}),
        ),
        None,
        0.95,
    ),
}


def built(name: str) -> tuple[nn.Module, Any]:
    """A model in evaluation mode and one batch."""
    torch.manual_seed(0)
    build, inputs, _ = MODELS[name]
    model = build()
    model, batch = model if isinstance(model, tuple) else (model, inputs())
    return model.eval(), batch
