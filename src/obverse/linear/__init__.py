"""Sparse linear models: scikit-learn estimators and paths on one solver."""

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
    from ._choices import Choices as Choices
    from ._fit_files import default_folder as default_folder
    from ._fit_files import features_grid as features_grid
    from ._fit_files import measures_grid as measures_grid
    from ._fit_files import write_fit as write_fit
    from ._predict_file import predict_file as predict_file
    from ._table_fit import fit_table as fit_table

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

# What `obverse fit` and `obverse predict` call; loaded on first use, for tables need packages that estimators do not.
_COMMANDS = {
    "Choices": "_choices",
    "default_folder": "_fit_files",
    "features_grid": "_fit_files",
    "fit_table": "_table_fit",
    "measures_grid": "_fit_files",
    "predict_file": "_predict_file",
    "write_fit": "_fit_files",
}


def __getattr__(name: str) -> Any:
    if name in _COMMANDS:
        return getattr(import_module(f"{__name__}.{_COMMANDS[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
