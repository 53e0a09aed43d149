"""What a service level was over a period: from retained bins, from recorded ones, or from a recorded event log. Pure.

A history takes whatever there is of each module and keeps, of a span that it was told of more than once, the fuller
one. A report over it uses quarters of an hour where there are any and whole days before them, and says what it covers.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields
from datetime import UTC, datetime
from typing import Any

from pydantic import ValidationError

from qmodd.messages import Kpi, KpiBin
from qmodd.monitoring.kpi import DAY_S, QUARTER_S, Bins, Kpis, Sums, total


@dataclass(frozen=True)
class Span:
    """`start` in UTC seconds, `width_s` long."""

    start: float
    width_s: float
    sums: Sums


@dataclass
class Record:
    """All spans that are known of one module."""

    quarters: dict[float, Sums] = field(default_factory=dict)
    days: dict[float, Sums] = field(default_factory=dict)

    def take(self, quarters: Mapping[float, Sums], days: Mapping[float, Sums]) -> None:
        for mine, theirs in ((self.quarters, quarters), (self.days, days)):
            for start, sums in theirs.items():
                if start not in mine or sums.covered_s > mine[start].covered_s:
                    mine[start] = sums

    def spans(self, start: float, end: float) -> list[Span]:
        """In order, without overlap: of each day the quarters when they tell as much of it as the day does."""
        out: list[Span] = []
        days = sorted({t // DAY_S * DAY_S for t in (*self.quarters, *self.days)})
        for day in days:
            quarters = {t: s for t, s in sorted(self.quarters.items()) if day <= t < day + DAY_S}
            whole = self.days.get(day)
            told = sum(s.covered_s for s in quarters.values())
            if whole is not None and whole.covered_s > told + QUARTER_S:
                out.append(Span(day, DAY_S, whole))
            else:
                out += [Span(t, QUARTER_S, s) for t, s in quarters.items()]
        return [s for s in out if start < s.start + s.width_s and s.start < end]


@dataclass
class History:
    """Of every module, by serial number; `kpi`, then `events` once they are all there. `strange`: lines not read."""

    modules: dict[str, Record] = field(default_factory=dict)
    strange: int = 0
    _events: dict[str, dict[int, Mapping[str, Any]]] = field(default_factory=dict)

    def kpi(self, told: Kpi) -> None:
        record = self.modules.setdefault(told.module, Record())
        record.take(_bins(told.bins_15min), _bins(told.bins_24h))

    def lines(self, text: Iterable[str]) -> None:
        """One JSON object a line: `kpi` messages, `event` messages or lines of an event log, in any mixture. What
        stands before the first brace (a topic, as mosquitto_sub -v writes it) is left out."""
        for line in text:
            if line.strip() and not self._line(line[max(0, line.find("{")) :]):
                self.strange += 1
        for module, events in self._events.items():
            counted = Kpis(Bins(QUARTER_S, None), Bins(DAY_S, None))
            for _, entry in sorted(events.items()):
                counted.event(entry)
            self.modules.setdefault(module, Record()).take(counted.quarters.spans, counted.days.spans)

    def _line(self, line: str) -> bool:
        try:
            body = json.loads(line)
            if "bins_15min" in body or "bins_24h" in body:
                self.kpi(Kpi.model_validate_json(line))
            else:
                entry = {**body.get("fields", {}), **{k: v for k, v in body.items() if k != "fields"}}
                datetime.fromisoformat(entry["t"])
                str(entry["event"])
                self._events.setdefault(str(entry["module"]), {})[int(entry["seq"])] = entry
        except (ValueError, TypeError, KeyError, AttributeError, ValidationError):
            return False
        return True


def _bins(told: Sequence[KpiBin]) -> dict[float, Sums]:
    return {b.start.timestamp(): sums_of(b) for b in told}


def sums_of(told: KpiBin) -> Sums:
    """What a message says, as sums that can be added up."""
    return Sums(**{f.name: getattr(told, f.name) for f in fields(Sums)})


@dataclass(frozen=True)
class Figure:
    """One line of the report. `least`: a floor is kept by being above it, else a limit by being below it."""

    name: str
    words: str
    short: str
    unit: str
    value: Callable[[Sums], float | None]
    least: bool
    option: str
    says: str


FIGURES = (
    Figure(
        "availability",
        "availability",
        "availability",
        "1",
        lambda s: s.availability,
        True,
        "--min-availability",
        "share",
    ),
    Figure("skr_bps", "secret key rate", "SKR", "b/s", lambda s: s.skr_bps, True, "--min-skr", "b/s"),
    Figure("qber_z", "QBER Z", "QBER Z", "1", lambda s: s.qber_z, False, "--max-qber-z", "share"),
    Figure("qber_x", "QBER X", "QBER X", "1", lambda s: s.qber_x, False, "--max-qber-x", "share"),
    Figure("lock_uptime", "lock uptime", "lock", "1", lambda s: s.lock_uptime, True, "--min-lock", "share"),
    Figure("latency_mean_s", "added latency", "latency", "s", lambda s: s.latency_mean_s, False, "--max-latency", "s"),
    Figure("mttd_s", "time to detect (MTTD)", "MTTD", "s", lambda s: s.mttd_s, False, "--max-mttd", "s"),
    Figure("mtta_s", "time to acknowledge (MTTA)", "MTTA", "s", lambda s: s.mtta_s, False, "--max-mtta", "s"),
    Figure("mttr_s", "time to repair (MTTR)", "MTTR", "s", lambda s: s.mttr_s, False, "--max-mttr", "s"),
)
Limits = Mapping[str, float]


@dataclass(frozen=True)
class Result:
    """One figure of one module beside what was promised; `kept` is None without a promise or without a value."""

    figure: Figure
    value: float | None
    limit: float | None

    @property
    def kept(self) -> bool | None:
        if self.value is None or self.limit is None:
            return None
        return self.value >= self.limit if self.figure.least else self.value <= self.limit


@dataclass(frozen=True)
class ModuleReport:
    """One module over the period; `spans` are what it is made of."""

    module: str
    spans: tuple[Span, ...]
    sums: Sums
    results: tuple[Result, ...]

    @property
    def start(self) -> datetime | None:
        return _at(min(s.start for s in self.spans)) if self.spans else None

    @property
    def end(self) -> datetime | None:
        return _at(max(s.start + s.width_s for s in self.spans)) if self.spans else None

    @property
    def kept(self) -> bool:
        """Every promise that can be judged is kept, and there was something to judge."""
        return bool(self.spans) and all(r.kept is not False for r in self.results)

    def missed_s(self, name: str) -> float:
        """Due time, in s, of the spans in which this figure by itself was out of its limit."""
        limit = next((r for r in self.results if r.figure.name == name), None)
        if limit is None or limit.limit is None:
            return 0.0
        spans = [(s, Result(limit.figure, limit.figure.value(s.sums), limit.limit)) for s in self.spans]
        return sum(s.sums.due_s for s, r in spans if r.kept is False)


@dataclass(frozen=True)
class Report:
    """`start`, `end`: what was asked for, UTC."""

    start: datetime
    end: datetime
    limits: Limits
    modules: tuple[ModuleReport, ...]

    @property
    def kept(self) -> bool:
        return bool(self.modules) and all(m.kept for m in self.modules)


def report(history: History, start: datetime, end: datetime, limits: Limits, modules: Sequence[str] = ()) -> Report:
    """Of the modules named (none: of all that are known). One of which nothing is known has no spans."""
    named = list(modules) or sorted(history.modules)
    return Report(start, end, limits, tuple(_of(history, m, start, end, limits) for m in named))


def _of(history: History, module: str, start: datetime, end: datetime, limits: Limits) -> ModuleReport:
    spans = tuple(history.modules.get(module, Record()).spans(start.timestamp(), end.timestamp()))
    sums = total(s.sums for s in spans)
    results = tuple(Result(f, f.value(sums), limits.get(f.name)) for f in FIGURES)
    return ModuleReport(module, spans, sums, results)


# for programs


def as_json(r: Report) -> dict[str, Any]:
    return {
        "start": r.start.isoformat(),
        "end": r.end.isoformat(),
        "kept": r.kept,
        "limits": dict(r.limits),
        "modules": [_module_json(m) for m in r.modules],
    }


def _module_json(m: ModuleReport) -> dict[str, Any]:
    s = m.sums
    return {
        "module": m.module,
        "covered_from": m.start.isoformat() if m.start else None,
        "covered_to": m.end.isoformat() if m.end else None,
        "kept": m.kept,
        "missed": [r.figure.name for r in m.results if r.kept is False],
        **{r.figure.name: r.value for r in m.results},
        "skr_below_s": m.missed_s("skr_bps"),
        **{name: getattr(s, name) for name in COUNTS},
        "down_s": dict(s.down_s),
    }


COUNTS = (
    *("covered_s", "due_s", "keying_s", "planned_s", "absent_s", "blocks", "blocks_aborted", "secret_bits"),
    *("keys_delivered", "keys_usable", "latency_max_s", "qber_z_max", "qber_x_max"),
    *("alarms_raised", "alarms_acknowledged", "alarms_cleared"),
)


def csv_rows(r: Report) -> Iterator[list[Any]]:
    """A header, then a row for the whole period of each module, then one for each span of it."""
    names = [f.name for f in FIGURES]
    yield ["module", "span", "start_utc", "seconds", *names, *COUNTS, "down_s"]
    for m in r.modules:
        if m.start is not None and m.end is not None:
            width_s = (m.end - m.start).total_seconds()
            yield [m.module, "period", m.start.isoformat(), width_s, *_cells(m.sums)]
        for s in m.spans:
            yield [
                m.module,
                "24h" if s.width_s == DAY_S else "15min",
                _at(s.start).isoformat(),
                s.width_s,
                *_cells(s.sums),
            ]


def _cells(s: Sums) -> list[Any]:
    values = [f.value(s) for f in FIGURES]
    shown: list[Any] = ["" if v is None else f"{v:.6g}" for v in values]
    counts = [getattr(s, name) for name in COUNTS]
    return [*shown, *(f"{c:.6g}" if isinstance(c, float) else c for c in counts), f"{s.down_total_s:.6g}"]


def _at(utc_s: float) -> datetime:
    return datetime.fromtimestamp(utc_s, UTC)
