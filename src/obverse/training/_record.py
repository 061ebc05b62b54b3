"""The numbers of a finished run, and of several together, as they are written to ``metrics.json``."""

from __future__ import annotations

import math
import platform
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from .. import __version__
from ._attach import prunable
from ._confidence import confidence_record
from ._trainer import Trainer

__all__ = ["plain_json", "run_record", "summary", "t_interval", "versions"]

_WEIGHT_BYTES = 4
_HISTOGRAM_BINS = 40


def run_record(trainer: Trainer) -> dict[str, Any]:
    """Evaluate a finished run; the only place that looks at the test split."""
    _, validation_error, _ = trainer.evaluate(trainer.data.validation)
    loss, error, confusion = trainer.evaluate(trainer.data.test)
    labels = trainer.loss.record()
    layers = [_layer(layer) for layer in trainer.sparsifier.layers()]
    return {
        "seed": trainer.seed,
        "processes": trainer.world,
        "history": trainer.history,
        "trajectory": [dict(point) for point in trainer.sparsifier.trajectory],
        "layers": layers,
        "weights_histogram": _histogram(trainer, [layer["name"] for layer in layers]),
        "test": {"error": error, "loss": loss, "confusion": confusion, **confidence_record(trainer)},
        "validation": {"error": validation_error},
        "sparsity": _sparsity(layers),
        "notes": list(trainer.sparsifier.notes),
        "zero_weights": _zero_weights(trainer),
        "size": _size(trainer, layers),
        "parameters": sum(parameter.numel() for parameter in trainer.model.parameters()),
        "seconds": trainer.seconds,
        **({} if labels is None else {"labels": labels}),
    }


def summary(runs: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Means over seeds, with a 95 % t-interval (half width; None for one seed) of the test error."""
    errors = [run["test"]["error"] for run in runs]
    # Chosen by validation: the test split has no say in which model is kept.
    kept = min(runs, key=lambda run: run["validation"]["error"])
    return {
        "test_error": {"mean": math.fsum(errors) / len(errors), "interval": t_interval(errors)},
        "sparsity": {"mean": math.fsum(run["sparsity"] for run in runs) / len(runs)},
        "compression": math.fsum(r["size"]["dense_bytes"] / r["size"]["bitmask_bytes"] for r in runs) / len(runs),
        "selected_seed": kept["seed"],
        "seconds": math.fsum(run["seconds"] for run in runs),
    }


def t_interval(values: Sequence[float]) -> float | None:
    """Half width of the 95 % interval of the mean by Student's t; None for fewer than two values."""
    if len(values) < 2:
        return None
    from scipy.special import stdtrit

    n = len(values)
    deviation = float(np.std(values, ddof=1))
    return float(stdtrit(n - 1, 0.975)) * deviation / math.sqrt(n)


def versions() -> dict[str, str]:
    """Versions of what the numbers depend on."""
    import accelerate

    return {
        "python": platform.python_version(),
        "obverse": __version__,
        "torch": torch.__version__,
        "numpy": np.__version__,
        "accelerate": accelerate.__version__,
        "platform": f"{platform.system()} {platform.machine()}",
    }


def plain_json(value: Any) -> Any:
    """The same content in types JSON knows: NaN becomes null, infinity the string ``"inf"``."""
    if isinstance(value, dict):
        return {str(key): plain_json(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain_json(item) for item in value]
    if isinstance(value, bool | str | int) or value is None:
        return value
    number = float(value)
    if math.isnan(number):
        return None
    return number if math.isfinite(number) else str(number)


def _layer(layer: dict[str, Any]) -> dict[str, Any]:
    weights, nonzero = int(layer["weights"]), int(layer["nonzero"])
    return {
        "name": layer["name"],
        "shape": [int(n) for n in layer["shape"]],
        "weights": weights,
        "nonzero": nonzero,
        "sparsity": 1 - nonzero / max(1, weights),
    }


def _sparsity(layers: list[dict[str, Any]]) -> float:
    weights = sum(layer["weights"] for layer in layers)
    nonzero = sum(layer["nonzero"] for layer in layers)
    return float(1 - nonzero / max(1, weights))


def _zero_weights(trainer: Trainer) -> int:
    """Zeros in the matrices of the model, which a comparison counts, whichever groups they fell in."""
    return sum(weight.numel() - int(weight.detach().count_nonzero()) for _, weight in prunable(trainer.model))


def _size(trainer: Trainer, layers: list[dict[str, Any]]) -> dict[str, int]:
    """Bytes in float32: dense, and as nonzeros beside one mask bit per regularized weight."""
    total = sum(p.numel() for p in trainer.model.parameters()) + sum(b.numel() for b in trainer.model.buffers())
    weights, nonzero = sum(r["weights"] for r in layers), sum(r["nonzero"] for r in layers)
    masks = sum(-(-layer["weights"] // 8) for layer in layers)
    return {
        "dense_bytes": _WEIGHT_BYTES * total,
        "nonzero": nonzero,
        "bitmask_bytes": _WEIGHT_BYTES * (total - weights + nonzero) + masks,
    }


def _histogram(trainer: Trainer, names: list[str]) -> dict[str, list[float]]:
    """Counts of nonzero magnitudes of all regularized weights, in bins of equal width on a log scale."""
    parameters = dict(trainer.model.named_parameters(remove_duplicate=False))
    parts = [parameters[name].detach().abs().flatten().double().cpu() for name in names if name in parameters]
    magnitudes = torch.cat(parts).numpy() if parts else np.empty(0)
    magnitudes = magnitudes[magnitudes > 0]
    if len(magnitudes) == 0:
        return {"edges": [], "counts": []}
    low, high = math.log10(magnitudes.min()), math.log10(magnitudes.max())
    if high - low < 1e-6:
        low, high = low - 0.5, high + 0.5
    edges: np.ndarray[Any, np.dtype[np.float64]] = np.logspace(low, high, _HISTOGRAM_BINS + 1)
    edges[0], edges[-1] = min(edges[0], magnitudes.min()), max(edges[-1], magnitudes.max())
    counts, _ = np.histogram(magnitudes, edges)
    return {"edges": edges.tolist(), "counts": counts.tolist()}
