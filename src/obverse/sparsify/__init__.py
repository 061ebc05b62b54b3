"""Training sparse networks: rules, groups, faces and budgets."""

from __future__ import annotations

from ._budget import Budget
from ._groups import SPANNING, Grouping
from ._notes import SparsityWarning
from ._rules import Rule, regularized
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
    "SPANNING",
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
    "regularized",
    "release_zeros",
]
