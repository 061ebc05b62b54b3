"""What needs a fresh process: peak memory of a path, and the time from import to the first coefficients."""

from __future__ import annotations

import json
import re
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any

from .families import FAMILIES
from .problems import Problem, correlated, load, normalized
from .solvers import SOLVERS, importable

__all__ = ["child", "cold", "memory"]

SCRIPT = Path(__file__).resolve().parents[1] / "linear.py"

_DATA = """
import numpy as np
random = np.random.default_rng(0)
X = np.asfortranarray(random.standard_normal((200, 50)))
y = X[:, :5].sum(axis=1) + random.standard_normal(200)
"""
# Up to the first coefficients, of the lasso but where another penalty is named.
FIRST_FITS = {
    "obverse, lasso": (
        "obverse",
        "from obverse.linear import SparseRegressor\nSparseRegressor('lasso', 0.1).fit(X, y).coef_",
    ),
    "obverse, mcp": (
        "obverse",
        "from obverse.linear import SparseRegressor\nSparseRegressor('mcp', 0.1).fit(X, y).coef_",
    ),
    "obverse, path": (
        "obverse",
        "from obverse.linear import sparse_path\nsparse_path(X, y, 'lasso', alphas=[0.2, 0.1]).coefs",
    ),
    "sklearn": ("sklearn", "from sklearn.linear_model import Lasso\nLasso(0.1).fit(X, y).coef_"),
    "celer": ("celer", "from celer import Lasso\nLasso(0.1).fit(X, y).coef_"),
    "skglm, lasso": ("skglm", "from skglm import Lasso\nLasso(0.1).fit(X, y).coef_"),
    "skglm, mcp": ("skglm", "from skglm import MCPRegression\nMCPRegression(0.1).fit(X, y).coef_"),
    "adelie": (
        "adelie",
        "import adelie\nadelie.grpnet(X, adelie.glm.gaussian(y), lmda_path=[0.1], progress_bar=False).betas",
    ),
    "pycasso": (
        "pycasso",
        "import pycasso\nsolver = pycasso.Solver(X, y, lambdas=np.array([0.1]))\nsolver.train()\nsolver.coef()",
    ),
}


def _seconds(code: str) -> float:
    """CPU seconds of a fresh process, as it counts them from its start."""
    script = f"import time\n{code}\nprint('seconds', time.process_time())"
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", script], capture_output=True, text=True, check=True)
    return float(done.stdout.split("seconds")[-1])


def cold(repeats: int) -> dict[str, Any]:
    """Fresh process to first coefficients on 200 x 50, less the import of scikit-learn and the making of the data."""
    known = importable()
    base = _DATA + "import sklearn.linear_model\n"
    rows: dict[str, Any] = {}
    chosen = {name: code for name, (package, code) in FIRST_FITS.items() if package in ("obverse", *known)}
    times: dict[str, list[float]] = {name: [] for name in ("base", *chosen)}
    # The first round fills the caches on disk, of compiled code among others, and is not counted.
    for number in range(repeats + 1):
        for name in list(times):
            try:
                spent = _seconds(base + chosen.get(name, ""))
            except subprocess.CalledProcessError as error:
                rows[name] = {"failed": (error.stderr.strip().splitlines() or ["?"])[-1][:200]}
                del times[name]
                continue
            if number:
                times[name].append(spent)
    floor = statistics.median(times.pop("base"))
    for name, spent in times.items():
        rows[name] = {"seconds": statistics.median(spent) - floor, "accurate": True}
    return {
        "kind": "cold", "problem": "200 x 50", "task": "cold start", "family": "lasso", "repeats": repeats,
        "base_seconds": floor, "solvers": rows,
    }  # fmt: skip


def memory(name: str, family_name: str, tolerances: dict[str, float]) -> dict[str, Any]:
    """Peak resident memory of a path10 beyond what the process held once it had made the data, in MB."""
    rows: dict[str, Any] = {}
    for solver, tolerance in tolerances.items():
        arguments = [sys.executable, "-W", "ignore", str(SCRIPT), "--child", name, family_name, solver, repr(tolerance)]
        done = subprocess.run(arguments, capture_output=True, text=True)
        if done.returncode:
            rows[solver] = {"failed": (done.stderr.strip().splitlines() or ["?"])[-1][:200]}
        else:
            rows[solver] = json.loads(done.stdout.splitlines()[-1]) | {"accurate": True}
    return {"kind": "memory", "problem": name, "task": "memory", "family": family_name, "repeats": 1, "solvers": rows}


def child(name: str, family_name: str, solver_name: str, tolerance: str) -> None:
    """In a fresh process: one path, and the peak that it reached."""
    from .cells import strengths

    solver, family = SOLVERS[solver_name], FAMILIES[family_name]
    alphas = strengths("path10", family)
    # A small problem of the same kind first, so that neither imports nor compilers are counted.
    X, y = correlated(60, 40, 5, 0.5, 3.0, seed=0)[:2]
    small = normalized("small", X, y)
    if name == "c":
        import scipy.sparse as sp

        small = Problem("small", sp.csc_matrix(small.X), small.y)
    solver.read(solver.path(small, family, alphas, float(tolerance)))
    problem = load(name)
    held = _status("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")
    solver.path(problem, family, alphas, float(tolerance))
    print(json.dumps({"megabytes": (_status("VmHWM") - held) / 1024, "held": held / 1024}))


def _status(entry: str) -> int:
    """Of this process, in kilobytes."""
    found = re.search(rf"{entry}:\s+(\d+)", Path("/proc/self/status").read_text())
    return int(found[1]) if found else 0
