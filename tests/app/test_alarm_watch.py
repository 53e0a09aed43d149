"""What the watch makes of the daemon's state, and which alarm an error stands for; without a pair."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from calibration.context import CalibrationRefused, LightRefused
from calibration.fit import FitRefused
from drivers.errors import BusFault, WrongDevice
from qmodd.app.alarm_failures import alarms_of
from qmodd.app.alarm_watch import AlarmWatch, boundless, disk_free
from qmodd.app.failures import LoopGaveUp, NotReady
from qmodd.app.operator import Operator
from qmodd.app.wiring import Wiring
from qmodd.config import AlarmsSection
from qmodd.control.phase_types import Stage
from qmodd.keys.settings import EngineStatus, Phase
from qmodd.keys.store import KeyStore
from qmodd.lifecycle import Activity, Administrative
from qmodd.module import BringUpFailed
from qmodd.monitoring.catalogue import CATALOGUE
from qmodd.safety import WatchdogStarved

ADDRESSES = ("i2c:1:0x40", "serial:tec")
GIB = 1 << 30


@dataclass
class State:
    """What the watch looks at: a receiver in service that makes keys. Tests change what they are about."""

    directory: Path
    role: str = "bob"
    now: float = 1000.0
    synchronised: bool = True
    free: int = 50 * GIB
    waiting: int = 0
    rows: dict[str, int] = field(default_factory=dict)
    observed: list[dict[str, str | None]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.status = EngineStatus(
            Phase.KEYING, "synchronised", wanted=True, peer_ready=True, batches=1, sifted_bps=9.0
        )
        self.why = {"activity": "distilling keys"}
        self.leased: set[str] = set()
        self.within = True
        self.life = SimpleNamespace(
            listeners=[],
            inhibited={},
            activity=Activity.KEYING,
            administrative=Administrative.UNLOCKED,
            why=self.why.__getitem__,
        )
        self.door = SimpleNamespace(
            uplink_connected=True, broker_connected=True, channel=SimpleNamespace(connected=True)
        )
        self.operator = SimpleNamespace(
            failure=None,
            in_service=True,
            upkeep=SimpleNamespace(failing={}),
            tec=SimpleNamespace(identifying=False),
            temperature_within=lambda _k: self.within,
            latches=dict,
            told=dict,
        )
        self.bay = SimpleNamespace(out=False, serial="QP-B-7", assembly=SimpleNamespace(notes=()))
        self.wiring = SimpleNamespace(
            bay=self.bay,
            handover=SimpleNamespace(account=None),
            config=SimpleNamespace(
                alarms=AlarmsSection(),
                device=[SimpleNamespace(address=a) for a in ADDRESSES],
                module=SimpleNamespace(role=self.role, state_dir=self.directory),
                control=SimpleNamespace(tec_target_c=30.0),
                keys=SimpleNamespace(store_limit=1000),
            ),
            clock=SimpleNamespace(monotonic=lambda: self.now, utc_synchronised=lambda: self.synchronised),
            life=self.life,
            events=SimpleNamespace(listeners=[]),
            outbox=SimpleNamespace(counts=lambda: self.rows),
            engine=SimpleNamespace(status=self.status),
            door=self.door,
            lock=SimpleNamespace(stage=Stage.LOCKED),
            leases=SimpleNamespace(free=lambda o: o not in self.leased, any=lambda: next(iter(self.leased), None)),
            keys_wanted=True,
            why_no_keys=lambda: None,
            alarms=SimpleNamespace(open=lambda: None, observe=self.observed.append),
        )
        self.watch = AlarmWatch(
            cast(Wiring, self.wiring),
            cast(Operator, self.operator),
            cast(KeyStore, SimpleNamespace(waiting=lambda: self.waiting)),
            lambda _path: (self.free, 100 * GIB),
        )

    def event(self, name: str, **fields: Any) -> None:
        for listener in self.wiring.events.listeners:
            listener({"event": name, **fields})

    def look(self, seconds: float = 1.0) -> dict[str, str | None]:
        """So many seconds later; nothing has moved meanwhile."""
        self.now += seconds
        return self.watch.look()

    def wrong(self, seconds: float = 1.0) -> dict[str, str]:
        return {id: why for id, why in self.look(seconds).items() if why is not None}

    def batch(self, sifted_bps: float, slots: int = 10**6) -> None:
        """One more; what is not sifted was kept out, or is not there."""
        self.status.batches += 1
        self.status.sifted_bps = sifted_bps
        self.status.counted += slots > 0
        self.status.counted_slots, self.status.clicks_per_slot = slots, sifted_bps * 1e-3


@pytest.fixture
def state(tmp_path: Path) -> State:
    return State(tmp_path)


def test_a_healthy_module_is_judged_in_everything_and_well(state: State) -> None:
    seen = state.look()
    assert seen.keys() == CATALOGUE.keys()
    assert not any(seen.values())
    alice = State(state.directory, "alice").look()
    assert CATALOGUE.keys() - alice.keys() == {
        "no-light",
        "phase-fault",
        "phase-lost",
        "detectors-latching",
        "qber-high",
    }


def test_what_is_not_known_while_it_comes_up(state: State) -> None:
    state.operator.in_service, state.operator.upkeep = False, None
    state.status.phase, state.life.activity = Phase.IDLE, Activity.CALIBRATING
    state.status.peer_ready = False
    unknown = CATALOGUE.keys() - state.look().keys()
    assert {"device-fault", "interlock-open", "no-light", "phase-lost", "temperature-not-held"} <= unknown
    state.operator.failure = BringUpFailed("tec: nothing there")
    seen = state.look()
    assert seen["device-fault"] == "tec: nothing there"
    assert seen["interlock-open"] is None


def test_a_module_that_is_out_until_one_is_identified(state: State) -> None:
    state.bay.out, state.operator.in_service = True, False
    assert state.wrong()["module-removed"] == "no part of module QP-B-7 answers"
    state.bay.out, state.bay.assembly = False, None  # another life of the daemon: not looked yet
    assert "module-removed" not in state.look()
    state.bay.assembly = SimpleNamespace(notes=(("fru.damaged", "product area: checksum"), ("factory.differs", "x")))
    seen = state.look()
    assert seen["module-removed"] is None
    assert seen["fru-damaged"] == "product area: checksum"


ERRORS = [
    (WatchdogStarved("rails off: the interlock loop is open"), "interlock-open"),
    (WatchdogStarved("rails dropped: no sign of life from phase (silent for 1.2 s)"), "watchdog-tripped"),
    (WatchdogStarved("rails left to the hardware watchdog: the platform's port expander: i2c:2: bus"), "device-fault"),
    (BringUpFailed("tec: TEC at serial:tec: no answer"), "device-fault"),
    (BusFault("i2c:1: no acknowledge (0x40)"), "device-fault"),
    (WrongDevice("expected INA228"), "device-fault"),
    (LoopGaveUp("loop bus submount sensor: did not end within 0.9 s"), "device-fault"),
    (LoopGaveUp("loop temperature: TEC at serial:tec: no answer"), "device-fault"),
    (LoopGaveUp("loop temperature: heat sink at 71.0 C; 70 C is the limit (fan, mounting)"), "temperature-not-held"),
    (LoopGaveUp("loop bus heater source: heater phase: open circuit"), "heater-open"),
    (LoopGaveUp("loop laser power: the laser does not emit (fatal:DIS)"), "laser-dark"),
    (LoopGaveUp("loop detector latch: detectors DZ latched 11 times within 60 s"), "detectors-latching"),
    (LoopGaveUp("loop carver null: carver: no null at the bias"), "loop-failed"),
    (NotReady("self-test: heater_rail_voltage reads 0 V; allowed is 3.6 to 4.4 V"), "selftest-failed"),
    (NotReady("the chip is not at its temperature after 300 s: None"), "temperature-not-held"),
    (CalibrationRefused("laser", "no emission (status 0x1000)"), "laser-dark"),
    (CalibrationRefused("arm_phase", "visibility 0.3; 0.9 is the least"), "calibration-refused"),
    (FitRefused("no minimum in the range"), "calibration-refused"),
    (LightRefused("the transmitter is locked"), "peer-not-ready"),
    (KeyError("x"), "internal-error"),
]


@pytest.mark.parametrize(("error", "alarm"), ERRORS, ids=[f"{a}-{i}" for i, (_, a) in enumerate(ERRORS)])
def test_alarm_of_an_error(error: Exception, alarm: str) -> None:
    assert alarms_of(error, ADDRESSES) == {alarm: str(error)}
    assert alarm in CATALOGUE


def test_alarms_of_several_errors() -> None:
    group = ExceptionGroup("session", [BusFault("one"), BusFault("two"), LoopGaveUp("loop split: stale")])
    assert alarms_of(group, ADDRESSES) == {"device-fault": "one", "loop-failed": "loop split: stale"}


def test_a_failure_is_known_until_the_module_is_in_service_again(state: State) -> None:
    state.operator.failure, state.operator.in_service = LightRefused("locked"), False
    assert state.wrong()["peer-not-ready"] == "locked"
    state.operator.failure, state.operator.in_service = None, True
    assert state.look()["peer-not-ready"] is None
    state.operator.failure = LoopGaveUp("loop detector latch: detectors DZ latched 11 times within 60 s")
    assert "latched 11 times" in state.wrong()["detectors-latching"]


def test_outputs_that_are_not_confirmed_safe(state: State) -> None:
    state.life.inhibited.update(laser="locked", tec="could not be brought to its safe value: no answer in time")
    assert state.wrong() == {"output-not-safe": "not confirmed safe: tec"}


def test_temperature(state: State) -> None:
    state.within = False
    assert state.wrong() == {"temperature-not-held": "not within 0.5 K of 30 C"}
    state.leased.add("tec.target")
    assert state.wrong() == {}, "a person moves it on purpose"
    state.leased.clear()
    state.operator.tec.identifying = True
    assert "temperature-not-held" not in state.wrong()


def test_connections(state: State) -> None:
    state.door.uplink_connected = state.door.broker_connected = state.door.channel.connected = False
    assert state.wrong().keys() == {"uplink-away", "broker-away", "peer-away"}
    state.door.channel.connected, state.status.phase, state.status.why = True, Phase.HANDSHAKE, "wrong link id"
    assert state.look()["peer-away"] == "handshake: wrong link id"


def test_no_light_is_remembered_through_the_search(state: State) -> None:
    state.batch(9.0)
    assert state.wrong() == {}
    for sifted_bps, slots in ((0.0, 0), (0.0, 100)):
        state.batch(sifted_bps, slots)
        assert state.wrong() == {}, "kept out of the key, or too little to tell"
    state.batch(0.3)
    assert "less than 5% of the usual detections" in state.wrong()["no-light"]
    state.status.phase, state.status.why = Phase.SYNCING, "looking for the public string"
    assert "no-light" in state.wrong()
    state.status.peer_ready = False
    assert "no-light" not in state.look(), "the transmitter says itself why it sends none"
    state.status.peer_ready, state.status.phase = True, Phase.KEYING
    state.batch(5.0)
    assert state.wrong() == {}
    state.status.phase, state.status.why = Phase.WAITING, "no synchronisation: nothing stands out"
    assert state.wrong()["no-light"] == "no synchronisation: nothing stands out"


def test_transmitter_leaves_the_link_to_the_receiver(tmp_path: Path) -> None:
    state = State(tmp_path, "alice")
    state.batch(0.0)
    assert state.wrong() == {}
    state.status.phase = Phase.WAITING
    assert state.wrong() == {}


def test_phase(state: State) -> None:
    for stage in Stage:
        state.wiring.lock = SimpleNamespace(stage=stage)
        assert ("phase-lost" in state.wrong()) == (stage in (Stage.COARSE, Stage.DEGRADED, Stage.RELOCK))
    state.life.activity, state.why["activity"] = Activity.LOCKING, "phase lost: far off"
    assert state.wrong()["phase-lost"] == "phase lost: far off"
    state.operator.latches = lambda: {"phase": "20 attempts"}
    assert state.wrong()["phase-fault"] == "20 attempts"


def test_detectors_that_latch(state: State) -> None:
    for _ in range(2):
        state.event("detector.latched", detectors="DX1")
    assert state.wrong() == {}
    state.event("detector.latched", detectors="DX1")
    assert state.wrong() == {"detectors-latching": "detector DX1: reset again and again"}
    state.batch(5.0)
    assert state.wrong(61.0) == {}


def test_blocks_without_a_key(state: State) -> None:
    why = "QBER_X 12.00% is above the limit of 8.00%"
    state.event("block.aborted", why=why)
    state.event("block.aborted", why="the session ended")
    assert state.wrong() == {"qber-high": why}
    for _ in range(2):
        state.event("block.aborted", why="no key can come of this block: the bound is not positive")
    assert state.wrong()["no-keys"].startswith("block after block gives no key")
    state.event("block.kept")
    assert state.wrong() == {}


def test_keys_that_are_wanted_and_not_made(state: State) -> None:
    state.look()
    assert "nothing is sifted" in state.wrong(31.0)["no-keys"]
    state.status.phase, state.status.why = Phase.WAITING, "the modules' settings differ"
    assert state.wrong()["no-keys"] == "waiting: the modules' settings differ"
    state.wiring.why_no_keys = lambda: "no keys: arm_phase is out"
    assert state.wrong()["no-keys"] == "no keys: arm_phase is out"
    state.wiring.keys_wanted = False
    assert state.look()["no-keys"] is None
    state.wiring.keys_wanted, state.life.administrative = True, Administrative.LOCKED
    assert state.look()["no-keys"] is None
    state.life.administrative = Administrative.UNLOCKED
    state.leased.add("bias.voa")
    assert state.look()["no-keys"] is None
    state.leased.clear()
    state.operator.in_service = False
    assert "no-keys" not in state.look()


def test_pool_store_recipients_and_upkeep(state: State) -> None:
    state.status.pool_low = True
    state.operator.upkeep.failing = {"split": "no minimum", "filter": "no minimum"}
    state.event("pool.differs", why="3 blocks here, 4 there")
    state.event("key.refused", recipient="kms-b", why="expired")
    state.waiting = 900
    assert state.wrong(20.0) == {
        "pool-low": "few rounds of authentication key are left",
        "upkeep-degraded": "filter, split: no minimum",
        "pools-differ": "3 blocks here, 4 there",
        "keys-refused": "kms-b: expired",
        "key-store-full": "more than 80% of 1000 keys wait for delivery; at 1000 no more are made",
    }
    state.event("key.acknowledged", recipient="kms-b")
    state.event("block.kept")
    state.waiting = 801
    assert state.wrong(20.0).keys() == {"pool-low", "upkeep-degraded", "key-store-full"}
    state.waiting = 799
    assert "key-store-full" not in state.wrong(20.0)


def test_keys_that_do_not_add_up(state: State) -> None:
    state.wiring.handover.account = "6 keys created but 5 accounted for"
    assert state.wrong() == {"key-account": "6 keys created but 5 accounted for"}


def test_host_with_hysteresis(state: State) -> None:
    state.synchronised, state.free = False, 4 * GIB
    state.rows = {"event_waiting": 1500, "key_waiting": 600, "state_published": 9000}
    assert state.wrong().keys() == {"clock-unsynchronised", "disk-filling", "outbox-backlog"}
    state.synchronised, state.free, state.rows = True, 7 * GIB, {"event_waiting": 600}
    assert state.wrong(20.0).keys() == {"disk-filling", "outbox-backlog"}
    state.free, state.rows = 9 * GIB, {}
    assert state.wrong(5.0).keys() == {"disk-filling", "outbox-backlog"}, "looked at every ten seconds"
    state.batch(5.0)
    assert state.wrong(20.0) == {}
    free, total = disk_free(state.directory)
    assert 0 <= free <= total
    state.watch.free = boundless
    assert state.look(20.0)["disk-filling"] is None


async def test_it_looks_at_every_change_of_the_life_cycle(state: State) -> None:
    task = asyncio.ensure_future(state.watch.run())
    await asyncio.sleep(0.01)
    assert len(state.observed) == 1
    for listener in state.life.listeners:
        listener("activity", None)
    await asyncio.sleep(0.01)
    assert len(state.observed) == 2
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
