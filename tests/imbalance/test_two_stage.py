"""The two-stage procedure: strengths of noisy and rare classes, resumption between stages, refusals."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from obverse._core.files import locked
from obverse.errors import DamagedFileError, InvalidArgumentError, NonFiniteError, StateError
from obverse.imbalance import TrainingPlan, train_two_stage

PLAN = TrainingPlan(epochs=6, batch_size=32, learning_rate=0.1, deferred=4)


def task() -> tuple[Tensor, list[str]]:
    """Three classes of points on rays: one frequent, one rare, one rare with a third of its labels wrong."""
    generator = torch.Generator().manual_seed(0)
    counts = {"common": 160, "noisy": 48, "rare": 48}
    centers = {"common": (2.0, 0.0), "noisy": (-2.0, 2.0), "rare": (-2.0, -2.0)}
    inputs, labels = [], []
    for name, count in counts.items():
        inputs.append(torch.tensor(centers[name]) + 0.5 * torch.randn(count, 2, generator=generator))
        labels += [name] * count
    for row in range(160, 208, 3):
        labels[row] = "common"
    for row in range(0, 32, 2):
        labels[row] = "noisy"
    return torch.cat(inputs), labels


calls = 0


def build() -> nn.Module:
    global calls
    calls += 1
    return nn.Sequential(nn.Linear(2, 12), nn.LayerNorm(12), nn.SiLU(), nn.Linear(12, 3))


def run(folder: Path | None = None, **options: Any) -> Any:
    inputs, labels = task()
    given: dict[str, Any] = {"strength": 0.02, "plan": PLAN, "seed": 1, "folder": folder} | options
    return train_two_stage(build, inputs, labels, **given)


def test_noisy_and_rare_classes_are_regularized_most(tmp_path: Path) -> None:
    state = torch.random.get_rng_state()
    result = run(tmp_path / "study")
    assert torch.equal(torch.random.get_rng_state(), state)
    assert result.classes == ["common", "noisy", "rare"]
    strengths = dict(zip(result.classes, result.strengths.tolist(), strict=True))
    assert strengths["noisy"] == 1.0
    assert strengths["common"] < 0.7
    assert result.noise["noisy"].noise > 3 * result.noise["rare"].noise
    assert result.report.worst_group == "noisy"
    assert "strength" in str(result)
    inputs, _ = task()
    with torch.no_grad():
        answers = result.model(inputs).argmax(1)
    true = torch.tensor([0] * 160 + [1] * 48 + [2] * 48)
    assert float((answers == true).double().mean()) > 0.9
    record = json.loads((tmp_path / "study" / "two-stage.json").read_text())
    assert record["strengths"] == result.strengths.tolist()


def test_a_finished_study_is_only_read_and_an_interrupted_one_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from obverse.imbalance import _two_stage

    whole = run()
    trained, seen = _two_stage.trained, []

    def stopped(plan: Any, *arguments: Any) -> nn.Module:
        seen.append(len(arguments) > 4)
        if seen[-1] and len(seen) < 5:
            raise KeyboardInterrupt
        return trained(plan, *arguments)

    monkeypatch.setattr(_two_stage, "trained", stopped)
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "study")
    assert seen == [False, False, False, True]  # three folds, then the second stage
    resumed = run(tmp_path / "study")
    assert seen == [False, False, False, True, True]
    again = run(tmp_path / "study")
    assert len(seen) == 5
    for name, value in whole.model.state_dict().items():
        torch.testing.assert_close(resumed.model.state_dict()[name], value, rtol=0, atol=0)
        torch.testing.assert_close(again.model.state_dict()[name], value, rtol=0, atol=0)
    assert again.to_dict() == whole.to_dict()


def test_folders_of_other_studies_and_damaged_ones_are_refused(tmp_path: Path) -> None:
    folder = tmp_path / "study"
    plan = TrainingPlan(epochs=1, batch_size=64)
    run(folder, plan=plan, folds=2)
    for other in ({"strength": 0.03}, {"seed": 2}, {"penalty": {"power": 1}}):
        with pytest.raises(StateError, match="other data or arguments"):
            run(folder, **({"plan": plan, "folds": 2} | other))
    (folder / "model.safetensors").write_bytes(b"nothing")
    with pytest.raises(StateError, match="damaged"):
        run(folder, plan=plan, folds=2)
    (folder / "two-stage.json").unlink()
    with pytest.raises(StateError, match="unknown"):
        run(folder, plan=plan, folds=2)


def test_groups_may_be_metadata_and_the_penalty_has_options() -> None:
    inputs, labels = task()
    source = ["web"] * 128 + ["book"] * 128
    result = train_two_stage(
        build,
        inputs,
        labels,
        source,
        strength=0.1,
        plan=TrainingPlan(epochs=1, augment=lambda x, generator: x + 0.01 * torch.randn(x.shape, generator=generator)),
        penalty={"backend": "last-layer", "every": 2},
        normalize="mean",
        folds=2,
    )
    assert [row.group for row in result.noise.rows] == ["book", "web"]
    assert float((result.strengths * torch.from_numpy(result.noise.counts)).sum()) / 256 == pytest.approx(1.0)


def test_bad_input_is_refused_before_anything_is_trained(tmp_path: Path) -> None:
    inputs, labels = task()
    for options, match in (
        ({"strength": -1.0}, "strength"),
        ({"penalty": {"power": 3}}, "power"),
        ({"penalty": {"layers": ["none"]}}, "no layer"),
    ):
        with pytest.raises(InvalidArgumentError, match=match):
            run(tmp_path / "study", **options)
    assert not (tmp_path / "study").exists()
    for bad_inputs, bad_labels, match in (
        (inputs[:5], labels, "one row"),
        (inputs, ["one"] * 256, "two classes"),
        (inputs, ["a", "b"] * 128, "2 classes"),
    ):
        with pytest.raises(InvalidArgumentError, match=match):
            train_two_stage(build, bad_inputs, bad_labels, strength=0.1)
    with pytest.raises(InvalidArgumentError, match="Module"):
        train_two_stage(lambda: 3, inputs, labels, strength=0.1)  # type: ignore[arg-type,return-value]
    for options, match in (
        ({"epochs": 0}, "epochs"),
        ({"learning_rate": 0.0}, "learning_rate"),
        ({"momentum": 1.0}, "momentum"),
        ({"weight_decay": -1.0}, "weight_decay"),
        ({"deferred": -1}, "deferred"),
    ):
        with pytest.raises(InvalidArgumentError, match=match):
            TrainingPlan(**options)
    with pytest.raises(NonFiniteError, match="epoch 0"):
        run(plan=TrainingPlan(epochs=1, learning_rate=1e30))


@pytest.mark.parametrize("name", ["model.safetensors", "two-stage.json", "noise/study.json", "noise/fold-1.npz"])
def test_every_flipped_bit_and_every_cut_is_refused(tmp_path: Path, name: str) -> None:
    plan = TrainingPlan(epochs=1, batch_size=64)
    whole = run(tmp_path / "study", plan=plan, folds=2)
    path = tmp_path / "study" / name
    content = path.read_bytes()
    damages = [content[:length] for length in (0, len(content) // 2, len(content) - 1)]
    for place in range(3, len(content), max(1, len(content) // 6)):
        damages.append(content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :])
    for damaged in damages:
        path.write_bytes(damaged)
        with pytest.raises(DamagedFileError, match=rf"^{path} is damaged: .*; delete") as caught:
            run(tmp_path / "study", plan=plan, folds=2)
        assert "\n" not in str(caught.value)
    path.write_bytes(content)
    assert run(tmp_path / "study", plan=plan, folds=2).to_dict() == whole.to_dict()


def test_files_of_another_study_are_not_taken_for_those_of_this_one(tmp_path: Path) -> None:
    plan = TrainingPlan(epochs=1, batch_size=64)
    run(tmp_path / "study", plan=plan, folds=2)
    run(tmp_path / "other", plan=plan, folds=2, strength=0.5)
    for name, message in (
        ("noise/fold-0.npz", None),  # the folds do not depend on the strength
        ("model.safetensors", "model.safetensors is of another study; delete it"),
    ):
        shutil.copy(tmp_path / "other" / name, tmp_path / "study" / name)
        if message is None:
            run(tmp_path / "study", plan=plan, folds=2)
        else:
            with pytest.raises(StateError, match=message):
                run(tmp_path / "study", plan=plan, folds=2)


def test_a_study_has_one_writer_at_a_time(tmp_path: Path) -> None:
    with locked(tmp_path / "study"), pytest.raises(InvalidArgumentError, match="another process is writing to"):
        run(tmp_path / "study", plan=TrainingPlan(epochs=1))


def test_tied_weights_are_read_back_tied(tmp_path: Path) -> None:
    def tied() -> nn.Module:
        model = nn.Sequential(nn.Linear(2, 2), nn.LayerNorm(2), nn.SiLU(), nn.Linear(2, 2), nn.Linear(2, 3))
        model[3].weight = model[0].weight
        return model

    inputs, labels = task()
    given: dict[str, Any] = {"strength": 0.02, "plan": TrainingPlan(epochs=1), "folds": 2, "folder": tmp_path / "study"}
    first = train_two_stage(tied, inputs, labels, **given).model
    again = train_two_stage(tied, inputs, labels, **given).model
    assert again[3].weight is again[0].weight  # type: ignore[index]
    assert all(torch.equal(again.state_dict()[name], value) for name, value in first.state_dict().items())
