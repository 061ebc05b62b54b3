"""What a source gives: inputs and labels, with the test split where it has one."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..errors import InvalidArgumentError

__all__ = ["Samples", "Source"]


@dataclass(frozen=True)
class Samples:
    """Inputs and labels, one row per sample.

    Attributes
    ----------
    inputs : Tensor
        uint8, (rows, channels, height, width), for images; int32, (rows, words), for texts; float32, (rows, features),
        otherwise.
    labels : Tensor of int64, shape (rows,)
    groups : array of str, shape (rows,), or None
        The column of metadata that was asked for.
    """

    inputs: Tensor
    labels: Tensor
    groups: NDArray[np.str_] | None = None

    def __post_init__(self) -> None:
        if len(self.inputs) != len(self.labels):
            raise InvalidArgumentError(f"{len(self.inputs)} inputs and {len(self.labels)} labels: they must pair up")

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def is_text(self) -> bool:
        """Whether inputs are word ids."""
        return self.inputs.dtype == torch.int32

    def rows(self, index: Tensor) -> Samples:
        """The samples at ``index``."""
        groups = None if self.groups is None else self.groups[index.cpu().numpy()]
        return Samples(self.inputs[index], self.labels[index], groups)


@dataclass(frozen=True)
class Source:
    """A data set as its owner published it, before any split of ours.

    Attributes
    ----------
    name : str
        Short name, used in the name of the output folder.
    classes : tuple of str
        Class names in the order of the labels.
    train : Samples
    test : Samples or None
        None when the source has no test split.
    """

    name: str
    classes: tuple[str, ...]
    train: Samples
    test: Samples | None

    def __post_init__(self) -> None:
        if len(self.classes) < 2 or int(self.train.labels.min()) == int(self.train.labels.max()):
            raise InvalidArgumentError(f"{self.name}: the training data hold a single class; at least two are needed")
        if self.test is not None and self.test.is_text != self.train.is_text:
            kinds = ("texts", "numbers") if self.train.is_text else ("numbers", "texts")
            raise InvalidArgumentError(f"{self.name}: training inputs are {kinds[0]} and test inputs {kinds[1]}")
        if self.test is not None and self.test.inputs.shape[1:] != self.train.inputs.shape[1:]:
            raise InvalidArgumentError(
                f"{self.name}: training inputs have shape {tuple(self.train.inputs.shape[1:])} "
                f"and test inputs {tuple(self.test.inputs.shape[1:])}; they must agree"
            )
