"""What metrics of predictions have in common: batches are counted, processes are added up, the state is saved."""

from __future__ import annotations

import math
from abc import abstractmethod
from typing import Any, Self

import torch
from torch import nn

from .._core import checks
from .._core.distributed import add, is_parallel
from .._core.logits import lowest, place
from ..errors import InvalidArgumentError, UnknownNameError
from ._rows import Rows, as_rows
from ._state import StatefulModule

__all__ = ["Accumulator", "Predictions", "StreamingMetric", "Sums"]

_INPUTS = ("logits", "probabilities")


class Accumulator(StatefulModule):
    """What was counted: over all processes until they were last put together, and by this one since.

    Both are float64, in which counts of rows are exact, and stay so whatever the model is cast to.
    """

    state_tensors = ("total",)
    total: torch.Tensor

    def __init__(self, shape: tuple[int, ...]) -> None:
        super().__init__()
        self.shape = shape
        self.reset()

    @property
    def state_bytes(self) -> int:
        """Bytes of what is kept."""
        return self.value.nbytes

    def reset(self) -> None:
        """Forget everything."""
        self.total = torch.zeros(self.shape, dtype=torch.float64)
        self._unshared: torch.Tensor | None = None

    @property
    def value(self) -> torch.Tensor:
        """All that is known here."""
        return self.total if self._unshared is None else self._combined(self.total, self._unshared)

    def add(self, part: torch.Tensor) -> None:
        """Count something more."""
        self._follow(part.device)
        if not is_parallel():
            self.total = self._combined(self.total, part)
        else:
            self._unshared = part if self._unshared is None else self._combined(self._unshared, part)

    def merge(self, other: Accumulator) -> None:
        """Add what another one has counted."""
        device = self.total.device
        self.total = self._combined(self.total, other.total.to(device))
        if other._unshared is not None:
            part = other._unshared.to(device)
            self._unshared = part if self._unshared is None else self._combined(self._unshared, part)

    def synchronize(self) -> None:
        """Put together what the processes have counted; in one process nothing."""
        if not is_parallel():
            return
        part = self._unshared
        if part is None:
            part = torch.zeros(self.shape, dtype=torch.float64, device=self.total.device)
        self.total = self._combined(self.total, self._of_all(part))
        self._unshared = None

    @abstractmethod
    def _combined(self, one: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
        """Both as one."""

    @abstractmethod
    def _of_all(self, part: torch.Tensor) -> torch.Tensor:
        """The parts of all processes as one."""

    def _follow(self, device: torch.device) -> None:
        if self.total.device != device:
            self.total = self.total.to(device)
            self._unshared = None if self._unshared is None else self._unshared.to(device)

    def _apply(self, fn: Any, recurse: bool = True) -> Self:
        self._follow(fn(self.total).device)
        return self

    def _saved(self, name: str) -> torch.Tensor:
        return self.value

    def _load(self, name: str, value: torch.Tensor) -> None:
        super()._load(name, value)
        self._unshared = None


class Sums(Accumulator):
    """Sums of one shape."""

    def _combined(self, one: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
        return one + other

    def _of_all(self, part: torch.Tensor) -> torch.Tensor:
        whole = part.clone()
        add(whole)
        return whole


class Predictions:
    """The rows of a batch that count.

    Parameters
    ----------
    rows : Rows
        What was given.
    has_logits : bool
        Whether ``rows.logits`` are logits, else they are probabilities.
    """

    def __init__(self, rows: Rows, has_logits: bool) -> None:
        kept = rows.kept
        self.scores = rows.logits.detach().double()[kept]
        self._has_logits = has_logits
        self.index = None if rows.index is None else rows.index[kept]
        self.shares = None if rows.shares is None else rows.shares.detach().double()[kept]

    @property
    def p(self) -> torch.Tensor:
        """(R, K) probabilities."""
        return self.scores.softmax(1) if self._has_logits else self.scores

    @property
    def log_p(self) -> torch.Tensor:
        """(R, K) logarithms of the probabilities."""
        return self.scores.log_softmax(1) if self._has_logits else self.scores.log()

    def target(self) -> torch.Tensor:
        """(R, K) the target as probabilities."""
        if self.shares is not None:
            return self.shares
        assert self.index is not None
        return torch.zeros_like(self.scores).scatter_(1, self.index[:, None], 1.0)

    def right(self, answers: torch.Tensor) -> torch.Tensor:
        """(R,) what the target gives to answers (R,): one or zero for class indices."""
        if self.shares is not None:
            return self.shares.gather(1, answers[:, None])[:, 0]
        assert self.index is not None
        return answers.eq(self.index).double()


class StreamingMetric(nn.Module):
    """A number over all batches: ``update`` with each of them, ``compute`` at the end, ``reset`` for the next pass.

    Parameters
    ----------
    accumulator : Accumulator
    inputs : {"logits", "probabilities"}
        What `update` is given.
    ignore_index : int
        Class index of rows that do not count; nor do rows of probabilities without any mass.

    Notes
    -----
    Everything is computed in float64 and without gradients. In data-parallel evaluation each process counts its own
    rows; `synchronize`, called in every process, adds them up, and so must be called before `compute` and before a
    checkpoint. The state is in ``state_dict``; there are no buffers that a wrapped module would overwrite.
    """

    def __init__(self, accumulator: Accumulator, inputs: str, ignore_index: int) -> None:
        super().__init__()
        if inputs not in _INPUTS:
            raise UnknownNameError("kind of inputs", str(inputs), _INPUTS)
        self.inputs, self.ignore_index = inputs, checks.integer("ignore_index", ignore_index)
        self.counted = accumulator

    @torch.no_grad()
    def update(self, predictions: torch.Tensor, target: torch.Tensor) -> None:
        """Count a batch.

        Parameters
        ----------
        predictions : torch.Tensor
            (N, K) or (N, K, ...) logits, or probabilities where the metric was made for them.
        target : torch.Tensor
            Class indices (N, ...), or probabilities shaped like the predictions.

        Raises
        ------
        InvalidArgumentError
            Shapes or types that do not fit, logits that are NaN, +inf or -inf for every class, or rows that are no
            probabilities.
        """
        self._count(self._predictions(predictions, target))

    def merge(self, other: StreamingMetric) -> None:
        """Add what another metric of the same kind has counted.

        Raises
        ------
        InvalidArgumentError
            It is of another kind.
        """
        if type(other) is not type(self) or other._settings() != self._settings():
            raise InvalidArgumentError(f"only a metric of the same kind can be merged into {self}, got {other}")
        self.counted.merge(other.counted)

    def synchronize(self) -> None:
        """Add up what the processes have counted; call it in every process. In a single one it does nothing."""
        self.counted.synchronize()

    def reset(self) -> None:
        """Forget everything."""
        self.counted.reset()

    @property
    def state_bytes(self) -> int:
        """Bytes of what is kept."""
        return self.counted.state_bytes

    @abstractmethod
    def _count(self, predictions: Predictions) -> None:
        """Count the rows of a batch."""

    def _settings(self) -> tuple[Any, ...]:
        """What two metrics have in common that can be merged."""
        return tuple(self.counted.shape)

    def _predictions(self, predictions: torch.Tensor, target: torch.Tensor) -> Predictions:
        name = type(self).__name__
        rows = as_rows(predictions, target, None, self.ignore_index, name, is_loss=False)
        found = Predictions(rows, self.inputs == "logits")
        scores = found.scores
        if self.inputs == "probabilities":
            # A half-precision softmax of many classes sums to one only roughly.
            slack = 1e-3 if predictions.dtype in (torch.float32, torch.float64) else 2e-2
            if not bool(((scores >= 0).all(1) & ((scores.sum(1) - 1.0).abs() <= slack)).all()):
                raise InvalidArgumentError(
                    f"{name} was made for probabilities: rows must be at least 0 and sum to one; for logits construct "
                    'it with inputs="logits"'
                )
            return found
        masked = scores <= lowest(predictions.dtype)
        broken = (scores.isnan() | (scores == math.inf)).any(1) | masked.all(1)
        if bool(broken.any()):
            row = int(rows.kept.nonzero()[broken][0])
            raise InvalidArgumentError(
                f"{name} got logits that are no prediction: those of row {place(row, rows.shape)} are NaN, +inf, or "
                "-inf for every class"
            )
        found.scores = scores.masked_fill(masked, -math.inf)
        return found

    def extra_repr(self) -> str:
        """What is not as usual."""
        parts = [] if self.inputs == "logits" else [f"inputs={self.inputs!r}"]
        if self.ignore_index != -100:
            parts.append(f"ignore_index={self.ignore_index}")
        return ", ".join(parts)
