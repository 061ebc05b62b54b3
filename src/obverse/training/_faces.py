"""The faces a recipe may name: those of the Sparsifier, and none."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ..penalties import Penalty

__all__ = ["face_names", "own_penalty", "takes_penalty"]


def face_names() -> list[str]:
    """Every face, with ``none`` for dense training."""
    from ..sparsify import FACES

    return ["none", *FACES]


def takes_penalty(face: str) -> bool:
    """Whether a face runs whatever penalty it is given; the others imply one of their own, or need none."""
    return face != "none" and own_penalty(face) is None


def own_penalty(face: str) -> Penalty | None:
    """The penalty that a face implies."""
    from ..sparsify import FACES

    return None if face == "none" else FACES[face]().own_penalty
