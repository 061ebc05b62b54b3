"""Noise of groups by cross-fitting: known noise comes back, stiff models do not pass for noise, runs resume."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from sklearn.linear_model import LinearRegression, LogisticRegression, RidgeClassifier
from sklearn.neighbors import KNeighborsRegressor
from torch import nn

from obverse._core.files import LOCK
from obverse.errors import InvalidArgumentError, NonFiniteError, StateError, UnknownNameError
from obverse.imbalance import cluster_groups, corrupt_labels, estimate_group_noise, group_strengths

Rows = NDArray[np.int64]


def blobs(rows: int = 1600, seed: int = 0) -> tuple[NDArray[np.float64], NDArray[np.str_], NDArray[np.str_]]:
    """Two clear classes from two sources; a quarter of the labels of ``web`` are wrong."""
    generator = np.random.default_rng(seed)
    true = generator.integers(0, 2, rows)
    x = generator.normal(size=(rows, 2)) + 6.0 * true[:, None]
    source = np.where(np.arange(rows) % 4 == 0, "web", "desk")
    flipped = (source == "web") & (generator.random(rows) < 0.25)
    return x, np.array(["cat", "dog"])[true ^ flipped], source


def waves(rows: int = 1200, seed: int = 0) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.str_]]:
    """A fast clean wave on the left, with nine tenths of the rows, and a slow noisy one on the right."""
    generator = np.random.default_rng(seed)
    left = np.arange(rows) < 0.9 * rows
    x = np.where(left, generator.uniform(0.0, 0.5, rows), generator.uniform(0.5, 1.0, rows))
    clean = np.where(left, np.cos(24 * np.pi * x), np.cos(4 * np.pi * x))
    y = clean + generator.normal(size=rows) * np.where(left, 0.1, 1.0)
    return x[:, None], y, np.where(left, "left", "right")


def test_flipped_labels_of_one_source_come_back() -> None:
    x, y, source = blobs()
    found = estimate_group_noise(LogisticRegression(), y, source, data=x)
    assert found["web"].noise == pytest.approx(0.25, abs=0.05)
    assert found["web"].noise_interval[0] < 0.25 < found["web"].noise_interval[1]
    assert found["desk"].noise < 0.005
    assert [row.count for row in found.rows] == [1200, 400]
    assert found.predictions is not None
    assert found.predictions.shape == (1600, 2)
    by_class = estimate_group_noise(LogisticRegression(), y, data=x)
    assert [row.group for row in by_class.rows] == ["cat", "dog"]
    total = sum(row.noise * row.count for row in by_class.rows)
    assert total == pytest.approx(sum(row.noise * row.count for row in found.rows), abs=12)
    variance = estimate_group_noise(LogisticRegression(), y, source, data=x, measure="error-variance")
    assert variance["web"].noise == pytest.approx(found["web"].noise * (1 - found["web"].noise))
    assert variance["web"].noise_interval[0] < 0.25 * 0.75 < variance["web"].noise_interval[1]
    labels_only = estimate_group_noise(RidgeClassifier(), y, source, data=x)
    assert labels_only["web"].noise == pytest.approx(found["web"].noise, abs=0.01)


def test_impurity_does_not_depend_on_the_confidence_of_the_model() -> None:
    """Whatever the scale of the logits, the calibrated impurity is the mean of p (1 - p) times two."""
    generator = np.random.default_rng(1)
    groups = np.repeat([0, 1], [1500, 1500])
    logits = np.where(groups == 0, 3.0, 0.8) * generator.choice([-1.0, 1.0], 3000)
    truth = 1 / (1 + np.exp(-logits))
    labels = (generator.random(3000) < truth).astype(int)
    for confidence in (0.3, 1.0, 8.0):
        p = 1 / (1 + np.exp(-confidence * logits))
        found = estimate_group_noise(
            lambda train, held, p=p: np.stack([1 - p[held], p[held]], axis=1), labels, groups, measure="impurity"
        )
        for place in (0, 1):
            inside = groups == place
            wanted = float((2 * truth * (1 - truth))[inside].mean())
            assert found[place].noise == pytest.approx(wanted, rel=0.12)
        assert found[0].error == pytest.approx(1 / (1 + math.exp(3)), abs=0.02)


def test_a_stiff_model_passes_for_noise_and_local_differences_do_not() -> None:
    x, y, side = waves()
    stiff = estimate_group_noise(LinearRegression(), y, side, data=x, measure="residual-variance")
    flexible = estimate_group_noise(KNeighborsRegressor(5), y, side, data=x, measure="residual-variance")
    local = estimate_group_noise(None, y, side, data=x, measure="local-differences")
    assert stiff["left"].noise > 0.3  # the wave, whose variance is 1/2
    assert flexible["left"].noise == pytest.approx(0.01 * (1 + 1 / 5), rel=0.2)
    assert local["left"].noise == pytest.approx(0.01, rel=0.15)
    assert local["right"].noise == pytest.approx(1.0, rel=0.35)
    assert local["left"].error is None
    a, b = local.strengths(normalize="mean").tolist()
    assert b / a == pytest.approx((local["right"].noise / local["left"].noise) ** 0.4 * 9**0.4, rel=0.01)


def test_local_differences_are_exact_for_planes_and_cover() -> None:
    generator = np.random.default_rng(2)
    x = generator.normal(size=(300, 3))
    plane = x @ [1.0, -2.0, 0.5] + 3.0
    assert estimate_group_noise(None, plane, data=x, measure="local-differences")["all"].noise < 1e-20
    repeated = np.repeat(generator.normal(size=(100, 3)), 9, axis=0)
    y = repeated[:, 0] * 100 + generator.normal(size=900)
    same = estimate_group_noise(None, y, data=repeated, measure="local-differences")
    assert same["all"].noise == pytest.approx(1.0, rel=0.2)
    many = estimate_group_noise(
        None, generator.normal(size=200), data=generator.normal(size=(200, 50)), measure="local-differences"
    )
    assert many["all"].noise == pytest.approx(1.0, rel=0.3)
    covered = []
    for seed in range(60):
        draws = np.random.default_rng(seed)
        x = draws.uniform(size=(200, 1))
        y = np.sin(6 * x[:, 0]) + draws.normal(size=200)
        low, high = estimate_group_noise(None, y, data=x, measure="local-differences", seed=seed).rows[0].noise_interval
        covered.append(low < 1.0 < high)
    assert np.mean(covered) > 0.87


def test_a_network_through_a_callable() -> None:
    x, y, source = blobs(400)
    inputs = torch.from_numpy(x).float() / 3 - 1
    codes = torch.from_numpy((y == "dog").astype(np.int64))

    def train_network(train: Rows, held: Rows) -> torch.Tensor:
        torch.manual_seed(0)
        model = nn.Linear(2, 2)
        optimizer = torch.optim.Adam(model.parameters(), 0.05)
        for _ in range(60):
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(inputs[train]), codes[train]).backward()
            optimizer.step()
        with torch.no_grad():
            return model(inputs[held]).softmax(1)

    found = estimate_group_noise(train_network, y, source, folds=3)
    assert found["web"].noise == pytest.approx(0.25, abs=0.09)
    assert found["desk"].noise < 0.02
    assert found.strengths()[found.members].shape == (400,)
    assert torch.equal(found.strengths(), group_strengths(found.noise, found.counts, (0.6, 0.4)))
    assert float(found.strengths(dimension=3)[0]) != float(found.strengths()[0])


def test_every_row_is_predicted_once_by_a_model_that_has_not_seen_it() -> None:
    source = np.array(["a"] * 20 + ["b"] * 7)
    seen: list[Rows] = []

    def watch(train: Rows, held: Rows) -> Rows:
        assert sorted([*train, *held]) == list(range(27))
        counts = {name: int((source[held] == name).sum()) for name in "ab"}
        assert counts["a"] == 5
        assert counts["b"] in (1, 2)
        seen.append(held)
        return held

    found = estimate_group_noise(watch, np.zeros(27), source, measure="residual-variance", folds=4)
    assert found.predictions is not None
    assert np.array_equal(found.predictions, np.arange(27.0))
    assert found["b"].noise == pytest.approx(np.mean(np.arange(20, 27) ** 2))
    again: list[Rows] = []
    estimate_group_noise(
        lambda train, held: (again.append(held), held)[1],
        np.zeros(27),
        source,
        measure="residual-variance",
        folds=4,
        seed=1,
    )
    assert any(not np.array_equal(a, b) for a, b in zip(seen, again, strict=True))


class InterruptionError(Exception):
    pass


def test_an_interrupted_run_goes_on_where_it_was(tmp_path: Path) -> None:
    x, y, side = waves(300)
    calls: list[int] = []

    def fit(train: Rows, held: Rows, limit: int) -> Any:
        if len(calls) == limit:
            raise InterruptionError
        calls.append(len(held))
        return KNeighborsRegressor(3).fit(x[train], y[train]).predict(x[held])

    def run(limit: int, folder: Path | None) -> Any:
        return estimate_group_noise(
            lambda train, held: fit(train, held, limit), y, side, measure="residual-variance", folder=folder
        )

    whole = run(99, None)
    calls.clear()
    with pytest.raises(InterruptionError):
        run(3, tmp_path / "noise")
    assert sorted({path.name for path in (tmp_path / "noise").iterdir()} - {LOCK}) == [
        *(f"fold-{fold}.npz" for fold in range(3)),
        "study.json",
    ]
    resumed = run(99, tmp_path / "noise")
    assert len(calls) == 5
    assert resumed == whole
    assert np.array_equal(resumed.predictions, whole.predictions)
    assert run(5, tmp_path / "noise") == whole  # no fold is fitted again


def test_a_folder_of_another_study_or_a_damaged_one_is_refused(tmp_path: Path) -> None:
    x, y, side = waves(100)

    def run(model: Any = KNeighborsRegressor(3), seed: int = 0, labels: Any = y) -> Any:  # noqa: B008
        return estimate_group_noise(
            model, labels, side, data=x, measure="residual-variance", folder=tmp_path, seed=seed
        )

    first = run()
    assert run() == first
    for other in (lambda: run(seed=1), lambda: run(KNeighborsRegressor(5)), lambda: run(labels=y + 1)):
        with pytest.raises(StateError, match="another"):
            other()
    path = tmp_path / "fold-2.npz"
    whole = path.read_bytes()
    for broken in (whole[: len(whole) // 2], b"", b"nonsense"):
        path.write_bytes(broken)
        with pytest.raises(StateError, match="damaged"):
            run()
    np.savez(path, rows=np.array([{}], dtype=object), predictions=np.zeros(1))
    with pytest.raises(StateError):
        run()
    path.write_bytes((tmp_path / "fold-1.npz").read_bytes())
    with pytest.raises(StateError, match="other rows"):
        run()
    estimate_group_noise(
        KNeighborsRegressor(5), y, side, data=x, measure="residual-variance", folder=tmp_path / "other"
    )
    path.write_bytes((tmp_path / "other" / "fold-2.npz").read_bytes())
    with pytest.raises(StateError, match="another study"):
        run()
    path.unlink()
    assert run() == first
    (tmp_path / "study.json").write_text("[]")
    with pytest.raises(StateError, match="damaged"):
        run()
    (tmp_path / "study.json").unlink()
    with pytest.raises(StateError, match="unknown"):
        run()


def test_clusters_follow_the_features_and_the_seed() -> None:
    generator = np.random.default_rng(3)
    true = np.repeat([0, 1, 2], 50)
    features = generator.normal(size=(150, 4)) + 30.0 * true[:, None]
    found = cluster_groups(features, 3, seed=5)
    assert all(len(set(found[true == place])) == 1 for place in range(3))
    assert len(set(found)) == 3
    assert np.array_equal(found, cluster_groups(torch.from_numpy(features), 3, seed=5))
    noisy = corrupt_labels(true.tolist(), {0: 0.0, 1: 0.5, 2: 0.0}, groups=true, seed=0)
    noise = estimate_group_noise(LogisticRegression(), noisy.labels, found, data=features / 30)
    worst = max(noise.rows, key=lambda row: row.noise)
    assert worst.group == found[75]
    assert np.array_equal(cluster_groups(features, 1), np.zeros(150))


def test_table_and_record() -> None:
    x, y, source = blobs(400)
    found = estimate_group_noise(LogisticRegression(), y, source, data=x)
    lines = str(found).splitlines()
    assert len(lines) == 3
    assert "error, %" in lines[0]
    assert lines[2].startswith("web")
    record = json.loads(json.dumps(found.to_dict()))
    assert record["rows"][1]["noise"] == found["web"].noise
    with pytest.raises(KeyError):
        found["street"]
    assert "error" not in str(estimate_group_noise(None, x[:, 0], data=x, measure="local-differences"))


def guess(train: Rows, held: Rows) -> NDArray[np.float64]:
    return np.full((len(held), 2), 0.5)


LABELS = [0, 1] * 10


@pytest.mark.parametrize(
    "call",
    [
        lambda: estimate_group_noise(guess, LABELS, measure="noise"),  # type: ignore[arg-type]
        lambda: estimate_group_noise(guess, LABELS, folds=1),
        lambda: estimate_group_noise(guess, LABELS, folds=11),
        lambda: estimate_group_noise(guess, LABELS, [0] * 19),
        lambda: estimate_group_noise(guess, LABELS, data=np.zeros((19, 1))),
        lambda: estimate_group_noise(guess, LABELS, confidence=1.0),
        lambda: estimate_group_noise(guess, [0] * 20),
        lambda: estimate_group_noise(guess, []),
        lambda: estimate_group_noise(guess, LABELS, measure="residual-variance"),
        lambda: estimate_group_noise(guess, ["a", "b"] * 10, measure="residual-variance"),
        lambda: estimate_group_noise(guess, [math.nan] * 20, measure="residual-variance"),
        lambda: estimate_group_noise(LogisticRegression(), LABELS),
        lambda: estimate_group_noise("model", LABELS),  # type: ignore[arg-type]
        lambda: estimate_group_noise(None, LABELS),
        lambda: estimate_group_noise(guess, LABELS, data=np.zeros((20, 1)), measure="local-differences"),
        lambda: estimate_group_noise(None, LABELS, measure="local-differences"),
        lambda: estimate_group_noise(None, LABELS, range(20), data=np.zeros((20, 1)), measure="local-differences"),
        lambda: estimate_group_noise(None, LABELS, data=np.zeros((20, 1)), measure="local-differences", neighbors=0),
        lambda: estimate_group_noise(lambda train, held: guess(train, held) * 3, LABELS),
        lambda: estimate_group_noise(lambda train, held: guess(train, held)[1:], LABELS),
        lambda: estimate_group_noise(lambda train, held: None, LABELS),
        lambda: estimate_group_noise(lambda train, held: held % 2, LABELS, measure="impurity"),
        lambda: cluster_groups(np.zeros((5, 2)), 6),
        lambda: cluster_groups(np.zeros((5, 2)), 2),
        lambda: cluster_groups([["a"], ["b"]], 2),
        lambda: cluster_groups([[1.0], [math.nan]], 2),
    ],
)
def test_bad_noise_input(call: Callable[[], object]) -> None:
    with pytest.raises(InvalidArgumentError):
        call()


def test_predictions_that_are_not_finite_stop_the_study() -> None:
    with pytest.raises(NonFiniteError):
        estimate_group_noise(lambda train, held: guess(train, held) * math.inf, LABELS)
    with pytest.raises(UnknownNameError, match="residual-variance"):
        estimate_group_noise(guess, LABELS, measure="residual")  # type: ignore[arg-type]
