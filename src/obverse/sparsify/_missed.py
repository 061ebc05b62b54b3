"""How a budget that was not met is put into words, one line for each aim."""

from __future__ import annotations

import math
from collections.abc import Mapping

from ._budget import Budget

__all__ = ["EMPTY", "NOTHING_TRAINS", "missed_costs", "missed_sparsity"]

# A sparsity missed by more than this share of all weights, or of those that should stay, is said.
_OF_ALL = 0.01
_OF_KEPT = 0.05
# So is a time: two measurements differ by as much.
_OF_TIME = 0.05

NOTHING_TRAINS = (
    "the budget was not met: all weights that it is about were frozen (requires_grad=False) when the support was to be "
    "fixed, and are left alone"
)
EMPTY = "{!r} has no weight left: its layer no longer passes anything on; ask for less, or give every layer a floor"
_WHY = (
    "is the nearest that whole groups and the floor of every layer allow; use smaller groups, a lower floor, or "
    "another budget"
)


def missed_sparsity(sparsity: float, left: int, weights: int, largest_group: int) -> list[str]:
    """What to say where ``left`` of ``weights`` weights stay at the end of a sparsity."""
    wanted = (1 - sparsity) * weights
    missed = abs(left - wanted)
    if missed <= _OF_ALL * weights and missed <= max(_OF_KEPT * wanted, largest_group):
        return []
    # As many decimals as tell a sparsity near 1 from 1.
    digits = max(3, 2 - math.floor(math.log10(1 - sparsity)))
    return [f"the budget asks for a sparsity of {sparsity:g}; {1 - left / weights:.{digits}f} {_WHY}"]


def missed_costs(budget: Budget, costs: Mapping[str, float]) -> list[str]:
    """What to say of costs that are above their limits."""
    lines = []
    for name, cost in costs.items():
        limit, is_time = budget.costs[name], name == "latency"
        if cost > limit * (1 + _OF_TIME * is_time):
            asked, found = (f"{limit:g}", f"{cost:g}") if is_time else (f"{limit:,.0f}", f"{cost:,.0f}")
            lines.append(f"the budget asks for {name} of at most {asked}; {found} {_WHY}")
    return lines
