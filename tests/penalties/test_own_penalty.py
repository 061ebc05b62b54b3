"""A user's penalty with two formulas gets every feature; the page that says so runs."""

from __future__ import annotations

import math
import re
import sys
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from penalties_cases import EVERY, objective

from obverse._core.arrays import np_namespace
from obverse.penalties import EmpiricalBayes, LogSum, Penalty, penalty
from obverse.penalties._numeric import curvature_limit, slope_at_zero


@dataclass(frozen=True)
class Plain(Penalty):
    """The formulas of another penalty, without its closed forms."""

    inner: Penalty

    def _value(self, w: Any, xp: Any) -> Any:
        return self.inner._value(w, xp)

    def _slope(self, w: Any, xp: Any) -> Any:
        return self.inner._slope(w, xp)


@pytest.fixture(params=EVERY, ids=repr)
def pair(request: Any) -> tuple[Penalty, Penalty]:
    return Plain(request.param), request.param


def test_numerical_defaults_reach_the_closed_forms(pair: tuple[Penalty, Penalty]) -> None:
    numeric, closed = pair
    w = np.concatenate([[0.0], np.geomspace(1e-4, 20, 50)])
    np.testing.assert_allclose(numeric.eta(w), closed.eta(w), rtol=1e-6, atol=1e-9)
    eta = np.geomspace(1e-4, 1e3, 60)
    np.testing.assert_allclose(numeric.dual(eta), closed.dual(eta), rtol=1e-7, atol=1e-7)
    if closed.slope_at_zero > 0:
        np.testing.assert_allclose(numeric.zeroing_step(w), closed.zeroing_step(w), rtol=1e-6)
    for step in (0.0, 0.2, 4.0):
        found, exact = numeric.prox(w, step), closed.prox(w, step)
        difference = objective(closed, found, w, step) - objective(closed, exact, w, step)
        assert (np.abs(difference) <= 1e-10 * (1 + w * w)).all()
    tensor = numeric.prox(torch.tensor(w), torch.full((51,), 0.2))
    np.testing.assert_allclose(tensor.numpy(), numeric.prox(w, np.full(51, np.float32(0.2))), rtol=1e-9, atol=1e-12)


def test_numerical_slope_and_curvature(pair: tuple[Penalty, Penalty]) -> None:
    numeric, closed = pair
    assert slope_at_zero(numeric) == pytest.approx(closed.slope_at_zero, rel=1e-6)
    assert curvature_limit(numeric) == pytest.approx(closed.curvature_limit, rel=2e-3)


def test_zeroing_table_matches_the_search() -> None:
    numeric = Plain(LogSum(0.1))
    z = np.random.default_rng(0).standard_normal(60_000)
    with np.errstate(all="ignore"):
        np.testing.assert_allclose(numeric.zeroing_step(z), LogSum(0.1).zeroing_step(z), rtol=1e-6)
        bayes = EmpiricalBayes(5.0)
        np.testing.assert_allclose(
            bayes.zeroing_step(z)[:300], Plain(bayes)._zeroing_step(np.abs(z[:300]), np_namespace), rtol=1e-6
        )


def test_a_jump_at_zero_is_an_infinite_slope() -> None:
    assert Plain(penalty("l0")).slope_at_zero == math.inf
    assert Plain(penalty("l0")).curvature_limit == 0


def test_the_example_of_the_page_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    page = Path(__file__).parents[2] / "docs" / "penalties.md"
    blocks = re.findall(r"```python\n(.*?)```", page.read_text(encoding="utf-8"), flags=re.DOTALL)
    own = [block for block in blocks if "class " in block]
    assert len(own) == 1
    for block in blocks:
        # A module of its own, which dataclasses look up.
        monkeypatch.setitem(sys.modules, "example", ModuleType("example"))
        exec(compile(block, str(page), "exec"), vars(sys.modules["example"]))
