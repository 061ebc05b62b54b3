"""Batches cover every row once, in the same way for any number of processes."""

from __future__ import annotations

import pytest
import torch

from obverse.errors import InvalidArgumentError
from obverse.training import Batches
from obverse.training._batches import augment_images


@pytest.mark.parametrize(("rows", "size"), [(10, 3), (1, 5), (64, 64), (65, 64), (100, 7)])
def test_every_row_once(rows, size):
    batches = Batches(rows, size, seed=1).epoch(0)
    assert sorted(torch.cat(batches).tolist()) == list(range(rows))
    sizes = [len(batch) for batch in batches]
    assert max(sizes) <= size
    assert max(sizes) - min(sizes) <= 1


def test_epochs_and_seeds_differ_and_repeat():
    batches = Batches(50, 50, seed=1)
    assert torch.equal(batches.epoch(2)[0], Batches(50, 50, seed=1).epoch(2)[0])
    assert not torch.equal(batches.epoch(2)[0], batches.epoch(3)[0])
    assert not torch.equal(batches.epoch(2)[0], Batches(50, 50, seed=2).epoch(2)[0])


def test_processes_share_each_batch():
    parts = [Batches(50, 16, 0, rank, 3) for rank in range(3)]
    for whole in parts[0].epoch(0):
        assert sorted(torch.cat([part.share(whole) for part in parts]).tolist()) == sorted(whole.tolist())


def test_more_processes_than_rows():
    with pytest.raises(InvalidArgumentError, match="cannot be shared by 4 processes"):
        Batches(30, 2, 0, 0, 4)


def test_flip_mirrors_and_shift_moves():
    images = torch.arange(2 * 16, dtype=torch.uint8).view(2, 1, 4, 4) + 1
    for step in range(8):
        flipped = augment_images(images, "flip", 0, step, 0, 1, 2)
        for before, after in zip(images, flipped, strict=True):
            assert torch.equal(before, after) or torch.equal(before.flip(-1), after)
    moved = [augment_images(images, "shift", 0, step, 0, 1, 2) for step in range(8)]
    assert any(not torch.equal(images, each) for each in moved)
    assert {int(v) for each in moved for v in each.flatten()} <= {0, *images.flatten().tolist()}
    assert moved[0].dtype == torch.uint8


@pytest.mark.parametrize("kind", ["none", "shift", "flip", "shift+flip"])
def test_augmentation_does_not_depend_on_the_number_of_processes(kind):
    images = torch.randint(0, 255, (7, 3, 8, 8), dtype=torch.uint8)
    whole = augment_images(images, kind, 5, 3, 0, 1, 7)
    for rank in range(2):
        part = augment_images(images[rank::2], kind, 5, 3, rank, 2, 7)
        assert torch.equal(whole[rank::2], part)
