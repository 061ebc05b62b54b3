"""Noisy and rare classes made of MNIST and of CIFAR-10: noise within two class pairs, then a step imbalance.

As Cao et al. (2021) build theirs: labels flip within two pairs of classes with probability 0.4, then the four classes,
by their noisy labels, are cut to a tenth of the others. Half of the rows, noisy as they are, is held out for
choosing settings; the test set is clean, and errors on it are means over classes.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from case.harness import shared_data
from torch import Tensor

from obverse.imbalance import make_imbalanced
from obverse.training import read_source

FLIPS, RATIO = 0.4, 0.1


@dataclass(frozen=True)
class Task:
    """Training and held-out rows with noisy labels, test rows with true ones."""

    train: tuple[Tensor, Tensor]
    held_out: tuple[Tensor, Tensor]
    test: tuple[Tensor, Tensor]
    noisy_and_rare: tuple[int, ...]
    flipped: float


def load(name: str) -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor], tuple[tuple[int, int], ...]]:
    """Images and labels for training and testing, normalized, and the pairs of classes that are confused."""
    source = read_source(shared_data(name))
    assert source.test is not None
    parts = [(part.inputs.float() / 255, part.labels) for part in (source.train, source.test)]
    if name == "mnist":
        parts = [((F.avg_pool2d(images, 2) - 0.1307) / 0.2, labels) for images, labels in parts]
        return parts[0], parts[1], ((4, 9), (3, 5))
    parts = [(F.avg_pool2d(images, 2), labels) for images, labels in parts]
    mean, spread = parts[0][0].mean((0, 2, 3), keepdim=True), parts[0][0].std((0, 2, 3), keepdim=True)
    parts = [((images - mean) / spread, labels) for images, labels in parts]
    return parts[0], parts[1], ((1, 9), (3, 5))


def task(
    loaded: tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor], tuple[tuple[int, int], ...]],
    frequent: int,
    test_rows: int,
    seed: int,
) -> Task:
    """The task of one seed, with ``frequent`` training rows in each class that is not rare."""
    (images, labels), (test_images, test_labels), pairs = loaded
    affected = tuple(sorted(name for pair in pairs for name in pair))
    made = make_imbalanced(
        images,
        labels,
        ratio=RATIO,
        kind="step",
        rare=affected,
        largest=2 * frequent,
        noise={"rate": FLIPS, "pairs": pairs},
        seed=seed,
    )
    generator = torch.Generator().manual_seed(seed)
    order = torch.randperm(len(made.labels), generator=generator)
    inputs, targets = made.data[order], made.labels[order]
    place = torch.zeros_like(targets)  # of a row among those of its class
    for label in range(10):
        place[targets == label] = torch.arange(int((targets == label).sum()))
    out = place % 2 == 1
    chosen = torch.randperm(len(test_labels), generator=torch.Generator().manual_seed(0))[:test_rows]
    return Task(
        (inputs[~out], targets[~out]),
        (inputs[out], targets[out]),
        (test_images[chosen], test_labels[chosen]),
        affected,
        float(made.flipped[torch.isin(made.labels, torch.tensor(affected)).numpy()].mean()),
    )
