"""The example with the exact risks, as a module."""

from __future__ import annotations

import sys
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from typing import Any

PATH = Path(__file__).resolve().parents[2] / "examples" / "heteroskedastic_theory.py"


def load() -> Any:
    name = "heteroskedastic_theory"
    if name not in sys.modules:
        spec = spec_from_file_location(name, PATH)
        assert spec is not None
        assert spec.loader is not None
        module = module_from_spec(spec)
        sys.modules[name] = module
        spec.loader.exec_module(module)
    return sys.modules[name]


theory = load()
