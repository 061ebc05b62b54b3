"""Trained zeros to a smaller plain module, a certificate, a file and the fastest kernels."""

from __future__ import annotations

import sys
from types import ModuleType
from typing import Any

from torch import nn

from ..graph import Interval, latency, macs, parameters
from ._accelerate import accelerate
from ._certificate import Certificate, Cost, Difference, Refusal
from ._compact import compact
from ._export import ExportError, Parity, export_onnx, export_program
from ._file import file_bytes, load, save
from ._folder import load_from_folder, push_to_folder, push_to_hub
from ._receipt import LayerChoice, Receipt

__all__ = [
    "Certificate",
    "Cost",
    "Difference",
    "ExportError",
    "Interval",
    "LayerChoice",
    "Parity",
    "Receipt",
    "Refusal",
    "accelerate",
    "compact",
    "export_onnx",
    "export_program",
    "file_bytes",
    "latency",
    "load",
    "load_from_folder",
    "macs",
    "parameters",
    "push_to_folder",
    "push_to_hub",
    "save",
]


class _CallableRoom(ModuleType):
    """The room and its main verb share a name, so ``from obverse import compact`` gives both."""

    def __call__(self, model: nn.Module, example_inputs: Any, **options: Any) -> tuple[nn.Module, Certificate]:
        return compact(model, example_inputs, **options)


sys.modules[__name__].__class__ = _CallableRoom
