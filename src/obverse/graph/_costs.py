"""What a model costs: parameters, multiply-accumulates, seconds on this machine."""

from __future__ import annotations

import statistics
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from ..errors import InvalidArgumentError
from ._inputs import as_inputs
from ._timing import Interval, compare_times, interval_of

__all__ = ["latency", "macs", "parameters", "time_ratio"]


def parameters(model: nn.Module, *, nonzero: bool = False) -> int:
    """Number of parameters, tied ones once; with ``nonzero``, of those that are not zero."""
    return sum(int(p.count_nonzero()) if nonzero else p.numel() for p in model.parameters())


def macs(model: nn.Module, inputs: Any) -> int:
    """Multiply-accumulates of one forward pass over ``inputs``, the whole batch.

    Parameters
    ----------
    model : torch.nn.Module
        Runs in evaluation mode and is left in the mode it had.
    inputs : Tensor or sequence of arguments

    Returns
    -------
    int
        Of matrix products, convolutions and attention, as they are executed; zeros count like any number. Elementwise
        operations and normalization are not counted.
    """
    from torch.nn.attention import SDPBackend, sdpa_kernel
    from torch.utils.flop_counter import FlopCounterMode

    fast = torch.backends.mha.get_fastpath_enabled()
    modes = [(module, module.training) for module in model.modules()]
    learned = [parameter for parameter in model.parameters() if parameter.requires_grad]
    counter = FlopCounterMode(display=False)
    try:
        # Fused kernels hide the products that they consist of.
        torch.backends.mha.set_fastpath_enabled(False)
        model.eval()
        for parameter in learned:
            # The counter hangs hooks into the graph of gradients wherever a tensor says that it wants one.
            parameter.requires_grad_(False)
        with (
            torch.no_grad(),
            _plain_products(),
            sdpa_kernel(SDPBackend.MATH),
            counter,
        ):
            as_inputs(inputs).call(model)
    finally:
        torch.backends.mha.set_fastpath_enabled(fast)
        for parameter in learned:
            parameter.requires_grad_(True)
        for module, mode in modes:
            module.training = mode
    return int(counter.get_total_flops()) // 2


def latency(model: nn.Module, inputs: Any, *, repeats: int = 30) -> Interval:
    """Seconds of one forward pass over ``inputs`` on this machine, with torch's current number of threads.

    Parameters
    ----------
    model : torch.nn.Module
        Runs in evaluation mode and is left in the mode it had.
    inputs : Tensor or sequence of arguments
        The batch to time.
    repeats : int
        Samples, at least 1.

    Returns
    -------
    Interval
        The median and its 95 % interval.
    """
    if type(repeats) is not int or repeats < 1:
        raise InvalidArgumentError(f"repeats must be a whole number, at least 1; got {repeats!r}")
    arguments = as_inputs(inputs)
    modes = [(module, module.training) for module in model.modules()]
    try:
        model.eval()
        with torch.inference_mode():
            device = next((a.device for a in arguments.tensors()), None)
            return interval_of(compare_times({"model": lambda: arguments.call(model)}, repeats, device)["model"])
    finally:
        for module, mode in modes:
            module.training = mode


def time_ratio(model: nn.Module, reference: nn.Module, inputs: Any, *, repeats: int = 30) -> float:
    """Time of one forward pass over that of another model, both in evaluation mode, timed in turn.

    The median over ``repeats`` rounds of the ratio within a round: a drift of the machine's speed meets both.
    """
    arguments = as_inputs(inputs)
    device = next((a.device for a in arguments.tensors()), None)
    with torch.inference_mode():
        calls = {"model": lambda: arguments.call(model), "reference": lambda: arguments.call(reference)}
        times = compare_times(calls, repeats, device)
    return statistics.median(a / b for a, b in zip(times["model"], times["reference"], strict=True))


@contextmanager
def _plain_products() -> Iterator[None]:
    """Without oneDNN, whose recurrent layers are one call that cannot be counted."""
    with warnings.catch_warnings():
        # Its other flags are set along, and it comments on them.
        warnings.filterwarnings("ignore", message="TF32", category=UserWarning)
        with torch.backends.mkldnn.flags(enabled=False):
            yield
