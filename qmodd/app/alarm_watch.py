"""Looks at what the daemon knows once a second, and at every change of the life cycle, and says what is wrong.

Three answers a condition: wrong and why, well, or not to be judged now (absent): a module that is coming up knows
nothing of the fibre, so that an alarm outlives a restart until it is known that its cause is gone.
"""

from __future__ import annotations

import asyncio
import re
import shutil
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from qmodd.app.alarm_desk import AlarmDesk
from qmodd.app.alarm_failures import alarms_of
from qmodd.app.operator import Operator
from qmodd.app.wiring import Wiring
from qmodd.app.zeroising import LATCH as ZEROISED
from qmodd.config import AlarmsSection
from qmodd.control.phase_types import Stage
from qmodd.keys.settings import Phase
from qmodd.keys.store import KeyStore
from qmodd.lifecycle import Activity, Administrative
from qmodd.monitoring.catalogue import CATALOGUE, FAILURES

PERIOD_S = 1.0
# Disk, outbox and key store change slowly and cost more to look at.
SLOW_S = 10.0
# Bytes free on the disk (raise, clear); and how far back the shares and rows of the configuration clear.
DISK_BYTES = (256 << 20, 512 << 20)
DISK_CLEAR, STORE_CLEAR, OUTBOX_CLEAR = 1.6, 0.1, 0.25
# Resets of latched detectors within the window are more than chance.
LATCH_WINDOW_S = 60.0
# Of the usual clicks in the gates: below this nothing can be used; clicks that a batch must lead one to expect; and how
# fast the usual is learnt, a look.
DARK_SHARE, LEAST_CLICKS, USUAL_GAIN = 0.05, 20.0, 0.05
NOT_IN_PHASE = (Stage.COARSE, Stage.DEGRADED, Stage.RELOCK)
NO_SYNC = "no synchronisation"
# A block that ends with its session or its run is no sign of a bad link.
BY_QBER, BY_CONTENT = re.compile(r"QBER_[XZ]"), re.compile(r"QBER_[XZ]|no key can come|too few for|verification")
# Watched by the interlocks' loop without ending a session; and the latch that holds keys only.
WATCHED, PHASE = ("supply-fault", "fan-failed"), "phase"
NOT_SAFE = "could not be brought to its safe value"
# A note of the identification.
DAMAGED = "fru.damaged"

# Known only by a session that ended for it.
BY_FAILURE = (*(kind.id for kind in FAILURES), "peer-not-ready")

# Seen in service, or latched: not known gone by a start that fails for something else.
IN_SERVICE = ("loop-failed", "watchdog-tripped", "laser-dark", "heater-open")
LASTING = frozenset((*IN_SERVICE, *(id for id, kind in CATALOGUE.items() if kind.latched)))

Free = Callable[[Path], tuple[int, int]]
Seen = Iterator[tuple[str, str | None]]


def disk_free(path: Path) -> tuple[int, int]:
    """Free and all bytes of the file system that holds `path`."""
    usage = shutil.disk_usage(path)
    return usage.free, usage.total


def boundless(path: Path) -> tuple[int, int]:
    """A file system without end, for simulated time."""
    return 1 << 60, 1 << 60


@dataclass
class _Heard:
    """What is known from events only."""

    latches: deque[float] = field(default_factory=deque)
    latched: str = ""
    qber: str = ""
    barren: int = 0
    why_barren: str = ""
    refusing: dict[str, str] = field(default_factory=dict)
    pools: str = ""


@dataclass
class AlarmWatch:
    """`look` maps the state to conditions; `run` does so for ever. Conditions' ids are those of the catalogue."""

    wiring: Wiring
    operator: Operator
    store: KeyStore
    free: Free = disk_free
    _heard: _Heard = field(default_factory=_Heard)
    _wake: asyncio.Event = field(default_factory=asyncio.Event)
    _slow: dict[str, str | None] = field(default_factory=dict)
    _slow_s: float | None = None
    _batches: int = 0
    _moved_s: float = 0.0
    _counted: int = 0
    _usual: float = 0.0
    _dark: str = ""

    def __post_init__(self) -> None:
        self.wiring.life.listeners.append(lambda _name, _field: self._wake.set())
        self.wiring.events.listeners.append(self._event)
        self._addresses = [d.address for d in self.wiring.config.device]
        self._receiver = self.wiring.config.module.role == "bob"

    @property
    def _limits(self) -> AlarmsSection:
        """As they are set now."""
        return self.wiring.config.alarms

    @property
    def desk(self) -> AlarmDesk:
        return self.wiring.alarms

    async def run(self) -> None:
        """Until cancelled; begins with what was known before the restart."""
        self.desk.open()
        while True:
            self._wake.clear()
            self.desk.observe(self.look())
            try:
                async with asyncio.timeout(PERIOD_S):
                    await self._wake.wait()
            except TimeoutError:
                continue

    def look(self) -> dict[str, str | None]:
        """Every condition that can be judged now: why it is wrong, or None."""
        now_s = self.wiring.clock.monotonic()
        self._follow(now_s)
        seen = dict(self._failures())
        for found in (
            self._safety(),
            self._outputs(),
            self._field(),
            self._temperature(),
            self._link(),
            self._detectors(now_s),
            self._keys(now_s),
        ):
            # A failure says more about a condition than what is left of the session.
            for id, why in found:
                seen[id] = seen.get(id) or why
        return seen | self._host(now_s)

    # what ends sessions

    def _failures(self) -> Seen:
        """Known gone only once the module is in service again; a module that was told to be dark is not judged."""
        error = self.operator.failure
        if error is None and not self.operator.in_service:
            return
        found = alarms_of(error, self._addresses) if error is not None else {}
        for id in BY_FAILURE:
            # What had latched may still be behind a start that fails: a hot module fails its self-test. So may what a
            # loop has failed for.
            if id in found or error is None or id not in LASTING:
                yield id, found.pop(id, None)
        yield from found.items()

    def _safety(self) -> Seen:
        """A latch is wrong as long as it is set, whatever the module does; what is watched and ends nothing is known
        while the loop that watches it runs."""
        latches, told = self.operator.latches(), self.operator.told()
        dark = {id: why for id, why in latches.items() if id != PHASE}
        for id, why in dark.items():
            if id in CATALOGUE:
                yield id, f"latched: {why}"
        # Nothing but its latch tells of it.
        yield ZEROISED, None
        yield "module-latched", "; ".join(f"{id}: {why}" for id, why in dark.items()) or None
        if told or self.operator.in_service:
            for id in WATCHED:
                yield id, told.get(id)

    def _outputs(self) -> Seen:
        unsafe = sorted(o for o, why in self.wiring.life.inhibited.items() if NOT_SAFE in why)
        yield "output-not-safe", f"not confirmed safe: {', '.join(unsafe)}" if unsafe else None

    def _field(self) -> Seen:
        """Which module is in is known once one has been identified in this life of the daemon."""
        bay = self.wiring.bay
        if bay.out:
            yield "module-removed", f"no part of module {bay.serial or '(not seen yet)'} answers"
        elif bay.assembly is not None:
            yield "module-removed", None
            damaged = [why for about, why in bay.assembly.notes if about == DAMAGED]
            yield "fru-damaged", "; ".join(damaged) or None

    def _temperature(self) -> Seen:
        operator = self.operator
        if operator.in_service and operator.tec is not None and not operator.tec.identifying:
            within_k = self._limits.temperature_k
            held = operator.temperature_within(within_k) or not self.wiring.leases.free("tec.target")
            target_c = self.wiring.config.control.tec_target_c
            yield "temperature-not-held", None if held else f"not within {within_k:g} K of {target_c:g} C"

    # the link

    def _follow(self, now_s: float) -> None:
        """Whether light comes is known while batches are counted, and stays known until others are."""
        status = self.wiring.engine.status
        if status.batches != self._batches:
            self._batches, self._moved_s = status.batches, now_s
            if not self._receiver and status.phase is Phase.KEYING:
                self._dark = "" if status.sifted_bps > 0.0 else "the receiver tells of no detections"
        elif status.phase is not Phase.KEYING:
            self._moved_s = now_s
        if status.counted != self._counted and status.phase is Phase.KEYING:
            self._counted = status.counted
            self._light(status.clicks_per_slot, status.counted_slots)
        if NO_SYNC in status.why and status.phase is not Phase.KEYING:
            self._dark = self._dark or status.why

    def _light(self, clicks_per_slot: float, slots: int) -> None:
        """By what falls into the gates, against what is usual: dark counts do so as well. A batch of which too little
        could be counted says nothing."""
        if slots * max(self._usual, clicks_per_slot) < LEAST_CLICKS:
            return
        if clicks_per_slot < DARK_SHARE * self._usual:
            self._dark = f"less than {DARK_SHARE:.0%} of the usual detections in the gates while keys are sent"
            return
        self._dark = ""
        self._usual += (clicks_per_slot - self._usual) * (USUAL_GAIN if self._usual else 1.0)

    def _link(self) -> Seen:
        door, status, service = self.wiring.door, self.wiring.engine.status, self.operator.in_service
        yield "uplink-away", None if door.uplink_connected else "uplink is not connected to core"
        yield "broker-away", None if door.broker_connected else "uplink reports no connection to the broker"
        connected = door.channel.connected and status.phase not in (Phase.OFFLINE, Phase.HANDSHAKE)
        yield "peer-away", None if connected else f"{status.phase}: {status.why}"
        yield "pools-differ", self._heard.pools or None
        yield "key-account", self.wiring.handover.account if self.wiring.handover else None
        if not self._receiver:
            return
        yield "phase-fault", self.operator.latches().get(PHASE)
        if service and status.wanted and status.peer_ready:
            yield "no-light", self._dark or None
        yield from self._phase(status.phase)
        yield "qber-high", self._heard.qber or None

    def _phase(self, phase: Phase) -> Seen:
        lock, activity = self.wiring.lock, self.wiring.life.activity
        if activity is Activity.LOCKING and self.wiring.life.why("activity").startswith("phase"):
            yield "phase-lost", self.wiring.life.why("activity")
        elif self.operator.in_service and phase is Phase.KEYING and lock is not None:
            yield "phase-lost", f"the lock is {lock.stage}" if lock.stage in NOT_IN_PHASE else None

    def _detectors(self, now_s: float) -> Seen:
        if not self._receiver:
            return
        latches = self._heard.latches
        while latches and now_s - latches[0] > LATCH_WINDOW_S:
            latches.popleft()
        many = len(latches) >= self._limits.detector_resets
        yield "detectors-latching", f"detector {self._heard.latched}: reset again and again" if many else None

    # keys

    def _keys(self, now_s: float) -> Seen:
        status, upkeep = self.wiring.engine.status, self.operator.upkeep
        if upkeep is not None:
            failing = upkeep.failing
            named = "; ".join(dict.fromkeys(failing.values()))
            yield "upkeep-degraded", f"{', '.join(sorted(failing))}: {named}" if failing else None
        yield "pool-low", "few rounds of authentication key are left" if status.pool_low else None
        yield "keys-refused", "; ".join(self._heard.refusing.values()) or None
        if not self._wanted():
            yield "no-keys", None
        elif self.operator.in_service:
            yield "no-keys", self._why_no_keys(now_s)

    def _wanted(self) -> bool:
        """Keys are wanted, and nobody has said why there are none: the far module tells its own reasons itself."""
        wiring, status = self.wiring, self.wiring.engine.status
        if wiring.life.administrative is Administrative.LOCKED or not wiring.keys_wanted or wiring.leases.any():
            return False
        told = not status.peer_ready or (not self._receiver and bool(self._dark or self._heard.qber))
        return not told

    def _why_no_keys(self, now_s: float) -> str | None:
        status = self.wiring.engine.status
        if self._heard.barren >= self._limits.barren_blocks:
            return f"block after block gives no key: {self._heard.why_barren}"
        if status.phase is not Phase.KEYING:
            return self.wiring.why_no_keys() or f"{status.phase}: {status.why}"
        if now_s - self._moved_s > self._limits.stalled_s:
            return "nothing is sifted although keys are sent"
        return None

    def _event(self, entry: dict[str, Any]) -> None:
        heard, why = self._heard, str(entry.get("why", ""))
        match entry["event"]:
            case "detector.latched":
                heard.latches.append(self.wiring.clock.monotonic())
                heard.latched = str(entry["detectors"])
            case "block.kept":
                heard.qber, heard.pools, heard.barren = "", "", 0
            case "block.aborted" if BY_CONTENT.search(why):
                heard.barren, heard.why_barren = heard.barren + 1, why
                heard.qber = why if BY_QBER.search(why) else heard.qber
            case "pool.differs":
                heard.pools = why
            case "key.acknowledged":
                heard.refusing.pop(str(entry["recipient"]), None)
            case "key.refused":
                heard.refusing[str(entry["recipient"])] = f"{entry['recipient']}: {why}"

    # the host

    def _host(self, now_s: float) -> dict[str, str | None]:
        synchronised = self.wiring.clock.utc_synchronised()
        clock = None if synchronised else "nothing on this host says that the clock is synchronised"
        if self._slow_s is None or now_s - self._slow_s >= SLOW_S:
            self._slow_s = now_s
            self._slow = {"disk-filling": self._disk(), "outbox-backlog": self._backlog(), **self._store()}
        return {"clock-unsynchronised": clock, **self._slow}

    def _was(self, id: str) -> bool:
        return self._slow.get(id) is not None

    def _disk(self) -> str | None:
        where, was = self.wiring.config.module.state_dir, self._was("disk-filling")
        free, total = self.free(where)
        share = self._limits.disk_share
        if free >= max(DISK_BYTES[was], share * (DISK_CLEAR if was else 1.0) * total):
            return None
        return f"less than {max(DISK_BYTES[0], share * total) / (1 << 20):.0f} MiB are free in {where}"

    def _backlog(self) -> str | None:
        counts, was = self.wiring.outbox.counts(), self._was("outbox-backlog")
        waiting = sum(n for name, n in counts.items() if name.endswith("_waiting"))
        most, few = self._limits.outbox_rows, OUTBOX_CLEAR * self._limits.outbox_rows
        return None if waiting < (few if was else most) else f"more than {few:.0f} messages wait to be sent"

    def _store(self) -> dict[str, str | None]:
        limit, was = self.wiring.config.keys.store_limit, self._was("key-store-full")
        share = self._limits.store_share
        full = self.store.waiting() >= (share - STORE_CLEAR if was else share) * limit
        why = f"more than {share - STORE_CLEAR:.0%} of {limit} keys wait for delivery; at {limit} no more are made"
        return {"key-store-full": why if full else None}
