"""The columns of working sets, scaled, without their products."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import scipy.sparse as sp

from ._design import Design

__all__ = ["ColumnStore"]

Integers = npt.NDArray[np.int64]


class ColumnStore:
    """Scaled columns, dense or CSC, that grow with the working sets of all problems on the same data."""

    def __init__(self, design: Design) -> None:
        self.design = design
        self.place = np.full(design.columns, -1, np.int64)
        self.size = 0
        self._kept: Any = None

    @property
    def columns(self) -> Any:
        """(n, size); dense ones are centered as the design says, sparse ones are not."""
        return self._kept if self.design.is_sparse else self._kept[:, : self.size]

    def require(self, features: Integers) -> None:
        """Take in those features that are not there yet."""
        new = np.unique(features[self.place[features] < 0])
        if new.size == 0 and self._kept is not None:
            return
        old, self.size = self.size, self.size + new.size
        self.place[new] = np.arange(old, self.size)
        if self.design.is_sparse:
            fresh: Any = sp.csc_array(self.design.X[:, new], dtype=np.float64)
            fresh = fresh.multiply(1 / self.design.scale[new]).tocsc()
            self._kept = fresh if self._kept is None else sp.hstack([self._kept, fresh], format="csc")
            return
        if self._kept is None or self._kept.shape[1] < self.size:
            grown = np.empty((self.design.rows, max(64, 2 * self.size)), order="F")
            if old:
                grown[:, :old] = self._kept[:, :old]
            self._kept = grown
        self._kept[:, old : self.size] = self.design.dense(new)
