"""A penalty that gives only a value and a slope is tabulated in a Sparsifier, and the table is exact."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from obverse import Sparsifier
from obverse.penalties import LogSum, Penalty, Rescaled, catalogue, penalty
from obverse.sparsify._own_penalty import tabulated


class Counting(Penalty):
    """Counts the weights that its formulas are asked for."""

    def __init__(self) -> None:
        self.weights = 0

    def _value(self, w: Any, xp: Any) -> Any:
        self.weights += int(np.prod(w.shape))
        return self.value_of(w, xp)

    def _slope(self, w: Any, xp: Any) -> Any:
        self.weights += int(np.prod(w.shape))
        return self.slope_of(w, xp)

    def value_of(self, w: Any, xp: Any) -> Any:
        return w / (w + 0.1)

    def slope_of(self, w: Any, xp: Any) -> Any:
        return 0.1 / (w + 0.1) ** 2


class Logarithm(Counting):
    def value_of(self, w: Any, xp: Any) -> Any:
        return xp.log1p(w / 0.2)

    def slope_of(self, w: Any, xp: Any) -> Any:
        return 1 / (w + 0.2)


class Bump(Counting):
    """No zeros: flat at zero and at infinity."""

    def value_of(self, w: Any, xp: Any) -> Any:
        return 1 - xp.exp(-(w**2) / 2)

    def slope_of(self, w: Any, xp: Any) -> Any:
        return w * xp.exp(-(w**2) / 2)


class Capped(Counting):
    """A kink, at which the operator jumps."""

    def value_of(self, w: Any, xp: Any) -> Any:
        return xp.where(w < 0.3, w, xp.full_like(w, 0.3))

    def slope_of(self, w: Any, xp: Any) -> Any:
        return xp.where(w < 0.3, xp.ones_like(w), xp.zeros_like(w))


class Root(Counting):
    """Infinitely steep at zero."""

    def value_of(self, w: Any, xp: Any) -> Any:
        return xp.sqrt(w)

    def slope_of(self, w: Any, xp: Any) -> Any:
        return 0.5 / xp.sqrt(w)


class Steep(Counting):
    """Not subquadratic: a table of its slope does not know the operator."""

    def value_of(self, w: Any, xp: Any) -> Any:
        return w**4 / 4

    def slope_of(self, w: Any, xp: Any) -> Any:
        return w**3


OWN = [Counting, Logarithm, Bump, Capped, Root, Steep]


@pytest.mark.parametrize("wrap", [lambda p: p, lambda p: Rescaled(p, width=0.02, height=3.0)])
@pytest.mark.parametrize("own", OWN)
def test_the_table_is_the_penalty(own: type[Counting], wrap: Any) -> None:
    exact = wrap(own())
    fast = tabulated(exact)
    generator = torch.Generator().manual_seed(0)
    z = torch.randn(400, generator=generator) * 10 ** torch.empty(400).uniform_(-4, 1, generator=generator)
    # Steps from far below to far above the one up to which the operator is single-valued.
    steps = 10 ** torch.empty(400).uniform_(-8, 1, generator=generator)
    wide, apart = z.double(), steps.double()
    expected, ours = exact.prox(wide, apart), fast.prox(z, steps).double()

    def objective(x: torch.Tensor) -> torch.Tensor:
        return (x - wide) ** 2 / 2 + apart * exact.value(x)

    # At a jump of the operator two points are equally good.
    better = objective(ours) <= objective(expected) + 1e-7 * wide**2 + 1e-14 * apart
    close = ((ours - expected).abs() <= 1e-6 * wide.abs()) | better
    assert bool(close.all())
    for step in (1e-6, 1e-3, 0.3):
        torch.testing.assert_close(fast.prox(z, step).double(), exact.prox(wide, step), rtol=0, atol=2e-6 * 40)
    torch.testing.assert_close(fast.value(wide), exact.value(wide), rtol=1e-6, atol=1e-14)
    assert fast.slope_at_zero == pytest.approx(exact.slope_at_zero)
    if own is not Steep:
        eta = exact.eta(wide)
        seen = eta < 1e12  # beyond, nothing is penalized
        torch.testing.assert_close(fast.eta(wide)[seen], eta[seen], rtol=1e-5, atol=0.0)
    edges = torch.tensor([0.0, -0.0, torch.nan, 1e30])
    known = exact.prox(edges.double(), torch.full((4,), 1e-3, dtype=torch.float64))
    torch.testing.assert_close(fast.prox(edges, 1e-3).double(), known, rtol=1e-5, atol=0, equal_nan=True)
    assert 0 <= float(fast.prox(torch.tensor(1e-30), 1e-3)) <= float(torch.tensor(1e-30))
    assert fast is exact or float(fast.prox(torch.tensor(torch.inf), 1e-3)) == torch.inf


@pytest.mark.parametrize("name", sorted(catalogue()))
def test_the_catalogue_keeps_its_own_operators(name: str) -> None:
    known = penalty(name)
    assert tabulated(known) is known or type(known)._prox is Penalty._prox
    assert tabulated(LogSum(0.3)) == LogSum(0.3)


def test_a_penalty_that_a_table_cannot_hold_stays_as_it_is() -> None:
    assert {own for own in OWN if isinstance(tabulated(one := own()), type(one))} == {Steep}
    shared = Logarithm()
    assert tabulated(shared) is tabulated(shared)  # one table for all tensors


@pytest.mark.parametrize("aim", [{"strength": 1e-3}, {"budget": 0.6, "total_steps": 30}])
@pytest.mark.parametrize("face", ["proximal", "reweighted", "dropout"])
@pytest.mark.parametrize("kind", ["Adam", "SGD"])
def test_steps_read_the_table_and_ask_the_penalty_nothing(kind: str, face: str, aim: dict[str, Any]) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(40, 60), nn.ReLU(), nn.Linear(60, 4))
    optimizer = getattr(torch.optim, kind)(model.parameters(), lr=1e-2)
    own = Counting()
    sparsifier = Sparsifier(model, optimizer, penalty=own, face=face, **aim)
    x, y = torch.randn(50, 40), torch.randint(0, 4, (50,))
    asked = []
    for _ in range(25):
        F.cross_entropy(model(x), y).backward()
        optimizer.step()
        sparsifier.step()
        optimizer.zero_grad()
        asked.append(own.weights)
    assert asked[-1] == asked[4]
    assert asked[4] < 200_000  # the table


def test_an_own_penalty_trains_as_its_closed_form_does() -> None:
    ends = []
    for one in (Rescaled(LogSum(1.0), width=0.2), Logarithm()):
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(40, 60), nn.ReLU(), nn.Linear(60, 4))
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        sparsifier = Sparsifier(model, optimizer, penalty=one, strength=2e-3)
        x, y = torch.randn(50, 40), torch.randint(0, 4, (50,))
        for _ in range(60):
            F.cross_entropy(model(x), y).backward()
            optimizer.step()
            sparsifier.step()
            optimizer.zero_grad()
        ends.append(model)
    assert float((ends[0][0].weight == 0).float().mean()) > 0.1
    for first, second in zip(ends[0].parameters(), ends[1].parameters(), strict=True):
        torch.testing.assert_close(first, second, rtol=1e-3, atol=1e-4)
