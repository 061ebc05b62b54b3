"""Leaving Python: ONNX and `torch.export`, each run again and compared before it is believed."""

from __future__ import annotations

import copy
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
from ..graph import as_inputs

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
    example_inputs : Tensor or sequence of tensors
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

    def write(held: nn.Module, inputs: tuple[Tensor, ...], dynamic: Any, file: Path) -> None:
        torch.onnx.export(
            held, inputs, file, dynamo=True, dynamic_shapes=dynamic, external_data=False, verbose=False, optimize=True
        )

    def run(file: Path) -> Callable[[tuple[Tensor, ...]], list[Tensor]]:
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3
        session = onnxruntime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])
        names = [given.name for given in session.get_inputs()]

        def call(inputs: tuple[Tensor, ...]) -> list[Tensor]:
            given = {name: value.numpy() for name, value in zip(names, inputs, strict=True)}
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

    def write(held: nn.Module, inputs: tuple[Tensor, ...], dynamic: Any, file: Path) -> None:
        torch.export.save(torch.export.export(held, inputs, dynamic_shapes=dynamic), file)

    def run(file: Path) -> Callable[[tuple[Tensor, ...]], list[Tensor]]:
        module = torch.export.load(file).module()
        return lambda inputs: _tensors(module(*inputs))

    return _exported(model, example_inputs, Path(path), dynamic_batch, tolerance, write, run)


def _exported(
    model: nn.Module,
    example_inputs: Any,
    path: Path,
    dynamic_batch: bool,
    tolerance: float,
    write: Callable[[nn.Module, tuple[Tensor, ...], Any, Path], None],
    run: Callable[[Path], Callable[[tuple[Tensor, ...]], list[Tensor]]],
) -> Parity:
    inputs = tuple(as_inputs(example_inputs))
    if not all(isinstance(value, Tensor) and value.ndim > 0 for value in inputs):
        raise InvalidArgumentError("an exported model takes tensors with a batch dimension")
    inputs = tuple(value.detach().cpu() for value in inputs)
    # A batch of one is taken for a constant.
    inputs = tuple(torch.cat([value, value]) for value in inputs) if dynamic_batch and len(inputs[0]) == 1 else inputs
    held = _own_memory(copy.deepcopy(model).cpu().eval())
    batch = torch.export.Dim("batch", min=1)
    dynamic = tuple({0: batch} for _ in inputs) if dynamic_batch else None
    # What is exported with stays in the file: shapes, and none of the user's rows.
    blank = tuple(torch.zeros_like(value[:2] if dynamic_batch else value) for value in inputs)
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
            probes = [inputs, tuple(torch.cat([v.flip(0), v]) for v in inputs)] if dynamic_batch else [inputs]
            difference = max(_difference(call(probe), _tensors(held(*probe))) for probe in probes)
        if not difference <= tolerance:
            raise ExportError(f"the exported model differs by {difference:.1e}, more than {tolerance:g}; nothing kept")
        found.append(difference)

    write_atomically(path, write_and_compare)
    batches = (len(inputs[0]), 2 * len(inputs[0])) if dynamic_batch else (len(inputs[0]),)
    return Parity(str(path), found[0], batches, path.stat().st_size)


def _own_memory(model: nn.Module) -> nn.Module:
    """Give tensors that are slices of larger memory their own, so that a file holds no more than the model."""
    for tensor in (*model.parameters(), *model.buffers()):
        if tensor.untyped_storage().nbytes() > tensor.numel() * tensor.element_size():
            tensor.data = tensor.data.clone(memory_format=torch.contiguous_format)
    return model


def _tensors(answer: Any) -> list[Tensor]:
    if isinstance(answer, Tensor):
        return [answer]
    if isinstance(answer, dict):
        answer = list(answer.values())
    return [tensor for item in answer if item is not None for tensor in _tensors(item)]


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
