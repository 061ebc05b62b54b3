"""The gain along a path of uniform strengths: exact smoothers, groups without bias, noise, bad input."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from theory_example import theory

from obverse.errors import InvalidArgumentError
from obverse.imbalance import gain_along_path


@pytest.mark.parametrize("name", theory.CASES)
def test_a_path_of_exact_smoothers_tells_the_exact_gains(name: str) -> None:
    case = theory.CASES[name]
    x = theory.centers()
    # Away from the border, across which one half's strength reaches into the other.
    halves = (x > 0.05) & (x < 0.4), (x > 0.6) & (x < 0.95)
    density = theory.by_half(case[0].density, case[1].density)
    score = theory.by_half(case[0].deviation ** 2, case[1].deviation ** 2)
    ends = np.log([theory.optimal_strength(region) for region in case])
    path = np.exp(np.linspace(ends.min() - 4, ends.max() + 4, 80))

    def errors(rule: str) -> theory.Array:
        strengths = np.array([theory.RULES[rule](region) for region in case])
        first, second = strengths / strengths.max()
        tau = path[:, None] * theory.by_half(first, second)
        risks = theory.risk(theory.target(case, x), density, np.ones_like(x), score, tau)
        return np.stack([risks[:, half].mean(1) for half in halves], axis=1)

    uniform = errors("uniform")
    found = gain_along_path(path, uniform)
    for rule in ("density only", "noise only", "noise and density", "with curvature"):
        exact = uniform.mean(1).min() / errors(rule).mean(1).min()
        assert found.of([theory.RULES[rule](region) for region in case]) == pytest.approx(exact, rel=0.03)
        assert exact <= 1.03 * found.gain
    assert found.gain == pytest.approx(exact, rel=0.06)
    smaller = int(np.argmin(found.group_coefficients))
    assert found.bias_limited[smaller] == (found.group_coefficients[smaller] < found.coefficient)


def test_groups_without_bias_leave_nothing_to_gain() -> None:
    path = [0.0, 0.3, 1.0, 3.0]
    errors = np.array([[2.1, 55.0], [1.9, 53.0], [1.7, 45.0], [1.5, 40.0]])
    found = gain_along_path(path, errors)
    assert (found.gain, found.coefficient, found.bias_limited) == (1.0, 3.0, (False, False))
    assert found.group_coefficients == (3.0, 3.0)
    # A weaker penalty of the frequent group only gives away what the common one gains.
    assert found.of([0.05, 1.0]) == pytest.approx(20.75 / ((1.9 + 0.2 * 0.5 + 40.0) / 2))
    limited = gain_along_path(path, errors + np.array([[0, 0], [0, 0], [3, 0], [9, 0]]))
    assert limited.bias_limited == (True, False)
    assert limited.group_coefficients == (0.3, 3.0)
    assert limited.coefficient == 1.0
    assert limited.gain == pytest.approx((4.7 + 45.0) / (1.9 + 40.0))
    assert limited.of([0.1, 1.0]) == pytest.approx(limited.gain)


@given(
    st.integers(2, 6), st.integers(1, 4), st.integers(0, 2**32 - 1), st.booleans(), st.sampled_from([1.0, 1e-6, 1e6])
)
def test_no_strengths_gain_more_than_each_group_at_its_best(
    length: int, groups: int, seed: int, from_zero: bool, scale: float
) -> None:
    rng = np.random.default_rng(seed)
    path = scale * np.cumsum(rng.uniform(0.1, 3.0, length))
    if from_zero:
        path[0] = 0.0
    errors, weights = rng.uniform(0.1, 2.0, (length, groups)), rng.uniform(0.1, 2.0, groups)
    found = gain_along_path(path, errors, weights=weights)
    shares = weights / weights.sum()
    assert found.error == pytest.approx((errors @ shares).min())
    assert found.adaptive_error == pytest.approx(errors.min(0) @ shares)
    assert found.gain >= 1 - 1e-12
    strengths = rng.uniform(0.01, 1.0, groups)
    assert found.of(strengths) <= found.gain * (1 + 1e-9)
    assert found.of(7 * strengths) == pytest.approx(found.of(strengths))
    assert found.of(np.ones(groups)) == pytest.approx(1.0)
    assert gain_along_path(9 * path, 5 * errors, weights=3 * weights).gain == pytest.approx(found.gain)


def test_noise_alone_promises_nothing_where_runs_are_repeated() -> None:
    rng = np.random.default_rng(0)
    once, repeated = [], []
    for _ in range(200):
        errors = 10 + rng.normal(size=(5, 4, 6))
        once.append(gain_along_path([0.3, 1, 3, 10], errors[0]).gain)
        repeated.append(gain_along_path([0.3, 1, 3, 10], errors).gain)
    assert np.mean(once) > 1.05
    assert np.mean(repeated) == pytest.approx(1.0, abs=0.01)


def test_what_it_prints_and_stores() -> None:
    found = gain_along_path(torch.tensor([1.0, 2.0]), torch.tensor([[1.0, 4.0], [2.0, 2.0]]))
    assert "limited by bias            group 0" in str(found)
    stored = json.loads(json.dumps(found.to_dict()))
    assert stored["group_coefficients"] == [1.0, 2.0]
    assert stored["gain"] == pytest.approx(2 / 1.5)
    assert "no group" in str(gain_along_path([1, 2], [[2, 2], [1, 1]]))
    assert gain_along_path([1, 2], [[0, 0], [0, 0]]).gain == 1.0


@pytest.mark.parametrize(
    ("path", "errors", "weights", "words"),
    [
        ([1.0], [[1.0, 2.0]], None, "coefficients"),
        ([1.0, 1.0], [[1.0], [2.0]], None, "coefficients"),
        ([-1.0, 1.0], [[1.0], [2.0]], None, "coefficients"),
        ([1.0, 2.0], [[1.0, 2.0]], None, "shape"),
        ([1.0, 2.0], [1.0, 2.0], None, "shape"),
        ([1.0, 2.0], np.ones((0, 2, 3)), None, "shape"),
        ([1.0, 2.0], [[1.0], [np.nan]], None, "finite"),
        ([1.0, 2.0], [[1.0], [-2.0]], None, "negative"),
        ([1.0, 2.0], [[1.0], [2.0]], [1.0, 1.0], "weights"),
        ([1.0, 2.0], [[1.0], [2.0]], [0.0], "weights"),
    ],
)
def test_bad_input_is_refused(path: object, errors: object, weights: object, words: str) -> None:
    with pytest.raises(InvalidArgumentError, match=words):
        gain_along_path(path, errors, weights=weights)  # type: ignore[arg-type]


@pytest.mark.parametrize("strengths", [[1.0], [1.0, 0.0], [1.0, -1.0]])
def test_bad_strengths_are_refused(strengths: list[float]) -> None:
    with pytest.raises(InvalidArgumentError, match="2 positive numbers"):
        gain_along_path([1, 2], [[2, 2], [1, 1]]).of(strengths)
