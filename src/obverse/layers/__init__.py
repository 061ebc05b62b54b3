"""Teach Obverse layers of your own: what their axes mean, and what they do to channels."""

from __future__ import annotations

from ..graph import Flow, Knowledge, register_layer

__all__ = ["Flow", "Knowledge", "register_layer"]
