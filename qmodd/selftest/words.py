"""What a report says in a sentence, for the top of a page, a terminal and an alarm."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence

from qmodd.report.text import scaled
from qmodd.selftest.model import Finding, Report, Verdict

LONGEST = 400


def verdict(report: Report) -> str:
    """`passed: 48 checks` or `failed: heater split: open circuit; replace the chip`."""
    counted = Counter(f.verdict for f in report.findings)
    left_out = f", {counted[Verdict.SKIPPED]} not judged" if counted[Verdict.SKIPPED] else ""
    if not report.passed:
        return f"failed: {cause(report)}"
    judged = counted[Verdict.PASSED] + counted[Verdict.WARNED]
    if counted[Verdict.WARNED]:
        return f"passed with {counted[Verdict.WARNED]} unusual of {judged} values{left_out}"
    return f"passed: {judged} values within their limits{left_out}"


def cause(report: Report) -> str:
    """The part that is to blame first, and what was seen there and is to be done."""
    if not report.suspects:
        return "nothing is to blame"
    part = report.suspects[0]
    first = evidence(report, part)[0]
    said = (first.hint or first.why).removeprefix(f"{part}: ").removeprefix(f"{part} ")
    return f"{part}: {said}{_read(first) if first.hint else ''}"


def _read(finding: Finding) -> str:
    """What was read and what is allowed, where the hint cannot have said it."""
    if math.isnan(finding.value) or yes_or_no(finding):
        return ""
    return f" ({finding.name}: {shown(finding)}, allowed: {allowed(finding)})"


def evidence(report: Report, part: str) -> list[Finding]:
    """Failures that stand against a part; those that say what to do come first."""
    own = [f for f in report.failed if f.part == part]
    return sorted(own, key=lambda f: not f.hint)


def reasons(report: Report) -> str:
    """For an alarm: suspects and the first reasons, short enough for its `why`."""
    others = f"; then {', '.join(report.suspects[1:4])}" if len(report.suspects) > 1 else ""
    text = f"{cause(report)}{others}"
    return text if len(text) <= LONGEST else text[: LONGEST - 1] + "…"


def yes_or_no(finding: Finding) -> bool:
    """A finding that is in order or is not, without a size."""
    limits = finding.limits
    return not finding.unit and limits.low == limits.high and limits.low in (0.0, 1.0) and finding.value in (0.0, 1.0)


def shown(finding: Finding) -> str:
    """Value, its uncertainty and unit, with the unit's prefix; what has no size is yes or no; "-" without a value."""
    if math.isnan(finding.value):
        return "-"
    if yes_or_no(finding):
        return "yes" if finding.value else "no"
    factor, unit = scaled(finding.value, finding.unit)
    sigma = f" ± {finding.sigma * factor:.2g}" if finding.sigma > 0.0 else ""
    return f"{_plain(finding.value * factor)}{sigma} {unit}".strip()


def allowed(finding: Finding) -> str:
    """The alarm limits in words; "-" where there are none."""
    low, high = finding.limits.low, finding.limits.high
    if math.isinf(low) and math.isinf(high):
        return "-"
    if yes_or_no(finding):
        return "yes" if low else "no"
    largest = max(abs(x) for x in (low, high) if math.isfinite(x))
    factor, unit = scaled(largest, finding.unit)
    if low == high:
        text = f"exactly {_plain(low * factor)}"
    elif math.isinf(low):
        text = f"at most {_plain(high * factor)}"
    elif math.isinf(high):
        text = f"at least {_plain(low * factor)}"
    else:
        text = f"{_plain(low * factor)} to {_plain(high * factor)}"
    return f"{text} {unit}".strip()


def _plain(value: float) -> str:
    """Five digits, thousands set apart; powers of ten only where they are shorter."""
    if value == 0.0 or 1e-3 <= abs(value) < 1e7:
        text = f"{value:,.{max(0, 4 - math.floor(math.log10(abs(value))))}f}" if value else "0"
        return text.rstrip("0").rstrip(".") if "." in text else text
    return f"{value:.3g}"


def by_level(findings: Sequence[Finding]) -> dict[str, list[Finding]]:
    """In the order of the levels' first findings."""
    out: dict[str, list[Finding]] = {}
    for f in findings:
        out.setdefault(f.level.value, []).append(f)
    return out
