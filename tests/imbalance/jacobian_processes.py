"""One process of a data-parallel run with the Jacobian penalty, on its half of every batch; saves what it ends with.

python jacobian_processes.py BACKEND RANK WORLD FOLDER
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from obverse._core.distributed import world_size
from obverse.imbalance import HeteroskedasticRegularizer


def main(backend: Any, rank: int, world: int, folder: Path) -> None:
    torch.set_num_threads(1)
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 12), nn.LayerNorm(12), nn.SiLU(), nn.Linear(12, 3)).double()
    wrapped: nn.Module = model
    if world > 1:
        dist.init_process_group("gloo", init_method=f"file://{folder}/meeting-{backend}", rank=rank, world_size=world)
        wrapped = DistributedDataParallel(model)
    assert world_size() == world
    regularizer = HeteroskedasticRegularizer(wrapped, [0.2, 0.5, 1.0], strength=0.3, backend=backend, every=2)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.2, momentum=0.9)
    generator = torch.Generator().manual_seed(1)
    for _ in range(8):
        inputs = torch.randn(16, 6, generator=generator).double()[rank::world]
        labels = torch.randint(0, 3, (16,), generator=generator)[rank::world]
        with regularizer.capture():
            logits = wrapped(inputs)
        regularizer.total(F.cross_entropy(logits, labels), logits, labels).backward()
        optimizer.step()
        optimizer.zero_grad()
    if rank == 0:
        save_file(model.state_dict(), folder / f"{backend}-{world}.safetensors")
    if world > 1:
        dist.destroy_process_group()


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), Path(sys.argv[4]))
