"""One process of a data-parallel run: trains on its half of every batch and saves what it ends with.

python sparsify_processes.py ddp|fsdp|one METHOD RANK WORLD FOLDER

The method "changing" goes through three faces and measures the curvature; it loads its own state half-way.
"measured" has a strength, under an optimizer whose metric is measured.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import torch.nn.functional as F
from own_optimizers import RenamedAdam
from sparsify_matrix import METHODS
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from obverse import Budget, Sparsifier
from obverse._core.distributed import world_size

STEPS = 12
CHANGES = {4: "hard-concrete", 7: "reweighted"}


def main(kind: str, method: str, rank: int, world: int, folder: Path) -> None:
    torch.set_num_threads(1)
    if world > 1:
        dist.init_process_group("gloo", init_method=f"file://{folder}/meeting-{kind}", rank=rank, world_size=world)
    assert world_size() == world
    torch.manual_seed(0)
    model: nn.Module = nn.Sequential(nn.Linear(10, 15), nn.ReLU(), nn.Linear(15, 6), nn.ReLU(), nn.Linear(6, 3))
    wrapped = model
    if kind == "fsdp":
        from torch.distributed.fsdp import fully_shard

        for layer in model:
            if isinstance(layer, nn.Linear):
                fully_shard(layer, mesh=dist.init_device_mesh("cpu", (world,)))
        fully_shard(model, mesh=dist.init_device_mesh("cpu", (world,)))
    optimizer: torch.optim.Optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    is_changing = method == "changing"
    changing = {"face": "dropout", "law": "bernoulli", "curvature": "gradients"}
    chosen = changing if is_changing else METHODS.get(method, {})
    if method == "measured":
        optimizer = RenamedAdam(model.parameters(), lr=1e-2)
        sparsifier = Sparsifier(model, optimizer, penalty="lasso", strength=1e-2)
    else:
        sparsifier = Sparsifier(model, optimizer, budget=Budget(0.7), total_steps=STEPS, every=1, **chosen)
    sparsifier.join()
    if kind == "ddp":
        wrapped = DistributedDataParallel(model)
    generator = torch.Generator().manual_seed(1)
    for step in range(STEPS):
        inputs = torch.randn(16, 10, generator=generator)
        labels = torch.randint(0, 3, (16,), generator=generator)
        inputs, labels = inputs[rank::world], labels[rank::world]
        loss = F.cross_entropy(wrapped(inputs), labels) + sparsifier.penalty()
        loss.backward()
        optimizer.step()
        sparsifier.step()
        optimizer.zero_grad()
        if is_changing and step in CHANGES:
            sparsifier.switch(CHANGES[step])
            sparsifier.join()
            sparsifier.load_state_dict(sparsifier.state_dict())
    sparsifier.finish()
    ended: dict[str, Any] = {
        name: p.full_tensor() if hasattr(p, "full_tensor") else p for name, p in model.state_dict().items()
    }
    torch.save({name: p.detach().clone() for name, p in ended.items()}, folder / f"{kind}-{rank}.pt")
    (folder / f"{kind}-{rank}.txt").write_text(f"{sparsifier.sparsity!r} {sparsifier.layers()!r}")
    if world > 1:
        dist.barrier()
        dist.destroy_process_group()
        # All is written. Gloo's threads may still run, and the interpreter's own way out would then abort.
        os._exit(0)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4]), Path(sys.argv[5]))
