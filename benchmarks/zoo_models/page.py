"""The tables of the benchmark of models, and the page that is made of them."""

from __future__ import annotations

from typing import Any

__all__ = ["page", "table"]

SHRINKS = 0.95  # of the parameters at most are left where a model counts as shrunk


def shrinks(row: dict[str, Any]) -> bool:
    one = row.get("zeroed", {})
    return "error" not in one and one.get("left", 1.0) < SHRINKS and bool(one.get("exact"))


def rival_works(row: dict[str, Any]) -> bool:
    return bool(row.get("rival", {}).get("works"))


def table(results: dict[str, Any]) -> str:
    """The summary by family, as Markdown."""
    families = list(dict.fromkeys(key.partition(": ")[0] for key in results))
    lines = [
        "| family | models | shrink exactly | at least 90 % removable | errors | reload | Torch-Pruning works |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    for family in [*families, "all"]:
        rows = [row for key, row in results.items() if family in ("all", key.partition(": ")[0])]
        good = [row["zeroed"] for row in rows if "error" not in row.get("zeroed", {"error": ""})]
        lines.append(
            f"| {family} | {len(rows)} | {sum(map(shrinks, rows))} | {sum(one['removable'] >= 0.9 for one in good)} | "
            f"{len(rows) - len(good)} | {sum(one['reload'] is True for one in good)} | {sum(map(rival_works, rows))} |"
        )
    return "\n".join(lines)


def page(results: dict[str, Any]) -> str:
    """`docs/models.md`: which models shrink, how much of them, and what stays."""
    parts = [HEAD, table(results), MIDDLE]
    for family in dict.fromkeys(key.partition(": ")[0] for key in results):
        parts += [f"\n## {TITLES.get(family, family)}\n", COLUMNS]
        parts += [line(key.partition(": ")[2], row) for key, row in results.items() if key.partition(": ")[0] == family]
    trained = [(key, row["trained"]) for key, row in results.items() if "trained" in row]
    if trained:
        parts += [TRAINED]
        parts += [
            f"| {key} | {one['sparsity']:.2f} | {one['left']:.2f} | {'yes' if one['exact'] else 'no'} |"
            if "error" not in one
            else f"| {key} | {one['error']} | | |"
            for key, one in trained
        ]
    return "\n".join(parts) + "\n"


def line(name: str, row: dict[str, Any]) -> str:
    one, rival = row.get("zeroed", {}), row.get("rival", {})
    other = f"{rival['left']:.2f}" if rival_works(row) else "fails" if rival.get("error") else "-"
    if "left" in rival and not rival_works(row):
        other = "removes nothing"
    if "removable" not in one:
        return f"| {name} | {row.get('parameters', 0):,} | {row.get('error', one.get('error', ''))} | | | | | {other} |"
    stays = "; ".join(short(reason) for reason in list(one["kept"])[:2]) if one["removable"] < 0.9 else ""
    back = "yes" if one["reload"] is True else "no"
    return (
        f"| {name} | {row['parameters']:,} | {one['removable']:.2f} | {one['left']:.2f} | {one['difference']:.0e} | "
        f"{back} | {stays} | {other} |"
    )


REASONS = (
    ("mean and variance over all", "the stream that a layer norm averages"),
    ("takes mean", "the stream that a norm averages"),
    ("runs over channels", "sums over channels"),
    ("heads cannot go alone", "heads of `nn.MultiheadAttention`"),
    ("rectangle", "heads of fixed size"),
    ("does not follow", "sizes that the code states"),
    ("vocabulary", "the vocabulary"),
    ("output of the model", "outputs"),
    ("fixed size", "what is combined with tensors of fixed size"),
)


def short(reason: str) -> str:
    """A reason without the name of the layer."""
    return next((words for part, words in REASONS if part in reason), reason)


TITLES = {
    "transformers": "Hugging Face transformers",
    "torchvision": "torchvision",
    "timm": "timm",
    "plain": "Plain PyTorch",
}
HEAD = """# Which models shrink

This page is written by `python benchmarks/zoo.py --page docs/models.md`. Every architecture has random weights and a
small configuration, so that its vocabulary and its head do not dominate. Half of every family of groups that
`obverse.graph.removable` finds is zeroed, and [compact](compact.md) takes it out. A model *shrinks exactly* if fewer
than 95 % of its parameters are left and the outputs differ by at most 1e-10 of the largest one, or 1, in float64: on
the given inputs, on random ones, on ones a hundred times larger, and on another batch size and length where the model
takes them.

The models of transformers and of plain PyTorch need nothing but what the tests need. Those of torchvision and timm, and
Torch-Pruning, have an environment of their own:

```
python -m venv zoo && zoo/bin/pip install -e . -r benchmarks/zoo-requirements.txt
zoo/bin/python benchmarks/zoo.py --train --page docs/models.md
```
"""
MIDDLE = """
*Removable* is the share of the parameters that belong to a channel, unit or head that training may zero and `compact`
then takes out. *Left* is what remains with half of each gone. The last column is what Torch-Pruning 1.6
(`MetaPruner`, ratio 0.5, group magnitude, the last layer ignored) leaves of the same model in the same process; it
prunes channels that are not zero, so the function changes. Thirteen decoders were given to it with cached outputs,
which it cannot take (bart, gemma, gemma2, llama, marian, mistral, olmo2, phi, qwen2, qwen3, stablelm, t5, whisper):
read their failures as not measured. The script leaves caches out now.

What cannot go exactly stays whole and is named: a stream that a layer norm averages over (its mean and variance would
change), weights that are standardized before use, response norms whose eps is no attribute, and gates that mix
positions by weights of a fixed size.
"""
COLUMNS = """| model | parameters | removable | left | difference | file | what stays | Torch-Pruning |
| --- | --- | --- | --- | --- | --- | --- | --- |"""
TRAINED = """
## After training

Twenty steps with `Sparsifier(groups="channels", budget=0.5, example_inputs=...)`: the sparsity counts the removable
parameters.

| model | sparsity reached | parameters left | exact |
| --- | --- | --- | --- |"""
