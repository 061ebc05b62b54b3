"""From a source to what training sees: three splits, with statistics from the training split only."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ..errors import InvalidArgumentError
from ._samples import Samples, Source
from ._words import TOKENS

__all__ = ["Data", "carve", "split_source"]

# The test rows of a source without a test split do not depend on the seed: no seed can be chosen for them.
_TEST_SEED = 20_210_614
_CHUNK = 2**26


@dataclass(frozen=True)
class Data:
    """Data ready for training.

    Attributes
    ----------
    name : str
    classes : tuple of str
    train, validation, test : Samples
    mean, std : Tensor
        Per channel of images (in pixel values) or per feature, of the training split; shaped to broadcast. 0 and 1 for
        texts.
    """

    name: str
    classes: tuple[str, ...]
    train: Samples
    validation: Samples
    test: Samples
    mean: Tensor
    std: Tensor

    @property
    def input_shape(self) -> tuple[int, ...]:
        """Shape of one input."""
        return tuple(self.train.inputs.shape[1:])

    @property
    def is_image(self) -> bool:
        """Whether inputs are images."""
        return self.train.inputs.ndim == 4

    @property
    def tokens(self) -> int | None:
        """Number of word ids where inputs are texts, else None."""
        return TOKENS if self.train.is_text else None

    def normalize(self, inputs: Tensor) -> Tensor:
        """Inputs in float32, centered and scaled by the statistics of the training split; texts as they are."""
        if self.tokens is not None:
            return inputs
        return (inputs.to(torch.float32) - self.mean) / self.std

    def to(self, device: torch.device) -> Data:
        """The same data on ``device``."""
        if device.type == "cpu":
            return self
        train, validation, test = (
            Samples(part.inputs.to(device), part.labels.to(device), part.groups)
            for part in (self.train, self.validation, self.test)
        )
        mean, std = self.mean.to(device), self.std.to(device)
        return Data(self.name, self.classes, train, validation, test, mean, std)

    def describe(self) -> dict[str, Any]:
        """What a report says about the data."""
        kind = {} if self.tokens is None else {"tokens": self.tokens}
        return {
            "name": self.name,
            "classes": list(self.classes),
            "train": len(self.train),
            "validation": len(self.validation),
            "test": len(self.test),
            "input_shape": list(self.input_shape),
            "normalization": {"mean": self.mean.flatten().tolist(), "std": self.std.flatten().tolist()},
            **kind,
        }


def split_source(source: Source, validation_fraction: float, test_fraction: float, seed: int) -> Data:
    """Carve validation (and test, where the source has none) from the training rows, stratified by class.

    Parameters
    ----------
    source : Source
    validation_fraction : float
        Share of the training rows, after the test rows are gone.
    test_fraction : float
        Share of all rows; used only when the source has no test split.
    seed : int
        Which validation split; the test split is the same for every seed.
    """
    train, test = source.train, source.test
    if test is None:
        kept, held = carve(train.labels, test_fraction, _TEST_SEED, "test")
        train, test = train.rows(kept), train.rows(held)
    kept, held = carve(train.labels, validation_fraction, seed, "validation")
    train, validation = train.rows(kept), train.rows(held)
    mean, std = (torch.zeros(1), torch.ones(1)) if train.is_text else _statistics(train.inputs)
    return Data(source.name, source.classes, train, validation, test, mean, std)


def carve(labels: Tensor, fraction: float, seed: int, what: str) -> tuple[Tensor, Tensor]:
    """Row numbers (kept, held out): ``fraction`` of every class is held out, at least one row stays.

    Raises
    ------
    InvalidArgumentError
        When no class has rows enough to hold one out.
    """
    generator = torch.Generator().manual_seed(seed)
    kept, held = [], []
    for label in range(int(labels.max()) + 1):
        rows = (labels == label).nonzero().flatten()
        rows = rows[torch.randperm(len(rows), generator=generator)]
        count = max(0, min(max(1, round(fraction * len(rows))), len(rows) - 1))
        held.append(rows[:count])
        kept.append(rows[count:])
    out = torch.cat(held)
    if len(out) == 0:
        raise InvalidArgumentError(f"{len(labels)} rows are too few to carve a {what} split: every class has one row")
    return torch.cat(kept).sort().values, out.sort().values


def _statistics(inputs: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation in float64, per channel or feature; a constant one is left unscaled."""
    image = inputs.ndim == 4
    dims = (0, 2, 3) if image else (0,)
    # Rows at a time: in double precision, a chunk takes eight times what its pixels take, and less than half a GiB.
    rows = min(4096, max(1, _CHUNK // max(1, math.prod(inputs.shape[1:]))))
    chunks = [inputs[start : start + rows] for start in range(0, len(inputs), rows)]
    count = inputs.numel() / inputs.shape[1]
    mean = sum((c.double().sum(dims) for c in chunks), torch.zeros(inputs.shape[1], dtype=torch.float64)) / count
    shaped = mean.view(1, -1, 1, 1) if image else mean
    square = sum(((c.double() - shaped) ** 2).sum(dims) for c in chunks)
    std = torch.as_tensor(square / count).sqrt()
    std = torch.where(std > 1e-6 * mean.abs().clamp(min=1e-30), std, torch.ones_like(std))
    if image:
        return shaped.float(), std.view(1, -1, 1, 1).float()
    return mean.float(), std.float()
