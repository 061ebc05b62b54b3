"""Which channels can go: the largest set that no output depends on, and why the others stay."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import torch

from ._flow import Knowledge, Read

__all__ = ["Verdict", "judge"]


class Verdict:
    """Which classes of channels stay, and why.

    Attributes
    ----------
    alive : torch.Tensor
        Whether the class of a label stays, bool, one entry per label.
    reasons : dict of int to str
        Why a class that looked removable stays.
    """

    def __init__(self, know: Knowledge, root: torch.Tensor) -> None:
        self.know, self.root = know, root
        self._class = torch.zeros(len(root), dtype=torch.bool)
        self.reasons: dict[int, str] = dict(know.channels.pins)
        self._class[list(self.reasons)] = True

    def give_up(self, roots: torch.Tensor) -> None:
        """Let these classes go, and nothing else."""
        self._class.fill_(True)
        self._class[roots] = False

    def keep_all_but(self, roots: Iterable[int], why: Mapping[int, str]) -> None:
        """Keep every class that is not among ``roots``; ``why`` has reasons for some of them."""
        may_go = torch.zeros_like(self._class)
        may_go[list(roots)] = True
        self._class |= ~may_go
        for root, reason in why.items():
            self.reasons.setdefault(root, reason)

    def gone(self) -> list[int]:
        """The classes that go."""
        roots = self.root.unique()  # type: ignore[no-untyped-call]
        return roots[~self._class[roots]].tolist()  # type: ignore[no-any-return]

    def keeps(self, labels: torch.Tensor) -> torch.Tensor:
        """Whether each of these labels stays; bool, the shape of ``labels``."""
        return self._class[self.root[labels]]

    def revive(self, labels: torch.Tensor, reason: str) -> bool:
        """Keep the classes of these labels; whether that changed anything."""
        roots = self.root[labels].unique()  # type: ignore[no-untyped-call]
        fresh = roots[~self._class[roots]]
        self._class[fresh] = True
        self.reasons |= dict.fromkeys(fresh.tolist(), reason)
        return bool(len(fresh))


def fold(read: Read, verdict: Verdict) -> torch.Tensor:
    """What removed constant columns add to every row, float64, (rows,)."""
    gone = ~verdict.keeps(read.columns) & ~read.constant.isnan()
    gone &= read.constant != 0
    return read.weight[:, gone].double() @ read.constant[gone]


def judge(
    know: Knowledge,
    rounding: int | None = None,
    *,
    only: Iterable[int] | None = None,
    why: Mapping[int, str] | None = None,
) -> Verdict:
    """The greatest fixed point: all channels go but those that something kept still needs.

    With ``only``, no other classes than these go; ``why`` has the reasons for those that are left out.
    """
    verdict = Verdict(know, torch.from_numpy(know.channels.every_root()))
    if only is not None:
        verdict.keep_all_but(only, why or {})
    boxes = [_small(verdict.root[one]) for move in know.moves for one in (*move.before, *move.after)]
    boxes = [one for one in boxes if one.numel() > 1]
    # What is needed spreads first: the other rules would keep channels that are not yet known to be needed.
    steps = (_needed, _whole_boxes, _even_counts, _same_fold, _not_empty)
    while True:
        if any(step(know, verdict) for step in steps[:2]) or _boxes(boxes, verdict):
            continue
        if any(step(know, verdict) for step in steps[2:]):
            continue
        if not (rounding and _rounded(know, verdict, rounding)):
            return verdict


def _needed(know: Knowledge, verdict: Verdict) -> bool:
    changed = False
    for read in know.reads:
        rows, gone = verdict.keeps(read.rows), ~verdict.keeps(read.columns)
        if not bool(gone.any()):
            continue
        # Only columns that would go are looked at: of a large matrix these are soon few.
        used = torch.zeros_like(gone)
        used[gone] = read.nonzero[:, gone][rows & ~read.settled].any(0)
        variable = read.constant.isnan()
        for trouble, reason in (
            (gone & used & variable, f"{read.owner} reads it"),
            (
                gone & used & (read.constant.nan_to_num(0.0) != 0) & bool(read.why),
                f"constant, but {read.owner}: {read.why}",
            ),
        ):
            if bool(trouble.any()):
                changed |= verdict.revive(read.columns[trouble], reason)
    return changed


def _small(root: torch.Tensor) -> torch.Tensor:
    """The same classes without the axes along which they do not differ."""
    for axis in range(root.ndim):
        first = root.narrow(axis, 0, 1) if root.shape[axis] else root
        if root.shape[axis] > 1 and bool((root == first).all()):
            root = first
    return root


def missing_from_box(kept: torch.Tensor) -> torch.Tensor:
    """Places that the smallest rectangle around the kept ones has besides."""
    box = torch.ones_like(kept)
    for axis in range(kept.ndim):
        others = [a for a in range(kept.ndim) if a != axis]
        box &= kept.any(dim=others, keepdim=True) if others else kept
    return box & ~kept


def _boxes(boxes: Iterable[torch.Tensor], verdict: Verdict) -> bool:
    """What stays of a tensor must be a rectangle, or its reshape would not exist."""
    changed = False
    for root in boxes:
        kept = verdict.keeps(root)
        if bool(kept.all()):
            continue
        trouble = missing_from_box(kept)
        if bool(trouble.any()):
            changed |= verdict.revive(root[trouble], "a reshape needs the rest of its head or group")
    return changed


def _whole_boxes(know: Knowledge, verdict: Verdict) -> bool:
    changed = False
    for labels, axes, reason in know.boxes:
        kept = verdict.keeps(labels)
        trouble = kept.any(dim=axes, keepdim=True) & ~kept
        if bool(trouble.any()):
            changed |= verdict.revive(labels[trouble], reason)
    return changed


def _even_counts(know: Knowledge, verdict: Verdict) -> bool:
    changed = False
    for even in know.evens:
        sets = [one.unique() for one in even.sets]  # type: ignore[no-untyped-call]
        counts = [int(verdict.keeps(one).sum()) for one in sets]
        for one, count in zip(sets, counts, strict=True):
            dead = one[~verdict.keeps(one)]
            if count < max(counts) and len(dead):
                changed |= verdict.revive(dead[: max(counts) - count], even.reason)
    return changed


def _not_empty(know: Knowledge, verdict: Verdict) -> bool:
    changed = False
    for held in know.axes.values():
        for labels in held.values():
            if len(labels) and not bool(verdict.keeps(labels).any()):
                changed |= verdict.revive(labels[:1], "a layer keeps at least one channel")
    return changed


def _same_fold(know: Knowledge, verdict: Verdict) -> bool:
    """A layer that is called twice has one bias, which must suit both calls."""
    changed = False
    first: dict[str, Read] = {}
    for read in know.reads:
        if read.bias is None:
            continue
        kept = first.setdefault(read.bias, read)
        if kept is read:
            continue
        rows = verdict.keeps(read.rows)
        if not torch.allclose(fold(kept, verdict)[rows], fold(read, verdict)[rows], rtol=0, atol=0):
            for one in (kept, read):
                uneven = ~verdict.keeps(one.columns) & (one.constant.nan_to_num(0.0) != 0)
                changed |= verdict.revive(one.columns[uneven], f"{one.owner} is called twice with different constants")
    return changed


def _rounded(know: Knowledge, verdict: Verdict, rounding: int) -> bool:
    for held in know.axes.values():
        for labels in held.values():
            kept = verdict.keeps(labels)
            count = int(kept.sum())
            if count < len(labels) and count % rounding:
                return verdict.revive(labels[~kept][:1], f"channel counts are rounded to multiples of {rounding}")
    return False
