"""Writes smaller Hugging Face models so that the `transformers` library alone loads them."""

from __future__ import annotations

import copy
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ..errors import InvalidArgumentError
from ..graph import Inputs, as_inputs, outputs_of, plain_copy

__all__ = ["save_pretrained"]

_Shapes = dict[str, tuple[int, ...]]
_LAYER = re.compile(r"\.(\d+)\.")
# Widths that a configuration may leave open.
_WIDTH = re.compile(r"inner|intermediate|ffn|d_ff|head_dim")
# What a module computes with, beside its tensors; other attributes do not change what it gives.
_PLAIN = (int, float)


def save_pretrained(model: nn.Module, folder: str | os.PathLike[str], **options: Any) -> Path:
    """Write a model that `obverse.compact` made smaller as a folder for ``from_pretrained``.

    The configuration is searched for widths under which the model's own class builds tensors of the smaller shapes:
    the same in all layers, else layer by layer where the class reads a configuration per layer. What was found is
    built, loaded and compared with ``model`` before anything is written: tensor by tensor, and number by number among
    the attributes of modules. Where numbers differ, both are run on random inputs and must give the same.

    Parameters
    ----------
    model : transformers.PreTrainedModel
        Left as it is.
    folder : path-like
        Gets ``config.json`` and the weights, as ``PreTrainedModel.save_pretrained`` writes them.
    **options
        Handed to ``PreTrainedModel.save_pretrained``.

    Returns
    -------
    Path
        The folder.

    Raises
    ------
    InvalidArgumentError
        The model is no Hugging Face model, or no configuration of its class describes it; the message names a tensor
        that stands in the way. `obverse.save` writes any model.
    """
    if not hasattr(model, "config") or not hasattr(type(model), "from_pretrained"):
        raise InvalidArgumentError(
            f"save_pretrained takes a model of the transformers library, got {type(model).__name__}; "
            "obverse.save writes any model"
        )
    config = described(model)
    twin = _built(type(model), config)
    place = Path(folder)
    if place.exists() and not place.is_dir():
        raise InvalidArgumentError(f"{place} is not a folder")
    twin.load_state_dict(model.state_dict(), strict=True)
    twin.to(_dtype(model))
    twin.save_pretrained(place, **options)
    return place


def described(model: Any) -> Any:
    """A configuration under which the model's class builds exactly this model.

    Raises
    ------
    InvalidArgumentError
        There is none.
    """
    wanted = _shapes(model)
    config = copy.deepcopy(model.config)
    config, missed = _matched(type(model), config, wanted)
    if missed:
        config, missed = _matched_by_layer(type(model), config, wanted, missed)
    if missed:
        name, before, after = missed[0]
        raise InvalidArgumentError(
            f"no configuration of {type(model).__name__} describes this model: {name} would have the shape "
            f"{list(before)} and has {list(after)}. Keep equal widths in all layers (Sparsifier(..., uniform=True)), "
            "leave heads whole where the class derives their size from the width of the model, or use obverse.save"
        )
    _match_numbers(model, config)
    twin = _built(type(model), config)
    twin.load_state_dict(model.state_dict(), strict=True)
    odd = next(_differing(model, twin), None)
    if odd is not None and not _agree(model, twin.to(_dtype(model))):
        raise InvalidArgumentError(
            f"{type(model).__name__} built from its configuration would differ in {odd}; use obverse.save, or leave "
            "that width whole"
        )
    return config


# ------------------------------------------------------------------------------------------------- the search
def _matched(kind: Any, config: Any, wanted: _Shapes) -> tuple[Any, list[Any]]:
    """Change one field after the other while that makes more tensors fit."""
    missed = _missed(kind, config, wanted)
    while missed:
        best, fewest = None, len(missed)
        for trial in _trials(config, missed):
            left = _missed(kind, trial, wanted)
            if left is not None and len(left) < fewest:
                best, fewest = trial, len(left)
        if best is None:
            return config, missed
        config, missed = best, _missed(kind, best, wanted) or []
    return config, missed or []


def _trials(config: Any, missed: list[Any]) -> Iterator[Any]:
    """The configuration with one width changed, as the shapes that do not fit suggest."""
    pairs = {(a, b) for _, before, after in missed for a, b in zip(before, after, strict=False) if a != b}
    fields = {name: value for name, value in _values(config) if type(value) is int and value > 1}
    for name in (name for name, value in _values(config) if value is None and _WIDTH.search(name)):
        for after in sorted({after for _, after in pairs}):
            yield _changed(config, {name: after})
    for name, value in fields.items():
        for before, after in sorted(pairs):
            news = {after} if value == before else set()
            # A width of several units of this field each: heads times their size, three projections in one.
            if before % value == 0 and after % (before // value) == 0:
                news.add(after // (before // value))
            for new in news:
                if 0 < new < value:
                    yield _changed(config, {name: new})
                    if "head" in name:
                        size = getattr(config, "hidden_size", 0) // value
                        yield _changed(config, {name: new, "head_dim": getattr(config, "head_dim", None) or size})
                        if "num_key_value_heads" in fields and name == "num_attention_heads":
                            groups = max(1, new * fields["num_key_value_heads"] // value)
                            yield _changed(config, {name: new, "num_key_value_heads": groups})


def _values(config: Any) -> list[tuple[str, Any]]:
    return [(name, value) for name, value in vars(config).items() if not name.startswith("_")]


def _changed(config: Any, fields: dict[str, Any]) -> Any:
    twin = copy.deepcopy(config)
    for name, value in fields.items():
        setattr(twin, name, value)
    return twin


def _matched_by_layer(kind: Any, config: Any, wanted: _Shapes, missed: list[Any]) -> tuple[Any, list[Any]]:
    """Widths of single layers, where the class reads them from ``per_layer_config``."""
    layers: dict[int, list[Any]] = {}
    for one in missed:
        found = _LAYER.search(one[0])
        if found is None:
            return config, missed
        layers.setdefault(int(found[1]), []).append(one)
    overrides: dict[int, dict[str, Any]] = {}
    for number, own in layers.items():
        inside = {name: shape for name, shape in wanted.items() if f".{number}." in name}
        alone, left = _matched_inside(kind, config, inside, own, number)
        if left:
            return config, missed
        overrides[number] = {
            name: value for name, value in _values(alone) if value != getattr(config, name, None) and type(value) is int
        }
    try:
        trial = type(config)(**{**config.to_dict(), "per_layer_config": overrides})
    except Exception:  # a class without a configuration per layer says so in its own way
        return config, missed
    left_over = _missed(kind, trial, wanted)
    return (trial, []) if left_over == [] else (config, missed)


def _matched_inside(kind: Any, config: Any, wanted: _Shapes, missed: list[Any], number: int) -> tuple[Any, list[Any]]:
    """`_matched` for the tensors of one layer, as if all layers were like it."""

    def own(trial: Any) -> list[Any] | None:
        return _missed(kind, trial, wanted, only=f".{number}.")

    left = missed
    while left:
        better = None
        for trial in _trials(config, left):
            found = own(trial)
            if found is not None and len(found) < len(left):
                better, left = trial, found
                break
        if better is None:
            return config, left
        config = better
    return config, []


def _missed(kind: Any, config: Any, wanted: _Shapes, only: str = "") -> list[Any] | None:
    """Tensors that a configuration gets wrong: name, its shape, the wanted one. None where it builds nothing."""
    try:
        with torch.device("meta"):
            found = _shapes(kind(config))
    except Exception:  # whatever the class raises on widths that do not go together
        return None
    found = {name: shape for name, shape in found.items() if only in name}
    if set(found) != set(wanted):
        return None
    return [(name, found[name], shape) for name, shape in wanted.items() if found[name] != shape]


def _shapes(model: nn.Module) -> _Shapes:
    return {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}


def _dtype(model: nn.Module) -> torch.dtype:
    return next((one.dtype for one in model.parameters() if one.is_floating_point()), torch.float32)


def _built(kind: Any, config: Any) -> Any:
    """A model of the class, in evaluation mode; its random start leaves the generator as it was."""
    with torch.random.fork_rng(devices=[]):
        return kind(config).eval()


# --------------------------------------------------------------------------------------------- numbers beside
def _match_numbers(model: Any, config: Any) -> None:
    """Fields of real numbers that the smaller model changed, such as the eps of its root-mean-square norms."""
    twin = _built(type(model), config)
    named = dict(twin.named_modules())
    for name, module in model.named_modules():
        for attribute, value in vars(module).items():
            other = vars(named[name]).get(attribute) if name in named else None
            if type(value) is float and type(other) is float and value != other:
                for field, stated in _values(config):
                    if type(stated) is float and stated == other:
                        setattr(config, field, value)


def _differing(model: nn.Module, twin: nn.Module) -> Iterator[str]:
    """Numbers among the attributes of modules in which two models of a class differ."""
    named = dict(twin.named_modules())
    for name, module in model.named_modules():
        other = vars(named[name]) if name in named else {}
        for attribute, value in vars(module).items():
            if type(value) in _PLAIN and not attribute.startswith("_") and other.get(attribute) != value:
                yield f"{name or 'the model'}.{attribute} ({other.get(attribute)} instead of {value})"


def _agree(model: Any, twin: Any) -> bool:
    """Whether two models of a class with the same tensors give the same on random inputs."""
    inputs = _random_inputs(model)
    if inputs is None:
        return False
    with torch.no_grad():
        try:
            first, second = (outputs_of(inputs.call(plain_copy(one).cpu().eval().double())) for one in (model, twin))
        except Exception:  # inputs that the class does not take: nothing can be said of it
            return False
    return len(first) == len(second) and all(
        a.shape == b.shape and torch.allclose(a.double(), b.double(), rtol=1e-6, atol=1e-9)
        for a, b in zip(first, second, strict=True)
    )


def _random_inputs(model: Any) -> Inputs | None:
    """Arguments for a model by what its class calls its main input; None for other inputs than words and pictures."""
    config, name = model.config, getattr(model, "main_input_name", "")
    draw = torch.Generator().manual_seed(0)
    if name == "input_ids":
        words = torch.randint(getattr(config, "vocab_size", 2), (2, 9), generator=draw)
        given = {"input_ids": words}
        if getattr(config, "is_encoder_decoder", False):
            given["decoder_input_ids"] = words[:, :5]
        return as_inputs(given)
    if name == "pixel_values":
        size = getattr(config, "image_size", 64)
        height, width = size if isinstance(size, list | tuple) else (size, size)
        shape = (2, getattr(config, "num_channels", 3), height, width)
        return as_inputs({"pixel_values": torch.randn(shape, generator=draw, dtype=torch.float64)})
    return None
