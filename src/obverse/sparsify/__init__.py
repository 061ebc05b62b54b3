"""Training sparse networks: rules, groups, faces and budgets."""

from __future__ import annotations

from ._budget import Budget
from ._groups import SPANNING as SPANNING
from ._groups import Grouping
from ._notes import SparsityWarning
from ._rules import Rule
from ._rules import select as select
from ._sparsifier import Sparsifier
from ._zeros import keep_zeros, release_zeros
from .faces import (
    FACES,
    ConcreteNoise,
    Face,
    HardConcreteGates,
    LearnedEta,
    MagnitudePruning,
    RandomPruning,
    TargetedNoise,
    VariationalNoise,
)

__all__ = [
    "FACES",
    "Budget",
    "ConcreteNoise",
    "Face",
    "Grouping",
    "HardConcreteGates",
    "LearnedEta",
    "MagnitudePruning",
    "RandomPruning",
    "Rule",
    "Sparsifier",
    "SparsityWarning",
    "TargetedNoise",
    "VariationalNoise",
    "keep_zeros",
    "release_zeros",
]
