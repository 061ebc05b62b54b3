"""Training sparse networks: rules, groups, faces and budgets."""

from __future__ import annotations

from ._budget import Budget
from ._groups import Grouping
from ._rules import Rule
from ._sparsifier import Sparsifier
from ._zeros import keep_zeros, release_zeros

__all__ = ["Budget", "Grouping", "Rule", "Sparsifier", "keep_zeros", "release_zeros"]
