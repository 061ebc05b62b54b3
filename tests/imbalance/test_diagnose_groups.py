"""Noisy, rare and hard groups of known making are told apart, by estimators and by plain functions."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.tree import DecisionTreeClassifier

from obverse.errors import InvalidArgumentError, NonFiniteError
from obverse.imbalance import diagnose_groups
from obverse.imbalance._learning_curve import fit_curve

Made = tuple[np.ndarray, np.ndarray, np.ndarray]


def four_groups(seed: int = 0) -> Made:
    """Clean and easy; a third of the labels flipped; 80 rows for a rule of 16 terms; a checkerboard, clean."""
    generator = np.random.default_rng(seed)
    parts = []
    for name, rows in [("easy", 1500), ("noisy", 1500), ("rare", 80), ("board", 1500)]:
        x = generator.uniform(-1, 1, (rows, 16))
        y = x[:, 0] + x[:, 1] > 0
        if name == "noisy":
            y ^= generator.random(rows) < 0.33
        elif name == "rare":
            y = x @ np.where(np.arange(16) % 2 == 0, 1.0, -1.5) > 0
        elif name == "board":
            x[:, 2:] = 0
            y = (np.floor(2 * x[:, 0]) + np.floor(2 * x[:, 1])) % 2 == 0
        own = np.zeros((rows, 64))
        place = {"easy": 0, "noisy": 16, "rare": 32, "board": 48}[name]
        own[:, place : place + 16] = x
        parts.append((own, y.astype(int), np.full(rows, name)))
    return tuple(np.concatenate(part) for part in zip(*parts, strict=True))  # type: ignore[return-value]


def test_causes_are_told_apart() -> None:
    x, y, groups = four_groups()
    found = diagnose_groups(
        LogisticRegression(C=0.3, max_iter=500),
        x,
        y,
        groups,
        reference=DecisionTreeClassifier(min_samples_leaf=2, random_state=0),
    )
    assert {row.group: row.causes for row in found.groups} == {
        "board": ("hard",),
        "easy": (),
        "noisy": ("noisy",),
        "rare": ("rare",),
    }
    noisy = found["noisy"]
    assert noisy.plateau == pytest.approx(0.33, abs=0.06)
    assert noisy.plateau_interval[0] < 0.33 < noisy.plateau_interval[1] + 0.02
    assert found["rare"].doubling > 0.02
    assert found["board"].reference_error < 0.15 < found["board"].error
    assert abs(noisy.calibration_gap) < 0.06
    text = str(found)
    assert len(text.splitlines()) == 5
    assert "hard" in text
    with pytest.raises(KeyError):
        found["other"]


def test_memorized_noise_is_noise_still() -> None:
    x, y, groups = four_groups(1)
    chosen = np.isin(groups, ["easy", "noisy"])
    found = diagnose_groups(
        DecisionTreeClassifier(random_state=0), x[chosen], y[chosen], groups[chosen], reference=LogisticRegression()
    )
    assert "noisy" in found["noisy"].causes
    assert found["noisy"].training_error < 0.01
    assert found["noisy"].plateau == pytest.approx(0.33, abs=0.1)
    assert found["easy"].causes == ()


def test_a_callable_learner_and_the_neighbors() -> None:
    x, y, groups = four_groups(2)
    chosen = np.isin(groups, ["easy", "noisy"])

    def learner(data: torch.Tensor, codes: torch.Tensor) -> Callable[[torch.Tensor], torch.Tensor]:
        fitted = make_pipeline(StandardScaler(), LogisticRegression()).fit(data.numpy(), codes.numpy())
        return lambda rows: torch.from_numpy(fitted.predict_proba(rows.numpy()))

    words = np.array(["no", "yes"])[y[chosen]]
    data = torch.from_numpy(x[chosen])
    found = diagnose_groups(learner, data, words, groups[chosen], seed=3)
    again = diagnose_groups(learner, data, words, groups[chosen], seed=3)
    assert found == again
    assert found["noisy"].causes == ("noisy",)
    assert np.isfinite(found["noisy"].reference_error)
    assert found["easy"].causes == ()
    text = [f"row {row}" for row in range(40)]
    plain = diagnose_groups(lambda rows, codes: lambda other: np.zeros(len(other), dtype=int), text, [0, 1] * 20)
    assert plain[0].error == 0.0
    assert plain[1].error == 1.0
    assert np.isnan(plain[1].reference_error)


def test_subsets_are_nested_and_stratified() -> None:
    seen: list[set[int]] = []

    def learner(rows: torch.Tensor, codes: torch.Tensor) -> Callable[[torch.Tensor], torch.Tensor]:
        seen.append(set(rows[:, 0].long().tolist()))
        return lambda other: torch.zeros(len(other), dtype=torch.long)

    labels = [0] * 90 + [1] * 9
    diagnose_groups(learner, torch.arange(99.0)[:, None], labels, reference=None, sizes=(0.1, 0.5, 1.0))
    for fold in range(3):
        small, middle, full = seen[3 * fold : 3 * fold + 3]
        assert small < middle < full
        assert len(full) == 66
        assert sum(row >= 90 for row in small) == 1
    held_out = [set(range(99)) - seen[3 * fold + 2] for fold in range(3)]
    assert set.union(*held_out) == set(range(99))
    assert sum(map(len, held_out)) == 99


def test_a_curve_is_recovered() -> None:
    sizes = np.array([0.1, 0.25, 0.5, 1.0])
    curve = fit_curve(sizes, 1000 * (0.2 + 0.05 * sizes**-0.5), 1000.0)
    assert curve.plateau == pytest.approx(0.2, abs=1e-6)
    assert curve.power == 0.5
    assert curve.doubling == pytest.approx(0.05 * (1 - 0.5**0.5))
    flat = fit_curve(sizes, np.array([100.0, 200.0, 300.0, 400.0]), 1000.0)
    assert flat.fall == pytest.approx(0.0)


DATA = np.zeros((12, 2))
LABELS = [0, 1] * 6


@pytest.mark.parametrize(
    "call",
    [
        lambda: diagnose_groups(LogisticRegression(), DATA[:3], LABELS),
        lambda: diagnose_groups(LogisticRegression(), DATA, LABELS, ["a"]),
        lambda: diagnose_groups(LogisticRegression(), DATA, LABELS, sizes=(1.0,)),
        lambda: diagnose_groups(LogisticRegression(), DATA, LABELS, sizes=(0.5, 0.2)),
        lambda: diagnose_groups(LogisticRegression(), DATA, LABELS, folds=1),
        lambda: diagnose_groups(LogisticRegression(), DATA, LABELS, folds=7),
        lambda: diagnose_groups(LogisticRegression(), DATA, LABELS, tolerance=0.0),
        lambda: diagnose_groups(3, DATA, LABELS),  # type: ignore[arg-type]
        lambda: diagnose_groups(lambda d, c: lambda o: np.zeros((len(o), 5)), DATA, LABELS),
    ],
)
def test_bad_input(call: Callable[[], object]) -> None:
    with pytest.raises(InvalidArgumentError):
        call()


def test_probabilities_that_are_not_finite_are_refused() -> None:
    with pytest.raises(NonFiniteError):
        diagnose_groups(lambda d, c: lambda o: np.full((len(o), 2), np.nan), DATA, LABELS, reference=None)
