"""Make the environment and run Obverse in it; needs Python 3.11 or newer with pip, nothing else.

    python3 bootstrap.py run  [arguments of `obverse sparsify`]
    python3 bootstrap.py test [arguments of `pytest`]
    python3 bootstrap.py env                                       only make the environment, with everything in it

The environment is `.venv` beside this file, with the exact versions of `constraints.txt`. It is made once and brought
up to date when `pyproject.toml` or `constraints.txt` change, so a second run starts at once.
"""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent
VENV = ROOT / ".venv"
BIN = VENV / ("Scripts" if os.name == "nt" else "bin")
# What each command installs; the environment of the tests holds that of the run as well.
EXTRAS = {"run": "train", "test": "dev", "env": "dev"}


def environment(extra: str) -> None:
    """Create or update `.venv` so that it holds ``obverse[extra]``."""
    definition = b"".join((ROOT / name).read_bytes() for name in ("pyproject.toml", "constraints.txt"))
    fingerprint = hashlib.sha256(definition + sys.version.encode() + str(ROOT).encode()).hexdigest()
    if any(_stamp(kind) == fingerprint for kind in {extra, "dev"}):
        return
    if not (BIN / "python").exists() and not (BIN / "python.exe").exists():
        print("Making the environment in .venv; this takes a few minutes, once.", flush=True)
        subprocess.run([sys.executable, "-m", "venv", str(VENV)], check=True)
    pip = [str(BIN / "python"), "-m", "pip", "--disable-pip-version-check", "install", "--quiet"]
    subprocess.run([*pip, "--constraint", "constraints.txt", "--editable", f".[{extra}]"], check=True, cwd=ROOT)
    (VENV / f"obverse-{extra}.stamp").write_text(fingerprint)


def _stamp(extra: str) -> str:
    path = VENV / f"obverse-{extra}.stamp"
    return path.read_text() if path.exists() else ""


def main() -> int:
    if sys.version_info < (3, 11):  # noqa: UP036 - this file is what an older Python meets first
        print(f"Obverse needs Python 3.11 or newer; this is {sys.version.split()[0]}", file=sys.stderr)
        return 2
    if len(sys.argv) < 2 or sys.argv[1] not in EXTRAS:
        print(__doc__, file=sys.stderr)
        return 2
    command, arguments = sys.argv[1], sys.argv[2:]
    environment(EXTRAS[command])
    if command == "env":
        return 0
    if command == "test":
        # Two files of tests at a time, each with one thread.
        pytest = [str(BIN / "python"), "-m", "pytest", "--numprocesses", "2", "--dist", "loadfile"]
        return subprocess.run([*pytest, *arguments], cwd=ROOT).returncode
    # Without arguments: the embedded digits, always in the same folder.
    arguments = arguments or ["--out", str(ROOT / "runs" / "first"), "--overwrite"]
    return subprocess.run([str(BIN / "obverse"), "sparsify", *arguments]).returncode


if __name__ == "__main__":
    try:
        sys.exit(main())
    except subprocess.CalledProcessError as error:
        sys.exit(error.returncode)
    except KeyboardInterrupt:
        sys.exit(130)
