"""Interlocks and latches with a real pair: what trips them, what stays dark, what a person may clear; one story."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from drivers.errors import Refused
from qmodd.app.operator import Operator
from qmodd.app.safekeeping import StillViolated
from qmodd.identity import ClientFiles
from qmodd.lifecycle import Activity
from qmodd.provision import SITE
from qmodd.soak import Run
from sim.faults import Fault
from sim.scenario import Scenario
from tests.app.pair import Noc, befall_world, build, events, outputs, simulate, strike, until, until_keying

# A minute of processor time, more beside others.
pytestmark = pytest.mark.timeout(600)


class Story:
    """One pair and what befalls it, one thing after the other, keys between; `notes` by chapter."""

    def __init__(self, directory: Path) -> None:
        self.notes: dict[str, dict[str, Any]] = {}
        warm = Scenario.from_mapping({"start": {"alice_c": 29.9, "bob_c": 29.9}})
        self.run = simulate(directory, self._script, scenario=warm)

    async def _script(self, run: Run) -> None:
        self.run = run
        for chapter in (
            self._fan_and_supply,
            self._cryostat,
            self._covers,
            self._trips,
            self._not_safe,
            self._hot,
            self._ramp,
            self._stop,
        ):
            await until_keying(run)
            await asyncio.sleep(12.0)  # alarms of the chapter before are cleared
            self.begin = run.loop.time()
            notes = self.notes.setdefault(chapter.__name__.strip("_"), {})
            await chapter(run, notes)

    def operator(self, name: str) -> Operator:
        return self.run.sites[name].core.operator

    def sick(self, kind: str, target: str, seconds: float, value: float | None = None) -> None:
        self.run.world.faults.add(Fault(self.run.loop.time(), kind, target, seconds, value))

    def alarms(self) -> dict[str, list[str]]:
        return {n: [str(e["alarm"]) for e in events(self.run, n, "alarm.raised", self.begin)] for n in self.run.sites}

    async def latched(self, name: str, latch: str) -> None:
        await until(self.run, lambda: latch in self.operator(name).latches(), 30.0, f"{latch} of {name}")

    async def _fan_and_supply(self, run: Run, notes: dict[str, Any]) -> None:
        self.sick("slow", "alice.pmbus", 20.0, 0.0)
        self.sick("sagging", "bob.pmbus", 20.0)
        await asyncio.sleep(20.0)
        notes["alarms"] = self.alarms()
        notes["ended"] = [e for n in run.sites for e in events(run, n, "session.failed", self.begin)]
        await asyncio.sleep(8.0)
        notes["left"] = [a.id for n in run.sites for a in run.sites[n].core.wiring.alarms.active()]

    async def _cryostat(self, run: Run, notes: dict[str, Any]) -> None:
        befall_world(run, "warm", "bob.cryostat", 15.0)
        bias = outputs(run, "bob").detector_bias_a
        notes["unbiased"] = await until(run, lambda: not any(outputs(run, "bob").detector_bias_a), 6.0, "no bias", 0.05)
        await asyncio.sleep(10.0)
        notes |= {"bias": bias, "alarms": self.alarms(), "latches": self.operator("bob").latches()}

    async def _covers(self, run: Run, notes: dict[str, Any]) -> None:
        """Both are opened; there is light behind one."""
        for name in run.sites:
            strike(run, "open", f"{name}.cover", 8.0)
        notes["dark"] = await until(run, lambda: not outputs(run, "alice").emitting, 1.0, "light off", 0.01)
        await self.latched("alice", "cover-open")
        with pytest.raises(StillViolated, match="the cover is open"):
            await self.operator("alice").clear_latch("cover-open", "ann")
        await asyncio.sleep(12.0)
        notes["alarms"], notes["bob"] = self.alarms(), self.operator("bob").latches()
        notes["activity"] = run.sites["alice"].core.life.activity
        struck = {n: events(run, n, "tamper.struck", self.begin) for n in run.sites}
        notes["struck"] = {n: [str(e["policy"]) for e in told] for n, told in struck.items()}
        for name in run.sites:
            await self.operator(name).clear_latch("cover-open", "ann")

    async def _trips(self, run: Run, notes: dict[str, Any]) -> None:
        """The board's line says that the watchdog has struck, again and again."""
        self.sick("high", "alice.pca9535.9", 25.0)
        await self.latched("alice", "watchdog-tripped")
        await asyncio.sleep(5.0)
        notes |= {"why": self.operator("alice").latches()["watchdog-tripped"], "alarms": self.alarms()}
        notes["starts"] = len(events(run, "alice", "devices.open", self.begin))
        notes["dark"] = outputs(run, "alice").dark
        await asyncio.sleep(20.0)
        await self.operator("alice").clear_latch("watchdog-tripped", "ann")

    async def _not_safe(self, run: Run, notes: dict[str, Any]) -> None:
        """The rail's monitor goes on reading what it read, although the rail is off; then it does not answer."""
        self.sick("frozen", "bob.ina228", 8.0)
        await asyncio.sleep(0.5)
        self.operator("bob").interrupt("drawn")
        await self.latched("bob", "output-not-safe")
        strike(run, "unplug", "bob.ina228", 8.0)
        with pytest.raises(StillViolated, match="heater_rail cannot be read"):
            await self.operator("bob").clear_latch("output-not-safe", "ann")
        await asyncio.sleep(10.0)
        notes |= {"alarms": self.alarms(), "latches": self.operator("bob").latches(), "dark": outputs(run, "bob").dark}
        await self.operator("bob").clear_latch("output-not-safe", "ann")

    async def _hot(self, run: Run, notes: dict[str, Any]) -> None:
        """The receiver's heat sink; a person clears too soon, an operator may not, a maintainer does in time."""
        operator, plant, life = self.operator("bob"), run.world.bob.plant, run.sites["bob"].core.life
        befall_world(run, "fan", "bob.tec", 40.0)
        plant.state[3] = 75.0  # what an hour without a fan does to the sink
        await self.latched("bob", "over-temperature")
        notes["latched after"] = run.loop.time() - self.begin
        notes["dark after"] = await until(run, lambda: outputs(run, "bob").dark, 1.0, "dark", 0.01)
        notes["latches"], notes["state"] = operator.latches(), run.sites["bob"].core.wiring.latched()
        notes["file"] = json.loads((run.directory / "bob" / "state" / "latches.json").read_text())
        plant.state[3] = 75.0
        with pytest.raises(StillViolated) as refused:
            await operator.clear_latch("over-temperature", "ann")
        notes["refused"] = str(refused.value)
        notes["tec off after"] = await until(run, lambda: not outputs(run, "bob").tec_on, 60.0, "TEC off", 0.5)
        operator.release()
        await asyncio.sleep(5.0)
        notes["still dark"] = outputs(run, "bob").dark and life.activity
        notes["why"], notes["alarms"] = dict(life.inhibited), self.alarms()
        plant.state[3] = min(plant.state[3], 40.0)
        noc = Noc(run)
        noc.do("bob", "clear-latch", {"latch": "over-temperature"})
        await asyncio.sleep(1.0)
        notes["by an operator"] = operator.latches()
        noc.files = ClientFiles.load(run.directory / SITE / "maintainer")
        body = noc.body("bob", "clear-latch", {"latch": "over-temperature"}, client="maintainer")
        noc.send("bob", body.topic, noc.signed(body))
        await until(run, lambda: not operator.latches(), 5.0, "cleared by command")
        notes["back after"] = await until_keying(run)

    async def _ramp(self, run: Run, notes: dict[str, Any]) -> None:
        """Held for a retry, then ramped; a session takes it back."""
        operator, tec = self.operator("bob"), run.rigs["bob"].port.tec
        notes["left"] = [a.id for a in run.sites["bob"].core.wiring.alarms.active()]
        strike(run, "unplug", "bob.tmp117", 32.0)
        await asyncio.sleep(15.0)
        notes["held"] = tec.enabled, tec.target_c
        # Towards the heat sink, which may be warmer than the chip.
        await until(run, lambda: abs(tec.target_c - 30.0) > 1.0 or not tec.enabled, 15.0, "ramped", 0.5)
        notes["ramped after"] = run.loop.time() - self.begin
        notes["tries"] = len(events(run, "bob", "session.failed", self.begin))
        await until(run, lambda: not operator.ramp.active, 60.0, "taken over", 0.5)

    async def _stop(self, run: Run, notes: dict[str, Any]) -> None:
        """SIGTERM comes while a session that failed is being made safe, and cuts it short after the rails."""
        stop = self.operator("alice").safe_stop
        whole = stop.outputs

        async def never_ends(module: Any, why: str) -> None:
            notes["begun"] = why
            stop.outputs = whole  # type: ignore[method-assign]
            await asyncio.Event().wait()

        stop.outputs = never_ends  # type: ignore[method-assign]
        self.operator("alice").interrupt("drawn")
        await until(run, lambda: "begun" in notes, 2.0, "a safe stop has begun")


@pytest.fixture(scope="module")
def story(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Story]:
    story = Story(tmp_path_factory.mktemp("story"))
    yield story
    story.run.close()


def test_fan_and_supply_are_told_and_keys_go_on(story: Story) -> None:
    notes = story.notes["fan_and_supply"]
    assert notes["alarms"] == {"alice": ["fan-failed"], "bob": ["supply-fault"]}
    assert notes["ended"] == []
    assert notes["left"] == []


def test_warm_cryostat_takes_the_bias_away_and_gives_it_back(story: Story) -> None:
    notes = story.notes["cryostat"]
    assert all(notes["bias"])
    assert notes["alarms"] == {"alice": [], "bob": ["cryostat-warm"]}
    assert notes["latches"] == {}


def test_an_opened_cover_latches_with_light_and_as_a_tamper_contact_without(story: Story) -> None:
    notes = story.notes["covers"]
    assert notes["dark"] <= 0.2
    assert notes["alarms"] == {"alice": ["cover-open"], "bob": ["cover-open"]}
    assert notes["activity"] is Activity.SAFE
    assert notes["bob"] == {"cover-open": "the cover was opened (tamper contact)"}
    assert notes["struck"] == {"alice": ["latch"], "bob": ["latch"]}


def test_three_trips_of_the_hardware_watchdog_latch(story: Story) -> None:
    notes = story.notes["trips"]
    assert notes["why"].startswith("3 trips within 600 s")
    assert notes["starts"] == 2  # none after the third
    assert notes["alarms"] == {"alice": ["watchdog-tripped"], "bob": []}
    assert notes["dark"]


def test_an_output_that_reads_on_is_latched_until_it_reads_off(story: Story) -> None:
    notes = story.notes["not_safe"]
    assert "heater rail reads 4" in notes["latches"]["output-not-safe"]
    assert notes["alarms"] == {"alice": [], "bob": ["output-not-safe"]}
    assert notes["dark"]


def test_over_temperature_latches_and_is_dark_within_a_second(story: Story) -> None:
    notes = story.notes["hot"]
    assert notes["latched after"] < 6.0  # three readings, a second apart here
    assert notes["dark after"] <= 1.0
    assert "heat sink at 7" in notes["latches"]["over-temperature"]
    assert "68 C is the limit" in notes["latches"]["over-temperature"]


def test_latch_is_told_with_the_readings_before(story: Story) -> None:
    notes = story.notes["hot"]
    (shown,) = notes["state"]
    assert (shown["latch"], shown["dark"]) == ("over-temperature", True)
    (held,) = notes["file"]["latches"]
    sinks = [row["sink_c"] for row in held["snapshot"]]
    assert len(sinks) >= 4
    assert sinks[0] < 60.0 < sinks[-1]


def test_clear_is_refused_while_it_is_hot_with_reading_and_limit(story: Story) -> None:
    notes = story.notes["hot"]
    assert "heat sink at" in notes["refused"]
    assert "68 C is the limit" in notes["refused"]
    assert notes["still dark"] is Activity.SAFE
    assert all("over-temperature" in why for why in notes["why"].values())


def test_one_alarm_and_cleared_by_a_maintainer_it_comes_back(story: Story) -> None:
    notes = story.notes["hot"]
    assert list(notes["by an operator"]) == ["over-temperature"]
    assert notes["alarms"] == {"alice": [], "bob": ["over-temperature"]}
    assert notes["back after"] < 200.0
    assert story.notes["ramp"]["left"] == []


def test_tec_is_held_for_a_retry_then_ramped_down_and_off_within_a_minute(story: Story) -> None:
    notes = story.notes["ramp"]
    assert notes["held"] == (True, pytest.approx(30.0, abs=0.2))
    assert 20.0 < notes["ramped after"] < 35.0
    assert notes["tries"] >= 2
    assert story.notes["hot"]["tec off after"] <= 60.0


def test_a_stop_in_the_middle_of_a_safe_stop_still_reaches_every_output(story: Story) -> None:
    assert story.notes["stop"]["begun"] == "drawn"
    assert outputs(story.run, "alice").dark
    assert story.run.sites["alice"].core.life.why("activity") == "the daemon is stopping"


def test_dead_daemon_leaves_the_tec_to_its_own_watchdog(story: Story) -> None:
    run, ended = story.run, story.run.loop.time()
    assert outputs(run, "alice").tec_on
    assert "its own watchdog" in run.sites["alice"].core.life.inhibited["tec"]
    while outputs(run, "alice").tec_on and run.loop.time() - ended < 60.0:
        run.loop.jump(0.5)
    assert not run.rigs["alice"].port.tec.enabled


def test_writes_beyond_the_budget_and_into_biased_detectors_are_refused(tmp_path: Path) -> None:
    async def script(run: Run) -> None:
        alice, bob = (run.sites[n].core.module for n in ("alice", "bob"))
        for module in (alice, bob):
            await module.open()
        alice_heaters = alice.heaters
        for channel in alice_heaters.channels[:3]:
            await alice_heaters.set_current(channel, 0.033)
        before = outputs(run, "alice").heater_currents_a
        with pytest.raises(Refused, match=r"33\.0 mA would make 0\.4\d* W on the chip; its budget is 0\.4 W"):
            await alice_heaters.set_current(alice_heaters.channels[3], 0.033)
        assert outputs(run, "alice").heater_currents_a == before
        await alice_heaters.set_current(alice_heaters.channels[0], 0.0)
        await alice_heaters.set_current(alice_heaters.channels[3], 0.033)

        await bob.detectors.set_bias([0.0, 10e-6, 0.0])
        with pytest.raises(Refused, match=r"10\.0 uA is set"):
            await bob.biases.set_voltage("diode_shutter", 5.0)
        assert bob.biases.voltage("diode_shutter") == 0.0
        await bob.detectors.set_bias([0.0] * 3)
        await bob.biases.set_voltage("diode_shutter", 5.0)
        with pytest.raises(Refused, match="stay without bias"):
            await bob.detectors.set_bias([10e-6, 0.0, 0.0])
        await bob.biases.set_voltage("diode_shutter", 0.0)
        await bob.detectors.set_bias([10e-6, 0.0, 0.0])

    build(tmp_path, script)
