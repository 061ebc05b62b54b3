"""The faces: every way to run a regularizer, by name."""

from __future__ import annotations

from ...errors import InvalidArgumentError, UnknownNameError
from ._base import Face, Handover
from ._concrete import ConcreteNoise
from ._dropout import Dropout, Standout
from ._hard_concrete import HardConcreteGates
from ._learned_eta import LearnedEta
from ._proximal import Proximal
from ._reweighted import Reweighted
from ._selecting import MagnitudePruning, RandomPruning, TargetedNoise
from ._variational import VariationalNoise

__all__ = [
    "FACES",
    "ConcreteNoise",
    "Dropout",
    "Face",
    "Handover",
    "HardConcreteGates",
    "LearnedEta",
    "MagnitudePruning",
    "Proximal",
    "RandomPruning",
    "Reweighted",
    "Standout",
    "TargetedNoise",
    "VariationalNoise",
    "face_named",
]

FACES: dict[str, type[Face]] = {
    face.name: face
    for face in (
        *(Proximal, Reweighted, Dropout),
        *(VariationalNoise, HardConcreteGates, ConcreteNoise, LearnedEta),
        *(Standout, TargetedNoise, MagnitudePruning, RandomPruning),
    )
}


def face_named(face: str | Face) -> Face:
    """A face from its name, or the face itself.

    Raises
    ------
    UnknownNameError, InvalidArgumentError
    """
    if isinstance(face, Face):
        return face
    if not isinstance(face, str):
        raise InvalidArgumentError(f"face must be a name or a Face, got {face!r}")
    if face not in FACES:
        raise UnknownNameError("face", face, FACES)
    return FACES[face]()
