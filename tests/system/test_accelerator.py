"""What the CPU computes, a CUDA device computes too; skipped where there is none."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from obverse import Budget, Sparsifier, compact
from obverse.dropout import DropBlock2d, DropConnect
from obverse.imbalance import HeteroskedasticRegularizer, LDAMLoss
from obverse.labels import CalibrationError, TemperatureScaling, label_criteria, label_criterion, mixup
from obverse.penalties import LogSum, Lp, VariationalDropout
from obverse.training import Recipe, run_recipe

DEVICE = os.environ.get("OBVERSE_TEST_DEVICE", "cuda")
pytestmark = pytest.mark.skipif(
    DEVICE == "cuda" and not torch.cuda.is_available(), reason="needs a CUDA device, and there is none"
)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("penalty", [LogSum(0.1), Lp(0.5), VariationalDropout()], ids=repr)
def test_prox_agrees_with_the_cpu(penalty: LogSum) -> None:
    z = 3 * torch.randn(1000, generator=generator(), dtype=torch.float64)
    torch.testing.assert_close(penalty.prox(z.to(DEVICE), 0.3).cpu(), penalty.prox(z, 0.3), rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("name", label_criteria())
def test_criteria_agree_with_the_cpu(name: str) -> None:
    values = []
    for device in ("cpu", DEVICE):
        criterion = label_criterion(name, 5).to(device).train()
        for step in range(3):
            logits = torch.randn(16, 5, generator=generator(step), dtype=torch.float64).to(device).requires_grad_()
            target = torch.randint(5, (16,), generator=generator(step)).to(device)
            given = {"index": torch.arange(16, device=device)} if criterion.needs_index else {}
            loss = criterion(logits, target, **given)
            loss.backward()
        criterion.end_epoch()
        assert logits.grad is not None
        values.append((loss.detach().cpu(), logits.grad.cpu()))
    torch.testing.assert_close(values[1], values[0])


def test_calibration_and_mixing_agree_with_the_cpu() -> None:
    logits = 3 * torch.randn(500, 7, generator=generator(), dtype=torch.float64)
    target = torch.randint(7, (500,), generator=generator(1))
    values = []
    for device in ("cpu", DEVICE):
        error = CalibrationError()
        error.update(logits.to(device), target.to(device))
        scaling = TemperatureScaling().fit(logits.to(device), target.to(device))
        values.append((float(error.compute()), float(scaling.temperature)))
    assert values[1] == pytest.approx(values[0], rel=1e-9)
    mixed, probabilities = mixup(logits.to(DEVICE), target.to(DEVICE), num_classes=7, generator=generator())
    assert mixed.device.type == probabilities.device.type == torch.device(DEVICE).type
    torch.testing.assert_close(probabilities.sum(1).cpu(), torch.ones(500), check_dtype=False)


def convolutional() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(1, 8, 3, padding=1), nn.BatchNorm2d(8), nn.SiLU(), nn.Flatten(), nn.Linear(8 * 64, 10)
    )


def batch(seed: int, device: str) -> tuple[Tensor, Tensor]:
    images = torch.randn(32, 1, 8, 8, generator=generator(seed))
    return images.to(device), torch.randint(10, (32,), generator=generator(seed)).to(device)


@pytest.mark.parametrize("face", ["proximal", "reweighted", "dropout"])
@pytest.mark.parametrize("half", [False, True], ids=["float32", "float16"])
def test_sparsifier_lands_on_its_budget(face: str, half: bool) -> None:
    if half and DEVICE == "cpu":
        pytest.skip("float16 is scaled on CUDA only")
    model = convolutional().to(DEVICE)
    optimizer = torch.optim.Adam(model.parameters(), 2e-3)
    sparsifier = Sparsifier(model, optimizer, penalty="log-sum", face=face, budget=Budget(0.8), total_steps=120)
    scaler = torch.amp.GradScaler(DEVICE, enabled=half)
    for step in range(120):
        images, labels = batch(step % 8, DEVICE)
        with torch.autocast(DEVICE, torch.float16, enabled=half):
            loss = functional.cross_entropy(model(images).float(), labels) + sparsifier.penalty()
        scaler.scale(loss).backward()
        scaler.step(optimizer)
        scaler.update()
        sparsifier.step()
        optimizer.zero_grad()
    sparsifier.finish()
    weights = [p for p in model.parameters() if p.ndim > 1]
    sparsity = 1 - sum(int(w.count_nonzero()) for w in weights) / sum(w.numel() for w in weights)
    assert abs(sparsity - 0.8) < 0.005
    assert all(p.isfinite().all() for p in model.parameters())


def test_dropout_layers_draw_on_the_device() -> None:
    images = torch.ones(64, 16, 28, 28, device=DEVICE)
    torch.manual_seed(0)
    layer = DropBlock2d(0.2, 5).to(DEVICE)
    assert float((layer(images) == 0).double().mean()) == pytest.approx(0.2, abs=0.02)
    connected = DropConnect(nn.Linear(16, 4), 0.5).to(DEVICE)
    assert connected(torch.ones(8, 16, device=DEVICE)).isfinite().all()


@pytest.mark.parametrize("backend", ["double-backward", "finite-difference", "last-layer"])
def test_jacobian_penalty_agrees_with_the_cpu(backend: str) -> None:
    values = []
    for device in ("cpu", DEVICE):
        model = convolutional().double().to(device)
        model[1].eval()
        regularizer = HeteroskedasticRegularizer(model, torch.linspace(0.1, 1, 10), backend=backend)
        images, labels = batch(0, device)
        with regularizer.capture():
            logits = model(images.double())
        penalty = regularizer(logits, labels)
        penalty.backward()
        gradient = model[4].weight.grad
        assert gradient is not None
        values.append((penalty.detach().cpu(), gradient.cpu()))
    torch.testing.assert_close(values[1], values[0], rtol=1e-6, atol=1e-9)


def test_margins_and_certificate_hold_on_the_device() -> None:
    logits, labels = torch.randn(32, 10, generator=generator()).to(DEVICE), batch(0, DEVICE)[1]
    assert LDAMLoss(torch.arange(1, 11))(logits.tanh().to(DEVICE), labels).isfinite()
    model = convolutional().to(DEVICE).eval()
    with torch.no_grad():
        model[0].weight[2:5] = 0.0
        model[0].bias[2:5] = 0.0
        model[1].bias[2:5] = 0.0
    small, _ = compact(model, batch(0, DEVICE)[0])
    assert small[0].weight.shape[0] == 5
    images = batch(1, DEVICE)[0]
    torch.testing.assert_close(small(images), model(images), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
def test_a_run_on_the_device(tmp_path: Path, precision: str) -> None:
    if precision == "fp16" and DEVICE == "cpu":
        pytest.skip("float16 is scaled on CUDA only")
    recipe = Recipe(precision=precision, labels="adaptive", epochs=8, out=str(tmp_path / "run"))
    metrics = run_recipe(recipe)
    run = metrics["runs"][0]
    assert run["sparsity"] == pytest.approx(0.95, abs=0.005)
    assert run["test"]["error"] < 0.2
