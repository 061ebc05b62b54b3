"""MNIST and CIFAR-10 at half their size with wrong labels: by a symmetric law, or one that confuses what looks alike.

The asymmetric flips are the usual ones (Patrini et al., 2017): 2 to 7, 3 to 8, 7 to 1, 5 and 6 to each other among the
digits; truck to automobile, bird to airplane, deer to horse, cat and dog to each other among the images.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch.nn.functional as F
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
    """Images at half their size, in [0, 1], and labels."""
    source = read_source(shared_data(name))
    assert source.test is not None
    parts = (("train", source.train), ("test", source.test))
    return {part: (F.avg_pool2d(samples.inputs.float() / 255, 2), samples.labels) for part, samples in parts}


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
    mean, spread = images[:rows].mean((0, 2, 3), keepdim=True), images[:rows].std((0, 2, 3), keepdim=True)
    inputs = ((images - mean) / spread).to(device)
    test_images, test_labels = (part[:test_rows] for part in loaded["test"])
    labels, clean = labels.to(device), clean.to(device)
    return Task(
        (inputs[:rows], labels[:rows]),
        (inputs[rows:], labels[rows:]),
        (inputs[rows:], clean[rows:]),
        (((test_images - mean) / spread).to(device), test_labels.to(device)),
        name == "cifar10",
    )
