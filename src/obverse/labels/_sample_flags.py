"""One yes or no per training sample, by the sample's id."""

from __future__ import annotations

import torch

from .._core import checks
from ._sample_ids import missing_rows
from ._state import StatefulModule

__all__ = ["SampleFlags"]

_NEVER = 2


class SampleFlags(StatefulModule):
    """A table of a byte per sample whose row number is the id of the sample: no, yes, or never decided.

    Parameters
    ----------
    num_samples : int, optional
        Ids are below it; by default the table grows with the largest id written.
    """

    state_tensors = ("flags",)
    _takes_any_length = True
    flags: torch.Tensor

    def __init__(self, num_samples: int | None) -> None:
        super().__init__()
        self.num_samples = None if num_samples is None else checks.count("num_samples", num_samples)
        self.flags = torch.full((num_samples or 0,), _NEVER, dtype=torch.uint8)

    def read(self, ids: torch.Tensor, otherwise: torch.Tensor) -> torch.Tensor:
        """(R,) booleans; those of ``otherwise`` where nothing was decided."""
        self._make_room(ids)
        flags = self.flags[ids]
        return torch.where(flags == _NEVER, otherwise, flags == 1)

    def write(self, ids: torch.Tensor, flags: torch.Tensor) -> None:
        """Remember booleans (R,) under ids (R,)."""
        self._make_room(ids)
        self.flags[ids] = flags.to(torch.uint8)

    def _make_room(self, ids: torch.Tensor) -> None:
        more = missing_rows(ids, len(self.flags), self.num_samples)
        if more:
            self.flags = torch.cat([self.flags, self.flags.new_full((more,), _NEVER)])
