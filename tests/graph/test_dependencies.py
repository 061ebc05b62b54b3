"""What lives and dies together, in words."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from obverse.errors import InvalidArgumentError, UnknownNameError
from obverse.graph import dependencies


def test_a_unit_dies_with_the_columns_that_read_it():
    model = nn.Sequential(nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 2))
    units = dependencies(model, torch.randn(2, 4)).of("units")
    assert [{(s.tensor, s.axis, s.indices) for s in group.slices} for group in units] == [
        {("0.weight", 0, (i,)), ("0.bias", 0, (i,)), ("2.weight", 1, (i,))} for i in range(3)
    ]


def test_flattened_channels_and_norms_go_with_their_filter():
    model = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.Flatten(), nn.Linear(8, 2)).eval()
    group = dependencies(model, torch.randn(1, 1, 4, 4)).of("filters")[1]
    touched = {(s.tensor, s.axis): s.indices for s in group.slices}
    assert touched[("3.weight", 1)] == (4, 5, 6, 7)
    assert touched[("1.running_var", 0)] == (1,)
    assert "running variance" in str(group)


def test_hidden_units_of_a_recurrent_layer():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.cell, self.last = nn.LSTM(3, 4, batch_first=True), nn.Linear(4, 2)

        def forward(self, x):
            return self.last(self.cell(x)[0])

    group = dependencies(Net(), torch.randn(2, 5, 3)).of("hidden")[1]
    touched = {(s.tensor, s.axis): s.indices for s in group.slices}
    assert touched[("cell.weight_hh_l0", 0)] == (1, 5, 9, 13)
    assert touched[("cell.weight_hh_l0", 1)] == touched[("last.weight", 1)] == (1,)


def test_overrides_and_their_mistakes():
    found = dependencies(nn.Sequential(nn.Linear(4, 3), nn.Linear(3, 2)), torch.randn(2, 4))
    assert len(found.of("units")) == 3
    assert found.keep(r"^0\.weight").of("units") == []
    with pytest.raises(InvalidArgumentError, match="matches no tensor"):
        found.keep("nothing")
    with pytest.raises(InvalidArgumentError, match="not a regular expression"):
        found.keep("(")
    with pytest.raises(UnknownNameError):
        found.of("rows")


def test_channels_that_decide_what_the_code_does_stay():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.other, self.last = nn.Linear(2, 3), nn.Linear(2, 4), nn.Linear(4, 1)

        def forward(self, x):
            return self.last(self.other(x) if self.first(x)[0, 0] > 0 else -self.other(x))

    found = dependencies(Net(), torch.randn(5, 2))
    decided = [group for group in found if any(s.tensor == "first.weight" and s.axis == 0 for s in group.slices)]
    assert "decide what the code does" in decided[0].kept
    assert len(found.of("units")) == 4 + 2  # the other layer, and the units of the first that nobody looks at


def test_a_model_that_does_not_run_is_refused_in_words():
    with pytest.raises(InvalidArgumentError, match="does not run"):
        dependencies(nn.Linear(3, 2), torch.randn(2, 4))
