"""Penalties of learned masks against the numbers of their theory, and the tables they stand on."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from obverse.errors import InvalidArgumentError
from obverse.penalties import ConcreteDropout, HardConcrete, LogSum, TabulatedPenalty, VariationalDropout

LEARNED = [
    VariationalDropout(),
    VariationalDropout(scale=3.0),
    VariationalDropout(kl="fit"),
    HardConcrete(),
    HardConcrete(cost=2.0),
    ConcreteDropout(),
    ConcreteDropout(cost=0.3),
]


def test_variational_dropout_reproduces_its_table() -> None:
    p = VariationalDropout()
    w = np.array([0.1, 0.5, 1, 2, 3, 5, 10])
    np.testing.assert_allclose(p.value(w), [0.0992, 0.4788, 0.9136, 1.6393, 2.1532, 2.7227, 3.4327], atol=5.1e-5)
    np.testing.assert_allclose(
        p.eta(w), [0.1017, 0.5468, 1.2139, 3.2104, 7.3566, 23.834, 98.968], atol=5.1e-4, rtol=1e-4
    )
    np.testing.assert_allclose(
        p.keep_probability(w, 1.0), [0.0923, 0.3535, 0.5483, 0.7625, 0.8803, 0.9597, 0.9900], atol=5.1e-5
    )
    assert p.slope_at_zero == 1.0
    assert p.curvature_limit == pytest.approx(4.512, abs=1e-3)
    assert float(p.value(1e8)) - math.log(1e8) == pytest.approx((np.euler_gamma + math.log(2) + 1) / 2, abs=1e-9)


def test_variational_dropout_agrees_with_its_parametric_form() -> None:
    from scipy.integrate import quad
    from scipy.special import dawsn

    p = VariationalDropout()
    for eta in (0.01, 0.3, 1.0, 4.0, 40.0):
        w = math.sqrt(math.sqrt(2) * eta**1.5 * dawsn(math.sqrt(eta / 2)))
        k = quad(lambda q: dawsn(q / math.sqrt(2)) * math.sqrt(2), 0, math.sqrt(eta), epsabs=1e-13)[0]
        assert float(p.eta(w)) == pytest.approx(eta, rel=1e-10)
        assert float(p.value(w)) == pytest.approx(w * w / (2 * eta) + k, rel=1e-10)
        assert float(p.dual(eta)) == pytest.approx(2 * k, rel=1e-9)


def test_hard_concrete_has_its_plateau_and_jump() -> None:
    p = HardConcrete(cost=1.0)
    assert p.slope_at_zero == pytest.approx(2.086, abs=5e-4)
    np.testing.assert_allclose(p.value(np.array([0.757, 1.0, 50.0])), 1.0, rtol=1e-6)
    cut = p._unit._slope_table.breaks[-1]
    assert cut == pytest.approx(0.757, abs=5e-4)
    assert float(p.keep_probability(cut * (1 - 1e-9), 1.0)) == pytest.approx(0.699, abs=4e-3)
    assert float(p.keep_probability(0.758, 1.0)) == 1.0
    assert HardConcrete().slope_at_zero == pytest.approx(1.475, abs=5e-4)
    assert float(HardConcrete().value(5.0)) == pytest.approx(0.5, abs=1e-6)


def test_hard_concrete_is_the_minimum_over_gates() -> None:
    from scipy.special import expit

    nodes, weights = np.polynomial.legendre.leggauss(400)
    t = (nodes + 1) / 2
    log_a = np.linspace(-15, 15, 6001)[:, None]
    alive = expit(log_a - 2 / 3 * np.log((t + 0.1) / (1.1 - t)))
    nu = (alive @ (weights * t)) / (alive @ weights / 2) ** 2 - 1
    nonzero = expit(log_a[:, 0] - 2 / 3 * math.log(0.1 / 1.1))
    w = np.linspace(0.02, 1.2, 60)
    reference = np.minimum((nu[:, None] * w**2 / 2 + nonzero[:, None]).min(0), 1)
    np.testing.assert_allclose(HardConcrete(cost=1.0).value(w), reference, atol=2e-6)


def test_concrete_dropout_is_the_minimum_over_gates() -> None:
    p = ConcreteDropout()
    nu = np.exp(np.linspace(-60, 0, 200001))
    entropy = np.log1p(nu) - nu / (1 + nu) * np.log(nu)
    for w in (0.1, 0.7, 1.5, 3.0, 8.0):
        assert float(p.value(w)) == pytest.approx((nu * w * w / 2 - entropy).min() + math.log(2), abs=1e-8)
    assert p.slope_at_zero == 0.0
    assert float(p.value(50.0)) == pytest.approx(math.log(2), rel=1e-9)
    np.testing.assert_array_equal(p.dual(np.array([0.0, 0.5, 0.999])), 0.0)


@pytest.mark.parametrize("penalty", LEARNED, ids=str)
def test_duality_holds(penalty: VariationalDropout) -> None:
    w = np.geomspace(1e-4, 30, 400)
    eta = np.asarray(penalty.eta(w))
    finite = np.isfinite(eta)
    assert (np.diff(eta[finite]) >= -1e-9 * eta[finite][1:]).all()
    gap = (w**2 / eta + penalty.dual(np.where(finite, eta, 1.0))) / 2 - penalty.value(w)
    np.testing.assert_allclose(gap[finite], 0, atol=1e-8)
    others = np.geomspace(1e-4, 1e3, 50)[:, None]
    assert ((w**2 / others + penalty.dual(others)) / 2 - penalty.value(w) >= -1e-8).all()
    h = 1e-5 * w
    numeric = (penalty.value(w + h) - penalty.value(w - h)) / (2 * h)
    away = np.abs(np.asarray(penalty.slope(w + h)) - penalty.slope(w - h)) < 0.01 * np.asarray(penalty.slope(w)) + 1e-9
    np.testing.assert_allclose(numeric[away], np.asarray(penalty.slope(w))[away], rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize("penalty", LEARNED, ids=str)
@pytest.mark.parametrize("step", [0.02, 0.3, 1.0, 4.7, 8.0])
def test_prox_beats_brute_force(penalty: VariationalDropout, step: float) -> None:
    z = np.concatenate([np.linspace(0.01, 6, 150), -np.linspace(0.1, 12, 20)])
    x = np.asarray(penalty.prox(z, step))
    candidates = np.concatenate([[0.0], np.geomspace(1e-6, 1, 8001)])[:, None] * z
    best = ((candidates - z) ** 2 / 2 + step * np.asarray(penalty.value(candidates))).min(0)
    objective = (x - z) ** 2 / 2 + step * np.asarray(penalty.value(x))
    assert (objective <= best + 1e-9).all()
    by_array = np.asarray(penalty.prox(z, np.full_like(z, step)))
    assert ((by_array - z) ** 2 / 2 + step * np.asarray(penalty.value(by_array)) <= best + 1e-9).all()
    single = np.asarray(penalty.prox(z.astype(np.float32), step))
    assert single.dtype == np.float32
    assert (
        (single - z) ** 2 / 2 + step * np.asarray(penalty.value(single.astype(float))) <= best + 1e-5 * (1 + z * z)
    ).all()


@pytest.fixture(scope="module")
def tabulated() -> TabulatedPenalty:
    return TabulatedPenalty(lambda w: 1 / (w + 0.1), label="log-sum")


def test_table_reproduces_a_closed_form(tabulated: TabulatedPenalty) -> None:
    closed = LogSum(0.1)
    w = np.geomspace(1e-12, 1e9, 3001)
    np.testing.assert_allclose(tabulated.value(w), closed.value(w), rtol=1e-11)
    np.testing.assert_allclose(tabulated.slope(w), closed.slope(w), rtol=1e-11)
    np.testing.assert_allclose(tabulated.dual(w), closed.dual(w), rtol=1e-8)
    np.testing.assert_allclose(tabulated.zeroing_step(w), [_zeroing(x) for x in w], rtol=1e-7)
    assert tabulated.slope_at_zero == pytest.approx(10, rel=1e-12)
    assert tabulated.curvature_limit == pytest.approx(0.01, rel=1e-5)
    z = np.random.default_rng(0).standard_normal(5000)
    for step in (0.005, 0.0099, 0.0101, 0.05, 1.0):
        np.testing.assert_allclose(tabulated.prox(z, step), closed.prox(z, step), atol=1e-10)
    steps = np.exp(np.random.default_rng(1).uniform(-7, 1, 5000))
    np.testing.assert_allclose(tabulated.prox(z, steps), closed.prox(z, steps), atol=1e-9)


def _zeroing(z: float) -> float:
    x = z * np.concatenate([np.geomspace(1e-12, 1e-2, 400), np.linspace(0.01, 1, 4000)])
    return max(float((x * (z - x / 2) / np.log1p(x / 0.1)).max()), z * 0.1)


def test_extremes(tabulated: TabulatedPenalty) -> None:
    w = np.array([0.0, 5e-324, 1e-300, 1e-31, 1e31, 1e300, np.inf, np.nan])
    value, slope = tabulated.value(w), tabulated.slope(w)
    assert value[0] == 0
    assert np.isnan(value[-1])
    assert np.isnan(slope[-1])
    assert slope[0] == pytest.approx(10)
    assert (np.diff(value[:-1]) >= 0).all()
    x = tabulated.prox(w, 0.05)
    assert np.isnan(x[-1])
    np.testing.assert_array_equal(x[:4], 0)
    np.testing.assert_array_equal(x[4:7], w[4:7])
    assert tabulated.value(np.zeros((0, 3))).shape == (0, 3)
    assert tabulated.prox(2.0, 0.0) == 2.0


def test_kink_and_jump_are_located() -> None:
    jump = TabulatedPenalty(lambda w: np.where(w < 1.37, w, 0.0))
    assert jump._slope_table.breaks == pytest.approx((1.37,), rel=1e-14)
    w = np.linspace(0, 3, 10001)
    np.testing.assert_allclose(jump.value(w), np.minimum(w, 1.37) ** 2 / 2, atol=1e-13)
    threshold = 1.37 * math.sqrt(1.5)
    x = jump.prox(np.array([threshold * (1 - 1e-9), threshold * (1 + 1e-9)]), 0.5)
    np.testing.assert_allclose(x, [threshold / 1.5, threshold], rtol=1e-8)
    clip = TabulatedPenalty(lambda w: np.maximum(1 - w / 1.3, 0.0))
    assert clip.curvature_limit == pytest.approx(1.3, rel=1e-6)
    np.testing.assert_allclose(
        clip.prox(w, 0.5), np.where(w < 1.3, np.maximum(w - 0.5, 0) / (1 - 0.5 / 1.3), w), atol=1e-10
    )


def test_torch_agrees_and_differentiates(tabulated: TabulatedPenalty) -> None:
    w = np.random.default_rng(2).standard_normal(200)
    for p in (tabulated, *LEARNED):
        tensor = torch.tensor(w, requires_grad=True)
        value = p.value(tensor)
        np.testing.assert_array_equal(value.detach().numpy(), p.value(w))
        (gradient,) = torch.autograd.grad(value.sum(), tensor)
        np.testing.assert_allclose(gradient.numpy(), np.sign(w) * p.slope(w), rtol=1e-13)
        assert p.value(tensor.detach().float()).dtype == torch.float32
        assert p.prox(tensor.detach().bfloat16(), 0.1).dtype == torch.bfloat16
        x = p.prox(tensor, 0.01)
        (gradient,) = torch.autograd.grad(x.sum(), tensor)
        assert torch.isfinite(gradient).all()
    zero = torch.zeros(3, requires_grad=True)
    (gradient,) = torch.autograd.grad(tabulated.value(zero).sum(), zero)
    assert (gradient == 0).all()


@pytest.mark.slow
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_compiles_without_graph_breaks(dtype: torch.dtype) -> None:
    p = VariationalDropout(scale=2.0)

    def function(x: torch.Tensor) -> torch.Tensor:
        return p.value(x) + p.keep_probability(x, 0.5) + p.prox(x, 0.7)

    torch._dynamo.reset()
    x = torch.linspace(-5, 5, 301, dtype=dtype)
    compiled = torch.compile(function, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(x), function(x), rtol=1e-5, atol=2e-5 if dtype == torch.float32 else 1e-9)


@pytest.mark.parametrize("step", [0.7, 0.1, 1.0])
def test_the_threshold_itself_is_sent_to_zero_by_every_path(step: float) -> None:
    p = VariationalDropout(scale=2.0)
    edge = step * p.slope_at_zero
    few = np.array([edge * (1 - 1e-9), edge, edge * (1 + 1e-3)])
    many = np.concatenate([few, np.linspace(0, 1, 5000)])
    for result in (p.prox(few, step), p.prox(many, step)[:3], p.prox(few, np.full(3, step))):
        assert result[0] == result[1] == 0 < result[2]


def test_bad_slopes_and_parameters_are_refused() -> None:
    with pytest.raises(InvalidArgumentError, match="at least 0"):
        TabulatedPenalty(lambda w: 1 - w)
    with pytest.raises(InvalidArgumentError, match="'exact' or 'fit'"):
        VariationalDropout(kl="cubic")  # type: ignore[arg-type]
    with pytest.raises(InvalidArgumentError, match="gamma < 0"):
        HardConcrete(gamma=0.1)
    with pytest.raises(InvalidArgumentError, match="cost"):
        ConcreteDropout(cost=0.0)
