"""Which spanning groups a target keeps: what is left of a tensor is the product of what is left of its axes."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from ._selection import Bounds
from ._span import Span

__all__ = ["Plan"]

_Counts = npt.NDArray[np.int64]


class Plan:
    """Counts the parameters of some families of groups, each parameter once, however many groups share it.

    A target is a share of the *removable* parameters: those in any group of the families.

    Parameters
    ----------
    members : sequence of Span
    """

    def __init__(self, members: Sequence[Span]) -> None:
        self.sizes = [member.groups.count for member in members]
        # Tensor -> axis -> how many indices a group of each family has there; and the size of every axis.
        shares: dict[str, dict[int, dict[int, int]]] = {}
        self._shapes: dict[str, tuple[int, ...]] = {}
        for family, member in enumerate(members):
            for part in member.parts:
                self._shapes[part.name] = tuple(part.parameter.shape)
                for axis, index in part.axes.items():
                    reached = int((index < member.groups.count).sum())
                    shares.setdefault(part.name, {}).setdefault(axis, {})[family] = reached // member.groups.count
        self._shares = shares
        self._fixed = 0
        self._fixed = int(self._left(np.zeros((1, len(members)), np.int64))[0])
        self.total = int(self.left(np.array([self.sizes]))[0])

    def left(self, counts: _Counts) -> _Counts:
        """Removable parameters that are left where families keep so many groups; (..., families) to (...)."""
        return self._left(counts) - self._fixed

    def kept(self, masks: Sequence[torch.Tensor]) -> int:
        """Removable parameters that are left with these groups."""
        return int(self.left(_counted(masks)[None])[0])

    def shares(self, masks: Sequence[torch.Tensor]) -> list[int]:
        """The same by family: a parameter that two families share belongs to the one along its first axis.

        That is the unit it leads to. The sum over the families is `kept`.
        """
        counts = _counted(masks)
        owned = [0] * len(self.sizes)
        for name in self._shares:
            sides = [self._along(name, axis, counts) for axis in range(len(self._shapes[name]))]
            outside = 1  # of the entries that no group has along the axes before
            for axis in range(len(sides)):
                after = math.prod(fixed + sum(taken.values()) for fixed, taken in sides[axis + 1 :])
                for family, taken in sides[axis][1].items():
                    owned[family] += outside * taken * after
                outside *= sides[axis][0]
        return [int(count) for count in owned]

    def filled(
        self,
        scores: Sequence[torch.Tensor],
        masks: Sequence[torch.Tensor],
        bounds: Sequence[Bounds],
        fits: Callable[[Sequence[torch.Tensor]], bool],
    ) -> list[torch.Tensor]:
        """Masks that keep fallen groups as well, those of the largest scores first, as long as the result fits.

        Parameters
        ----------
        scores, masks : sequence of tensors of shape (groups,)
        bounds : sequence of Bounds
            The ceilings are respected.
        fits : callable
            Whether a model with these groups meets all limits.
        """
        filled = [mask.clone() for mask in masks]
        room = [bound.of(len(mask))[1] - int(mask.sum()) for bound, mask in zip(bounds, masks, strict=True)]
        waiting = [
            sorted((~mask).nonzero()[:, 0].tolist(), key=score.__getitem__)
            for score, mask in zip((score.tolist() for score in scores), masks, strict=True)
        ]
        while True:
            open_ = [f for f, groups in enumerate(waiting) if groups and room[f] > 0]
            if not open_:
                return filled
            family = max(open_, key=lambda f: float(scores[f][waiting[f][-1]]))
            group = waiting[family].pop()
            filled[family][group] = True
            room[family] -= 1
            if not fits(filled):
                filled[family][group] = False
                room[family] = 0  # nor would another one: all groups of a family are of one size

    def select(
        self, scores: Sequence[torch.Tensor], sparsity: float, bounds: Sequence[Bounds], *, is_exact: bool = False
    ) -> list[torch.Tensor]:
        """Masks that keep the groups of the largest scores, floors and ceilings first, as near to the target as can be.

        Parameters
        ----------
        scores : sequence of tensors of shape (groups,)
            One for each family.
        sparsity : float
            Share of the removable parameters that falls.
        bounds : sequence of Bounds
            What each family keeps at least and at most.
        is_exact : bool, default False
            Let smaller groups fall out of their order where one more of the next would miss the target by more.
        """
        places, family, forced, values = [], [], [], []
        for number, (score, bound) in enumerate(zip(scores, bounds, strict=True)):
            held = score.detach().double().cpu().numpy()
            least, most = bound.of(len(held))
            least = max(1, least)  # no layer without a channel
            most = max(least, most)
            ascending = np.argsort(held, kind="stable")[: len(held) - least]
            places.append(ascending)
            family.append(np.full(len(ascending), number))
            forced.append(np.arange(len(ascending)) < len(held) - most)
            values.append(held[ascending])
        place, owner, must = np.concatenate(places), np.concatenate(family), np.concatenate(forced)
        order = np.lexsort((np.concatenate(values), ~must))
        falls = np.zeros((len(order) + 1, len(self.sizes)), np.int64)
        falls[np.arange(1, len(order) + 1), owner[order]] = 1
        left = self.left(np.array(self.sizes) - falls.cumsum(0))
        first = int(must.sum()) if sparsity > 0 else 0
        goal = (1 - sparsity) * self.total
        count = first + int(np.abs(left[first:] - goal).argmin())
        chosen = self._closer(order, owner, count, first, goal) if is_exact else list(order[:count])
        masks = [torch.ones(len(score), dtype=torch.bool) for score in scores]
        fallen = np.array(chosen, dtype=np.int64)
        for number, mask in enumerate(masks):
            mask[torch.from_numpy(place[fallen[owner[fallen] == number]])] = False
        return [mask.to(score.device) for mask, score in zip(masks, scores, strict=True)]

    def boundaries(self, scores: Sequence[torch.Tensor], sparsity: float, bounds: Sequence[Bounds]) -> list[float]:
        """The score at and below which groups fall: one for all families, and another where a bound asks for it."""
        masks = self.select(scores, sparsity, bounds)
        fallen = [score[~mask] for score, mask in zip(scores, masks, strict=True)]
        own = [float(one.max()) if one.numel() else 0.0 for one in fallen]
        kept = [float(score[mask].min()) for score, mask in zip(scores, masks, strict=True)]
        free = [one for one, low in zip(own, kept, strict=True) if one > 0]
        # A family that keeps what is below the largest that fell elsewhere has a boundary of its own.
        common = max(free, default=0.0)
        return [one if low <= common else common for one, low in zip(own, kept, strict=True)]

    def _closer(
        self, order: npt.NDArray[np.int64], owner: npt.NDArray[np.int64], count: int, first: int, goal: float
    ) -> list[int]:
        """What falls: the order up to the target, without overshooting, then what brings it nearer, smallest first."""
        counts = np.array(self.sizes)
        np.subtract.at(counts, owner[order[:count]], 1)
        if count > first and self.left(counts[None])[0] < goal:
            count -= 1
            counts[owner[order[count]]] += 1
        chosen = list(order[:count])
        miss = abs(float(self.left(counts[None])[0]) - goal)
        waiting = list(order[count:])
        while True:
            tried: set[int] = set()
            for place, at in enumerate(waiting):
                family = int(owner[at])
                if family in tried:
                    continue
                tried.add(family)
                counts[family] -= 1
                now = abs(float(self.left(counts[None])[0]) - goal)
                if now < miss:
                    miss = now
                    chosen.append(waiting.pop(place))
                    break
                counts[family] += 1
                if len(tried) == len(self.sizes):
                    return chosen
            else:
                return chosen

    def _left(self, counts: _Counts) -> _Counts:
        total = np.zeros(counts.shape[:-1], np.int64)
        for name in self._shares:
            product = np.ones(counts.shape[:-1], np.int64)
            for axis in range(len(self._shapes[name])):
                fixed, taken = self._along(name, axis, counts)
                product = product * (fixed + sum(taken.values(), 0))
            total += product
        return total

    def _along(self, name: str, axis: int, counts: _Counts) -> tuple[int, dict[int, Any]]:
        """Indices of an axis that no family has, and for each family those of so many of its groups; (...)."""
        share = self._shares[name].get(axis, {})
        fixed = self._shapes[name][axis] - sum(each * self.sizes[family] for family, each in share.items())
        return fixed, {family: each * counts[..., family] for family, each in share.items()}


def _counted(masks: Sequence[torch.Tensor]) -> _Counts:
    """Groups that masks keep; (families,)."""
    counts: _Counts = np.array([int(mask.sum()) for mask in masks], np.int64)
    return counts
