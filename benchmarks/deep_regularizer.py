"""Cost of the exact regularizer of deep linear networks with dropout: linear in depth, where enumeration doubles.

    python benchmarks/deep_regularizer.py [--json FILE] [--width 256] [--threads 1]

CPU time of value and gradient for depths (dropped layers) from 2 to 64, as a ratio to depth 2; beside it the sum over
all sets of layers (the form in which the theory states it), and all 2^units masks of networks that are small enough.
"""

from __future__ import annotations

import argparse
import itertools
import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from obverse.dropout import deep_linear

DEPTHS, SUBSETS, UNITS = (2, 4, 8, 16, 32, 64), (2, 4, 6, 8, 10), (4, 6, 8, 10, 12)
KEEP = 0.9


def network(depth: int, width: int) -> list[Tensor]:
    generator = torch.Generator().manual_seed(depth)
    size = {"generator": generator, "dtype": torch.float64}
    return [
        (torch.randn(width, width, **size) / width**0.5).requires_grad_()  # type: ignore[call-overload]
        for _ in range(depth + 1)
    ]


def cpu_seconds(call: Callable[[], object], repeats: int) -> float:
    call()
    times = []
    for _ in range(repeats):
        start = time.process_time()
        call()
        times.append(time.process_time() - start)
    return statistics.median(times)


def value_and_gradient(weights: list[Tensor], form: str) -> Tensor:
    value: Tensor = deep_linear.explicit_regularizer(weights, KEEP, form=form)  # type: ignore[arg-type]
    torch.autograd.grad(value, weights)
    return value.detach()


def enumerated(weights: list[np.ndarray]) -> float:
    """Mean squared deviation from the clean network over all masks of two hidden layers."""
    first, middle, last = weights
    clean = last @ middle @ first
    total = 0.0
    units = len(first) + len(middle)
    for kept in itertools.product((0, 1), repeat=units):
        mask = np.array(kept, dtype=np.float64)
        chance = np.prod(np.where(mask > 0, KEEP, 1 - KEEP))
        lower, upper = mask[: len(first)] / KEEP, mask[len(first) :] / KEEP
        total += chance * ((last * upper @ (middle * lower @ first) - clean) ** 2).sum()
    return float(total)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, default=Path(__file__).parent / "results" / "deep_regularizer.json")
    parser.add_argument("--width", type=int, default=256)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    rows = []

    def note(what: str, size: int, seconds: float, base: float) -> None:
        rows.append({"what": what, "size": size, "seconds": seconds, "ratio": seconds / base})
        print(f"{what:<34} {size:>5} {1e3 * seconds:>12.3f} {seconds / base:>9.2f}")

    print(f"{'what':<34} {'size':>5} {'CPU ms':>12} {'ratio':>9}")
    for form, depths, width in (("last-dropped", DEPTHS, options.width), ("subset-sum", SUBSETS, 32)):
        base = 0.0
        for depth in depths:
            weights = network(depth, width)
            seconds = cpu_seconds(lambda weights=weights, form=form: value_and_gradient(weights, form), options.repeats)
            base = base or seconds
            note(f"{form}, width {width}, by depth", depth, seconds, base)
        small = network(depths[1], 32)
        forms = [float(value_and_gradient(small, f)) for f in ("last-dropped", "subset-sum")]
        assert abs(forms[0] / forms[1] - 1) < 1e-10, "the forms must agree"
    base = 0.0
    for units in UNITS:
        rng = np.random.default_rng(units)
        half = units // 2
        weights = [rng.standard_normal(s) for s in ((half, 3), (half, half), (2, half))]
        exact, brute = float(deep_linear.explicit_regularizer(weights, KEEP)), enumerated(weights)
        assert abs(exact / brute - 1) < 1e-10, "enumeration must agree"
        seconds = cpu_seconds(lambda weights=weights: enumerated(weights), 3)
        base = base or seconds
        note("all masks, by units", units, seconds, base)
    options.json.parent.mkdir(parents=True, exist_ok=True)
    options.json.write_text(
        json.dumps({"threads": options.threads, "width": options.width, "rows": rows}, indent=1) + "\n"
    )
    print(f"\nwrote {options.json}")


if __name__ == "__main__":
    main()
