"""Every method of every penalty at the ends of the numbers, and what is refused instead."""

from __future__ import annotations

import copy
import math
import pickle
from typing import Any

import numpy as np
import pytest
import torch
from penalties_cases import EVERY

from obverse.errors import InvalidArgumentError, WrongTypeError
from obverse.penalties import (
    L0,
    MCP,
    SCAD,
    ConcreteDropout,
    EmpiricalBayes,
    HardConcrete,
    Lasso,
    Log2Sum,
    LogSum,
    Lp,
    Penalty,
    Rescaled,
    Standout,
    TabulatedPenalty,
    VariationalDropout,
    catalogue,
    penalty,
)

METHODS = ("value", "slope", "eta", "dual", "zeroing_step", "prox", "keep_probability")
MAGNITUDES = np.array([0.0, 5e-324, 1e-310, 1e-200, 1e-40, 1e-30, 1e-10, 0.7, 1e10, 1e30, 1e100, 1e200, 1e300, np.inf])
WIDE = [
    *(cls(size) for size in (1e-100, 1e-30, 1e30, 1e100) for cls in (LogSum, Log2Sum, MCP, EmpiricalBayes)),
    *(cls(size) for size in (1e-100, 1e-30, 1e30, 1e100) for cls in (Standout, VariationalDropout, ConcreteDropout)),
    SCAD(1 + 1e-12, 1e-100),
    SCAD(1e50, 1e100),
    Standout(1.0, -80.0),
    Standout(1.0, 80.0),
    Lp(0.001),
    Lp(1 - 1e-9),
    Lp(1 + 1e-9),
    Rescaled(LogSum(), 1e-100, 1e100),
    Rescaled(Rescaled(MCP(1e-100), 1e-100, 1e100), 1e-100, 1e100),
]


class Cauchy(Penalty):
    """A penalty of one's own, with nothing but the two formulas."""

    def _value(self, w: Any, xp: Any) -> Any:
        return xp.log1p(w * w) / 2

    def _slope(self, w: Any, xp: Any) -> Any:
        return w / (1 + w * w)


def call(penalty: Penalty, method: str, x: Any) -> Any:
    if method in ("prox", "keep_probability"):
        return getattr(penalty, method)(x, 0.3)
    return getattr(penalty, method)(x)


# ------------------------------------------------------------------------------------------------ the right number
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("penalty", [*EVERY, *WIDE], ids=repr)
def test_no_magnitude_makes_a_nan_and_nan_stays(penalty: Penalty, method: str) -> None:
    result = np.asarray(call(penalty, method, np.append(MAGNITUDES, np.nan)))
    assert np.isnan(result).tolist() == [False] * MAGNITUDES.size + [True]
    assert (result[:-1] >= 0).all()
    if method != "slope":
        assert (result[1:-1] >= result[:-2] * (1 - 1e-9)).all(), "it must not fall as the weight grows"
    with_torch = call(penalty, method, torch.tensor(np.append(MAGNITUDES, np.nan))).numpy()
    np.testing.assert_allclose(with_torch, result, rtol=1e-8, atol=1e-300)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("penalty", [*EVERY, *WIDE], ids=repr)
def test_single_precision_is_the_rounded_double_at_every_magnitude(penalty: Penalty, method: str) -> None:
    with np.errstate(all="ignore"):
        w = np.append(MAGNITUDES, np.nan).astype(np.float32)
        reference = np.asarray(call(penalty, method, w.astype(np.float64))).astype(np.float32)
    for x in (w, torch.tensor(w)):
        result = np.asarray(call(penalty, method, x))
        assert result.dtype == np.float32
        np.testing.assert_allclose(result, reference, rtol=1e-4, atol=1e-37)


@pytest.mark.parametrize("step", [0.0, 0.3, 1e6, "array"])
def test_prox_leaves_infinity_and_nan_alone(every: Penalty, step: Any) -> None:
    z = np.array([-np.inf, 0.4, np.nan, -3.0, np.inf])
    for kind in (np.float32, np.float64):
        steps = np.full(5, 0.3, dtype=kind) if step == "array" else step
        x = every.prox(z.astype(kind), steps)
        np.testing.assert_array_equal(x[[0, 2, 4]], z[[0, 2, 4]])
        alone = every.prox(z.astype(kind)[[1, 3]], np.broadcast_to(steps, 5)[[1, 3]])
        np.testing.assert_allclose(x[[1, 3]], alone, rtol=1e-6)
        tensor = every.prox(torch.tensor(z.astype(kind)), torch.tensor(steps) if step == "array" else step)
        np.testing.assert_array_equal(tensor.numpy()[[0, 2, 4]], z[[0, 2, 4]])
    assert Log2Sum().prox(np.inf, 1.0) == np.inf


def test_the_limits_at_infinity() -> None:
    for p in EVERY:
        far = float(p.value(1e290))
        assert p.value(np.inf) == pytest.approx(far, rel=1e-9) or (p.value(np.inf) == np.inf and far > 100)
        assert p.slope(np.inf) <= float(p.slope(1e290)) or p.slope(np.inf) == np.inf
        assert p.keep_probability(np.inf, 0.3) == pytest.approx(float(p.keep_probability(1e290, 0.3)))


def test_nan_gives_nan_in_every_method_of_an_own_penalty() -> None:
    for method in METHODS:
        result = np.asarray(call(Cauchy(), method, np.array([0.5, np.nan, np.inf])))
        assert np.isnan(result[1])
        assert not np.isnan(result[0])
    assert np.isnan(ConcreteDropout().zeroing_step(np.nan))
    np.testing.assert_array_equal(Cauchy().prox(np.array([np.inf, -np.inf]), 0.1), [np.inf, -np.inf])
    assert float(Cauchy().prox(1e140, 0.1)) == pytest.approx(1e140)


def test_the_gradient_at_nan_is_nan_and_elsewhere_what_it_was(every: Penalty) -> None:
    w = torch.tensor([0.5, math.nan, -2.0], dtype=torch.float64, requires_grad=True)
    (gradient,) = torch.autograd.grad(every.value(w).sum(), w)
    clean = w.detach()[[0, 2]].requires_grad_()
    (expected,) = torch.autograd.grad(every.value(clean).sum(), clean)
    assert gradient.isnan().tolist() == [False, True, False]
    torch.testing.assert_close(gradient[[0, 2]], expected)


@pytest.mark.parametrize("method", METHODS)
def test_memory_of_every_layout_gives_the_same_numbers(every: Penalty, method: str) -> None:
    w = np.linspace(-2, 2, 24).reshape(4, 6)
    frozen = w.copy()
    frozen.flags.writeable = False
    expected = np.asarray(call(every, method, w))
    for given in (frozen, np.asfortranarray(w), w[::-1][::-1], np.repeat(w, 2, axis=0)[::2]):
        np.testing.assert_array_equal(call(every, method, given), expected)
    np.testing.assert_allclose(call(every, method, torch.tensor(w).t()).numpy(), expected.T, rtol=1e-12)
    np.testing.assert_allclose(
        np.asarray(call(every, method, np.asarray(w, np.longdouble)), float), expected, rtol=1e-12
    )
    assert call(every, method, np.float16([6e4, np.inf, 0.5])).dtype == np.float16
    assert call(every, method, np.empty((0, 2))).shape == (0, 2)


# ------------------------------------------------------------------------------------------------ what is refused
BAD_STEPS = [[-1.0, 1.0], [np.nan, 1.0], [np.inf, 1.0], [0.1, -np.inf]]


@pytest.mark.parametrize("bad", BAD_STEPS, ids=str)
@pytest.mark.parametrize("library", [np.array, torch.tensor, list])
def test_bad_steps_in_an_array_are_refused(every: Penalty, bad: list[float], library: Any) -> None:
    z = np.array([0.5, 2.0]) if library is not torch.tensor else torch.tensor([0.5, 2.0])
    with pytest.raises(InvalidArgumentError, match="step must be finite and at least 0 everywhere"):
        every.prox(z, library(bad))
    if bad != [np.inf, 1.0]:
        with pytest.raises(InvalidArgumentError, match="strength must be at least 0 everywhere"):
            every.keep_probability(z, library(bad))
    else:  # the limit of an ever stronger dropout
        keep = np.asarray(every.keep_probability(z, library(bad)))
        assert keep[0] == (1 if every.eta(0.5) == np.inf else 0)
        assert keep[1] == every.keep_probability(z, 1.0)[1]


@pytest.mark.parametrize("library", [np, torch])
def test_steps_that_do_not_fit_are_refused(every: Penalty, library: Any) -> None:
    with pytest.raises(InvalidArgumentError, match=r"step of shape \(2,\) does not broadcast"):
        every.prox(library.ones(3), library.ones(2))
    with pytest.raises(InvalidArgumentError, match=r"strength of shape \(2,\) does not broadcast"):
        every.keep_probability(library.ones(3), library.ones(2))


@pytest.mark.parametrize("step", [True, None, "0.1", 1j])
def test_steps_of_other_types_are_refused(step: Any) -> None:
    with pytest.raises((InvalidArgumentError, WrongTypeError), match="step must be"):
        LogSum().prox(1.0, step)
    with pytest.raises(WrongTypeError, match="step must be real"):
        LogSum().prox(np.ones(2), np.ones(2, dtype=complex))


@pytest.mark.parametrize("w", [None, "text", ["a"], [[1.0], [1.0, 2.0]], 1j, np.ones(2, dtype=complex)], ids=str)
@pytest.mark.parametrize("method", METHODS)
def test_what_is_no_number_is_refused(method: str, w: Any) -> None:
    with pytest.raises(WrongTypeError, match=r"expected a number|real numbers"):
        call(LogSum(), method, w)


def test_steps_that_single_precision_cannot_hold_are_used_in_double() -> None:
    z = np.array([1.0, 1e3], dtype=np.float32)
    for step in (1e300, np.full(2, 1e300)):
        np.testing.assert_array_equal(Lasso().prox(z, step), [0, 0])
        np.testing.assert_array_equal(
            Lasso().prox(torch.tensor(z), torch.tensor(step, dtype=torch.float64)).numpy(), [0, 0]
        )


@pytest.mark.parametrize("transform", [torch.vmap, torch.func.grad])
def test_function_transforms_see_no_numbers_and_still_work(transform: Any) -> None:
    for p in (LogSum(0.5), EmpiricalBayes(), VariationalDropout()):

        def both(w: torch.Tensor, p: Penalty = p) -> torch.Tensor:
            return p.value(w) + p.prox(w, w.detach() * 0 + 0.1)

        w = torch.tensor([0.4, 1.0, 3.0])
        if transform is torch.vmap:
            torch.testing.assert_close(torch.vmap(both)(w), both(w))
        else:
            assert torch.func.grad(lambda w: both(w).sum())(w).isfinite().all()


def test_a_compiled_prox_takes_steps_unseen() -> None:
    torch.compiler.reset()
    compiled = torch.compile(LogSum().prox, fullgraph=True, backend="eager")
    steps = torch.tensor([0.1, 0.2])
    torch.testing.assert_close(compiled(torch.ones(2), steps), LogSum().prox(torch.ones(2), steps))
    compiled(torch.ones(2), -steps)  # no check can be made while the graph runs


@pytest.mark.parametrize(
    "make",
    [
        lambda size: LogSum(size),
        lambda size: Log2Sum(size),
        lambda size: MCP(size),
        lambda size: SCAD(threshold=size),
        lambda size: Standout(size),
        lambda size: EmpiricalBayes(size),
        lambda size: VariationalDropout(size),
        lambda size: HardConcrete(size),
        lambda size: Rescaled(Lasso(), size),
    ],
)
@pytest.mark.parametrize(
    "size", [1e300, 1e-300, 10**400, -1.0, math.nan, True, None, "1"], ids=lambda size: str(size)[:6]
)
def test_constants_out_of_range_are_refused_in_one_line(make: Any, size: Any) -> None:
    with pytest.raises(InvalidArgumentError, match="must be") as caught:
        make(size)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 600


def test_other_constants_out_of_range() -> None:
    for make in (lambda: SCAD(1e300), lambda: Lp(1e-5), lambda: Standout(bias=1e4), lambda: HardConcrete(beta=1e3)):
        with pytest.raises(InvalidArgumentError, match="must be"):
            make()
    with pytest.raises(WrongTypeError, match="must be a Penalty"):
        Rescaled("lasso")  # type: ignore[arg-type]


# ------------------------------------------------------------------------------------------------------- objects
@pytest.mark.parametrize("cls", catalogue().values(), ids=lambda cls: cls.name)
def test_penalties_are_values(cls: type[Penalty]) -> None:
    p = cls()
    for other in (cls(), pickle.loads(pickle.dumps(p)), copy.deepcopy(p), eval(repr(p), {cls.__name__: cls})):
        assert other == p
        assert hash(other) == hash(p)
        assert repr(other) == repr(p)
    assert p != Rescaled(p, 2.0)
    assert p.value(0.7) == pickle.loads(pickle.dumps(p)).value(0.7)


def test_constants_are_stored_as_plain_floats() -> None:
    for given in (1, np.float32(1), np.int64(1)):
        assert repr(MCP(given)) == "MCP(kappa=1.0)"
        assert MCP(given) == MCP(1.0)


def test_tables_are_pickled_with_their_numbers() -> None:
    table = TabulatedPenalty(lambda w: 1 / (w + 0.1), noise=lambda w: 1e-16 * w)
    again = pickle.loads(pickle.dumps(table))
    w = np.geomspace(1e-3, 10, 50)
    np.testing.assert_array_equal(again.prox(w, 0.02), table.prox(w, 0.02))
    assert again.curvature_limit == table.curvature_limit


def test_fractions_are_powers_and_nothing_is_given_twice() -> None:
    assert penalty("l2/3") == Lp(2 / 3)
    assert penalty("l1/2", p=0.7) == Lp(0.7)
    assert penalty("l0/3") == L0()
    for spec in ("l1/0", "l5/2", "l2/3:p=0.5", "l0.5:p=0.7", "log-sum:epsilon=1,epsilon=2", "log-sum:=3", "l٣"):
        with pytest.raises(InvalidArgumentError, match=r"unknown|at most|twice|cannot read"):
            penalty(spec)
