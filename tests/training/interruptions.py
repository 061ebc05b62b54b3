"""Runs that are cut short at a stated step, and whether two runs ended in the same place."""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors.torch import load_file

from obverse._core.files import read_json
from obverse.training import StopRequest, Trainer


def numbers(folder):
    """Everything in the metrics but the time it took and how it was called."""

    def timeless(value):
        if isinstance(value, dict):
            return {k: timeless(v) for k, v in value.items() if k not in ("seconds", "command")}
        return [timeless(item) for item in value] if isinstance(value, list) else value

    return timeless(read_json(Path(folder) / "metrics.json", sealed=True))


def same_result(first, second):
    assert numbers(first) == numbers(second)
    ours, theirs = load_file(Path(first) / "model.safetensors"), load_file(Path(second) / "model.safetensors")
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[key], theirs[key]) for key in ours)


class StopAt:
    """Asks a run to stop at one of its steps, as a signal would."""

    def __init__(self, monkeypatch, step):
        self.step, self.stops = step, []
        original_enter, original_step = StopRequest.__enter__, Trainer._step

        def enter(stop):
            self.stops.append(stop)
            return original_enter(stop)

        def step(trainer, batch):
            if trainer.step + 1 == self.step:
                self.stops[-1].asked = True
            return original_step(trainer, batch)

        monkeypatch.setattr(StopRequest, "__enter__", enter)
        monkeypatch.setattr(Trainer, "_step", step)
