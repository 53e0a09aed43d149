"""Numbers and names as people read them; everything that goes into a page is escaped here."""

from __future__ import annotations

import html
import math

PREFIXES = {-12: "p", -9: "n", -6: "µ", -3: "m", 0: "", 3: "k", 6: "M", 9: "G", 12: "T"}
# Units that take a prefix; a decibel, a degree or a radian does not become a milliradian in a table by itself.
PREFIXED = frozenset({"W", "V", "A", "Hz", "s", "ohm", "K", "rad/K", "V/decade", "1/s", "rad"})
SHOWN = {"ohm": "Ω", "C": "°C", "1": "", "1/sqrt(s)": "1/√s"}


def escape(text: object) -> str:
    """For text and attributes of HTML and SVG."""
    return html.escape(str(text), quote=True)


def scaled(value: float, unit: str) -> tuple[float, str]:
    """(factor, unit with prefix) in which a value has one to three digits before its point."""
    shown = SHOWN.get(unit, unit)
    if unit not in PREFIXED or value == 0.0 or not math.isfinite(value):
        return 1.0, shown
    exponent = min(12, max(-12, 3 * math.floor(math.log10(abs(value)) / 3)))
    if unit == "rad":
        exponent = min(0, exponent)
    return 10.0**-exponent, PREFIXES[exponent] + shown


def quantity(value: float, sigma: float, unit: str) -> tuple[str, str, str]:
    """(value, its uncertainty, unit) as text: two digits of the uncertainty, or six of a plain setting."""
    factor, shown = scaled(value, unit)
    v, s = value * factor, sigma * factor
    if not math.isfinite(v):
        return str(value), "", shown
    if s <= 0.0 or not math.isfinite(s):
        return _significant(v, 6), "", shown
    decimals = 1 - math.floor(math.log10(s))
    if decimals > 9:
        return _significant(v, 9), f"{s:.1e}", shown
    return f"{v:.{max(0, decimals)}f}", f"{s:.{max(0, decimals)}f}", shown


def _significant(value: float, digits: int) -> str:
    if value != 0.0 and not 1e-4 <= abs(value) < 1e9:
        return f"{value:.{digits - 1}e}"
    text = f"{value:.{digits}g}"
    return f"{float(text):.10f}".rstrip("0").rstrip(".") if "e" in text else text


def seconds(value: float) -> str:
    """A duration: 45 s, 30 min, 12 h, 7 days."""
    for limit, unit, size in ((120.0, "s", 1.0), (7200.0, "min", 60.0), (172_800.0, "h", 3600.0)):
        if value < limit:
            return f"{value / size:.3g} {unit}"
    return f"{value / 86_400.0:.3g} days"


def title(name: str) -> str:
    """heater_iv -> Heater IV: a name of a calibration as a heading."""
    words = [SPELLED.get(w, w) for w in name.split("_")]
    text = " ".join(words)
    return text[:1].upper() + text[1:]


SPELLED = {"iv": "I-V", "amzi": "AMZI", "tec": "TEC", "voa": "VOA", "vpi": "Vπ", "tia": "TIA"}
