"""The harness of the case study: results that grow, rivals that are what they claim, a page that draws them."""

from __future__ import annotations

import copy
import json
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from obverse import Budget, Sparsifier

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
sys.path.insert(0, str(BENCHMARKS))

from case import baselines, cifar, duality, groups, harness, ours, page, paper  # noqa: E402


def test_results_are_kept_run_by_run(tmp_path: Path) -> None:
    path, ran = tmp_path / "results.json", []

    def work() -> dict[str, float]:
        ran.append(1)
        return {"error": 1.5}

    first = harness.Results(path, {"epochs": 3})
    assert first.run("a", work)["error"] == 1.5
    other = harness.Results(path, {"epochs": 3})
    first.run("b", work)
    # Another process that had read the file before does not lose what was written since.
    other.run("c", work)
    assert set(json.loads(path.read_text())["runs"]) == {"a", "b", "c"}
    harness.Results(path, {"epochs": 3}).run("b", work)
    assert len(ran) == 3
    with pytest.raises(SystemExit, match="other settings"):
        harness.Results(path, {"epochs": 4})


@pytest.mark.parametrize("target", [0.8, 0.95])
def test_gradual_magnitude_is_the_face_of_that_name(target: float) -> None:
    """Written without the library, the rival keeps the very weights that ``face="magnitude"`` keeps."""
    ends = []
    torch.manual_seed(0)
    initial = nn.Sequential(nn.Linear(20, 30), nn.ReLU(), nn.Linear(30, 5))
    x, y = torch.randn(64, 20), torch.randint(0, 5, (64,))
    for by_library in (True, False):
        model = copy.deepcopy(initial)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
        if by_library:
            budget = Budget(target, ramp=0.6, hold=0.1, floor=0.0)
            pruner = Sparsifier(model, optimizer, face="magnitude", budget=budget, total_steps=60, every=5)
        else:
            pruner = baselines.Magnitude(model, target, 60, 0.6, 0.1, 5)
        for _ in range(42):
            F.cross_entropy(model(x), y).backward()
            optimizer.step()
            pruner.step()
            optimizer.zero_grad()
        ends.append([p.detach().clone() for p in harness.matrices(model)])
    for a, b in zip(*ends, strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize(("target", "kept"), [(0.9, [50, 40]), (0.5, [250, 200])])
def test_random_pruning_keeps_weights_in_proportion_to_the_sizes(target: float, kept: list[int]) -> None:
    model = nn.Sequential(nn.Linear(20, 30), nn.Linear(30, 10))
    pruner = baselines.Random(model, target, seed=1)
    with torch.no_grad():
        for weight in harness.matrices(model):
            weight.fill_(1.0)
    pruner.step()
    assert [int(weight.sum()) for weight in harness.matrices(model)] == kept


def test_random_pruning_keeps_a_matrix_whole_rather_than_more_than_it_has() -> None:
    model = nn.Sequential(nn.Linear(100, 100), nn.Linear(100, 2))
    pruner = baselines.Random(model, 0.9, seed=1)
    with torch.no_grad():
        for weight in harness.matrices(model):
            weight.fill_(1.0)
    pruner.step()
    assert [int(weight.sum()) for weight in harness.matrices(model)] == [820, 200]


def test_the_interval_is_students() -> None:
    mean, half = harness.interval([1.0, 2.0, 3.0])
    assert mean == 2.0
    assert half == pytest.approx(4.302653 / 3**0.5, rel=1e-6)
    assert harness.interval([1.5]) == (1.5, 0.0)


@pytest.mark.parametrize("name", paper.STRATEGIES)
def test_every_row_of_the_table_trains(name: str) -> None:
    torch.manual_seed(0)
    images, labels = torch.randn(12_300, 1, 28, 28), torch.randint(0, 10, (12_300,))
    parts = {"train": (images, labels), "test": (images[:100], labels[:100])}
    said: list[str] = []
    run = paper.run(name, parts, 2, 0, said.append)
    assert 0 < run["density"] <= 1
    assert len(run["curve"]) == 2
    assert said


def _parts(shape: tuple[int, ...], count: int = 256) -> dict[str, harness.Part]:
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(count, *shape, generator=generator)
    labels = torch.randint(0, 10, (count,), generator=generator)
    return {"train": (images, labels), "test": (images[:50], labels[:50])}


@pytest.mark.parametrize("method", ours.METHODS)
@pytest.mark.parametrize(
    "network", [pytest.param(name, marks=pytest.mark.slow) if "lenet-5" in name else name for name in ours.STUDIES]
)
def test_methods_of_the_frontier_end_at_their_size(network: str, method: str) -> None:
    settings = replace(ours.STUDIES[network], epochs=5)
    target = 0.0 if method == "dense" else 0.95
    run = ours.train(settings, method, target, 0, _parts((1, 28, 28)))
    if method == "small":
        assert run["width"] < 1
    else:
        assert run["density"] == pytest.approx(1 - target, rel=0.02)


@pytest.mark.parametrize("method", groups.METHODS)
def test_groups_end_whole(method: str) -> None:
    run = groups.train("lenet-300-100", method, 0.5, 0, _parts((1, 28, 28), 640), 4)
    assert run["density"] == pytest.approx(0.5, abs=0.02)
    assert run["alive"][0] < 784


@pytest.mark.slow
@pytest.mark.parametrize("method", cifar.METHODS)
def test_residual_networks_end_at_their_size(method: str) -> None:
    target = 0.0 if method == "dense" else 0.9
    run = cifar.train(method, target, 0, _parts((3, 32, 32), 128), 4)
    assert run["density"] == pytest.approx(1 - target, abs=0.005)


@pytest.mark.parametrize("name", duality.strategies(1))
def test_points_of_the_duality(name: str) -> None:
    run = duality.train(name, 1.0, 0, _parts((1, 28, 28)), 1)
    assert 0 <= run["density"] <= 1


def test_images_are_shifted_and_flipped_whole() -> None:
    images = torch.arange(2 * 3 * 8 * 8, dtype=torch.float32).reshape(2, 3, 8, 8) + 1
    moved = cifar.augmented(images, torch.Generator().manual_seed(3))
    assert moved.shape == images.shape
    # What is left of an image is in it, row by row, from the left or from the right.
    for before, after in zip(images, moved, strict=True):
        assert set(after.unique().tolist()) <= {0.0, *before.unique().tolist()}


def test_the_page_of_the_results_that_are_there(tmp_path: Path) -> None:
    page.write_page(BENCHMARKS / "results", tmp_path / "page.html")
    text = (tmp_path / "page.html").read_text()
    assert "</html>" in text
    for name, run in json.loads((BENCHMARKS / "results" / "case_study_paper.json").read_text())["runs"].items():
        assert name in text
        assert f"{run['test_error']:.2f}" in text
