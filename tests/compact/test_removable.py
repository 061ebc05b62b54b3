"""Families of removable groups: whatever of them is zeroed, compaction takes out exactly that."""

from __future__ import annotations

import pytest
import torch
from compact_zoo import ZOO
from torch import nn

from obverse import compact
from obverse.compact import parameters
from obverse.errors import UnknownNameError
from obverse.graph import removable


@torch.no_grad()
def _zero(model, family, groups):
    named = dict(model.named_parameters())
    for name, axes in family.axes.items():
        for axis, index in axes.items():
            named[name].index_fill_(axis, torch.isin(index, groups).nonzero()[:, 0], 0.0)


@pytest.mark.parametrize("seed", [1])
@pytest.mark.parametrize("name", ZOO)
def test_what_is_zeroed_is_what_goes(name, seed):
    torch.manual_seed(seed)
    build, feed = ZOO[name]
    model, inputs = build().eval(), feed()
    found = removable(model, inputs)
    gone = []
    for family in found.families:
        groups = torch.randperm(len(family))[: torch.randint(len(family), ()).item()]
        _zero(model, family, groups)
        gone.append(family.roots[groups])
    cut = found.without(model, gone)
    small, certificate = compact(model, inputs)
    assert not any("refused" in note for note in certificate.notes)
    assert parameters(cut) == parameters(small) == certificate.after.parameters
    assert all(d.difference <= 1e-10 * max(1, d.scale) for d in certificate.differences if d.dtype == "float64")
    assert [t.shape for t in cut.parameters()] == [t.shape for t in small.parameters()]


def test_kinds_and_what_stays():
    build, feed = ZOO["grouped queries"]
    found = removable(build(), feed())
    (heads,) = found.of("heads")
    assert heads.writers == ("attention.q.weight", "attention.k.weight", "attention.v.weight")
    assert len(heads) == 2  # a head of keys and values goes with the two heads of queries that use it
    assert heads.axes["attention.o.weight"][1].tolist() == [0] * 8 + [1] * 8
    assert found.of("channels") == list(found.families)
    assert "mean and variance" in found.kept["embed.weight"]
    assert "output" in found.kept["head.weight"]
    with pytest.raises(UnknownNameError):
        found.of("rows")


def test_grouped_queries_in_one_call():
    class Grouped(nn.Module):
        def __init__(self):
            super().__init__()
            self.num_heads, self.num_kv_heads = 4, 2
            self.q, self.k, self.v, self.o = nn.Linear(8, 16), nn.Linear(8, 8), nn.Linear(8, 8), nn.Linear(16, 3)

        def forward(self, x):
            batch, length, _ = x.shape
            q = self.q(x).view(batch, length, self.num_heads, -1).transpose(1, 2)
            k = self.k(x).view(batch, length, self.num_kv_heads, -1).transpose(1, 2)
            v = self.v(x).view(batch, length, self.num_kv_heads, -1).transpose(1, 2)
            y = nn.functional.scaled_dot_product_attention(q, k, v, enable_gqa=True)
            return self.o(y.transpose(1, 2).flatten(2))

    torch.manual_seed(0)
    model, inputs = Grouped(), torch.randn(2, 5, 8)
    (heads,) = removable(model, inputs).of("heads")
    _zero(model, heads, torch.tensor([1]))
    small, certificate = compact(model, inputs)
    assert (small.num_heads, small.num_kv_heads) == (2, 1)
    assert parameters(small) == parameters(removable(model, inputs).without(model, [heads.roots[1:]]))
    assert certificate.worst("float64") < 1e-10


def test_both_directions_and_layers_go_together():
    build, feed = ZOO["rnn, two layers and directions"]
    (hidden,) = removable(build(), feed()).of("hidden")
    assert len(hidden) == 10
    assert hidden.axes["last.weight"][1].tolist() == list(range(10)) * 2


def test_halves_of_a_gated_unit_go_together():
    class Gated(nn.Module):
        def __init__(self):
            super().__init__()
            self.up, self.down = nn.Linear(4, 12), nn.Linear(6, 3)

        def forward(self, x):
            a, b = self.up(x).chunk(2, -1)
            return self.down(a * b.sigmoid())

    (units,) = removable(Gated(), torch.randn(2, 4)).of("units")
    assert units.axes["up.weight"][0].tolist() == list(range(6)) * 2


def test_a_reshape_that_needs_the_rest_keeps_it():
    class Grid(nn.Module):
        def __init__(self):
            super().__init__()
            self.up, self.down = nn.Linear(4, 12), nn.Linear(3, 3)

        def forward(self, x):
            return self.down(self.up(x).view(-1, 4, 3).amax(1))

    found = removable(Grid(), torch.randn(2, 4))
    assert found.families == () or all(len(f) == 3 for f in found.families)
