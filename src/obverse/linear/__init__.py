"""Sparse linear models: scikit-learn estimators and paths on one solver."""

from __future__ import annotations

from ._classifier import SparseClassifier
from ._cv import SparseClassifierCV, SparseRegressorCV
from ._model import LinearModel
from ._model_file import load_model, save_model
from ._path import SparsePath, sparse_path
from ._regressor import SparseRegressor

__all__ = [
    "LinearModel",
    "SparseClassifier",
    "SparseClassifierCV",
    "SparsePath",
    "SparseRegressor",
    "SparseRegressorCV",
    "load_model",
    "save_model",
    "sparse_path",
]
