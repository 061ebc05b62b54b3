"""The scalar problems of coordinate descent against brute force, for penalties without a closed form."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from obverse.duality import effective_penalty
from obverse.linear import _scalar, sparse_path
from obverse.linear._code import encode, resized
from obverse.penalties import EmpiricalBayes, HardConcrete, Penalty, TabulatedPenalty, VariationalDropout

Floats = npt.NDArray[np.float64]


def mixture(seed: int) -> TabulatedPenalty:
    """A random slope: falling convex parts, one that starts out flat, and one that stays."""
    random = np.random.default_rng(seed)
    shares, widths = random.uniform(0.2, 1, 3), 10 ** random.uniform(-1, 1, 3)

    def slope(w: Floats) -> Floats:
        falling = shares[0] / (1 + w / widths[0]) + shares[1] / np.sqrt(1 + (w / widths[1]) ** 2)
        return np.asarray(falling + 0.1 * shares[2] * np.exp(-w / widths[2]))

    return TabulatedPenalty(slope, scale=float(widths.mean()))


def kinked(w: Floats) -> Floats:
    """Of a penalty of one's own that is flat, falls along a line, and ends."""
    return np.clip(1.5 - w, 0.0, 1.0)


PENALTIES: dict[str, Penalty] = {
    "variational dropout": VariationalDropout(),
    "its fit": VariationalDropout(kl="fit"),
    "hard concrete": HardConcrete(),
    "empirical Bayes": EmpiricalBayes(),
    "of a rule": effective_penalty(lambda w: w / (w + 0.3)),
    "kinked": TabulatedPenalty(kinked),
    **{f"mixture {seed}": mixture(seed) for seed in range(3)},
}


def problems(code: _scalar.Code, count: int, seed: int) -> Any:
    """Random z and t about the thresholds, with the curvature limit among the steps."""
    random = np.random.default_rng(seed)
    width, height, limit = code[1][2], code[1][3], code[1][5]
    natural = width * width / height * (limit if 0 < limit < 1e6 else 1.0)
    for _ in range(count):
        t = float(natural * (10 ** random.uniform(-2, 2) if random.random() < 0.5 else random.uniform(0.9, 1.6)))
        yield float(_scalar.entry(code, t) * 10 ** random.choice([random.normal(0, 0.02), random.normal(0, 0.3)])), t


def objective(code: _scalar.Code, x: float, z: float, t: float) -> float:
    return (x / 2 - z) * x + t * _scalar.value(code, x)


@pytest.mark.parametrize("label", PENALTIES)
def test_the_proximal_operator_is_a_global_minimizer(label: str) -> None:
    penalty = PENALTIES[label]
    code = encode(penalty)
    for z, t in problems(code, 300, seed=0):
        x = _scalar.prox(code, z, t)
        grid = z * np.concatenate([np.geomspace(1e-8, 1e-2, 200), np.linspace(0.01, 1.0, 2000)])
        least = float(((grid / 2 - z) * grid + t * np.asarray(penalty.value(grid))).min())
        assert objective(code, x, z, t) <= min(0.0, least) + 1e-13 * z * z
        if x > 0:
            # Stationary, to the last digits that the table's slope allows.
            assert x + t * _scalar.slope(code, x) == pytest.approx(z, rel=1e-11)


@pytest.mark.parametrize("label", PENALTIES)
def test_a_point_nearby_changes_nothing(label: str) -> None:
    code = resized(encode(PENALTIES[label]), 0.7, 1.9)
    random = np.random.default_rng(1)
    for z, t in problems(code, 2000, seed=1):
        x = _scalar.prox(code, z, t)
        around = x if x > 0 else z
        for near in (0.0, around * (1 + 1e-3 * random.normal()), around * 10 ** random.normal(0, 0.5), z):
            found = _scalar.prox_near(code, z, t, near)
            if found != pytest.approx(x, rel=1e-10):
                # Both sides of a jump.
                other = objective(code, found, z, t)
                assert other == pytest.approx(objective(code, x, z, t), abs=1e-12 * z * z)


@pytest.mark.parametrize("label", PENALTIES)
def test_the_threshold_parts_zeros_from_the_rest(label: str) -> None:
    code = encode(PENALTIES[label])
    for _, t in problems(code, 300, seed=2):
        z = _scalar.entry(code, t)
        assert _scalar.prox(code, z * (1 - 1e-10), t) == 0
        assert _scalar.prox(code, z * (1 + 1e-6), t) > 0


def test_the_smaller_of_two_stationary_points_is_found_where_the_map_crawls() -> None:
    """Just past the curvature limit and the slope at zero, where the fixed-point map hardly moves."""
    code = encode(VariationalDropout())
    z, t = 5.001483241313734, 4.892736127580305
    x = _scalar.prox(code, z, t)
    assert x == pytest.approx(0.7127, abs=1e-3)
    assert objective(code, x, z, t) < -0.0359


def test_epochs_and_newton_steps_agree_about_folded_problems() -> None:
    """Along a path on which steps pass the curvature limit, descent ends after few passes and at a solution."""
    random = np.random.default_rng(3)
    X = random.standard_normal((80, 30))
    y = X[:, :6] @ np.ones(6) + 0.8 * random.standard_normal(80)
    path = sparse_path(X, y, VariationalDropout(scale=3), n_alphas=60, alpha_min_ratio=0.01, max_iter=30, tol=1e-8)
    assert path.converged.all()
