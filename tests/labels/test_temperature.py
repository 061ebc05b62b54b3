"""Temperatures: the one of least likelihood, found for any logits, and never another prediction."""

from __future__ import annotations

import math

import pytest
import torch
from label_cases import overconfident as data

from obverse.errors import InvalidArgumentError
from obverse.labels import CalibrationError, TemperatureScaling

K = 6


def likelihood_at(temperature: float, logits: torch.Tensor, labels: torch.Tensor) -> float:
    return float(torch.nn.functional.cross_entropy(logits / temperature, labels))


@pytest.mark.parametrize("scale", [0.2, 1.0, 5.0])
def test_the_temperature_is_that_of_least_likelihood(scale: float) -> None:
    logits, labels = data(400, scale=scale)
    scaling = TemperatureScaling().fit(logits, labels)
    found = scaling.temperature
    assert not scaling.is_bounded
    for other in (found * 0.999, found * 1.001):
        assert likelihood_at(found, logits, labels) < likelihood_at(other, logits, labels)
    # The stationary point itself: mean logits under p and under the labels agree.
    p = (logits / found).softmax(1)
    gap = ((p * logits).sum(1) - logits.gather(1, labels[:, None])[:, 0]).mean()
    assert abs(float(gap)) < 1e-9
    rescaled = TemperatureScaling().fit(3.0 * logits + 7.0, labels)
    assert rescaled.temperature == pytest.approx(3.0 * found, rel=1e-9)


def test_temperature_of_probabilities_ignored_rows_and_positions() -> None:
    logits, labels = data(240)
    found = TemperatureScaling().fit(logits, labels).temperature
    one_hot = torch.eye(K, dtype=torch.float64)[labels]
    assert TemperatureScaling().fit(logits, one_hot).temperature == pytest.approx(found, rel=1e-10)
    truth = (logits / 1.7).softmax(1)
    assert TemperatureScaling().fit(logits, truth).temperature == pytest.approx(1.7, rel=1e-9)
    dense = TemperatureScaling().fit(logits.view(8, 30, K).movedim(-1, 1), labels.view(8, 30))
    assert dense.temperature == pytest.approx(found, rel=1e-10)
    more = torch.cat([logits, torch.full((3, K), math.inf, dtype=torch.float64)])
    ignoring = torch.cat([labels, torch.full((3,), -100)])
    assert TemperatureScaling().fit(more, ignoring).temperature == pytest.approx(found, rel=1e-10)


def test_temperature_scaling_lowers_the_calibration_error_and_is_saved() -> None:
    logits, labels = data(4000, scale=4.0)
    scaling = TemperatureScaling().fit(logits[:2000], labels[:2000])
    raw, scaled = CalibrationError(), CalibrationError()
    raw.update(logits[2000:], labels[2000:])
    scaled.update(scaling(logits[2000:]), labels[2000:])
    assert scaled.compute() < 0.2 * raw.compute()
    assert "temperature=" in repr(scaling)
    copied = TemperatureScaling()
    copied.load_state_dict(scaling.half().state_dict())
    assert copied.temperature == scaling.temperature
    assert scaling.fitted.dtype == torch.float64


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
def test_no_temperature_changes_the_prediction(dtype: torch.dtype) -> None:
    generator = torch.Generator().manual_seed(0)
    base = torch.rand(20_000, 1, generator=generator).to(dtype) + 1.0
    # The largest logit is the very next number after another one that stands before it.
    logits = torch.cat([base, torch.nextafter(base, torch.full_like(base, 9.0)), base - 1.0], 1)
    changed = 0
    for temperature in (0.013, 0.7, 1.1, 1.9, 3.0, 97.0):
        scaling = TemperatureScaling()
        scaling.load_state_dict({"fitted": torch.tensor(temperature)})
        scaled = scaling(logits)
        assert scaled.dtype == (dtype if dtype in (torch.float32, torch.float64) else torch.float32)
        assert torch.equal(scaled.argmax(1), logits.argmax(1))
        plain = logits.to(scaled.dtype) / scaling.temperature
        torch.testing.assert_close(scaled, plain)
        changed += int((plain.argmax(1) != logits.argmax(1)).sum())
    assert changed > 0 or dtype in (torch.bfloat16, torch.float16)
    dense = logits[:6].view(2, 3, 3).movedim(-1, 1)
    assert torch.equal(scaling(dense).movedim(1, -1).reshape(-1, 3), scaling(logits[:6]))
    leaf = logits[:4].float().requires_grad_()
    scaling(leaf).sum().backward()
    assert leaf.grad is not None
    torch.testing.assert_close(leaf.grad, torch.full_like(leaf, 1 / scaling.temperature))


def test_temperatures_without_a_minimum_end_at_a_bound() -> None:
    logits = torch.eye(3, dtype=torch.float64).repeat(4, 1)
    labels = torch.arange(3).repeat(4)
    with pytest.warns(UserWarning, match=r"12 rows are right too often .* T = 0\.05 is used"):
        sure = TemperatureScaling(bounds=(0.05, 20.0)).fit(logits, labels)
    assert (sure.temperature, sure.is_bounded) == (0.05, True)
    with pytest.warns(UserWarning, match=r"wrong too often .* T = 20 is used"):
        unsure = TemperatureScaling(bounds=(0.05, 20.0)).fit(logits, (labels + 1) % 3)
    assert (unsure.temperature, unsure.is_bounded) == (20.0, True)


def test_a_temperature_cannot_be_fitted_to_nothing() -> None:
    scaling = TemperatureScaling().fit(*data(50))
    found = scaling.temperature
    logits, labels = data(5)
    broken = logits.clone()
    broken[0, 0] = math.nan
    for given, target in ((logits[:0], labels[:0]), (logits, torch.full((5,), -100)), (broken, labels)):
        with pytest.raises(InvalidArgumentError, match="cannot be fitted"):
            scaling.fit(given, target)
    with pytest.raises(InvalidArgumentError):
        scaling(torch.arange(4))
    with pytest.raises(InvalidArgumentError, match="bounds"):
        TemperatureScaling(bounds=(2.0, 1.0))
    assert scaling.temperature == found


def mostly_right(rows: int, wrong: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Logits of a network that is sure of its answers, of which some are wrong."""
    generator = torch.Generator().manual_seed(rows)
    logits = torch.randn(rows, 10, generator=generator, dtype=torch.float64)
    labels = logits.argmax(1)
    labels[:wrong] = (labels[:wrong] + 1) % 10
    return 3.0 * logits, labels


def test_few_rows_that_are_all_right_make_nothing_surer_than_it_was() -> None:
    logits, labels = mostly_right(24, wrong=0)
    test, right = mostly_right(500, wrong=15)
    scaling = TemperatureScaling()
    with pytest.warns(UserWarning, match=r"the 24 rows are right too often .*; T = .* is used"):
        scaling.fit(logits, labels)
    assert scaling.is_bounded
    assert 0.01 < scaling.temperature <= 1.0
    assert likelihood_at(scaling.temperature, test, right) < 1.1 * likelihood_at(1.0, test, right)
    assert likelihood_at(0.01, test, right) > 20 * likelihood_at(1.0, test, right)
    # Rows so unsure that one more, which knows nothing, leaves room above them.
    unsure = 1e-3 * logits
    with pytest.warns(UserWarning, match="right too often"):
        found = scaling.fit(unsure, labels).temperature
    targets = torch.eye(10, dtype=torch.float64)[labels] * 24 / 25 + 0.1 / 25
    expected = TemperatureScaling(bounds=(1e-6, 10.0)).fit(unsure, targets).temperature
    assert found == pytest.approx(max(expected, 0.01), rel=1e-6)


def test_logits_that_say_nothing_keep_their_temperature() -> None:
    scaling = TemperatureScaling()
    with pytest.warns(UserWarning, match="T = 1 is used"):
        scaling.fit(torch.zeros(6, 3), torch.arange(6) % 3)
    assert scaling.temperature == 1.0


@pytest.mark.parametrize("lowest", [-math.inf, torch.finfo(torch.float64).min])
def test_masked_classes_have_no_part_in_a_temperature(lowest: float) -> None:
    logits, labels = data(300)
    wider = torch.cat([logits, torch.full((300, 1), lowest, dtype=torch.float64)], 1)
    found = TemperatureScaling().fit(wider, labels)
    assert found.temperature == pytest.approx(TemperatureScaling().fit(logits, labels).temperature, rel=1e-10)
    one_hot = torch.eye(K + 1, dtype=torch.float64)[labels]
    assert TemperatureScaling().fit(wider, one_hot).temperature == pytest.approx(found.temperature, rel=1e-10)
    scaled = found(wider.requires_grad_())
    assert bool((scaled[:, K] == lowest).all())
    torch.testing.assert_close(scaled.softmax(1)[:, :K], (logits / found.temperature).softmax(1))
    scaled.softmax(1)[:, 0].sum().backward()
    assert wider.grad is not None
    assert bool(wider.grad.isfinite().all())
    with pytest.raises(InvalidArgumentError, match="targets whose logits are masked"):
        TemperatureScaling().fit(wider.detach(), torch.full((300,), K))


@pytest.mark.parametrize("value", [0.0, -1.0, math.nan, math.inf])
def test_a_state_must_be_a_temperature(value: float) -> None:
    scaling = TemperatureScaling()
    with pytest.raises(RuntimeError, match="fitted"):
        scaling.load_state_dict({"fitted": torch.tensor(value)})
    assert scaling.temperature == 1.0
