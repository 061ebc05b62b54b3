"""The models that the command line knows, sized from the data; all are plain modules."""

from __future__ import annotations

import importlib
import inspect
import math
import sys
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from .._core.resources import check_memory
from ..errors import InvalidArgumentError, UnknownNameError
from ._text_models import TextBag, TextTransformer

__all__ = [
    "MODELS",
    "TEXT_MODELS",
    "ResNet20",
    "build_model",
    "is_factory",
    "lenet_5",
    "lenet_300_100",
    "mlp",
    "resnet20",
]


_WIDEST = 1e6


def mlp(input_shape: tuple[int, ...], num_classes: int, width: float = 1.0) -> nn.Module:
    """Two hidden layers: 128 and 64 units up to 256 inputs, 256 and 128 beyond; ``width`` times as many."""
    inputs = math.prod(input_shape)
    units = 128 if inputs <= 256 else 256
    return _perceptron(inputs, (scaled(units, width), scaled(units // 2, width)), num_classes)


def lenet_300_100(input_shape: tuple[int, ...], num_classes: int, width: float = 1.0) -> nn.Module:
    """LeNet-300-100 (LeCun et al., 1998): two hidden layers of 300 and 100 units; ``width`` times as many."""
    return _perceptron(math.prod(input_shape), (scaled(300, width), scaled(100, width)), num_classes)


def scaled(units: int, width: float) -> int:
    """``width`` times as many units, at least one."""
    return max(1, round(width * units))


def _perceptron(inputs: int, hidden: tuple[int, ...], outputs: int) -> nn.Module:
    layers: list[nn.Module] = [nn.Flatten()]
    for width in hidden:
        layers += [nn.Linear(inputs, width), nn.ReLU()]
        inputs = width
    return nn.Sequential(*layers, nn.Linear(inputs, outputs))


def lenet_5(input_shape: tuple[int, ...], num_classes: int, width: float = 1.0) -> nn.Module:
    """LeNet-5 in Caffe's form: 20-50-800-500 for images of 28x28; channels and units times ``width``.

    Convolutions pad images under 16 pixels.
    """
    channels, tall, wide = _image(input_shape, "lenet-5", 4)
    padding = 2 if min(tall, wide) < 16 else 0
    first, second, units = (scaled(size, width) for size in (20, 50, 500))

    def side(length: int) -> int:
        return ((length + 2 * padding - 4) // 2 + 2 * padding - 4) // 2

    return nn.Sequential(
        nn.Conv2d(channels, first, 5, padding=padding),
        nn.MaxPool2d(2),
        nn.Conv2d(first, second, 5, padding=padding),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(second * side(tall) * side(wide), units),
        nn.ReLU(),
        nn.Linear(units, num_classes),
    )


class _Block(nn.Module):
    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or inputs != outputs:
            self.shortcut = nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs))

    def forward(self, x: Tensor) -> Tensor:
        out = torch.relu(self.bn1(self.conv1(x)))
        return torch.relu(self.bn2(self.conv2(out)) + self.shortcut(x))


class ResNet20(nn.Module):
    """ResNet-20 for small images (He et al., 2016, section 4.2), with projection shortcuts.

    Parameters
    ----------
    channels : int
        Channels of the input images.
    num_classes : int
    width : float
        Factor on the channels of every layer, which are 16, 32 and 64.
    """

    def __init__(self, channels: int, num_classes: int, width: float = 1.0) -> None:
        super().__init__()
        a, b, c = (scaled(size, width) for size in (16, 32, 64))
        self.conv = nn.Conv2d(channels, a, 3, padding=1, bias=False)
        self.bn = nn.BatchNorm2d(a)
        self.blocks = nn.Sequential(
            *(_Block(a, a, 1) for _ in range(3)),
            *(_Block(a if i == 0 else b, b, 2 if i == 0 else 1) for i in range(3)),
            *(_Block(b if i == 0 else c, c, 2 if i == 0 else 1) for i in range(3)),
        )
        self.head = nn.Linear(c, num_classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, x: Tensor) -> Tensor:
        """Class scores, shape (rows, classes), of images (rows, channels, height, width)."""
        features: Tensor = self.blocks(torch.relu(self.bn(self.conv(x))))
        scores: Tensor = self.head(features.mean(dim=(2, 3)))
        return scores


def resnet20(input_shape: tuple[int, ...], num_classes: int, width: float = 1.0) -> nn.Module:
    """`ResNet20` for images of this shape."""
    return ResNet20(_image(input_shape, "resnet20", 4)[0], num_classes, width)


MODELS: dict[str, Callable[[tuple[int, ...], int, float], nn.Module]] = {
    "mlp": mlp,
    "lenet-300-100": lenet_300_100,
    "lenet-5": lenet_5,
    "resnet20": resnet20,
}


TEXT_MODELS: dict[str, Callable[[int, int, int, float], nn.Module]] = {
    "text-bag": lambda tokens, length, classes, width: TextBag(tokens, classes, scaled(64, width)),
    "text-transformer": lambda tokens, length, classes, width: TextTransformer(
        tokens, length, classes, 4 * scaled(16, width)
    ),
}


def is_factory(name: str) -> bool:
    """Whether ``name`` is of the form ``package.module:factory``."""
    return ":" in name


def build_model(
    name: str, input_shape: tuple[int, ...], num_classes: int, width: float = 1.0, tokens: int | None = None
) -> nn.Module:
    """Build a model by name and check that it fits the data.

    Parameters
    ----------
    name : str
        One of `MODELS` or `TEXT_MODELS`, or ``package.module:factory``, imported with the current folder on the path.
        The factory is called with those of the keywords ``input_shape``, ``num_classes`` and, for texts, ``tokens``
        that it accepts.
    input_shape : tuple of int
        Shape of one input.
    num_classes : int
    width : float
        Factor on the sizes of the hidden layers; a factory is given it as a keyword where it is not 1.
    tokens : int, optional
        Inputs are word ids below it; by default they are numbers.

    Raises
    ------
    InvalidArgumentError
        When a model of texts is given numbers or the other way round, or when the factory cannot be imported, needs
        other arguments, raises, does not return a module, or the module does not map (rows, \\*input_shape) to (rows,
        num_classes).
    """
    if name in MODELS or name in TEXT_MODELS:
        named = _named_model(name, input_shape, num_classes, width, tokens)
        if width > 2 or math.prod(input_shape) > 100_000:
            _check_size(named, name, width)
        return named()
    if not is_factory(name):
        raise UnknownNameError("model", name, [*MODELS, *TEXT_MODELS])
    model = _call_factory(name, input_shape, num_classes, width, tokens)
    training = model.training
    model.eval()
    try:
        with torch.no_grad():
            scores = model(torch.zeros(2, *input_shape, dtype=torch.float32 if tokens is None else torch.int32))
    except Exception as error:  # the user's code may raise anything
        raise InvalidArgumentError(
            f"model {name} cannot take inputs of shape {(2, *input_shape)}: {_brief(error)}"
        ) from error
    model.train(training)
    if not isinstance(scores, Tensor) or scores.shape != (2, num_classes):
        given = tuple(scores.shape) if isinstance(scores, Tensor) else type(scores).__name__
        raise InvalidArgumentError(f"model {name} returns {given} for 2 inputs; expected shape (2, {num_classes})")
    return model


def _named_model(
    name: str, input_shape: tuple[int, ...], num_classes: int, width: float, tokens: int | None
) -> Callable[[], nn.Module]:
    if name in MODELS:
        if tokens is not None:
            raise InvalidArgumentError(f"model {name} takes numbers and the data are texts: use {_or(TEXT_MODELS)}")
        return lambda: MODELS[name](input_shape, num_classes, width)
    if tokens is None:
        raise InvalidArgumentError(f"model {name} takes texts and the data are numbers: use {_or(MODELS)}")
    return lambda: TEXT_MODELS[name](tokens, input_shape[0], num_classes, width)


def _check_size(named: Callable[[], nn.Module], name: str, width: float) -> None:
    """Raise where the weights of a model, which the width and the data size, do not fit into memory."""
    if torch.get_default_device().type == "meta":  # it is only counted
        return
    count = 2**63  # more than torch can count
    if width <= _WIDEST:
        with suppress(RuntimeError), torch.random.fork_rng([]), torch.device("meta"):
            count = sum(parameter.numel() for parameter in named().parameters())
    check_memory(
        4 * count,
        f"model {name} at width {width:g} for inputs of this size: {float(count):,.3g} weights",
        "lower the width, choose another model, or give smaller inputs",
    )


def _or(names: Iterable[str]) -> str:
    return " or ".join(names)


def _call_factory(
    name: str, input_shape: tuple[int, ...], num_classes: int, width: float, tokens: int | None
) -> nn.Module:
    module_name, _, attribute = name.partition(":")
    here = str(Path.cwd())
    sys.path.insert(0, here)
    try:
        factory = getattr(importlib.import_module(module_name), attribute)
    except (Exception, SystemExit) as error:  # an import runs the user's code, which may raise anything
        raise InvalidArgumentError(f"cannot import model {name!r}: {_brief(error)}") from error
    finally:
        sys.path.remove(here)
    if not callable(factory):
        raise InvalidArgumentError(f"{name} is not callable; give a function that returns a torch.nn.Module")
    known: dict[str, Any] = {"input_shape": input_shape, "num_classes": num_classes}
    offered = _accepted(factory, name, known if tokens is None else {**known, "tokens": tokens})
    if width != 1:
        # A keyword it has for a purpose of its own is left alone until someone asks for another width.
        if not _accepted(factory, name, {**offered, "width": width}).keys() - offered.keys():
            raise InvalidArgumentError(f"model {name} has one width only: its factory takes no keyword 'width'")
        offered["width"] = width
    try:
        model = factory(**offered)
    except (Exception, SystemExit) as error:
        raise InvalidArgumentError(f"model {name} cannot be built: {_brief(error)}") from error
    if not isinstance(model, nn.Module):
        raise InvalidArgumentError(f"{name} returned {type(model).__name__}, expected a torch.nn.Module")
    return model


def _accepted(factory: Callable[..., object], name: str, offered: dict[str, Any]) -> dict[str, Any]:
    """Those of the ``offered`` keywords that a factory takes; it must need no others."""
    try:
        signature = inspect.signature(factory)
    except (TypeError, ValueError):  # some callables written in C do not tell
        return {}
    if not any(p.kind is inspect.Parameter.VAR_KEYWORD for p in signature.parameters.values()):
        offered = {key: value for key, value in offered.items() if key in signature.parameters}
    try:
        signature.bind(**offered)
    except TypeError as error:
        raise InvalidArgumentError(
            f"model {name}: {error}; a factory is called with the keywords input_shape and num_classes, and no others"
        ) from error
    return offered


def _brief(error: BaseException) -> str:
    """What someone else's code raised, in one line."""
    line = next(iter(str(error).strip().splitlines()), "")
    return f"{type(error).__name__}: {line}" if line else type(error).__name__


def _image(shape: tuple[int, ...], model: str, smallest: int) -> tuple[int, int, int]:
    if len(shape) != 3 or min(shape[1:]) < smallest:
        raise InvalidArgumentError(
            f"{model} needs images of at least {smallest}x{smallest} pixels, got inputs of shape {shape}"
        )
    return shape[0], shape[1], shape[2]
