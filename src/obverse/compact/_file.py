"""A compact model as one file: plain tensors, and JSON that says what they are; nothing in it is ever executed."""

from __future__ import annotations

import hashlib
import json
import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from .._core.files import write_bytes
from ..errors import InvalidArgumentError
from ._file_commit import Change, Target, commit
from ._file_shapes import changed_attributes, changed_numbers, check_tensors, may_have, numbers_of, sizes_of
from ._layout import decode, encode, parts_of

__all__ = ["FORMAT", "VERSION", "encoded_model", "file_bytes", "load", "save"]

FORMAT = "obverse.compact"
"""The entry of the metadata that says what the file is."""

VERSION = 1

# Between the name of a tensor and that of a part of it; no attribute of a module that can be written down has it.
_MARK = "#"
_BROKEN = (KeyError, TypeError, ValueError, AttributeError, IndexError, OverflowError, RecursionError, RuntimeError)


def save(model: nn.Module, path: str | os.PathLike[str], *, layout: str = "smallest", certificate: Any = None) -> Path:
    """Write a model to one ``.safetensors`` file that `load` reads into the model's class.

    Parameters
    ----------
    model : torch.nn.Module
        Any module of plain tensors. Tensors that have several names are stored once.
    path : path-like
        An existing file is replaced, in one piece; missing folders are made.
    layout : {"smallest", "dense"}
        ``"smallest"`` stores each tensor densely, as a bit mask with the values that are not zero, or as these values
        with gaps between them in 8 or 16 bits, whatever takes the fewest bytes. ``"dense"`` leaves a file that any
        reader of safetensors understands.
    certificate : Certificate or plain numbers, optional
        Kept in the file beside the tensors.

    Returns
    -------
    Path
        The file written.

    Raises
    ------
    InvalidArgumentError
        A tensor of the model is not plain (sharded, quantized, sparse, lazy), or the model has state that is no tensor.
    FileWriteError
        The disk is full, or the folder cannot be written to; an existing file is as it was.
    """
    content = encoded_model(model, layout=layout, certificate=certificate)
    return write_bytes(path, content)


def encoded_model(model: nn.Module, *, layout: str = "smallest", certificate: Any = None) -> bytes:
    """The content of the file that `save` writes."""
    if layout not in ("smallest", "dense"):
        raise InvalidArgumentError(f"layout must be 'smallest' or 'dense', got {layout!r}")
    from safetensors.torch import save as to_bytes

    target = Target(model)
    stored: dict[str, Tensor] = {}
    tensors: dict[str, list[Any]] = {}
    for name in target.firsts:
        tensor = _plain(name, target.tensors[name])
        chosen, parts = encode(tensor, None if layout == "smallest" else "dense")
        stored |= {f"{name}{_MARK}{part}" if part else name: held for part, held in parts.items()}
        if chosen != "dense":
            tensors[name] = [chosen, list(tensor.shape)]
    about: dict[str, Any] = {"version": VERSION, "model": type(model).__qualname__}
    about["attributes"] = {name: sizes for name, module in model.named_modules() if (sizes := sizes_of(module))}
    numbers = {name: found for name, module in model.named_modules() if (found := numbers_of(module))}
    for key, value in (("numbers", numbers), ("layouts", tensors), ("tied", target.tied), ("unsaved", target.unsaved)):
        if value:
            about[key] = value
    if certificate is not None:
        about["certificate"] = json.loads(certificate.to_json()) if hasattr(certificate, "to_json") else certificate
    try:
        json.dumps(about, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise InvalidArgumentError(f"the certificate cannot be written as JSON: {error}") from error
    about["digest"] = _digest(about, stored)
    # One entry: the order of several is left to chance, and the same model is to give the same bytes.
    return bytes(to_bytes(stored, {FORMAT: json.dumps(about, allow_nan=False, separators=(",", ":"))}))


def file_bytes(model: nn.Module, *, layout: str = "smallest") -> int:
    """Bytes of the file that `save` writes."""
    return len(encoded_model(model, layout=layout))


def load(path: str | os.PathLike[str], into: nn.Module) -> nn.Module:
    """Read a file that `save` wrote into a model of the class it was made from.

    Everything is checked before the model is touched: on any error it is as it was.

    Parameters
    ----------
    path : path-like
    into : torch.nn.Module
        As its class makes it, with the arguments that the original was made with. Its tensors and the attributes that
        state sizes (``in_features``, ``num_heads``, whole numbers of your own modules) take the values of the file.
        Tensors keep their device, and parameters stay the same objects; those on the meta device arrive on the CPU.

    Returns
    -------
    torch.nn.Module
        ``into``.

    Raises
    ------
    InvalidArgumentError
        No such file; one that is broken, of another kind or a newer version; or one that does not fit the model:
        tensors missing or left over, another dtype, ties or attributes that differ, a size that would grow.
    """
    if not isinstance(into, nn.Module):
        raise InvalidArgumentError(f"into must be a module, got {type(into).__name__}")
    file = Path(path)
    if not file.is_file():
        raise InvalidArgumentError(f"no such model file: {path}")
    target = Target(into)
    try:
        about, stored = _read(file)
        change = _fitted(about, stored, into, target)
    except InvalidArgumentError as error:
        raise InvalidArgumentError(f"{file}: {_one_line(error)}") from None
    except (*_BROKEN, OSError, MemoryError) as error:
        raise InvalidArgumentError(f"{file} is broken: {type(error).__name__}: {_one_line(error)}") from error
    commit(into, change)
    return into


def _read(file: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Description and tensors of a file, of the right kind and version and with the right digest."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(file, framework="pt") as opened:
            metadata = opened.metadata() or {}
            if FORMAT not in metadata:
                raise InvalidArgumentError("this is not a compact model of Obverse, as obverse.save writes it")
            stored = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118 - no mapping
    except SafetensorError as error:
        raise InvalidArgumentError(f"cannot be read: {error}") from error
    about = json.loads(metadata[FORMAT])
    if not isinstance(about, dict) or type(about.get("version")) is not int:
        raise InvalidArgumentError("its description is broken")
    if about["version"] != VERSION:
        raise InvalidArgumentError(
            f"it has version {about['version']} of the format, and this Obverse reads {VERSION}; read it with the "
            "version that wrote it, or a newer one"
        )
    if about.pop("digest", None) != _digest(about, stored):
        raise InvalidArgumentError("its digest does not match its content: it was damaged or changed")
    return about, stored


def _fitted(about: dict[str, Any], stored: dict[str, Tensor], model: nn.Module, target: Target) -> Change:
    """What the file makes of the model, checked."""
    layouts, tied = _mapping(about, "layouts"), _mapping(about, "tied")
    if tied != target.tied:
        odd = sorted(set(tied.items()) ^ set(target.tied.items()))
        raise InvalidArgumentError("ties differ: " + ", ".join(f"{a} with {b}" for a, b in odd[:3]))
    if _mapping(about, "unsaved") != target.unsaved:
        raise InvalidArgumentError("buffers that a state dict leaves out have other shapes in the file")
    modules = dict(model.named_modules())
    names = {name.partition(_MARK)[0] for name in stored}
    _check_names(names, target, modules)

    attributes = _mapping(about, "attributes")
    if set(attributes) != {name for name, module in modules.items() if sizes_of(module)}:
        raise InvalidArgumentError("its modules are not those of the model")
    changed = {
        name: changed_attributes(name or "the model", modules[name], _mapping(attributes, name)) for name in attributes
    }
    numbers = _mapping(about, "numbers") if "numbers" in about else {}  # files of the first release have none
    if "numbers" in about and set(numbers) != {name for name, module in modules.items() if numbers_of(module)}:
        raise InvalidArgumentError("its modules are not those of the model")
    found: dict[str, Tensor] = {}
    shapes: dict[str, dict[str, tuple[int, ...]]] = {name: {} for name in modules}
    for name in sorted(names):
        layout, shape, dtype = _described(name, layouts, stored)
        for alias in [name, *(alias for alias, first in target.tied.items() if first == name)]:
            owner, _, leaf = alias.rpartition(".")
            shapes[target.homes[owner]][leaf] = shape
        if name in target.tensors:
            fresh = target.tensors[name]
            if dtype != fresh.dtype:
                raise InvalidArgumentError(f"{name} is {dtype} in the file and {fresh.dtype} in the model; convert it")
            if len(shape) != fresh.ndim or any(new > old for new, old in zip(shape, fresh.shape, strict=True)):
                raise InvalidArgumentError(
                    f"{name} has the shape {list(shape)} in the file and {list(fresh.shape)} in the model, which can "
                    "only shrink"
                )
    for name, stored_numbers in numbers.items():
        held = dict(modules[name].named_parameters(recurse=False))
        is_smaller = any(leaf in held and held[leaf].shape != shape for leaf, shape in shapes[name].items())
        smaller = changed_numbers(name or "the model", modules[name], stored_numbers, is_smaller=is_smaller)
        changed.setdefault(name, {}).update(smaller)
    for name, module in modules.items():
        check_tensors(name or "the model", module, changed.get(name, {}), shapes[name])
    for name in sorted(names):
        # Only now: a shape that was not checked could ask for any amount of memory.
        layout, shape, dtype = _described(name, layouts, stored)
        parts = {part: stored[f"{name}{_MARK}{part}" if part else name] for part in parts_of(layout)}
        try:
            found[name] = decode(layout, parts, shape, dtype)
        except InvalidArgumentError as error:
            raise InvalidArgumentError(f"{name}: {error}") from None
    expected = {f"{n}{_MARK}{p}" if p else n for n in names for p in parts_of(_described(n, layouts, stored)[0])}
    if expected != set(stored) or not set(layouts) <= names:
        raise InvalidArgumentError("it holds tensors that belong to nothing")
    return Change(found, changed)


def _check_names(names: set[str], target: Target, modules: dict[str, nn.Module]) -> None:
    missing = sorted(set(target.firsts) - names)
    extra = sorted(names - set(target.firsts))
    extra = [
        name
        for name in extra
        if (owner := name.rpartition(".")[0]) not in modules or not may_have(modules[owner], name.rpartition(".")[2])
    ]
    if missing or extra:
        told = [f"lacks {', '.join(missing[:3])}"] * bool(missing) + [f"has also {', '.join(extra[:3])}"] * bool(extra)
        raise InvalidArgumentError(f"it does not fit the model: it {' and '.join(told)}")


def _described(
    name: str, layouts: Mapping[str, Any], stored: Mapping[str, Tensor]
) -> tuple[str, tuple[int, ...], torch.dtype]:
    """Layout, shape and dtype that the file states for a tensor."""
    if name not in layouts:
        if name not in stored:
            raise InvalidArgumentError(f"{name} is stored in parts, and nothing says how")
        return "dense", tuple(stored[name].shape), stored[name].dtype
    layout, shape = layouts[name]
    if not isinstance(shape, list) or not all(type(size) is int and size >= 0 for size in shape):
        raise InvalidArgumentError(f"{name} has the shape {shape!r}")
    if not isinstance(layout, str) or layout == "dense":
        raise InvalidArgumentError(f"{name} has the layout {layout!r}")
    return layout, tuple(shape), stored[f"{name}{_MARK}values"].dtype


def _one_line(error: BaseException) -> str:
    """What an error says, in one line of bounded length: a file may put anything into a name."""
    text = "".join(c if c.isprintable() else " " for c in str(error))
    return text if len(text) <= 400 else f"{text[:397]}..."


def _mapping(about: Mapping[str, Any], key: str) -> dict[str, Any]:
    found = about.get(key, {})
    if not isinstance(found, dict):
        raise InvalidArgumentError(f"its entry {key!r} is not a mapping")
    return found


def _plain(name: str, tensor: Tensor) -> Tensor:
    if type(tensor) not in (Tensor, nn.Parameter):
        raise InvalidArgumentError(
            f"{name} is a {type(tensor).__name__}, not a plain tensor; gather or convert it first"
        )
    if tensor.layout != torch.strided or tensor.is_quantized or tensor.is_meta:
        raise InvalidArgumentError(f"{name} is not a plain tensor with values (layout {tensor.layout})")
    if _MARK in name:
        raise InvalidArgumentError(f"a tensor whose name has {_MARK!r} in it cannot be stored: {name}")
    return tensor


def _digest(about: Mapping[str, Any], stored: Mapping[str, Tensor]) -> str:
    """SHA-256 over the description and every bit of the tensors."""
    total = hashlib.sha256(json.dumps(about, sort_keys=True).encode())
    for name in sorted(stored):
        tensor = stored[name]
        total.update(f"\0{name}\0{tensor.dtype}\0{list(tensor.shape)}\0".encode())
        if math.prod(tensor.shape):
            data: Any = tensor.contiguous().reshape(-1).view(torch.uint8).numpy()
            total.update(data)
    return total.hexdigest()
