"""Files that were damaged or made to do harm: a clear error, and the model as it was."""

from __future__ import annotations

import copy
import json
import random
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from compact_models import Attention, Language, thinned
from torch import nn

from obverse.compact import _file, load, save
from obverse.errors import InvalidArgumentError


class Pair(nn.Module):
    def __init__(self, small: bool = False) -> None:
        super().__init__()
        self.language = Language(6, 5) if small else Language()
        self.attention = Attention(20, 2, 5) if small else Attention()


@pytest.fixture(scope="module")
def content(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    torch.manual_seed(0)
    return save(thinned(Pair(True), 0.8), tmp_path_factory.mktemp("file") / "m.safetensors").read_bytes()


class Watched:
    """A model that says whether anything in it changed."""

    def __init__(self) -> None:
        self.model = Pair()
        self.before = copy.deepcopy(self.model.state_dict())
        self.looks, self.objects = repr(self.model), [id(p) for p in self.model.parameters()]

    def assert_untouched(self) -> None:
        assert repr(self.model) == self.looks
        assert [id(p) for p in self.model.parameters()] == self.objects
        for name, value in self.model.state_dict().items():
            assert torch.equal(value, self.before[name]), name
        assert self.model.attention.sizes == (32, 32, 32)


def header_of(content: bytes) -> tuple[dict[str, Any], bytes]:
    size = struct.unpack("<Q", content[:8])[0]
    return json.loads(content[8 : 8 + size]), content[8 + size :]


def with_header(header: Any, data: bytes) -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    return struct.pack("<Q", len(text)) + text + data


def flip_bits(content: bytes, rng: random.Random) -> bytes:
    changed = bytearray(content)
    for _ in range(rng.choice((1, 1, 2, 8))):
        place = rng.randrange(len(changed))
        changed[place] ^= 1 << rng.randrange(8)
    return bytes(changed)


def truncate(content: bytes, rng: random.Random) -> bytes:
    return content[: rng.randrange(len(content))]


def extend(content: bytes, rng: random.Random) -> bytes:
    place = rng.randrange(len(content) + 1)
    return content[:place] + rng.randbytes(rng.randrange(1, 64)) + content[place:]


def swap(content: bytes, rng: random.Random) -> bytes:
    place, size = rng.randrange(len(content)), rng.randrange(1, 64)
    return content[:place] + rng.randbytes(min(size, len(content) - place)) + content[place + size :]


ODD: tuple[Any, ...] = (
    None, True, -1, 0, 1, 2**31, 2**63, 10**30, 0.5, "", "x", "__class__", "../../etc/passwd", [], [[]], {}, {"": 0},
    [1, 2, 3], [-1, 5], [2**40, 2**40], "F64", "BOOL", "gaps16", [0, 0],
)  # fmt: skip


def edit_json(value: Any, rng: random.Random) -> Any:
    """One place of a JSON value replaced, removed, renamed or added."""
    if isinstance(value, dict) and value and rng.random() < 0.9:
        key = rng.choice(sorted(value))
        out = dict(value)
        action = rng.random()
        if action < 0.1:
            del out[key]
        elif action < 0.2:
            out[rng.choice(("x", key + ".x", "__class__", "forward", key.upper()))] = out.pop(key)
        elif action < 0.25:
            out["new"] = rng.choice(ODD)
        else:
            out[key] = edit_json(out[key], rng)
        return out
    if isinstance(value, list) and value and rng.random() < 0.7:
        place = rng.randrange(len(value))
        return [*value[:place], edit_json(value[place], rng), *value[place + 1 :]]
    if isinstance(value, int) and rng.random() < 0.5:
        return value + rng.choice((-1, 1, 8))
    return rng.choice(ODD)


def edit_header(content: bytes, rng: random.Random) -> bytes:
    header, data = header_of(content)
    return with_header(edit_json(header, rng), data)


def edit_description(content: bytes, rng: random.Random) -> bytes:
    """As someone would who knows the format: the digest is right."""
    header, data = header_of(content)
    about = edit_json(json.loads(header["__metadata__"][_file.FORMAT]), rng)
    return sealed(header, data, about)


def sealed(header: dict[str, Any], data: bytes, about: Any) -> bytes:
    from safetensors.torch import load as tensors_of

    if isinstance(about, dict):
        about = {key: value for key, value in about.items() if key != "digest"}
        about["digest"] = _file._digest(about, tensors_of(with_header(header, data)))
    return with_header({**header, "__metadata__": {_file.FORMAT: json.dumps(about)}}, data)


MUTATIONS: dict[str, Callable[[bytes, random.Random], bytes]] = {
    "bit flips": flip_bits,
    "truncation": truncate,
    "extension": extend,
    "other bytes": swap,
    "header": edit_header,
    "description": edit_description,
}


@pytest.mark.parametrize("kind", MUTATIONS)
def test_mutated_files(kind: str, content: bytes, tmp_path: Path) -> None:
    rng = random.Random(kind)
    watched, file = Watched(), tmp_path / "m.safetensors"
    refused = 0
    for _ in range(200):
        mutated = MUTATIONS[kind](content, rng)
        file.write_bytes(mutated)
        target = watched.model
        try:
            load(file, into=target)
        except InvalidArgumentError as error:
            refused += str(file) in str(error) and "\n" not in str(error)
        else:
            # What was not refused says the same thing in other words, or is another model that fits as a whole.
            assert kind in ("header", "description", "bit flips", "other bytes")
            again = Pair()
            file.write_bytes(content)
            load(file, into=again)
            if kind != "description":
                assert all(torch.equal(v, again.state_dict()[k]) for k, v in target.state_dict().items())
            watched = Watched()
            continue
    watched.assert_untouched()
    assert refused >= (100 if kind == "description" else 190)


def test_no_one_runs_code(content: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import builtins
    import pickle

    def forbidden(*_: Any, **__: Any) -> Any:
        raise AssertionError("code was run")

    for name in ("eval", "exec", "compile"):
        monkeypatch.setattr(builtins, name, forbidden)
    monkeypatch.setattr(pickle, "Unpickler", forbidden)
    monkeypatch.setattr(torch, "load", forbidden)
    file = tmp_path / "m.safetensors"
    file.write_bytes(content)
    load(file, into=Pair())


def test_a_file_that_asks_for_all_memory_is_refused(content: bytes, tmp_path: Path) -> None:
    header, data = header_of(content)
    about = json.loads(header["__metadata__"][_file.FORMAT])
    name = next(iter(about["layouts"]))
    watched, file = Watched(), tmp_path / "m.safetensors"
    for shape in ([2**40, 2**40], [2**62], [10**18, 0], [2**31, 1]):
        changed = copy.deepcopy(about)
        changed["layouts"][name][1] = shape
        file.write_bytes(sealed(header, data, changed))
        with pytest.raises(InvalidArgumentError):
            load(file, into=watched.model)
    watched.assert_untouched()


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda about: {**about, "version": 2}, "version 2"),
        (lambda about: {**about, "version": True}, "description is broken"),
        (lambda about: {**about, "version": "1"}, "description is broken"),
        (lambda about: [about], "description is broken"),
        (lambda about: {**about, "tied": []}, "not a mapping"),
        (lambda about: {**about, "tied": {}}, "ties differ"),
        (lambda about: {**about, "attributes": {}}, "modules"),
        (lambda about: {**about, "unsaved": {"language.offset": [3]}}, "state dict leaves out"),
    ],
)
def test_descriptions_that_are_wrong(edit: Any, message: str, content: bytes, tmp_path: Path) -> None:
    header, data = header_of(content)
    about = json.loads(header["__metadata__"][_file.FORMAT])
    file = tmp_path / "m.safetensors"
    file.write_bytes(sealed(header, data, edit(about)))
    watched = Watched()
    with pytest.raises(InvalidArgumentError, match=message):
        load(file, into=watched.model)
    watched.assert_untouched()


def test_attributes_that_no_one_may_set(content: bytes, tmp_path: Path) -> None:
    header, data = header_of(content)
    about = json.loads(header["__metadata__"][_file.FORMAT])
    watched, file = Watched(), tmp_path / "m.safetensors"
    for module, name, value in [
        ("attention", "training", 0),
        ("attention", "_version", 0),
        ("attention", "__class__", 0),
        ("attention", "num_heads", 10**9),
        ("attention", "num_heads", -1),
        ("attention", "num_heads", True),
        ("attention", "num_heads", "2"),
        ("attention", "sizes", [1, 2]),
        ("attention.joint", "in_features", 3),
        ("language.lstm", "num_layers", 1),
        ("language.lstm", "hidden_size", 4),
    ]:
        changed = copy.deepcopy(about)
        changed["attributes"][module][name] = value
        file.write_bytes(sealed(header, data, changed))
        with pytest.raises(InvalidArgumentError):
            load(file, into=watched.model)
    watched.assert_untouched()


def test_deep_and_doubled_json(content: bytes, tmp_path: Path) -> None:
    header, data = header_of(content)
    file = tmp_path / "m.safetensors"
    watched = Watched()
    for text in ("[" * 100_000, '{"version":1,"version":1}', "", "null", "9" * 5000, '{"version":' + "9" * 5000 + "}"):
        file.write_bytes(with_header({**header, "__metadata__": {_file.FORMAT: text}}, data))
        with pytest.raises(InvalidArgumentError):
            load(file, into=watched.model)
    file.write_bytes(with_header({**header, "__metadata__": {"other": "1"}}, data))
    with pytest.raises(InvalidArgumentError, match="not a compact model"):
        load(file, into=watched.model)
    watched.assert_untouched()
