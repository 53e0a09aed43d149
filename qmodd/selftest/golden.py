"""The golden module: what values usually are, so that one that is within its limits and yet unlike all others is seen.

A file holds the mean and the spread of every value, over many modules (`population`) or over many tests of one
(`unit`). z of a value is (x - mean) / sqrt(sigma_golden^2 + sigma_station^2); over all values together Hotelling's T^2,
which is chi-square for a module like the others (reference control C). The file of a unit checks the station: its
spread is that of the measurement, which must be small against what the limits allow.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np

from qmodd.selftest.blame import suspects
from qmodd.selftest.model import Finding, Level, Limits, Report, Verdict
from qmodd.selftest.statistics import chi2_quantile, shrunk_correlation

SCHEMA = 1
LEAST_REPORTS = 5
# One value of a good module in 16,000 is further out than this; one good module in 1000 has a larger T^2.
Z_LIMIT = 4.0
T2_PROBABILITY = 0.999
# What the measurement may take of the tolerance: 6 sigma of a gauge against the width of the limits.
GAUGE_SHARE = 0.10
NO_SPREAD = 1e-9
T2_NAME = "golden.mahalanobis_t2"
Kind = Literal["population", "unit"]


class BadGolden(Exception):
    """A file or a set of reports that cannot serve as reference; the message says why."""


@dataclass(frozen=True)
class Reference:
    """One value: mean and standard deviation over `n` reports, and the limits that were in force. `station_sigma`: what
    the measurement adds by itself, as it was stated; infinite limits are None."""

    mean: float
    sigma: float
    n: int
    station_sigma: float
    unit: str
    low: float | None
    high: float | None

    def z(self, value: float) -> float | None:
        """None where neither the modules nor the station have a spread."""
        spread = math.hypot(self.sigma, self.station_sigma)
        return (value - self.mean) / spread if spread > 0.0 else None

    @property
    def gauge_share(self) -> float | None:
        """6 sigma over the width of the limits; None without limits on both sides."""
        if self.low is None or self.high is None or self.high <= self.low:
            return None
        return 6.0 * self.sigma / (self.high - self.low)


@dataclass(frozen=True)
class Golden:
    """`vector` names the values that go into T^2, `correlation` is theirs, shrunk by `shrinkage`; `t2_scale` makes
    T^2 of modules that are not in the reference a chi-square. `limits_sha256` is over all limits: another digest means
    that limits have changed since."""

    kind: Kind
    side: str
    level: Level
    serials: tuple[str, ...]
    created: str
    version: str
    limits_sha256: str
    values: Mapping[str, Reference]
    vector: tuple[str, ...]
    correlation: tuple[tuple[float, ...], ...]
    shrinkage: float
    t2_scale: float

    # files

    def save(self, path: Path) -> None:
        raw = {"schema": SCHEMA, **asdict(self), "level": self.level.value}
        path.write_text(json.dumps(raw, indent=1) + "\n", encoding="utf-8")

    @classmethod
    def load(cls, path: Path) -> Golden:
        """Raises BadGolden, naming the file."""
        try:
            raw = json.loads(path.read_text(encoding="utf-8"))
            if raw.pop("schema") != SCHEMA:
                raise BadGolden(f"{path}: another schema than {SCHEMA}")
            values = {n: Reference(**v) for n, v in raw.pop("values").items()}
            tuples = {n: tuple(raw.pop(n)) for n in ("serials", "vector")}
            matrix = tuple(tuple(float(x) for x in row) for row in raw.pop("correlation"))
            return cls(**{**raw, **tuples, "level": Level(raw["level"]), "values": values, "correlation": matrix})
        except OSError as e:
            raise BadGolden(f"{path}: cannot be read: {e.strerror}") from None
        except (ValueError, KeyError, TypeError, AttributeError) as e:
            raise BadGolden(f"{path}: not a golden module's file: {e}") from None

    # judging

    def applied(self, report: Report) -> Report:
        """The report with z of every value, and T^2 over all. What is unlike the others is a warning; at the production
        level it fails. Raises BadGolden for a report of the other side."""
        if report.side != self.side:
            raise BadGolden(f"the golden module is of {self.side}, the report of {report.side}")
        strict = report.level is Level.PRODUCTION
        findings = [self._judged(f, strict) for f in report.findings if f.name != T2_NAME]
        t2 = self._t2(findings, strict)
        if t2 is not None:
            findings.append(replace(t2, level=report.level))
        distance = t2.value if t2 is not None else None
        return replace(report, findings=tuple(findings), suspects=suspects(findings), mahalanobis=distance)

    def _judged(self, f: Finding, strict: bool) -> Finding:
        known = self.values.get(f.name)
        z = known.z(f.value) if known is not None and not f.skipped and math.isfinite(f.value) else None
        if known is None or z is None:
            return f
        reach = Z_LIMIT * self._few(known.n) * math.hypot(known.sigma, known.station_sigma)
        return replace(f, limits=_narrowed(f.limits, known.mean, reach, strict), golden_z=z)

    @staticmethod
    def _few(n: int) -> float:
        """How much wider z spreads because mean and sigma are of few modules themselves."""
        return math.sqrt((1.0 + 1.0 / n) * (n - 1.0) / (n - 3.0))

    def _t2(self, findings: Sequence[Finding], strict: bool) -> Finding | None:
        z = {f.name: f.golden_z for f in findings if f.golden_z is not None}
        used = [i for i, name in enumerate(self.vector) if name in z]
        if not used:
            return None
        names = [self.vector[i] for i in used]
        x = np.array([z[name] for name in names], dtype=float)
        inner = np.array(self.correlation)[np.ix_(used, used)]
        t2 = float(x @ np.linalg.solve(inner, x)) / self.t2_scale
        limit = chi2_quantile(T2_PROBABILITY, len(used))
        limits = Limits(high=limit) if strict else Limits(warn_high=limit)
        worst = sorted(names, key=lambda name: -abs(z[name]))[:3]
        part = next(f.part for f in findings if f.name == worst[0])
        most = ", ".join(f"{name} (z {z[name]:+.1f})" for name in worst)
        hint = f"over {len(used)} values this module is unlike the golden module; most of all {most}"
        return Finding(T2_NAME, t2, "", limits, part, hint=hint)

    def changed_limits(self, report: Report) -> list[str]:
        """Names of values whose limits are others than when the file was made."""
        now = {f.name: (_bound(f.limits.low), _bound(f.limits.high)) for f in report.findings}
        return [n for n, r in self.values.items() if n in now and now[n] != (r.low, r.high)]

    def station(self, report: Report) -> list[Finding]:
        """Of a unit measured again, at the station that measured it for the file: repeatability against the tolerance,
        and whether the value is where it was. Raises BadGolden for a file of a population or of another unit."""
        if self.kind != "unit":
            raise BadGolden("a station is checked with the file of one unit, made with --repeat and --write-golden")
        if report.serial not in self.serials:
            raise BadGolden(f"the file is of {', '.join(self.serials)}, this is {report.serial}")
        out: list[Finding] = []
        for f in report.findings:
            known = self.values.get(f.name)
            if known is None or f.skipped or not math.isfinite(f.value) or known.sigma <= 0.0:
                continue
            out += _station_check(f, known, self._few(known.n))
        return out


def _station_check(f: Finding, known: Reference, few: float) -> list[Finding]:
    reach = Z_LIMIT * few * known.sigma
    hint = "the same module read otherwise when the file was made: look at the station, then at the module"
    limits = Limits(known.mean - reach, known.mean + reach)
    z = known.z(f.value)
    out = [
        Finding(f"station.{f.name}", f.value, f.unit, limits, "station", hint=hint, level=f.level, golden_z=z),
    ]
    if (share := known.gauge_share) is not None:
        wide = f"6 sigma of the measurement are {share:.0%} of what the limits of {f.name} allow"
        limits = Limits(high=GAUGE_SHARE)
        out.append(Finding(f"gauge.{f.name}", share, "", limits, "station", hint=wide, level=f.level))
    return out


def _narrowed(limits: Limits, mean: float, reach: float, strict: bool) -> Limits:
    """What is usual becomes a warning limit, or with `strict` an alarm limit; never wider than it was."""
    low, high = mean - reach, mean + reach
    if strict:
        narrow = (max(limits.low, low), min(limits.high, high))
        return replace(limits, low=narrow[0], high=narrow[1]) if narrow[0] <= narrow[1] else limits
    return replace(limits, warn_low=max(limits.warn_low, low), warn_high=min(limits.warn_high, high))


def _bound(x: float) -> float | None:
    return x if math.isfinite(x) else None


# making one


def make(reports: Sequence[Report], created: str, version: str, kind: Kind | None = None) -> Golden:
    """Reference of the reports: of one serial number a unit, else a population, unless `kind` says what they are.

    Raises BadGolden: too few reports, mixed sides or levels, one that has failed.
    """
    _check(reports)
    first = reports[0]
    serials = tuple(sorted({r.serial for r in reports}))
    kind = kind or ("unit" if len(serials) == 1 else "population")
    judged = [{f.name: f for f in r.findings if _counts(f)} for r in reports]
    names = [n for n in judged[0] if all(n in of for of in judged)]
    columns = {n: np.array([of[n].value for of in judged]) for n in names}
    values = {n: _reference(columns[n], [of[n] for of in judged], kind) for n in names}
    vector = tuple(n for n in names if values[n].sigma > 0.0)
    samples = np.column_stack([columns[n] for n in vector]) if vector else np.zeros((len(reports), 0))
    correlation, shrinkage = _correlation(samples)
    station = np.array([values[n].station_sigma for n in vector])
    return Golden(
        kind,
        first.side,
        first.level,
        serials,
        created,
        version,
        limits_sha256(first.findings),
        values,
        vector,
        correlation,
        shrinkage,
        _scale(samples, station),
    )


def _check(reports: Sequence[Report]) -> None:
    if len(reports) < LEAST_REPORTS:
        raise BadGolden(f"{len(reports)} reports: at least {LEAST_REPORTS} are needed")
    for what, found in (("sides", {r.side for r in reports}), ("levels", {r.level.value for r in reports})):
        if len(found) > 1:
            raise BadGolden(f"reports of different {what}: {', '.join(sorted(found))}")
    if bad := [r.serial for r in reports if not r.passed]:
        raise BadGolden(f"a module that has failed is not golden: {', '.join(sorted(set(bad)))}")


def _counts(f: Finding) -> bool:
    """Measured values only: no yes or no, no count that must be exact."""
    exact = f.limits.low == f.limits.high
    return f.verdict is not Verdict.SKIPPED and math.isfinite(f.value) and not exact and f.name != T2_NAME


def _reference(column: Any, found: Sequence[Finding], kind: Kind) -> Reference:
    stated = float(np.median([f.sigma for f in found]))
    limits, mean, sigma = found[-1].limits, float(column.mean()), float(column.std(ddof=1))
    return Reference(
        mean=mean,
        # What differs in its last digits only does not differ.
        sigma=sigma if sigma > NO_SPREAD * abs(mean) else 0.0,
        n=len(column),
        # The spread of one unit's tests is the station's already.
        station_sigma=0.0 if kind == "unit" else stated,
        unit=found[-1].unit,
        low=_bound(limits.low),
        high=_bound(limits.high),
    )


def _correlation(samples: Any) -> tuple[tuple[tuple[float, ...], ...], float]:
    if samples.shape[1] == 0:
        return (), 1.0
    found, share = shrunk_correlation(samples)
    return tuple(tuple(float(x) for x in row) for row in found), share


def _scale(samples: Any, station: Any) -> float:
    """T^2 of each report against all others, its median over that of chi-square: shrinkage makes it smaller, a mean and
    a spread of few modules make it larger."""
    found: list[float] = []
    for k in range(len(samples)):
        others = np.delete(samples, k, axis=0)
        mean, sigma = others.mean(axis=0), others.std(axis=0, ddof=1)
        used = sigma > NO_SPREAD * np.abs(mean)
        if not used.any():
            continue
        inner, _ = shrunk_correlation(others[:, used])
        z = (samples[k, used] - mean[used]) / np.hypot(sigma[used], station[used])
        found.append(float(z @ np.linalg.solve(inner, z)) / chi2_quantile(0.5, int(used.sum())))
    return max(float(np.median(found)), 1e-3) if found else 1.0


def limits_sha256(findings: Sequence[Finding]) -> str:
    """Version of the limits: over name, low and high of every value."""
    lines = sorted(f"{f.name}\0{f.limits.low!r}\0{f.limits.high!r}\n" for f in findings if f.name != T2_NAME)
    return hashlib.sha256("".join(lines).encode()).hexdigest()
