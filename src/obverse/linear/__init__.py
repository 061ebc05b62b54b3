"""Sparse linear models: scikit-learn estimators and paths on one solver."""

from __future__ import annotations

from ._path import SparsePath, sparse_path

__all__ = ["SparsePath", "sparse_path"]
