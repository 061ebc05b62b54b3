"""The penalties under test: every member of the catalogue, each with several parameter values."""

from __future__ import annotations

from typing import Any

from obverse.penalties import Penalty, catalogue

PARAMETERS: dict[str, list[dict[str, float]]] = {
    "lp": [{}, {"p": 0.7}, {"p": 1.0}, {"p": 1.01}, {"p": 1.5}, {"p": 2.0}],
    "log-sum": [{}, {"epsilon": 0.1}],
    "log2-sum": [{}, {"epsilon": 0.01}],
    "mcp": [{}, {"kappa": 0.3}],
    "scad": [{}, {"a": 1.5, "threshold": 0.5}],
    "capped-l1": [{}, {"threshold": 0.3}],
    "targeted-dropout": [{}, {"threshold": 0.4}],
    "standout": [{}, {"gain": 3.0, "bias": 1.0}],
    "empirical-bayes": [{}, {"precision": 30.0}],
}
EVERY: list[Penalty] = [cls(**given) for name, cls in catalogue().items() for given in PARAMETERS.get(name, [{}])]


def objective(penalty: Penalty, x: Any, z: Any, step: Any) -> Any:
    """The objective of the proximal operator, relative to that at zero."""
    return x * (x / 2 - z) + step * penalty.value(x)
