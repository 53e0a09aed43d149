"""Calibrations kept good in service: in a whole pair in simulated time, and rule by rule on made-up graphs."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from calibration.context import CalibrationContext, CalibrationRefused, Progress
from calibration.graph import Graph
from calibration.procedure import CheckResult, Disturbs
from calibration.procedures.mean_photon import MeanPhotonNumber
from calibration.record import Record
from drivers.errors import Refused, Timeout
from drivers.roles import Identity, LightMode
from qmodd.app.identify import firmware_sha256
from qmodd.app.upkeep import Host, Upkeep
from qmodd.app.wiring import KEYING
from qmodd.clock import Clock
from qmodd.events import EventLog
from qmodd.keys.bob_engine import BobEngine
from qmodd.lifecycle import Activity, LifeCycle, Operational
from qmodd.module import Module
from qmodd.soak import Run
from tests.app.pair import events, simulate, until, until_keying
from tests.calibration.made_up import Bench


class Service:
    """One run, one thing after the other; each leaves a note."""

    def __init__(self, directory: Path, patch: pytest.MonkeyPatch) -> None:
        self.notes: dict[str, Any] = {}
        self.patch = patch
        # One calibration whose rules are known here, whatever its own are: last of all, redone when it runs out.
        for name, value in {"renews": False, "check_disturbs": Disturbs.NOTHING, "disturbs": Disturbs.KEYS}.items():
            patch.setattr(MeanPhotonNumber, name, value)
        self.run = simulate(directory, self._script, settings={"upkeep_period_s": 1.0})

    async def _script(self, run: Run) -> None:
        self.notes["first keys"] = await until_keying(run)
        self.notes["begun"] = [e["name"] for s in run.sites for e in events(run, s, "calibration.failed")]
        await self._renewed_beside_keys(run)
        await self._redone(run)
        await self._fails_while_good(run)
        await self._fails_when_out(run)
        await self._receiver_by_command(run)
        await self._rolled_back(run)
        await self._warm(run)

    def _soon(self, run: Run, seconds: float) -> None:
        """The transmitter's last record of all runs out before long."""
        core = run.sites["alice"].core
        record = core.records.active("mean_photon")
        assert record is not None
        core.records.append(record.model_copy(update={"valid_until": run.clock.utc() + timedelta(seconds=seconds)}))

    async def _renewed_beside_keys(self, run: Run) -> None:
        begin, core = run.loop.time(), run.sites["alice"].core

        async def check(p: MeanPhotonNumber, context: CalibrationContext, record: Record) -> CheckResult:
            return CheckResult.in_spec({"power_w": 1e-6}) if context.keying else CheckResult.bad_data("not keying")

        with self.patch.context() as m:
            m.setattr(MeanPhotonNumber, "renews", True)
            m.setattr(MeanPhotonNumber, "check", check)
            self._soon(run, 60.0)
            await until(run, lambda: core.records.renewal("mean_photon") is not None, 10.0, "renewed")
        await asyncio.sleep(3.0)
        self.notes["renewed"] = events(run, "alice", "calibration.renewed", begin)
        self.notes["renewed states"] = events(run, "alice", "state.activity", begin)
        self.notes["renewed until"] = core.records.valid_until("mean_photon")

    async def _redone(self, run: Run) -> None:
        begin, core = run.loop.time(), run.sites["alice"].core
        calibrate = MeanPhotonNumber.calibrate

        async def slow(p: MeanPhotonNumber, context: CalibrationContext) -> Record:
            await asyncio.sleep(2.0)
            return await calibrate(p, context)

        with self.patch.context() as m:
            m.setattr(MeanPhotonNumber, "calibrate", slow)
            self._soon(run, 25.0)
            version = self._version(run)
            await until(run, lambda: core.life.activity is Activity.CALIBRATING, 40.0, "upkeep has begun")
            bob = run.sites["bob"].core.engine
            assert isinstance(bob, BobEngine)
            with pytest.raises(Refused) as e:
                await bob.request_light(LightMode.FIX)
            self.notes["light"] = str(e.value)
            await until(run, lambda: self._version(run) > version, 10.0, "redone")
        await until_keying(run, 60.0)
        await asyncio.sleep(0.3)
        self.notes["redone"] = {
            name: events(run, "alice", f"upkeep.{name}", begin) for name in ("planned", "done", "keys_back", "failed")
        }
        self.notes["redone operational"] = events(run, "alice", "state.operational", begin)

    def _version(self, run: Run) -> int:
        record = run.sites["alice"].core.records.active("mean_photon")
        return record.version if record else 0

    async def _fails_while_good(self, run: Run) -> None:
        core = run.sites["alice"].core
        with self.patch.context() as m:
            m.setattr(MeanPhotonNumber, "calibrate", _refused)
            core.operator.request_calibration(frozenset({"mean_photon"}), "anna")
            await until(run, lambda: core.life.operational is Operational.DEGRADED, 10.0, "degraded")
            self.notes["degraded"] = core.life.why("operational")
            self.notes["keys go on"] = await until_keying(run, 60.0)
        await until(run, lambda: core.life.operational is Operational.ENABLED, 60.0, "let go, as the record holds")

    async def _fails_when_out(self, run: Run) -> None:
        core = run.sites["alice"].core
        with self.patch.context() as m:
            m.setattr(MeanPhotonNumber, "calibrate", _refused)
            core.records.invalidate("mean_photon", "said so")
            await until(run, lambda: core.wiring.keys_blocked is not None, 20.0, "keys are blocked")
            await asyncio.sleep(20.0)
            self.notes["blocked"] = (core.life.activity, core.life.why("activity"), core.life.operational)
            self.notes["blocked plan"] = [(d.name, d.why) for d in core.operator.due() if not d.deferred]
            assert core.operator.upkeep is not None
            self.notes["blocked failing"] = core.operator.upkeep.failing
        self.notes["unblocked"] = await until_keying(run, 60.0)
        self.notes["unblocked state"] = (core.life.operational, core.wiring.keys_blocked)

    async def _receiver_by_command(self, run: Run) -> None:
        begin, core = run.loop.time(), run.sites["bob"].core
        core.operator.request_calibration(frozenset({"detector_delay"}), "anna")
        await until(run, lambda: core.life.activity is Activity.CALIBRATING, 10.0, "upkeep has begun")
        await asyncio.sleep(1.5)
        alice = run.sites["alice"].core
        due = [d.name for d in alice.operator.due() if not d.deferred]
        self.notes["transmitter meanwhile"] = (alice.life.activity, due)
        self.notes["receiver back"] = await until_keying(run, 120.0)
        self.notes["receiver"] = {n: core.records.active(n) for n in core.operator.graph().prompt}
        self.notes["receiver done"] = events(run, "bob", "upkeep.done", begin)
        self.notes["receiver dark"] = events(run, "bob", "session.failed", begin)

    async def _rolled_back(self, run: Run) -> None:
        begin, core = run.loop.time(), run.sites["alice"].core
        core.records.rollback("mean_photon", "by anna")
        core.operator.request_walk("mean_photon rolled back by anna")
        await until(run, lambda: bool(events(run, "alice", "upkeep.done", begin)), 20.0, "applied")
        active = core.records.active("mean_photon")
        assert active is not None
        volts = core.module.biases.voltage("voa") - active.value["voa_v"]
        self.notes["rolled back"] = (events(run, "alice", "calibration.rollback", begin), active, volts)
        await until_keying(run, 60.0)

    async def _warm(self, run: Run) -> None:
        begin, core = run.loop.time(), run.sites["alice"].core
        before = {n: r.version for n in core.records.names() if (r := core.records.active(n))}
        core.operator.interrupt("a short stop")
        await until(run, lambda: bool(events(run, "alice", "devices.open", begin)), 20.0, "a new start")
        await until(run, lambda: core.life.activity is Activity.READY, 120.0, "ready again")
        after = {n: r.version for n in core.records.names() if (r := core.records.active(n))}
        walk = [e for e in events(run, "alice", "state.activity", begin) if "walking" in str(e["why"])]
        walked = (run.clock.utc() - datetime.fromisoformat(str(walk[0]["t"]))).total_seconds()
        self.notes["warm"] = (before, after, walked)


async def _refused(p: MeanPhotonNumber, context: CalibrationContext) -> Record:
    raise CalibrationRefused("mean_photon", "pa3 at its rail")


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    with pytest.MonkeyPatch.context() as patch:
        service = Service(tmp_path_factory.mktemp("upkeep"), patch)
    yield service
    service.run.close()


def test_a_check_renews_a_record_without_stopping_keys(service: Service) -> None:
    assert service.notes["begun"] == []
    (told,) = service.notes["renewed"]
    assert (told["name"], told["by"], told["read"]) == ("mean_photon", "automatic", '{"power_w": 1e-06}')
    assert service.notes["renewed states"] == []
    assert service.notes["renewed until"] > service.run.clock.epoch + timedelta(hours=23)


def test_a_record_that_runs_out_is_redone_and_keys_come_back(service: Service) -> None:
    notes = service.notes["redone"]
    (planned,), (done,), (back,) = notes["planned"], notes["done"], notes["keys_back"]
    assert planned["names"] == done["names"] == "mean_photon"
    assert planned["takes"] == "keys"
    assert planned["cost_s"] == MeanPhotonNumber.cost_s
    assert "valid for" in planned["why"]
    assert 2.0 < done["seconds"] < 3.0
    # What a run of the engine costs to begin again: its pause, its lead, and SYNC in strobed light.
    assert done["seconds"] < back["outage_s"] < 15.0
    assert notes["failed"] == []
    assert service.notes["redone operational"] == []
    assert "the transmitter is calibrating: upkeep" in service.notes["light"]


def test_keys_go_on_while_the_old_record_holds(service: Service) -> None:
    assert service.notes["degraded"] == "upkeep failed: mean_photon: pa3 at its rail"
    assert service.notes["keys go on"] < 20.0


def test_keys_stop_with_the_reason_when_it_does_not(service: Service) -> None:
    activity, why, operational = service.notes["blocked"]
    assert (activity, operational) == (Activity.READY, Operational.DEGRADED)
    assert why == "no keys: mean_photon is out (said so); upkeep failed: mean_photon: pa3 at its rail"
    assert service.notes["blocked plan"] == [("mean_photon", "said so")]
    assert service.notes["blocked failing"] == {"mean_photon": "mean_photon: pa3 at its rail"}
    assert service.notes["unblocked"] < 50.0
    assert service.notes["unblocked state"] == (Operational.ENABLED, None)


def test_the_receiver_recalibrates_by_command_with_the_transmitters_light(service: Service) -> None:
    assert service.notes["transmitter meanwhile"] == (Activity.READY, [])
    assert service.notes["receiver back"] < 60.0
    records: Mapping[str, Record] = service.notes["receiver"]
    assert records["detector_delay"].conditions.operator == "anna"
    assert records["detector_bias"].conditions.operator == "automatic"
    assert set(records["detector_delay"].conditions.temperatures_c) == {"submount", "object", "sink"}
    for name, record in records.items():
        assert all(records[n].version == v for n, v in record.parents.items()), name
    (done,) = service.notes["receiver done"]
    assert "detector_delay" in done["names"]
    assert service.notes["receiver dark"] == []


def test_a_rollback_is_applied(service: Service) -> None:
    told, active, volts = service.notes["rolled back"]
    assert [e["name"] for e in told] == ["mean_photon"]
    assert str(told[0]["why"]).endswith(": by anna")
    assert abs(volts) < 1e-3
    # What it rests on may have been redone since; then it was redone from that.
    records = service.run.sites["alice"].core.records
    assert all(records.active(n).version == v for n, v in active.parents.items())  # type: ignore[union-attr]


def test_a_warm_boot_redoes_nothing_in_the_walk(service: Service) -> None:
    before, after, walked_s = service.notes["warm"]
    assert before == after
    assert walked_s < 15.0


# rules


@dataclass
class FakeHost:
    """An operator with a made-up graph; its engine is a status that tests set."""

    bench: Bench
    directory: Path
    in_service: bool = True
    off_k: float = 0.0
    done: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.walking = asyncio.Lock()
        clock = cast(Clock, self.bench.fake.time)
        status = SimpleNamespace(blocks_committed=0, block_progress=0.0, peer_ready=True, peer_state="keying")
        self.status = status
        self.wiring: Any = SimpleNamespace(
            config=SimpleNamespace(
                control=SimpleNamespace(upkeep_period_s=0.01, upkeep_margin_s=60.0, upkeep_spread_s=600.0)
            ),
            clock=clock,
            life=LifeCycle(self.directory / "administrative.json", clock),
            events=EventLog(None, clock, "QA-1"),
            engine=SimpleNamespace(status=status),
            leases=SimpleNamespace(any=lambda: None),
            stop_keying=self._stop_keying,
            tell_peer=self._tell_peer,
            progress_event=lambda progress: None,
            keys_blocked=None,
            notice="",
            why_no_keys=lambda: None,
        )
        self.activity(Activity.KEYING)
        self.wiring.life.set_operational(Operational.ENABLED, "calibrated")
        self.upkeep = Upkeep(cast(Host, self), cast(Module, None), self.bench.context)

    def activity(self, value: Activity) -> None:
        self.wiring.life.set_activity(value, KEYING if value is Activity.KEYING else "for a reason")

    def graph(self) -> Graph:
        return self.bench.graph

    def temperature_within(self, kelvin: float) -> bool:
        return self.off_k < kelvin

    async def resume(self, module: Module, context: CalibrationContext, redone: frozenset[str]) -> None:
        self.done.append(f"resume after {', '.join(sorted(redone))}")

    async def _stop_keying(self, why: str) -> None:
        self.done.append("stop keys")

    async def _tell_peer(self) -> None:
        return None

    def step(self) -> list[str]:
        """One step; what was calibrated in it."""
        self.bench.log.clear()
        asyncio.run(self.upkeep.step())
        return self.bench.done()

    def events(self, name: str) -> list[Mapping[str, Any]]:
        return [e for e in self.wiring.events.entries if e["event"] == name]


class Rules:
    def __init__(
        self, directory: Path, needs: Mapping[str, tuple[str, ...]], **attributes: Mapping[str, object]
    ) -> None:
        self.bench = Bench(needs, **attributes)
        self.bench.walk()
        self.host = FakeHost(self.bench, directory)


WEEK_S = 7 * 86_400.0


def test_nothing_out_nothing_done(tmp_path: Path) -> None:
    host = Rules(tmp_path, {"a": ()}).host
    assert host.step() == []
    assert host.done == []


def test_what_disturbs_nothing_is_redone_beside_the_keys(tmp_path: Path) -> None:
    quiet = {"renews": False, "disturbs": Disturbs.NOTHING}
    rules = Rules(tmp_path, {"a": (), "b": ("a",)}, a=quiet, b=quiet)
    rules.bench.fake.time.now += WEEK_S - 30.0
    assert rules.host.step() == ["a", "b"]
    assert rules.host.done == []
    assert rules.host.wiring.life.activity is Activity.KEYING


def test_what_takes_something_along_that_disturbs_is_no_quiet_work(tmp_path: Path) -> None:
    rules = Rules(tmp_path, {"a": (), "b": ("a",)}, a={"renews": False, "disturbs": Disturbs.NOTHING})
    rules.bench.fake.time.now += WEEK_S - 30.0
    rules.host.activity(Activity.READY)
    assert rules.host.step() == ["a", "b"]
    assert rules.host.done == ["stop keys", "resume after a, b"]
    (planned,) = rules.host.events("upkeep.planned")
    assert (planned["names"], planned["takes"], planned["cost_s"]) == ("a, b", "keys", 4.0)


def test_what_will_be_due_soon_shares_the_outage(tmp_path: Path) -> None:
    loud = {"renews": False}
    rules = Rules(tmp_path, {"a": (), "b": (), "c": ()}, a=loud, b=loud | {"valid_s": 9 * 86_400.0}, c=loud)
    rules.host.activity(Activity.READY)
    rules.bench.fake.time.now += 3 * 86_400.0
    rules.bench.walk(force=["c"])
    rules.bench.fake.time.now += 4 * 86_400.0 - 30.0
    assert rules.host.step() == ["a", "b"]


def test_a_failed_data_check_stops_keys_at_once(tmp_path: Path) -> None:
    rules = Rules(tmp_path, {"a": (), "b": ("a",)})
    rules.bench.parts["a"].verdict = CheckResult.out_of_spec("drifted")
    rules.bench.fake.time.now += WEEK_S - 30.0
    assert rules.host.step() == ["a", "b"]
    assert rules.host.done[0] == "stop keys"
    (out,) = rules.host.events("upkeep.out_of_spec")
    assert (out["calibration"], out["why"]) == ("a", "drifted")
    assert rules.host.events("upkeep.block_dropped") == []


@pytest.mark.parametrize(
    ("progress", "said"), [(0.5, None), (0.1, "90 s to its end; 50 s are left")], ids=["near its end", "far from it"]
)
async def test_an_ageing_record_waits_for_the_end_of_a_block(tmp_path: Path, progress: float, said: str | None) -> None:
    rules = Rules.__new__(Rules)
    rules.bench = await asyncio.to_thread(_walked, {"a": ()}, {"a": {"renews": False}})
    host = FakeHost(rules.bench, tmp_path)
    with host.upkeep._keys.listening():
        host.activity(Activity.READY)
        rules.bench.fake.time.now += WEEK_S - 60.0
        host.activity(Activity.KEYING)
        host.status.block_progress = progress
        rules.bench.fake.time.now += 10.0
        work = asyncio.create_task(host.upkeep.step())
        await asyncio.sleep(0.01)
        assert work.done() == (said is not None)
        if said is None:
            assert host.wiring.notice.startswith("upkeep of a (about 2 s without keys): a: valid for 50 s more")
            host.wiring.events.record("block.closed")
        await work
        host.activity(Activity.KEYING)
    assert host.done == ["stop keys", "resume after a"]
    assert [e["why"] for e in host.events("upkeep.block_dropped")] == ([said] if said else [])
    assert [e["outage_s"] for e in host.events("upkeep.keys_back")] == [0.0]
    assert host.wiring.notice == ""


def _walked(needs: Mapping[str, tuple[str, ...]], attributes: Mapping[str, Mapping[str, object]]) -> Bench:
    bench = Bench(needs, **attributes)
    bench.walk()
    return bench


def test_deferred_ones_never_keep_a_module_from_its_first_keys(tmp_path: Path) -> None:
    late = {"deferred": True, "renews": False}
    rules = Rules(
        tmp_path, {"a": (), "long": ("a",), "short": ("a",)}, long=late | {"cost_s": 9.0}, short=late | {"cost_s": 1.0}
    )
    host, time = rules.host, rules.bench.fake.time
    host.activity(Activity.READY)
    assert host.step() == []  # keys are next
    host.status.peer_ready = False
    assert host.step() == ["short"]
    assert host.step() == []
    host.status.blocks_committed, host.status.peer_ready = 1, True
    host.activity(Activity.KEYING)
    assert host.step() == []  # too soon after the one before
    time.now += 601.0
    work = rules.bench.context.store.active("a")
    host.status.block_progress = 0.0
    host.upkeep._keys._began_s, host.status.block_progress = time.now - 90.0, 0.5
    assert host.step() == []  # the block is not near its end
    host.status.block_progress = 1.0
    host.status.peer_ready = False
    host.activity(Activity.READY)
    assert host.step() == ["long"]
    assert host.done[-1] == "resume after long"
    assert rules.bench.context.store.active("a") == work
    # What keys rest on is put back afterwards.
    assert ("a", "apply") in rules.bench.log[rules.bench.log.index(("long", "calibrate")) :]


def test_the_other_side_is_waited_for_within_reason(tmp_path: Path) -> None:
    rules = Rules(tmp_path, {"a": ()}, a={"renews": False})
    host, time = rules.host, rules.bench.fake.time
    host.activity(Activity.READY)
    host.status.peer_state = "calibrating"
    time.now += WEEK_S
    assert host.step() == []
    host.upkeep.ask(["a"], "anna")
    assert host.step() == ["a"]
    assert rules.bench.context.store.active("a").conditions.operator == "anna"  # type: ignore[union-attr]
    time.now += WEEK_S
    host.status.peer_state = "ready"
    host.wiring.leases = SimpleNamespace(any=lambda: "a lease")
    assert host.step() == []
    host.wiring.leases = SimpleNamespace(any=lambda: None)
    host.status.peer_state = "locking"
    assert host.step() == []
    time.now += 121.0
    assert host.step() == ["a"]


def test_failures_are_repeated_ever_more_rarely(tmp_path: Path) -> None:
    rules = Rules(tmp_path, {"a": (), "b": ("a",), "c": ()}, a={"renews": False}, c={"renews": False})
    host, time = rules.host, rules.bench.fake.time
    host.activity(Activity.READY)
    rules.bench.parts["a"].broken = True
    time.now += WEEK_S
    times = []
    for _ in range(400):
        if "a" in host.step():
            times.append(time.now)
        time.now += 5.0
    pauses = [round(b - a) for a, b in pairwise(times)]
    assert pauses[:5] == [30, 60, 120, 300, 600]
    assert host.upkeep.failing == {"a": "a: noise"}
    assert host.wiring.keys_blocked.startswith("no keys: a is out (valid until")
    assert host.wiring.life.why("operational") == "upkeep failed: a: noise"
    assert "c" not in [d.name for d in host.upkeep.plan()]  # done although a fails
    rules.bench.parts["a"].broken = False
    time.now += 600.0
    assert host.step() == ["a", "b"]
    assert (host.upkeep.failing, host.wiring.keys_blocked) == ({}, None)
    assert host.wiring.life.operational is Operational.ENABLED


def test_what_keys_do_not_rest_on_does_not_degrade_the_service(tmp_path: Path) -> None:
    quiet = {"deferred": True, "renews": False, "disturbs": Disturbs.NOTHING}
    rules = Rules(
        tmp_path, {"a": (), "late": ("a",), "counted": ("a",)}, late=quiet, counted=quiet | {"by_service": True}
    )
    rules.bench.parts["late"].broken = True
    assert rules.host.step() == ["late"]
    assert rules.host.upkeep.failing == {"late": "late: noise"}
    assert rules.host.wiring.life.operational is Operational.ENABLED
    assert rules.host.wiring.keys_blocked is None
    assert [d.name for d in rules.host.upkeep.plan()] == ["late"]
    rules.bench.walk(force=["counted"])
    assert rules.bench.context.store.active("counted") is None


def test_a_device_that_fails_beside_the_keys_is_a_failure_not_an_end(tmp_path: Path) -> None:
    rules = Rules(tmp_path, {"a": ()})

    async def check(context: CalibrationContext, record: Record) -> None:
        raise Timeout("no answer")

    rules.bench.graph["a"].check = check  # type: ignore[method-assign]
    rules.bench.fake.time.now += WEEK_S - 30.0
    assert rules.host.step() == []
    assert list(rules.host.upkeep.failing) == ["a"]
    assert rules.host.wiring.keys_blocked is None  # the record still holds
    rules.bench.fake.time.now += 31.0
    rules.host.step()
    assert "a is out" in str(rules.host.wiring.keys_blocked)


def test_a_record_that_stays_out_after_its_calibration_is_a_failure(tmp_path: Path) -> None:
    rules = Rules(tmp_path, {"a": ()})
    rules.host.activity(Activity.READY)
    rules.bench.graph["a"].gives = ("y",)  # type: ignore[misc]
    assert rules.host.step() == ["a"]
    assert rules.host.upkeep.failing == {"a": "a: still out: taken by an older version, without y"}
    assert rules.host.step() == []


def test_it_rests_when_others_move_the_outputs(tmp_path: Path) -> None:
    rules = Rules(tmp_path, {"a": ()}, a={"renews": False})
    rules.bench.fake.time.now += WEEK_S
    for activity in (Activity.LOCKING, Activity.CALIBRATING, Activity.SAFE):
        rules.host.activity(activity)
        assert rules.host.step() == []
    rules.host.activity(Activity.READY)
    rules.host.in_service = False
    assert rules.host.step() == []


async def test_it_runs_until_cancelled_and_wakes_when_asked(tmp_path: Path) -> None:
    bench = await asyncio.to_thread(_walked, {"a": ()}, {})
    host = FakeHost(bench, tmp_path)
    host.wiring.config.control.upkeep_period_s = 1000.0
    host.activity(Activity.READY)
    work = asyncio.create_task(host.upkeep.run())
    await asyncio.sleep(0.01)
    host.upkeep.ask(["a"], "anna")
    await asyncio.sleep(0.02)
    assert host.done == ["stop keys", "resume after a"]
    host.upkeep.ask_walk("after a rollback")
    await asyncio.sleep(0.02)
    assert host.done[2:] == ["stop keys", "resume after "]
    assert host.events("upkeep.planned")[-1]["why"] == "after a rollback"
    work.cancel()
    with pytest.raises(asyncio.CancelledError):
        await work
    assert (host.wiring.events.listeners, host.wiring.life.listeners) == ([], [])


def test_progress_of_upkeep_names_it(tmp_path: Path) -> None:
    host = Rules(tmp_path, {"a": ()}).host
    host.upkeep._progress(Progress("a", 0.0, "asked for"))
    assert host.wiring.life.why("activity") == "upkeep: a: asked for"


def test_the_firmware_digest_is_over_every_device() -> None:
    one = {"tec": Identity("mecom_tec", "serial:tec", "TEC-1091", "17", "5.1"), "adc": Identity("ads", "spi:0.0", "X")}
    assert firmware_sha256(one) == firmware_sha256(dict(reversed(one.items())))
    other = one | {"tec": Identity("mecom_tec", "serial:tec", "TEC-1091", "17", "5.2")}
    moved = one | {"tec": Identity("mecom_tec", "serial:elsewhere", "TEC-1091", "17", "5.1")}
    assert firmware_sha256(other) != firmware_sha256(one) == firmware_sha256(moved)
