"""Sparse linear models: scikit-learn estimators and paths on one solver."""

from __future__ import annotations

from ._classifier import SparseClassifier
from ._cv import SparseClassifierCV, SparseRegressorCV
from ._path import SparsePath, sparse_path
from ._regressor import SparseRegressor

__all__ = [
    "SparseClassifier",
    "SparseClassifierCV",
    "SparsePath",
    "SparseRegressor",
    "SparseRegressorCV",
    "sparse_path",
]
