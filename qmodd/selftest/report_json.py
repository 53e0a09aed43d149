"""A report as plain data for JSON, and back: files of reports are what a golden module's reference is made of."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from qmodd.selftest.golden import limits_sha256
from qmodd.selftest.model import Finding, Level, Limits, Report
from qmodd.selftest.words import verdict


def as_dict(report: Report) -> dict[str, Any]:
    """JSON has no infinity and no NaN: such limits and values are null."""
    return {
        "passed": report.passed,
        "verdict": verdict(report),
        "part": report.suspects[0] if report.suspects else "",
        "suspects": list(report.suspects),
        "side": report.side,
        "serial": report.serial,
        "controller": report.controller,
        "firmware_sha256": report.firmware_sha256,
        "limits_sha256": limits_sha256(report.findings),
        "level": report.level.value,
        "taken": report.taken,
        "seconds": round(report.seconds, 3),
        "level_seconds": {name: round(s, 3) for name, s in report.level_seconds.items()},
        "mahalanobis_t2": _finite(report.mahalanobis),
        "checks": [_check(f) for f in report.findings],
    }


def _check(f: Finding) -> dict[str, Any]:
    limits = f.limits
    return {
        "name": f.name,
        "level": f.level.value,
        "value": _finite(f.value),
        "unit": f.unit,
        "sigma": f.sigma,
        "low": _finite(limits.low),
        "high": _finite(limits.high),
        "warn_low": _finite(limits.warn_low),
        "warn_high": _finite(limits.warn_high),
        "golden_z": _finite(f.golden_z),
        "ok": f.ok,
        "verdict": f.verdict.value,
        "part": f.part,
        "needs": list(f.needs),
        "hint": f.hint,
        "why": f.why,
    }


def _finite(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None


def from_dict(raw: Mapping[str, Any]) -> Report:
    """What `as_dict` has written. Raises ValueError when a field is missing or does not fit."""
    try:
        return Report(
            side=str(raw["side"]),
            serial=str(raw["serial"]),
            level=Level(raw["level"]),
            taken=str(raw["taken"]),
            seconds=float(raw["seconds"]),
            findings=tuple(_finding(c) for c in raw["checks"]),
            suspects=tuple(str(s) for s in raw["suspects"]),
            level_seconds={str(k): float(v) for k, v in raw["level_seconds"].items()},
            mahalanobis=raw["mahalanobis_t2"],
            controller=str(raw.get("controller", "")),
            firmware_sha256=str(raw.get("firmware_sha256", "")),
        )
    except (KeyError, TypeError, AttributeError) as e:
        raise ValueError(f"not a report of `qmodd selftest --json`: {e!r}") from None


def _finding(c: Mapping[str, Any]) -> Finding:
    limits = Limits(
        _or(c["low"], -math.inf), _or(c["high"], math.inf), _or(c["warn_low"], -math.inf), _or(c["warn_high"], math.inf)
    )
    # A skipped check says so in its reason only.
    skipped = str(c["why"]).removeprefix("not judged: ") if c["verdict"] == "skipped" else ""
    return Finding(
        name=str(c["name"]),
        value=_or(c["value"], math.nan),
        unit=str(c["unit"]),
        limits=limits,
        part=str(c["part"]),
        needs=tuple(str(n) for n in c["needs"]),
        hint=str(c["hint"]),
        skipped=skipped,
        sigma=float(c["sigma"]),
        level=Level(c["level"]),
        golden_z=c["golden_z"],
    )


def _or(value: float | None, default: float) -> float:
    return default if value is None else float(value)
