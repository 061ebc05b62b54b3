"""Summarizes what dropout keeps of every singular value of a deep linear network, rate by rate, in plain numbers."""

from __future__ import annotations

import math
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..._core.checks import count
from ...errors import InvalidArgumentError
from .._finite import finite_numbers
from ._objective import root_and_inverse, second_moments
from ._phases import phases, rank_one_keep_probability
from ._spectrum import best_spectrum, relaxed_spectrum
from ._strengths import check_widths, layer_strengths

__all__ = ["singular_values_of_file", "spectrum_summary", "swept_spectrum"]

_DEFAULT_KEEP = (0.95, 0.9, 0.8, 0.7, 0.5, 0.3)


def singular_values_of_file(path: str | Path) -> list[float]:
    """Singular values of ``C_yx C^{-1/2}`` of the centered arrays ``X`` and ``y`` in an ``.npz`` file.

    Whole numbers in one column ``y`` of no more than 1000 classes are class labels and count as one-hot rows.

    Parameters
    ----------
    path : str or Path

    Returns
    -------
    list of float
        Decreasing, those above rounding.

    Raises
    ------
    InvalidArgumentError
        The file cannot be read, lacks an array, or holds no finite numbers; or nothing is explained.
    """
    try:
        with np.load(path, allow_pickle=False) as stored:
            if "X" not in stored or "y" not in stored:
                raise InvalidArgumentError(f"{path} needs the arrays X and y, it has {', '.join(stored) or 'none'}")
            inputs, targets = stored["X"], stored["y"]
    except FileNotFoundError:
        raise InvalidArgumentError(f"no such file: {path}") from None
    except (ValueError, OSError, EOFError, AttributeError, TypeError, zipfile.BadZipFile) as error:
        if isinstance(error, InvalidArgumentError):
            raise
        raise InvalidArgumentError(f"cannot read {path} as a .npz file with arrays X and y: {error}") from None
    for name, array in (("X", inputs), ("y", targets)):
        if array.dtype.kind not in "fiub" or array.ndim == 0 or not np.isfinite(array).all():
            raise InvalidArgumentError(f"{path}: {name} must be an array of finite numbers, got {array.dtype}")
    inputs = inputs.reshape(len(inputs), -1)
    targets = targets.reshape(-1) if targets.ndim == 2 and targets.shape[1] == 1 else targets
    if targets.dtype.kind in "iu" and targets.ndim == 1:
        classes, labels = np.unique(targets, return_inverse=True)
        if 2 < len(classes) <= 1000:
            targets = np.eye(len(classes))[labels]
    covariance, cross, _ = second_moments(inputs.astype(np.float64), targets.astype(np.float64), center=True)
    values = np.linalg.svd(cross @ root_and_inverse(covariance)[1], compute_uv=False)
    kept = values[values > 1e-10 * values.max(initial=0.0)]
    if not len(kept):
        raise InvalidArgumentError(f"{path}: no linear map of X explains anything of y")
    return [float(value) for value in kept]


def spectrum_summary(
    singular_values: Sequence[float],
    depth: int,
    width: int,
    block_size: int = 1,
    keep: Sequence[float] | None = None,
) -> dict[str, Any]:
    """Predicted singular values at some keep probabilities, beside the convex relaxation, and where the rank falls.

    Parameters
    ----------
    singular_values : sequence of float
        Of ``C_yx C^{-1/2}``, what least squares gives.
    depth, width, block_size : int
        Dropped hidden layers, their units, and units that are dropped together.
    keep : sequence of float, optional
        Keep probabilities to show.

    Returns
    -------
    dict
        Plain numbers and lists, ready for JSON.

    Raises
    ------
    InvalidArgumentError
        As in `phases`.
    """
    wanted = np.sort(finite_numbers("singular_values", singular_values, squared=True).reshape(-1))[::-1].copy()
    shown = finite_numbers("keep", _DEFAULT_KEEP if keep is None else keep).reshape(-1).tolist()
    steps = phases(wanted, depth, width, block_size)
    widths = check_widths(width, depth)
    rows = []
    for rate in sorted(set(shown), reverse=True):
        layers = layer_strengths(rate, widths, block_size)
        best, relaxed = best_spectrum(wanted, layers), relaxed_spectrum(wanted, layers)
        rows.append(
            {
                "keep_probability": rate,
                "singular_values": best.kept.tolist(),
                "rank": best.rank,
                "loss": best.cost,
                "relaxed_singular_values": relaxed.kept.tolist(),
                "relaxed_rank": relaxed.rank,
                "relaxed_loss": relaxed.cost,
            }
        )
    return {
        "singular_values": wanted.tolist(),
        "depth": depth,
        "width": width,
        "block_size": block_size,
        "rates": rows,
        "phases": [
            {
                "rank_above": step.rank_above,
                "rank_below": step.rank_below,
                "keep_probability": step.keep_probability,
                "relaxed_keep_probability": _known(step.relaxed_keep_probability),
                "singular_values_above": step.singular_values_above.tolist(),
                "singular_values_below": step.singular_values_below.tolist(),
                "continuous": step.continuous,
            }
            for step in steps
        ],
        "proven_rank_one_below": rank_one_keep_probability(wanted, depth, width) if block_size == 1 else None,
    }


def swept_spectrum(
    summary: dict[str, Any], points: int = 240
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Keep probabilities (t,) and the singular values (t, n) there, of the optimum and of the convex relaxation.

    Every step of the rank is met from both sides, with a row of NaN between where singular values jump.

    Parameters
    ----------
    summary : dict
        Of `spectrum_summary`.
    points : int
        Number of keep probabilities between 0.01 and 1, at least 2, before the steps are added.
    """
    count("points", points, 2)
    wanted = np.asarray(summary["singular_values"])
    widths = [summary["width"]] * summary["depth"]
    rows: list[tuple[float, Any, Any]] = []
    for rate in np.linspace(1.0, 0.01, points):
        layers = layer_strengths(float(rate), widths, summary["block_size"])
        rows.append((float(rate), best_spectrum(wanted, layers).kept, relaxed_spectrum(wanted, layers).kept))
    for step in summary["phases"]:
        rate = step["keep_probability"]
        relaxed = relaxed_spectrum(wanted, layer_strengths(rate, widths, summary["block_size"])).kept
        gap = [] if step["continuous"] else [(rate, np.full(len(wanted), np.nan), relaxed)]
        around = [(rate, np.asarray(step["singular_values_above"]), relaxed), *gap]
        rows += [*around, (rate, np.asarray(step["singular_values_below"]), relaxed)]
    rows.sort(key=lambda row: -row[0])  # stable: the two sides of a step stay in order
    return tuple(np.array(column) for column in zip(*rows, strict=True))  # type: ignore[return-value]


def _known(value: float) -> float | None:
    return value if math.isfinite(value) else None
