"""Small architectures with random structured zeros and live biases, shared by the tests of compaction."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import nn
from torch.nn import functional


class LeNet(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.conv2 = nn.Conv2d(1, 6, 5), nn.Conv2d(6, 16, 5)
        self.fc1, self.fc2 = nn.Linear(256, 30), nn.Linear(30, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = functional.max_pool2d(torch.relu(self.conv1(x)), 2)
        x = functional.max_pool2d(torch.relu(self.conv2(x)), 2)
        return self.fc2(torch.relu(self.fc1(torch.flatten(x, 1))))


class Block(nn.Module):
    """A residual block; the shortcut is option A (stride and zero channels) or a projection."""

    def __init__(self, inputs: int, outputs: int, stride: int, project: bool) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.bn1, self.bn2 = nn.BatchNorm2d(outputs), nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        self.stride, self.extra = stride, outputs - inputs
        self.shortcut = nn.Conv2d(inputs, outputs, 1, stride) if project and self.extra else None

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.bn2(self.conv2(torch.relu(self.bn1(self.conv1(x)))))
        if self.shortcut is not None:
            x = self.shortcut(x)
        elif self.extra:
            x = functional.pad(x[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, 0, self.extra))
        return torch.relu(x + y)


class ResNet(nn.Module):
    def __init__(self, project: bool) -> None:
        super().__init__()
        self.stem, self.bn = nn.Conv2d(3, 8, 3, 1, 1), nn.BatchNorm2d(8)
        self.blocks = nn.Sequential(Block(8, 8, 1, project), Block(8, 16, 2, project))
        self.head = nn.Linear(16, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.blocks(torch.relu(self.bn(self.stem(x)))).mean((2, 3)))


class Dense(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.one, self.two, self.three = nn.Conv2d(3, 8, 3, 1, 1), nn.Conv2d(11, 8, 3, 1, 1), nn.Conv2d(19, 8, 1)
        self.norm, self.head = nn.GroupNorm(2, 8), nn.Linear(8, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = torch.cat([x, torch.relu(self.one(x))], 1)
        x = torch.cat([x, torch.relu(self.two(x))], 1)
        return self.head(torch.relu(self.norm(self.three(x))).mean([2, 3]))


class UNet(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.down, self.mid = nn.Conv2d(2, 8, 3, 1, 1), nn.Conv2d(8, 12, 3, 1, 1)
        self.up, self.out = nn.ConvTranspose2d(12, 8, 2, 2), nn.Conv2d(16, 3, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        a = torch.relu(self.down(x))
        b = torch.relu(self.mid(functional.max_pool2d(a, 2)))
        return self.out(torch.cat([a, self.up(b)], 1))


class Attention(nn.Module):
    """Separate projections; ``kv`` heads for keys and values."""

    def __init__(self, dim: int, heads: int, kv: int, fused: bool = False) -> None:
        super().__init__()
        self.num_heads, self.num_kv_heads, self.head_dim, self.fused = heads, kv, dim // heads, fused
        self.q, self.k = nn.Linear(dim, dim), nn.Linear(dim, kv * self.head_dim)
        self.v, self.o = nn.Linear(dim, kv * self.head_dim), nn.Linear(dim, dim)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        batch, length, _ = x.shape
        q = self.q(x).view(batch, length, self.num_heads, self.head_dim).transpose(1, 2)
        k = self.k(x).view(batch, length, self.num_kv_heads, self.head_dim).transpose(1, 2)
        v = self.v(x).view(batch, length, self.num_kv_heads, self.head_dim).transpose(1, 2)
        k = k.repeat_interleave(2, 1) if self.num_kv_heads != self.num_heads else k
        v = v.repeat_interleave(2, 1) if self.num_kv_heads != self.num_heads else v
        if self.fused:
            y = functional.scaled_dot_product_attention(q, k, v, is_causal=True)
        else:
            y = torch.softmax(q @ k.transpose(-2, -1) / math.sqrt(self.head_dim), dim=-1) @ v
        return self.o(y.transpose(1, 2).reshape(batch, length, -1))


class Transformer(nn.Module):
    def __init__(self, kv: int = 4, fused: bool = False, tied: bool = False) -> None:
        super().__init__()
        self.embed, self.place = nn.Embedding(20, 16), nn.Parameter(torch.randn(1, 6, 16))
        self.norm1, self.norm2 = nn.LayerNorm(16), nn.LayerNorm(16)
        self.attention = Attention(16, 4, kv, fused)
        self.up, self.down = nn.Linear(16, 32), nn.Linear(32, 16)
        self.head = nn.Linear(16, 20, bias=not tied)
        if tied:
            self.head.weight = self.embed.weight

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        x = self.embed(tokens) + self.place
        x = x + self.attention(self.norm1(x))
        x = x + self.down(functional.gelu(self.up(self.norm2(x))))
        return self.head(x)


class Recurrent(nn.Module):
    def __init__(self, kind: type[nn.RNNBase], **options: object) -> None:
        super().__init__()
        self.first = nn.Linear(5, 8)
        self.cell = kind(8, 10, batch_first=True, **options)
        self.last = nn.Linear(10 * (1 + bool(options.get("bidirectional"))), 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.last(self.cell(torch.relu(self.first(x)))[0])


class TiedBag(nn.Module):
    """Embedding and head share a matrix and no norm stands between: dimensions can go."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.mix, self.head = nn.Embedding(12, 8), nn.Linear(8, 8), nn.Linear(8, 12, bias=False)
        self.head.weight = self.embed.weight

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        x = self.embed(tokens)
        return self.head(x + self.mix(x))


class Towers(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.Sequential(nn.Linear(6, 12), nn.ReLU(), nn.Linear(12, 8))
        self.left, self.right = nn.Linear(8, 4), nn.Linear(8, 4)

    def forward(self, a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        return self.left(self.encoder(a)) * self.right(self.encoder(b))


class RootMean(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.norm, self.last = nn.Linear(6, 12, bias=False), nn.RMSNorm(12, eps=1e-6), nn.Linear(12, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.last(self.norm(self.first(x)))


def _vgg() -> nn.Module:
    return nn.Sequential(
        *(
            nn.Conv2d(3, 8, 3, padding=1),
            nn.BatchNorm2d(8),
            nn.ReLU(),
            nn.Conv2d(8, 8, 3, padding=1),
            nn.BatchNorm2d(8),
        ),
        *(nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(128, 16), nn.ReLU(), nn.Dropout(), nn.Linear(16, 4)),
    )


def _mobile() -> nn.Module:
    return nn.Sequential(
        *(nn.Conv2d(3, 12, 1), nn.BatchNorm2d(12), nn.ReLU6(), nn.Conv2d(12, 12, 3, padding=1, groups=12)),
        *(
            nn.BatchNorm2d(12),
            nn.Hardswish(),
            nn.Conv2d(12, 8, 1),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
            nn.Linear(8, 4),
        ),
    )


def _mlp() -> nn.Module:
    return nn.Sequential(nn.Linear(10, 20), nn.Tanh(), nn.Linear(20, 15), nn.Sigmoid(), nn.Linear(15, 3))


def _image(channels: int, size: int = 8) -> Callable[[], tuple[torch.Tensor, ...]]:
    return lambda: (torch.randn(2, channels, size, size),)


def _tokens() -> tuple[torch.Tensor, ...]:
    return (torch.randint(12, (2, 6)),)


def _sequence() -> tuple[torch.Tensor, ...]:
    return (torch.randn(2, 4, 5),)


ZOO: dict[str, tuple[Callable[[], nn.Module], Callable[[], tuple[torch.Tensor, ...]]]] = {
    "mlp": (_mlp, lambda: (torch.randn(4, 10),)),
    "lenet-5": (LeNet, _image(1, 28)),
    "vgg": (_vgg, _image(3)),
    "resnet, option A": (lambda: ResNet(False), _image(3)),
    "resnet, projections": (lambda: ResNet(True), _image(3)),
    "mobile block": (_mobile, _image(3)),
    "dense concatenation": (Dense, _image(3)),
    "u-net": (UNet, _image(2)),
    "transformer": (Transformer, _tokens),
    "tied language model": (lambda: Transformer(fused=True, tied=True), _tokens),
    "grouped queries": (lambda: Transformer(kv=2), _tokens),
    "lstm": (lambda: Recurrent(nn.LSTM), _sequence),
    "gru": (lambda: Recurrent(nn.GRU), _sequence),
    "rnn, two layers and directions": (lambda: Recurrent(nn.RNN, num_layers=2, bidirectional=True), _sequence),
    "tied bag": (TiedBag, _tokens),
    "two towers": (Towers, lambda: (torch.randn(3, 6), torch.randn(3, 6))),
    "root mean square": (RootMean, lambda: (torch.randn(3, 6),)),
}


def sparse(name: str, fraction: float, seed: int = 0) -> tuple[nn.Module, tuple[torch.Tensor, ...]]:
    """A model of the zoo in which a fraction of units, columns and heads is zero; biases and shifts stay alive."""
    torch.manual_seed(seed)
    build, feed = ZOO[name]
    model = build().eval()
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, nn.modules.batchnorm._BatchNorm):
                module.running_mean.normal_()
                module.running_var.uniform_(0.5, 2)
                module.bias.normal_()
            if isinstance(module, Attention):
                width = module.head_dim * (module.num_heads // module.num_kv_heads)
                module.o.weight[:, : width * max(1, int(fraction * module.num_kv_heads))] = 0
            elif isinstance(module, nn.RNNBase):
                idle = torch.rand(module.hidden_size) < fraction
                for key, weight in module.named_parameters():
                    if key.startswith("weight_hh"):
                        weight[:, idle] = 0
                    elif key.startswith("weight_ih_l1"):
                        weight[:, idle.repeat(2)] = 0
                if name not in ("mlp",):
                    model.last.weight[:, idle.repeat(1 + module.bidirectional)] = 0
            elif isinstance(module, nn.Linear | nn.Conv2d) and module.weight.shape[1] > 1:
                module.weight[torch.rand(module.weight.shape[0]) < fraction / 2] = 0
                if module.weight.shape[1] not in (256, 128):
                    module.weight[:, torch.rand(module.weight.shape[1]) < fraction / 2] = 0
        if isinstance(model, TiedBag):
            model.mix.weight[:4] = 0
            model.mix.weight[:, :4] = 0
            model.mix.bias[:4] = 0
            model.embed.weight[:, :4] = 0
    return model, feed()
