"""Taking up a saved state: all of it is checked before anything is changed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch

from ..errors import InvalidArgumentError
from ._curvature import Curvature
from ._member import Member
from ._pool import Pool

__all__ = ["VERSION", "check_state", "restored"]

VERSION = 3


def check_state(
    state: dict[str, Any],
    members: Sequence[Member],
    own_pools: Sequence[Pool],
    face_name: str,
    mine: Mapping[str, torch.Tensor],
    own_options: Mapping[str, Any],
) -> set[str]:
    """Names of the learned parameters that the state must give.

    Raises
    ------
    InvalidArgumentError
        If the state belongs to another model, face, or set of rules or options.
    """
    try:
        version, face, pools = state["version"], state["face"], state["pools"]
        memory, support, learned = state["memory"], state["support"], state["learned"]
        options, _, _ = state["options"], state["curvature"], state["curve"]
    except (KeyError, TypeError) as error:
        raise InvalidArgumentError("this is not the state of a Sparsifier") from error
    if version != VERSION:
        raise InvalidArgumentError(f"the state has version {version}; this Obverse reads {VERSION}")
    if face != face_name:
        raise InvalidArgumentError(f"the state is of face {face!r}, this Sparsifier is of {face_name!r}")
    by_name = {member.name: member for member in members}
    if len(pools) != len(own_pools) or not set(memory) | set(support) <= set(by_name):
        raise InvalidArgumentError("the state is of a Sparsifier with other rules or another model")
    for name, tensor in [*memory.items(), *support.items()]:
        member = by_name[name]
        held = member.memory if tensor is memory.get(name) else member.support
        # What is frozen is known of the groups held here only.
        expected = member.group_shape_of(is_held=tensor is not memory.get(name)) if held is None else held.shape
        if tensor.shape != expected:
            raise InvalidArgumentError(
                f"the state of {name!r} has shape {tuple(tensor.shape)}, expected {tuple(expected)}"
            )
    for pool, saved in zip(own_pools, pools, strict=True):
        for field, value in pool.identity().items():
            if saved["identity"][field] != value:
                raise InvalidArgumentError(
                    f"the state was saved with {field} {saved['identity'][field]!r}, this Sparsifier has {value!r}"
                )
    thawed = {f"{name}:" for name in set(by_name) - set(support)}
    expected_names = {name for name in mine if name.rpartition(":")[0] + ":" in thawed}
    if state["finished"]:
        expected_names = set()
    if set(learned) != expected_names or any(learned[n].shape != mine[n].shape for n in expected_names):
        raise InvalidArgumentError("the learned parameters of the state are of other options or another model")
    for field, value in own_options.items():
        if options.get(field) != value:
            raise InvalidArgumentError(
                f"the state was saved with {field} {options.get(field)!r}, this Sparsifier has {value!r}"
            )
    return expected_names


def restored(curvature: Curvature, pools: Sequence[Pool], state: dict[str, Any]) -> None:
    """Load curvature and pools, or leave them as they were.

    Raises
    ------
    InvalidArgumentError
        If a part is missing or broken.
    """
    before = [pool.state_dict() for pool in pools]
    try:
        curvature.load_state_dict(state["curvature"])
        for pool, saved in zip(pools, state["pools"], strict=True):
            pool.load_state_dict(saved)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        for pool, saved in zip(pools, before, strict=True):
            pool.load_state_dict(saved)
        raise InvalidArgumentError(f"the state is incomplete or broken: {error!r}") from error
