"""What befalls a pair in service: lost phase, latched detectors, broken heaters, a dead laser, a cut fibre, noise."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any, cast

import pytest

from calibration.context import LightRefused
from drivers.errors import Refused
from drivers.roles import LightMode
from qmodd.app import bob
from qmodd.app.bob import BobOperator, PatientLight
from qmodd.keys.bob_engine import BobEngine
from qmodd.lifecycle import Activity, Operational
from qmodd.soak import Run
from tests.app.pair import befall_world, events, outputs, simulate, strike, until, until_keying


class Service:
    """One run, one thing after the other; each leaves a note."""

    def __init__(self, directory: object) -> None:
        self.notes: dict[str, Any] = {}
        self.run = simulate(directory, self._script)  # type: ignore[arg-type]

    async def _script(self, run: Run) -> None:
        for each in run.sites.values():
            each.core.wiring.heartbeat_s = 0.3
        await until_keying(run)
        await self._noise(run)
        await self._lost_phase(run)
        await self._latch(run)
        await self._world_fault(run, "open heater", "bob", ("open", "bob.heater.2"), 5.0)
        await self._world_fault(run, "dead laser", "alice", ("dead", "alice.laser"), 15.0)
        await self._cut_fibre(run)

    async def _noise(self, run: Run) -> None:
        """One transaction in ten is not acknowledged: repeated, counted, and nobody else has to know."""
        begin = run.loop.time()
        strike(run, "nack", "alice.i2c1", 20.0, probability=0.1)
        await asyncio.sleep(20.0)
        self.notes["noise"] = run.sites["alice"].core.module.buses.counters()["i2c:1"]
        self.notes["noise states"] = events(run, "alice", "state.activity", begin)

    async def _lost_phase(self, run: Run) -> None:
        core, begin = run.sites["bob"].core, run.loop.time()
        before = core.records.active("arm_phase")
        core.wiring.sweep_wanted.set()
        await until(run, lambda: core.life.operational is Operational.DEGRADED, 3.0, "degraded")
        self.notes["lost phase"] = core.life.why("operational")
        await until(run, lambda: core.life.operational is Operational.ENABLED, 60.0, "phase found again")
        self.notes["phase back"] = await until_keying(run, 60.0)
        after = core.records.active("arm_phase")
        self.notes["phase versions"] = (before and before.version, after and after.version)
        self.notes["phase safe"] = [e for e in events(run, "bob", "state.activity", begin) if e["value"] == "safe"]

    async def _latch(self, run: Run) -> None:
        begin = run.loop.time()
        befall_world(run, "latched", "bob.detector.0", 1.0)
        self.notes["latched"] = bool(run.world.bob.bank.latched[0])
        await until(run, lambda: not run.world.bob.bank.latched.any(), 10.0, "bias was reset")
        self.notes["latch events"] = [str(e["detectors"]) for e in events(run, "bob", "detector.latched", begin)]
        biased = lambda: bool((run.world.bob.bank.bias > 5e-6).all())  # noqa: E731
        self.notes["latch back"] = await until(run, biased, 10.0, "bias is back") + await until_keying(run, 60.0)

    async def _world_fault(self, run: Run, name: str, site: str, fault: tuple[str, str], seconds: float) -> None:
        begin = run.loop.time()
        befall_world(run, *fault, seconds)
        dark = await until(run, lambda: outputs(run, site).rails_off, 12.0, f"{name}: rails off")
        await asyncio.sleep(max(0.0, begin + seconds - run.loop.time()))
        why = [str(e["why"]) for e in events(run, site, "state.activity", begin) if e["value"] == "safe"]
        failed = events(run, site, "session.failed", begin)
        self.notes[name] = (dark, why[0], len(failed), await until_keying(run, 120.0))

    async def _cut_fibre(self, run: Run) -> None:
        begin = run.loop.time()
        befall_world(run, "cut", "fibre", 25.0)
        await asyncio.sleep(24.0)
        self.notes["cut"] = [run.sites[n].core.life.why("activity") for n in ("alice", "bob")]
        self.notes["cut safe"] = [e for n in run.sites for e in events(run, n, "session.failed", begin)]
        await asyncio.sleep(2.0)
        self.notes["cut back"] = await until_keying(run, 120.0)


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    service = Service(tmp_path_factory.mktemp("service"))
    yield service
    service.run.close()


def test_noise_on_a_bus_is_repeated_and_counted(service: Service) -> None:
    counters = service.notes["noise"]
    assert counters.retries > 0
    assert counters.transactions > counters.errors
    assert service.notes["noise states"] == []


def test_lost_phase_is_swept_again_without_going_dark(service: Service) -> None:
    assert "phase lost" in service.notes["lost phase"]
    before, after = service.notes["phase versions"]
    assert after == before + 1
    assert service.notes["phase back"] < 60.0
    assert service.notes["phase safe"] == []


def test_latched_detector_is_named_reset_and_back_at_its_bias(service: Service) -> None:
    assert service.notes["latched"]
    assert len(service.notes["latch events"]) >= 1
    assert service.notes["latch back"] < 60.0


def test_broken_heater_is_named_and_drops_the_rails(service: Service) -> None:
    dark_after, why, failures, back = service.notes["open heater"]
    assert dark_after <= 1.5
    assert "phase" in why
    assert "open" in why
    assert failures >= 1
    assert back < 120.0


def test_laser_without_light_is_named_and_tried_with_pauses(service: Service) -> None:
    _, why, failures, back = service.notes["dead laser"]
    assert "laser" in why
    assert "emi" in why
    assert 1 <= failures <= 8  # pauses grow; it does not spin
    assert back < 120.0


def test_cut_fibre_is_waited_for_in_service(service: Service) -> None:
    assert all(why for why in service.notes["cut"])
    assert service.notes["cut safe"] == []
    assert service.notes["cut back"] < 60.0


# the receiver's patience for light


class Transmitter:
    """Answers requests for light with what a test prepared; each waits for its turn on the clock."""

    def __init__(self, *answers: Exception | None) -> None:
        self.answers = list(answers)
        self.now = 0.0
        self.said: list[tuple[Activity, str]] = []

    async def request_light(self, mode: LightMode, state: int, intensity: int, scale: float) -> None:
        self.now += 1.0
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if answer is not None:
            raise answer

    @property
    def light(self) -> PatientLight:
        wiring = SimpleNamespace(
            engine=self,
            clock=SimpleNamespace(monotonic=lambda: self.now),
            life=SimpleNamespace(set_activity=lambda activity, why: self.said.append((activity, why))),
        )
        return PatientLight(cast(BobOperator, SimpleNamespace(wiring=wiring)))


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bob, "LIGHT_RETRY_S", 0.0)
    monkeypatch.setattr(bob, "BobEngine", (Transmitter, BobEngine))


async def test_light_is_waited_for_and_the_reason_shown() -> None:
    transmitter = Transmitter(Refused("the transmitter is calibrating: laser"), Refused("the same"), None)
    await transmitter.light.set(LightMode.FIX, 0, 0, 1.0)
    assert [activity for activity, _ in transmitter.said] == [Activity.CALIBRATING] * 2
    assert "the transmitter is calibrating: laser" in transmitter.said[0][1]


async def test_light_that_does_not_come_is_refused_with_the_last_reason() -> None:
    transmitter = Transmitter(Refused("the transmitter is locked: fibre work"))
    with pytest.raises(LightRefused, match="locked: fibre work"):
        await transmitter.light.set(LightMode.FIX)
    assert transmitter.now >= bob.LIGHT_PATIENCE_S


async def test_silence_is_no_light_either(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bob, "LIGHT_ANSWER_S", 0.001)
    monkeypatch.setattr(bob, "LIGHT_PATIENCE_S", -1.0)
    transmitter = Transmitter(None)

    async def silent(*_: object) -> None:
        await asyncio.Event().wait()

    monkeypatch.setattr(transmitter, "request_light", silent)
    with pytest.raises(LightRefused, match=r"no answer from the transmitter within 0.001 s"):
        await transmitter.light.set(LightMode.FIX)
