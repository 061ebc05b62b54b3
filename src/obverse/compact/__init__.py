"""Trained zeros to a smaller plain module, a certificate, a file and the fastest kernels."""

from __future__ import annotations

from ._accelerate import accelerate
from ._costs import file_bytes, latency, macs, parameters
from ._file import load, save
from ._receipt import LayerChoice, Receipt
from ._timing import Interval

__all__ = [
    "Interval",
    "LayerChoice",
    "Receipt",
    "accelerate",
    "file_bytes",
    "latency",
    "load",
    "macs",
    "parameters",
    "save",
]
