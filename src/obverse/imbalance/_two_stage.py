"""Two stages as one call: measure the noise of each group by cross-fitting, then train with adaptive strengths."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, final

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import safe_open
from safetensors.torch import load_file, save
from torch import Tensor, nn

from .._core.files import check_seal, locked, read_json, unsealed, write_sealed
from ..errors import InvalidArgumentError, StateError
from ._cross_fit import fingerprint
from ._group_report import GroupReport, group_report
from ._jacobian import HeteroskedasticRegularizer
from ._labeled import encode
from ._noise import GroupNoise, Measure, estimate_group_noise
from ._strengths import Normalize
from ._training_plan import Build, TrainingPlan, probabilities, trained

__all__ = ["TwoStageResult", "train_two_stage"]

_MODEL, _RECORD, _NOISE = "model.safetensors", "two-stage.json", "noise"
_AGAIN = "delete it and the second stage is run again"


@final
@dataclass(frozen=True)
class TwoStageResult:
    """A trained model with what its strengths were made of; printing it gives a table.

    Attributes
    ----------
    model : Module
        In evaluation mode.
    classes : list
        What its logits stand for.
    noise : GroupNoise
        Of the first stage.
    strengths : Tensor of float64, shape (G,)
        In the order of ``noise.rows``.
    report : GroupReport
        Errors of the first stage on held-out rows, by group.
    """

    model: nn.Module = field(repr=False)
    classes: list[Any]
    noise: GroupNoise
    strengths: Tensor
    report: GroupReport = field(repr=False)

    def to_dict(self) -> dict[str, Any]:
        """All but the model as plain values, for a JSON file."""
        return {
            "classes": self.classes,
            "strengths": self.strengths.tolist(),
            "noise": self.noise.to_dict(),
            "report": self.report.to_dict(),
        }

    def __str__(self) -> str:
        head, *lines = self.noise.table().splitlines()
        strengths = [f"{strength:.3f}" for strength in self.strengths.tolist()]
        width = max(len("strength"), *map(len, strengths))
        wide = max(map(len, (head, *lines)))
        shown = [(head, "strength"), *zip(lines, strengths, strict=True)]
        return "\n".join(f"{line.ljust(wide)}  {last.rjust(width)}" for line, last in shown)


def train_two_stage(
    build: Build,
    inputs: Tensor,
    labels: Any,
    groups: Any = None,
    *,
    strength: float,
    plan: TrainingPlan | None = None,
    penalty: Mapping[str, Any] | None = None,
    exponents: tuple[float, float] | None = None,
    normalize: Normalize = "max",
    measure: Measure = "error",
    folds: int = 3,
    folder: str | os.PathLike[str] | None = None,
    seed: int = 0,
) -> TwoStageResult:
    """Train a classifier on noisy, long-tailed data with a Jacobian penalty whose strengths adapt to the groups.

    Parameters
    ----------
    build : callable
        ``build()`` gives a new, untrained model of logits (n, K), K classes in their sorted order. It is called under
        the seed, once for each fold and once for the second stage.
    inputs : Tensor, shape (N, ...)
    labels : array, tensor or list of shape (N,)
        Classes, noisy as they are.
    groups : array of shape (N,), optional
        Metadata or clusters; by default the classes.
    strength : float
        Factor on the penalty, the one number to be chosen, on held-out rows by group-balanced error.
    plan : TrainingPlan, optional
        Epochs, batches and optimizer, the same for both stages, and deferred weights for the second.
    penalty : mapping, optional
        Further arguments of `HeteroskedasticRegularizer`, such as ``{"every": 4}``.
    exponents, normalize
        Of `GroupNoise.strengths`.
    measure, folds
        Of `estimate_group_noise`; a measure of classes.
    folder : path, optional
        Every finished fold and the finished model are kept there (NPZ, safetensors and JSON): a call that was
        interrupted goes on after the last of them, and a repeated one only reads. The folder belongs to these data and
        arguments. That ``build`` is the same one is checked by the names and shapes of its parameters.
    seed : int
        Of folds, initial weights, order of rows and noise; the global generators are left as they were.

    Returns
    -------
    TwoStageResult

    Raises
    ------
    InvalidArgumentError
        For lengths that differ, models that do not give K logits, or arguments that the parts refuse.
    NonFiniteError
        When the loss is not finite; folds that are done stay done.
    StateError
        For a folder of another study (`DamagedFileError` where a file of it is not what was written).
    FileWriteError
        The disk is full or refuses to write; folds that are done stay done.

    Notes
    -----
    1. Every row is predicted by a model of the other folds, trained without penalty; `estimate_group_noise` makes of
       that the noise of each group.
    2. A new model is trained on all rows with cross-entropy plus the penalty, with strengths ``noise^0.6 count^-0.4``
       by default.

    Source: Cao, Chen, Lu, Arechiga, Gaidon and Ma (2021), who estimate on one half only and do not smooth. Their
    deferred weights also multiply the penalty; here it is that of the unweighted loss.
    """
    plan = TrainingPlan() if plan is None else plan
    codes, classes = encode(labels)
    if not isinstance(inputs, Tensor) or len(inputs) != len(codes):
        given = tuple(inputs.shape) if isinstance(inputs, Tensor) else type(inputs).__name__
        raise InvalidArgumentError(f"inputs must be a tensor with one row for each of {len(codes)} labels, got {given}")
    if len(classes) < 2:
        raise InvalidArgumentError(f"labels must have two classes or more, got {classes}")
    options = dict(penalty or {})
    model = plan.built(build, inputs, len(classes), seed)
    # Refuses bad arguments before anything is trained.
    HeteroskedasticRegularizer(model, strength=strength, **options)
    identity = fingerprint(
        inputs.detach().cpu().contiguous().view(torch.uint8).numpy() if inputs.numel() else "",
        codes.numpy(),
        encode(groups)[0].numpy() if groups is not None else "",
        (tuple(inputs.shape), inputs.dtype, classes, strength, plan.identity, sorted(options.items())),
        (exponents, normalize, measure, folds, seed),
        [(name, tuple(value.shape)) for name, value in model.state_dict().items()],
    )
    place = None if folder is None else Path(folder)

    def fit_predict(train: NDArray[np.int64], held_out: NDArray[np.int64]) -> NDArray[np.float64]:
        rows, others = torch.from_numpy(train), torch.from_numpy(held_out)
        fitted = trained(plan, plan.built(build, inputs, len(classes), seed), inputs[rows], codes[rows], seed)
        return probabilities(plan, fitted, inputs[others]).double().numpy()

    with nullcontext() if place is None else locked(place):
        if place is not None:
            _open(place, identity)
        noise = estimate_group_noise(
            fit_predict,
            labels,
            groups,
            measure=measure,
            folds=folds,
            folder=None if place is None else place / _NOISE,
            seed=seed,
        )
        strengths = noise.strengths(exponents, normalize=normalize)
        assert noise.predictions is not None
        report = group_report(labels, noise.predictions, groups, classes=classes)
        if place is None or not _loaded(model, place / _MODEL, identity):
            regularizer = HeteroskedasticRegularizer(model, strengths, strength=strength, **options)
            trained(plan, model, inputs, codes, seed, regularizer, noise.members, len(classes))
            if place is not None:
                _save(model, place / _MODEL, identity)
        result = TwoStageResult(model.eval(), classes, noise, strengths, report)
        if place is not None:
            write_sealed(place / _RECORD, {"identity": identity, **_plain(result.to_dict())})
        return result


def _open(folder: Path, identity: str) -> None:
    """Raise unless a folder is new, or of this study."""
    record = folder / _RECORD
    if not record.exists():
        if (folder / _MODEL).exists() or (folder / _NOISE).exists():
            raise StateError(
                f"{folder} holds results without {_RECORD}, so whose they are is unknown; use another folder"
            )
        write_sealed(record, {"identity": identity})
    if read_json(record, sealed=True, advice="delete the folder to start again").get("identity") != identity:
        raise StateError(f"{folder} belongs to other data or arguments; use another folder, or delete this one")


def _loaded(model: nn.Module, path: Path, identity: str) -> bool:
    """Whether the finished model was there to be read."""
    if not path.exists():
        return False
    check_seal(path, advice=_AGAIN)
    with safe_open(path, framework="pt") as stored:
        about = json.loads((stored.metadata() or {}).get("obverse", "{}"))
    if about.get("identity") != identity:
        raise StateError(f"{path} is of another study; {_AGAIN}")
    model.load_state_dict(load_file(path))
    return True


def _save(model: nn.Module, path: Path, identity: str) -> None:
    # Copies, for the format has no way to say that two keys share their memory. One entry of metadata: the order of
    # several is left to chance, and the same model gives the same bytes.
    weights = {key: value.detach().cpu().contiguous().clone() for key, value in model.state_dict().items()}
    about = json.dumps({"identity": identity, **unsealed()})
    write_sealed(path, lambda file: file.write_bytes(save(weights, {"obverse": about})))


def _plain(value: Any) -> Any:
    """The same content in types JSON knows; what is not finite is null."""
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value if value is None or isinstance(value, bool | int | float | str) else str(value)
