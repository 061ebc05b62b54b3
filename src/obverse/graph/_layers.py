"""Layers that are understood as a whole, by rules that users register; all others are watched function by function."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import nn

from ._flow import Flow, Knowledge
from ._norms import recognized_response_norm, recognized_rms_norm, response_norm, rms_norm

__all__ = ["LAYERS", "handler_of", "register_layer", "rescaled_eps"]

Handler = Callable[[Knowledge, str, Any, Flow], Flow]
LAYERS: dict[type[nn.Module], Handler] = {}


def register_layer(*kinds: type[nn.Module]) -> Callable[[Handler], Handler]:
    """Make a function the handler of layer classes: ``handler(knowledge, name, layer, flow) -> flow``."""

    def enter(handler: Handler) -> Handler:
        for kind in kinds:
            LAYERS[kind] = handler
        return handler

    return enter


def rescaled_eps(module: nn.Module) -> str | None:
    """The attribute that changes when a norm of any class shrinks, None for other layers.

    These are root-mean-square norms and global response normalization, recognized by what they compute.
    """
    found = recognized_rms_norm(module)
    if found is not None:
        return found[0]
    return None if recognized_response_norm(module) is None else "eps"


def handler_of(module: nn.Module) -> Handler | None:
    """The rule of a layer's class, or of the nearest ancestor whose ``forward`` it has."""
    for kind in type(module).__mro__:
        if kind in LAYERS:
            return LAYERS[kind] if type(module).forward is kind.forward else None
    found = recognized_rms_norm(module)
    if found is None:
        axis = recognized_response_norm(module)
        return None if axis is None else lambda know, name, layer, flow: response_norm(know, name, flow, layer, axis)
    attribute, offset = found

    def root_mean_square(know: Knowledge, name: str, layer: Any, flow: Flow) -> Flow:
        return rms_norm(know, name, flow, layer.weight, float(getattr(layer, attribute)), attribute, offset)

    return root_mean_square
