"""One process of a data-parallel training with every stateful criterion; it saves what each of them ends with.

python label_processes.py one|outside|inside|resumed RANK WORLD FOLDER

"outside" keeps the criterion beside the wrapped network, "inside" makes it part of it, and "resumed" begins again in
the middle of an epoch from what process 0 has saved.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from label_cases import STATEFUL, K, build
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from obverse._core.distributed import world_size
from obverse.labels import (
    BrierScore,
    CalibrationError,
    LabelCriterion,
    TemperatureScaling,
    WinningScores,
)

SAMPLES, BATCH, EPOCHS, WIDTH = 24, 8, 3, 7
INTERRUPTED = 5


class Network(nn.Module):
    """A network that may hold its criterion."""

    def __init__(self, criterion: LabelCriterion | None) -> None:
        super().__init__()
        self.first, self.last, self.criterion = nn.Linear(4, WIDTH), nn.Linear(WIDTH, K), criterion

    def forward(self, inputs: Tensor, target: Tensor | None = None, index: Tensor | None = None) -> Any:
        features = self.first(inputs).tanh()
        logits = self.last(features)
        if self.criterion is None or target is None:
            return logits, features
        return self.criterion(logits, target, index=index, features=features)


class Run:
    """Network, criterion and optimizer, in one process or wrapped."""

    def __init__(self, case: str, kind: str) -> None:
        torch.manual_seed(0)
        is_inside = kind == "inside"
        self.criterion = build(case)
        self.network = Network(self.criterion if is_inside else None)
        self.wrapped = self.network if kind == "one" else DistributedDataParallel(self.network)
        self.is_inside = is_inside
        layers = [*self.network.first.parameters(), *self.network.last.parameters()]
        self.optimizer = torch.optim.SGD([{"params": layers}, *self.criterion.parameter_groups()], lr=0.5)

    def step(self, inputs: Tensor, target: Tensor, index: Tensor) -> None:
        if self.is_inside:
            loss = self.wrapped(inputs, target, index)
        else:
            logits, features = self.wrapped(inputs)
            loss = self.criterion(logits, target, index=index, features=features)
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()


def train(case: str, kind: str, rank: int, world: int, folder: Path) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(1)
    inputs = torch.randn(SAMPLES, 4, generator=generator)
    target = torch.randint(K, (SAMPLES,), generator=generator)
    run, step = Run(case, kind), 0
    for _ in range(EPOCHS):
        order = torch.randperm(SAMPLES, generator=generator)
        run.criterion.start_epoch()
        for begin in range(0, SAMPLES, BATCH):
            if kind == "resumed" and step == INTERRUPTED:
                run = resumed(run, case, rank, folder)
            ids = order[begin : begin + BATCH][rank::world]
            run.step(inputs[ids], target[ids], ids)
            step += 1
        run.criterion.end_epoch()
    run.criterion.synchronize()
    state = {f"criterion.{name}": value for name, value in run.criterion.state_dict().items()}
    layers = {name: value for name, value in run.network.state_dict().items() if not name.startswith("criterion.")}
    relations = run.criterion.class_relations()
    if relations is not None:
        state["relations"] = relations
    return {name: value.detach().clone() for name, value in (state | layers).items()}


def resumed(run: Run, case: str, rank: int, folder: Path) -> Run:
    """A new run from the state that process 0 has saved, as from a checkpoint."""
    run.criterion.synchronize()
    path = folder / "checkpoint.pt"
    if rank == 0:
        torch.save({"criterion": run.criterion.state_dict(), "network": run.network.state_dict()}, path)
    dist.barrier()
    saved = torch.load(path, weights_only=True)
    fresh = Run(case, "resumed")
    fresh.criterion.load_state_dict(saved["criterion"])
    fresh.network.load_state_dict(saved["network"])
    dist.barrier()
    return fresh


def metrics(rank: int, world: int) -> dict[str, Tensor]:
    """Metrics of uneven shares, put together twice."""
    generator = torch.Generator().manual_seed(5)
    logits = 2 * torch.randn(50, K, generator=generator)
    target = torch.randint(K, (50,), generator=generator)
    found = {
        "uniform": CalibrationError(),
        "adaptive": CalibrationError(5, binning="adaptive"),
        "class-wise": CalibrationError(5, kind="class-wise", binning="adaptive", num_classes=K),
        "brier": BrierScore(),
        "scores": WinningScores(),
    }
    for begin, end in ((0, 30), (30, 50)):
        for metric in found.values():
            # Process 1 has nothing of the second part.
            own = slice(begin + rank, end, world) if begin == 0 else slice(begin, end if rank == 0 else begin)
            metric.update(logits[own], target[own])
            metric.synchronize()
            metric.synchronize()
    own = slice(0, 30) if rank == 0 else slice(30, 50)
    own = slice(0, 50) if world == 1 else own
    scaling = TemperatureScaling().fit(logits[own], target[own], across_processes=True)
    numbers: dict[str, Any] = {name: metric.compute() for name, metric in found.items()}
    numbers["scores"] = numbers["scores"]["correct"].mean
    numbers["temperature"] = scaling.temperature
    return {name: torch.tensor(value, dtype=torch.float64) for name, value in numbers.items()}


def main(kind: str, rank: int, world: int, folder: Path) -> None:
    torch.set_num_threads(1)
    if world > 1:
        dist.init_process_group("gloo", init_method=f"file://{folder}/meeting-{kind}", rank=rank, world_size=world)
    assert world_size() == world
    ended = {case: train(case, kind, rank, world, folder) for case in STATEFUL}
    ended["metrics"] = metrics(rank, world)
    torch.save(ended, folder / f"{kind}-{rank}.pt")
    if world > 1:
        dist.barrier()
        dist.destroy_process_group()
        # All is written. Gloo's threads may still run, and the interpreter's own way out would then abort.
        os._exit(0)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), Path(sys.argv[4]))
