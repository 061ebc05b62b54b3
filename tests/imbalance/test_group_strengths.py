"""Strengths by groups: the formula, its exponents against a brute-force optimum, smoothing, bad input."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import minimize_scalar

from obverse.errors import InvalidArgumentError, UnknownNameError
from obverse.imbalance import group_strengths, strength_exponents

ERROR = np.array([0.02, 0.31, 0.6, 0.11])
COUNTS = np.array([5000, 500, 50, 1200])
groups = st.lists(st.tuples(st.floats(0, 1), st.integers(1, 10**6)), min_size=2, max_size=8)


@pytest.mark.parametrize("exponents", [(0.6, 0.4), (0.4, 0.4), (-0.6, 0.4), (0.0, 1.0), (1.0, 0.0)])
def test_without_smoothing_the_formula_over_its_maximum(exponents: tuple[float, float]) -> None:
    a, b = exponents
    raw = ERROR**a * COUNTS**-b
    assert group_strengths(ERROR, COUNTS, exponents, smoothing=0).numpy() == pytest.approx(raw / raw.max(), rel=1e-12)
    by_mean = group_strengths(torch.from_numpy(ERROR), COUNTS.tolist(), exponents, smoothing=0, normalize="mean")
    assert by_mean.numpy() == pytest.approx(raw / np.average(raw, weights=COUNTS), rel=1e-12)
    assert by_mean.dtype == torch.float64


def test_laplace_is_a_special_case() -> None:
    wrong, rows = np.array([0, 3, 30]), np.array([400, 40, 40])
    laplace = ((wrong + 1) / (rows + 2)) ** 0.6 * rows**-0.4
    found = group_strengths(wrong / rows, rows, smoothing=2, toward=0.5)
    assert found.numpy() == pytest.approx(laplace / laplace.max(), rel=1e-12)


@given(groups)
def test_no_group_is_left_without_penalty(given_groups: list[tuple[float, int]]) -> None:
    error, counts = (np.array(values) for values in zip(*given_groups, strict=True))
    found = group_strengths(error, counts)
    assert (found > 0).all()
    assert float(found.max()) == 1.0
    by_mean = group_strengths(error, counts, normalize="mean").numpy()
    assert np.average(by_mean, weights=counts) == pytest.approx(1.0)
    assert by_mean == pytest.approx(found.numpy() * (by_mean.max() / 1.0))


@given(groups, st.integers(0, 7), st.floats(1.01, 10.0))
def test_more_noise_and_fewer_rows_never_mean_less(
    given_groups: list[tuple[float, int]], place: int, by: float
) -> None:
    error, counts = (np.array(values, dtype=float) for values in zip(*given_groups, strict=True))
    place %= len(error)
    others = np.arange(len(error)) != place

    def relative(noise: np.ndarray, rows: np.ndarray) -> np.ndarray:
        found = group_strengths(noise, rows, smoothing=1, toward=0.2, trials=np.full(len(rows), 50)).numpy()
        return np.asarray(found[place] / found[others])

    before = relative(error, counts)
    noisier, rarer = error.copy(), counts.copy()
    noisier[place] = by * error[place] + 0.01
    rarer[place] = counts[place] / by
    assert (relative(noisier, counts) > before).all()
    assert (relative(error, rarer) > before).all()


def test_smoothing_fades_with_rows_and_needs_no_errors_at_all() -> None:
    rough = group_strengths(ERROR, COUNTS, smoothing=0)
    fine = group_strengths(ERROR, 1000 * COUNTS, smoothing=1)
    assert fine.numpy() == pytest.approx(rough.numpy(), rel=1e-3)
    nobody_wrong = group_strengths(np.zeros(3), [900, 90, 9])
    assert nobody_wrong.numpy() == pytest.approx(np.array([900, 90, 9]) ** -0.4 * 9**0.4)
    # Variances have no scale of their own, so neither has the smoothing.
    assert group_strengths(1e-9 * ERROR, COUNTS).numpy() == pytest.approx(group_strengths(ERROR, COUNTS).numpy())
    tiny = group_strengths([1e-300, 1e-250], [1e12, 1], (3.0, 2.0))
    assert bool(torch.isfinite(tiny).all())
    assert bool((group_strengths([0.0, 5e-324], [1, 2]) > 0).all())


@pytest.mark.parametrize(
    ("loss", "order", "dimension", "expected"),
    [
        ("cross-entropy", 1, 1, (0.6, 0.4)),
        ("squared", 1, 1, (0.4, 0.4)),
        ("gaussian-nll", 1, 1, (-0.6, 0.4)),
        ("cross-entropy", 1, 2, (2 / 3, 1 / 3)),
        ("cross-entropy", 1, 3, (5 / 7, 2 / 7)),
        ("cross-entropy", 2, 1, (5 / 9, 4 / 9)),
        ("poisson-nll", 2, 2, (0.6, 0.4)),
        ("absolute", 1, 1, (-0.1, 0.4)),
    ],
)
def test_exponents_of_the_table(loss: str, order: int, dimension: int, expected: tuple[float, float]) -> None:
    assert strength_exponents(loss, order=order, dimension=dimension) == pytest.approx(expected)


MEASURES: dict[str, Callable[[float], tuple[float, float]]] = {
    "cross-entropy": lambda v: (v, v),
    "poisson-nll": lambda v: (v, v),
    "squared": lambda v: (1.0, v),
    "gaussian-nll": lambda v: (1 / v, 1 / v),
    "absolute": lambda v: (1 / math.sqrt(v), 1.0),
}


@pytest.mark.parametrize("loss", MEASURES)
@pytest.mark.parametrize("order", [1, 2, 3])
@pytest.mark.parametrize("dimension", [1, 2, 3])
def test_exponents_are_those_of_the_least_error(loss: str, order: int, dimension: int) -> None:
    """Bias and variance of the equivalent kernel, minimized numerically over the strength of a row."""

    def best(noise: float, density: float) -> float:
        H, S = MEASURES[loss](noise)

        def risk(log_tau: float) -> float:
            bandwidth = (math.exp(log_tau) / H) ** (1 / (2 * order))
            bias = bandwidth ** (2 * order)
            return bias**2 + 1e-3 * S / (density * H**2 * bandwidth**dimension)

        return float(minimize_scalar(risk, bracket=(-8, 2), tol=1e-12).x)

    a, b = strength_exponents(loss, order=order, dimension=dimension)
    assert (best(0.3, 1.0) - best(0.1, 1.0)) / math.log(3) == pytest.approx(a, abs=1e-4)
    assert (best(0.1, 3.0) - best(0.1, 1.0)) / math.log(3) == pytest.approx(-b, abs=1e-4)


@pytest.mark.parametrize(
    "call",
    [
        lambda: group_strengths([], []),
        lambda: group_strengths([0.1], [1, 2]),
        lambda: group_strengths([-0.1, 0.2], [1, 2]),
        lambda: group_strengths([math.nan, 0.2], [1, 2]),
        lambda: group_strengths(["a", "b"], [1, 2]),
        lambda: group_strengths([0.1, 0.2], [0, 2]),
        lambda: group_strengths([0.1, 0.2], [1, 2], (0.6,)),
        lambda: group_strengths([0.1, 0.2], [1, 2], (0.6, math.inf)),
        lambda: group_strengths([0.1, 0.2], [1, 2], smoothing=-1),
        lambda: group_strengths([0.1, 0.2], [1, 2], toward=0.0),
        lambda: group_strengths([0.1, 0.2], [1, 2], trials=[1]),
        lambda: group_strengths([0.1, 0.2], [1, 2], normalize="sum"),
        lambda: group_strengths([0.0, 0.0], [1, 2], smoothing=0),
        lambda: group_strengths([0.0, 0.1], [1, 2], (-0.6, 0.4), smoothing=0),
        lambda: strength_exponents("hinge"),
        lambda: strength_exponents(order=0),
        lambda: strength_exponents(dimension=4),
        lambda: strength_exponents(dimension=0),
    ],
)
def test_bad_strengths(call: Callable[[], object]) -> None:
    with pytest.raises(InvalidArgumentError):
        call()


def test_a_wrong_name_is_answered_by_the_right_one() -> None:
    with pytest.raises(UnknownNameError, match="cross-entropy"):
        strength_exponents("crossentropy")
