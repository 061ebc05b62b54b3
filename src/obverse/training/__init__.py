"""The reference trainer: data sources, recipes, and runs that repeat and resume exactly."""

from __future__ import annotations

from ._batches import Batches
from ._compare import compare, compare_folder
from ._compare_table import comparison_table
from ._interrupt import InterruptedRunError, StopRequest
from ._models import MODELS, ResNet20, build_model, lenet_5, lenet_300_100, mlp, resnet20
from ._models import is_factory as is_factory
from ._recipe import LabelChoice, PenaltyChoice, Recipe, parse_budget, read_recipe
from ._robust import RobustChoices, RobustResult, robust_folder, train_robust
from ._samples import Samples, Source
from ._saved_run import SavedRun, diagnose_run, read_run
from ._shipping import bench_run, compact_run, export_run
from ._sources import SOURCES, read_source
from ._split import Data, split_source
from ._storage import hide_password
from ._study import run_recipe
from ._table import results_table
from ._trainer import Trainer

__all__ = [
    "MODELS",
    "SOURCES",
    "Batches",
    "Data",
    "InterruptedRunError",
    "LabelChoice",
    "PenaltyChoice",
    "Recipe",
    "ResNet20",
    "RobustChoices",
    "RobustResult",
    "Samples",
    "SavedRun",
    "Source",
    "StopRequest",
    "Trainer",
    "bench_run",
    "build_model",
    "compact_run",
    "compare",
    "compare_folder",
    "comparison_table",
    "diagnose_run",
    "export_run",
    "hide_password",
    "lenet_5",
    "lenet_300_100",
    "mlp",
    "parse_budget",
    "read_recipe",
    "read_run",
    "read_source",
    "resnet20",
    "results_table",
    "robust_folder",
    "run_recipe",
    "split_source",
    "train_robust",
]
