from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from obverse import Budget
from obverse.errors import InvalidArgumentError


@given(
    sparsity=st.floats(0.01, 0.999),
    total=st.integers(1, 5000),
    warmup=st.floats(0, 0.3),
    ramp=st.floats(0, 0.5),
    hold=st.floats(0, 0.2),
)
def test_the_target_rises_to_the_budget_and_the_phases_follow_in_order(
    sparsity: float, total: int, warmup: float, ramp: float, hold: float
) -> None:
    budget = Budget(sparsity, warmup=warmup, ramp=ramp, hold=hold)
    steps = range(0, total + 1, max(1, total // 50))
    targets = [budget.target(step, total) for step in steps]
    assert all(0 <= a <= b <= sparsity + 1e-12 for a, b in itertools.pairwise(targets))
    order = ["warmup", "ramp", "hold", "finetune"]
    ranks = [order.index(budget.phase(step, total)) for step in steps]
    assert ranks == sorted(ranks)
    assert budget.target(total, total) == sparsity
    assert budget.phase(total, total) == "finetune"
    assert 1 <= budget.freeze_step(total) <= total


@pytest.mark.parametrize("sparsity", [0, 1, -0.1, 1.5, float("nan"), True, "0.9", None])
def test_a_sparsity_outside_its_range_is_refused(sparsity: object) -> None:
    with pytest.raises(InvalidArgumentError, match="sparsity"):
        Budget(sparsity)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("field", "value"),
    [("warmup", -0.1), ("ramp", 1.1), ("hold", float("nan")), ("pressure", 2), ("floor", 0.2), ("floor", -1)],
)
def test_a_phase_or_floor_outside_its_range_is_refused(field: str, value: float) -> None:
    with pytest.raises(InvalidArgumentError, match=field):
        Budget(0.9, **{field: value})


def test_phases_longer_than_the_run_are_refused() -> None:
    with pytest.raises(InvalidArgumentError, match="whole run"):
        Budget(0.9, warmup=0.5, ramp=0.5, hold=0.1)
