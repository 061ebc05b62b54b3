"""Batches by indexing tensors; all follows from the seed, the epoch and the step, so nothing needs saving."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from ..errors import InvalidArgumentError

__all__ = ["Batches", "augment_images"]


class Batches:
    """The batches of every epoch, shared among processes.

    All rows are used once per epoch, in batches whose sizes differ by at most one, so that no small last
    batch weighs more than the others. Process ``rank`` takes every ``world``-th row of each batch: together
    they see exactly what one process sees.

    Parameters
    ----------
    rows : int
        Rows of the training split.
    batch_size : int
        Largest size of a batch over all processes.
    seed : int
    rank, world : int
        This process and their number.
    labels : Tensor of int64, shape (rows,), optional
        With labels, rows come in twos of a class, so that nearly every row has another one of its class in its
        process's part of the batch.
    """

    def __init__(
        self, rows: int, batch_size: int, seed: int, rank: int = 0, world: int = 1, labels: Tensor | None = None
    ) -> None:
        self.labels = labels
        self.rows, self.seed, self.rank, self.world = rows, seed, rank, world
        self.per_epoch = math.ceil(rows / batch_size)
        if rows // self.per_epoch < world:
            raise InvalidArgumentError(
                f"batches of {rows // self.per_epoch} rows cannot be shared by {world} processes; "
                "raise the batch size or use fewer processes"
            )

    def epoch(self, epoch: int) -> list[Tensor]:
        """Global batches of row numbers for this epoch; `share` takes this process's part."""
        generator = torch.Generator().manual_seed(_mix(self.seed, epoch))
        order = torch.randperm(self.rows, generator=generator)
        if self.labels is not None:
            order = self._in_twos(order, generator)
        return list(order.tensor_split(self.per_epoch))

    def _in_twos(self, order: Tensor, generator: torch.Generator) -> Tensor:
        """The rows in a random order of pairs of a class; the two of a pair lie one process's stride apart."""
        assert self.labels is not None
        sorted_rows = order[self.labels[order].sort(stable=True).indices]
        pairs = sorted_rows[: self.rows // 2 * 2].view(-1, 2)
        pairs = pairs[torch.randperm(len(pairs), generator=generator)]
        full = len(pairs) // self.world * self.world
        strided = pairs[:full].view(-1, self.world, 2).transpose(1, 2).flatten()
        return torch.cat([strided, pairs[full:].flatten(), sorted_rows[len(pairs) * 2 :]])

    def share(self, batch: Tensor) -> Tensor:
        """The part of a global batch that belongs to this process."""
        return batch[self.rank :: self.world]


def augment_images(images: Tensor, kind: str, seed: int, step: int, rank: int, world: int, total: int) -> Tensor:
    """Shift images by up to an eighth of their side and flip them left to right, at random.

    Parameters
    ----------
    images : Tensor, shape (rows, channels, height, width)
        This process's share of a batch of ``total`` rows.
    kind : str
        ``"none"``, ``"shift"``, ``"flip"`` or ``"shift+flip"``.
    seed, step : int
        The draws depend on these alone, so they are the same for any number of processes and after a resume.
    """
    if kind == "none":
        return images
    generator = torch.Generator().manual_seed(_mix(seed + 1, step))
    draws = torch.rand((3, total), generator=generator)[:, rank::world].to(images.device)
    _, _, height, width = images.shape
    rows = torch.arange(height, device=images.device).expand(len(images), -1)
    columns = torch.arange(width, device=images.device).expand(len(images), -1)
    inside = torch.ones((len(images), height, width), dtype=torch.bool, device=images.device)
    if "shift" in kind:
        reach = max(1, min(height, width) // 8)
        moves = (draws[:2] * (2 * reach + 1)).floor().long() - reach
        rows, columns = rows + moves[0].unsqueeze(1), columns + moves[1].unsqueeze(1)
        row_inside = (rows >= 0) & (rows < height)
        column_inside = (columns >= 0) & (columns < width)
        inside = row_inside.unsqueeze(2) & column_inside.unsqueeze(1)
        rows, columns = rows.clamp(0, height - 1), columns.clamp(0, width - 1)
    if "flip" in kind:
        columns = torch.where((draws[2] < 0.5).unsqueeze(1), width - 1 - columns, columns)
    which = torch.arange(len(images), device=images.device).view(-1, 1, 1)
    moved = images.permute(0, 2, 3, 1)[which, rows.unsqueeze(2), columns.unsqueeze(1)]
    return (moved * inside.unsqueeze(3)).permute(0, 3, 1, 2)


def _mix(seed: int, index: int) -> int:
    """A seed for one epoch or step: different streams for different pairs."""
    return (seed * 0x9E3779B97F4A7C15 + index * 0xBF58476D1CE4E5B9 + 0x94D049BB133111EB) % 2**63
