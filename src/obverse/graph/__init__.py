"""Which tensors of a model live and die together, the model without some of them, and what it costs."""

from __future__ import annotations

from ._bisect import culprits, pattern_of
from ._bytes import estimated_bytes, stored_bytes
from ._channels import Channels
from ._copies import plain_copy, unwrapped
from ._costs import latency, macs, parameters, time_ratio
from ._dead import Verdict, judge
from ._dependencies import KINDS, Dependencies, Group, Slice, dependencies, grouped
from ._evaluation import evaluated, widest
from ._families import Family, Removable, removable
from ._flow import Flow, Knowledge, Read
from ._inputs import Inputs, as_inputs
from ._layers import register_layer, rescaled_eps
from ._precision import double_precision
from ._rebuild import Change, Rebuilt, rebuild
from ._timing import Interval, compare_times, interval_of
from ._watch import analyze, outputs_of

__all__ = [
    "KINDS",
    "Change",
    "Channels",
    "Dependencies",
    "Family",
    "Flow",
    "Group",
    "Inputs",
    "Interval",
    "Knowledge",
    "Read",
    "Rebuilt",
    "Removable",
    "Slice",
    "Verdict",
    "analyze",
    "as_inputs",
    "compare_times",
    "culprits",
    "dependencies",
    "double_precision",
    "estimated_bytes",
    "evaluated",
    "grouped",
    "interval_of",
    "judge",
    "latency",
    "macs",
    "outputs_of",
    "parameters",
    "pattern_of",
    "plain_copy",
    "rebuild",
    "register_layer",
    "removable",
    "rescaled_eps",
    "stored_bytes",
    "time_ratio",
    "unwrapped",
    "widest",
]
