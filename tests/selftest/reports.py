"""Made-up reports of a module's self-test: healthy ones that differ from seed to seed, and spoilt ones."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np

from qmodd.selftest.blame import suspects
from qmodd.selftest.model import Finding, Level, Limits, Report, skipped

HEATERS = ("filter", "split", "phase", "shutter")


def healthy(seed: int, serial: str | None = None, level: Level = Level.LIGHT_ON) -> Report:
    rng = np.random.default_rng(seed)
    warm = rng.normal()
    findings = [
        Finding("opens.laser", 1.0, "", Limits.exactly(1.0), "laser"),
        Finding("rail_voltage", 4.0 + 0.02 * rng.normal(), "V", Limits(3.8, 4.2, 3.85, 4.15), "heater_rail"),
        Finding("disk_free", 8e9, "B", Limits(low=1e9), "disk"),
    ]
    for name in HEATERS:
        # Resistances of one chip are alike: the same wafer.
        ohm = 90.0 + 4.0 * warm + 0.5 * rng.normal()
        findings.append(
            Finding(
                f"resistance.{name}",
                ohm,
                "ohm",
                Limits(60.0, 130.0),
                f"heater {name}",
                ("heater_dac",),
                sigma=0.1,
                level=Level.LIGHT_OFF,
            )
        )
    findings.append(Finding("loss.input", 3.0, "dB", Limits(high=4.5), "path input", level=Level.LIGHT_ON))
    return report(findings, serial or f"QM-A-{seed:04d}", level)


def report(findings: list[Finding], serial: str = "QM-A-0001", level: Level = Level.LIGHT_ON) -> Report:
    spent = {f.level.value: 3.0 for f in findings}
    taken = "2026-01-01T00:00:12.345+00:00"
    return Report("alice", serial, level, taken, 42.0, tuple(findings), suspects(findings), spent)


def changed(base: Report, name: str, value: float, hint: str = "") -> Report:
    """The same report with another value."""
    findings = [replace(f, value=value, hint=hint) if f.name == name else f for f in base.findings]
    return replace(base, findings=tuple(findings), suspects=suspects(findings))


def broken() -> Report:
    """Heater split is open; what needs it fails or is left out."""
    base = changed(healthy(1), "resistance.split", 4.2e5, "open circuit; replace the chip")
    findings = [
        *base.findings,
        Finding(
            "p_pi.split",
            math.nan,
            "W",
            Limits(0.026, 0.056),
            "path amzi",
            ("heater split",),
            hint="no fringe",
            level=Level.LIGHT_ON,
        ),
        replace(skipped("crosstalk.split", "heater split", "heater split has failed"), level=Level.LIGHT_ON),
    ]
    return report(findings)
