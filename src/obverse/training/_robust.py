"""Adaptive strengths for noisy and rare classes as one run: two stages, their tables, and a folder that resumes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from .._core.checks import count, fraction, nonnegative, positive
from .._core.files import check_output_folder, locked, read_json, write_bytes, write_json, write_sealed
from ..errors import InvalidArgumentError, StateError, UnknownNameError
from ..imbalance import (
    GroupReport,
    PredictedGain,
    TrainingPlan,
    TwoStageResult,
    cluster_groups,
    group_report,
    predicted_gain,
    train_two_stage,
)
from ._batches import augment_images
from ._machine import torch_settings
from ._models import build_model
from ._record import plain_json, versions
from ._replaced import Replaced
from ._samples import Samples
from ._sources import read_source, source_name
from ._split import Data, split_source
from ._threads import chosen_threads

__all__ = ["RobustChoices", "RobustResult", "robust_folder", "train_robust"]

_CHOICES, _STAGES, _RECORD, _PICTURE = "choices.json", "stages", "robust.json", "groups.png"
_WRITTEN = (_CHOICES, _RECORD, _PICTURE, _STAGES)
_WORTHLESS = frozenset({_CHOICES})
_ROWS = 2048


@dataclass(frozen=True)
class RobustChoices:
    """What `train_robust` trains, and how.

    Attributes
    ----------
    data, target, model
        As for `Recipe`.
    groups : str
        What strengths adapt to: ``"classes"``, ``"column:NAME"`` of a table, whose values then are no inputs, or
        ``"clusters:K"`` of the inputs, by k-means.
    strength : float
        Factor on the penalty.
    epochs, batch_size, learning_rate, weight_decay
        Of both stages: SGD with momentum and a cosine to zero.
    deferred : int or None
        Epoch of the second stage from which classes are weighted by their effective numbers; None for never.
    folds : int
        Of the first stage.
    every : int
        The penalty acts in every so many steps.
    augment, validation_fraction, test_fraction, seed, threads
        As for `Recipe`.
    """

    data: str = "digits"
    target: str | None = None
    model: str = "mlp"
    groups: str = "classes"
    strength: float = 0.3
    epochs: int = 40
    batch_size: int = 64
    learning_rate: float = 0.05
    weight_decay: float = 5e-4
    deferred: int | None = None
    folds: int = 3
    every: int = 1
    augment: str = "none"
    validation_fraction: float = 0.1
    test_fraction: float = 0.2
    seed: int = 0
    threads: int | None = None

    def __post_init__(self) -> None:
        for name in ("data", "model", "groups"):
            if not getattr(self, name):
                raise InvalidArgumentError(f"{name} must not be empty")
        positive("learning_rate", self.learning_rate)
        nonnegative("strength", self.strength)
        nonnegative("weight_decay", self.weight_decay)
        for name in ("learning_rate", "strength", "weight_decay"):
            if getattr(self, name) > 1e30:
                raise InvalidArgumentError(f"{name} must be at most 1e30, got {getattr(self, name):g}")
        for name, value in (("epochs", self.epochs), ("batch_size", self.batch_size), ("every", self.every)):
            count(name, value, 1, 10**9)
        count("folds", self.folds, 2, 10**6)
        count("seed", self.seed, 0, 2**31 - 1)
        for name, whole in (("deferred", self.deferred), ("threads", self.threads)):
            if whole is not None:
                count(name, whole, *((1, 1024) if name == "threads" else (0, 10**9)))
        fraction("validation_fraction", self.validation_fraction, zero=False, one=False)
        fraction("test_fraction", self.test_fraction, zero=False, one=False)


@dataclass(frozen=True)
class RobustResult:
    """The finished stages, and the errors of the final model by class.

    Attributes
    ----------
    stages : TwoStageResult
    gain : PredictedGain
        What adaptivity could buy over one strength for all, as the first stage saw it.
    validation, test : GroupReport
        On the validation rows, whose labels are as noisy as those of training, and on the test rows, by group.
    """

    stages: TwoStageResult
    gain: PredictedGain
    validation: GroupReport
    test: GroupReport

    def __str__(self) -> str:
        parts = [
            ("Noise by cross-fitting, and the strengths that follow", self.stages),
            ("What adaptivity can buy", self.gain),
            ("Test rows", self.test),
        ]
        return "\n\n".join(f"{title}\n{part}" for title, part in parts)


def robust_folder(choices: RobustChoices) -> Path:
    """``runs/robust-<data>-<model>``."""
    return Path("runs") / f"robust-{source_name(choices.data)}-{choices.model.replace(':', '-')}"


def train_robust(
    choices: RobustChoices,
    folder: str | Path | None = None,
    *,
    resume: bool = False,
    overwrite: bool = False,
    tell: Callable[[str], None] = lambda line: None,
    command: str = "",
) -> RobustResult:
    """Measure the noise of each class or group by cross-fitting, then train with strengths that adapt to it.

    Parameters
    ----------
    choices : RobustChoices
    folder : path-like, optional
        Output folder, by default `robust_folder`.
    resume : bool
        Go on after the last finished fold or stage.
    overwrite : bool
        Replace an earlier run in the folder. It is deleted when the new one has finished, and put back if that fails.
    tell : callable
        Called with a line at every stage.
    command : str
        The command line, for the record.

    Returns
    -------
    RobustResult
        The folder then holds ``robust.json``, ``groups.png``, the choices, and the stages with the model.

    Raises
    ------
    InvalidArgumentError
        For bad data or choices, for a folder that is not empty, that another process writes to, or that holds nothing
        to resume; before anything is written.
    StateError
        For a folder of another run.
    DamagedFileError
        A file that is read back is not what was written.
    FileWriteError
        The disk is full or refuses to write; what was written before stays.
    """
    place = robust_folder(choices) if folder is None else Path(folder).expanduser()
    check_output_folder(place, resume=resume, overwrite=overwrite, worthless=_WORTHLESS)
    if resume and not (place / _CHOICES).is_file():
        raise InvalidArgumentError(f"cannot resume {place}: it holds no run; leave out --resume to start one")
    kind, argument = _kind(choices.groups)
    source = read_source(choices.data, choices.target, argument if kind == "column" else None)
    data = split_source(source, choices.validation_fraction, choices.test_fraction, choices.seed)
    plan = _plan(choices, data)
    groups = _groups(kind, argument, data, choices.seed)

    def build() -> nn.Module:
        return build_model(choices.model, data.input_shape, len(data.classes), tokens=data.tokens)

    with torch_settings():
        _dry_run(build)
        if choices.threads is None:
            stored = place / _CHOICES if resume else None
            choices = replace(choices, threads=chosen_threads(build, data, choices.batch_size, stored=stored))
        torch.set_num_threads(choices.threads or 1)
        plan_line = f"{choices.folds} folds and a second stage of {choices.epochs} epochs on {len(data.train):,} rows"
        with locked(place):
            replaced = Replaced(place, _WRITTEN)
            replaced.recover()
            # Another process may have written to the folder since.
            check_output_folder(place, resume=resume, overwrite=overwrite, worthless=_WORTHLESS)
            if resume:
                _check_choices(place, choices, data)
            try:
                with replaced.kept(put_back=overwrite):
                    if overwrite:
                        if (place / _RECORD).is_file():
                            replaced.drop()  # a run that was killed between its last file and this
                        replaced.set_aside()
                    write_sealed(place / _CHOICES, _identity(choices, data))
                    tell(plan_line)
                    result = _trained(choices, place, data, build, plan, groups)
                    _write(place, choices, data, result, command)
            except KeyboardInterrupt:
                if replaced.exists():
                    tell(replaced.note)
                raise
    return result


def _identity(choices: RobustChoices, data: Data) -> dict[str, Any]:
    """What must agree between a run and the run that goes on from it."""
    return {"choices": vars(choices), "data": plain_json(data.describe())}


def _check_choices(place: Path, choices: RobustChoices, data: Data) -> None:
    """Raise, naming the first choice that differs, unless the folder holds a run of these choices and data."""
    stored = read_json(place / _CHOICES, sealed=True, advice="start anew with --overwrite")
    for name, value in vars(choices).items():
        before = stored["choices"].get(name)
        if before != value:
            raise StateError(
                f"{place} belongs to other data or arguments: {name} was {before!r} and is {value!r} now; "
                "resume with the same ones, or start anew with --overwrite"
            )
    if stored["data"] != _identity(choices, data)["data"]:
        raise StateError(f"{place} belongs to other data or arguments: the data {choices.data} changed since")


def _trained(
    choices: RobustChoices,
    place: Path,
    data: Data,
    build: Callable[[], nn.Module],
    plan: TrainingPlan,
    groups: list[NDArray[np.str_]],
) -> RobustResult:
    """Both stages, and what they come to on the validation and test rows."""
    stages = train_two_stage(
        build,
        data.normalize(data.train.inputs),
        data.train.labels,
        None if choices.groups == "classes" else groups[0],
        strength=choices.strength,
        plan=plan,
        penalty={"every": choices.every},
        folds=choices.folds,
        folder=place / _STAGES,
        seed=choices.seed,
    )
    counts = dict(zip(*np.unique(groups[0], return_counts=True), strict=True))
    reports = [
        _report(stages.model, data, part, of_rows, {group: counts.get(group, 0) for group in np.unique(of_rows)})
        for part, of_rows in ((data.validation, groups[1]), (data.test, groups[2]))
    ]
    return RobustResult(stages, predicted_gain(stages.noise), *reports)


def _plan(choices: RobustChoices, data: Data) -> TrainingPlan:
    kinds = ("none", "shift", "flip", "shift+flip")
    if choices.augment not in kinds:
        raise UnknownNameError("augmentation", choices.augment, kinds)
    if choices.augment != "none" and not data.is_image:
        raise InvalidArgumentError(f"augment {choices.augment!r} is for images, and {data.name} holds none")

    def augment(inputs: Tensor, generator: torch.Generator) -> Tensor:
        seed = int(torch.randint(2**31, (), generator=generator))
        return augment_images(inputs, choices.augment, seed, 0, 0, 1, len(inputs))

    return TrainingPlan(
        choices.epochs,
        choices.batch_size,
        choices.learning_rate,
        weight_decay=choices.weight_decay,
        deferred=choices.deferred,
        augment=None if choices.augment == "none" else augment,
    )


def _dry_run(build: Callable[[], nn.Module]) -> None:
    """Whatever a model refuses comes up before anything is cleared."""
    with torch.random.fork_rng([]):
        build()


def _kind(groups: str) -> tuple[str, str]:
    """``column:site`` as its kind and its argument."""
    kind, _, argument = groups.partition(":")
    if (kind == "classes") == bool(argument) or kind not in ("classes", "column", "clusters"):
        raise InvalidArgumentError(f"groups must be classes, column:NAME or clusters:K, got {groups!r}")
    if kind == "clusters" and not (argument.isascii() and argument.isdigit() and int(argument) >= 1):
        raise InvalidArgumentError(f"clusters:K needs a number of clusters, got {groups!r}")
    return kind, argument


def _groups(kind: str, argument: str, data: Data, seed: int) -> list[NDArray[np.str_]]:
    """Names of the groups of the training, validation and test rows."""
    parts = (data.train, data.validation, data.test)
    if kind == "classes":
        names = np.array(data.classes)
        return [names[part.labels.numpy()] for part in parts]
    if kind == "column":
        return [part.groups for part in parts if part.groups is not None]
    if data.tokens is not None:
        raise InvalidArgumentError(f"{data.name} holds texts, and clusters are of numbers or images")
    features = [data.normalize(part.inputs).flatten(1) for part in parts]
    places = torch.from_numpy(cluster_groups(features[0], int(argument), seed=seed))
    spread = features[0].std(0, correction=0)
    spread = torch.where(spread > 0, spread, torch.ones_like(spread))
    centers = torch.stack([features[0][places == place].mean(0) for place in range(int(argument))]) / spread
    nearest = [places, *(torch.cdist(part / spread, centers).argmin(1) for part in features[1:])]
    names = np.array([f"cluster {place}" for place in range(int(argument))])
    return [names[part.numpy()] for part in nearest]


@torch.no_grad()
def _report(
    model: nn.Module, data: Data, part: Samples, groups: NDArray[np.str_], counts: dict[str, int]
) -> GroupReport:
    starts = range(0, len(part), _ROWS)
    logits = torch.cat([model(data.normalize(part.inputs[start : start + _ROWS])) for start in starts])
    names = list(data.classes)
    shown = [names[label] for label in part.labels.tolist()]
    return group_report(shown, logits.double().numpy(), groups, train_counts=counts, from_logits=True, classes=names)


def _write(place: Path, choices: RobustChoices, data: Data, result: RobustResult, command: str) -> None:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 0.4 * len(result.test.rows) + 2), layout="constrained")
    result.test.plot(figure.subplots())
    content = BytesIO()
    figure.savefig(content, dpi=120, format="png")
    write_bytes(place / _PICTURE, content.getvalue())
    record = {
        "command": command,
        "choices": vars(choices),
        "data": data.describe(),
        "stages": result.stages.to_dict(),
        "gain": result.gain.to_dict(),
        "validation": result.validation.to_dict(),
        "test": result.test.to_dict(),
        "versions": versions(),
    }
    write_json(place / _RECORD, plain_json(record))
