"""Keeping pruned weights at zero after the Sparsifier is gone, with any ordinary optimizer."""

from __future__ import annotations

import weakref
from typing import Any

import torch
from torch import nn
from torch.utils.weak import WeakIdKeyDictionary

from ._metric import unwrapped

__all__ = ["hold", "is_held", "keep_zeros", "release_zeros"]

_KEPT: Any = WeakIdKeyDictionary()


class _ZeroGradient:
    """A gradient hook: pruned weights receive none, so momentum, averages and weight decay leave them at zero."""

    def __init__(self, keep: torch.Tensor) -> None:
        self.keep = keep

    def __call__(self, gradient: torch.Tensor) -> torch.Tensor:
        if self.keep.device != gradient.device:
            self.keep = self.keep.to(gradient.device)
        return gradient * self.keep


def keep_zeros(target: nn.Module | nn.Parameter, optimizer: torch.optim.Optimizer | None = None) -> None:
    """Keep the weights that are zero now at zero.

    The gradient of a zero weight becomes zero, which holds it there under every optimizer that moves a weight by its
    own gradient, momentum and decay. Nothing is added to the module: names, class and state dict stay as they are. A
    copy of the model, or one that was loaded from a file, is not held until this is called for it.

    Parameters
    ----------
    target : nn.Parameter or nn.Module
        Of a module, all trainable parameters of two dimensions or more.
    optimizer : torch optimizer, optional
        One that moves weights together, such as Muon: its steps are followed by zeroing what was zero.
    """
    if isinstance(target, nn.Module):
        parameters = [p for p in target.parameters() if p.ndim >= 2 and p.requires_grad]
    else:
        parameters = [target] if target.requires_grad else []
    stepping = None if optimizer is None else unwrapped(optimizer)
    kept = []
    for parameter in parameters:
        release_zeros(parameter)
        keep = parameter.detach() != 0
        _KEPT[parameter] = parameter.register_hook(_ZeroGradient(keep))  # type: ignore[no-untyped-call]
        kept.append((weakref.ref(parameter), keep))
    if stepping is not None:
        stepping.register_step_post_hook(_Rezero(kept))


def hold(parameter: nn.Parameter, keep: torch.Tensor, optimizer: torch.optim.Optimizer | None = None) -> None:
    """Keep the entries of a parameter at zero where ``keep`` is false, as `keep_zeros` does those that are zero."""
    if parameter.requires_grad:
        release_zeros(parameter)
        _KEPT[parameter] = parameter.register_hook(_ZeroGradient(keep))  # type: ignore[no-untyped-call]
        if optimizer is not None:
            optimizer.register_step_post_hook(_Rezero([(weakref.ref(parameter), keep)]))


def is_held(parameter: nn.Parameter) -> bool:
    """Whether the zeros of a parameter are kept; one that is not trained keeps its own."""
    return parameter in _KEPT or not parameter.requires_grad


class _Rezero:
    """After an optimizer's step: back to zero what it moved, as long as the zeros are kept."""

    def __init__(self, kept: list[tuple[weakref.ref[nn.Parameter], torch.Tensor]]) -> None:
        self.kept = kept

    @torch.no_grad()
    def __call__(self, *_: Any) -> None:
        for reference, keep in self.kept:
            parameter = reference()
            if parameter is not None and parameter in _KEPT:
                parameter.detach().mul_(keep.to(parameter.device)).add_(0.0)  # no -0.0


def release_zeros(target: nn.Module | nn.Parameter) -> None:
    """Let zero weights train again: those of one parameter, or of a whole model."""
    for parameter in [target] if isinstance(target, nn.Parameter) else list(target.parameters()):
        handle = _KEPT.pop(parameter, None)
        if handle is not None:
            handle.remove()
