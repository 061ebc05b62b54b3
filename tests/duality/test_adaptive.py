"""The dropout of a penalty: moments, laws, and the expected loss it stands for."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch

from obverse.duality import adaptive_dropout, check_subquadratic
from obverse.errors import InvalidArgumentError
from obverse.penalties import Lasso, LogSum, VariationalDropout, penalty


@pytest.mark.parametrize("name", ["lasso", "log-sum", "variational-dropout", "standout", "scad", "empirical-bayes"])
def test_expected_loss_over_all_masks_is_the_reweighted_loss(name: str) -> None:
    random = np.random.default_rng(3)
    x, w, y = random.standard_normal((9, 7)), random.standard_normal(7), random.standard_normal(9)
    root = np.sqrt((x**2).mean(0))
    p, strength = penalty(name), 0.4
    dropout = adaptive_dropout(p, strength, scale=root)
    keep = dropout.keep_probability(w)
    expected = 0.0
    for bits in itertools.product([0, 1], repeat=7):
        chance = np.prod(np.where(bits, keep, 1 - keep))
        expected += chance * ((y - x @ (np.divide(bits, keep) * w)) ** 2).mean() / 2
    tikhonov = 0.5 * (root**2 * dropout.variance(w) * w**2).sum()
    assert expected == pytest.approx(((y - x @ w) ** 2).mean() / 2 + tikhonov, rel=1e-12)
    # And the Tikhonov term is that of the penalty's eta-trick, tangent to strength * Omega(root * |w|).
    score = root * np.abs(w)
    dual = strength / 2 * np.asarray(p.dual(p.eta(score))).sum()
    assert tikhonov + dual == pytest.approx(strength * np.asarray(p.value(score)).sum(), rel=1e-9)


@pytest.mark.parametrize("law", ["bernoulli", "gaussian"])
@pytest.mark.parametrize("library", ["numpy", "torch"])
def test_masks_have_mean_one_and_the_variance(law: str, library: str) -> None:
    dropout = adaptive_dropout(LogSum(0.5), 0.3)
    w = np.repeat([0.3, 1.0, -2.0], 60000).reshape(3, -1)
    given = w if library == "numpy" else torch.from_numpy(w)
    mask = np.asarray(dropout.sample(given, 7, law))  # type: ignore[arg-type]
    variance = dropout.variance(w)[:, 0]
    error = np.sqrt(variance / mask.shape[1])
    assert (np.abs(mask.mean(1) - 1) < 5 * error).all()
    np.testing.assert_allclose(mask.var(1), variance, rtol=0.06)
    again = np.asarray(dropout.sample(given, 7, law))  # type: ignore[arg-type]
    np.testing.assert_array_equal(mask, again)


def test_shape_dtype_and_always_dropped_weights() -> None:
    dropout = adaptive_dropout(Lasso(), 0.5)
    for law in ("bernoulli", "gaussian"):
        for dtype in (torch.float32, torch.float64, torch.bfloat16):
            w = torch.zeros(2, 3, dtype=dtype)
            w[0, 0] = 1.0
            mask = dropout.sample(w, torch.Generator().manual_seed(0), law)  # type: ignore[arg-type]
            assert mask.shape == w.shape
            assert mask.dtype == dtype
            assert (mask[1] == 0).all()
        single = dropout.sample(np.zeros(4, dtype=np.float32), np.random.default_rng(0), law)  # type: ignore[arg-type]
        assert single.dtype == np.float32
    assert math.isinf(dropout.variance(0.0))
    assert adaptive_dropout(penalty("mcp"), 1.0).variance(1e3) == 0.0
    assert (adaptive_dropout(penalty("mcp"), 1.0).sample(np.full(5, 1e3), 0) == 1).all()


def test_bad_arguments() -> None:
    with pytest.raises(InvalidArgumentError, match="must be a Penalty"):
        adaptive_dropout(3.0, 1.0)  # type: ignore[arg-type]
    with pytest.raises(InvalidArgumentError, match="strength"):
        adaptive_dropout(VariationalDropout(), 0.0)
    with pytest.raises(InvalidArgumentError, match="scale"):
        adaptive_dropout(Lasso(), 1.0, scale=np.array([1.0, -1.0]))
    with pytest.raises(InvalidArgumentError, match="law"):
        adaptive_dropout(Lasso(), 1.0).sample(1.0, 0, "uniform")  # type: ignore[arg-type]


def test_a_name_stands_for_its_penalty() -> None:
    assert adaptive_dropout("log-sum:epsilon=0.2", 0.1).penalty == LogSum(0.2)
    assert check_subquadratic("mcp").exact_zeros
    with pytest.raises(InvalidArgumentError, match="log-sum"):
        adaptive_dropout("log-sun", 0.1)
