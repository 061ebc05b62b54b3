"""The last linear layer of a model, and what it gives in a forward pass."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn

from ..errors import InvalidArgumentError, StateError

__all__ = ["catching_output", "last_linear", "only_output"]


def last_linear(model: nn.Module, layers: Sequence[str] | None) -> tuple[str, nn.Linear]:
    """The one named linear layer, or the last one of the model."""
    found = {name: module for name, module in model.named_modules() if isinstance(module, nn.Linear)}
    if layers is not None:
        names = list(layers)
        if isinstance(layers, str) or len(names) != 1 or names[0] not in found:
            raise InvalidArgumentError(
                f"backend='last-layer' takes the name of one linear layer in a list, got {layers!r}; "
                f"the model has {', '.join(found) or 'none'}"
            )
        return names[0], found[names[0]]
    if not found:
        raise InvalidArgumentError("backend='last-layer' needs a torch.nn.Linear, and the model has none")
    return list(found.items())[-1]


@contextmanager
def catching_output(head: nn.Module) -> Iterator[list[Tensor]]:
    """What the layer gives while the block runs."""
    given: list[Tensor] = []

    def hook(module: nn.Module, inputs: tuple[Any, ...], output: Tensor) -> None:
        given.append(output)

    handle = head.register_forward_hook(hook)
    try:
        yield given
    finally:
        handle.remove()


def only_output(name: str, given: Sequence[Tensor] | None) -> Tensor:
    """The output of a layer that ran once."""
    if given is None or len(given) != 1:
        raise StateError(
            f"the last layer {name!r} must run once in capture(), not {len(given or ())} times; "
            "name another with layers="
        )
    return given[0]
