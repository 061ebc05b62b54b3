"""Sparse linear models: scikit-learn estimators and paths on one solver, and the commands that fit tables."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from ._classifier import SparseClassifier
from ._cv import SparseClassifierCV, SparseRegressorCV
from ._model import LinearModel
from ._model_file import load_model, save_model
from ._path import SparsePath, sparse_path
from ._regressor import SparseRegressor

if TYPE_CHECKING:
    from ._choices import Choices
    from ._fit_files import default_folder, features_grid, measures_grid, write_fit
    from ._predict_file import predict_file
    from ._table_fit import fit_table

__all__ = [
    "Choices",
    "LinearModel",
    "SparseClassifier",
    "SparseClassifierCV",
    "SparsePath",
    "SparseRegressor",
    "SparseRegressorCV",
    "default_folder",
    "features_grid",
    "fit_table",
    "load_model",
    "measures_grid",
    "predict_file",
    "save_model",
    "sparse_path",
    "write_fit",
]

# What only the command line needs is imported when it is asked for.
_LATER = {
    "Choices": "_choices",
    "default_folder": "_fit_files",
    "features_grid": "_fit_files",
    "fit_table": "_table_fit",
    "measures_grid": "_fit_files",
    "predict_file": "_predict_file",
    "write_fit": "_fit_files",
}


def __getattr__(name: str) -> Any:
    if name not in _LATER:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    found = getattr(import_module(f".{_LATER[name]}", __name__), name)
    globals()[name] = found
    return found
