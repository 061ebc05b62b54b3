"""What comes after a run: its model made smaller, timed on this machine, and exported."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from .._core.files import locked, read_json, write_atomically, write_sealed
from ..compact import Certificate, Parity, accelerate, compact, export_onnx, export_program, load, save
from ..errors import InvalidArgumentError, UnknownNameError
from ._record import versions
from ._saved_run import SavedRun, read_run

__all__ = ["COMPACT", "FORMATS", "bench_run", "compact_run", "export_run"]

COMPACT = "compact.safetensors"
"""Name of the smaller model in a run folder."""

FORMATS = {"onnx": "model.onnx", "torch": "model.pt2"}
"""Formats of `export_run`, and what each is called in a run folder."""

_EXAMPLES = 32


def compact_run(folder: str | Path, *, model: str | None = None) -> Certificate:
    """Remove what is dead from the model of a run; ``compact.safetensors`` and ``certificate.json`` go to its folder.

    Parameters
    ----------
    folder : path-like
        Of ``obverse sparsify``.
    model : str, optional
        As in `read_run`.

    Returns
    -------
    Certificate

    Raises
    ------
    InvalidArgumentError
        The folder is none of a run.
    ObverseError
        The smaller model would not be equal; nothing is written then.
    """
    run = read_run(folder, model)
    small, certificate = compact(run.model, example_inputs(run, _EXAMPLES))
    with locked(run.folder):
        save(small, run.folder / COMPACT, certificate=certificate)
        write_sealed(run.folder / "certificate.json", json.loads(certificate.to_json()))
        _show(run.folder)
    return certificate


def bench_run(
    folder: str | Path,
    *,
    batches: tuple[int, ...] = (1, 32, 256),
    threads: int | None = None,
    repeats: int = 21,
    model: str | None = None,
) -> dict[str, Any]:
    """Time the model of a run, and the smaller one made from it if there is one; keep the receipts in ``receipt.json``.

    Parameters
    ----------
    folder : path-like
        Of ``obverse sparsify``.
    batches : tuple of int
        Batch sizes, each at least 1. Rows of the test split are repeated where there are fewer.
    threads : int, optional
        Of torch, by default as it decides.
    repeats : int
        Rounds of each comparison, at least 5.
    model : str, optional
        As in `read_run`.

    Returns
    -------
    dict
        Receipts by model and batch size, and the same as text.

    Raises
    ------
    InvalidArgumentError
        The folder is none of a run, or an argument is out of range.
    """
    if not batches or any(size < 1 for size in batches):
        raise InvalidArgumentError(f"batch sizes are at least 1; got {', '.join(map(str, batches)) or 'none'}")
    if threads is not None and threads < 1:
        raise InvalidArgumentError(f"threads must be at least 1, got {threads}")
    run = read_run(folder, model)
    models = {"trained": run.model}
    small = compact_model(run, model)
    if small is not None:
        models["compact"] = small
    before = torch.get_num_threads()
    receipts: dict[str, dict[str, Any]] = {name: {} for name in models}
    text = []
    try:
        if threads is not None:
            torch.set_num_threads(threads)
        for size in dict.fromkeys(batches):
            inputs = example_inputs(run, size)
            for name, held in models.items():
                _, receipt = accelerate(held, inputs, repeats=repeats)
                receipts[name][str(size)] = receipt.to_dict()
                text.append(f"{name} model\n{receipt}")
    finally:
        torch.set_num_threads(before)
    record = {"run": str(run.folder), "receipts": receipts, "versions": versions()}
    with locked(run.folder):
        write_sealed(run.folder / "receipt.json", record)
        _show(run.folder)
    return {**record, "text": "\n\n".join(text)}


def export_run(
    folder: str | Path,
    form: str = "onnx",
    *,
    out: str | Path | None = None,
    trained: bool = False,
    model: str | None = None,
) -> Parity:
    """Export the smaller model made from a run, or else the one that it trained.

    Parameters
    ----------
    folder : path-like
    form : {"onnx", "torch"}
        ONNX, or the program of `torch.export`.
    out : path-like, optional
        By default ``model.onnx`` or ``model.pt2`` in the folder.
    trained : bool
        Export the trained model even if there is a smaller one.
    model : str, optional
        As in `read_run`.

    Returns
    -------
    Parity
        How far the exported model is from its source.

    Raises
    ------
    InvalidArgumentError
        The folder is none of a run, or the packages of ``obverse[export]`` are missing.
    ExportError
        The model cannot be exported.
    """
    if form not in FORMATS:
        raise UnknownNameError("format", form, FORMATS)
    run = read_run(folder, model)
    small = None if trained else compact_model(run, model)
    path = run.folder / FORMATS[form] if out is None else Path(out).expanduser()
    write = export_onnx if form == "onnx" else export_program
    return write(run.model if small is None else small, example_inputs(run, _EXAMPLES), path)


def _show(folder: Path) -> None:
    """Write the page of the run again, with the certificate and the receipt that its folder has."""
    from ..report import write_report

    record = folder / "metrics.json"
    if not record.is_file():
        return  # a model by itself has no page
    content = read_json(record, sealed=True, advice="delete it and obverse sparsify --resume makes it again")
    for name, command in (("certificate", "compact"), ("receipt", "bench")):
        file = folder / f"{name}.json"
        if file.is_file():
            content[name] = read_json(file, sealed=True, advice=f"delete it and obverse {command} makes it again")
    write_atomically(folder / "report.html", lambda file: write_report(content, file))


def compact_model(run: SavedRun, model: str | None) -> nn.Module | None:
    """The smaller model in the folder of a run, or None."""
    file = run.folder / COMPACT
    if not file.is_file():
        return None
    return load(file, into=read_run(run.folder, model).model)


def example_inputs(run: SavedRun, count: int) -> Tensor:
    """Normalized inputs of the test split, or of the training split where that is empty, as many as asked for."""
    for part in ("test", "train"):
        for inputs, _ in run.batches(part):
            if len(inputs):
                return inputs[torch.arange(count) % len(inputs)]
    raise InvalidArgumentError(f"the data of {run.folder} have no rows")
