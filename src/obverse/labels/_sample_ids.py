"""Ids of samples as row numbers of a table that may grow."""

from __future__ import annotations

import torch

from ..errors import InvalidArgumentError

__all__ = ["missing_rows"]


def missing_rows(ids: torch.Tensor, rows: int, num_samples: int | None) -> int:
    """How many rows a table of ``rows`` lacks for these ids; it at least doubles, so that a row costs a constant.

    Raises
    ------
    InvalidArgumentError
        An id below 0, or not below ``num_samples``. With ``num_samples`` and on an accelerator, which would have to be
        waited for, the check is left to the indexing.
    """
    if not len(ids) or (num_samples is not None and ids.device.type != "cpu"):
        return 0
    least, greatest = (int(end) for end in ids.aminmax())
    if least < 0 or (num_samples is not None and greatest >= num_samples):
        allowed = "at least 0" if num_samples is None else f"in [0, {num_samples - 1}]"
        raise InvalidArgumentError(f"ids of samples must be {allowed}, got {least if least < 0 else greatest}")
    lacking = greatest + 1 - rows
    return max(lacking, rows) if lacking > 0 else 0
