"""Trained zeros to a smaller plain module, a certificate, a file and the fastest kernels."""

from __future__ import annotations

from ._accelerate import accelerate
from ._costs import file_bytes, latency, macs, parameters
from ._export import ExportError, Parity, export_onnx, export_program
from ._file import load, save
from ._folder import load_from_folder, push_to_folder, push_to_hub
from ._receipt import LayerChoice, Receipt
from ._timing import Interval

__all__ = [
    "ExportError",
    "Interval",
    "LayerChoice",
    "Parity",
    "Receipt",
    "accelerate",
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
