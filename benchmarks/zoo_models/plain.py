"""Architectures that are written in plain PyTorch, as people write them in their own code."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils import parametrizations

__all__ = ["MODELS", "Code"]


class Code(nn.Module):
    """Layers, and a forward pass over them."""

    def __init__(self, forward: Callable[..., Any], **layers: Any) -> None:
        super().__init__()
        self.code = forward
        for name, layer in layers.items():
            setattr(self, name, layer)

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        return self.code(self, *args, **kwargs)


def conv(a: int, b: int, kernel: int = 3, **options: Any) -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(a, b, kernel, padding=kernel // 2, bias=False, **options), nn.BatchNorm2d(b), nn.ReLU(inplace=True)
    )


# ------------------------------------------------------------------------------------------- sequences
def last_state(kind: type[nn.Module], **options: Any) -> tuple[nn.Module, Any]:
    def forward(m: Any, ids: Tensor) -> Tensor:
        state = m.cell(m.embed(ids))[1]
        return m.head((state[0] if isinstance(state, tuple) else state)[-1])  # type: ignore[no-any-return]

    layers = {"embed": nn.Embedding(100, 32), "cell": kind(32, 64, 2, batch_first=True, **options)}
    return Code(forward, **layers, head=nn.Linear(64, 5)), torch.randint(100, (4, 9))


def packed() -> tuple[nn.Module, Any]:
    def forward(m: Any, ids: Tensor, lengths: Tensor) -> Tensor:
        rows = nn.utils.rnn.pack_padded_sequence(m.embed(ids), lengths.cpu(), batch_first=True, enforce_sorted=False)
        out, _ = nn.utils.rnn.pad_packed_sequence(m.cell(rows)[0], batch_first=True)
        return m.head(out.sum(1) / lengths[:, None])  # type: ignore[no-any-return]

    layers = {"embed": nn.Embedding(100, 32), "cell": nn.GRU(32, 64, batch_first=True)}
    return Code(forward, **layers, head=nn.Linear(64, 5)), (torch.randint(100, (3, 9)), torch.tensor([9, 4, 7]))


def both_ways() -> tuple[nn.Module, Any]:
    def forward(m: Any, ids: Tensor) -> Tensor:
        return m.head(m.cell(m.embed(ids))[0].max(1).values)  # type: ignore[no-any-return]

    cell = nn.LSTM(32, 64, 2, batch_first=True, bidirectional=True)
    return Code(forward, embed=nn.Embedding(100, 32), cell=cell, head=nn.Linear(128, 5)), torch.randint(100, (4, 9))


def given_state() -> tuple[nn.Module, Any]:
    def forward(m: Any, features: Tensor, ids: Tensor) -> Tensor:
        start = torch.tanh(m.start(features))[None]
        return m.head(m.cell(m.embed(ids), (start, torch.zeros_like(start)))[0])  # type: ignore[no-any-return]

    layers = {"start": nn.Linear(20, 64), "embed": nn.Embedding(100, 32), "cell": nn.LSTM(32, 64, batch_first=True)}
    return Code(forward, **layers, head=nn.Linear(64, 100)), (torch.randn(3, 20), torch.randint(100, (3, 7)))


def translation() -> tuple[nn.Module, Any]:
    def forward(m: Any, source: Tensor, target: Tensor) -> Tensor:
        memory, state = m.encoder(m.embed(source))
        out, _ = m.decoder(m.embed_target(target), state)
        scores = torch.bmm(m.query(out), memory.transpose(1, 2)).softmax(-1)
        return m.head(torch.tanh(m.mix(torch.cat([out, torch.bmm(scores, memory)], -1))))  # type: ignore[no-any-return]

    layers = {
        "embed": nn.Embedding(100, 32), "embed_target": nn.Embedding(100, 32),
        "encoder": nn.GRU(32, 64, batch_first=True), "decoder": nn.GRU(32, 64, batch_first=True),
        "query": nn.Linear(64, 64), "mix": nn.Linear(128, 64), "head": nn.Linear(64, 100),
    }  # fmt: skip
    return Code(forward, **layers), (torch.randint(100, (2, 8)), torch.randint(100, (2, 6)))


def temporal(normalized: bool) -> tuple[nn.Module, Any]:
    def layer(a: int, b: int, dilation: int) -> nn.Module:
        made = nn.Conv1d(a, b, 3, padding=2 * dilation, dilation=dilation)
        return parametrizations.weight_norm(made) if normalized else made

    def forward(m: Any, x: Tensor) -> Tensor:
        for one, two, skip, dilation in zip(m.one, m.two, m.skip, (1, 2, 4), strict=True):
            y = functional.relu(one(x)[:, :, : -2 * dilation])
            y = functional.relu(two(y)[:, :, : -2 * dilation])
            x = functional.relu(y + skip(x))
        return m.head(x[:, :, -1])  # type: ignore[no-any-return]

    sizes = [(4, 32, 1), (32, 32, 2), (32, 48, 4)]
    layers = {
        "one": nn.ModuleList(layer(a, b, d) for a, b, d in sizes),
        "two": nn.ModuleList(layer(b, b, d) for _, b, d in sizes),
        "skip": nn.ModuleList(nn.Conv1d(a, b, 1) for a, b, _ in sizes),
    }
    return Code(forward, **layers, head=nn.Linear(48, 3)), torch.randn(2, 4, 30)


def wavenet() -> tuple[nn.Module, Any]:
    def forward(m: Any, x: Tensor) -> Tensor:
        x, total = m.first(x), 0.0
        for gate, out in zip(m.gates, m.outs, strict=True):
            a, b = gate(functional.pad(x, (2, 0))).chunk(2, 1)
            rest, skip = out(torch.tanh(a) * torch.sigmoid(b)).split(24, 1)
            x, total = x + rest, total + skip
        return m.head(functional.relu(total))  # type: ignore[no-any-return]

    layers = {
        "first": nn.Conv1d(1, 24, 1), "gates": nn.ModuleList(nn.Conv1d(24, 64, 3) for _ in range(3)),
        "outs": nn.ModuleList(nn.Conv1d(32, 48, 1) for _ in range(3)), "head": nn.Conv1d(24, 8, 1),
    }  # fmt: skip
    return Code(forward, **layers), torch.randn(2, 1, 20)


def text_convolutions() -> tuple[nn.Module, Any]:
    def forward(m: Any, ids: Tensor) -> Tensor:
        x = m.embed(ids).unsqueeze(1)
        pooled = [functional.relu(c(x)).squeeze(3) for c in m.convs]
        return m.head(torch.cat([functional.max_pool1d(p, p.size(2)).squeeze(2) for p in pooled], 1))  # type: ignore[no-any-return]

    convs = nn.ModuleList(nn.Conv2d(1, 32, (k, 32)) for k in (2, 3, 4))
    return Code(forward, embed=nn.Embedding(100, 32), convs=convs, head=nn.Linear(96, 5)), torch.randint(100, (3, 9))


# ------------------------------------------------------------------------------------------- attention
def encoder(before: bool) -> tuple[nn.Module, Any]:
    layer = nn.TransformerEncoderLayer(64, 4, 256, batch_first=True, norm_first=before)
    stack = nn.TransformerEncoder(layer, 3, enable_nested_tensor=False)
    return nn.Sequential(nn.Linear(10, 64), stack, nn.Linear(64, 5)), torch.randn(2, 6, 10)


def whole_transformer() -> tuple[nn.Module, Any]:
    made = nn.Transformer(64, 4, 2, 2, 256, batch_first=True)
    return Code(lambda m, s, t: m.head(m.body(s, t)), body=made, head=nn.Linear(64, 9)), (
        torch.randn(2, 6, 64), torch.randn(2, 5, 64),
    )  # fmt: skip


class EinsumAttention(nn.Module):
    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv, self.out = nn.Linear(width, 3 * width, bias=False), nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        b, n, _ = x.shape
        q, k, v = (t.reshape(b, n, self.heads, -1) for t in self.qkv(x).chunk(3, -1))
        weights = torch.einsum("bihd,bjhd->bhij", q, k).mul(0.25).softmax(-1)
        found: Tensor = self.out(torch.einsum("bhij,bjhd->bihd", weights, v).reshape(b, n, -1))
        return found


def einsum_transformer() -> tuple[nn.Module, Any]:
    def forward(m: Any, x: Tensor) -> Tensor:
        x = torch.cat([m.token.expand(x.shape[0], -1, -1), m.embed(x)], 1) + m.places
        for attention, up, down, one, two in zip(m.attention, m.up, m.down, m.one, m.two, strict=True):
            x = x + attention(one(x))
            x = x + down(functional.gelu(up(two(x))))
        return m.head(x[:, 0])  # type: ignore[no-any-return]

    many = {
        "attention": lambda: EinsumAttention(64, 4), "up": lambda: nn.Linear(64, 256),
        "down": lambda: nn.Linear(256, 64), "one": lambda: nn.LayerNorm(64), "two": lambda: nn.LayerNorm(64),
    }  # fmt: skip
    made = Code(forward, **{k: nn.ModuleList(f() for _ in range(3)) for k, f in many.items()},
                embed=nn.Linear(12, 64), head=nn.Linear(64, 5))  # fmt: skip
    made.token, made.places = nn.Parameter(torch.randn(1, 1, 64)), nn.Parameter(torch.randn(1, 8, 64))
    return made, torch.randn(2, 7, 12)


class Block(nn.Module):
    """A block of a language model with fused queries, keys and values."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.n_head, self.n_embd = heads, width
        self.ln_1, self.ln_2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.c_attn, self.c_proj = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.fc, self.proj = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)
        self.register_buffer("bias", torch.tril(torch.ones(16, 16)).view(1, 1, 16, 16))

    def forward(self, x: Tensor) -> Tensor:
        b, t, c = x.size()
        q, k, v = self.c_attn(self.ln_1(x)).split(self.n_embd, dim=2)
        q, k, v = (one.view(b, t, self.n_head, c // self.n_head).transpose(1, 2) for one in (q, k, v))
        scores = (q @ k.transpose(-2, -1)) * (1.0 / k.size(-1) ** 0.5)
        scores = scores.masked_fill(self.bias[:, :, :t, :t] == 0, float("-inf")).softmax(-1)
        x = x + self.c_proj((scores @ v).transpose(1, 2).contiguous().view(b, t, c))
        return x + self.proj(functional.gelu(self.fc(self.ln_2(x))))  # type: ignore[no-any-return]


def language_model() -> tuple[nn.Module, Any]:
    def forward(m: Any, ids: Tensor) -> Tensor:
        x = m.tokens(ids) + m.places(torch.arange(ids.size(1), device=ids.device))
        for block in m.blocks:
            x = block(x)
        return m.head(m.norm(x))  # type: ignore[no-any-return]

    made = Code(
        forward, tokens=nn.Embedding(100, 64), places=nn.Embedding(16, 64), norm=nn.LayerNorm(64),
        blocks=nn.ModuleList(Block(64, 4) for _ in range(3)), head=nn.Linear(64, 100, bias=False),
    )  # fmt: skip
    made.tokens.weight = made.head.weight
    return made, torch.randint(100, (2, 9))


# ------------------------------------------------------------------------------------------- images
def lenet() -> tuple[nn.Module, Any]:
    return nn.Sequential(
        nn.Conv2d(1, 16, 5), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(16, 32, 5), nn.ReLU(), nn.MaxPool2d(2),
        nn.Flatten(), nn.Linear(512, 120), nn.ReLU(), nn.Linear(120, 84), nn.ReLU(), nn.Linear(84, 10),
    ), torch.randn(2, 1, 28, 28)  # fmt: skip


def residual(before: bool, squeeze: bool = False) -> tuple[nn.Module, Any]:
    def forward(m: Any, x: Tensor) -> Tensor:
        x = m.stem(x)
        for i, (a, b, skip) in enumerate(zip(m.a, m.b, m.skip, strict=True)):
            y = m.conv2[i](functional.relu(b(m.conv1[i](functional.relu(a(x)) if before else x))))
            y = y if before else a(y)
            if squeeze:
                y = y * torch.sigmoid(m.up[i](functional.relu(m.down[i](y.mean((2, 3))))))[:, :, None, None]
            x = y + skip(x) if before else functional.relu(y + skip(x))
        return m.head(functional.adaptive_avg_pool2d(x, 1).flatten(1))  # type: ignore[no-any-return]

    sizes = [(16, 16, 1), (16, 32, 2), (32, 64, 2)]
    layers = {
        "stem": nn.Conv2d(3, 16, 3, padding=1),
        "a": nn.ModuleList(nn.BatchNorm2d(p if before else q) for p, q, _ in sizes),
        "b": nn.ModuleList(nn.BatchNorm2d(q) for _, q, _ in sizes),
        "conv1": nn.ModuleList(nn.Conv2d(p, q, 3, s, 1, bias=False) for p, q, s in sizes),
        "conv2": nn.ModuleList(nn.Conv2d(q, q, 3, 1, 1, bias=False) for _, q, _ in sizes),
        "skip": nn.ModuleList(nn.Conv2d(p, q, 1, s) if p != q else nn.Identity() for p, q, s in sizes),
        "down": nn.ModuleList(nn.Linear(q, q // 4) for _, q, _ in sizes if squeeze),
        "up": nn.ModuleList(nn.Linear(q // 4, q) for _, q, _ in sizes if squeeze),
    }
    return Code(forward, **layers, head=nn.Linear(64, 10)), torch.randn(2, 3, 16, 16)


def dense() -> tuple[nn.Module, Any]:
    def forward(m: Any, x: Tensor) -> Tensor:
        x = m.stem(x)
        for stage, shrink in zip(m.stages, m.shrink, strict=True):
            for norm, layer in stage:
                x = torch.cat([layer(functional.relu(norm(x))), x], 1)
            x = functional.avg_pool2d(shrink(x), 2)
        return m.head(x.mean([2, 3]))  # type: ignore[no-any-return]

    def stage(width: int) -> nn.ModuleList:
        pairs = ((nn.BatchNorm2d(width + 8 * i), nn.Conv2d(width + 8 * i, 8, 3, padding=1)) for i in range(4))
        return nn.ModuleList(nn.ModuleList(pair) for pair in pairs)

    layers = {"stages": nn.ModuleList([stage(16), stage(24)]),
              "shrink": nn.ModuleList([nn.Conv2d(48, 24, 1), nn.Conv2d(56, 28, 1)])}  # fmt: skip
    return Code(forward, stem=nn.Conv2d(3, 16, 3, padding=1), **layers, head=nn.Linear(28, 10)), torch.randn(
        2, 3, 16, 16
    )


def dual_path() -> tuple[nn.Module, Any]:
    def forward(m: Any, x: Tensor) -> Tensor:
        x = m.stem(x)
        for body, skip in zip(m.bodies, m.skips, strict=True):
            y, s, d = body(x), skip(x), 32
            x = functional.relu(torch.cat([s[:, :d] + y[:, :d], s[:, d:], y[:, d:]], 1))
        return m.head(functional.avg_pool2d(x, 8).view(x.size(0), -1))  # type: ignore[no-any-return]

    def body(width: int) -> nn.Module:
        return nn.Sequential(conv(width, 32, 1), conv(32, 32, 3, groups=4), nn.Conv2d(32, 40, 1), nn.BatchNorm2d(40))

    layers = {"bodies": nn.ModuleList([body(32), body(48)]),
              "skips": nn.ModuleList([nn.Conv2d(32, 40, 1), nn.Conv2d(48, 48, 1)])}  # fmt: skip
    return Code(forward, stem=conv(3, 32), **layers, head=nn.Linear(56, 10)), torch.randn(2, 3, 8, 8)


def cells() -> tuple[nn.Module, Any]:
    """A cell of a searched network: separable convolutions and pooling, added and concatenated."""

    def forward(m: Any, x: Tensor) -> Tensor:
        x = m.stem(x)
        for one, two, three, join in zip(m.one, m.two, m.three, m.join, strict=True):
            left = functional.relu(one(x) + m.pool(two(x)))
            right = functional.relu(three(x) + two(x))
            x = functional.relu(join(torch.cat([left, right], 1)))
        return m.head(x.mean((2, 3)))  # type: ignore[no-any-return]

    def separable(kernel: int) -> nn.Module:
        first = nn.Conv2d(32, 32, kernel, padding=kernel // 2, groups=32)
        return nn.Sequential(first, nn.Conv2d(32, 32, 1, bias=False), nn.BatchNorm2d(32))

    layers = {
        "one": nn.ModuleList(separable(7) for _ in range(2)),
        "two": nn.ModuleList(nn.Conv2d(32, 32, 1) for _ in range(2)),
        "three": nn.ModuleList(separable(5) for _ in range(2)),
        "join": nn.ModuleList(nn.Conv2d(64, 32, 1) for _ in range(2)),
    }  # fmt: skip
    return Code(forward, stem=conv(3, 32), **layers, pool=nn.MaxPool2d(3, 1, 1), head=nn.Linear(32, 10)), torch.randn(
        2, 3, 8, 8
    )


def unet(dimensions: int) -> tuple[nn.Module, Any]:
    layer, turned = ((nn.Conv2d, nn.ConvTranspose2d), (nn.Conv3d, nn.ConvTranspose3d))[dimensions - 2]
    norm = (nn.BatchNorm2d, nn.BatchNorm3d)[dimensions - 2]
    pool = (functional.max_pool2d, functional.max_pool3d)[dimensions - 2]

    def twice(a: int, b: int) -> nn.Module:
        return nn.Sequential(layer(a, b, 3, padding=1), norm(b), nn.ReLU(True), layer(b, b, 3, padding=1), norm(b),
                             nn.ReLU(True))  # fmt: skip

    def forward(m: Any, x: Tensor) -> Tensor:
        a = m.down1(x)
        b = m.down2(pool(a, 2))
        x = m.bottom(pool(b, 2))
        x = m.up2(torch.cat([b, m.grow2(x)], 1))
        return m.head(m.up1(torch.cat([a, m.grow1(x)], 1)))  # type: ignore[no-any-return]

    layers = {
        "down1": twice(1, 16), "down2": twice(16, 32), "bottom": twice(32, 64),
        "up2": twice(64, 32), "up1": twice(32, 16),
        "grow2": turned(64, 32, 2, 2), "grow1": turned(32, 16, 2, 2), "head": layer(16, 2, 1),
    }  # fmt: skip
    return Code(forward, **layers), torch.randn(1, 1, *[16] * dimensions)


def super_resolution() -> tuple[nn.Module, Any]:
    return nn.Sequential(
        nn.Conv2d(1, 64, 5, padding=2), nn.Tanh(), nn.Conv2d(64, 32, 3, padding=1), nn.Tanh(),
        nn.Conv2d(32, 32, 3, padding=1), nn.PixelShuffle(2), nn.PReLU(8), nn.Conv2d(8, 4, 3, padding=1),
        nn.PixelShuffle(2),
    ), torch.randn(1, 1, 8, 8)  # fmt: skip


# ------------------------------------------------------------------------------------------- generation
def variational() -> tuple[nn.Module, Any]:
    def forward(m: Any, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        hidden = functional.relu(m.encode(x.flatten(1).float() / 255))
        mean, spread = m.mean(hidden), m.spread(hidden)
        z = mean + torch.exp(0.5 * spread) * torch.randn_like(spread) if m.training else mean
        return torch.sigmoid(m.out(functional.relu(m.decode(z)))), mean, spread

    layers = {
        "encode": nn.Linear(64, 128), "mean": nn.Linear(128, 8), "spread": nn.Linear(128, 8),
        "decode": nn.Linear(8, 128), "out": nn.Linear(128, 64),
    }  # fmt: skip
    return Code(forward, **layers), torch.randint(256, (3, 8, 8))


def generator() -> tuple[nn.Module, Any]:
    def up(a: int, b: int, *where: int) -> list[nn.Module]:
        return [nn.ConvTranspose2d(a, b, 4, *where, bias=False), nn.BatchNorm2d(b), nn.ReLU(True)]

    return nn.Sequential(
        *up(16, 64, 1, 0), *up(64, 32, 2, 1), *up(32, 16, 2, 1), nn.ConvTranspose2d(16, 3, 4, 2, 1), nn.Tanh()
    ), torch.randn(2, 16, 1, 1)


def discriminator() -> tuple[nn.Module, Any]:
    layers: list[nn.Module] = []
    for a, b in ((3, 16), (16, 32), (32, 64)):
        layers += [parametrizations.spectral_norm(nn.Conv2d(a, b, 4, 2, 1)), nn.LeakyReLU(0.2, True)]
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(1024, 1)), torch.randn(2, 3, 32, 32)


# ------------------------------------------------------------------------------------------- sets, graphs, tables
def points() -> tuple[nn.Module, Any]:
    def forward(m: Any, x: Tensor) -> Tensor:
        x = m.third(m.second(m.first(x)))
        return m.head(functional.relu(m.hidden(torch.max(x, 2)[0])))  # type: ignore[no-any-return]

    def layer(a: int, b: int) -> nn.Module:
        return nn.Sequential(nn.Conv1d(a, b, 1), nn.BatchNorm1d(b), nn.ReLU())

    layers = {"first": layer(3, 32), "second": layer(32, 64), "third": layer(64, 128)}
    return Code(forward, **layers, hidden=nn.Linear(128, 64), head=nn.Linear(64, 10)), torch.randn(2, 3, 40)


def deep_sets() -> tuple[nn.Module, Any]:
    each = nn.Sequential(nn.Linear(6, 64), nn.ELU(), nn.Linear(64, 64), nn.ELU())
    rest = nn.Sequential(nn.Linear(64, 64), nn.ELU(), nn.Linear(64, 1))
    return Code(lambda m, x: m.rest(m.each(x).sum(dim=1)), each=each, rest=rest), torch.randn(3, 9, 6)


def graph() -> tuple[nn.Module, Any]:
    def forward(m: Any, x: Tensor, edges: Tensor) -> Tensor:
        for own, other in zip(m.own, m.other, strict=True):
            sent = other(x)[edges[0]]
            total = torch.zeros(x.shape[0], sent.shape[1]).to(sent).index_add_(0, edges[1], sent)
            count = torch.zeros(x.shape[0]).to(sent).index_add_(0, edges[1], torch.ones(edges.shape[1]).to(sent))
            x = functional.relu(own(x) + total / count.clamp(min=1)[:, None])
        return m.head(x)  # type: ignore[no-any-return]

    layers = {"own": nn.ModuleList([nn.Linear(8, 64), nn.Linear(64, 64)]),
              "other": nn.ModuleList([nn.Linear(8, 64), nn.Linear(64, 64)])}  # fmt: skip
    return Code(forward, **layers, head=nn.Linear(64, 4)), (torch.randn(10, 8), torch.randint(10, (2, 30)))


def recommendation() -> tuple[nn.Module, Any]:
    def forward(m: Any, numbers: Tensor, ids: Tensor) -> Tensor:
        x = m.bottom(numbers)
        every = torch.stack([x, *(table(ids[:, i]) for i, table in enumerate(m.tables))], 1)
        products = torch.bmm(every, every.transpose(1, 2))
        i, j = torch.tril_indices(4, 4, -1)
        return m.top(torch.cat([x, products[:, i, j]], 1))  # type: ignore[no-any-return]

    layers = {
        "bottom": nn.Sequential(nn.Linear(8, 64), nn.ReLU(), nn.Linear(64, 16), nn.ReLU()),
        "tables": nn.ModuleList(nn.Embedding(50, 16) for _ in range(3)),
        "top": nn.Sequential(nn.Linear(22, 64), nn.ReLU(), nn.Linear(64, 1)),
    }
    return Code(forward, **layers), (torch.randn(4, 8), torch.randint(50, (4, 3)))


def bags() -> tuple[nn.Module, Any]:
    bag = nn.EmbeddingBag(100, 64, mode="mean")
    return Code(
        lambda m, ids, offsets: m.head(functional.relu(m.hidden(m.bag(ids, offsets)))), bag=bag,
        hidden=nn.Linear(64, 64), head=nn.Linear(64, 4),
    ), (torch.randint(100, (12,)), torch.tensor([0, 5, 9]))  # fmt: skip


def towers() -> tuple[nn.Module, Any]:
    tower = nn.Sequential(nn.Linear(20, 128), nn.ReLU(), nn.Linear(128, 64), nn.BatchNorm1d(64))
    return Code(lambda m, a, b: m.head(torch.abs(m.tower(a) - m.tower(b))), tower=tower, head=nn.Linear(64, 1)), (
        torch.randn(4, 20), torch.randn(4, 20),
    )  # fmt: skip


def gated() -> tuple[nn.Module, Any]:
    """Gates that share their width with what they gate, and a modulation by another input."""

    def forward(m: Any, x: Tensor, condition: Tensor | None = None) -> dict[str, Tensor]:
        x = functional.glu(m.first(x), -1)
        if condition is not None:
            scale, shift = m.film(condition).chunk(2, -1)
            x = x * (1 + scale) + shift
        gate = torch.sigmoid(m.gate(x))
        x = gate * functional.relu(m.highway(x)) + (1 - gate) * x
        return {"logits": m.head(x), "score": m.score(x)}

    layers = {"first": nn.Linear(12, 128), "film": nn.Linear(5, 128), "gate": nn.Linear(64, 64),
              "highway": nn.Linear(64, 64), "head": nn.Linear(64, 7), "score": nn.Linear(64, 1)}  # fmt: skip
    return Code(forward, **layers), {"x": torch.randn(3, 12), "condition": torch.randn(3, 5)}


def perceptron() -> tuple[nn.Module, Any]:
    return nn.Sequential(
        nn.Linear(30, 128), nn.BatchNorm1d(128), nn.ReLU(), nn.Dropout(0.2), nn.Linear(128, 128), nn.SiLU(),
        nn.Linear(128, 5),
    ), torch.randn(4, 30)  # fmt: skip


MODELS: dict[str, Callable[[], tuple[nn.Module, Any]]] = {
    "lstm, last state": lambda: last_state(nn.LSTM),
    "gru, last state": lambda: last_state(nn.GRU),
    "rnn, last state": lambda: last_state(nn.RNN),
    "gru, packed": packed,
    "lstm, both directions": both_ways,
    "lstm, given state": given_state,
    "translation with attention": translation,
    "temporal convolutions": lambda: temporal(False),
    "temporal convolutions, weight norm": lambda: temporal(True),
    "wavenet": wavenet,
    "text convolutions": text_convolutions,
    "transformer encoder, norm after": lambda: encoder(False),
    "transformer encoder, norm before": lambda: encoder(True),
    "transformer of torch": whole_transformer,
    "einsum attention": einsum_transformer,
    "language model": language_model,
    "lenet": lenet,
    "residual network": lambda: residual(False),
    "residual network, norm before": lambda: residual(True),
    "residual network, squeeze and excite": lambda: residual(False, True),
    "densely connected": dense,
    "dual path": dual_path,
    "searched cells": cells,
    "u-net": lambda: unet(2),
    "u-net 3-d": lambda: unet(3),
    "super resolution": super_resolution,
    "variational autoencoder": variational,
    "generator": generator,
    "discriminator, spectral norm": discriminator,
    "point cloud": points,
    "deep sets": deep_sets,
    "graph convolution": graph,
    "recommendation": recommendation,
    "embedding bag": bags,
    "siamese towers": towers,
    "gates and modulation": gated,
    "perceptron": perceptron,
}
