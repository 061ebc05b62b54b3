"""Public architectures at small configurations with random weights, by family."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import nn

from . import of_timm, of_torchvision, of_transformers, plain

__all__ = ["FAMILIES", "Entry"]

Entry = Callable[[], tuple[nn.Module, Any]]  # builds a model and one batch, as the model takes it
FAMILIES: dict[str, dict[str, Entry]] = {
    "transformers": of_transformers.MODELS,
    "torchvision": of_torchvision.MODELS,
    "timm": of_timm.MODELS,
    "plain": plain.MODELS,
}
