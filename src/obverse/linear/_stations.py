"""The way down to the first alpha that is asked for, by stations whose solutions need only be near."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from ._fold_path import FoldPath, Stretch

__all__ = ["lead"]

# Columns that may enter at one station: so many, or this multiple of the nonzero coefficients.
_ROOM, _GROWTH = 40, 1.0
# Further apart than this are no two stations, however few columns enter.
_LEAP = 0.45
# Violation of a station, relative to the largest gradient and to how far down it is.
_ROUGH = 0.02


def lead(path: FoldPath, stations: Stretch, target: Stretch) -> None:
    """Bring a path near the first strength of ``target``.

    Each station costs one product with all columns. Every further one on the way keeps out of the working set columns
    that the gradient at the one before would let in, so that none is taken before as many may enter as there are
    already.
    """
    count, b = stations.strengths.size, -1
    above = stations.alphas[0]
    while b + 1 < count:
        room = max(_ROOM, _GROWTH * int(np.count_nonzero(path.u)))
        ahead = b + 1
        while ahead < count:
            following = stations.part(ahead + 1) if ahead + 1 < count else target
            if following.alphas[0] < _LEAP * above or path.entering(following) > room:
                break
            ahead += 1
        if ahead == count:
            return
        here = stations.part(ahead, ahead + 1)
        path.approach(here, _ROUGH * float(here.alphas[0] / stations.alphas[0]))
        above, b = here.alphas[0], ahead
