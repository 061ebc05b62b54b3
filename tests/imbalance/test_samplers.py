"""Samplers: shares of classes, seeds, epochs; and classifiers learned or rescaled after training."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from obverse.errors import InvalidArgumentError, NonFiniteError
from obverse.imbalance import (
    ClassBalancedSampler,
    DeferredSampler,
    NormalizedLinear,
    ProgressiveSampler,
    ResamplingSampler,
    SquareRootSampler,
    class_balanced_weights,
    retrain_classifier,
    tau_normalize,
)

LABELS = np.repeat(["a", "b", "c"], [9000, 900, 100])
SAMPLERS: dict[str, Callable[..., ResamplingSampler]] = {
    "balanced": ClassBalancedSampler,
    "square root": SquareRootSampler,
    "progressive": lambda labels, **options: ProgressiveSampler(labels, epochs=3, **options),
    "deferred": lambda labels, **options: DeferredSampler(labels, start=1, **options),
}


def shares(sampler: ResamplingSampler) -> np.ndarray:
    drawn = LABELS[list(sampler)]
    return np.array([(drawn == name).mean() for name in "abc"])


@pytest.mark.parametrize("make", SAMPLERS.values(), ids=SAMPLERS.keys())
def test_draws_follow_the_stated_probabilities_and_seeds(make: Callable[..., ResamplingSampler]) -> None:
    sampler, again = make(LABELS, seed=4), make(LABELS, seed=4)
    for epoch in range(3):
        expected = sampler.class_probabilities(epoch)
        assert float(expected.sum()) == pytest.approx(1.0)
        drawn = list(sampler)
        assert drawn == list(again)
        assert len(drawn) == len(sampler) == 10000
        found = [(LABELS[drawn] == name).mean() for name in "abc"]
        np.testing.assert_allclose(found, expected.numpy(), atol=0.02)
    resumed = make(LABELS, seed=4)
    resumed.set_epoch(2)
    again.set_epoch(2)
    assert list(resumed) == list(again)
    assert list(make(LABELS, seed=4, num_samples=50)) != list(make(LABELS, seed=5, num_samples=50))
    assert len(list(make(LABELS, num_samples=12345))) == 12345


def test_closed_forms() -> None:
    assert ClassBalancedSampler(LABELS).class_probabilities(0).tolist() == pytest.approx([1 / 3] * 3)
    roots = np.sqrt([9000, 900, 100])
    assert SquareRootSampler(LABELS).class_probabilities(5).tolist() == pytest.approx(roots / roots.sum())
    progressive = ProgressiveSampler(LABELS, epochs=3)
    assert progressive.class_probabilities(0).tolist() == pytest.approx([0.9, 0.09, 0.01])
    assert progressive.class_probabilities(1)[2] == pytest.approx((0.01 + 1 / 3) / 2)
    assert progressive.class_probabilities(9).tolist() == pytest.approx([1 / 3] * 3)
    deferred = DeferredSampler(LABELS, start=1)
    assert sorted(deferred) == list(range(10000))
    mass = np.array([9000, 900, 100]) * class_balanced_weights([9000, 900, 100]).numpy()
    assert deferred.class_probabilities(1).tolist() == pytest.approx(mass / mass.sum())


def test_rows_within_a_class_are_equally_likely() -> None:
    drawn = np.array(list(ClassBalancedSampler([0, 0, 1], num_samples=60000)))
    np.testing.assert_allclose(np.bincount(drawn) / 60000, [0.25, 0.25, 0.5], atol=0.01)


@pytest.mark.parametrize(
    "call",
    [
        lambda: ClassBalancedSampler([]),
        lambda: ClassBalancedSampler([0, 1], num_samples=0),
        lambda: ProgressiveSampler([0, 1], epochs=1),
        lambda: DeferredSampler([0, 1], start=-1),
        lambda: DeferredSampler([0, 1], start=1, beta=2.0),
    ],
)
def test_bad_samplers(call: Callable[[], object]) -> None:
    with pytest.raises(InvalidArgumentError):
        call()


def loader() -> DataLoader[tuple[torch.Tensor, ...]]:
    generator = torch.Generator().manual_seed(0)
    labels = torch.tensor([0] * 200 + [1] * 10)
    inputs = torch.randn(210, 5, generator=generator) + 1.5 * labels[:, None]
    return DataLoader(TensorDataset(inputs, labels), batch_size=42, sampler=ClassBalancedSampler(labels))


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(5, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Dropout(0.5), nn.Linear(8, 2))


def test_only_the_classifier_is_retrained() -> None:
    model = network()
    model.train()
    model[0].weight.requires_grad_(False)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    assert retrain_classifier(model, loader(), epochs=5) is model
    for key, value in model.state_dict().items():
        assert torch.equal(value, before[key]) == (not key.startswith("4."))
    assert model.training
    assert model[1].training
    assert not model[0].weight.requires_grad
    assert all(parameter.grad is None for parameter in model.parameters())
    model.eval()
    inputs, labels = next(iter(loader()))
    assert float((model(inputs).argmax(1) == labels).float().mean()) > 0.85


def test_retraining_a_cosine_head_by_name() -> None:
    model = nn.Sequential(nn.Linear(5, 8), NormalizedLinear(8, 2, scale=10.0))
    before = model[1].weight.detach().clone()
    retrain_classifier(model, loader(), head="1", epochs=1, reset=False)
    assert not torch.equal(model[1].weight, before)


def test_retraining_that_fails_changes_nothing() -> None:
    model = network()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    with pytest.raises(NonFiniteError, match="epoch 0"):
        retrain_classifier(model, loader(), loss=lambda z, y: z.sum() * torch.nan)
    with pytest.raises(InvalidArgumentError, match="empty"):
        retrain_classifier(model, [])
    with pytest.raises(InvalidArgumentError, match="no linear layer"):
        retrain_classifier(model, loader(), head="7")
    with pytest.raises(InvalidArgumentError, match="Linear"):
        retrain_classifier(nn.Sequential(nn.ReLU()), loader())
    with pytest.raises(InvalidArgumentError, match="epochs"):
        retrain_classifier(model, loader(), epochs=0)
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())


def test_tau_normalization() -> None:
    head = nn.Linear(4, 3)
    with torch.no_grad():
        head.weight[2] = 0.0
    kept, unit, half = (tau_normalize(head, tau) for tau in (0.0, 1.0, 0.5))
    torch.testing.assert_close(kept.weight, head.weight)
    assert bool((kept.bias == 0).all())
    torch.testing.assert_close(unit.weight[:2].norm(dim=1), torch.ones(2))
    torch.testing.assert_close(half.weight[0].norm(), head.weight[0].norm().sqrt())
    assert bool((unit.weight[2] == 0).all())
    assert tau_normalize(nn.Linear(4, 3, bias=False)).bias is None
    with pytest.raises(InvalidArgumentError):
        tau_normalize(head, float("nan"))
    with pytest.raises(InvalidArgumentError):
        tau_normalize(nn.ReLU())  # type: ignore[arg-type]
