"""Key performance indicators out of the event log: availability, secret key rate, QBER, lock, keys, alarms. Pure.

Everything is counted in bins of a quarter of an hour and of a day, both begun on whole UTC ones. A bin holds sums only,
so that any number of them can be added up; what people read (rates, shares, means) is derived from the sums. The same
engine counts in the daemon, over again after a kill, and on a recorded log.

Every second is exactly one of: keying, planned, down (by activity), absent (the daemon did not run).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields
from datetime import datetime
from typing import Any

QUARTER_S, DAY_S = 900.0, 86_400.0
QUARTERS_KEPT, DAYS_KEPT = 96, 62
# Events that may be told twice: so many of them are remembered.
MOST_TOLD = 63
ABSENT, PLANNED, KEYING = "absent", "planned", "keying"
# The activities in which the phase has to be locked.
LOCK_WANTED = frozenset({"locking", "ready", "keying"})


@dataclass
class Sums:
    """What one span of time adds up to. Times in s; rates and means are the properties, None where there is nothing."""

    keying_s: float = 0.0
    planned_s: float = 0.0
    absent_s: float = 0.0
    down_s: dict[str, float] = field(default_factory=dict)
    locked_s: float = 0.0
    lock_wanted_s: float = 0.0
    blocks: int = 0
    blocks_aborted: int = 0
    secret_bits: int = 0
    bits_z: int = 0
    errors_z: float = 0.0
    bits_x: int = 0
    errors_x: float = 0.0
    qber_z_max: float = 0.0
    qber_x_max: float = 0.0
    keys_delivered: int = 0
    keys_usable: int = 0
    age_s: float = 0.0
    latency_max_s: float = 0.0
    alarms_raised: int = 0
    detect_s: float = 0.0
    alarms_acknowledged: int = 0
    acknowledge_s: float = 0.0
    alarms_cleared: int = 0
    repair_s: float = 0.0

    def add(self, other: Sums) -> None:
        """Of times and counts the sum, of greatest values the greater."""
        for f in fields(self):
            mine, theirs = getattr(self, f.name), getattr(other, f.name)
            if isinstance(mine, dict):
                for name, seconds in theirs.items():
                    mine[name] = mine.get(name, 0.0) + seconds
            elif f.name.endswith(("_max", "_max_s")):
                setattr(self, f.name, max(mine, theirs))
            else:
                setattr(self, f.name, mine + theirs)

    @property
    def down_total_s(self) -> float:
        return math.fsum(self.down_s.values())

    @property
    def covered_s(self) -> float:
        """Time that was counted at all."""
        return self.keying_s + self.planned_s + self.absent_s + self.down_total_s

    @property
    def due_s(self) -> float:
        """Time in which keys were due: all but planned work."""
        return self.keying_s + self.absent_s + self.down_total_s

    @property
    def availability(self) -> float | None:
        """Share of the due time in keying."""
        return _ratio(self.keying_s, self.due_s)

    @property
    def skr_bps(self) -> float | None:
        """Secret bits a second of due time, outages included."""
        return _ratio(self.secret_bits, self.due_s)

    @property
    def qber_z(self) -> float | None:
        return _ratio(self.errors_z, self.bits_z)

    @property
    def qber_x(self) -> float | None:
        return _ratio(self.errors_x, self.bits_x)

    @property
    def lock_uptime(self) -> float | None:
        return _ratio(self.locked_s, self.lock_wanted_s)

    @property
    def latency_mean_s(self) -> float | None:
        """Age of a key when it may be handed out at both sites."""
        return _ratio(self.age_s, self.keys_usable)

    @property
    def mttd_s(self) -> float | None:
        return _ratio(self.detect_s, self.alarms_raised)

    @property
    def mtta_s(self) -> float | None:
        return _ratio(self.acknowledge_s, self.alarms_acknowledged)

    @property
    def mttr_s(self) -> float | None:
        return _ratio(self.repair_s, self.alarms_cleared)


DERIVED = (
    *("availability", "skr_bps", "qber_z", "qber_x", "lock_uptime"),
    *("latency_mean_s", "mttd_s", "mtta_s", "mttr_s"),
)


def _ratio(part: float, whole: float) -> float | None:
    return part / whole if whole > 0.0 else None


def total(sums: Iterable[Sums]) -> Sums:
    out = Sums()
    for s in sums:
        out.add(s)
    return out


@dataclass
class Bins:
    """Spans of one width, by their start in UTC seconds; the newest `kept` of them (None: all)."""

    width_s: float
    kept: int | None
    spans: dict[float, Sums] = field(default_factory=dict)

    def at(self, t: float) -> Sums:
        start = t // self.width_s * self.width_s
        found = self.spans.get(start)
        if found is None:
            found = self.spans[start] = Sums()
            while self.kept is not None and len(self.spans) > self.kept:
                del self.spans[min(self.spans)]
        return found

    def between(self, start: float, end: float) -> dict[float, Sums]:
        """Those that begin in [start, end), in order."""
        return {t: s for t, s in sorted(self.spans.items()) if start <= t < end}


@dataclass
class Kpis:
    """The engine: events in the order of the log, and `advance` whenever time has passed without one. Times are UTC
    seconds and never go back by themselves (`set_back`). `seq`: of the last event that was counted."""

    quarters: Bins = field(default_factory=lambda: Bins(QUARTER_S, QUARTERS_KEPT))
    days: Bins = field(default_factory=lambda: Bins(DAY_S, DAYS_KEPT))
    now: float | None = None
    seq: int = 0
    activity: str = ABSENT
    locked_out: bool = False
    stage: str = ""
    planned_until: float = 0.0
    told: list[str] = field(default_factory=list)

    # time

    def advance(self, t: float) -> None:
        """The module has been until `t` in the state it is in."""
        if self.now is None:
            self.now = t
        longest = (self.days.kept or 36_500) * DAY_S
        at = max(self.now, t - longest)
        while at < t:
            end = min(t, (at // QUARTER_S + 1.0) * QUARTER_S)
            if at < self.planned_until < end:
                end = self.planned_until
            for bins in (self.quarters, self.days):
                self._spend(bins.at(at), end - at, at < self.planned_until)
            at = end
        self.now = max(self.now, t)

    def skip(self, t: float) -> None:
        """A clock was set forward to `t`: nothing is known of the time between, and nothing is counted."""
        self.now = t if self.now is None else max(self.now, t)

    def set_back(self, t: float) -> None:
        """The clock was wrong, and it is `t` now: bins of the future are dropped."""
        self.now = t
        for bins in (self.quarters, self.days):
            bins.spans = {start: s for start, s in bins.spans.items() if start <= t}

    def _spend(self, s: Sums, seconds: float, window: bool) -> None:
        if window or self.locked_out:
            s.planned_s += seconds
            return
        if self.activity == KEYING:
            s.keying_s += seconds
        elif self.activity == ABSENT:
            s.absent_s += seconds
        else:
            s.down_s[self.activity] = s.down_s.get(self.activity, 0.0) + seconds
        # A transmitter has no lock, and says nothing of one.
        if self.stage and self.activity in LOCK_WANTED:
            s.lock_wanted_s += seconds
            s.locked_s += seconds if self.stage == "locked" else 0.0

    # events

    def event(self, entry: Mapping[str, Any]) -> None:
        """A flat entry of the event log; what it does not know, or what has another form, only moves the time.

        Raises KeyError, ValueError for an entry that is none.
        """
        t, seq = datetime.fromisoformat(str(entry["t"])).timestamp(), int(entry["seq"])
        if seq <= self.seq:
            return
        name = str(entry["event"])
        if name == "core.started":
            # Where it was killed, nobody said so: what is between was not service.
            self.activity = ABSENT
        self.advance(t)
        self.seq = seq
        if self._again(entry):
            return
        self._state(name, entry)
        both = (self.quarters.at(self.now or t), self.days.at(self.now or t))
        for s in both:
            self._count(name, entry, s)

    def _again(self, entry: Mapping[str, Any]) -> bool:
        """Told before a crash, and once more after it: such events carry a number of their own, `entry`."""
        if "entry" not in entry:
            return False
        own = f"{entry['event']} {entry['entry']}"[:64]
        if own in self.told:
            return True
        self.told = [*self.told[-MOST_TOLD:], own]
        return False

    def _state(self, name: str, e: Mapping[str, Any]) -> None:
        match name:
            case "core.started":
                self.activity, self.stage = "boot", ""
            case "core.stopped":
                self.activity = ABSENT
            case "state.activity":
                self.activity = str(e.get("value", ""))[:32]
            case "state.administrative":
                self.locked_out = e.get("value") == "locked"
            case "phase.stage":
                self.stage = str(e.get("stage", ""))
            case "alarm.maintenance":
                self.planned_until = (self.now or 0.0) + _number(e, "seconds")

    def _count(self, name: str, e: Mapping[str, Any], s: Sums) -> None:
        match name:
            case "block.kept":
                self._block(e, s)
            case "block.aborted":
                s.blocks_aborted += 1
            case "key.acknowledged":
                s.keys_delivered += round(_number(e, "keys"))
            case "key.usable":
                s.keys_usable += round(_number(e, "keys"))
                s.age_s += _number(e, "keys") * _number(e, "age_s")
                s.latency_max_s = max(s.latency_max_s, _number(e, "age_max_s"))
            case "alarm.raised":
                s.alarms_raised += 1
                s.detect_s += _number(e, "after_s")
            case "alarm.acknowledged" if "after_s" in e:  # without: it was acknowledged before
                s.alarms_acknowledged += 1
                s.acknowledge_s += _number(e, "after_s")
            case "alarm.cleared":
                s.alarms_cleared += 1
                s.repair_s += _number(e, "after_s")

    def _block(self, e: Mapping[str, Any], s: Sums) -> None:
        """Blocks of planned work are not counted, as its time is not."""
        if self.locked_out or (self.now or 0.0) < self.planned_until:
            return
        s.blocks += 1
        s.secret_bits += round(_number(e, "key_bits"))
        s.bits_z += round(_number(e, "n_z"))
        s.errors_z += _number(e, "qber_z") * _number(e, "n_z")
        s.bits_x += round(_number(e, "n_x"))
        s.errors_x += _number(e, "qber_x") * _number(e, "n_x")
        s.qber_z_max = max(s.qber_z_max, _number(e, "qber_z"))
        s.qber_x_max = max(s.qber_x_max, _number(e, "qber_x"))

    # over a restart

    def snapshot(self) -> dict[str, Any]:
        """JSON-ready; `restored` makes the same engine of it."""
        own = {f.name: getattr(self, f.name) for f in fields(self) if f.name not in ("quarters", "days")}
        spans = {n: [[t, lean(s)] for t, s in sorted(getattr(self, n).spans.items())] for n in ("quarters", "days")}
        return {**own, **spans}

    @classmethod
    def restored(cls, raw: Mapping[str, Any]) -> Kpis:
        """Raises KeyError, TypeError, ValueError for what is no snapshot."""
        spans = {n: {float(t): Sums(**s) for t, s in raw[n]} for n in ("quarters", "days")}
        own = {f.name: raw[f.name] for f in fields(cls) if f.name not in spans}
        made = cls(**own)
        made.quarters.spans, made.days.spans = spans["quarters"], spans["days"]
        made.now = None if made.now is None else float(made.now)
        return made


def lean(s: Sums) -> dict[str, Any]:
    """Only what is not zero."""
    return {name: dict(value) if isinstance(value, dict) else value for name, value in vars(s).items() if value}


def _number(e: Mapping[str, Any], name: str) -> float:
    """A field of an event, 0 where it is none of that kind: a log of another version must not stop the counting."""
    value = e.get(name, 0.0)
    good = isinstance(value, int | float) and math.isfinite(value) and value >= 0.0
    return float(value) if good else 0.0
