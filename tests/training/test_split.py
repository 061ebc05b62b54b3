"""Splits are stratified, seeded and disjoint; statistics come from the training rows alone."""

from __future__ import annotations

import pytest
import torch

from obverse.errors import InvalidArgumentError
from obverse.training import Samples, Source, _split, read_source, split_source
from obverse.training._split import carve


def test_carve_is_stratified_disjoint_and_seeded():
    labels = torch.tensor([0] * 80 + [1] * 20)
    kept, held = carve(labels, 0.25, 3, "test")
    assert sorted([*kept.tolist(), *held.tolist()]) == list(range(100))
    assert labels[held].bincount().tolist() == [20, 5]
    assert torch.equal(held, carve(labels, 0.25, 3, "test")[1])
    assert not torch.equal(held, carve(labels, 0.25, 4, "test")[1])


def test_carve_leaves_every_class_a_row():
    kept, held = carve(torch.tensor([0, 0, 1, 1, 2]), 0.9, 0, "test")
    assert len(kept) == 3
    assert len(held) == 2


def test_carve_refuses_single_rows():
    with pytest.raises(InvalidArgumentError, match="too few"):
        carve(torch.tensor([0, 1, 2]), 0.5, 0, "test")


def test_test_rows_do_not_depend_on_the_seed():
    source = read_source("digits")
    first, second = split_source(source, 0.1, 0.2, 0), split_source(source, 0.1, 0.2, 1)
    assert torch.equal(first.test.inputs, second.test.inputs)
    assert not torch.equal(first.validation.inputs, second.validation.inputs)
    assert len(first.train) + len(first.validation) + len(first.test) == 1797


def test_statistics_see_the_training_rows_only():
    generator = torch.Generator().manual_seed(0)
    inputs = torch.randn(60, 3, generator=generator) * torch.tensor([1.0, 5.0, 0.0]) + torch.tensor([0.0, 9.0, 2.0])
    labels = torch.arange(60) % 2
    far = Samples(inputs + 1000, labels)
    data = split_source(Source("x", ("0", "1"), Samples(inputs, labels), far), 0.2, 0.2, 0)
    normal = data.normalize(data.train.inputs)
    assert torch.allclose(normal.mean(0), torch.zeros(3), atol=1e-5)
    assert torch.allclose(normal[:, :2].std(0, correction=0), torch.ones(2), atol=1e-5)
    assert data.std[2] == 1
    assert data.describe()["normalization"]["mean"] == pytest.approx(data.train.inputs.mean(0).tolist(), rel=1e-5)


def test_images_are_normalized_per_channel():
    images = torch.zeros(8, 3, 4, 4, dtype=torch.uint8)
    images[:, 1] = torch.arange(16, dtype=torch.uint8).view(4, 4)
    images[::2, 2] = 255
    data = split_source(Source("x", ("0", "1"), Samples(images, torch.arange(8) % 2), None), 0.25, 0.25, 0)
    assert data.mean.shape == (1, 3, 1, 1)
    assert float(data.mean[0, 1]) == pytest.approx(7.5)
    assert data.normalize(data.train.inputs).dtype == torch.float32


@pytest.mark.parametrize("shape", [(3, 5, 4), (7,)])
def test_statistics_do_not_depend_on_how_rows_are_taken(shape, monkeypatch):
    """Large images are taken a few at a time, so that double precision of all of them is never in memory."""
    inputs = torch.randint(0, 256, (50, *shape), generator=torch.Generator().manual_seed(0)).float()
    whole = _split._statistics(inputs)
    monkeypatch.setattr(_split, "_CHUNK", 90)
    for one, other in zip(_split._statistics(inputs), whole, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-6, atol=0)
    dims = (0, 2, 3) if len(shape) == 3 else (0,)
    torch.testing.assert_close(whole[0].flatten(), inputs.double().mean(dims).float())
    torch.testing.assert_close(whole[1].flatten(), inputs.double().std(dims, correction=0).float())
