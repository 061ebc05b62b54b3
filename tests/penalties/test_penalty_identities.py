"""The identities that tie the faces of a penalty together, for the whole catalogue."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from penalties_cases import EVERY

from obverse.penalties import CappedL1, EmpiricalBayes, Lasso, Log2Sum, LogSum, Lp, Penalty, Ridge, Standout


def test_value_is_zero_at_zero_even_and_nondecreasing(every: Penalty, weights: np.ndarray) -> None:
    value = every.value(weights)
    assert value[0] == 0
    np.testing.assert_array_equal(every.value(-weights), value)
    assert (np.diff(value) >= -1e-12 * value[-1]).all()
    assert value[-1] > 0


def test_slope_is_the_derivative_of_the_value(every: Penalty, weights: np.ndarray) -> None:
    w = weights[1:]
    h = 1e-4 * w
    difference = (every.value(w + h) - every.value(w - h)) / (2 * h)
    slope = every.slope(w)
    scale = np.abs(slope) + 1e-3 * every.value(w) / w
    # A kink may fall between the two points, at no more than two of the weights.
    assert np.sort(np.abs(difference - slope) / scale)[-3] < 1e-5


def test_autograd_gives_the_slope_and_zero_at_zero(every: Penalty, weights: np.ndarray) -> None:
    w = torch.tensor(np.concatenate([-weights, weights]), requires_grad=True)
    (gradient,) = torch.autograd.grad(every.value(w).sum(), w)
    with torch.no_grad():
        expected = torch.where(w == 0, 0.0, torch.sign(w) * every.slope(w))
    assert torch.isfinite(gradient).all()
    torch.testing.assert_close(gradient, expected, rtol=1e-6, atol=1e-9)


def test_eta_times_slope_is_the_weight(every: Penalty, weights: np.ndarray) -> None:
    w = weights[1:]
    slope, eta = every.slope(w), every.eta(w)
    reachable = (slope > 0) & np.isfinite(eta)
    np.testing.assert_allclose(eta[reachable] * slope[reachable], w[reachable], rtol=1e-9)
    assert np.isinf(eta[slope == 0]).all()
    assert (eta[1:] >= eta[:-1] * (1 - 1e-9)).all(), "eta must not decrease: the penalty is subquadratic"


def test_duality_gap_is_nonnegative_and_closes_at_eta(every: Penalty, weights: np.ndarray) -> None:
    w, eta = weights[1:], np.geomspace(1e-6, 1e5, 200)
    gap = (w[:, None] ** 2 / eta + every.dual(eta)) / 2 - every.value(w)[:, None]
    assert np.nanmin(gap) >= -1e-9
    own = every.eta(w)
    closed = (w * (w / own) + every.dual(own)) / 2
    np.testing.assert_allclose(closed, every.value(w), rtol=1e-8, atol=1e-12)


def test_keep_probability_is_eta_over_eta_plus_strength(every: Penalty, weights: np.ndarray) -> None:
    keep, eta = every.keep_probability(weights, 0.7), every.eta(weights)
    finite = np.isfinite(eta)
    np.testing.assert_allclose(keep[finite], eta[finite] / (eta[finite] + 0.7), rtol=1e-12)
    assert (keep[~finite] == 1).all()
    assert (np.diff(keep) >= -1e-9).all()
    assert (every.keep_probability(weights, 0.0) == 1).all()


def test_slope_at_zero_is_the_limit_of_the_slope(every: Penalty) -> None:
    near = float(every.value(1e-12)) / 1e-12
    at_zero = every.slope_at_zero
    if at_zero == math.inf:
        assert near > 1e3
    elif at_zero > 0:
        assert near == pytest.approx(at_zero, rel=1e-6)
    else:
        # Lp just above 1 vanishes slowly.
        assert near < (1e-3 if getattr(every, "p", 2.0) > 1.1 else 1.0)
    assert float(every.slope(0.0)) == pytest.approx(at_zero, rel=1e-9)


def test_members_that_are_the_same_penalty_agree(weights: np.ndarray) -> None:
    for one, other in [(Lp(1.0), Lasso()), (Lp(2.0), Ridge())]:
        for method in ("value", "slope", "eta", "dual"):
            np.testing.assert_allclose(getattr(one, method)(weights), getattr(other, method)(weights), rtol=1e-14)
        np.testing.assert_allclose(one.prox(weights, 0.3), other.prox(weights, 0.3), rtol=1e-14)


def test_known_values() -> None:
    assert float(LogSum(0.5).value(1.0)) == pytest.approx(math.log(3))
    assert float(Log2Sum(0.5).dual(0.1)) == 0
    assert float(Standout(2.0, 0.5).keep_probability(0.3, 1.0)) == pytest.approx(1 / (1 + math.exp(-1.1)))
    assert float(EmpiricalBayes(4.0).dual(3.0)) == pytest.approx(math.log(13))
    assert float(CappedL1(2.0).dual(8.0)) == pytest.approx(4 - 4 / 8)


@settings(max_examples=60, deadline=None)
@given(
    st.sampled_from(EVERY),
    st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=5),
    st.floats(1e-6, 1e6),
)
def test_no_eta_beats_the_penalty(penalty: Penalty, w: list[float], eta: float) -> None:
    values = penalty.value(np.array(w))
    bound = (np.square(w) / eta + penalty.dual(np.array([eta]))) / 2
    assert (bound >= values - 1e-7 * (1 + np.abs(values))).all()
