"""What became of a model after its run: smaller with a certificate, timed with a receipt."""

from __future__ import annotations

from typing import Any

from ._record import Record
from ._wording import MISSING, amount, byte_size, count, factor, number, percent

__all__ = ["shipping_section"]

# Rows beyond these say little.
_MOST = 160
_NAMES = {"dense": "dense", "accelerated": "fastest products", "dense bf16": "dense bfloat16", "dynamic int8": "int8"}


def shipping_section(record: Record) -> dict[str, Any] | None:
    """What the template shows of ``certificate`` and ``receipt``; None where there is neither."""
    certificate, receipt = record.record("certificate"), record.record("receipt")
    section = {
        "costs": _costs(certificate),
        "differences": _differences(certificate),
        "worst": _worst(certificate),
        "changes": _changes(certificate),
        "kept": _kept(certificate),
        "notes": [str(note)[:300] for note in [*certificate.items("folded"), *certificate.items("notes")]][:_MOST],
        "times": _times(receipt),
        "machine": _machine(receipt),
    }
    return section if section["costs"] or section["times"] else None


def _costs(certificate: Record) -> list[dict[str, Any]]:
    """Before and after, each with the share that is left."""
    rows = []
    for name, field, shown in (
        ("Parameters", "parameters", count),
        ("Multiply-accumulates of the example batch", "macs", count),
        ("Parameters and buffers", "bytes", byte_size),
    ):
        before, after = certificate.number(f"before.{field}"), certificate.number(f"after.{field}")
        if before is None or after is None or before <= 0:
            continue
        share = min(1.0, max(0.0, after / before))
        rows.append(
            {
                "name": name,
                "before": shown(before),
                "after": shown(after),
                "width": f"{100 * share:.2f}%",
                "share": percent(share),
            }
        )
    return rows


def _differences(certificate: Record) -> list[list[str]]:
    return [
        [
            one.text("inputs", 40),
            one.text("dtype", 40),
            number(one.number("difference")),
            number(one.number("scale")),
        ]
        for one in certificate.records("differences")
    ]


def _worst(certificate: Record) -> str:
    """The largest difference in double precision, where only a wrong plan could make one."""
    found = [one.number("difference") for one in certificate.records("differences") if one.text("dtype") == "float64"]
    known = [value for value in found if value is not None]
    return number(max(known)) if known else ""


def _changes(certificate: Record) -> list[list[str]]:
    rows = []
    for one in certificate.records("changes")[:_MOST]:
        before, after = count(one.number("before")), count(one.number("after"))
        rows.append([one.text("tensor"), one.text("axis", 12), before, after, one.text("why", 200)])
    return rows


def _kept(certificate: Record) -> list[list[str]]:
    return [
        [one.text("tensor"), count(one.number("channels")), one.text("reason", 300)]
        for one in certificate.records("refusals")[:_MOST]
    ]


def _times(receipt: Record) -> list[list[str]]:
    """One row for each model, batch size and way to compute it."""
    rows = []
    models = receipt.get("receipts")
    for model, batches in models.items() if isinstance(models, dict) else ():
        for batch, found in batches.items() if isinstance(batches, dict) else ():
            one = Record(found)
            for way, label in _NAMES.items():
                took = one.record("seconds").record(way)
                if took.number("median") is None:
                    continue
                gain = one.record("speedups").record(way)
                rows.append(
                    [
                        str(model)[:60],
                        str(batch)[:12],
                        label,
                        _milliseconds(took.number("median")),
                        f"{_milliseconds(took.number('low'))} to {_milliseconds(took.number('high'))}",
                        MISSING if way == "dense" else factor(gain.number("median")),
                    ]
                )
    return rows[:_MOST]


def _milliseconds(seconds: float | None) -> str:
    return MISSING if seconds is None else f"{number(1e3 * seconds)}\N{NO-BREAK SPACE}ms"


def _machine(receipt: Record) -> str:
    """Where it was timed, from the first receipt."""
    models = receipt.get("receipts")
    for batches in models.values() if isinstance(models, dict) else ():
        for found in batches.values() if isinstance(batches, dict) else ():
            one = Record(found)
            parts = [one.text("machine", 80), one.text("device", 40), one.text("dtype", 20)]
            threads, rounds = one.number("threads"), one.number("repeats")
            parts += [amount(threads, "thread")] if threads else []
            parts += [f"median of {count(rounds)} rounds"] if rounds else []
            return ", ".join(part for part in parts if part)
    return ""
