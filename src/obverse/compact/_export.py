"""Leaving Python: ONNX and `torch.export`, each run again and compared before it is believed."""

from __future__ import annotations

import importlib
import os
import warnings
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from .._core.files import write_atomically
from ..errors import InvalidArgumentError, ObverseError
from ..graph import Inputs, as_inputs, outputs_of, plain_copy, unwrapped

__all__ = ["ExportError", "Parity", "export_onnx", "export_program"]

_NEEDED = ("onnx", "onnxscript", "onnxruntime")


class ExportError(ObverseError, RuntimeError):
    """A model cannot be exported, or what was exported computes something else."""


@dataclass(frozen=True)
class Parity:
    """How far an exported model is from the one it was made from.

    Attributes
    ----------
    path : str
    difference : float
        Largest absolute difference of the outputs, over the largest absolute entry of the model's own.
    batches : tuple of int
        Batch sizes that were compared.
    bytes : int
        Of the file.
    """

    path: str
    difference: float
    batches: tuple[int, ...]
    bytes: int

    def to_dict(self) -> dict[str, Any]:
        """Plain numbers."""
        return {**asdict(self), "batches": list(self.batches)}

    def __str__(self) -> str:
        batches = " and ".join(map(str, self.batches))
        return f"{self.path}: {self.bytes:,} bytes, relative difference {self.difference:.1e} at batch {batches}"


def export_onnx(
    model: nn.Module,
    example_inputs: Any,
    path: str | os.PathLike[str],
    *,
    dynamic_batch: bool = True,
    tolerance: float = 1e-4,
) -> Parity:
    """Write an ONNX file, and compare it with the model in onnxruntime.

    Parameters
    ----------
    model : torch.nn.Module
        Exported in evaluation mode; stays as it is.
    example_inputs : Tensor, tuple of positional or mapping of keyword arguments
        The batch is their first dimension.
    path : path-like
        Replaced in one piece, and only if the outputs agree.
    dynamic_batch : bool
        Let the batch have any size; it is then compared at twice the example's too.
    tolerance : float
        Largest relative difference allowed.

    Returns
    -------
    Parity

    Raises
    ------
    InvalidArgumentError
        The packages of ``obverse[export]`` are missing, or the inputs are no tensors.
    ExportError
        The model cannot be traced, or the outputs differ.
    """
    for name in _NEEDED:
        _require(name)
    import onnxruntime

    def write(held: nn.Module, inputs: Inputs, dynamic: Any, file: Path) -> None:
        torch.onnx.export(
            held,
            inputs.args,
            file,
            kwargs=inputs.kwargs or None,
            dynamo=True,
            dynamic_shapes=dynamic,
            external_data=False,
            verbose=False,
            optimize=True,
        )

    def run(file: Path) -> Callable[[Inputs], list[Tensor]]:
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3
        session = onnxruntime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])
        names = [given.name for given in session.get_inputs()]

        def call(inputs: Inputs) -> list[Tensor]:
            given = {name: value.numpy() for name, value in zip(names, inputs.tensors(), strict=True)}
            return [torch.from_numpy(found) for found in session.run(None, given)]

        return call

    return _exported(model, example_inputs, Path(path), dynamic_batch, tolerance, write, run)


def export_program(
    model: nn.Module,
    example_inputs: Any,
    path: str | os.PathLike[str],
    *,
    dynamic_batch: bool = True,
    tolerance: float = 1e-4,
) -> Parity:
    """Write what `torch.export` makes of a model (``.pt2``), and compare it with the model.

    Parameters and results are those of `export_onnx`; nothing beyond torch is needed.
    """

    def write(held: nn.Module, inputs: Inputs, dynamic: Any, file: Path) -> None:
        program = torch.export.export(held, inputs.args, inputs.kwargs or None, dynamic_shapes=dynamic)
        torch.export.save(program, file)

    def run(file: Path) -> Callable[[Inputs], list[Tensor]]:
        module = torch.export.load(file).module()
        return lambda inputs: outputs_of(inputs.call(module))

    return _exported(model, example_inputs, Path(path), dynamic_batch, tolerance, write, run)


def _exported(
    model: nn.Module,
    example_inputs: Any,
    path: Path,
    dynamic_batch: bool,
    tolerance: float,
    write: Callable[[nn.Module, Inputs, Any, Path], None],
    run: Callable[[Path], Callable[[Inputs], list[Tensor]]],
) -> Parity:
    inputs = as_inputs(example_inputs)
    if len(inputs.tensors()) != len(inputs.args) + len(inputs.kwargs) or any(not one.ndim for one in inputs.tensors()):
        raise InvalidArgumentError("an exported model takes tensors with a batch dimension")
    inputs = inputs.map(lambda one: one.detach().cpu())
    if dynamic_batch and inputs.batch == 1:
        inputs = inputs.map(lambda one: torch.cat([one, one]))  # a batch of one is taken for a constant
    held = _own_memory(plain_copy(unwrapped(model)).cpu().eval())
    axes = {0: torch.export.Dim("batch", min=1)}
    dynamic: Any = None
    if dynamic_batch:
        dynamic = dict.fromkeys(inputs.kwargs, axes) if inputs.kwargs else tuple(axes for _ in inputs.args)
    # What is exported with stays in the file: shapes, and none of the user's rows.
    blank = inputs.map(lambda one: torch.zeros_like(one[:2] if dynamic_batch else one))
    found: list[float] = []

    def write_and_compare(temporary: Path) -> None:
        with warnings.catch_warnings(), torch.no_grad():
            # Exporters comment on their own insides.
            warnings.simplefilter("ignore")
            try:
                write(held, blank, dynamic, temporary)
                call = run(temporary)
            except OSError:
                raise
            except Exception as error:
                line = str(error).strip().partition("\n")[0][:300] or type(error).__name__
                raise ExportError(f"the model cannot be exported: {line}") from error
            probes = [inputs, inputs.map(lambda one: torch.cat([one.flip(0), one]))] if dynamic_batch else [inputs]
            difference = max(_difference(call(probe), outputs_of(probe.call(held))) for probe in probes)
        if not difference <= tolerance:
            raise ExportError(f"the exported model differs by {difference:.1e}, more than {tolerance:g}; nothing kept")
        found.append(difference)

    write_atomically(path, write_and_compare)
    batches = (inputs.batch, 2 * inputs.batch) if dynamic_batch else (inputs.batch,)
    return Parity(str(path), found[0], batches, path.stat().st_size)


def _own_memory(model: nn.Module) -> nn.Module:
    """Give tensors that are slices of larger memory their own, so that a file holds no more than the model."""
    for tensor in (*model.parameters(), *model.buffers()):
        if tensor.untyped_storage().nbytes() > tensor.numel() * tensor.element_size():
            tensor.data = tensor.data.clone(memory_format=torch.contiguous_format)
    return model


def _difference(found: list[Tensor], answer: list[Tensor]) -> float:
    if len(found) != len(answer) or any(a.shape != b.shape for a, b in zip(found, answer, strict=True)):
        raise ExportError("the exported model has outputs of other shapes")
    worst = 0.0
    for a, b in zip(found, answer, strict=True):
        if b.numel():
            scale = float(b.abs().max()) or 1.0
            worst = max(worst, float((a.double() - b.double()).abs().max()) / scale)
    return worst


def _require(name: str) -> None:
    try:
        importlib.import_module(name)
    except ImportError as error:
        raise InvalidArgumentError(
            f"exporting to ONNX needs {name}; install it with: pip install 'obverse[export]'"
        ) from error
