"""What a self-test is made of: levels, limits, checks and their findings. No I/O here.

A check measures one thing or a few; each becomes a finding. A finding names the part that it tests and the parts that
it needs, so that the report can tell a broken part from what merely stands behind it (`qmodd.selftest.blame`).
"""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from qmodd.selftest.bench import Bench


class Level(StrEnum):
    """In the order in which they run; each level stands on those before it."""

    POWER_ON = "power-on"
    LIGHT_OFF = "light-off"
    LIGHT_ON = "light-on"
    PRODUCTION = "production"

    @property
    def upto(self) -> tuple[Level, ...]:
        """This level and those before it: what a run at this level runs."""
        levels = tuple(Level)
        return levels[: levels.index(self) + 1]


class Verdict(StrEnum):
    PASSED = "passed"
    WARNED = "warned"
    FAILED = "failed"
    SKIPPED = "skipped"


@dataclass(frozen=True)
class Limits:
    """Alarm limits and, within them, warning limits, as CMIS has them for a monitor; infinite where there is none."""

    low: float = -math.inf
    high: float = math.inf
    warn_low: float = -math.inf
    warn_high: float = math.inf

    def __post_init__(self) -> None:
        """Raises ValueError for limits that nothing can meet."""
        if not self.low <= self.high:
            raise ValueError(f"limits {self.low:g} to {self.high:g}: nothing is between them")

    @classmethod
    def around(cls, centre: float, allowed: float, warned: float = math.inf) -> Limits:
        """Symmetric: `allowed` and `warned` to each side of the centre."""
        return cls(centre - allowed, centre + allowed, centre - warned, centre + warned)

    @classmethod
    def exactly(cls, value: float) -> Limits:
        return cls(value, value)

    def judge(self, value: float) -> Verdict:
        """A value that is not a number fails."""
        if not self.low <= value <= self.high:
            return Verdict.FAILED
        return Verdict.PASSED if self.warn_low <= value <= self.warn_high else Verdict.WARNED

    def say(self, unit: str = "") -> str:
        """What is allowed, for people."""
        tail = f" {unit}" if unit not in ("", "1") else ""
        if self.low == self.high:
            return f"exactly {self.low:g}{tail}"
        if math.isinf(self.low):
            return f"at most {self.high:g}{tail}"
        if math.isinf(self.high):
            return f"at least {self.low:g}{tail}"
        return f"{self.low:g} to {self.high:g}{tail}"


@dataclass(frozen=True)
class Finding:
    """One measured thing of one check.

    name: unique within a report, snake_case, unit not in it ("rail_voltage", "p_pi.split"). part: what is broken when
    this fails and nothing that it needs has failed, as in the configuration ("heater_dac") or as an element of a device
    ("heater split", "photodiode pa3"). needs: parts or names of findings whose failure explains this one. hint: what is
    seen and what to do about it, told when it fails. skipped: why it was not judged; a skipped finding has not passed.
    sigma: standard uncertainty of the value (0: not stated).
    """

    name: str
    value: float
    unit: str
    limits: Limits
    part: str
    needs: tuple[str, ...] = ()
    hint: str = ""
    skipped: str = ""
    sigma: float = 0.0
    level: Level = Level.POWER_ON
    golden_z: float | None = None

    @property
    def verdict(self) -> Verdict:
        return Verdict.SKIPPED if self.skipped else self.limits.judge(self.value)

    @property
    def ok(self) -> bool:
        return self.verdict in (Verdict.PASSED, Verdict.WARNED)

    @property
    def why(self) -> str:
        """Empty when it passed without a warning."""
        verdict = self.verdict
        if verdict is Verdict.PASSED:
            return ""
        if verdict is Verdict.SKIPPED:
            return f"not judged: {self.skipped}"
        limits = self.limits if verdict is Verdict.FAILED else Limits(self.limits.warn_low, self.limits.warn_high)
        tail = f" {self.unit}" if self.unit not in ("", "1") else ""
        value = "not known" if math.isnan(self.value) else f"{self.value:.6g}{tail}"
        said = f"{self.part}: {self.name} is {value}; {limits.say(self.unit)} is "
        said += "allowed" if verdict is Verdict.FAILED else "usual"
        return f"{said}. {self.hint}" if self.hint else said


def skipped(name: str, part: str, why: str, needs: tuple[str, ...] = ()) -> Finding:
    """A finding that could not be made."""
    return Finding(name, math.nan, "", Limits(), part, needs, skipped=why)


Run = Callable[["Bench"], Awaitable[Sequence[Finding]]]


@dataclass(frozen=True)
class Check:
    """One step of a level. `parts`: the devices that it speaks to; a device that fails in it fails the check by name.

    sides: kinds of module that have it. lane: checks of one level in different lanes run side by side; within a lane
    they run in the order of the list. after: only findings of these checks or parts must not have failed, else this one
    is skipped with that as the reason. budget_s: what it may take; beyond it the check fails.
    """

    name: str
    level: Level
    run: Run
    parts: tuple[str, ...] = ()
    sides: tuple[str, ...] = ("alice", "bob")
    lane: str = ""
    after: tuple[str, ...] = ()
    budget_s: float = 10.0


# Checks of the temperature control take their time beside the others, and are timed apart from them.
TEC_LANE = "tec"


def tec_seconds(level: Level) -> str:
    """Name in `Report.level_seconds` of what the temperature checks of a level took."""
    return f"{level.value}.{TEC_LANE}"


@dataclass(frozen=True)
class Report:
    """All findings of a run. `suspects`: the parts that explain the failures, the most likely first. `level_seconds`:
    of each level that ran, by its name without its temperature checks, and with `tec_seconds` of those. `serial` is the
    photonic module's, `controller` that of what drives it. `firmware_sha256`: over all parts, as in its records."""

    side: str
    serial: str
    level: Level
    taken: str  # ISO 8601, UTC
    seconds: float
    findings: tuple[Finding, ...]
    suspects: tuple[str, ...] = ()
    level_seconds: dict[str, float] = field(default_factory=dict)
    mahalanobis: float | None = None
    controller: str = ""
    firmware_sha256: str = ""

    @property
    def passed(self) -> bool:
        """Nothing failed and nothing was left out for a failure; what a module does not have is no failure."""
        return all(f.verdict is not Verdict.FAILED for f in self.findings)

    @property
    def failed(self) -> tuple[Finding, ...]:
        return tuple(f for f in self.findings if f.verdict is Verdict.FAILED)

    def with_findings(self, findings: Sequence[Finding]) -> Report:
        return replace(self, findings=tuple(findings))
