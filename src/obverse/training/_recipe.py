"""A recipe: everything that decides the numbers of a run, checked, and as YAML."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, TypeAlias

import yaml
from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

from .._core.files import check_seal, expanded
from .._core.text import brief, one_line
from ..errors import InvalidArgumentError, UnknownNameError
from ._faces import face_names, takes_penalty
from ._models import MODELS, TEXT_MODELS, is_factory
from ._sources import source_name
from ._yaml import read_yaml, yaml_fault

# Beyond these, nothing can be meant, and single precision has no room left for squares and products.
_MOST, _LARGEST_COUNT = 1e30, 10**9

__all__ = [
    "RECIPE",
    "LabelChoice",
    "PenaltyChoice",
    "Recipe",
    "parse_budget",
    "parse_labels",
    "parse_penalty",
    "read_recipe",
    "stored_recipe",
]

RECIPE = "recipe.yaml"
"""Name of the recipe in a run folder."""

_ADVICE = "delete it and name the options of the run, or its recipe with --recipe"


def parse_budget(given: object) -> float:
    """A sparsity from ``0.95``, ``"95%"`` or ``"20x"`` (one weight in twenty stays).

    Raises
    ------
    InvalidArgumentError
        Unless the sparsity lies strictly between 0 and 1.
    """
    allowed = "give a sparsity strictly between 0 and 1 as 0.95, 95% or 20x"
    text = str(given).strip().lower()
    match = re.fullmatch(r"([+-]?(?:\d+\.?\d*|\.\d+)(?:e[+-]?\d+)?)\s*([%x]?)", text)
    if match is None or isinstance(given, bool):
        raise InvalidArgumentError(f"budget {brief(given)} is not a number; {allowed}")
    number = float(match[1])
    if match[2] == "%":
        number = float(f"{number / 100:.12g}")
    elif match[2] == "x":
        number = 1 - 1 / number if number > 1 else math.nan
    if not 0 < number < 1:
        raise InvalidArgumentError(f"budget {brief(given)} is out of range; {allowed}")
    return number


def parse_penalty(given: object) -> object:
    """A penalty from ``"log-sum"`` or ``"scad:a=3.7,threshold=1"``; anything but text as given."""
    if not isinstance(given, str):
        return given
    name, _, rest = given.partition(":")
    parameters = {}
    for part in filter(None, rest.split(",")):
        key, equals, value = part.partition("=")
        try:
            parameters[key.strip()] = float(value)
        except ValueError:
            equals = ""
        if not equals:
            raise InvalidArgumentError(
                f"penalty {given!r}: parameters are written name:parameter=number,parameter=number"
            )
    return {"name": name.strip(), "parameters": parameters}


def parse_labels(given: object) -> object:
    """A label criterion from ``"adaptive"`` or ``"adaptive:strength=1,update=average"``; anything but text as given."""
    if not isinstance(given, str):
        return given
    if given.strip() == "none":
        return None
    name, _, rest = given.partition(":")
    parameters: dict[str, Any] = {}
    for part in filter(None, rest.split(",")):
        key, equals, value = part.partition("=")
        if not equals:
            raise InvalidArgumentError(f"labels {given!r}: options are written name:option=value,option=value")
        parameters[key.strip()] = _label_option(given, key.strip(), value.strip())
    return {"name": name.strip(), "parameters": parameters}


def _label_option(given: str, key: str, value: str) -> Any:
    """An option of a label criterion: a number, a truth value, null or a word."""
    try:
        return int(value) if re.fullmatch(r"[+-]?\d{1,18}", value) else float(value)
    except ValueError:
        pass
    try:
        return read_yaml(value)
    except yaml.YAMLError:
        raise InvalidArgumentError(f"labels {given!r}: {key}={value} is no number, truth value or word") from None


def _known_face(face: str) -> str:
    if face not in face_names():
        raise UnknownNameError("face", face, face_names())
    return face


def _no_null(text: str) -> str:
    if "\0" in text:
        raise ValueError("text must hold no null character")
    return text


Text: TypeAlias = Annotated[str, Field(min_length=1), AfterValidator(_no_null)]


def _in_single_precision(number: float) -> float:
    if number != 0 and not 1 / _MOST <= abs(number) <= _MOST:
        raise ValueError(f"a parameter must be 0, or of a magnitude between {1 / _MOST:g} and {_MOST:g}")
    return number


class PenaltyChoice(BaseModel):
    """A penalty by name, with parameters where they differ from its defaults."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str
    parameters: dict[str, Annotated[float, AfterValidator(_in_single_precision)]] = {}

    @classmethod
    def from_text(cls, text: str) -> PenaltyChoice:
        """The choice in ``"mcp"`` or ``"mcp:kappa=2"``.

        Raises
        ------
        InvalidArgumentError
            With one line on what is not allowed.
        """
        try:
            return cls.model_validate(parse_penalty(text))
        except ValidationError as error:
            raise _one_line(error, "penalty") from None


class LabelChoice(BaseModel):
    """A label criterion by name, with options where they differ from its defaults."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str
    parameters: dict[str, bool | int | float | str | None] = {}

    @model_validator(mode="after")
    def _known(self) -> LabelChoice:
        from ..labels import label_criteria

        if self.name not in label_criteria():
            raise UnknownNameError("labels", self.name, label_criteria())
        for option, value in self.parameters.items():
            if isinstance(value, int | float) and not abs(value) <= _MOST:
                raise InvalidArgumentError(
                    f"labels {self.name}: {option} must be a finite number of at most {_MOST:g}, got {brief(value)}"
                )
        return self


class Recipe(BaseModel):
    """What to train on what, and how.

    Every field has a default. Exactly one of ``budget`` and ``strength`` holds (with the face ``none``, neither);
    giving a strength clears the default budget. ``epochs`` and ``threads`` left empty are decided from the data and
    the model, and the recipe that a run writes has the values it used.

    Attributes
    ----------
    data : str
        ``digits``, ``mnist``, ``fashion-mnist``, ``cifar10``, a hub name, or a path.
    target : str or None
        Label column of a table.
    model : str
        ``mlp``, ``lenet-300-100``, ``lenet-5``, ``resnet20``, ``text-bag``, ``text-transformer`` or
        ``package.module:factory``.
    width : float
        Factor on the units and channels of a named model's hidden layers; a factory is given it as a keyword
        where it is not 1.
    penalty : PenaltyChoice or None
        Also given as ``"log-sum"`` or ``"log-sum:epsilon=0.1"``. Left empty, it is the one that the face implies,
        or ``log-sum``.
    face, groups : str
        As `obverse.Sparsifier` takes them; the face ``none`` trains without it, dense.
    budget : float or None
        Sparsity at the end, strictly between 0 and 1; also ``"95%"`` or ``"20x"``.
    strength : float or None
        Strength of the penalty, in place of a budget.
    epochs, batch_size : int
        The batch is the global one, shared by all processes.
    optimizer, learning_rate, momentum, weight_decay, schedule
        Momentum is used by ``sgd`` only; the schedule takes the learning rate to zero.
    label_smoothing : float
        In [0, 1).
    labels : LabelChoice or None
        A criterion of `obverse.labels` in place of the cross-entropy; also given as ``"adaptive"`` or
        ``"adaptive:strength=1"``.
    augment : str
        Random shifts and flips of images.
    seed, seeds : int
        Runs use the seeds ``seed, seed + 1, ...``; all share the data split of ``seed``.
    validation_fraction, test_fraction : float
        Shares carved from the training rows; a test split is carved only where the source has none.
    precision : str
        ``fp32``, ``bf16`` or ``fp16``.
    device : str
        ``auto`` or ``cpu``.
    threads : int or None
        Threads of torch on the CPU.
    tracker : str
        ``none``, ``csv`` or ``tensorboard``.
    out : str or None
        Output folder; by default named after the recipe, under ``runs``.
    """

    model_config = ConfigDict(extra="forbid", validate_default=False)

    data: Text = "digits"
    target: Text | None = None
    model: Text = "mlp"
    width: float = Field(default=1.0, gt=0, le=1e6)
    penalty: Annotated[PenaltyChoice, BeforeValidator(parse_penalty)] | None = None
    face: Annotated[str, AfterValidator(_known_face)] = "proximal"
    groups: Text = "weights"
    budget: Annotated[float, BeforeValidator(parse_budget)] | None = 0.95
    strength: float | None = Field(default=None, ge=0, le=_MOST)
    epochs: int | None = Field(default=None, ge=1, le=_LARGEST_COUNT)
    batch_size: int = Field(default=64, ge=1, le=_LARGEST_COUNT)
    optimizer: Literal["sgd", "adam", "adamw"] = "adam"
    learning_rate: float = Field(default=2e-3, gt=0, le=_MOST)
    momentum: float = Field(default=0.9, ge=0, lt=1)
    weight_decay: float = Field(default=0.0, ge=0, le=_MOST)
    schedule: Literal["constant", "linear", "cosine"] = "cosine"
    label_smoothing: float = Field(default=0.0, ge=0, lt=1)
    labels: Annotated[LabelChoice | None, BeforeValidator(parse_labels)] = None
    augment: Literal["none", "shift", "flip", "shift+flip"] = "none"
    seed: int = Field(default=0, ge=0, lt=2**31)
    seeds: int = Field(default=1, ge=1, le=1000)
    validation_fraction: float = Field(default=0.1, gt=0, lt=1)
    test_fraction: float = Field(default=0.2, gt=0, lt=1)
    precision: Literal["fp32", "bf16", "fp16"] = "fp32"
    device: Literal["auto", "cpu"] = "auto"
    threads: int | None = Field(default=None, ge=1, le=1024)
    tracker: Literal["none", "csv", "tensorboard"] = "none"
    out: Text | None = None

    @model_validator(mode="before")
    @classmethod
    def _one_goal(cls, fields: Any) -> Any:
        if not isinstance(fields, Mapping):
            return fields
        fields = dict(fields)
        for name, value in fields.items():
            if isinstance(value, bool):
                raise InvalidArgumentError(f"recipe field {name!r}: no field is a truth value; got {value}")
        if fields.get("face") == "none":
            for name in ("penalty", "budget", "strength"):
                if fields.get(name) is not None:
                    raise InvalidArgumentError(f"face none trains dense: leave out the {name}, or name another face")
            fields["budget"] = None
        elif fields.get("strength") is not None:
            if fields.get("budget") is not None:
                raise InvalidArgumentError("give a budget or a strength, not both: a budget finds its own strength")
            fields["budget"] = None
        elif "budget" in fields and fields["budget"] is None:
            raise InvalidArgumentError("give a budget (such as 95%) or a strength")
        return fields

    @model_validator(mode="after")
    def _complete(self) -> Recipe:
        if self.model not in MODELS and self.model not in TEXT_MODELS and not is_factory(self.model):
            raise UnknownNameError("model", self.model, [*MODELS, *TEXT_MODELS])
        if self.penalty is None and takes_penalty(self.face):
            self.penalty = PenaltyChoice(name="log-sum")
        if self.labels is not None and self.label_smoothing > 0:
            raise InvalidArgumentError("labels have a criterion of their own: leave out label_smoothing")
        return self

    @classmethod
    def from_mapping(cls, fields: Mapping[str, Any]) -> Recipe:
        """Check plain fields.

        Raises
        ------
        InvalidArgumentError
            With one line on the first field that is not allowed.
        """
        try:
            return cls.model_validate(dict(fields))
        except ValidationError as error:
            raise _one_line(error) from None

    def but(self, **changes: Any) -> Recipe:
        """The same recipe with some fields changed.

        A new goal (budget or strength) replaces the old, and a new face that implies a penalty, the old penalty.
        """
        fields = self.model_dump()
        face = changes.get("face", self.face)
        if face != self.face and face in face_names() and not takes_penalty(face):
            fields["penalty"] = None
        if face == "none":
            fields["budget"] = fields["strength"] = None
        elif self.face == "none" and changes.get("strength") is None:
            fields["budget"] = type(self).model_fields["budget"].default
        if changes.get("strength") is not None and changes.get("budget") is None:
            fields["budget"] = None
        if changes.get("budget") is not None and changes.get("strength") is None:
            fields["strength"] = None
        return self.from_mapping(fields | changes)

    @classmethod
    def read(cls, path: str | Path) -> Recipe:
        """Read a recipe from YAML.

        Raises
        ------
        InvalidArgumentError
            When the file is missing, not YAML, or a field is not allowed.
        """
        try:
            content = read_yaml(expanded(path).read_text(encoding="utf-8"))
        except FileNotFoundError:
            raise InvalidArgumentError(f"no such recipe: {path}") from None
        except (OSError, UnicodeDecodeError) as error:
            reason = "it is not text in UTF-8" if isinstance(error, UnicodeDecodeError) else one_line(error)
            raise InvalidArgumentError(f"cannot read recipe {path}: {reason}") from None
        except yaml.YAMLError as error:
            raise InvalidArgumentError(f"cannot read recipe {path}{yaml_fault(error)}") from None
        if not isinstance(content, dict) or not all(isinstance(key, str) for key in content):
            raise InvalidArgumentError(f"recipe {path} must be a mapping of field names to values")
        return cls.from_mapping(content)

    def to_yaml(self) -> str:
        """The recipe as YAML, without ``out``: where a run went does not decide its numbers."""
        text: str = yaml.safe_dump(self.numbers(), sort_keys=False)
        return text

    def numbers(self) -> dict[str, Any]:
        """Plain fields that decide the numbers of a run."""
        fields = self.model_dump(exclude={"out"})
        # What does not hold is left out, so that what is written reads back; and what is as it always was, so that
        # an older checkpoint still belongs to its recipe.
        for name in ("budget", "strength", "penalty", "labels"):
            if fields[name] is None:
                del fields[name]
        if self.width == 1:
            del fields["width"]
        return fields

    def folder(self) -> Path:
        """``out``, or ``runs/<data>-<model>-<penalty>-<face>-<goal>``."""
        if self.out is not None:
            return expanded(self.out, "output folder")
        model = re.sub(r"[^\w.-]+", "-", self.model)
        parts = [source_name(self.data), model]
        parts += [] if self.labels is None else [f"labels-{self.labels.name}"]
        if self.face == "none":
            parts += ["dense", *([] if self.width == 1 else [f"width-{self.width:g}"])]
        else:
            penalty = [] if self.penalty is None else [self.penalty.name]
            parts += [*penalty, self.face]
            parts.append(f"{self.budget:g}" if self.budget is not None else f"strength-{self.strength:g}")
        return Path("runs") / "-".join(parts)


def stored_recipe(folder: Path) -> Path | None:
    """The recipe that a run left in its folder, None where there is none.

    Raises
    ------
    DamagedFileError
        It is not what the run wrote.
    """
    path = folder / RECIPE
    return check_seal(path, advice=_ADVICE) if path.is_file() else None


def read_recipe(given: Mapping[str, Any], path: str | Path | None = None, resume: bool = False) -> Recipe:
    """A recipe from a file, if any, with some fields given anew.

    Parameters
    ----------
    given : mapping
        Fields that override those of the file.
    path : path-like, optional
        The recipe file. When a run is resumed and none is given, that of its output folder, if it is there.
    resume : bool

    Raises
    ------
    InvalidArgumentError
        Also when the file names a model to import: a file does not get to run code, so the name must be given
        anew.
    """
    if path is None and resume:
        folder = Recipe.from_mapping(given).folder()
        path = stored_recipe(folder)
        given = {**given, "out": str(folder)}
    if path is None:
        return Recipe.from_mapping(given)
    stored = Recipe.read(path)
    if is_factory(stored.model) and "model" not in given:
        raise InvalidArgumentError(
            f"recipe {path} names code to import; if you trust it, say so with --model {stored.model}"
        )
    return stored.but(**given)


_BOUNDS = {"le": "at most", "lt": "below", "ge": "at least", "gt": "above"}


def _one_line(error: ValidationError, what: str = "recipe field") -> InvalidArgumentError:
    first = error.errors(include_url=False)[0]
    field = ".".join(str(part) for part in first["loc"]) or "recipe"
    if first["type"] == "extra_forbidden":
        known = PenaltyChoice.model_fields if field.startswith("penalty.") else Recipe.model_fields
        return UnknownNameError("recipe field", str(first["loc"][-1]), known)
    message, context = first["msg"].removeprefix("Value error, "), first.get("ctx") or {}
    for bound, words in _BOUNDS.items():
        if bound in context:
            message = f"must be {words} {context[bound]:g}"
    cause = context.get("error")
    if isinstance(cause, InvalidArgumentError):
        return cause
    return InvalidArgumentError(
        f"recipe field {field!r}: {message[0].lower()}{message[1:]}; got {brief(first['input'])}"
    )
