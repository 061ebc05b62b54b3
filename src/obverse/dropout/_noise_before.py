"""Which dropout acts on the inputs of a linear layer, and its law in the forms that the theory knows."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from ._blocks import Blocks, Channel, Path
from ._connect import Connect
from ._drop_connect import DropConnect
from ._executed import Call
from ._independent import Bernoulli, Gaussian, Rademacher
from ._law import MaskLaw
from ._layers import MaskLayer
from ._sliding import SlidingBlock

__all__ = ["DEFAULT_KEEP", "FoundNoise", "flattened", "noise_before", "on_units"]

DEFAULT_KEEP = 0.5

_CHANNELS = (nn.Dropout1d, nn.Dropout2d, nn.Dropout3d)
_OTHERS = (nn.AlphaDropout, nn.FeatureAlphaDropout)


@dataclass(frozen=True)
class FoundNoise:
    """The mask on the inputs of a layer: its law (None where no layer states one), the event, where it was found."""

    law: MaskLaw | None
    event: tuple[int, ...]
    source: str
    caveats: tuple[str, ...] = ()


def noise_before(calls: Sequence[Call], index: int) -> FoundNoise:
    """Walk back from the call ``index`` over layers that pass their input on, to the first one that drops.

    In evaluation dropout returns its input, so that what belongs together shares its memory.
    """
    head = calls[index]
    current, event = head.input, tuple(head.input.shape[1:]) if head.input.dim() == 2 else head.input.shape[-1:]
    if isinstance(head.module, DropConnect):
        return FoundNoise(head.module.law, tuple(event), f"read from {_named(head)}")
    for call in reversed(calls[:index]):
        if not _same(call.output, current):
            continue
        module = call.module
        if isinstance(module, (nn.Identity, nn.Flatten)):
            if isinstance(module, nn.Flatten) and math.prod(call.input.shape[1:]) == math.prod(event):
                event = tuple(call.input.shape[1:])
            current = call.input
            continue
        caveats = []
        if isinstance(module, _OTHERS):
            caveats.append(f"{_named(call)} does not multiply by a mask of mean one, and is not what is diagnosed.")
        law: MaskLaw | None = None
        if isinstance(module, nn.Dropout):
            law = Bernoulli(1.0 - module.p)
        elif isinstance(module, _CHANNELS):
            law = Channel(1.0 - module.p)
        elif isinstance(module, MaskLayer):
            law = module.law
            if "channel" in module.share:
                caveats.append(f"{_named(call)} has one mask for all channels; diagnosed as one for each.")
            if module.scale != "marginal":
                caveats.append(f"{_named(call)} has scale={module.scale!r}; diagnosed as scale='marginal'.")
        source = "" if law is None else f"read from {_named(call)}"
        return FoundNoise(law, tuple(event), source, tuple(caveats))
    return FoundNoise(None, tuple(event), "")


def on_units(law: MaskLaw, event: tuple[int, ...]) -> tuple[int, ...]:
    """The event of a law that the caller states: maps only where the law speaks of them."""
    return event if isinstance(law, (Channel, SlidingBlock)) else (math.prod(event),)


def flattened(law: MaskLaw, event: tuple[int, ...]) -> MaskLaw | None:
    """The same masks as independent units or equal blocks of a vector; None where they are neither."""
    if isinstance(law, Connect):
        # On the weights of a last layer: the regularizer of dropout on its inputs, for the squared loss.
        return Bernoulli(law.keep_probability) if isinstance(law.keep_probability, float) else None
    units = math.prod(event)
    if isinstance(law, (Bernoulli, Gaussian, Rademacher)):
        variance = law.variance(event).reshape(-1)
        if np.any(variance == 0) and np.any(variance > 0):
            return None
        return Gaussian(variance=float(variance[0]) if np.all(variance == variance[0]) else variance)
    if isinstance(law, Blocks):
        size = min(law.block_size, event[-1])
        return Blocks(law.keep_probability, size) if event[-1] % size == 0 else None
    if isinstance(law, Channel):
        return Blocks(law.keep_probability, units // event[0])
    return Blocks(law.keep_probability, units) if isinstance(law, Path) else None


def _same(one: torch.Tensor, other: torch.Tensor) -> bool:
    return one is other or (
        one.numel() == other.numel() > 0 and one.untyped_storage().data_ptr() == other.untyped_storage().data_ptr()
    )


def _named(call: Call) -> str:
    kind = type(call.module).__name__
    return f"{call.name!r} ({kind})" if call.name else kind
