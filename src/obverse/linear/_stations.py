"""The way down to the first alpha that is asked for, by stations whose solutions need only be near."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from ._fold_path import FoldPath

__all__ = ["lead"]

# Columns that may enter at one station: so many, or this multiple of the nonzero coefficients.
_ROOM, _GROWTH = 120, 1.0
# No two stations are further apart, however few columns enter.
_LEAP = 0.45
# Where between two stations it is judged which columns enter; the rest is seen at the one after.
_SHARE = 0.5
# Share of an alpha that is solved alone, once there, at which it is judged which columns enter.
_NEARLY = 0.97
# Violation of a station, relative to the largest gradient and to how far down it is.
_ROUGH = 0.05


def lead(path: FoldPath, stations: npt.NDArray[np.float64], target: float) -> None:
    """Bring a path near ``target`` by some of the descending ``stations``.

    Each costs one product with all columns, and keeps out of the working set columns that would not stay in: of those
    that the gradient lets in at the following station, most of the ones near its threshold remain zero, because the
    others explain what they would.
    """
    path.nearly = _NEARLY
    alphas = np.append(stations, target)
    above, b = float(alphas[0]), 0
    while b < alphas.size:
        room = max(_ROOM, _GROWTH * int(np.count_nonzero(path.u)))
        while (
            b + 1 < alphas.size
            and alphas[b + 1] >= _LEAP * above
            and path.entering(_between(above, alphas[b + 1])) <= room
        ):
            b += 1
        here = float(alphas[b])
        path.approach(here, _between(above, here), _ROUGH * here / float(alphas[0]))
        above, b = here, b + 1


def _between(above: float, below: float) -> float:
    return float(above ** (1 - _SHARE) * below**_SHARE)
