"""Which cable is where it should not be: what each actuator moves, and which photodiode sees it (reference pair A2).

Light passes filter, carver, state and decoy modulator, shutter, in this order, and a photodiode stands after each: an
actuator moves every photodiode behind it and none before. Two exchanged cables exchange these patterns.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import combinations

from qmodd.selftest.alice_chain import HEATER_NAMES, MODULATORS, Sweep
from qmodd.selftest.heater_checks import cables
from qmodd.selftest.model import Finding, Limits

# A switch changes the light by ten and more; the AMZI's coupler by its long arm's loss, 20 to 40 %.
MOVED, RIPPLED = 1.0, 0.08
ORDER = ("filter", "carver", "state", "shutter")
# What each photodiode stands behind. "laser" is whether it sees light at all.
BEHIND = {
    "pa6": ("laser",),
    "pa0": ("laser", "filter"),
    "pa1": ("laser", "filter", "carver"),
    "pa3": ("laser", "filter", "carver", "state"),
    "pa4": ("laser", "filter", "carver", "state", "shutter"),
    "pa5": (),
}
# Behind shutter and attenuator: everything moves it, or the shutter keeps it dark.
LAST, LAST_PATTERNS = "pa7", ((), ("laser", "filter", "carver", "state", "shutter"))
LIT_A = 3e-9


def moved_by(sweeps: Mapping[str, Sweep], actuator: str) -> set[str]:
    return {d for d in sweeps[actuator].rows if sweeps[actuator].depth(d) > MOVED}


def heaters_exchanged(sweeps: Mapping[str, Sweep]) -> list[tuple[str, str]]:
    """By what each heater moves: filter most photodiodes, shutter one, the coupler a ripple, the phase nothing (the
    light does not interfere)."""
    counts = {h: len(moved_by(sweeps, h)) for h in HEATER_NAMES}
    ripples = {h: counts[h] < 2 and sweeps[h].depth("pa1", "pa0") > RIPPLED for h in HEATER_NAMES}
    kinds = {h: _kind(counts[h], ripples[h]) for h in HEATER_NAMES}
    own = {"filter": "most", "split": "ripple", "phase": "nothing", "shutter": "one"}
    return [
        (a, b)
        for a, b in combinations(HEATER_NAMES, 2)
        if kinds[a] == own[b] and kinds[b] == own[a] and kinds[a] != own[a]
    ]


def _kind(count: int, ripple: bool) -> str:
    if count >= 2:
        return "most"
    if ripple:
        return "ripple"
    return "one" if count == 1 else "nothing"


def modulators_exchanged(sweeps: Mapping[str, Sweep]) -> list[tuple[str, str]]:
    """Only the carver stands before the interferometer's second output. State and decoy look alike undriven."""
    before = [m for m in MODULATORS if sweeps[m].depth("pa1", "pa0") > MOVED]
    return [("carver", before[0])] if len(before) == 1 and before[0] != "carver" else []


def diodes_exchanged(sweeps: Mapping[str, Sweep], seen: Mapping[str, float]) -> list[tuple[str, str]]:
    """Pairs of photodiodes that each show the other's pattern and not their own."""
    patterns = {d: _pattern(sweeps, d, seen[d]) for d in BEHIND if d in seen}
    if LAST in seen:
        last = _pattern(sweeps, LAST, seen[LAST])
        for d, pattern in patterns.items():
            if last == BEHIND[d] and last not in LAST_PATTERNS and pattern in LAST_PATTERNS:
                return [(d, LAST)]
    return [
        (a, b)
        for a, b in combinations(patterns, 2)
        if BEHIND[a] != BEHIND[b] and patterns[a] == BEHIND[b] and patterns[b] == BEHIND[a]
    ]


def _pattern(sweeps: Mapping[str, Sweep], diode: str, amperes: float) -> tuple[str, ...]:
    lit = ("laser",) if amperes > LIT_A else ()
    return lit + tuple(a for a in ORDER if sweeps[a].depth(diode) > MOVED)


def renamed(names: Sequence[str], pairs: Sequence[tuple[str, str]]) -> dict[str, str]:
    """What is really behind each name."""
    out = {n: n for n in names}
    for a, b in pairs:
        out[a], out[b] = b, a
    return out


def findings(kind: str, pairs: Sequence[tuple[str, str]], every: Sequence[str]) -> list[Finding]:
    """One for each exchanged pair; one for all where there is none."""
    limits = Limits.exactly(0.0)
    if not pairs:
        return [Finding(f"exchanged.{kind}", 0.0, "", limits, cables(kind, every[0], every[1]))]
    hint = "each does what the other one should"
    return [Finding(f"exchanged.{kind}.{a}-{b}", 1.0, "", limits, cables(kind, a, b), (), hint) for a, b in pairs]
