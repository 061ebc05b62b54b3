"""Damaged run folders: every flipped bit and every cut is refused in one line, or changes nothing.

    python benchmarks/damage.py                # 1,000 damages over the run folders of all commands
    python benchmarks/damage.py --trials 100
    python benchmarks/damage.py --only robust  # the cases whose names begin so

Tiny runs of `sparsify`, `train`, `robust` and `compare` are made once, finished and interrupted. Then one file of such
a folder, drawn at random, gets one flipped bit or is cut short, and the command goes on from the folder as users do it:
`--resume`, or for `compare` the same command again. Three ends are possible:

* refused: one line, which names the folder, and the way out that it states leads to the result of the undamaged run;
* same: the files that the command leaves are those of the undamaged run;
* WRONG: anything else, such as another result, or an error that nobody worded.

A few damages are done to real processes, which must end with exit code 2 and one line. The script exits with 1 if
anything was wrong.
"""

from __future__ import annotations

import argparse
import csv
import gc
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import torch
from safetensors.torch import load_file

from obverse.errors import ObverseError
from obverse.training import Recipe, RobustChoices, Trainer, compare, read_recipe, run_recipe, train_robust

# Numbers that differ from run to run without being wrong.
TIMES = {"seconds", "sha256", "command"}
LOCKS = {".lock"}


@dataclass(frozen=True)
class Case:
    """A run folder to damage.

    Attributes
    ----------
    name : str
    make : callable
        Makes the folder, whole or interrupted.
    resume : callable
        Goes on from it, to the end.
    outputs : tuple of str
        Glob patterns of the files that must then be those of an undamaged run.
    """

    name: str
    make: Callable[[Path], object]
    resume: Callable[[Path], object]
    outputs: tuple[str, ...]


def blobs(path: Path) -> None:
    """Three Gaussian blobs in six dimensions, as csv."""
    draw = np.random.default_rng(0)
    labels = np.arange(120) % 3
    points = draw.normal(size=(120, 6)) + 3 * np.eye(6)[labels]
    with open(path, "w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["a", "b", "c", "d", "e", "f", "label"])
        writer.writerows([*(f"{x:.4f}" for x in row), label] for row, label in zip(points, labels, strict=True))


@contextmanager
def interrupted(step: int) -> Iterator[None]:
    """Ctrl-C comes in the middle of the given step, counted over all runs."""
    original, steps = Trainer._step, 0

    def stepped(trainer: Trainer, batch: torch.Tensor) -> float:
        nonlocal steps
        steps += 1
        if steps == step:
            signal.raise_signal(signal.SIGINT)
        return original(trainer, batch)

    with patch.object(Trainer, "_step", stepped), suppress(KeyboardInterrupt):
        yield


@contextmanager
def interrupted_after_the_folds() -> Iterator[None]:
    """Ctrl-C comes when the second stage of `robust` begins."""
    from obverse.imbalance import _two_stage

    original = _two_stage.trained

    def trained(plan: Any, *arguments: Any) -> Any:
        if len(arguments) > 4:
            raise KeyboardInterrupt
        return original(plan, *arguments)

    with patch.object(_two_stage, "trained", trained), suppress(KeyboardInterrupt):
        yield


def cases(data: Path) -> list[Case]:
    """Finished and interrupted runs of every command."""
    shared: dict[str, Any] = {"data": str(data), "batch_size": 32, "device": "cpu", "threads": 1}
    factory = {"model": "mlp", "width": 0.1}
    sparse = {**shared, **factory, "epochs": 3, "budget": 0.8, "tracker": "csv"}
    dense = {**shared, **factory, "epochs": 3, "face": "none", "labels": "adaptive"}
    seeds = {**sparse, "epochs": 2, "seeds": 2, "tracker": "none"}
    grid = {"methods": "proximal,dense", "budgets": "80%"}

    def study(
        fields: dict[str, Any], at: int | None = None
    ) -> tuple[Callable[[Path], object], Callable[[Path], object]]:
        def make(folder: Path) -> None:
            with interrupted(at or -1):
                run_recipe(Recipe.from_mapping({**fields, "out": str(folder)}))

        def resume(folder: Path) -> None:
            # As --resume does it: with the recipe of the folder, and where that is gone, with the options again.
            given = {} if (folder / "recipe.yaml").exists() else fields
            run_recipe(read_recipe({**given, "out": str(folder)}, resume=True), resume=True)

        return make, resume

    choices = RobustChoices(data=str(data), epochs=2, batch_size=32, folds=2, threads=1)

    def robust(folder: Path) -> None:
        train_robust(choices, folder)

    def half_robust(folder: Path) -> None:
        with interrupted_after_the_folds():
            robust(folder)

    def resume_robust(folder: Path) -> None:
        train_robust(choices, folder, resume=True)

    def comparison(folder: Path) -> None:
        fields = {**shared, **factory, "epochs": 2, "out": str(folder)}
        compare(Recipe.from_mapping(fields), **grid)

    def half_comparison(folder: Path) -> None:
        with interrupted(9):  # the second of two cells
            comparison(folder)

    def join(folder: Path) -> None:
        compare(Recipe.from_mapping({"data": str(data), "out": str(folder)}))

    run = ("recipe.yaml", "metrics.json", "report.html", "model.safetensors", "history.csv", "checkpoint/result.json")
    several = (*run, "seed-*/model.safetensors", "seed-*/checkpoint/result.json")
    stages = ("choices.json", "robust.json", "groups.png", "stages/*.*", "stages/noise/*.*")
    table = ("compare.json", "compare.html")
    return [
        Case("sparsify, finished", *study(sparse), run),
        Case("sparsify, interrupted", *study(sparse, 7), run),
        Case("sparsify, two seeds, finished", *study(seeds), several),
        Case("sparsify, two seeds, interrupted", *study(seeds, 9), several),
        Case("train, finished", *study(dense), run),
        Case("train, interrupted", *study(dense, 5), run),
        Case("robust, finished", robust, resume_robust, stages),
        Case("robust, interrupted", half_robust, resume_robust, stages),
        Case("compare, finished", comparison, join, table),
        Case("compare, interrupted", half_comparison, join, table),
    ]


# ------------------------------------------------------------------------------------------------------ damage
def damage(path: Path, draw: random.Random) -> str:
    """Flip one bit of a file or cut it short; returns what was done."""
    content = bytearray(path.read_bytes())
    size = len(content)
    if draw.random() < 0.3:
        length = draw.choice([0, size // 2, size - 1, draw.randrange(size)])
        path.write_bytes(content[:length])
        return f"cut to {length} of {size} bytes"
    # Half of the flips hit the first or last kilobyte, where formats keep what they describe.
    place = draw.randrange(size)
    if draw.random() < 0.5:
        place = draw.choice([draw.randrange(min(size, 1024)), size - 1 - draw.randrange(min(size, 1024))])
    bit = draw.randrange(8)
    content[place] ^= 1 << bit
    path.write_bytes(content)
    return f"bit {bit} of byte {place} of {size} flipped"


def files_of(folder: Path) -> list[Path]:
    """The files that can be damaged, by relative path."""
    found = (path for path in folder.rglob("*") if path.is_file() and path.name not in LOCKS and path.stat().st_size)
    return sorted(path.relative_to(folder) for path in found)


def contents(folder: Path, patterns: tuple[str, ...], timeless: bool) -> dict[str, Any]:
    """What the outputs say, without times where these may differ."""
    found = {}
    for pattern in patterns:
        for path in sorted(folder.glob(pattern)):
            found[str(path.relative_to(folder))] = content(path, timeless)
    return found


def content(path: Path, timeless: bool) -> Any:
    if path.suffix == ".json":
        return numbers(json.loads(path.read_text()))
    if path.suffix == ".safetensors":
        return {name: (value.dtype, value.tolist()) for name, value in load_file(path).items()}
    if path.suffix == ".npz":
        with np.load(path) as stored:
            return {name: stored[name].tolist() for name in stored.files}
    if path.suffix == ".html" and timeless:
        return True
    return path.read_bytes()


def numbers(value: Any) -> Any:
    if isinstance(value, dict):
        # A result pins the digest of its model, whose metadata are in no fixed order.
        return {k: numbers(v) for k, v in value.items() if k not in TIMES and not (k == "model" and isinstance(v, str))}
    return [numbers(item) for item in value] if isinstance(value, list) else value


@dataclass
class Folder:
    """The undamaged folder of a case, where it was made, and what a run from it ends in."""

    case: Case
    place: Path
    pristine: Path
    expected: dict[bool, dict[str, Any]]

    def renew(self) -> None:
        shutil.rmtree(self.place)
        shutil.copytree(self.pristine, self.place)

    def is_right(self, timeless: bool) -> bool:
        """Whether the outputs are those of the undamaged run; pages show times, which change where steps are redone."""
        return contents(self.place, self.case.outputs, timeless) == self.expected[timeless]


def prepared(case: Case, root: Path) -> Folder:
    place = root / case.name.replace(", ", "-").replace(" ", "-")
    case.make(place)
    pristine = root / f"{place.name}.pristine"
    shutil.copytree(place, pristine)
    case.resume(place)
    return Folder(case, place, pristine, {kind: contents(place, case.outputs, kind) for kind in (False, True)})


def trial(folder: Folder, name: Path, draw: random.Random) -> tuple[str, str]:
    """One damage: ``refused``, ``same`` or ``WRONG``, and what happened."""
    folder.renew()
    path = folder.place / name
    done = damage(path, draw)
    try:
        folder.case.resume(folder.place)
    except ObverseError as error:
        return refusal(folder, path, str(error), done)
    except Exception as error:
        return "WRONG", f"{name}, {done}: {type(error).__name__}: {error}"
    if not folder.is_right(timeless="interrupted" in folder.case.name):
        return "WRONG", f"{name}, {done}: another result"
    return "same", done


def refusal(folder: Folder, path: Path, message: str, done: str) -> tuple[str, str]:
    """Whether a refusal is one line that names the file, and following its advice leads to the right result."""
    if "\n" in message or str(path) not in message:
        return "WRONG", f"{path}, {done}: {message!r}"
    if "delete it" not in message:
        return "refused", message
    path.unlink()
    with suppress(ObverseError):
        folder.case.resume(folder.place)
        return ("refused", message) if folder.is_right(timeless=True) else ("WRONG", f"the advice of: {message}")
    return "WRONG", f"the advice of: {message}"


# ------------------------------------------------------------------------------------------------------ processes
def processes(data: Path, root: Path) -> Iterator[tuple[str, str]]:
    """A damaged folder of each command, resumed by a real process."""
    common = ["--data", str(data), "--epochs", "2", "--threads", "1"]
    grid = ["--methods", "dense", "--device", "cpu"]
    commands = {
        "sparsify": ([*common, "--device", "cpu"], ["--resume"], "model.safetensors"),
        "train": ([*common, "--device", "cpu"], ["--resume"], "checkpoint/result.json"),
        "robust": ([*common, "--folds", "2"], ["--resume", *common, "--folds", "2"], "stages/noise/fold-1.npz"),
        "compare": ([*common, *grid], [], "study.log"),
    }
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    for name, (first, again, file) in commands.items():
        out = ["--out", str(root / f"process-{name}")]
        command = [sys.executable, "-m", "obverse.cli", name, *out]
        subprocess.run([*command, *first], env=environment, check=True, capture_output=True)
        path = root / f"process-{name}" / file
        content = bytearray(path.read_bytes())
        content[len(content) // 2] ^= 1
        path.write_bytes(content)
        ended = subprocess.run([*command, *again], env=environment, capture_output=True, text=True, check=False)
        line = ended.stderr.strip()
        good = ended.returncode == 2 and "\n" not in line and line.startswith("obverse: ") and str(path) in line
        yield name, "refused" if good else f"WRONG: exit code {ended.returncode}: {line}"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=1000, help="damages in all [1000]")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path, help="write the table there as well")
    parser.add_argument("--only", default="", help="cases whose names begin so")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    draw = random.Random(arguments.seed)
    table: dict[str, Counter[str]] = defaultdict(Counter)
    wrong: list[str] = []
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as name:
        root = Path(name).resolve()
        data = root / "blobs.csv"
        blobs(data)
        chosen = [case for case in cases(data) if case.name.startswith(arguments.only)]
        folders = [prepared(case, root) for case in chosen]
        gc.freeze()  # each run ends with a collection, which need not look at what was imported
        for number in range(arguments.trials):
            folder = folders[number % len(folders)]
            file = draw.choice(files_of(folder.pristine))
            end, text = trial(folder, file, draw)
            table[f"{folder.case.name}: {file}"][end] += 1
            if end == "WRONG":
                wrong.append(f"{folder.case.name}: {text}")
                print(wrong[-1], flush=True)
        for command, end in processes(data, root) if not arguments.only else ():
            table[f"{command}, a process"][end.partition(":")[0]] += 1
            if end != "refused":
                wrong.append(f"{command}, a process: {end}")
    width = max(map(len, table), default=0)
    print(f"{'file':<{width}}  refused  same  WRONG")
    for row in sorted(table):
        print(f"{row:<{width}}  {table[row]['refused']:>7}  {table[row]['same']:>4}  {table[row]['WRONG']:>5}")
    sums = sum(table.values(), Counter())
    print(f"{'all':<{width}}  {sums['refused']:>7}  {sums['same']:>4}  {sums['WRONG']:>5}")
    if arguments.json is not None:
        arguments.json.write_text(json.dumps({row: dict(table[row]) for row in sorted(table)}, indent=1) + "\n")
    print(f"{arguments.trials} damages in {time.monotonic() - began:.0f} s")
    for line in wrong:
        print(line)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
