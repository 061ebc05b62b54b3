"""Models of Hugging Face transformers as they are: half of every family goes, and the outputs stay."""

from __future__ import annotations

from collections import UserDict

import pytest
import torch
from test_watching import exact, halved
from transformers_models import CORE, MODELS, built

from obverse import Sparsifier, compact, load, save
from obverse.graph import as_inputs, outputs_of, removable

pytest.importorskip("transformers")


@pytest.mark.parametrize("name", [n if n in CORE else pytest.param(n, marks=pytest.mark.slow) for n in MODELS])
def test_half_of_every_family_goes(name, tmp_path):
    model, inputs = built(name)
    _, share = halved(model, inputs)
    assert share >= MODELS[name][-1]
    small, certificate = compact(model, inputs)
    assert exact(certificate), str(certificate)
    assert certificate.after.parameters <= certificate.before.parameters * (1 - 0.4 * share)
    assert not any("stay whole" in note or "refused" in note for note in certificate.notes)
    assert type(small) is type(model)
    with torch.no_grad():
        found, wanted = small(**inputs), model(**inputs)
    assert type(found) is type(wanted)
    assert set(found.keys()) == set(wanted.keys())
    pairs = list(zip(outputs_of(found), outputs_of(wanted), strict=True))
    assert pairs
    assert all(torch.allclose(a, b, atol=1e-5) for a, b in pairs)
    save(small, tmp_path / "small.safetensors")
    again = load(tmp_path / "small.safetensors", into=built(name)[0]).eval()
    with torch.no_grad():
        assert all(map(torch.equal, outputs_of(again(**inputs)), outputs_of(found)))


@pytest.mark.parametrize("name", ["bert", pytest.param("llama", marks=pytest.mark.slow)])
def test_what_training_zeroes_goes(name):
    model, inputs = built(name)
    model.train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    sparsifier = Sparsifier(model, optimizer, groups="channels", budget=0.5, total_steps=20, example_inputs=inputs)
    for _ in range(20):
        optimizer.zero_grad()
        model(**inputs).logits.square().mean().backward()
        optimizer.step()
        sparsifier.step()
    assert sparsifier.sparsity == pytest.approx(0.5, abs=0.02)
    removed = sparsifier.sparsity * MODELS[name][-1]
    sparsifier.finish()
    _, certificate = compact(model.eval(), inputs)
    assert exact(certificate), str(certificate)
    assert certificate.after.parameters <= certificate.before.parameters * (1 - 0.98 * removed)


def test_heads_go_alone_and_the_model_follows():
    """Two of four heads of one layer are zero: it has two heads, of the same size."""
    model, inputs = built("bert")
    attention = model.bert.encoder.layer[0].attention
    with torch.no_grad():
        attention.output.dense.weight[:, :16] = 0
    small, certificate = compact(model, inputs)
    assert exact(certificate)
    first, second = (layer.attention.self for layer in small.bert.encoder.layer)
    assert first.query.out_features == first.key.out_features == first.value.out_features == 16
    assert second.query.out_features == 32


def test_grouped_heads_go_with_their_keys():
    """One of two keys has no queries that are read: it goes with both."""
    model, inputs = built("llama")
    attention = model.model.layers[1].self_attn
    with torch.no_grad():
        attention.o_proj.weight[:, :16] = 0
    small, certificate = compact(model, inputs)
    assert exact(certificate)
    shapes = {name: tuple(p.shape) for name, p in small.model.layers[1].self_attn.named_parameters()}
    assert shapes["q_proj.weight"] == (16, 32)
    assert shapes["k_proj.weight"] == shapes["v_proj.weight"] == (8, 32)


def test_a_root_mean_square_norm_of_any_class_is_rescaled():
    """The stream of a Llama goes; the norms of the library, which are no layers of torch, make up for it."""
    model, inputs = built("llama")
    found = removable(model, inputs)
    stream = next(family for family in found.families if "model.embed_tokens.weight" in family.writers)
    assert len(stream) == 32
    before = model.model.norm.variance_epsilon
    halved(model, inputs)
    small, _ = compact(model, inputs)
    assert small.model.norm.variance_epsilon == pytest.approx(2 * before)
    assert model.model.norm.variance_epsilon == before
    assert small.model.norm.weight.shape == (16,)


def test_what_a_tokenizer_gives_is_an_input():
    model, inputs = built("bert")
    wanted = removable(model, inputs)
    found = removable(model, UserDict(inputs))
    assert [one.writers for one in found.families] == [one.writers for one in wanted.families]
    tokenized = pytest.importorskip("transformers").BatchEncoding(inputs)
    _, certificate = compact(model, tokenized)
    assert exact(certificate)
    assert as_inputs(tokenized).kwargs.keys() == inputs.keys()


def test_another_batch_size_and_length_are_tried():
    model, inputs = built("bert")
    halved(model, inputs)
    small, certificate = compact(model, inputs)
    assert {"batch", "length"} <= {one.inputs for one in certificate.differences}
    ids = torch.randint(5, 50, (5, 3))
    assert torch.allclose(small(input_ids=ids).logits, model(input_ids=ids).logits, atol=1e-6)
