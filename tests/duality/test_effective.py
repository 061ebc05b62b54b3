"""From a keep probability to its penalty and back."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from obverse.duality import adaptive_dropout, check_subquadratic, effective_penalty
from obverse.errors import InvalidArgumentError, NotSubquadraticError
from obverse.penalties import Lasso, LogSum, Penalty, Rescaled, VariationalDropout, catalogue, penalty

W = np.geomspace(1e-6, 1e3, 2001)
# Counting nonzeros has keep probability one at every weight but zero: nothing is left to integrate.
NAMES = [name for name in [*catalogue(), "l0.5", "l1.5"] if name != "l0"]


@pytest.mark.parametrize("strength", [1.0, 0.05])
@pytest.mark.parametrize("name", NAMES)
def test_quadrature_matches_the_closed_form(name: str, strength: float) -> None:
    p = penalty(name)
    e = effective_penalty(lambda w: p.keep_probability(w, strength), strength)
    np.testing.assert_allclose(e.value(W), p.value(W), rtol=1e-8)
    clear = strength / np.asarray(p.eta(W)) > 1e-3
    np.testing.assert_allclose(np.asarray(e.slope(W))[clear], np.asarray(p.slope(W))[clear], rtol=1e-8)
    assert e.slope_at_zero == pytest.approx(p.slope_at_zero, rel=1e-9)


@pytest.mark.parametrize("name", [*NAMES, "l0"])
def test_round_trip_is_the_penalty_itself(name: str) -> None:
    p = penalty(name)
    assert effective_penalty(p.keep_probability, 0.3) is p
    assert effective_penalty(adaptive_dropout(p, 0.3).keep_probability, 0.3) is p
    assert effective_penalty(adaptive_dropout(p, 0.3)) == Rescaled(p, 1.0, 0.3)


@pytest.mark.parametrize("form", [lambda w: 1 / (1 + math.exp(-min(w, 60.0))), torch.sigmoid])
def test_numbers_and_tensors_are_taken(form: Callable[[Any], Any]) -> None:
    e = effective_penalty(form)
    w = np.linspace(0.01, 20, 200)
    np.testing.assert_allclose(e.value(w), 1 - (1 + w) * np.exp(-w), rtol=1e-8)


def test_scale_rule() -> None:
    p = LogSum(0.5)
    w = np.linspace(0.1, 3, 20)
    for e in (
        effective_penalty(lambda w: p.keep_probability(w, 0.3), 0.3, scale=2.0),
        effective_penalty(p.keep_probability, 0.3, scale=2.0),
        effective_penalty(adaptive_dropout(p, 0.3, scale=2.0), 0.3),
    ):
        np.testing.assert_allclose(e.value(w), p.value(2 * w), rtol=1e-9)
    with pytest.raises(InvalidArgumentError, match="one scale per weight"):
        effective_penalty(adaptive_dropout(p, 0.3, scale=np.ones(3)))


def test_steps_are_exact() -> None:
    kappa = 0.83
    e = effective_penalty(lambda w: np.where(w < kappa, 0.5, 1.0))
    w = np.linspace(0, 4, 4001)
    np.testing.assert_allclose(e.value(w), np.minimum(w, kappa) ** 2 / 2, atol=1e-12)
    clip = effective_penalty(lambda w: np.clip(w / kappa, 0, 1), 1.0)
    np.testing.assert_allclose(clip.value(w), np.where(w < kappa, kappa * w - w * w / 2, kappa**2 / 2), atol=1e-12)


@pytest.mark.parametrize(
    ("keep", "low", "high"),
    [
        (lambda w: 0.5 + 0.3 * np.sin(np.minimum(w, 4.0)), math.pi / 2, 4.0),
        (lambda w: np.where(w > 3, 1.5, 0.5), 3.0, 2.0**100),
        (lambda w: np.where((w > 2) & (w < 5), np.nan, 0.5), 2.0, 5.0),
        (lambda w: np.where(w > 1, 1.0, 0.0), 0.0, 1.0),
    ],
    ids=["falls", "beyond-one", "nan", "zero"],
)
def test_refusals_name_the_interval(keep: Callable[[Any], Any], low: float, high: float) -> None:
    with pytest.raises(NotSubquadraticError, match="fails for") as caught:
        effective_penalty(keep)
    assert caught.value.interval == pytest.approx((low, high), rel=0.05, abs=0.01)


def test_a_divergent_integral_is_refused() -> None:
    with pytest.raises(NotSubquadraticError, match="infinite"):
        effective_penalty(lambda w: w**2 / (1 + w**2))


class Cubic(Penalty):
    def _value(self, w: Any, xp: Any) -> Any:
        return w**3 / 3

    def _slope(self, w: Any, xp: Any) -> Any:
        return w * w


class Cauchy(Penalty):
    def _value(self, w: Any, xp: Any) -> Any:
        return xp.log1p(w * w) / 2

    def _slope(self, w: Any, xp: Any) -> Any:
        return w / (1 + w * w)


def test_check_subquadratic() -> None:
    report = check_subquadratic(VariationalDropout())
    assert report.subquadratic
    assert report.exact_zeros
    assert report.tail == "logarithmic"
    assert report.curvature_limit == pytest.approx(4.512, abs=1e-3)
    assert check_subquadratic(Lasso()).tail == "linear"
    assert check_subquadratic(penalty("ridge")).tail == "quadratic"
    assert check_subquadratic(penalty("mcp")).tail == "constant"
    assert check_subquadratic(penalty("l0.5")).tail == "power 0.5"
    mine = check_subquadratic(Cauchy())
    assert (mine.exact_zeros, mine.tail) == (False, "logarithmic")
    assert check_subquadratic(lambda w: 1 / (1 + np.exp(-w))).tail == "constant"
    with pytest.raises(NotSubquadraticError) as caught:
        check_subquadratic(Cubic())
    assert caught.value.interval is not None
    with pytest.raises(InvalidArgumentError, match="Penalty or a callable"):
        check_subquadratic(3)  # type: ignore[arg-type]
