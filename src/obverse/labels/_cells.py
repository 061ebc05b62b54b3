"""Every distinct score with how often it came and how often it was right."""

from __future__ import annotations

import torch

from .._core.distributed import is_parallel
from ._distributed import rows_of_all
from ._streaming import Accumulator

__all__ = ["Cells"]

# Rows are put in order when as many have come as are in order already, at least so many.
_PENDING = 65_536


class Cells(Accumulator):
    """A table of (M, 4): score, group, count and hits, in the order of group and score, without duplicates.

    Parameters
    ----------
    groups : int
        Number of groups; their numbers are below it.

    Notes
    -----
    32 bytes for each distinct score of a group; nothing is rounded, so that tables can be merged in any order.
    """

    _takes_any_length = True

    def __init__(self, groups: int) -> None:
        self.groups = groups
        super().__init__((0, 4))

    def reset(self) -> None:
        """Forget everything."""
        super().reset()
        self._pending: list[torch.Tensor] = []

    def add(self, part: torch.Tensor) -> None:
        """Count rows (R, 4)."""
        self._pending.append(part)
        if sum(map(len, self._pending)) > max(_PENDING, len(self.total)):
            self._settle()

    @property
    def value(self) -> torch.Tensor:
        """The table."""
        self._settle()
        return super().value

    def merge(self, other: Accumulator) -> None:
        """Add the rows of another table."""
        self._settle()
        if isinstance(other, Cells):
            other._settle()
        super().merge(other)

    def synchronize(self) -> None:
        """Put the rows of all processes together."""
        self._settle()
        super().synchronize()

    def _settle(self) -> None:
        pending, self._pending = self._pending, []
        if pending:
            super().add(torch.cat([part.to(pending[-1].device) for part in pending]))

    def _combined(self, one: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
        rows = torch.cat([one, other])
        rows = rows[rows[:, 0].argsort(stable=True)]
        rows = rows[rows[:, 1].argsort(stable=True)]
        begins = torch.ones(len(rows), dtype=torch.bool, device=rows.device)
        begins[1:] = (rows[1:, :2] != rows[:-1, :2]).any(1)
        merged = rows[begins]
        merged[:, 2:] = torch.zeros_like(merged[:, 2:]).index_add_(0, begins.cumsum(0) - 1, rows[:, 2:])
        return merged

    def _of_all(self, part: torch.Tensor) -> torch.Tensor:
        if not is_parallel():
            return part
        return rows_of_all(part)[0]

    def _problems(self, given: dict[str, torch.Tensor]) -> list[str]:
        found = super()._problems(given)
        if not found and any(len(value) and float(value[:, 1].max()) >= self.groups for value in given.values()):
            found.append(f"total has rows of more than {self.groups} groups: it is of a metric of another kind")
        return found

    def _load(self, name: str, value: torch.Tensor) -> None:
        super()._load(name, value)
        self._pending = []
