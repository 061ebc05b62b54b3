"""The fastest product for each layer, found by timing it on this machine."""

from __future__ import annotations

import copy
import platform
import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import InvalidArgumentError
from ..graph import Inputs, Interval, as_inputs, compare_times, interval_of
from ._kernel_layers import BlockLinear, CompiledLinear, FastLinear, SemiStructuredLinear, SparseProductLinear
from ._receipt import LayerChoice, Receipt

__all__ = ["accelerate", "machine_name"]

# Below this share of zeros no sparse product of this library or of torch has been seen to win.
_FEWEST_ZEROS = 0.5
_MARGIN = 1.05
_TOLERANCE = {torch.float64: 1e-12, torch.float32: 1e-5, torch.bfloat16: 3e-2, torch.float16: 4e-3}


def accelerate(
    model: nn.Module, example_inputs: Any, *, repeats: int = 21, rivals: bool = True
) -> tuple[nn.Module, Receipt]:
    """Make a copy of a model for inference whose linear layers use the fastest product for their zeros.

    Each `torch.nn.Linear` that the example runs through is timed, at the inputs it gets there: dense; feature-major
    CSR by a compiled product and by torch's; blocks of 16 and 32; on a GPU, 2:4. It is replaced only where the lower
    end of the 95 % interval of the gain is above 1 and the median above 1.05; if the whole model is not faster then, it
    is left dense. Everything else stays what it is.

    Parameters
    ----------
    model : torch.nn.Module
        Stays as it is.
    example_inputs : Tensor or sequence of arguments
        The batch size matters: what wins at 1 may lose at 256.
    repeats : int
        Rounds of each comparison, at least 5.
    rivals : bool
        Also time the dense model in bfloat16 and in dynamic int8.

    Returns
    -------
    fast : torch.nn.Module
        In evaluation mode; run it under ``torch.no_grad()`` or ``torch.inference_mode()``.
    receipt : Receipt

    Raises
    ------
    InvalidArgumentError
        The example is no tensor or sequence of arguments, or holds no tensor with a batch.
    """
    if type(repeats) is not int or repeats < 5:
        raise InvalidArgumentError(f"repeats must be a whole number, at least 5; got {repeats!r}")
    inputs = as_inputs(example_inputs)
    first = next((value for value in inputs.tensors() if value.ndim), None)
    if first is None or first.ndim == 0:
        raise InvalidArgumentError("example_inputs must hold a tensor with a batch dimension")
    dense = copy.deepcopy(model).eval()
    fast = copy.deepcopy(dense)
    with torch.inference_mode():
        layers = [_chosen(fast, name, inputs, repeats) for name in _linear_layers(dense, inputs)]
        calls: dict[str, Callable[[], Any]] = {"dense": lambda: inputs.call(dense)}
        unavailable: dict[str, str] = {}
        if any(layer.chosen != "dense" for layer in layers):
            calls["accelerated"] = lambda: inputs.call(fast)
        if rivals:
            _add_rivals(dense, inputs, calls, unavailable)
        samples = compare_times(calls, repeats, first.device)
        speedups = _speedups(samples)
        if "accelerated" in calls and not _wins(speedups["accelerated"]):
            fast = copy.deepcopy(dense)
            layers = [_kept(layer) for layer in layers]
        answers = {name: _first_tensor(call()) for name, call in calls.items()}
    parameter = next(model.parameters(), first)
    receipt = Receipt(
        machine=machine_name(),
        device=_device_name(first.device),
        torch_version=torch.__version__,
        dtype=str(parameter.dtype).removeprefix("torch."),
        batch=len(first),
        threads=torch.get_num_threads(),
        repeats=repeats,
        layers=tuple(layers),
        seconds={name: interval_of(times) for name, times in samples.items()},
        speedups={name: gain for name, gain in speedups.items() if name != "dense"},
        differences={name: _difference(y, answers["dense"]) for name, y in answers.items() if name != "dense"},
        unavailable=unavailable,
    )
    return fast, receipt


def _linear_layers(model: nn.Module, inputs: Inputs) -> list[str]:
    """Names of the plain linear layers that are called, in the order of their first call."""
    called: dict[str, None] = {}
    hooks = [
        module.register_forward_hook(lambda *_, name=name: called.setdefault(name))
        for name, module in model.named_modules()
        if type(module) is nn.Linear
    ]
    try:
        inputs.call(model)
    finally:
        for hook in hooks:
            hook.remove()
    return [name for name in called if name]


def _chosen(fast: nn.Module, name: str, inputs: Inputs, repeats: int) -> LayerChoice:
    """Time the products for one layer of the model, and put the best in its place."""
    layer = fast.get_submodule(name)
    assert isinstance(layer, nn.Linear)
    weight = layer.weight
    zeros = float((weight == 0).float().mean()) if weight.numel() else 0.0
    shape = tuple(weight.shape)
    if zeros < _FEWEST_ZEROS:
        return LayerChoice(name, shape, zeros, "dense", {}, f"Fewer than {_FEWEST_ZEROS:.0%} zeros: not tried.")
    seen: list[Tensor] = []
    hook = layer.register_forward_hook(lambda _, given, __: seen.append(given[0]))
    try:
        inputs.call(fast)
    finally:
        hook.remove()
    x = seen[0]
    answer = layer(x)
    tried = {product.kind: product for product in _products(layer, x) if _agrees(product(x), answer, weight.dtype)}
    samples = compare_times(
        {"dense": partial(layer, x), **{kind: partial(product, x) for kind, product in tried.items()}},
        repeats,
        x.device,
    )
    speedups = {kind: gain for kind, gain in _speedups(samples).items() if kind != "dense"}
    winners = [kind for kind, gain in speedups.items() if _wins(gain)]
    if not winners:
        return LayerChoice(name, shape, zeros, "dense", speedups, "No gain, kept dense.")
    best = max(winners, key=lambda kind: speedups[kind].median)
    fast.set_submodule(name, tried[best])
    gain = speedups[best]
    return LayerChoice(
        name,
        shape,
        zeros,
        best,
        speedups,
        f"{gain.median:.2f}x [{gain.low:.2f}, {gain.high:.2f}] over the dense layer.",
    )


def _products(layer: nn.Linear, x: Tensor) -> list[FastLinear]:
    """What can compute this layer here."""
    weight = layer.weight
    products: list[FastLinear] = []
    cpu = x.device.type == "cpu"
    if cpu and weight.dtype in (torch.float32, torch.float64):
        products.append(CompiledLinear(layer))
        if torch.get_num_threads() > 1:
            products.append(CompiledLinear(layer, parallel=True))
    if weight.dtype in (torch.float32, torch.float64):
        products.append(SparseProductLinear(layer))
    for side in (16, 32):
        if all(size % side == 0 for size in weight.shape) and _dead_blocks(weight, side) >= _FEWEST_ZEROS:
            products.append(BlockLinear(layer, side))
    if not cpu and weight.dtype in (torch.float16, torch.bfloat16) and _is_semi_structured(weight):
        products.append(SemiStructuredLinear(layer))
    return products


def _dead_blocks(weight: Tensor, side: int) -> float:
    rows, columns = weight.shape
    blocks = weight.reshape(rows // side, side, columns // side, side)
    return float((blocks == 0).all(3).all(1).float().mean())


def _is_semi_structured(weight: Tensor) -> bool:
    rows, columns = weight.shape
    if rows % 32 or columns % 64:
        return False
    return bool(((weight.reshape(rows, columns // 4, 4) != 0).sum(2) <= 2).all())


def _speedups(samples: dict[str, list[float]]) -> dict[str, Interval]:
    return {
        name: interval_of([base / own for base, own in zip(samples["dense"], times, strict=True)])
        for name, times in samples.items()
    }


def _wins(gain: Interval) -> bool:
    return gain.low > 1 and gain.median > _MARGIN


def _kept(layer: LayerChoice) -> LayerChoice:
    if layer.chosen == "dense":
        return layer
    reason = f"{layer.chosen} wins alone, but not in the whole model: no gain, kept dense."
    return LayerChoice(layer.name, layer.shape, layer.zeros, "dense", layer.speedups, reason)


def _add_rivals(
    dense: nn.Module, inputs: Inputs, calls: dict[str, Callable[[], Any]], unavailable: dict[str, str]
) -> None:
    """The dense model in fewer bits: what a sparse one has to be faster than to be worth its trouble."""

    def low() -> Callable[[], Any]:
        held = copy.deepcopy(dense).to(torch.bfloat16)
        given = inputs.map(lambda v: v.to(torch.bfloat16) if v.is_floating_point() else v)
        return lambda: given.call(held)

    def integer() -> Callable[[], Any]:
        if any(p.device.type != "cpu" or p.dtype != torch.float32 for p in dense.parameters()):
            raise InvalidArgumentError("dynamic int8 is for float32 models on the CPU")
        held = torch.ao.quantization.quantize_dynamic(copy.deepcopy(dense), dtype=torch.qint8)  # type: ignore[no-untyped-call]
        return lambda: inputs.call(held)

    for name, make in (("dense bf16", low), ("dynamic int8", integer)):
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                call = make()
                call()
        except Exception as error:  # whatever keeps a rival from running is told, not raised
            unavailable[name] = str(error).strip().partition("\n")[0][:200] or type(error).__name__
        else:
            calls[name] = call


def _agrees(found: Tensor, answer: Tensor, dtype: torch.dtype) -> bool:
    return _difference(found, answer) <= _TOLERANCE.get(dtype, 1e-5)


def _difference(found: Tensor, answer: Tensor) -> float:
    """Largest absolute difference over the largest absolute entry."""
    if answer.numel() == 0:
        return 0.0
    scale = float(answer.abs().max())
    return float((found.double() - answer.double()).abs().max()) / (scale or 1.0)


def _first_tensor(answer: Any) -> Tensor:
    while not isinstance(answer, Tensor):
        answer = next(iter(answer.values())) if isinstance(answer, dict) else answer[0]
    return answer


def machine_name() -> str:
    """The processor, as the system names it."""
    info = Path("/proc/cpuinfo")
    if info.is_file():
        for line in info.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def _device_name(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type
