"""One remembered distribution over classes per training sample, by the sample's id, compressed."""

from __future__ import annotations

import torch

from .._core import checks
from ._distributed import rows_of_all
from ._sample_ids import missing_rows
from ._state import StatefulModule

__all__ = ["SampleMemory"]


class SampleMemory(StatefulModule):
    """A table of distributions whose row number is the id of a sample.

    Parameters
    ----------
    num_classes : int
    num_samples : int, optional
        Ids are below it; by default the table grows with the largest id seen.
    top : int, optional
        How many classes are stored of each row, the largest ones, as float16 with their numbers as int16 (int32 beyond
        32767 classes): ``4 top`` bytes per sample, 40 for ten, 51 MB for ImageNet. None, or at least K: all K as
        float32, ``4 K`` bytes.
    spread : bool
        Whether the mass that was not stored is read back evenly over the other classes, for rows that sum to one.

    Notes
    -----
    Every process holds the whole table: a sample may meet another process in the next epoch. `write` gathers the
    compressed rows of all processes, so that any process may save the state.
    """

    state_tensors = ("values", "classes")
    _takes_any_length = True
    values: torch.Tensor
    classes: torch.Tensor

    def __init__(self, num_classes: int, num_samples: int | None, top: int | None, *, spread: bool) -> None:
        super().__init__()
        self.num_classes = num_classes
        self.num_samples = None if num_samples is None else checks.count("num_samples", num_samples)
        self.top = None if top is None or checks.count("top", top) >= num_classes else top
        self.spread = spread
        width = num_classes if self.top is None else self.top
        number = torch.int16 if num_classes <= torch.iinfo(torch.int16).max else torch.int32
        # A negative first value marks a sample that was never seen.
        rows = num_samples or 0
        self.values = torch.full((rows, width), -1.0, dtype=torch.float32 if self.top is None else torch.float16)
        self.classes = torch.zeros(rows, 0 if self.top is None else width, dtype=number)

    def read(
        self, ids: torch.Tensor, dtype: torch.dtype, masked: torch.Tensor | None = None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Distributions (R, K), zero where never seen, and (R,) whether they were seen.

        Parameters
        ----------
        ids : torch.Tensor
            (R,)
        dtype : torch.dtype
            Type of the distributions.
        masked : torch.Tensor, optional
            (R, K) booleans: classes among which no mass is spread.
        """
        self._make_room(ids)
        values = self.values[ids].to(dtype)
        seen = values[:, 0] >= 0
        values = torch.where(seen[:, None], values, 0.0)
        if self.top is None:
            return values, seen
        classes = self.classes[ids].long()
        rest = torch.zeros(len(ids), 1, dtype=dtype, device=values.device)
        if self.spread:
            rest = (1.0 - values.sum(1, keepdim=True)).clamp(min=0.0)
            rest = torch.where(seen[:, None], rest, 0.0)
        if masked is None:
            dense = (rest / (self.num_classes - self.top)).repeat(1, self.num_classes)
        else:
            free = (~masked).to(dtype).scatter(1, classes, 0.0)
            dense = rest * free / free.sum(1, keepdim=True).clamp(min=1.0)
        return dense.scatter_(1, classes, values), seen

    def write(self, ids: torch.Tensor, distributions: torch.Tensor) -> None:
        """Remember distributions (R, K) under ids (R,), of all processes; of equal ids the last one stays."""
        values, classes = distributions, distributions.new_zeros(len(ids), 0)
        if self.top is not None:
            values, classes = distributions.topk(self.top, 1)
        numbers = classes.to(self.classes.dtype)
        if self.top is None:
            ids, kept = rows_of_all(ids, values.to(self.values.dtype))
        else:
            ids, kept, numbers = rows_of_all(ids, values.to(self.values.dtype), numbers)
        self._make_room(ids)
        self.values[ids] = kept
        if self.top is not None:
            self.classes[ids] = numbers

    def _problems(self, given: dict[str, torch.Tensor]) -> list[str]:
        found = super()._problems(given)
        if found or len(given) < 2:
            return found
        values, classes = given["values"], given["classes"]
        if len(values) != len(classes):
            found.append(f"values has {len(values)} rows, classes has {len(classes)}")
        elif classes.numel() and not 0 <= int(classes.min()) <= int(classes.max()) < self.num_classes:
            found.append(f"classes has numbers outside [0, {self.num_classes - 1}]: it is of another number of classes")
        elif self.num_samples is not None and len(values) > self.num_samples:
            found.append(f"values has {len(values)} rows, this criterion was made for {self.num_samples} samples")
        return found

    def _make_room(self, ids: torch.Tensor) -> None:
        """Check the ids and let the table grow to the largest one."""
        more = missing_rows(ids, len(self.values), self.num_samples)
        if more:
            self.values = torch.cat([self.values, self.values.new_full((more, self.values.shape[1]), -1.0)])
            self.classes = torch.cat([self.classes, self.classes.new_zeros(more, self.classes.shape[1])])

    def extra_repr(self) -> str:
        """Size and compression."""
        stored = "all classes" if self.top is None else f"top {self.top} of {self.num_classes} classes"
        return f"{len(self.values)} samples, {stored}, {self.state_bytes} bytes"
