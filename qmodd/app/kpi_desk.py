"""Key performance indicators as the NOC gets them: counted from the event log, kept in `kpi.json`, retained on `kpi`.

The file says up to which event it counts; what the log has beyond that is counted again at the start, so that a kill
loses no block and no key, and the time between is absence.
"""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Awaitable, Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from qmodd.clock import Clock
from qmodd.durable import write_whole
from qmodd.events import EventLog
from qmodd.messages import Kpi, KpiBin
from qmodd.monitoring.kpi import DAY_S, DERIVED, QUARTER_S, Bins, Kpis, Sums, lean, total
from qmodd.outbox import Outbox

FILE = "kpi.json"
TICK_S = 60.0
# UTC against the monotonic clock between two ticks: more than this, and a clock has been set.
STEP_S = 5.0
# A clock that is synchronised and this much behind what was counted shows that the count was ahead.
WRONG_S = 60.0
CHUNK_BYTES = 1 << 16
# Of a log that was never counted, at most so much of its end.
MOST_BYTES = 64 << 20
Tell = Callable[[str, dict[str, int | float | bool]], None]
Blocking = Callable[..., Awaitable[Any]]


@dataclass
class KpiDesk:
    """Counts from its making on. `durable` False (simulated time) leaves the file to the ends of spans and of the run.

    `tell` takes the telemetry group.
    """

    path: Path
    clock: Clock
    outbox: Outbox
    events: EventLog
    tell: Tell
    blocking: Blocking
    locked: bool = False
    durable: bool = True
    kpis: Kpis = field(default_factory=Kpis)
    _monotonic_s: float = 0.0
    _utc_s: float = 0.0
    _span: float = 0.0
    _told: dict[tuple[float, float], KpiBin] = field(default_factory=dict)

    def __post_init__(self) -> None:
        damaged = self._open()
        self._monotonic_s, self._utc_s = self.clock.monotonic(), self.clock.utc().timestamp()
        self._follow_clock()
        for entry in self._missed():
            self.kpis.event(entry)
        # A lock of before the log began, or that the configuration has set, is no event.
        self.kpis.locked_out = self.locked
        self.events.listeners.append(self._event)
        if damaged:
            self.events.record("kpi.file_damaged", {"why": damaged[:480]})

    def _open(self) -> str:
        """Why the file of before cannot be used; "" for none."""
        try:
            self.kpis = Kpis.restored(json.loads(self.path.read_text(encoding="utf-8")))
        except FileNotFoundError:
            return ""
        except (ValueError, KeyError, TypeError, AttributeError) as e:
            self.path.replace(self.path.with_suffix(".damaged"))
            return f"{self.path.name}: {type(e).__name__}: {e}; counted anew from the log"
        return ""

    def _missed(self) -> Iterator[dict[str, Any]]:
        if self.events.path is None:
            yield from list(self.events.entries)
        else:
            yield from entries_after(self.events.path, self.kpis.seq)

    def _event(self, entry: dict[str, Any]) -> None:
        self._follow_clock()
        self.kpis.event(entry)

    def _follow_clock(self) -> None:
        """A clock that was set is no time that passed."""
        utc, monotonic = self.clock.utc().timestamp(), self.clock.monotonic()
        passed_s, moved_s = monotonic - self._monotonic_s, utc - self._utc_s
        self._utc_s, self._monotonic_s = utc, monotonic
        now = self.kpis.now
        if now is None:
            return
        if moved_s - passed_s > STEP_S:
            self.kpis.advance(max(now, utc - moved_s + passed_s))
            self.kpis.skip(utc)
        elif utc < now - WRONG_S and self.clock.utc_synchronised():
            self.kpis.set_back(utc)
            self._told.clear()

    async def run(self) -> None:
        """Until cancelled; then what was counted is on disk."""
        try:
            while True:
                await self.tick()
                await asyncio.sleep(TICK_S)
        finally:
            self._advance()
            self._save(self.kpis.snapshot())
            self._publish(_dumped(self._message()))

    async def tick(self) -> None:
        """Once a minute: count, tell, keep."""
        self._advance()
        self.tell("kpi", self.numbers())
        span = max(self.kpis.quarters.spans, default=0.0)
        over, self._span = span != self._span, span
        self._publish(await self.blocking(_dumped, self._message()))
        if over or self.durable:
            await self.blocking(self._save, self.kpis.snapshot())

    def _advance(self) -> None:
        self._follow_clock()
        self.kpis.advance(self.clock.utc().timestamp())

    def _message(self) -> Kpi:
        """Spans that are over are made into messages once: the loops must not wait for all of them every time."""
        told = message(self.events.module, self.kpis, self._told)
        self._told = {(b.start.timestamp(), QUARTER_S): b for b in told.bins_15min[:-1]}
        self._told |= {(b.start.timestamp(), DAY_S): b for b in told.bins_24h[:-1]}
        return told

    def _publish(self, payload: bytes) -> None:
        self.outbox.put("kpi", payload, kind="state", retain=True)

    def _save(self, snapshot: dict[str, Any]) -> None:
        text = json.dumps(snapshot)
        if self.durable:
            write_whole(self.path, text)
        else:
            self.path.write_text(text, encoding="utf-8")

    def numbers(self) -> dict[str, int | float | bool]:
        """Of the last 24 hours, flat; what has nothing to be a mean of is left out."""
        s = total(self.kpis.quarters.spans.values())
        out: dict[str, int | float | bool] = {n: v for n in DERIVED if (v := getattr(s, n)) is not None}
        return out | {
            "latency_max_s": s.latency_max_s,
            "keys_delivered_count": s.keys_delivered,
            "keys_usable_count": s.keys_usable,
            "secret_bits_count": s.secret_bits,
            "alarms_raised_count": s.alarms_raised,
            "keying_s": s.keying_s,
            "planned_s": s.planned_s,
            "down_s": s.down_total_s,
            "absent_s": s.absent_s,
        }


def entries_after(path: Path, seq: int) -> list[dict[str, Any]]:
    """Entries of a log beyond `seq`, in order, read from its end backwards. A torn last line is left out."""
    try:
        with path.open("rb") as file:
            end = file.seek(0, os.SEEK_END)
            data, at = b"", end
            while at > max(0, end - MOST_BYTES) and not _reaches(data, seq):
                at = max(0, at - max(CHUNK_BYTES, len(data)))
                file.seek(at)
                data = file.read(end - at)
                if at > 0:
                    data = data[data.find(b"\n") + 1 :]
    except FileNotFoundError:
        return []
    lines = data[: data.rfind(b"\n") + 1].splitlines()
    return [entry for line in lines if int((entry := json.loads(line))["seq"]) > seq]


def _reaches(data: bytes, seq: int) -> bool:
    """The first whole line is one that was counted already."""
    first, newline, _ = data.partition(b"\n")
    return bool(newline) and int(json.loads(first)["seq"]) <= seq + 1


def message(module: str, kpis: Kpis, known: Mapping[tuple[float, float], KpiBin] | None = None) -> Kpi:
    """As it goes on the wire. `known`: bins that were made before, by start and width in s."""
    now, quarters = kpis.now or 0.0, kpis.quarters.spans
    made: Mapping[tuple[float, float], KpiBin] = known or {}

    def told(bins: Bins) -> list[KpiBin]:
        return [made.get((t, bins.width_s)) or bin_of(t, s) for t, s in sorted(bins.spans.items())]

    # Its parts are valid by themselves.
    return Kpi.model_construct(
        module=module,
        until=_at(now),
        last_24h=bin_of(min(quarters, default=now), total(quarters.values())),
        bins_15min=told(kpis.quarters),
        bins_24h=told(kpis.days),
    )


def _dumped(told: Kpi) -> bytes:
    return told.model_dump_json(exclude_defaults=True).encode()


def bin_of(start: float, s: Sums) -> KpiBin:
    """Rounded to what a person or a plot can use."""
    derived = {n: float(f"{v:.6g}") for n in DERIVED if (v := getattr(s, n)) is not None}
    sums = {n: _rounded(v) for n, v in lean(s).items()}
    return KpiBin.model_validate({"start": _at(start), **sums, **derived})


def _rounded(value: Any) -> Any:
    if isinstance(value, dict):
        return {n: round(v, 3) for n, v in value.items()}
    return round(value, 6) if isinstance(value, float) else value


def _at(utc_s: float) -> datetime:
    return datetime.fromtimestamp(utc_s, UTC)
