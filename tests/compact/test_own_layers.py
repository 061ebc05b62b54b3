"""A layer of somebody's own, taught as the guide says; and rules that are wrong, or raise an error."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch
from torch import nn

import obverse.layers
from obverse import compact, load, save
from obverse.graph import _layers, register_layer, removable

GUIDE = Path(__file__).parents[2] / "docs" / "own-layers.md"


@pytest.fixture(autouse=True)
def no_rules_stay(monkeypatch):
    monkeypatch.setattr(_layers, "LAYERS", dict(_layers.LAYERS))


def test_the_code_of_the_guide_runs(tmp_path):
    scope: dict[str, object] = {}
    blocks = re.findall(r"^```python\n(.*?)^```", GUIDE.read_text(), flags=re.MULTILINE | re.DOTALL)
    assert len(blocks) == 3
    for block in blocks:
        exec(compile(block, str(GUIDE), "exec"), scope)
    small = scope["small"]
    save(small, tmp_path / "small.safetensors")
    filters = scope["Filters"]
    fresh = nn.Sequential(nn.Linear(5, 16), filters(8, 16), nn.ReLU(), nn.Linear(16, 3)).eval()
    again = load(tmp_path / "small.safetensors", into=fresh)
    assert torch.equal(again(scope["batch"]), small(scope["batch"]))


def test_the_room_of_layers_is_the_one_registry():
    assert obverse.layers.register_layer is register_layer


class Reversed(nn.Module):
    """Channels in the opposite order."""

    def forward(self, x):
        return torch.fft.ifft(torch.fft.fft(x)).real.flip(-1)


def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 6), Reversed(), nn.Linear(6, 2)).eval()


def silenced(model):
    with torch.no_grad():
        model[0].weight[:2] = 0
        model[0].bias[:2] = 0
    return model


def test_a_rule_that_is_wrong_gives_no_wrong_model():
    @register_layer(Reversed)
    def as_if_nothing_happened(knowledge, name, layer, flow):
        return flow

    model, x = silenced(network()), torch.randn(3, 4)
    assert removable(model, x).families == ()
    small, certificate = compact(model, x)
    assert torch.allclose(small(x), model(x), atol=1e-6)
    assert certificate.worst("float64") <= 1e-10
    assert any("stay whole: outputs differ" in note for note in certificate.notes)


def test_a_rule_that_raises_an_error_is_a_barrier():
    @register_layer(Reversed)
    def broken(knowledge, name, layer, flow):
        raise ValueError("no idea")

    small, certificate = compact(silenced(network()), torch.randn(3, 4))
    assert small[0].out_features == 6
    assert any("1 (Reversed) is not understood (ValueError: no idea)" in note for note in certificate.notes)


def test_a_rule_that_is_right_lets_channels_go():
    @register_layer(Reversed)
    def turned(knowledge, name, layer, flow):
        full = flow.label.expand(*flow.label.shape[:-1], flow.shape[-1])
        return obverse.layers.Flow.of(flow.shape, full.flip(-1), torch.zeros(1), torch.ones(1, dtype=torch.bool))

    small, certificate = compact(dead_columns(network()), torch.randn(3, 4))
    assert small[0].out_features == 4
    assert certificate.worst("float64") <= 1e-10


def dead_columns(model):
    with torch.no_grad():
        model[2].weight[:, :2] = 0  # the last two units, after they are reversed
    return model


def test_a_subclass_with_a_forward_of_its_own_has_no_rule():
    class Other(Reversed):
        def forward(self, x):
            return torch.fft.fft(x).real

    @register_layer(Reversed)
    def as_if_nothing_happened(knowledge, name, layer, flow):
        return flow

    model = nn.Sequential(nn.Linear(4, 6), Other(), nn.Linear(6, 2))
    assert "fft_fft in 1 is not understood" in removable(model, torch.randn(3, 4)).kept["0.weight"]
