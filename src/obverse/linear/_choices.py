"""What a fit to a table is asked for."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from ..errors import InvalidArgumentError
from ._encoding import MISSING, Missing

__all__ = ["Choices", "Task"]

Task = Literal["regression", "classification"]


@dataclass(frozen=True)
class Choices:
    """What a fit is asked for.

    Attributes
    ----------
    data : str
        A csv or parquet file.
    target : str
    penalty : str
        A name, ``name:parameter=number``, or several with commas, from which cross-validation chooses.
    task : {"regression", "classification"}, optional
        By default what the target looks like.
    loss : str, optional
        ``squared``, ``huber`` or ``poisson``; a classifier's follows from the number of classes.
    shapes : str, optional
        ``auto`` to choose the parameter of each penalty too, ``given`` to keep it; by default ``auto`` for penalties
        that are given without parameters.
    criterion : {"cv", "bic", "ebic", "stability"}
    rule : {"min", "1se"}
    features : int, optional
        At most so many features.
    folds : int
    test_fraction : float
        Of the rows, held out from everything; 0 for none.
    seed : int
    weights : str, optional
        Column of sample weights.
    drop, categorical : tuple of str
        Columns to leave out; columns whose values are categories whatever they look like.
    missing : {"error", "drop", "median"}
    standardize : bool
    """

    data: str
    target: str
    penalty: str = "log-sum"
    task: Task | None = None
    loss: str | None = None
    shapes: str | None = None
    criterion: str = "cv"
    rule: str = "min"
    features: int | None = None
    folds: int = 5
    test_fraction: float = 0.2
    seed: int = 0
    weights: str | None = None
    drop: tuple[str, ...] = field(default=())
    categorical: tuple[str, ...] = field(default=())
    missing: Missing = "error"
    standardize: bool = True

    def __post_init__(self) -> None:
        allowed = {
            "task": (None, "regression", "classification"),
            "loss": (None, "squared", "huber", "poisson", "logistic", "multinomial"),
            "shapes": (None, "auto", "given"),
            "criterion": ("cv", "bic", "ebic", "stability"),
            "rule": ("min", "1se"),
            "missing": MISSING,
        }
        for name, values in allowed.items():
            if getattr(self, name) not in values:
                known = ", ".join(value for value in values if value is not None)
                raise InvalidArgumentError(f"{name} must be one of {known}; got {getattr(self, name)!r}")
        if self.folds < 2:
            raise InvalidArgumentError(f"folds must be at least 2, got {self.folds}")
        if not 0 <= self.test_fraction < 1:
            raise InvalidArgumentError(f"test fraction must be at least 0 and below 1, got {self.test_fraction}")
        if self.features is not None and self.features < 1:
            raise InvalidArgumentError(f"features must be at least 1, got {self.features}")
        if not 0 <= self.seed < 2**32:
            raise InvalidArgumentError(f"seed must be at least 0 and below 2**32, got {self.seed}")
