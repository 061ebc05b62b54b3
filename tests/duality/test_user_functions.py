"""Functions of the user's own: each one gives the right penalty, or one line that says why it cannot."""

from __future__ import annotations

import math
import pickle
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import torch

from obverse.duality import adaptive_dropout, check_subquadratic, effective_penalty, faces, parse_expression
from obverse.errors import InvalidArgumentError, NotSubquadraticError, ObverseError, WrongTypeError
from obverse.penalties import Lasso, LogSum, Penalty, Rescaled, check_elementwise, penalty

RNG = np.random.default_rng(0)
COUNT: Iterator[int] = iter(range(1, 10**9))


def fails(w: Any) -> Any:
    raise RuntimeError("it is Sunday\nand it rains")


def fails_late(w: Any) -> Any:
    if np.size(w) > 100:
        raise ValueError("too many weights")
    return 0.5


REFUSED: dict[str, tuple[Callable[[Any], Any], str]] = {
    "a quantile": (
        lambda w: np.where(w < np.quantile(w, 0.5), 0.5, 1.0),
        r"looks at other weights: its value at .* when",
    ),
    "the largest": (lambda w: w / w.max(), "looks at other weights"),
    "the largest, in torch": (lambda w: w / torch.max(w), "looks at other weights"),
    "the mean": (lambda w: w / (w + w.mean()), "looks at other weights"),
    "the rank": (lambda w: (1 + np.argsort(np.argsort(w))) / len(w), "looks at other weights"),
    "the order": (lambda w: np.cumsum(w) / np.sum(w), "looks at other weights"),
    "the place": (lambda w: np.where(np.arange(w.size) % 2 == 0, 0.5, 1.0), "looks at other weights"),
    "the number": (lambda w: 1 - 1 / (1 + np.full_like(w, w.size)), "looks at other weights"),
    "chance": (lambda w: RNG.random(w.shape), "is random or keeps a state: its value at 0.5 changes"),
    "a little chance": (lambda w: 0.5 + 1e-5 * RNG.random(w.shape), "is random or keeps a state"),
    "chance, one by one": (lambda w: math.exp(-1 / w) * 0 + float(RNG.random()), "is random or keeps a state"),
    "a counter": (lambda w: np.full_like(w, 1 - 1 / (1 + next(COUNT))), "is random or keeps a state"),
    "complex": (lambda w: 0.5 + 0j * w, "must return real numbers, got complex128"),
    "text": (lambda w: "0.5", "must return real numbers"),
    "nothing": (lambda w: None, "must return real numbers, got object"),
    "another shape": (lambda w: np.ones((3, 3)) / 2, r"returns shape \(3, 3\)"),
    "a matrix": (lambda w: np.minimum(np.outer(w, w), 1), r"returns shape \(3, 3\)"),
    "the first three": (lambda w: w[:3] / (1 + w[:3]), r"returns shape \(3,\) for"),
    "an error": (fails, "RuntimeError: it is Sunday$"),
    "a late error": (fails_late, "fails for magnitudes between .* ValueError: too many weights"),
    "an overflow": (lambda w: math.exp(w) / (1 + math.exp(w)), "OverflowError: math range error; it must take every"),
    "one": (lambda w: 1.0, "is 1 at every weight"),
    "thousands of steps": (lambda w: np.clip(np.floor(w * 1000) / 1000, 0.01, 1.0), "more steps or kinks than can be"),
}
INTERVALS: dict[str, tuple[Callable[[Any], Any], tuple[float, float]]] = {
    "tiny": (lambda w: 0 * w + 1e-300, (1.8e8, 2.0**100)),
    "tinier": (lambda w: 0 * w + 1e-320, (0.0, 2.0**100)),
    "zero": (lambda w: 0 * w, (0.0, 2.0**100)),
    "negative": (lambda w: np.where(w < 1, -0.5, 0.5), (0.0, 1.0)),
    "above one": (lambda w: np.where(w > 3, 1.5, 0.5), (3.0, 2.0**100)),
    "nan": (lambda w: np.where((w > 2) & (w < 5), np.nan, 0.5), (2.0, 5.0)),
    "infinite": (lambda w: np.where((w > 2) & (w < 5), np.inf, 0.5), (2.0, 5.0)),
    "falling": (lambda w: np.where((w > 2) & (w < 5), 0.4, 0.5), (2.0, 2.0)),
    "a narrow dip": (lambda w: np.where((w > 1.003) & (w < 1.012), 0.4, 0.5), (1.003, 1.003)),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_no_function_of_one_weight_is_refused_with_the_reason(name: str) -> None:
    function, reason = REFUSED[name]
    for use in (effective_penalty, check_subquadratic):
        with pytest.raises(InvalidArgumentError, match=reason) as caught:
            use(function)
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", INTERVALS)
def test_what_is_no_keep_probability_is_refused_with_the_interval(name: str) -> None:
    function, (low, high) = INTERVALS[name]
    with pytest.raises(NotSubquadraticError, match="fails for") as caught:
        effective_penalty(function)
    assert caught.value.interval == pytest.approx((low, high), rel=0.03, abs=0.01)


@pytest.mark.parametrize("given", [3, "log-sum", None, np.ones(3)], ids=str)
def test_what_is_no_function_is_refused(given: Any) -> None:
    with pytest.raises(WrongTypeError, match="must be callable"):
        effective_penalty(given)


@pytest.mark.parametrize(
    "form",
    [
        lambda w: 1 / (1 + np.exp(-w)),
        lambda w: 1 / (1 + math.exp(-w)),
        lambda w: 1.0 / (1.0 + torch.exp(-w)),
        lambda w: [1 / (1 + math.exp(-x)) for x in w],
        lambda w: max(0.5, 1 / (1 + math.exp(-w))),
    ],
    ids=["array", "number", "tensor", "list", "builtin"],
)
def test_every_form_gives_the_same_penalty(form: Any) -> None:
    e, w = effective_penalty(form), np.linspace(0.01, 30, 200)
    np.testing.assert_allclose(e.value(w), 1 - (1 + w) * np.exp(-w), rtol=1e-8)
    assert e.curvature_limit == pytest.approx(math.exp(2), rel=1e-5)


def test_rules_in_single_precision_are_as_accurate_as_they_can_be_and_coarser_ones_are_refused() -> None:
    e, w = effective_penalty(lambda w: torch.sigmoid(w.float())), np.linspace(0.1, 5, 50)
    np.testing.assert_allclose(e.value(w), 1 - (1 + w) * np.exp(-w), rtol=1e-6)
    with pytest.raises(InvalidArgumentError, match="more steps or kinks"):
        effective_penalty(lambda w: torch.sigmoid(w.bfloat16()))


@pytest.mark.parametrize("name", ["log-sum", "l0.5", "lasso", "empirical-bayes", "ridge"])
def test_the_value_goes_on_as_it_did_where_the_probability_has_no_digits_left(name: str) -> None:
    p = penalty(name)
    e = effective_penalty(lambda w: p.keep_probability(w, 1.0))
    w = np.array([1e5, 1e7, 1e12, 1e20])
    np.testing.assert_allclose(e.value(w), p.value(w), rtol=1e-3)
    assert e.curvature_limit == pytest.approx(p.curvature_limit, rel=1e-4)


def test_an_effective_penalty_is_pickled() -> None:
    e = effective_penalty(lambda w: w / (w + 1))
    again, w = pickle.loads(pickle.dumps(e)), np.linspace(0.1, 3, 9)
    np.testing.assert_array_equal(again.prox(w, 0.2), e.prox(w, 0.2))


@pytest.mark.parametrize("strength", [0.0, -1.0, math.nan, math.inf, True, "1", 1e300, 1e-300])
def test_bad_strengths_are_refused(strength: Any) -> None:
    with pytest.raises(InvalidArgumentError, match="strength must be"):
        effective_penalty(lambda w: w / (w + 1), strength)


# ---------------------------------------------------------------------------------------- penalties of one's own
class Own(Penalty):
    """A lasso whose formulas may be replaced."""

    def __init__(self, value: Any = None, slope: Any = None) -> None:
        self.formulas = value or (lambda w: w + 0.0), slope or (lambda w: w * 0 + 1.0)

    def _value(self, w: Any, xp: Any) -> Any:
        return self.formulas[0](w)

    def _slope(self, w: Any, xp: Any) -> Any:
        return self.formulas[1](w)


OWN: dict[str, tuple[Own, str]] = {
    "value of the largest": (Own(value=lambda w: w / w.max()), "the value of Own looks at other weights"),
    "slope of the mean": (Own(slope=lambda w: 1 / (1 + w.mean() + 0 * w)), "the slope of Own looks at other weights"),
    "random": (Own(value=lambda w: RNG.random(w.shape)), "the value of Own is random or keeps a state"),
    "fails": (Own(slope=fails), "the slope of Own fails: RuntimeError: it is Sunday"),
    "shape": (Own(value=lambda w: np.ones(3)), "the value of Own must be one real number for each weight"),
}


@pytest.mark.parametrize("name", OWN)
def test_penalties_that_look_at_other_weights_are_refused(name: str) -> None:
    own, reason = OWN[name]
    for use in (check_subquadratic, adaptive_dropout):
        for given in (own, Rescaled(own, 2.0)):
            with pytest.raises(InvalidArgumentError, match=reason):
                use(given)


@pytest.mark.parametrize(
    ("own", "reason"),
    [
        (Own(value=lambda w: w + 1.0), "its value must be 0 at 0"),
        (Own(value=lambda w: w / 2), "does not grow by the integral of its slope"),
        (Own(value=lambda w: w + (w > 1)), "does not grow by the integral of its slope"),
        (Own(slope=lambda w: w * 0 - 1.0), "slope is negative"),
    ],
)
def test_a_value_that_is_not_the_integral_of_its_slope_is_refused(own: Own, reason: str) -> None:
    with pytest.raises(NotSubquadraticError, match=reason):
        check_subquadratic(own)


def test_an_own_penalty_in_order_passes() -> None:
    assert check_subquadratic(Own()).tail == "linear"
    assert adaptive_dropout(Own(), 0.5).keep_probability(1.0) == Lasso().keep_probability(1.0, 0.5)


@pytest.mark.parametrize("epsilon", [1e-90, 1e-15, 1.0, 1e15, 1e90])
def test_the_tail_does_not_depend_on_the_width(epsilon: float) -> None:
    assert check_subquadratic(LogSum(epsilon)).tail == "logarithmic"
    assert check_subquadratic(penalty("mcp", kappa=epsilon)).tail == "constant"


def test_check_elementwise_returns_the_values_and_knows_rounding() -> None:
    w = np.geomspace(1e-3, 1e3, 100)
    np.testing.assert_array_equal(check_elementwise(np.sqrt, w, what="root"), np.sqrt(w))
    noisy = check_elementwise(
        lambda w: w + 1e-9 * RNG.random(w.shape), w, what="noise", tolerance=0.0, noise=lambda w: np.full_like(w, 1e-8)
    )
    np.testing.assert_allclose(noisy, w, atol=1e-8)


# -------------------------------------------------------------------------------------------------- adaptive dropout
def test_nan_weights_have_nan_variance_and_masks() -> None:
    dropout = adaptive_dropout(LogSum(0.5), 0.3)
    w = np.array([0.5, np.nan, np.inf])
    assert np.isnan(dropout.variance(w)).tolist() == [False, True, False]
    assert dropout.variance(w)[2] == 0
    for law in ("bernoulli", "gaussian"):
        for given in (w, torch.tensor(w)):
            mask = np.asarray(dropout.sample(given, 0, law))  # type: ignore[arg-type]
            assert np.isnan(mask).tolist() == [False, True, False]


@pytest.mark.parametrize(
    "scale", [2, np.float32(2), [1.0, 2.0], np.array([1.0, 2.0]), torch.tensor([1.0, 2.0])], ids=str
)
def test_scales_of_every_kind_meet_weights_of_every_kind(scale: Any) -> None:
    dropout = adaptive_dropout(LogSum(0.5), 0.3, scale=scale)
    expected = LogSum(0.5).keep_probability(np.asarray([0.5, 1.0]) * np.asarray(scale), 0.3)
    for w in ([0.5, 1.0], np.array([0.5, 1.0], dtype=np.float32), torch.tensor([0.5, 1.0])):
        keep = dropout.keep_probability(w)
        np.testing.assert_allclose(np.asarray(keep), expected, rtol=1e-6)
        assert getattr(keep, "dtype", None) == getattr(w, "dtype", np.float64)
        assert np.asarray(dropout.sample(w, 0)).shape == (2,)
        assert np.asarray(dropout.variance(w)).shape == (2,)


def test_scales_that_do_not_fit_are_refused() -> None:
    for scale in (True, [1.0, -1.0], np.array([np.nan]), torch.tensor([math.inf]), 0.0):
        with pytest.raises(InvalidArgumentError, match="scale must be"):
            adaptive_dropout(Lasso(), 1.0, scale=scale)
    with pytest.raises(WrongTypeError, match="expected a number"):
        adaptive_dropout(Lasso(), 1.0, scale="2")
    for w in (np.ones(3), torch.ones(3)):
        with pytest.raises(InvalidArgumentError, match=r"scale of shape \(2,\) does not fit weights of shape \(3,\)"):
            adaptive_dropout(Lasso(), 1.0, scale=[1.0, 2.0]).sample(w, 0)


def test_generators_of_either_library_draw_for_either() -> None:
    dropout = adaptive_dropout(LogSum(0.5), 0.3)
    for w in (np.full(50, 0.5), torch.full((50,), 0.5)):
        for make in (lambda: np.random.default_rng(3), lambda: torch.Generator().manual_seed(3), lambda: 3):
            one, two = (np.asarray(dropout.sample(w, make())) for _ in range(2))
            np.testing.assert_array_equal(one, two)
            assert len(set(one.tolist())) == 2
        with pytest.raises(InvalidArgumentError, match="generator must be"):
            dropout.sample(w, -1)
        with pytest.raises(InvalidArgumentError, match="generator must be"):
            dropout.sample(w, "seed")


def test_faces_checks_its_arguments() -> None:
    assert faces("log-sum", 0.3, points=11).w.shape == (11,)
    for arguments in ({"points": 1}, {"points": 10.5}, {"limit": math.inf}, {"strength": -1.0}):
        with pytest.raises(InvalidArgumentError, match="must be"):
            faces(LogSum(), **{"strength": 1.0, **arguments})
    with pytest.raises(ObverseError, match="penalty"):
        faces(3)  # type: ignore[arg-type]


def test_comparisons_in_formulas_are_numbers() -> None:
    w = np.array([0.5, 1.5, 2.5])
    np.testing.assert_array_equal(parse_expression("(w < 2) - (w < 1)")(w), [0, 1, 0])
    np.testing.assert_array_equal(parse_expression("-(w < 1)")(w), [-1, 0, 0])
    np.testing.assert_array_equal(parse_expression("where(w < 1, 3, 4)")(w), [3, 4, 4])
    with pytest.raises(InvalidArgumentError, match="given as text"):
        parse_expression(3)  # type: ignore[arg-type]
