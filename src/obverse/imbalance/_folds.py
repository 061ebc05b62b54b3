"""Rows in a random order of their group, from which folds and nested subsets follow."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["ranks_in_groups"]


def ranks_in_groups(members: Tensor, groups: int, folds: int, generator: torch.Generator) -> Tensor:
    """Place of every row in a random order of its group: the fold is its remainder, the subset its quotient."""
    ranks = torch.empty_like(members)
    for group in range(groups):
        inside = torch.nonzero(members == group)[:, 0]
        # A random offset, lest the same fold of every small group is the largest.
        offset = int(torch.randint(folds, (), generator=generator))
        ranks[inside[torch.randperm(len(inside), generator=generator)]] = torch.arange(len(inside)) + offset
    return ranks
