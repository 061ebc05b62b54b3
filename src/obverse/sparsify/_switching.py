"""Leaving one face for another: gates folded in, the noise handed over, the penalty that goes on."""

from __future__ import annotations

from collections.abc import Sequence

from ..penalties import LogSum, Penalty
from ._forward import Forward
from ._member import Member
from ._pool import Pool
from .faces import Face, Handover

__all__ = ["leave"]


def leave(face: Face, pools: Sequence[Pool], forward: Forward, chosen: Penalty | None) -> dict[str, Handover]:
    """Detach a face from all tensors that are not frozen.

    Parameters
    ----------
    face : Face
        The one in force.
    pools : sequence of Pool
    forward : Forward
    chosen : Penalty or None
        The penalty from now on; by default the one that has the face's objective, at its strength.

    Returns
    -------
    dict of str to Handover
        What the face leaves for each tensor.
    """
    handed: dict[str, Handover] = {}
    forward.detach()
    for pool in pools:
        strength = pool.strength
        for member in [] if pool.is_frozen else pool.members:
            left = _handover(face, member, pool)
            if left is not None:
                handed[member.name] = left
            factor = face.fold(member)
            if factor is not None:
                member.multiply(factor)
            penalty = chosen
            if pool.budget is None and pool.strength > 0:
                dual, strength = face.dual(member.given, pool.strength)
                penalty = penalty or dual
            elif face.own_penalty is not None:
                penalty = penalty or LogSum()
            face.detach(member)
            if penalty is not None:
                member.replace_penalty(penalty)
        pool.strength = strength
    return handed


def _handover(face: Face, member: Member, pool: Pool) -> Handover | None:
    variance = face.variance(member, pool.strength)
    if variance is None:
        return None
    # At a budget eta lives in the unit of the boundary, where the strength is a constant of the penalty.
    strength = member.boundary_strength if pool.budget is not None else pool.strength
    if pool.budget is None and strength > 0:
        strength = face.dual(member.penalty, strength)[1]
    return Handover(member.whole(variance), strength)
