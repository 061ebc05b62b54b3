"""Which models shrink? Public architectures, each in a process of its own, beside Torch-Pruning.

    python benchmarks/zoo.py [--json zoo.json] [--families transformers plain] [--only NAME ...] [--train] [--export]
                             [--limit 600] [--again NAME ...] [--page docs/models.md]

For every architecture the families of groups that `obverse.graph.removable` finds are counted, half of each family is
zeroed, and `obverse.compact` takes it out: printed are the share of the parameters that is removable, what is left, the
largest difference of the outputs in float64 (also relative to the largest output), whether the result comes back
through `save` and `load`, and the seconds of the analysis. With `--train` a subset trains 20 steps to a sparsity of
50 % with `Sparsifier(groups="channels", example_inputs=...)` and what `compact` leaves is counted. Torch-Pruning gets
the same model in the same process: `MetaPruner`, ratio 0.5, group magnitude, the last layer ignored. It works if the
pruned model runs with less than 95 % of the parameters; what it computes then is another function.

Rows that are in the results file are not measured again, but for those that `--again` names. Families whose library is
not installed are left out with a line. `docs/models.md` is written by `--page`.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import logging
import multiprocessing
import os
import sys
import tempfile
import time
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import nn

sys.path.insert(0, str(Path(__file__).parent))
from zoo_models import FAMILIES
from zoo_models.page import page, table

RESULTS = Path(__file__).parent / "results" / "zoo.json"
TRAINED = {
    "transformers": ("bert", "gpt2", "llama", "t5", "vit", "whisper"),
    "torchvision": ("resnet18", "mobilenet v2", "swin"),
    "timm": ("vit", "regnety_002", "convnext_atto"),
    "plain": ("lstm, both directions", "language model", "u-net", "densely connected", "perceptron"),
}
EXACT = 1e-10  # relative to the largest output or 1


def measured(family: str, name: str, *, train: bool, export: bool, rival: bool = True) -> Iterator[dict[str, Any]]:
    """One row of the results, after each of its parts; errors are kept in words."""
    torch.manual_seed(0)
    model, inputs = FAMILIES[family][name]()
    model.eval()
    row: dict[str, Any] = {"torch": torch.__version__, "parameters": sum(p.numel() for p in model.parameters())}
    parts = {"zeroed": lambda: zeroed(family, name, model, inputs, export)}
    if train and name in TRAINED[family]:
        parts["trained"] = lambda: trained(family, name)
    if rival and importlib.util.find_spec("torch_pruning"):
        parts["rival"] = lambda: pruned_by_rival(family, name)
    for part, measure in parts.items():
        yield row | {part: {"error": "it took too long"}}
        try:
            row[part] = measure()
        except Exception as error:  # the benchmark's question is whether there are any
            row[part] = {"error": f"{type(error).__name__}: {str(error).splitlines()[0][:200] if str(error) else ''}"}
    yield row


def zeroed(family: str, name: str, model: nn.Module, inputs: Any, export: bool) -> dict[str, Any]:
    """Half of every family is zeroed and taken out."""
    from obverse import compact, load, save
    from obverse.graph import as_inputs, outputs_of, removable

    total = sum(p.numel() for p in model.parameters())
    start = time.perf_counter()
    found = removable(model, inputs)
    seconds = time.perf_counter() - start
    named = dict(model.named_parameters(remove_duplicate=False))
    covered: dict[str, torch.Tensor] = {}
    with torch.no_grad():
        for group in found.families:
            half = len(group) // 2
            for key, axes in group.axes.items():
                marks = covered.setdefault(key, torch.zeros(named[key].shape, dtype=torch.bool))
                for axis, numbers in axes.items():
                    marks.index_fill_(axis, (numbers >= 0).nonzero()[:, 0], True)
                    named[key].index_fill_(axis, ((numbers >= 0) & (numbers < half)).nonzero()[:, 0], 0.0)
    start = time.perf_counter()
    small, certificate = compact(model, inputs)
    row: dict[str, Any] = {
        "removable": sum(int(marks.sum()) for marks in covered.values()) / total,
        "left": sum(p.numel() for p in small.parameters()) / total,
        "families": len(found.families),
        "seconds": round(seconds, 2),
        "compact_seconds": round(time.perf_counter() - start, 2),
    }
    wide = [one for one in certificate.differences if one.dtype == "float64"]
    row["difference"] = max(one.difference for one in wide)
    row["relative"] = max(one.difference / one.scale if one.scale else one.difference for one in wide)
    row["exact"] = all(one.difference <= EXACT * max(1.0, one.scale) for one in wide)
    row["probes"] = [one.inputs for one in wide]
    reasons: dict[str, int] = {}
    for key, reason in found.kept.items():
        reasons[reason] = reasons.get(reason, 0) + named[key].numel() if key in named else 0
    row["kept"] = dict(sorted(reasons.items(), key=lambda one: -one[1])[:4])
    row["notes"] = [note for note in certificate.notes if "stay whole" in note or "refused" in note][:2]
    given = as_inputs(inputs)
    with tempfile.TemporaryDirectory() as folder:
        try:
            save(small, Path(folder) / "small.safetensors")
            torch.manual_seed(1)
            again = load(Path(folder) / "small.safetensors", into=FAMILIES[family][name]()[0]).eval()
            with torch.no_grad():
                pairs = zip(outputs_of(given.call(again)), outputs_of(given.call(small.eval())), strict=True)
                row["reload"] = all(torch.equal(a, b) for a, b in pairs) or "the outputs differ"
        except Exception as error:
            row["reload"] = f"{type(error).__name__}: {str(error)[:200]}"
        if export:
            from obverse.compact import export_program

            try:
                row["export"] = export_program(small, inputs, Path(folder) / "small.pt2").difference
            except Exception as error:
                row["export"] = f"{type(error).__name__}: {str(error)[:200]}"
    return row


def trained(family: str, name: str) -> dict[str, Any]:
    """Twenty steps to a sparsity of 50 % of the removable parameters."""
    from obverse import Sparsifier, compact
    from obverse.graph import as_inputs, outputs_of

    torch.manual_seed(0)
    model, inputs = FAMILIES[family][name]()
    model.train()
    total = sum(p.numel() for p in model.parameters())
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    given = as_inputs(inputs)
    sparsifier = Sparsifier(model, optimizer, groups="channels", budget=0.5, total_steps=20, example_inputs=inputs)
    for _ in range(20):
        optimizer.zero_grad()
        outputs = [one for one in outputs_of(given.call(model)) if one.is_floating_point() and one.requires_grad]
        sum((one.square().mean() for one in outputs), torch.zeros(())).backward()
        optimizer.step()
        sparsifier.step()
    sparsity = sparsifier.sparsity
    sparsifier.finish()
    small, certificate = compact(model.eval(), inputs)
    wide = [one for one in certificate.differences if one.dtype == "float64"]
    return {
        "sparsity": float(sparsity),
        "left": sum(p.numel() for p in small.parameters()) / total,
        "exact": all(one.difference <= EXACT * max(1.0, one.scale) for one in wide),
    }


def pruned_by_rival(family: str, name: str) -> dict[str, Any]:
    """Torch-Pruning on a fresh model: what is left."""
    import torch_pruning

    from obverse.graph import as_inputs

    torch.manual_seed(0)
    model, inputs = FAMILIES[family][name]()
    model.eval()
    if hasattr(model, "config"):
        model.config.use_cache = False  # it does not look into caches among the outputs
    total = sum(p.numel() for p in model.parameters())
    last = [module for module in model.modules() if isinstance(module, nn.Linear | nn.modules.conv._ConvNd)][-1]
    start = time.perf_counter()
    pruner = torch_pruning.pruner.MetaPruner(
        model,
        inputs,
        importance=torch_pruning.importance.GroupMagnitudeImportance(p=2),
        pruning_ratio=0.5,
        ignored_layers=[last],
    )
    seconds = time.perf_counter() - start
    pruner.step()
    with torch.no_grad():
        as_inputs(inputs).call(model)
    left = sum(p.numel() for p in model.parameters()) / total
    return {"left": left, "works": left < 0.95, "seconds": round(seconds, 2)}


def in_own_process(family: str, name: str, options: argparse.Namespace) -> dict[str, Any]:
    """A row, measured by a process that is forked for it, as far as it got within the time limit."""
    context = multiprocessing.get_context("fork")
    ours, theirs = context.Pipe(duplex=False)

    def work() -> None:
        warnings.simplefilter("ignore")
        logging.disable(logging.WARNING)
        for row in measured(family, name, train=options.train, export=options.export):
            theirs.send(row)

    process = context.Process(target=work)
    process.start()
    theirs.close()
    end = time.monotonic() + options.limit
    row: dict[str, Any] = {"error": f"it took more than {options.limit:g} s"}
    try:
        while ours.poll(max(0.0, end - time.monotonic())):
            row = ours.recv()
    except EOFError:
        process.join()
        if process.exitcode:
            row |= {"error": f"the process ended with exit status {process.exitcode}"}
    finally:
        process.kill()
        process.join()
    return row


def installed(family: str) -> bool:
    try:
        __import__(family) if family != "plain" else None
    except ImportError:
        print(f"{family} is not installed: its models are left out")
        return False
    return True


def run(options: argparse.Namespace) -> dict[str, Any]:
    """Measure what is missing in the results file, which is written after every row."""
    results: dict[str, Any] = json.loads(options.json.read_text()) if options.json.exists() else {}
    for family in options.families:
        if not installed(family):
            continue
        for name in FAMILIES[family]:
            key = f"{family}: {name}"
            if (options.only and name not in options.only) or (key in results and name not in (options.again or ())):
                continue
            results[key] = in_own_process(family, name, options)
            text = json.dumps(dict(sorted(results.items())), indent=1)
            partial = options.json.with_suffix(".part")
            partial.write_text(text + "\n")
            os.replace(partial, options.json)
            print(key, summary(results[key]), flush=True)
    return results


def summary(row: dict[str, Any]) -> str:
    if "error" in row or "error" in row.get("zeroed", {}):
        return str(row.get("error", row.get("zeroed", {}).get("error")))
    one = row["zeroed"]
    rival = row.get("rival", {})
    return (
        f"removable {one['removable']:.2f} left {one['left']:.2f} difference {one['difference']:.1e} "
        f"reload {one['reload']} {one['seconds']} s | rival {rival.get('left', rival.get('error', ''))}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, default=RESULTS, help="results file")
    parser.add_argument("--families", nargs="+", default=list(FAMILIES), choices=list(FAMILIES))
    parser.add_argument("--only", nargs="+", help="names of models")
    parser.add_argument("--again", nargs="+", help="names of models to measure again")
    parser.add_argument("--train", action="store_true", help="train a subset to a sparsity of 50 %%")
    parser.add_argument("--export", action="store_true", help="write every small model with torch.export")
    parser.add_argument("--limit", type=float, default=600.0, help="seconds for one model")
    parser.add_argument("--page", type=Path, help="write the page of models here")
    options = parser.parse_args()
    torch.set_num_threads(1)
    results = run(options)
    print(table(results))
    if options.page:
        options.page.write_text(page(results))


if __name__ == "__main__":
    main()
