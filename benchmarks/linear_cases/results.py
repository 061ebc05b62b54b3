"""Results in a JSON file, each under a key: one that is there is not measured again, and each is written at once."""

from __future__ import annotations

import json
import os
import platform
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

from .solvers import importable

__all__ = ["Results", "machine"]


def machine() -> dict[str, Any]:
    """What the numbers were made on and with."""
    from threadpoolctl import threadpool_info

    processor = platform.processor()
    information = Path("/proc/cpuinfo")
    if information.exists():
        named = [line for line in information.read_text().splitlines() if line.startswith("model name")]
        processor = named[0].partition(":")[2].strip() if named else processor
    return {
        "processor": processor,
        "cores": os.cpu_count(),
        "threads": 1,
        "python": platform.python_version(),
        "packages": {name: version(name) for name in ("numpy", "scipy", "numba")} | importable(),
        "blas": sorted({f"{pool['internal_api']} {pool.get('architecture', '')}" for pool in threadpool_info()}),
    }


class Results:
    """Cells in a file, with the machine that each was measured on."""

    def __init__(self, path: Path, fresh: bool = False) -> None:
        self.path, self.fresh = path, fresh
        self.machine = machine()
        self.cells: dict[str, Any] = {}
        self._read()

    def _read(self) -> None:
        if self.path.exists():
            self.cells = json.loads(self.path.read_text())["cells"]

    def run(self, key: str, work: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        """The cell under ``key``, measured where it is missing or all are to be fresh."""
        if key not in self.cells or self.fresh:
            clock = time.perf_counter()
            cell = work()
            cell["seconds_in_all"] = round(time.perf_counter() - clock, 1)
            cell["machine"] = self.machine
            # Another process may have added to the file meanwhile.
            self._read()
            self.cells[key] = cell
            self.path.parent.mkdir(parents=True, exist_ok=True)
            part = self.path.with_suffix(".part")
            part.write_text(json.dumps({"cells": self.cells}, indent=1) + "\n")
            part.replace(self.path)
        return dict(self.cells[key])
