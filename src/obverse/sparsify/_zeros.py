"""Keeping pruned weights at zero after the Sparsifier is gone, with any ordinary optimizer."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.utils.weak import WeakIdKeyDictionary

__all__ = ["keep_zeros", "release_zeros"]

_KEPT: Any = WeakIdKeyDictionary()


class _ZeroGradient:
    """A gradient hook: pruned weights receive none, so momentum, averages and weight decay leave them at zero."""

    def __init__(self, keep: torch.Tensor) -> None:
        self.keep = keep

    def __call__(self, gradient: torch.Tensor) -> torch.Tensor:
        return gradient * self.keep


def keep_zeros(parameter: nn.Parameter) -> None:
    """Keep the weights of ``parameter`` that are zero now at zero.

    The gradient of a zero weight becomes zero, which holds it there under every optimizer that moves a weight by its
    own gradient, momentum and decay. Nothing is added to the module: names, class and state dict stay as they are.
    """
    release_zeros(parameter)
    keep = (parameter.detach() != 0).to(parameter.dtype)
    _KEPT[parameter] = parameter.register_hook(_ZeroGradient(keep))  # type: ignore[no-untyped-call]


def release_zeros(target: nn.Module | nn.Parameter) -> None:
    """Let zero weights train again: those of one parameter, or of a whole model."""
    for parameter in [target] if isinstance(target, nn.Parameter) else list(target.parameters()):
        handle = _KEPT.pop(parameter, None)
        if handle is not None:
            handle.remove()
