"""Smaller Hugging Face models leave as folders that the transformers library loads without Obverse."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from obverse.compact import compact
from obverse.errors import InvalidArgumentError
from obverse.graph import as_inputs, outputs_of, removable
from obverse.integrations.transformers import save_pretrained

transformers = pytest.importorskip("transformers")

WORDS = {"input_ids": torch.arange(14).reshape(2, 7) + 3, "attention_mask": torch.ones(2, 7, dtype=torch.long)}
SMALL: dict[str, Any] = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 64,
    "vocab_size": 50,
}


def bert() -> nn.Module:
    return transformers.BertForSequenceClassification(transformers.BertConfig(**SMALL))


def llama() -> nn.Module:
    config = transformers.LlamaConfig(**SMALL, num_key_value_heads=2, bos_token_id=1, eos_token_id=2)
    return transformers.LlamaForCausalLM(config)


def gpt2() -> nn.Module:
    config = transformers.GPT2Config(
        n_embd=32, n_layer=2, n_head=4, vocab_size=50, n_positions=16, bos_token_id=1, eos_token_id=2
    )
    return transformers.GPT2LMHeadModel(config)


def t5() -> nn.Module:
    config = transformers.T5Config(vocab_size=50, d_model=32, d_kv=8, d_ff=64, num_layers=2, num_heads=4)
    return transformers.T5ForConditionalGeneration(config)


def vit() -> nn.Module:
    fields = {name: value for name, value in SMALL.items() if name != "vocab_size"}
    return transformers.ViTForImageClassification(transformers.ViTConfig(**fields, image_size=32, patch_size=8))


PICTURES = {"pixel_values": torch.randn(2, 3, 32, 32)}
CASES: dict[str, tuple[Callable[[], nn.Module], dict[str, torch.Tensor], tuple[str, ...], str]] = {
    "bert, hidden units": (bert, WORDS, ("intermediate",), "AutoModelForSequenceClassification"),
    "llama, all": (llama, WORDS, ("",), "AutoModelForCausalLM"),
    "gpt2, hidden units": (gpt2, WORDS, ("mlp",), "AutoModelForCausalLM"),
    "t5, heads and units": (
        t5,
        {**WORDS, "decoder_input_ids": WORDS["input_ids"][:, :4]},
        ("",),
        "AutoModelForSeq2SeqLM",
    ),
    "vit, heads and units": (vit, PICTURES, ("",), "AutoModelForImageClassification"),
}


def zeroed(model: nn.Module, inputs: Any, parts: tuple[str, ...], every: int = 2) -> nn.Module:
    """The model with the first half of every family of groups zeroed whose writers' names hold one of ``parts``."""
    named = dict(model.named_parameters(remove_duplicate=False))
    with torch.no_grad():
        for family in removable(model, inputs).families:
            if not any(part in writer for part in parts for writer in family.writers):
                continue
            for name, axes in family.axes.items():
                for axis, groups in axes.items():
                    gone = ((groups >= 0) & (groups < len(family) // every)).nonzero()[:, 0]
                    named[name].index_fill_(axis, gone, 0.0)
    return model.eval()


@pytest.mark.parametrize("case", CASES)
def test_a_folder_holds_the_smaller_model(case: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    build, inputs, parts, _ = CASES[case]
    model = zeroed(build().eval(), inputs, parts)
    small, _ = compact(model, inputs)
    before = sum(p.numel() for p in model.parameters())
    after = sum(p.numel() for p in small.parameters())
    assert after < 0.9 * before
    config = json.dumps(small.config.to_dict(), sort_keys=True, default=str)
    assert save_pretrained(small, tmp_path / "model") == tmp_path / "model"
    assert json.dumps(small.config.to_dict(), sort_keys=True, default=str) == config
    again = type(small).from_pretrained(tmp_path / "model").eval()
    assert sum(p.numel() for p in again.parameters()) == after
    with torch.no_grad():
        for found, expected in zip(
            outputs_of(as_inputs(inputs).call(again)), outputs_of(as_inputs(inputs).call(small)), strict=True
        ):
            torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-7)


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES)
def test_a_fresh_process_without_obverse_loads_it(case: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    build, inputs, parts, auto = CASES[case]
    small, _ = compact(zeroed(build().eval(), inputs, parts), inputs)
    save_pretrained(small, tmp_path / "model")
    with torch.no_grad():
        torch.save((inputs, outputs_of(as_inputs(inputs).call(small))), tmp_path / "expected.pt")
    code = f"""
import sys, torch
sys.modules["obverse"] = None
from transformers import {auto}
model = {auto}.from_pretrained(sys.argv[1] + "/model").eval()
inputs, expected = torch.load(sys.argv[1] + "/expected.pt")
with torch.no_grad():
    found = model(**inputs)[0]
print(float((found - expected[0]).abs().max()), sum(p.numel() for p in model.parameters()))
"""
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, check=True)
    gap, count = done.stdout.split()
    assert float(gap) < 1e-6
    assert int(count) == sum(p.numel() for p in small.parameters())


def test_what_no_configuration_describes_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    small, _ = compact(zeroed(bert().eval(), WORDS, ("",)), WORDS)
    with pytest.raises(InvalidArgumentError, match=r"no configuration of BertForSequenceClassification .*query"):
        save_pretrained(small, tmp_path / "model")
    assert not (tmp_path / "model").exists()


def test_other_models_are_sent_to_save(tmp_path: Path) -> None:
    with pytest.raises(InvalidArgumentError, match=r"obverse\.save writes any model"):
        save_pretrained(nn.Linear(3, 2), tmp_path / "model")


def test_a_file_in_the_way_is_refused(tmp_path: Path) -> None:
    (tmp_path / "model").touch()
    small, _ = compact(zeroed(bert().eval(), WORDS, ("intermediate",)), WORDS)
    with pytest.raises(InvalidArgumentError, match="is not a folder"):
        save_pretrained(small, tmp_path / "model")
