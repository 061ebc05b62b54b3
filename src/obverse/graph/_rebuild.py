"""The smaller model: constants folded, tensors cut, attributes of the classes brought up to date."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn
from torch.nn.utils.prune import BasePruningMethod
from torch.nn.utils.spectral_norm import SpectralNorm
from torch.nn.utils.weight_norm import WeightNorm

from ._copies import plain_copy
from ._dead import Verdict, fold
from ._flow import Knowledge
from ._numbers import Attribute

__all__ = ["Change", "rebuild"]


@dataclass(frozen=True)
class Change:
    """One axis of one tensor that became shorter."""

    tensor: str
    axis: int
    before: int
    after: int
    why: str


@dataclass
class Rebuilt:
    model: nn.Module
    changes: list[Change] = field(default_factory=list)
    folded: list[str] = field(default_factory=list)


def rebuild(model: nn.Module, know: Knowledge, verdict: Verdict) -> Rebuilt:
    """A deep copy of ``model`` without the channels that the verdict gives up."""
    twin = plain_copy(model)
    done = Rebuilt(twin)
    places = _places(twin)
    with torch.no_grad():
        _fold(twin, know, verdict, done)
        for scaled in know.scaled:
            layer: Any = twin.get_submodule(scaled.owner)
            ratio = len(scaled.labels) / max(1, int(verdict.keeps(scaled.labels).sum()))
            if ratio > 1:
                times = ratio**0.5 if scaled.root else ratio
                layer.weight.add_(scaled.offset).mul_(times).sub_(scaled.offset)
                setattr(layer, scaled.eps, getattr(layer, scaled.eps) * ratio)
                done.folded.append(f"{scaled.owner}: scale rescaled and eps set to {getattr(layer, scaled.eps)!r}")
        for name, held in know.axes.items():
            tensor = _tensor(twin, name)
            cut = tensor
            for axis, labels in held.items():
                kept = verdict.keeps(labels)
                if bool(kept.all()):
                    continue
                cut = cut.index_select(axis, kept.nonzero()[:, 0].to(cut.device))
                done.changes.append(Change(name, axis, len(kept), int(kept.sum()), know.words[name, axis]))
            if cut is not tensor:
                _put(twin, places[id(tensor)], tensor, cut)
    cut_names = {change.tensor for change in done.changes}
    touched = [names for names in places.values() if cut_names & set(names)]
    for owner in dict.fromkeys(name.rpartition(".")[0] for names in touched for name in names):
        _refresh(twin.get_submodule(owner))
    _resize_attributes(twin, know, verdict)
    return done


def _tensor(model: nn.Module, name: str) -> torch.Tensor:
    owner, _, leaf = name.rpartition(".")
    tensor: torch.Tensor = getattr(model.get_submodule(owner), leaf)
    return tensor


def _places(model: nn.Module) -> dict[int, list[str]]:
    """Every name of every tensor, so that tied tensors are replaced together."""
    found: dict[int, list[str]] = {}
    for name, tensor in [*model.named_parameters(remove_duplicate=False), *model.named_buffers(remove_duplicate=False)]:
        found.setdefault(id(tensor), []).append(name)
    return found


def _put(model: nn.Module, names: list[str], old: torch.Tensor, new: torch.Tensor) -> None:
    new = new.clone(memory_format=torch.contiguous_format)
    if isinstance(old, nn.Parameter):
        new = nn.Parameter(new, requires_grad=old.requires_grad)
    for name in names:
        owner, _, leaf = name.rpartition(".")
        setattr(model.get_submodule(owner), leaf, new)


def _fold(twin: nn.Module, know: Knowledge, verdict: Verdict, done: Rebuilt) -> None:
    seen: set[str] = set()
    for read in know.reads:
        if read.bias is None or read.bias in seen:
            continue
        seen.add(read.bias)
        shift = fold(read, verdict)
        if bool((shift != 0).any()):
            bias = _tensor(twin, read.bias)
            bias.copy_((bias.double() + shift.to(bias.device)).to(bias.dtype))
            done.folded.append(f"constants of removed channels went into {read.bias}")


def _recompute(layer: nn.Module) -> None:
    """Weights that hooks of torch compute before every call: of pruning, and of the older weight and spectral norms."""
    for hook in layer._forward_pre_hooks.values():
        if isinstance(hook, BasePruningMethod | WeightNorm):
            hook(layer, ())
        elif isinstance(hook, SpectralNorm):
            setattr(layer, hook.name, hook.compute_weight(layer, do_power_iteration=False))


def _refresh(layer: Any) -> None:
    """Attributes that a layer of torch derives from the shapes of its tensors."""
    _recompute(layer)
    if isinstance(layer, nn.Linear):
        layer.out_features, layer.in_features = layer.weight.shape
    elif isinstance(layer, nn.modules.conv._ConvTransposeNd):
        share = layer.in_channels // layer.groups
        layer.in_channels = layer.weight.shape[0]
        layer.groups = layer.groups if layer.groups == 1 else layer.in_channels // share
        layer.out_channels = layer.weight.shape[1] * layer.groups
    elif isinstance(layer, nn.modules.conv._ConvNd):
        share = layer.out_channels // layer.groups
        layer.out_channels = layer.weight.shape[0]
        layer.groups = layer.groups if layer.groups == 1 else layer.out_channels // share
        layer.in_channels = layer.weight.shape[1] * layer.groups
    elif isinstance(layer, nn.modules.batchnorm._NormBase):
        held = layer.weight if layer.weight is not None else layer.running_mean
        layer.num_features = len(held)
    elif isinstance(layer, nn.GroupNorm):
        share = layer.num_channels // layer.num_groups
        layer.num_channels = len(layer.weight)
        layer.num_groups = layer.num_channels // share
    elif isinstance(layer, nn.RMSNorm):
        layer.normalized_shape = tuple(layer.weight.shape)
    elif isinstance(layer, nn.PReLU):
        layer.num_parameters = len(layer.weight)
    elif isinstance(layer, nn.Embedding | nn.EmbeddingBag):
        layer.num_embeddings, layer.embedding_dim = layer.weight.shape
    elif isinstance(layer, nn.RNNBase):
        layer.input_size = int(layer.get_parameter("weight_ih_l0").shape[1])
        layer.hidden_size = int(layer.get_parameter("weight_hh_l0").shape[1])
        layer.flatten_parameters()


_FIXED = ("head_dim", "head_size", "dim_head", "d_head")


def _resize_attributes(twin: nn.Module, know: Knowledge, verdict: Verdict) -> None:
    """Sizes that the code of modules states, such as the number of heads, where they are attributes."""
    exact: dict[tuple[str, str], set[float]] = {}
    guessed: dict[tuple[str, int], set[int]] = {}
    for move in know.moves:
        for labels in move.after:
            kept = verdict.keeps(labels)
            if not move.sizes or bool(kept.all()):
                continue
            for axis, size in move.sizes.items():
                if axis >= labels.ndim or labels.shape[axis] != size:
                    continue
                others = [a for a in range(labels.ndim) if a != axis]
                now = int((kept.any(dim=others) if others else kept).sum())
                if now == size:
                    continue
                names = size.names if isinstance(size, Attribute) else frozenset()
                free = [one for one in names if one[1] not in _FIXED] or list(names)
                if len(free) == 1:
                    exact.setdefault(free[0], set()).add(now / size)
                elif not names:
                    guessed.setdefault((move.owner, int(size)), set()).add(now)
    for (owner, name), ratios in exact.items():
        module = twin.get_submodule(owner)
        if len(ratios) == 1:
            setattr(module, name, round(getattr(module, name) * next(iter(ratios))))
    original = {owner: dict(vars(twin.get_submodule(owner))) for owner, _ in guessed}
    for (owner, size), sizes in guessed.items():
        module = twin.get_submodule(owner)
        names_ = [
            name
            for name, value in original[owner].items()
            if type(value) is int and value == size and not name.startswith("_") and name not in _FIXED
        ]
        heads = [name for name in names_ if "head" in name or "group" in name]
        for name in heads or names_:
            if len(sizes) == 1:
                setattr(module, name, next(iter(sizes)))
