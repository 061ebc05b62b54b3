"""How small is the file of a sparse network? LeNet-300-100, against the entropy of its mask plus its values.

    python benchmarks/size.py [--json size.json] [--sparsities 0.9 0.95 0.98 0.99]

The bound is what no code of the mask can beat on average, ``n H(k/n)`` bits per tensor for ``k`` of ``n`` entries at
random places, plus 32 bits per value that is not zero. Beside the file that `obverse.save` writes stand the dense
safetensors file, the same through gzip at its best, and CSR with 64-bit indices, as torch has it, and with 32-bit ones.
Zeros are where the smallest weights of a network with random weights are, per layer; sizes do not depend on values.
"""

from __future__ import annotations

import argparse
import gzip
import json
import math
import sys
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save as to_bytes
from torch import nn

from obverse.compact import file_bytes
from obverse.compact._file import encoded_model, load
from obverse.training import build_model

GOAL = 1.15
AT = 0.98


def thinned(sparsity: float) -> nn.Module:
    torch.manual_seed(0)
    model = build_model("lenet-300-100", (1, 28, 28), 10)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter[parameter.abs() <= parameter.abs().flatten().quantile(sparsity)] = 0
    return model


def bound(model: nn.Module) -> float:
    """Bytes of mask and values."""
    bits = 0.0
    for parameter in model.parameters():
        n, k = parameter.numel(), int(parameter.count_nonzero())
        p = k / n
        bits += 32 * k + (0.0 if p in (0, 1) else -n * (p * math.log2(p) + (1 - p) * math.log2(1 - p)))
    return bits / 8


def compressed_rows(model: nn.Module, index: torch.dtype) -> int:
    """Bytes of a safetensors file with every matrix as CSR."""
    stored: dict[str, torch.Tensor] = {}
    for name, value in model.state_dict().items():
        if value.ndim != 2:
            stored[name] = value
            continue
        mask = value != 0
        pointers = torch.zeros(len(value) + 1, dtype=index)
        pointers[1:] = mask.sum(1).cumsum(0)
        stored |= {
            f"{name}.crow": pointers,
            f"{name}.col": mask.nonzero()[:, 1].to(index).contiguous(),
            f"{name}.values": value[mask],
        }
    return len(to_bytes(stored))


def comes_back(model: nn.Module, folder: Path) -> bool:
    """Whether a fresh network that reads the file has every bit of the weights."""
    file = folder / ".size-benchmark.safetensors"
    try:
        file.write_bytes(encoded_model(model))
        fresh = load(file, into=build_model("lenet-300-100", (1, 28, 28), 10)).state_dict()
    finally:
        file.unlink(missing_ok=True)
    return all(
        value.view(torch.int32).equal(fresh[name].view(torch.int32)) for name, value in model.state_dict().items()
    )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--sparsities", type=float, nargs="+", default=[0.9, 0.95, 0.98, 0.99])
    arguments = parser.parse_args()
    results: dict[str, Any] = {}
    names = " ".join(f"{name:>7}" for name in ("ours", "dense", "gzip", "CSR 64", "CSR 32"))
    print(f"{'zeros':>6} {'bound':>9} {names}   bytes as ratios to the bound")
    whole = True
    for sparsity in arguments.sparsities:
        model = thinned(sparsity)
        least = bound(model)
        dense = to_bytes(model.state_dict())
        sizes = {
            "ours": file_bytes(model),
            "dense": len(dense),
            "gzip": len(gzip.compress(dense, 9)),
            "csr_int64": compressed_rows(model, torch.int64),
            "csr_int32": compressed_rows(model, torch.int32),
        }
        exact = comes_back(model, Path.cwd())
        whole = whole and exact
        ratios = {name: size / least for name, size in sizes.items()}
        results[f"{sparsity:g}"] = {"bound": least, "bytes": sizes, "ratios": ratios, "bit_for_bit": exact}
        print(f"{sparsity:>6.1%} {least:>9,.0f} " + " ".join(f"{ratio:>7.2f}" for ratio in ratios.values()), flush=True)
    if arguments.json is not None:
        payload = {"network": "lenet-300-100", "goal": GOAL, "sparsities": results}
        arguments.json.write_text(json.dumps(payload, indent=1) + "\n")
    met = f"{AT:g}" not in results or results[f"{AT:g}"]["ratios"]["ours"] <= GOAL
    return 0 if met and whole else 1


if __name__ == "__main__":
    sys.exit(main())
