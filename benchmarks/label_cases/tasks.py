"""MNIST and CIFAR-10 with labels made wrong: by a symmetric law, or by one that confuses what looks alike.

The asymmetric flips are the usual ones (Patrini et al., 2017): 2 to 7, 3 to 8, 7 to 1, 5 and 6 to each other among the
digits; truck to automobile, bird to airplane, deer to horse, cat and dog to each other among the images.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from case.harness import shared_data
from torch import Tensor

from obverse.imbalance import corrupt_labels
from obverse.training import read_source

__all__ = ["DATA", "NOISES", "Task", "load", "task"]

Part = tuple[Tensor, Tensor]

DATA = ("cifar10", "mnist")
NOISES = ("none", "symmetric 0.2", "symmetric 0.4", "asymmetric 0.4")
CONFUSED = {
    "mnist": {2: 7, 3: 8, 7: 1, 5: 6, 6: 5},
    "cifar10": {9: 1, 2: 0, 4: 7, 3: 5, 5: 3},
}


@dataclass(frozen=True)
class Task:
    """Rows to train on and held-out rows, both with noisy labels; held-out and test rows with true ones."""

    train: Part
    held_out: Part
    held_out_clean: Part
    test: Part
    is_image: bool


def load(name: str) -> dict[str, Part]:
    """Images as bytes, and labels."""
    source = read_source(shared_data(name))
    assert source.test is not None
    return {name: (part.inputs, part.labels) for name, part in (("train", source.train), ("test", source.test))}


def task(
    loaded: dict[str, Part], name: str, noise: str, rows: int, held_out: int, device: str, test_rows: int | None = None
) -> Task:
    """The first ``rows`` training images, the ``held_out`` ones that follow, and the test images.

    The noise is the same for all methods and seeds.
    """
    images, clean = (part[: rows + held_out] for part in loaded["train"])
    labels = clean
    kind, _, rate = noise.partition(" ")
    if kind != "none":
        law: dict[str, Any] = {"pairs": CONFUSED[name]} if kind == "asymmetric" else {}
        labels = corrupt_labels(clean, float(rate), classes=list(range(10)), seed=7, **law).labels
    scaled = images.float() / 255
    mean, spread = scaled[:rows].mean((0, 2, 3), keepdim=True), scaled[:rows].std((0, 2, 3), keepdim=True)
    inputs = ((scaled - mean) / spread).to(device)
    test_images, test_labels = (part[:test_rows] for part in loaded["test"])
    labels, clean = labels.to(device), clean.to(device)
    return Task(
        (inputs[:rows], labels[:rows]),
        (inputs[rows:], labels[rows:]),
        (inputs[rows:], clean[rows:]),
        (((test_images.float() / 255 - mean) / spread).to(device), test_labels.to(device)),
        name == "cifar10",
    )
