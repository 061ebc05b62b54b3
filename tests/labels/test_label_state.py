"""What criteria keep: resumed trainings go on as if nothing had happened, and the memory is what the guide says."""

from __future__ import annotations

import copy
import io

import pytest
import torch
from label_cases import CASES, STATEFUL, K, batch, build, extras, run

from obverse.labels import (
    AdaptiveLabelRegularization,
    EarlyLearningRegularization,
    LabelCriterion,
    OnlineLabelSmoothing,
    PairwiseLabelSmoothing,
    ProgressiveSelfDistillation,
    label_criterion,
)


def saved(criterion: LabelCriterion) -> dict[str, torch.Tensor]:
    """Through a file, without unpickling objects."""
    file = io.BytesIO()
    torch.save(criterion.state_dict(), file)
    file.seek(0)
    return torch.load(file, weights_only=True)


@pytest.mark.parametrize("interrupted", [1, 5])
@pytest.mark.parametrize("case", CASES)
def test_a_resumed_training_is_the_uninterrupted_one(case: str, interrupted: int) -> None:
    whole = build(case)
    losses = run(whole, range(9))
    first, second = build(case), build(case)
    before = run(first, range(interrupted))
    second.load_state_dict(saved(first))
    after = run(second, range(interrupted, 9))
    assert before + after == losses
    assert all(torch.equal(value, whole.state_dict()[name]) for name, value in second.state_dict().items())
    if case in STATEFUL:
        assert run(build(case), range(interrupted, 9)) != after


@pytest.mark.parametrize("case", STATEFUL)
def test_validation_in_the_middle_of_an_epoch_changes_nothing(case: str) -> None:
    plain, validated = build(case), build(case)
    run(plain, range(5))
    run(validated, range(2))
    validated.eval()
    for seed in range(3):
        logits, target = batch(12, seed=50 + seed)
        validated(logits, target)
        with torch.no_grad():
            validated(logits, target)
    validated.train()
    with torch.no_grad():
        logits, target = batch(12, seed=60)
        validated(logits, target, **extras(validated, (12,), torch.float64))
    run(validated, range(2, 5))
    assert all(torch.equal(value, plain.state_dict()[name]) for name, value in validated.state_dict().items())


@pytest.mark.parametrize("case", STATEFUL)
def test_a_copy_learns_on_its_own(case: str) -> None:
    criterion = build(case)
    run(criterion, range(4))
    before = saved(criterion)
    other = copy.deepcopy(criterion)
    run(other, range(4, 8))
    assert all(torch.equal(value, before[name]) for name, value in criterion.state_dict().items())
    assert any(not torch.equal(value, before[name]) for name, value in other.state_dict().items())


@pytest.mark.parametrize("case", [case for case in STATEFUL if case.startswith(("adaptive", "pairwise", "online"))])
def test_state_of_another_shape_is_refused(case: str) -> None:
    criterion = build(case)
    other = label_criterion(case.split(",")[0], K + 2, **CASES[case])
    with pytest.raises(RuntimeError, match=r"shape|size"):
        criterion.load_state_dict(other.state_dict())


def test_bytes_of_state() -> None:
    assert AdaptiveLabelRegularization(1000).state_bytes == 4 * 1000**2
    assert AdaptiveLabelRegularization(1000, update="average").state_bytes == 4 * 1000**2
    assert OnlineLabelSmoothing(100).state_bytes == 8 * 100 * 100 + 4 * 100
    assert PairwiseLabelSmoothing(100, 512).state_bytes == 4 * 100 * 512 + 8
    for cls in (EarlyLearningRegularization, ProgressiveSelfDistillation):
        extra = 8 if cls is ProgressiveSelfDistillation else 0
        assert cls(1000, num_samples=5000).state_bytes == 40 * 5000 + extra
        assert cls(1000, num_samples=5000, top=None).state_bytes == 4 * 1000 * 5000 + extra
    # The whole of ImageNet in some fifty megabytes.
    assert 40 * 1_281_167 < 52e6
    pruned = build("generalized, pruned")
    assert pruned.state_bytes == 40 + 8


@pytest.mark.parametrize("case", [case for case in STATEFUL if case.startswith(("early", "progressive"))])
def test_per_sample_memory_grows_with_the_ids(case: str) -> None:
    criterion = build(case)
    assert criterion.state_bytes <= 8
    logits, target = batch(6)
    criterion(logits, target, index=torch.tensor([3, 700, 5, 9, 1, 0]))
    row = 4 * K if CASES[case].get("top") is None else 4 * CASES[case]["top"]
    assert 701 * row <= criterion.state_bytes <= 2 * 701 * row + 8
