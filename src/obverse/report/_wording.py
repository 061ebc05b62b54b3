"""Numbers and counts as a reader wants to see them. A missing value becomes an en dash, never an error."""

from __future__ import annotations

import math

__all__ = [
    "MISSING",
    "TIMES",
    "amount",
    "axis_number",
    "axis_percent",
    "byte_size",
    "count",
    "duration",
    "factor",
    "number",
    "percent",
    "plural",
]

# By name: on screen they are hard to tell from their ASCII cousins.
MISSING = "\N{EN DASH}"
TIMES = "\N{MULTIPLICATION SIGN}"
_MINUS = "\N{MINUS SIGN}"
# Keeps a number and its unit on one line.
_GAP = "\N{NO-BREAK SPACE}"


def percent(fraction: float | None, digits: int | None = None) -> str:
    """A fraction as percent; the digits grow towards 0 and 100 %, so that 99.95 % does not read 100 %."""
    if fraction is None or not math.isfinite(fraction):
        return MISSING
    value = 100 * fraction
    if digits is None:
        distance = min(abs(value), abs(100 - value))
        digits = 0 if distance == 0 else 1 if distance >= 10 else 2
    text = f"{value:.{digits}f}"
    if value < 100 and float(text) >= 100:
        # Rounding must not turn "almost all" into "all".
        text = f"{math.floor(value * 10**digits) / 10**digits:.{digits}f}"
    return f"{text}%"


def number(value: float | None, digits: int = 3) -> str:
    """A number to ``digits`` significant digits."""
    if value is None or math.isnan(value):
        return MISSING
    if math.isinf(value):
        return "∞" if value > 0 else f"{_MINUS}∞"
    if value == 0:
        return "0"
    if 1e-3 <= abs(value) < 1e6:
        # Whole digits are never rounded away: 1234.5 is 1234, not 1230.
        places = max(0, digits - 1 - math.floor(math.log10(abs(value))))
        text = f"{value:,.{places}f}"
        text = text.rstrip("0").rstrip(".") if "." in text else text
    else:
        mantissa, exponent = f"{value:.{digits - 1}e}".split("e")
        mantissa = mantissa.rstrip("0").rstrip(".") if "." in mantissa else mantissa
        power = _superscript(int(exponent))
        text = f"10{power}" if mantissa == "1" else f"{mantissa}·10{power}"
    return text.replace("-", _MINUS)


def axis_number(value: float) -> str:
    """A tick label: short, with k and M for thousands and millions."""
    for size, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if size <= abs(value) < 1e12:
            return f"{value / size:.4g}{letter}".replace("-", _MINUS)
    return number(value)


def count(value: float | None) -> str:
    """A count with separators of thousands."""
    if value is None or not math.isfinite(value):
        return MISSING
    return f"{round(value):,}"


def axis_percent(value: float | None) -> str:
    """A tick label of a fraction, in percent."""
    return "" if value is None else f"{number(100 * value)}%"


def byte_size(value: float | None) -> str:
    """A size in bytes with a decimal unit: 1 kB is 1,000 bytes."""
    if value is None or not math.isfinite(value):
        return MISSING
    for size, unit in ((1e12, "TB"), (1e9, "GB"), (1e6, "MB"), (1e3, "kB")):
        if abs(value) >= size * 0.9995:
            scaled = value / size
            return f"{scaled:.{0 if scaled >= 99.95 else 1 if scaled >= 9.995 else 2}f}{_GAP}{unit}"
    return f"{value:.0f}{_GAP}B"


def factor(value: float | None) -> str:
    """A ratio, such as 14.2×."""
    if value is None or not math.isfinite(value) or value <= 0:
        return MISSING
    return f"{value:,.{0 if value >= 99.95 else 1 if value >= 9.995 else 2}f}{TIMES}"


def duration(seconds: float | None) -> str:
    """A time span in the two largest units that matter."""
    if seconds is None or not math.isfinite(seconds) or seconds < 0:
        return MISSING
    if seconds < 9.95:
        return f"{seconds:.1f}{_GAP}s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole}{_GAP}s"
    if whole < 3600:
        return f"{whole // 60}{_GAP}min {whole % 60:02d}{_GAP}s"
    return f"{whole // 3600:,}{_GAP}h {whole % 3600 // 60:02d}{_GAP}min"


def plural(amount: int, one: str, many: str | None = None) -> str:
    """``1 seed``, ``3 seeds``."""
    return f"{amount:,} {one if amount == 1 else many or one + 's'}"


def amount(value: float | None, one: str, many: str | None = None) -> str:
    """``3 seeds`` from a number that may be missing or infinite; empty then."""
    return "" if value is None or not math.isfinite(value) else plural(round(value), one, many)


def _superscript(exponent: int) -> str:
    return str(exponent).translate(str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹"))
