"""A zoo of architectures: every one becomes smaller, stays equal and plain."""

from __future__ import annotations

import copy

import pytest
import torch
from compact_zoo import ZOO, sparse
from torch import nn

from obverse import compact, load, save
from obverse.compact import parameters


@pytest.mark.parametrize("fraction", [0.3, 0.6, 0.9])
@pytest.mark.parametrize("name", ZOO)
def test_smaller_and_equal(name, fraction):
    model, inputs = sparse(name, fraction)
    before = copy.deepcopy(model.state_dict())
    small, certificate = compact(model, inputs)
    assert not any("refused" in note for note in certificate.notes), str(certificate)
    assert all(d.difference <= 1e-10 * max(1, d.scale) for d in certificate.differences if d.dtype == "float64")
    assert all(d.difference <= 1e-5 * max(1, d.scale) for d in certificate.differences if d.dtype == "float32")
    assert parameters(small) < parameters(model), str(certificate)
    assert [type(m) for m in small.modules()] == [type(m) for m in model.modules()]
    assert list(small.state_dict()) == list(before)
    for key, value in model.state_dict().items():
        assert torch.equal(value, before[key])


@pytest.mark.parametrize("name", ZOO)
def test_second_time_nothing_is_left_to_do(name):
    small, _ = compact(*sparse(name, 0.6))
    again, certificate = compact(small, sparse(name, 0.6)[1])
    assert parameters(again) == parameters(small)
    assert certificate.changes == []


def test_expected_count_of_a_perceptron():
    model = nn.Sequential(nn.Linear(10, 20), nn.ReLU(), nn.Linear(20, 15), nn.Tanh(), nn.Linear(15, 3))
    with torch.no_grad():
        model[0].weight[:8] = 0
        model[2].weight[:, 8:12] = 0
        model[2].weight[3:6] = 0
    small, certificate = compact(model, torch.randn(4, 10))
    assert (small[0].out_features, small[2].in_features, small[2].out_features) == (8, 8, 12)
    assert certificate.after.parameters == 8 * 11 + 12 * 9 + 3 * 13


def test_tied_weights_stay_tied():
    small, certificate = compact(*sparse("tied bag", 0.3))
    assert small.head.weight is small.embed.weight
    assert small.embed.embedding_dim == small.head.in_features < 8
    assert certificate.after.parameters < certificate.before.parameters


@pytest.mark.parametrize(("name", "heads", "kv"), [("transformer", 2, 4), ("grouped queries", 2, 1)])
def test_heads_go_whole_and_their_number_follows(name, heads, kv):
    small, _ = compact(*sparse(name, 0.6))
    assert small.attention.num_heads == heads
    assert small.attention.num_kv_heads == (heads if kv == 4 else kv)
    assert small.attention.q.out_features == heads * small.attention.head_dim


def test_the_name_is_room_and_verb():
    from obverse.compact import compact as verb

    assert callable(compact)
    assert compact.compact is verb


@pytest.mark.parametrize("name", ZOO)
def test_reload_into_the_unmodified_class(name, tmp_path):
    model, inputs = sparse(name, 0.6)
    small, _ = compact(model, inputs)
    save(small, tmp_path / "small.safetensors")
    again = load(tmp_path / "small.safetensors", into=ZOO[name][0]()).eval()
    assert torch.equal(again(*inputs), small(*inputs))


@pytest.mark.parametrize("name", ["mlp", "resnet, projections", "grouped queries"])
def test_the_result_exports(name):
    small, _ = compact(*sparse(name, 0.6))
    inputs = sparse(name, 0.6)[1]
    assert torch.allclose(torch.export.export(small, inputs).module()(*inputs), small(*inputs), atol=1e-6)
