"""Tracing a model and walking its graph: what every tensor's channels are, and which values no input changes."""

from __future__ import annotations

import copy
import operator
from typing import Any

import torch
from torch import fx, nn

from ..errors import InvalidArgumentError
from ._flow import Flow, Knowledge
from ._layers import LAYERS, barrier
from ._operations import MOVES, apply, flows_in, pointwise, pooled, swap_shapes
from ._recurrent import recurrent

__all__ = ["analyze"]

_ACTIVATIONS = (
    nn.ReLU, nn.ReLU6, nn.GELU, nn.SiLU, nn.Sigmoid, nn.Tanh, nn.Hardswish, nn.Hardsigmoid, nn.Hardtanh, nn.LeakyReLU,
    nn.ELU, nn.SELU, nn.CELU, nn.Mish, nn.Softplus, nn.Softsign, nn.Tanhshrink, nn.LogSigmoid, nn.Threshold,
    nn.Hardshrink, nn.Softshrink,
)  # fmt: skip
_NOTHING = (nn.Identity, nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d, nn.AlphaDropout, nn.FeatureAlphaDropout)
_POOLS = (
    nn.MaxPool1d, nn.MaxPool2d, nn.MaxPool3d, nn.AvgPool1d, nn.AvgPool2d, nn.AvgPool3d, nn.AdaptiveAvgPool1d,
    nn.AdaptiveAvgPool2d, nn.AdaptiveAvgPool3d, nn.AdaptiveMaxPool1d, nn.AdaptiveMaxPool2d, nn.AdaptiveMaxPool3d,
    nn.Upsample, nn.UpsamplingNearest2d, nn.UpsamplingBilinear2d,
)  # fmt: skip


class _Tracer(fx.Tracer):
    """Layers of torch are leaves; containers and the user's own modules are entered."""

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return type(m).__module__.startswith("torch.nn") and not isinstance(m, nn.Sequential | nn.ModuleList)


class _Walk(fx.Interpreter):
    """Runs the graph on flows beside plain tensors; both keep the shapes of the example inputs."""

    def __init__(self, graph: fx.GraphModule, know: Knowledge, real: dict[fx.Node, Any]) -> None:
        super().__init__(graph)
        self.know, self.real, self.node = know, real, next(iter(graph.graph.nodes))
        self.extra_traceback = False

    def run_node(self, n: fx.Node) -> Any:
        self.node = n
        return super().run_node(n)

    def get_attr(self, target: Any, args: Any, kwargs: Any) -> Any:
        value = self.know.model
        for part in str(target).split("."):
            value = getattr(value, part, None)  # type: ignore[assignment]
        return value if value is not None else super().get_attr(target, args, kwargs)

    def _owner(self) -> str:
        stack = self.node.meta.get("nn_module_stack") or {}
        return str(list(stack.values())[-1][0] if stack else "").removeprefix("L['self'].")

    def call_function(self, target: Any, args: Any, kwargs: Any) -> Any:
        return self._call(getattr(target, "__name__", str(target)), target, args, kwargs)

    def call_method(self, target: Any, args: Any, kwargs: Any) -> Any:
        def method(owner: Any, *rest: Any, **named: Any) -> Any:
            return getattr(owner, target)(*rest, **named)

        method.__name__ = target
        return self._call(target, method, args, kwargs)

    def _call(self, name: str, call: Any, args: Any, kwargs: Any) -> Any:
        flows = flows_in((args, kwargs))
        if not flows:
            return call(*args, **kwargs)
        if name in ("getattr", "size", "dim", "numel", "__len__", "len") and args[0] is flows[0]:
            if name != "getattr" or args[1] in ("shape", "ndim", "device", "dtype"):
                real = self.real[self.node]
                if isinstance(real, torch.dtype | torch.device | int | tuple | torch.Size):
                    return real
            if name == "getattr" and args[1] in MOVES:
                return apply(self.know, "transpose", self._owner(), lambda f: getattr(f, args[1]), args[:1], {}, None)
        if name == "getitem" and not isinstance(args[0], Flow):
            return operator.getitem(args[0], args[1])
        return apply(self.know, name, self._owner(), call, args, kwargs, self.real[self.node])

    def call_module(self, target: Any, args: Any, kwargs: Any) -> Any:
        layer, flows = self.know.model.get_submodule(target), flows_in((args, kwargs))
        if not flows:
            return layer(*args, **kwargs)
        flow, name = flows[0], str(target)
        if isinstance(layer, nn.RNNBase):
            if len(flows) == 1 and flow.label.ndim == 3:
                return recurrent(self.know, name, layer, flow)
            barrier(self.know, name, f"{name} starts from a state that is given, or has no batch axis", *flows)
            return swap_shapes(self.know, self.real[self.node])
        if len(flows) == 1:
            for kind in type(layer).__mro__:
                if kind in LAYERS:
                    return LAYERS[kind](self.know, name, layer, flow)
            if isinstance(layer, _NOTHING):
                return flow
            if isinstance(layer, _ACTIVATIONS):
                return pointwise(self.know, layer, (flow,), {})
            if isinstance(layer, _POOLS) and flow.label.ndim > 2:
                return pooled(self.know, layer, flow)
            if isinstance(layer, nn.Flatten | nn.Unflatten | nn.PixelShuffle | nn.PixelUnshuffle | nn.ChannelShuffle):
                return apply(self.know, "flatten", name, layer.forward, (flow,), {}, None)
            if isinstance(layer, nn.Softmax):

                def run(x: torch.Tensor) -> torch.Tensor:
                    return layer(x)  # type: ignore[no-any-return]

                return apply(self.know, "softmax", name, run, (flow,), {"dim": layer.dim}, None)
        reason = f"{name} ({type(layer).__name__}) is not understood"
        if isinstance(layer, nn.MultiheadAttention):
            reason = f"{name}: nn.MultiheadAttention takes its head size from the embedding, so heads cannot go alone"
        barrier(self.know, name, reason, *flows)
        return swap_shapes(self.know, self.real[self.node])

    def output(self, target: Any, args: Any, kwargs: Any) -> Any:
        for flow in flows_in(args):
            self.know.channels.pin(flow.label, "it is an output of the model")
        return args[0]


class _Record(fx.Interpreter):
    """Runs the model and remembers what every node gave."""

    def __init__(self, graph: fx.GraphModule) -> None:
        super().__init__(graph)
        self.seen: dict[fx.Node, Any] = {}
        self.extra_traceback = False

    def run_node(self, n: fx.Node) -> Any:
        self.seen[n] = super().run_node(n)
        return self.seen[n]


def analyze(model: nn.Module, example_inputs: Any, *, assume_zeroed: bool = False) -> Knowledge:
    """Trace a model and find its channels, their classes, and the values that no input changes.

    Parameters
    ----------
    model : nn.Module
        Left as it is.
    example_inputs : tensor or tuple of tensors
        One batch, as the model takes it.
    assume_zeroed : bool, default False
        Whether a channel that goes will have been zeroed with everything that writes it, as training by groups does,
        instead of judging by the weights as they are.

    Raises
    ------
    InvalidArgumentError
        If the model cannot be traced or does not run on the example inputs; the message says where.
    """
    inputs = example_inputs if isinstance(example_inputs, tuple) else (example_inputs,)
    if not isinstance(model, nn.Module):
        raise InvalidArgumentError(f"model must be an nn.Module, not {type(model).__name__}")
    twin = copy.deepcopy(model).eval()
    try:
        graph = _Tracer().trace(twin)
        module = fx.GraphModule(twin, graph)
    except Exception as error:  # whatever the user's forward raises on symbolic values
        raise InvalidArgumentError(
            f"{type(model).__name__} cannot be traced ({type(error).__name__}: {str(error).splitlines()[0][:200]}); "
            "its forward may not branch on the values of tensors"
        ) from error
    try:
        record = _Record(module)
        with torch.no_grad():
            record.run(*inputs)
    except Exception as error:
        raise InvalidArgumentError(
            f"{type(model).__name__} does not run on the example inputs ({type(error).__name__}: {str(error)[:300]})"
        ) from error
    know = Knowledge(twin, assume_zeroed=assume_zeroed)
    flows = [know.whole(one.cpu()) if isinstance(one, torch.Tensor) else one for one in inputs]
    with torch.no_grad():
        _Walk(module, know, record.seen).run(*flows)
    return know
