"""Trained zeros to a smaller plain module, a certificate, a file and the fastest kernels."""

from __future__ import annotations

from ._file import load, save

__all__ = ["load", "save"]
