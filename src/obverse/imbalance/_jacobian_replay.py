"""A forward pass that is remembered, to be run again with the same noise and without a trace in the model."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves, tree_map

__all__ = ["Pass", "recording"]


@dataclass
class Pass:
    """Arguments, result and circumstances of one call of the model.

    Attributes
    ----------
    calls : int
        How often the model was called; the rest is of the last call.
    """

    model: nn.Module
    calls: int = 0
    inputs: tuple[Any, ...] = ()
    named: dict[str, Any] = field(default_factory=dict)
    leaves: list[Any] = field(default_factory=list)
    _noise: list[tuple[torch.device, Tensor]] = field(default_factory=list)
    _autocast: tuple[str, torch.dtype, bool] | None = None

    def start(self, inputs: tuple[Any, ...], named: dict[str, Any]) -> None:
        """The model is about to run."""
        self.calls += 1
        self.inputs, self.named = inputs, named
        device = next((p.device for p in self.model.parameters()), torch.device("cpu"))
        kind = device.type
        self._autocast = (kind, torch.get_autocast_dtype(kind), torch.is_autocast_enabled(kind))
        self._noise = [(torch.device("cpu"), torch.get_rng_state())]
        if kind == "cuda":
            self._noise.append((device, torch.cuda.get_rng_state(device)))

    def end(self, output: Any) -> None:
        """The model has returned."""
        self.leaves = tree_leaves(output)

    def place_of(self, logits: Tensor) -> int | None:
        """The place of ``logits`` among what the model returned."""
        return next((i for i, leaf in enumerate(self.leaves) if leaf is logits), None)

    @property
    def is_autocast(self) -> bool:
        """Whether it ran under autocast."""
        return self._autocast is not None and self._autocast[2]

    @property
    def wants_input_gradient(self) -> bool:
        """Whether something else than parameters asks for a gradient through this pass."""
        return any(isinstance(x, Tensor) and x.requires_grad for x in tree_leaves((self.inputs, self.named)))

    def again(self, place: int, rows: Tensor | None = None, count: int = 0, axis: int = 0) -> Tensor:
        """Output number ``place`` of the same pass once more, with a graph; of some of its ``count`` rows.

        Buffers, such as running statistics, move in copies that are dropped, and generators go back to where they were.
        """
        inputs, named = self.inputs, self.named
        if rows is not None:
            chosen = rows

            def some(value: Any) -> Any:
                if not isinstance(value, Tensor) or value.ndim <= axis:
                    return value
                if value.shape[axis] == count:
                    return value.index_select(axis, chosen.to(value.device))
                return value

            inputs, named = tree_map(some, (inputs, named))
        assert self._autocast is not None
        kind, dtype, enabled = self._autocast
        with _frozen_buffers(self.model), self._same_noise(), torch.enable_grad(), torch.autocast(kind, dtype, enabled):
            output: Tensor = tree_leaves(self.model(*inputs, **named))[place]
        return output

    @contextmanager
    def _same_noise(self) -> Iterator[None]:
        devices = [device for device, _ in self._noise if device.type == "cuda"]
        with torch.random.fork_rng(devices):
            for device, state in self._noise:
                if device.type == "cpu":
                    torch.set_rng_state(state)
                else:
                    torch.cuda.set_rng_state(state, device)
            yield


@contextmanager
def recording(model: nn.Module) -> Iterator[Pass]:
    """Remember the call of the model that happens in the block."""
    seen = Pass(model)

    def before(_: nn.Module, inputs: tuple[Any, ...], named: dict[str, Any]) -> None:
        seen.start(inputs, named)

    def after(_: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
        seen.end(output)

    handles = [model.register_forward_pre_hook(before, with_kwargs=True), model.register_forward_hook(after)]
    try:
        yield seen
    finally:
        for handle in handles:
            handle.remove()


@contextmanager
def _frozen_buffers(model: nn.Module) -> Iterator[None]:
    kept: list[tuple[dict[str, Tensor | None], str, Tensor]] = []
    for module in model.modules():
        for name, buffer in module._buffers.items():
            if buffer is not None:
                kept.append((module._buffers, name, buffer))
    try:
        for holder, name, buffer in kept:
            holder[name] = buffer.clone()
        yield
    finally:
        for holder, name, buffer in kept:
            holder[name] = buffer
