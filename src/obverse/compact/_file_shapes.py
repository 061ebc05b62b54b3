"""Which attributes of a module say how large it is, and what shapes its tensors then have."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from torch import nn

from ..errors import InvalidArgumentError
from ..graph import rescaled_eps

__all__ = ["changed_attributes", "changed_numbers", "check_tensors", "may_have", "numbers_of", "sizes_of"]

Size = int | list[int] | None
Shapes = dict[str, tuple[int, ...]]


@dataclass(frozen=True)
class _Kind:
    """A layer class: the attributes that follow when it shrinks, and the shapes of its tensors they imply."""

    attributes: tuple[str, ...]
    shapes: Callable[[Any], Shapes]


def _linear(m: Any) -> Shapes:
    return {"weight": (m.out_features, m.in_features), "bias": (m.out_features,)}


def _bilinear(m: Any) -> Shapes:
    return {"weight": (m.out_features, m.in1_features, m.in2_features), "bias": (m.out_features,)}


def _convolution(m: Any) -> Shapes:
    groups = max(m.groups, 1)
    first, second = (m.in_channels, m.out_channels) if m.transposed else (m.out_channels, m.in_channels)
    if m.in_channels % groups or m.out_channels % groups:
        raise InvalidArgumentError(f"{m.in_channels} and {m.out_channels} channels do not make {groups} groups")
    return {"weight": (first, second // groups, *m.kernel_size), "bias": (m.out_channels,)}


def _batch_norm(m: Any) -> Shapes:
    return dict.fromkeys(("weight", "bias", "running_mean", "running_var"), (m.num_features,))


def _group_norm(m: Any) -> Shapes:
    return dict.fromkeys(("weight", "bias"), (m.num_channels,))


def _layer_norm(m: Any) -> Shapes:
    return dict.fromkeys(("weight", "bias"), tuple(m.normalized_shape))


def _embedding(m: Any) -> Shapes:
    return {"weight": (m.num_embeddings, m.embedding_dim)}


def _attention(m: Any) -> Shapes:
    e, k, v = m.embed_dim, m.kdim, m.vdim
    return {
        "in_proj_weight": (3 * e, e),
        "in_proj_bias": (3 * e,),
        "q_proj_weight": (e, e),
        "k_proj_weight": (e, k),
        "v_proj_weight": (e, v),
        "bias_k": (1, 1, e),
        "bias_v": (1, 1, e),
    }


def _recurrent(m: Any) -> Shapes:
    gates = {"LSTM": 4, "GRU": 3}.get(m.mode, 1) * m.hidden_size
    out = m.proj_size or m.hidden_size
    shapes: Shapes = {}
    for layer in range(m.num_layers):
        for end in ("", "_reverse"):
            width = m.input_size if layer == 0 else out * (2 if m.bidirectional else 1)
            name = f"l{layer}{end}"
            shapes |= {f"weight_ih_{name}": (gates, width), f"weight_hh_{name}": (gates, out)}
            shapes |= {f"bias_ih_{name}": (gates,), f"bias_hh_{name}": (gates,)}
            shapes[f"weight_hr_{name}"] = (m.proj_size, m.hidden_size)
    return shapes


def _cell(gates: int) -> Callable[[Any], Shapes]:
    def shapes(m: Any) -> Shapes:
        rows = gates * m.hidden_size
        return {
            "weight_ih": (rows, m.input_size),
            "weight_hh": (rows, m.hidden_size),
            "bias_ih": (rows,),
            "bias_hh": (rows,),
        }

    return shapes


_NORM = nn.modules.batchnorm._NormBase
_CONVOLUTION = nn.modules.conv._ConvNd
_KINDS: dict[type[nn.Module], _Kind] = {
    nn.Linear: _Kind(("in_features", "out_features"), _linear),
    nn.Bilinear: _Kind(("in1_features", "in2_features", "out_features"), _bilinear),
    _CONVOLUTION: _Kind(("in_channels", "out_channels", "groups"), _convolution),
    _NORM: _Kind(("num_features",), _batch_norm),
    nn.GroupNorm: _Kind(("num_channels", "num_groups"), _group_norm),
    nn.LayerNorm: _Kind(("normalized_shape",), _layer_norm),
    nn.RMSNorm: _Kind(("normalized_shape",), _layer_norm),
    nn.Embedding: _Kind(("num_embeddings", "embedding_dim", "padding_idx"), _embedding),
    nn.EmbeddingBag: _Kind(("num_embeddings", "embedding_dim", "padding_idx"), _embedding),
    nn.MultiheadAttention: _Kind(("embed_dim", "kdim", "vdim", "num_heads", "head_dim"), _attention),
    nn.RNNBase: _Kind(("input_size", "hidden_size", "proj_size"), _recurrent),
    nn.RNNCell: _Kind(("input_size", "hidden_size"), _cell(1)),
    nn.GRUCell: _Kind(("input_size", "hidden_size"), _cell(3)),
    nn.LSTMCell: _Kind(("input_size", "hidden_size"), _cell(4)),
    nn.PReLU: _Kind(("num_parameters",), lambda m: {"weight": (m.num_parameters,)}),
    nn.Unflatten: _Kind(("unflattened_size",), lambda m: {}),
}


def sizes_of(module: nn.Module) -> dict[str, Size]:
    """Whole numbers, and tuples or lists of them, among the module's own public attributes."""
    kind = _kind(module)
    sizes: dict[str, Size] = {}
    for name, value in vars(module).items():
        if name.startswith("_"):
            continue
        if _is_size(value):
            sizes[name] = value
        elif isinstance(value, tuple | list) and value and all(_is_size(item) for item in value):
            sizes[name] = list(value)
        elif value is None and kind is not None and name in kind.attributes:
            sizes[name] = None
    return sizes


# What a layer of torch computes with in training only.
_TRAINING = ("p", "dropout", "momentum")


def numbers_of(module: nn.Module) -> dict[str, float | None]:
    """Real numbers that a layer of torch computes with, such as a slope, and the eps of norms of any class."""
    if type(module).__module__.partition(".")[0] != "torch":
        name = rescaled_eps(module)
        return {} if name is None else {name: float(getattr(module, name))}
    numbers: dict[str, float | None] = {}
    for name, value in vars(module).items():
        if not name.startswith("_") and name not in _TRAINING and (type(value) is float or name == "eps"):
            numbers[name] = value
    return numbers


def changed_numbers(where: str, module: nn.Module, stored: Any, *, is_smaller: bool) -> dict[str, float]:
    """The numbers of a module as its class makes it that differ in a file: the eps of an `nn.RMSNorm` that shrank.

    Its mean runs over fewer channels, so that scale and eps make up for those that are gone.

    Raises
    ------
    InvalidArgumentError
        The layer would compute something else.
    """
    fresh = numbers_of(module)
    if not isinstance(stored, dict) or set(stored) != set(fresh):
        raise InvalidArgumentError(f"{where} has other numbers in the file than in the model")
    changed: dict[str, float] = {}
    for name, before in fresh.items():
        after = stored[name]
        if after == before and type(after) is type(before):
            continue
        grows = type(before) is float and type(after) is float and before < after < float("inf")
        rescaled = isinstance(module, nn.RMSNorm) or rescaled_eps(module) is not None
        if not (rescaled and "eps" in name and is_smaller and grows):
            raise InvalidArgumentError(
                f"{where}.{name} is {_shown(after)} in the file and {_shown(before)} in the model; build the model as "
                "the one that was saved was built"
            )
        changed[name] = after
    return changed


def changed_attributes(where: str, module: nn.Module, stored: Mapping[str, Any]) -> dict[str, Any]:
    """The attributes of a module as its class makes it that differ in a file, with the values of the file.

    Raises
    ------
    InvalidArgumentError
        The module has other attributes, or one differs that does not follow from shrinking, or one would grow.
    """
    fresh = sizes_of(module)
    if set(fresh) != set(stored):
        odd = sorted(set(fresh) ^ set(stored))
        raise InvalidArgumentError(f"{where} has other attributes in the file than in the model: {', '.join(odd)}")
    kind = _kind(module)
    own = type(module).__module__.partition(".")[0] != "torch"
    changed: dict[str, Any] = {}
    for name, before in fresh.items():
        after = stored[name]
        if after == before and type(after) is type(before):
            continue
        follows = name in kind.attributes if kind is not None else False
        if not follows and not own:
            raise InvalidArgumentError(
                f"{where}.{name} is {_shown(after)} in the file and {_shown(before)} in the model"
            )
        if not _is_smaller(after, before):
            raise InvalidArgumentError(
                f"{where}.{name} is {_shown(after)} in the file and {_shown(before)} in the model, which can only "
                "shrink; build the model as the one that was made smaller was built"
            )
        held = getattr(module, name)
        changed[name] = type(held)(after) if isinstance(held, tuple | list) else after
    return changed


def check_tensors(where: str, module: nn.Module, changed: Mapping[str, Any], shapes: Mapping[str, Any]) -> None:
    """Check that tensors of a known layer have the shapes that its attributes, as changed, say.

    Raises
    ------
    InvalidArgumentError
        One has not.
    """
    kind = _kind(module)
    if kind is None:
        return
    try:
        expected = kind.shapes(_Changed(module, changed))
    except InvalidArgumentError as error:
        raise InvalidArgumentError(f"{where}: {error}") from None
    for name, shape in shapes.items():
        if name in expected and tuple(shape) != expected[name]:
            raise InvalidArgumentError(
                f"{where}.{name} has the shape {list(shape)}, and its layer's attributes say {list(expected[name])}"
            )


def may_have(module: nn.Module, name: str) -> bool:
    """Whether a known layer that has no such tensor, as one without a bias, can be given it."""
    kind = _kind(module)
    return kind is not None and name in kind.shapes(module) and module._parameters.get(name, module) is None


class _Changed:
    """A module with some attributes as they will be."""

    def __init__(self, module: nn.Module, changed: Mapping[str, Any]) -> None:
        self._module, self._new = module, changed

    def __getattr__(self, name: str) -> Any:
        return self._new[name] if name in self._new else getattr(self._module, name)


def _kind(module: nn.Module) -> _Kind | None:
    return next((_KINDS[base] for base in type(module).__mro__ if base in _KINDS), None)


def _is_size(value: object) -> bool:
    return type(value) is int


def _is_smaller(after: object, before: object) -> bool:
    if isinstance(after, list) and isinstance(before, list):
        pairs = list(zip(after, before, strict=False))
        return len(after) == len(before) and all(a == b or _is_smaller(a, b) for a, b in pairs)
    return _is_size(after) and _is_size(before) and 0 <= after <= before  # type: ignore[operator]


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 40 else f"{text[:37]}..."
