"""One process of a data-parallel run whose weights stand still: mean and variance of its gradients under the noise.

python noise_processes.py METHOD RANK WORLD FOLDER

Every row of the batch occurs twice, once for each of two processes. Were their noise the same, the variance of the
averaged gradient would be twice that of independent noise.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

import torch
import torch.distributed as dist
import torch.nn.functional as F
from sparsify_matrix import METHODS
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from obverse import Sparsifier
from obverse._core.distributed import world_size

DRAWS = 2000


def main(method: str, rank: int, world: int, folder: Path) -> None:
    torch.set_num_threads(1)
    if world > 1:
        dist.init_process_group("gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=world)
    assert world_size() == world
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 3))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    sparsifier = Sparsifier(model, optimizer, strength=0.05, **METHODS[method])
    sparsifier.join()
    wrapped = model if world == 1 else DistributedDataParallel(model)
    inputs = torch.randn(4, 6).repeat_interleave(2, 0)[rank::world]
    labels = torch.randint(0, 3, (4,)).repeat_interleave(2)[rank::world]

    # The strength stands from the start, and so does the noise.
    def gradient() -> torch.Tensor:
        optimizer.zero_grad()
        F.cross_entropy(wrapped(inputs), labels).backward()
        return torch.cat([weight.grad.flatten() for weight in model.parameters() if weight.grad is not None])

    gradients = torch.stack([gradient() for _ in range(DRAWS)]).double()
    found = {"draws": DRAWS, "mean": gradients.mean(0), "variance": gradients.var(0)}
    torch.save(found, folder / f"{world}-{rank}.pt")
    if world > 1:
        dist.barrier()
        dist.destroy_process_group()
        # All is written. Gloo's threads may still run, and the interpreter's own way out would then abort.
        os._exit(0)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), Path(sys.argv[4]))
