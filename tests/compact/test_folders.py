"""Folders in the layout of the hub: what is pushed is pulled, and the card tells what it is."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from compact_models import Language, perceptron, thinned
from safetensors.torch import load_file

from obverse.compact import accelerate, load_from_folder, push_to_folder, push_to_hub
from obverse.errors import InvalidArgumentError


class Certificate:
    def to_json(self) -> str:
        return '{"difference": 0.0}'

    def __str__(self) -> str:
        return "equal ``` to 1e-12"


def test_pushed_and_pulled(tmp_path: Path) -> None:
    small = Language(6, 5).eval()
    folder = push_to_folder(small, tmp_path / "model", certificate=Certificate(), config={"vocabulary": 20})
    assert sorted(file.name for file in folder.iterdir()) == ["README.md", "config.json", "model.safetensors"]
    config = json.loads((folder / "config.json").read_text())
    assert config["architectures"] == ["Language"]
    assert config["torch_dtype"] == "float32"
    assert config["vocabulary"] == 20
    card = (folder / "README.md").read_text()
    assert card.startswith("---\n")
    assert "````\nequal ``` to 1e-12\n````" in card
    assert set(load_file(folder / "model.safetensors")) == set(small.state_dict()) - {"head.weight"}
    model = load_from_folder(folder, into=Language().eval())
    tokens = torch.randint(20, (2, 4))
    assert torch.equal(model(tokens), small(tokens))


def test_a_second_push_replaces_the_first(tmp_path: Path) -> None:
    push_to_folder(perceptron(), tmp_path)
    (tmp_path / "notes.txt").write_text("mine")
    small = thinned(perceptron(9, 8), 0.9)
    _, receipt = accelerate(small, torch.randn(4, 784), repeats=5, rivals=False)
    push_to_folder(small, tmp_path, layout="smallest", receipt=receipt, name="digits")
    assert (tmp_path / "notes.txt").read_text() == "mine"
    assert "# digits" in (tmp_path / "README.md").read_text()
    assert "## Receipt" in (tmp_path / "README.md").read_text()
    assert load_from_folder(tmp_path, into=perceptron())[1].out_features == 9


def test_bad_folders(tmp_path: Path) -> None:
    with pytest.raises(InvalidArgumentError, match="holds no model"):
        load_from_folder(tmp_path, into=perceptron())
    with pytest.raises(InvalidArgumentError, match="holds no model"):
        push_to_hub(tmp_path, "owner/name")
    (tmp_path / "file").write_text("")
    with pytest.raises(InvalidArgumentError, match="not a folder"):
        push_to_folder(perceptron(), tmp_path / "file")
    with pytest.raises(InvalidArgumentError, match="JSON"):
        push_to_folder(perceptron(), tmp_path / "new", config={"a": object()})
    assert not (tmp_path / "new").exists()


def test_an_upload_sends_the_three_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sent: list[Any] = []

    class Api:
        def create_repo(self, name: str, **given: Any) -> None:
            sent.append((name, given))

        def upload_folder(self, **given: Any) -> str:
            sent.append(given)
            return "https://example.org/owner/name"

    monkeypatch.setitem(sys.modules, "huggingface_hub", SimpleNamespace(HfApi=Api))
    push_to_folder(perceptron(9, 8), tmp_path)
    assert push_to_hub(tmp_path, "owner/name", private=True) == "https://example.org/owner/name"
    assert sent[0] == ("owner/name", {"private": True, "exist_ok": True})
    assert sent[1]["allow_patterns"] == ["model.safetensors", "config.json", "README.md"]
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(InvalidArgumentError, match="pip install huggingface_hub"):
        push_to_hub(tmp_path, "owner/name")
