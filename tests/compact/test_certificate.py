"""The certificate says what went, what stayed and how equal the result is."""

from __future__ import annotations

import json

import torch
from compact_zoo import sparse
from torch import nn

from obverse import compact


def test_json_and_text():
    model, inputs = sparse("lenet-5", 0.6)
    small, certificate = compact(model, inputs)
    data = json.loads(certificate.to_json())
    assert data["before"]["parameters"] > data["after"]["parameters"] == sum(p.numel() for p in small.parameters())
    assert data["before"]["macs"] > data["after"]["macs"]
    assert {(d["inputs"], d["dtype"]) for d in data["differences"]} == {
        (kind, dtype) for kind in ("given", "random", "stress", "batch") for dtype in ("float32", "float64")
    }
    text = str(certificate)
    assert "fc1.weight axis 0" in text
    assert "rows of fc1: its units" in text


def test_live_biases_are_folded_and_said_to_be():
    model = nn.Sequential(nn.Linear(4, 6), nn.Sigmoid(), nn.Linear(6, 2))
    with torch.no_grad():
        model[0].weight[:3] = 0
    small, certificate = compact(model, torch.randn(3, 4))
    assert small[0].out_features == 3
    assert certificate.folded == ["constants of removed channels went into 2.bias"]
    assert certificate.worst("float64") <= 1e-12


def test_rounded_channel_counts():
    model = nn.Sequential(nn.Linear(4, 32), nn.ReLU(), nn.Linear(32, 2))
    with torch.no_grad():
        model[2].weight[:, :21] = 0
    assert compact(model, torch.randn(3, 4), rounding=8)[0][0].out_features == 16
