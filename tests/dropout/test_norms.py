"""Induced norms: against their definitions, their duals, their gradients and proximal operators."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize

from obverse.dropout import _norms as norms
from obverse.errors import InvalidArgumentError

VECTORS = [
    [3.0, -2.0, 1.0, 0.5],
    [1.0, 1.0, 1.0, 1.0],
    [5.0, 2.0, 2.0, -2.0, 2.0],
    [4.0, 0.0, 0.0],
    [0.0, 0.0],
    [1e-9, 1.0, 1e9],
    [2.0],
]
CASES = [(np.array(vector), k) for vector in VECTORS for k in (1, 2, 3, 7)]


def box_form(vector: np.ndarray, k: int) -> float:
    """min sum a^2/eta over the box, by bisection on the level: a computation unlike the library's."""
    a = np.abs(vector)
    if np.count_nonzero(a) <= k:
        return float((a**2).sum())
    # The level by its logarithm: entries may be hundreds of orders of magnitude apart.
    low, high = np.log(k / a.sum()) - 1.0, min(np.log(k) - np.log(a[a > 0].min()), 709.0)
    for _ in range(100):
        middle = (low + high) / 2
        low, high = (middle, high) if np.clip(np.exp(middle) * a, 0, 1).sum() < k else (low, middle)
    eta = np.clip(np.exp(high) * a, 0, 1)
    return float((a[eta > 0] ** 2 / eta[eta > 0]).sum())


def explicit_prox(m: np.ndarray, k: int, beta: float) -> np.ndarray:
    """The explicit form with two indices: the one pair whose result orders as the pair says (decreasing ``m >= 0``)."""
    n = len(m)
    if np.count_nonzero(m) <= k:
        return m / (1 + beta)
    for rho in range(1, k + 1):
        for tau in range(rho, n + 1):
            room = k - rho + 1
            tail = m[rho - 1 : tau].sum()
            cut = beta * tail / (room + beta * (tau - rho + 1))
            eta = ((m - cut) * (room + beta * (tau - rho + 1)) / tail if tail else 0 * m) * 1.0
            inside = eta[rho - 1 : tau]
            if inside.min() <= 0 or inside.max() > 1 + 1e-12:
                continue
            if (rho > 1 and eta[rho - 2] < 1 - 1e-12) or (tau < n and m[tau] > cut + 1e-12):
                continue
            return np.concatenate([m[: rho - 1] / (1 + beta), m[rho - 1 : tau] - cut, np.zeros(n - tau)])
    raise AssertionError("no pair of indices fits")


@pytest.mark.parametrize(("vector", "k"), CASES)
def test_value_is_the_box_form(vector: np.ndarray, k: int) -> None:
    assert norms.k_support_norm(vector, k) ** 2 == pytest.approx(box_form(vector, k), rel=1e-10)


@pytest.mark.parametrize(("vector", "k"), CASES)
def test_between_l1_and_l2_at_the_ends(vector: np.ndarray, k: int) -> None:
    assert norms.k_support_norm(vector, 1) == pytest.approx(np.abs(vector).sum())
    assert norms.k_support_norm(vector, len(vector)) == pytest.approx(np.linalg.norm(vector))
    assert norms.k_support_norm(vector, k + 1) <= norms.k_support_norm(vector, k) * (1 + 1e-14)


@pytest.mark.parametrize(("vector", "k"), CASES)
def test_dual_by_all_subsets_and_by_duality(vector: np.ndarray, k: int) -> None:
    size = min(k, len(vector))
    brute = max(np.linalg.norm(vector[list(subset)]) for subset in combinations(range(len(vector)), size))
    assert norms.k_support_dual_norm(vector, k) == pytest.approx(brute)
    # Hoelder's inequality is an equality at the gradient of the square.
    slope = norms.k_support_gradient(vector, k)
    value = norms.k_support_norm(vector, k)
    assert slope @ vector == pytest.approx(2 * value**2, rel=1e-10)
    assert norms.k_support_dual_norm(slope, k) == pytest.approx(2 * value, rel=1e-9, abs=1e-12)


@pytest.mark.parametrize(("vector", "k"), CASES)
@pytest.mark.parametrize("beta", [0.0, 0.03, 0.7, 40.0])
def test_prox_is_optimal_and_agrees_with_the_explicit_form(vector: np.ndarray, k: int, beta: float) -> None:
    found = norms.k_support_prox(vector, k, beta)
    order = np.argsort(-np.abs(vector), kind="stable")
    explicit = np.empty_like(vector)
    explicit[order] = np.sign(vector[order]) * explicit_prox(np.abs(vector[order]), k, beta)
    np.testing.assert_allclose(found, explicit, rtol=1e-9, atol=1e-12 * np.abs(vector).max())
    # (v - x)/beta is a subgradient of half the square: Fenchel's equality with the dual norm.
    if beta:
        slope = (vector - found) / beta
        dual = norms.k_support_dual_norm(slope, k) ** 2 / 2
        value = norms.k_support_norm(found, k) ** 2 / 2
        assert value + dual == pytest.approx(slope @ found, rel=1e-8, abs=1e-12)


def test_prox_against_a_general_solver() -> None:
    vector, beta = np.array([2.0, 1.5, 1.4, 0.3, 0.2]), 0.6
    found = norms.k_support_prox(vector, 2, beta)

    def cost(x: np.ndarray) -> float:
        return float(((x - vector) ** 2).sum() / 2 + beta * norms.k_support_norm(x, 2) ** 2 / 2)

    other = minimize(cost, vector, method="Nelder-Mead", options={"xatol": 1e-9, "fatol": 1e-12, "maxiter": 6000}).fun
    assert cost(found) <= other + 1e-12
    assert other == pytest.approx(cost(found), rel=1e-4)


def test_prox_survives_extreme_strengths() -> None:
    vector = np.array([3.0, 2.9999999, 1.0])
    weak, strong = norms.k_support_prox(vector, 1, 1e-14), norms.k_support_prox(vector, 1, 1e12)
    np.testing.assert_allclose(weak, vector, rtol=1e-12)
    # beta -> infinity: beta * x tends to the largest entry's direction, scaled so that the sum is that entry.
    assert strong.sum() * 1e12 == pytest.approx(3.0, rel=1e-6)
    assert strong[2] == 0


def test_batches_of_vectors_and_matrices() -> None:
    generator = np.random.default_rng(0)
    batch = generator.standard_normal((2, 3, 4, 5))
    for k in (1, 2, 6):
        one = [norms.k_support_norm(row, k) for row in batch.reshape(-1, 5)]
        np.testing.assert_allclose(norms.k_support_norm(batch, k).reshape(-1), one)
        prox = [norms.k_support_prox(row, k, 0.3) for row in batch.reshape(-1, 5)]
        np.testing.assert_allclose(norms.k_support_prox(batch, k, 0.3).reshape(-1, 5), prox)
        for function in (norms.spectral_k_support_norm, norms.spectral_k_support_gradient):
            whole = function(batch, k)
            each = [function(matrix, k) for matrix in batch.reshape(-1, 4, 5)]
            np.testing.assert_allclose(whole.reshape(np.shape(each)), each, atol=1e-12)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.floats(-1e6, 1e6, allow_subnormal=False), min_size=1, max_size=12),
    st.integers(1, 14),
    st.floats(0, 100),
)
def test_properties(entries: list[float], k: int, beta: float) -> None:
    vector = np.array(entries)
    value = norms.k_support_norm(vector, k)
    assert value**2 == pytest.approx(box_form(vector, k), rel=1e-8, abs=1e-250)
    assert norms.k_support_norm(-2 * vector[::-1], k) == pytest.approx(2 * value, rel=1e-12)
    prox = norms.k_support_prox(vector, k, beta)
    assert np.all(np.abs(prox) <= np.abs(vector) * (1 + 1e-12))
    assert np.all(prox * vector >= 0)


@pytest.mark.parametrize("k", [1, 2, 3])
def test_autograd_of_vectors(k: int) -> None:
    for entries in ([3.0, -2.0, 1.0, 0.5], [2.0, 1.0, 1.0, -1.0]):
        vector = torch.tensor(entries, dtype=torch.float64, requires_grad=True)
        assert torch.autograd.gradcheck(lambda x: norms.k_support_norm(x, k), vector)
        (slope,) = torch.autograd.grad(norms.k_support_norm(vector, k) ** 2, vector)
        torch.testing.assert_close(slope, norms.k_support_gradient(vector.detach(), k))
    vector = torch.tensor([3.0, -2.0, 1.1, 0.5], dtype=torch.float64, requires_grad=True)
    step = torch.tensor(0.21, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x, b: norms.k_support_prox(x, k, b), (vector, step))


@pytest.mark.parametrize("k", [1, 2, 3])
@pytest.mark.parametrize("shape", [(3, 3), (4, 3), (2, 4)])
@pytest.mark.parametrize("values", [[3.0, 1.9, 0.4], [1.0, 1.0, 1.0], [2.0, 1.0, 1.0]])
def test_autograd_of_matrices_also_at_ties(k: int, shape: tuple[int, int], values: list[float]) -> None:
    generator = torch.Generator().manual_seed(1)
    rank = min(shape)
    left = torch.linalg.qr(torch.randn(shape[0], shape[0], generator=generator, dtype=torch.float64))[0][:, :rank]
    right = torch.linalg.qr(torch.randn(shape[1], shape[1], generator=generator, dtype=torch.float64))[0][:, :rank]
    matrix = ((left * torch.tensor(values[:rank], dtype=torch.float64)) @ right.mT).requires_grad_()
    assert torch.autograd.gradcheck(lambda x: norms.spectral_k_support_norm(x, k), matrix)
    (slope,) = torch.autograd.grad(norms.spectral_k_support_norm(matrix, k) ** 2, matrix)
    torch.testing.assert_close(slope, norms.spectral_k_support_gradient(matrix.detach(), k))
    assert torch.autograd.gradcheck(lambda x: norms.spectral_k_support_prox(x, k, 0.17), matrix)


def test_zero_has_the_smallest_subgradient() -> None:
    for k in (1, 2, 4):
        vector = torch.zeros(3, requires_grad=True)
        norms.k_support_norm(vector, k).backward()
        assert torch.equal(vector.grad, torch.zeros(3))
        matrix = torch.diag(torch.tensor([2.0, 0.0, 0.0])).requires_grad_()
        norms.spectral_k_support_norm(matrix, k).backward()
        torch.testing.assert_close(matrix.grad, torch.diag(torch.tensor([1.0, 0.0, 0.0])))
        assert np.all(norms.spectral_k_support_gradient(np.zeros((2, 3)), k) == 0)
        assert torch.equal(norms.spectral_k_support_prox(torch.zeros(2, 3), k, 0.5), torch.zeros(2, 3))


def test_nuclear_is_the_case_of_single_units() -> None:
    matrix = np.random.default_rng(3).standard_normal((4, 3))
    left, values, right = np.linalg.svd(matrix, full_matrices=False)
    assert norms.nuclear_norm(matrix) == pytest.approx(values.sum())
    assert norms.nuclear_dual_norm(matrix) == pytest.approx(values[0])
    np.testing.assert_allclose(norms.nuclear_gradient(matrix), 2 * values.sum() * left @ right)
    shrunk = norms.nuclear_prox(matrix, 0.4)
    np.testing.assert_allclose(shrunk, (left * norms.k_support_prox(values, 1, 0.4)) @ right, atol=1e-12)
    # For one unit: s = (m - alpha)_+ with alpha = beta sum / (1 + beta rho).
    kept = np.linalg.svd(shrunk, compute_uv=False)
    rho = np.count_nonzero(kept > 1e-12)
    np.testing.assert_allclose(kept[:rho], values[:rho] - 0.4 * values[:rho].sum() / (1 + 0.4 * rho))
    assert norms.spectral_k_support_norm(matrix, 5) == pytest.approx(np.linalg.norm(matrix))
    assert norms.spectral_k_support_dual_norm(matrix, 2) == pytest.approx(np.linalg.norm(values[:2]))


def test_kind_and_dtype_come_back() -> None:
    for dtype in (np.float32, np.float64):
        vector = np.array([1.0, 2.0, 3.0], dtype=dtype)
        assert norms.k_support_norm(vector, 2).dtype == dtype
        assert norms.k_support_prox(vector, 2, 0.1).dtype == dtype
        tensor = torch.from_numpy(vector)
        assert norms.k_support_prox(tensor, 2, 0.1).dtype == tensor.dtype
        assert norms.nuclear_norm(torch.outer(tensor, tensor)).dtype == tensor.dtype
    assert norms.k_support_norm([1, 2], 1) == 3.0
    assert norms.k_support_norm(torch.tensor([1.0, 2.0], dtype=torch.bfloat16), 1).dtype == torch.float32
    single = np.random.default_rng(0).standard_normal(2000).astype(np.float32)
    double = norms.k_support_norm(single.astype(np.float64), 7)
    assert norms.k_support_norm(single, 7) == pytest.approx(double, rel=1e-6)


def test_huge_and_tiny_entries() -> None:
    assert norms.k_support_norm(np.array([1e300, 1e300]), 2) == pytest.approx(np.sqrt(2) * 1e300)
    assert norms.k_support_norm(np.array([3e-200, 4e-200]), 2) == pytest.approx(5e-200, rel=1e-12)


def test_refusals() -> None:
    for k in (0, -1, 1.5, True):
        with pytest.raises(InvalidArgumentError, match="integer of at least 1"):
            norms.k_support_norm(np.ones(3), k)
    with pytest.raises(InvalidArgumentError, match="single number"):
        norms.k_support_norm(3.0, 1)
    with pytest.raises(InvalidArgumentError, match="matrix"):
        norms.nuclear_norm(np.ones(3))
    with pytest.raises(InvalidArgumentError, match="at least 0"):
        norms.k_support_prox(np.ones(3), 1, -0.1)
    with pytest.raises(InvalidArgumentError, match="real numbers"):
        norms.k_support_norm(np.ones(3, dtype=complex), 1)
