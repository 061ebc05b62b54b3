"""Libraries, dtypes, shapes and extremes."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import numpy as np
import pytest
import torch
from penalties_cases import EVERY

from obverse.penalties import EmpiricalBayes, LogSum, Lp, Penalty

METHODS = ("value", "slope", "eta", "dual", "zeroing_step")


def call(penalty: Penalty, method: str, x: Any) -> Any:
    if method == "prox":
        return penalty.prox(x, 0.3)
    if method == "keep_probability":
        return penalty.keep_probability(x, 0.3)
    return getattr(penalty, method)(x)


ALL = (*METHODS, "prox", "keep_probability")


@pytest.mark.parametrize("method", ALL)
def test_torch_equals_numpy(every: Penalty, method: str) -> None:
    w = np.random.default_rng(0).standard_normal((3, 40)) * 3
    w[0, :3] = 0.0
    result = call(every, method, torch.tensor(w))
    assert isinstance(result, torch.Tensor)
    assert result.dtype == torch.float64
    np.testing.assert_allclose(result.numpy(), call(every, method, w), rtol=1e-8, atol=1e-12)


@pytest.mark.parametrize("method", ALL)
def test_single_precision_follows_double(every: Penalty, method: str) -> None:
    w = np.random.default_rng(0).standard_normal(60).astype(np.float32) * 3
    result = call(every, method, w)
    assert result.dtype == np.float32
    reference = call(every, method, w.astype(np.float64))
    np.testing.assert_allclose(result, reference, rtol=3e-5, atol=2e-6)


def test_shapes_kinds_and_halves(every: Penalty) -> None:
    for method in ALL:
        assert isinstance(call(every, method, 0.5), np.float64)
        assert call(every, method, np.zeros((0, 3))).shape == (0, 3)
        assert call(every, method, torch.zeros(0)).shape == (0,)
        assert call(every, method, torch.tensor(0.5)).shape == ()
        assert call(every, method, [1, 2]).dtype == np.float64
        assert call(every, method, np.arange(3)).dtype == np.float64
        assert call(every, method, torch.arange(3)).dtype == torch.float32
        assert float(call(every, method, np.asarray(0.5))) == float(call(every, method, 0.5))
        for dtype in (torch.float16, torch.bfloat16):
            half = call(every, method, torch.tensor([0.5, -2.0], dtype=dtype))
            assert half.dtype == dtype
            wide = call(every, method, torch.tensor([0.5, -2.0]))
            torch.testing.assert_close(half, wide.to(dtype))
        assert call(every, method, np.ones(2, dtype=np.float16)).dtype == np.float16


def test_nan_passes_through(every: Penalty) -> None:
    w = np.array([0.5, np.nan, -2.0])
    for x in (w, w.astype(np.float32), torch.tensor(w)):
        for method in ("value", "slope", "eta", "prox", "keep_probability"):
            assert np.isnan(np.asarray(call(every, method, x))).tolist() == [False, True, False], method
    steps = np.array([0.3, 0.3, 0.3])
    assert np.isnan(every.prox(w, steps)).tolist() == [False, True, False]


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_extremes_stay_finite(every: Penalty, dtype: type) -> None:
    w = np.array([0.0, 1e-310 if dtype is np.float64 else 1e-40, 1e-30, 1e30], dtype=dtype)
    for step in (0.0, 0.3, 1e6):
        for x in (w, torch.tensor(w)):
            shrunk = np.asarray(every.prox(x, step))
            assert np.isfinite(shrunk).all()
            assert ((shrunk >= 0) & (shrunk <= w * (1 + 1e-6))).all()
            np.testing.assert_allclose(np.asarray(every.prox(x, x * 0 + step)), shrunk, rtol=1e-5)
    keep = every.keep_probability(w, 0.1)
    assert ((keep >= 0) & (keep <= 1)).all()
    assert not np.isnan(every.value(w)).any()
    assert not np.isnan(every.slope(w)).any()
    if every.curvature_limit < np.inf:
        np.testing.assert_allclose(every.prox(w, 0.3)[-1], w[-1], rtol=1e-5)


# Tracing takes seconds each.
@pytest.mark.parametrize(
    "every",
    [
        p if type(p) in (LogSum, EmpiricalBayes) else pytest.param(p, marks=pytest.mark.slow)
        for p in [*{type(p): p for p in EVERY}.values(), Lp(0.5), Lp(1.5)]
    ],
    ids=repr,
)
def test_compiled_equals_eager(every: Penalty) -> None:
    w = torch.linspace(-4, 4, 31)
    steps = torch.linspace(0, 5, 31)

    def both(w: torch.Tensor, steps: torch.Tensor) -> tuple[torch.Tensor, ...]:
        return every.value(w), every.prox(w, 0.3), every.prox(w, steps)

    torch.compiler.reset()
    compiled = torch.compile(both, fullgraph=True, backend="eager")
    for one, other in zip(compiled(w, steps), both(w, steps), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=2e-6)


@pytest.mark.parametrize("penalty", [LogSum(0.5), EmpiricalBayes()], ids=repr)
def test_compiled_with_changing_number_steps(penalty: Penalty) -> None:
    torch.compiler.reset()
    compiled = torch.compile(penalty.prox, fullgraph=True, backend="eager")
    w = torch.linspace(-4, 4, 31)
    for step in (0.05, 0.2, 3.0):
        torch.testing.assert_close(compiled(w, step), penalty.prox(w, step), rtol=1e-5, atol=2e-6)


def test_importing_the_penalties_does_not_import_torch() -> None:
    code = "import sys, obverse.penalties as p; p.LogSum().prox([1.0], 0.1); assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


def test_complex_weights_are_refused() -> None:
    with pytest.raises(TypeError, match="real"):
        LogSum().value(np.ones(2, dtype=complex))


@pytest.mark.parametrize("step", [0.05, 2.0, "array"])
def test_the_gradient_of_prox_is_finite_and_that_of_the_implicit_function(every: Penalty, step: float | str) -> None:
    if isinstance(every, Lp) and 1 < every.p < 1.1:
        pytest.skip("its Newton steps overflow when they are differentiated")
    z = torch.linspace(-3, 3, 61, dtype=torch.float64, requires_grad=True)
    t = torch.full_like(z, 0.3) if step == "array" else step
    x = every.prox(z, t)
    (gradient,) = torch.autograd.grad(x.sum(), z)
    assert gradient.isfinite().all()
    # Where nothing jumps, the gradient is the difference quotient.
    h = 1e-6
    left, right = every.prox(z.detach() - h, t), every.prox(z.detach() + h, t)
    smooth = ((right - left).abs() < 1e-4) & (x.detach().abs() > 1e-3) & (left != 0) & (right != 0)
    quotient = ((right - left) / (2 * h))[smooth]
    kinks = (gradient[smooth] - quotient).abs() > 1e-4 * (1 + quotient.abs())
    assert int(kinks.sum()) <= 2  # a point of the grid may fall on a kink
