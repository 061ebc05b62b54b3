"""Whether a network is smooth enough for differences of its gradients: kinks are found in the graph of its output."""

from __future__ import annotations

from torch import Tensor, nn

__all__ = ["kink", "kinked_layer"]

_KINKED_LAYERS = (
    nn.ReLU,
    nn.ReLU6,
    nn.LeakyReLU,
    nn.PReLU,
    nn.RReLU,
    nn.SELU,
    nn.Hardtanh,
    nn.Hardswish,
    nn.Hardsigmoid,
    nn.Hardshrink,
    nn.Softshrink,
    nn.Threshold,
    nn.MaxPool1d,
    nn.MaxPool2d,
    nn.MaxPool3d,
    nn.AdaptiveMaxPool1d,
    nn.AdaptiveMaxPool2d,
    nn.AdaptiveMaxPool3d,
    nn.FractionalMaxPool2d,
    nn.FractionalMaxPool3d,
)
_KINKED_NODES = (
    "Relu",
    "LeakyRelu",
    "PreluKernel",
    "Prelu",
    "RreluWithNoise",
    "Threshold",
    "Hardtanh",
    "Hardswish",
    "Hardsigmoid",
    "Hardshrink",
    "Softshrink",
    "MaxPool",
    "AdaptiveMaxPool",
    "FractionalMaxPool",
    "Abs",
    "Clamp",
    "Max",
    "Maximum",
    "Min",
    "Minimum",
    "Amax",
    "Amin",
    "Aminmax",
    "Cummax",
    "Cummin",
    "Sort",
    "Topk",
    "Median",
    "Kthvalue",
)


def kinked_layer(model: nn.Module) -> str | None:
    """Name and type of a layer whose derivative jumps, or None where no layer is known to."""
    for name, module in model.named_modules():
        if isinstance(module, _KINKED_LAYERS) or (isinstance(module, nn.ELU) and module.alpha != 1.0):
            return f"{name or 'the model'} ({type(module).__name__})"
    return None


def kink(output: Tensor) -> str | None:
    """An operation in the graph of ``output`` whose derivative jumps, or is unknown; None where there is none."""
    start = output.grad_fn
    stack, seen = [start] if start is not None else [], set()
    while stack:
        node = stack.pop()
        if node in seen:
            continue
        seen.add(node)
        operation = node.name().rpartition("::")[2]
        own = getattr(node, "_forward_cls", None)
        if own is not None and operation != "BackwardHookFunctionBackward" and not getattr(own, "is_smooth", False):
            return f"{operation.removesuffix('Backward')} (an operation of your own)"
        plain = operation.partition("Backward")[0]
        if plain in _KINKED_NODES or plain.startswith(("MaxPool", "AdaptiveMaxPool", "FractionalMaxPool", "MkldnnMax")):
            return plain
        # The exponential linear unit has the slope alpha on one side and 1 on the other.
        if plain == "Elu" and abs(_saved(node, "alpha") * _saved(node, "input_scale") - 1.0) > 1e-6:
            return plain
        stack.extend(following for following, _ in node.next_functions if following is not None)
    return None


def _saved(node: object, name: str) -> float:
    return float(getattr(node, f"_saved_{name}", 1.0))
