"""Deep linear networks with dropout: the exact regularizer against all masks, its bounds, equalization."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
import torch
from scipy.optimize import minimize

from obverse.dropout import Bernoulli, Blocks, Connect, deep_linear
from obverse.errors import InvalidArgumentError

FORMS = ["last-dropped", "first-dropped", "forward", "backward", "subset-sum"]


def network(sizes: list[int], seed: int = 0) -> list[np.ndarray]:
    rng = np.random.default_rng(seed)
    return [rng.standard_normal((m, n)) / n**0.5 for n, m in itertools.pairwise(sizes)]


def moment(size: int, seed: int = 1) -> np.ndarray:
    root = np.random.default_rng(seed).standard_normal((size, size))
    return root @ root.T / size


def enumerated(weights: list[np.ndarray], keeps: list[np.ndarray], groups: list[np.ndarray], C: np.ndarray) -> float:
    """E ||f_z(x) - f(x)||^2 over all masks, given the number of the coin of every unit."""
    clean = weights[0]
    for weight in weights[1:]:
        clean = weight @ clean
    counts = [int(group.max()) + 1 for group in groups]
    total = 0.0
    for coins in itertools.product((0, 1), repeat=sum(counts)):
        chance, noisy, rest = 1.0, weights[0], list(coins)
        for weight, keep, group, count in zip(weights[1:], keeps, groups, counts, strict=True):
            drawn, rest = np.array(rest[:count]), rest[count:]
            coin_keep = np.array([keep[group == g][0] for g in range(count)])
            chance *= float(np.prod(np.where(drawn, coin_keep, 1 - coin_keep)))
            noisy = weight @ ((drawn[group] / keep)[:, None] * noisy)
        gap = noisy - clean
        total += chance * float(np.trace(gap @ C @ gap.T))
    return total


CASES: list[tuple[list[int], Any, list[Any], int]] = [
    ([3, 6, 2], 0.7, [0.7], 1),
    ([2, 4, 4, 3], 0.6, [0.6, 0.6], 1),
    ([3, 4, 4, 4, 2], [0.9, 0.5, 0.7], [0.9, 0.5, 0.7], 1),
    ([2, 3, 4, 2], [np.array([0.3, 0.9, 0.5]), 0.8], [[0.3, 0.9, 0.5], 0.8], 1),
    ([2, 4, 6, 2], [Blocks(0.6, 2), Blocks(0.8, 2)], [0.6, 0.8], 2),
    ([2, 5, 4, 2], [Bernoulli(0.6), 1.0], [0.6, 1.0], 1),
]


@pytest.mark.parametrize(("sizes", "given", "keeps", "block"), CASES)
@pytest.mark.parametrize("form", FORMS)
def test_every_form_is_the_mean_over_all_masks(sizes: Any, given: Any, keeps: Any, block: int, form: Any) -> None:
    if form == "subset-sum" and block > 1:
        pytest.skip("the sum over sets of layers is for single units")
    weights, C = network(sizes), moment(sizes[0])
    per_unit = [np.broadcast_to(keep, size).astype(float) for keep, size in zip(keeps, sizes[1:-1], strict=True)]
    groups = [np.arange(size) // block for size in sizes[1:-1]]
    expected = enumerated(weights, per_unit, groups, C)
    value = deep_linear.explicit_regularizer(weights, given, C, form=form)
    assert value == pytest.approx(expected, rel=1e-10)
    if form in ("last-dropped", "first-dropped"):
        parts = deep_linear.explicit_regularizer(weights, given, C, form=form, per_layer=True)
        assert parts.sum() == pytest.approx(expected, rel=1e-10)
        assert (parts >= 0).all()


def test_masks_on_weights_against_all_masks() -> None:
    first, second = network([2, 3, 2])
    C, keep, total = moment(2), 0.6, 0.0
    clean = second @ first
    for coins in itertools.product((0, 1), repeat=12):
        drawn = np.array(coins)
        chance = float(np.prod(np.where(drawn, keep, 1 - keep)))
        gap = (second * drawn[6:].reshape(2, 3) / keep) @ (first * drawn[:6].reshape(3, 2) / keep) - clean
        total += chance * float(np.trace(gap @ C @ gap.T))
    assert deep_linear.explicit_regularizer([first, second], Connect(keep), C) == pytest.approx(total, rel=1e-10)
    # On the last layer they are dropout of its inputs, for any inputs; on the first only for white ones.
    last = deep_linear.explicit_regularizer([first, second], [1.0, Connect(keep)], C)
    assert last == pytest.approx(deep_linear.explicit_regularizer([first, second], keep, C), rel=1e-12)


@pytest.mark.parametrize("form", FORMS)
def test_gradients(form: Any) -> None:
    weights = [torch.from_numpy(w).requires_grad_() for w in network([2, 3, 3, 2])]
    C = torch.from_numpy(moment(2))
    assert torch.autograd.gradcheck(
        lambda *ws: deep_linear.explicit_regularizer(ws, [0.7, 0.5], C, form=form), tuple(weights)
    )
    cross = torch.from_numpy(np.random.default_rng(3).standard_normal((2, 2)))
    loss = deep_linear.objective(weights, 0.6, C, cross)
    automatic = torch.autograd.grad(loss, weights)
    for one, other in zip(deep_linear.gradient(weights, 0.6, C, cross), automatic, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("depth", [1, 2, 3])
def test_bounds_and_equalization(depth: int) -> None:
    for seed in range(3):
        weights, C = network([4, *[5] * depth, 3], seed), moment(4, seed)
        regularizer = deep_linear.explicit_regularizer(weights, 0.6, C)
        bound = deep_linear.nuclear_norm_bound(weights, 0.6, C)
        product = np.linalg.multi_dot(weights[::-1]) if len(weights) > 1 else weights[0]
        eigenvalues, vectors = np.linalg.eigh(C)
        nuclear = np.linalg.svd(product @ (vectors * np.sqrt(eigenvalues)) @ vectors.T, compute_uv=False).sum()
        strength = (1 + (0.4 / 0.6) / 5) ** depth - 1
        assert bound.strength == pytest.approx(strength, rel=1e-12)
        assert bound.value == pytest.approx(strength * nuclear**2, rel=1e-9)
        induced = deep_linear.induced_regularizer(product, 0.6, [5] * depth, C)
        assert bound.value <= induced.value * (1 + 1e-9)
        assert induced.value <= regularizer * (1 + 1e-9)
        equal = deep_linear.equalize(weights, 0.6, C)
        np.testing.assert_allclose(np.linalg.multi_dot(equal[::-1]), product, rtol=1e-9, atol=1e-10)
        after = deep_linear.explicit_regularizer(equal, 0.6, C)
        assert induced.value * (1 - 1e-9) <= after <= regularizer * (1 + 1e-9)
        if depth == 1:
            assert induced.value == pytest.approx(bound.value, rel=1e-8)


def test_induced_regularizer_of_two_layers_has_the_known_value() -> None:
    # sigma = (2, 1, 0.4), two dropped layers, lam/d = 0.2.
    keep = 1 / (1 + 0.2 * 4)
    found = deep_linear.induced_regularizer(np.diag([2.0, 1.0, 0.4]), keep, [4, 4])
    assert found.value == pytest.approx(5.925199, abs=1e-6)
    weights = [np.eye(4, 3), np.eye(4), np.diag([2.0, 1.0, 0.4]) @ np.eye(3, 4)]
    assert deep_linear.nuclear_norm_bound(weights, keep).value == pytest.approx(5.0864, abs=1e-4)


def test_induced_regularizer_is_the_least_over_factorizations() -> None:
    rng = np.random.default_rng(0)
    product, shapes = rng.standard_normal((2, 3)), [(4, 3), (4, 4), (2, 4)]
    sizes = [m * n for m, n in shapes]

    def split(flat: np.ndarray) -> list[torch.Tensor]:
        parts = torch.from_numpy(flat).split(sizes)
        return [part.reshape(shape).requires_grad_() for part, shape in zip(parts, shapes, strict=True)]

    found = deep_linear.induced_regularizer(product, 0.7, [4, 4])
    wanted, best = torch.from_numpy(product), np.inf
    for seed in range(2):
        flat, penalty = np.random.default_rng(seed).standard_normal(sum(sizes)) * 0.7, 1e2
        for penalty in (1e2, 1e4, 1e6):

            def cost(x: np.ndarray, penalty: float = penalty) -> tuple[float, np.ndarray]:
                weights = split(x)
                gap = (weights[2] @ weights[1] @ weights[0] - wanted).square().sum()
                value = deep_linear.explicit_regularizer(weights, 0.7) + penalty * gap
                slopes = torch.autograd.grad(value, weights)
                return float(value.detach()), torch.cat([slope.ravel() for slope in slopes]).numpy()

            flat = minimize(cost, flat, jac=True, method="L-BFGS-B", options={"maxiter": 600, "gtol": 1e-7}).x
        best = min(best, float(deep_linear.explicit_regularizer(split(flat), 0.7).detach()))
    # The constraint holds by a penalty, and the search ends a little above its infimum.
    assert found.value * (1 - 1e-4) <= best <= found.value * (1 + 2e-3)


def test_residual_branches() -> None:
    rng = np.random.default_rng(0)
    branch, C = rng.standard_normal((3, 3)), moment(3)
    whole = np.eye(3) + branch
    dropped = np.eye(3)
    kept = np.eye(3) + branch / 0.8
    expected = 0.8 * kept @ C @ kept.T + 0.2 * dropped @ C @ dropped.T
    np.testing.assert_allclose(deep_linear.drop_path_moment(C, branch, 0.8), expected, rtol=1e-12)
    assert np.trace(expected) > np.trace(whole @ C @ whole.T)


def test_what_is_refused() -> None:
    weights = network([3, 4, 2])
    for call in (
        lambda: deep_linear.explicit_regularizer(weights, 0.0),
        lambda: deep_linear.explicit_regularizer(weights, [0.5, 0.5, 0.5]),
        lambda: deep_linear.explicit_regularizer([weights[1], weights[0]], 0.5),
        lambda: deep_linear.explicit_regularizer(weights, 0.5, np.eye(4)),
        lambda: deep_linear.explicit_regularizer([], 0.5),
        lambda: deep_linear.explicit_regularizer(weights, 0.5, form="sum"),  # type: ignore[arg-type]
    ):
        with pytest.raises(InvalidArgumentError):
            call()
