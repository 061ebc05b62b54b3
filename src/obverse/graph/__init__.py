"""Which tensors of a model live and die together, read off its traced graph."""

from __future__ import annotations

from ._channels import Channels
from ._dependencies import Dependencies, Group, Slice, dependencies
from ._flow import Flow, Knowledge, Read
from ._layers import register_layer
from ._trace import analyze

__all__ = [
    "Channels",
    "Dependencies",
    "Flow",
    "Group",
    "Knowledge",
    "Read",
    "Slice",
    "analyze",
    "dependencies",
    "register_layer",
]
