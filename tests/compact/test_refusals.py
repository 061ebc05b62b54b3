"""What cannot go exactly stays, and the certificate says why."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from obverse import compact
from obverse.errors import InvalidArgumentError


def _why(model, inputs):
    small, certificate = compact(model, inputs)
    assert sum(p.numel() for p in small.parameters()) == sum(p.numel() for p in model.parameters())
    return " | ".join(refusal.reason for refusal in certificate.refusals)


def _kill(layer):
    with torch.no_grad():
        layer.weight[:2] = 0
    return layer


def test_constant_before_zero_padding():
    model = nn.Sequential(_kill(nn.Conv2d(1, 4, 3)), nn.Conv2d(4, 2, 3, padding=1))
    assert "zero padding" in _why(model, torch.randn(1, 1, 6, 6))


def test_constant_without_a_bias_to_take_it():
    model = nn.Sequential(_kill(nn.Linear(3, 4)), nn.Linear(4, 2, bias=False))
    assert "no bias" in _why(model, torch.randn(2, 3))


def test_layer_norm_over_all_channels():
    model = nn.Sequential(_kill(nn.Linear(3, 4)), nn.LayerNorm(4), nn.Linear(4, 2))
    assert "mean and variance over all" in _why(model, torch.randn(2, 3))


def test_group_norm_goes_in_whole_groups():
    model = nn.Sequential(_kill(nn.Conv2d(1, 6, 1)), nn.GroupNorm(2, 6), nn.Conv2d(6, 2, 1))
    assert _why(model, torch.randn(1, 1, 4, 4))


def test_outputs_and_what_is_read_stay():
    assert "output" in _why(nn.Sequential(_kill(nn.Linear(3, 4))), torch.randn(2, 3))


def test_unknown_layers_keep_what_they_read():
    class Rotated(nn.Module):
        def forward(self, x):
            return torch.fft.fft(x).real

    model = nn.Sequential(_kill(nn.Linear(3, 4)), Rotated(), nn.Linear(4, 2))
    assert "not understood" in _why(model, torch.randn(2, 3))


def test_softmax_over_channels():
    model = nn.Sequential(_kill(nn.Linear(3, 4)), nn.Softmax(dim=1), nn.Linear(4, 2))
    assert "softmax" in _why(model, torch.randn(2, 3))


@pytest.mark.parametrize(
    "options", [{"rounding": 0}, {"rounding": 1.5}, {"tolerance": -1.0}, {"tolerance": float("nan")}]
)
def test_arguments_out_of_range(options):
    with pytest.raises(InvalidArgumentError):
        compact(nn.Linear(2, 2), torch.randn(1, 2), **options)
