"""A report as it is retained on `selftest`, and back: within what a message may hold, nothing that failed left out."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from datetime import datetime

from qmodd.messages import Check, SelftestReport
from qmodd.selftest.model import Finding, Level, Limits, Report, Verdict
from qmodd.selftest.words import verdict

MOST_BYTES = 192 * 1024
MOST_CHECKS = 1024
_NOT_IN_NAMES = re.compile(r"[^A-Za-z0-9_.-]")


def message(report: Report) -> SelftestReport:
    """What needs a person comes first; of what passed, as much as there is room for."""
    order = {Verdict.FAILED: 0, Verdict.WARNED: 1, Verdict.SKIPPED: 2, Verdict.PASSED: 3}
    ranked = sorted(range(len(report.findings)), key=lambda i: (order[report.findings[i].verdict], i))
    kept = ranked[:MOST_CHECKS]
    while True:
        told = _message(report, sorted(kept))
        size = len(told.payload())
        if size <= MOST_BYTES or not kept:
            return told
        kept = kept[: min(len(kept) - 1, int(len(kept) * MOST_BYTES / size))]


def _message(report: Report, kept: Sequence[int]) -> SelftestReport:
    return SelftestReport(
        level=report.level.value,
        passed=report.passed,
        taken=datetime.fromisoformat(report.taken),
        checks=[_check(report.findings[i]) for i in kept],
        side="alice" if report.side == "alice" else "bob",
        verdict=verdict(report)[:500],
        part=report.suspects[0][:64] if report.suspects else "",
        suspects=[s[:64] for s in report.suspects[:64]],
        seconds=round(report.seconds, 3),
        level_seconds={name: round(s, 3) for name, s in report.level_seconds.items()},
        assembly=report.serial[:32],
        firmware_sha256=report.firmware_sha256[:64],
        mahalanobis_t2=_finite(report.mahalanobis),
        left_out=len(report.findings) - len(kept),
    )


def _check(f: Finding) -> Check:
    limits = f.limits
    name = _NOT_IN_NAMES.sub("_", f.name)[:64]
    return Check(
        name=name if name[:1].isalnum() else f"x{name}"[:64],
        value=_finite(f.value),
        unit=f.unit[:32],
        low=_finite(limits.low),
        high=_finite(limits.high),
        ok=f.ok,
        why=f.why[:500],
        level=f.level.value,
        part=f.part[:64],
        verdict=f.verdict.value,
        warn_low=_finite(limits.warn_low),
        warn_high=_finite(limits.warn_high),
        sigma=f.sigma if math.isfinite(f.sigma) else 0.0,
        golden_z=_finite(f.golden_z),
    )


def _finite(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None


def report_of(told: SelftestReport, controller: str) -> Report:
    """For a table or a page: what a check needs is not told, the suspects are."""
    return Report(
        side=told.side,
        serial=told.assembly or controller,
        level=Level(told.level),
        taken=told.taken.isoformat(timespec="milliseconds"),
        seconds=told.seconds,
        findings=tuple(_finding(c) for c in told.checks),
        suspects=tuple(told.suspects),
        level_seconds=dict(told.level_seconds),
        mahalanobis=told.mahalanobis_t2,
        controller=controller,
        firmware_sha256=told.firmware_sha256,
    )


def _finding(c: Check) -> Finding:
    def bound(x: float | None, otherwise: float) -> float:
        return otherwise if x is None else x

    limits = Limits(
        bound(c.low, -math.inf), bound(c.high, math.inf), bound(c.warn_low, -math.inf), bound(c.warn_high, math.inf)
    )
    # A reason ends with its hint, after the first full stop; before it is what value and limits say already.
    hint = c.why.partition(". ")[2]
    return Finding(
        name=c.name,
        value=float(c.value) if isinstance(c.value, int | float) else math.nan,
        unit=c.unit,
        limits=limits,
        part=c.part,
        hint=hint,
        skipped=c.why.removeprefix("not judged: ") if c.verdict == "skipped" else "",
        sigma=c.sigma,
        level=Level(c.level),
        golden_z=c.golden_z,
    )
