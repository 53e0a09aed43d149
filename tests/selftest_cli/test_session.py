"""A module tested without the daemon: whatever is wrong with it becomes a finding that names the part."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from qmodd.selftest.bench import Bench
from qmodd.selftest.model import Check, Finding, Level, Limits, Report, Verdict
from qmodd.selftest_cli.emulated import Listening, selftest_module
from qmodd.selftest_cli.session import unreachable
from qmodd.soak import Run
from sim.scenario import FaultLine, Scenario
from tests.app.pair import outputs


class Checks:
    """One check a level; each notes that it has run, at what chip temperature."""

    def __init__(self) -> None:
        self.ran: dict[str, float] = {}

    def check(self, level: Level) -> Check:
        async def run(bench: Bench) -> Sequence[Finding]:
            self.ran[level.value] = (await bench.context.tec.read()).object_c
            return [Finding(f"good.{level.name.lower()}", 1.0, "V", Limits(0.0, 2.0), "part")]

        return Check(f"check {level}", level, run)

    @property
    def all(self) -> tuple[Check, ...]:
        return tuple(self.check(level) for level in (Level.POWER_ON, Level.LIGHT_OFF, Level.LIGHT_ON))


def examine(side: str = "alice", *lines: dict[str, Any], **more: Any) -> tuple[Report, Checks]:
    checks = Checks()
    scenario = Scenario(fault=tuple(FaultLine.model_validate({"at": 0.0, **line}) for line in lines))
    return selftest_module(side, scenario, Level.LIGHT_ON, checks=more.pop("checks", checks.all), **more), checks


@pytest.mark.parametrize("side", ["alice", "bob"])
def test_a_good_module(side: str) -> None:
    said: list[str] = []
    report, checks = examine(side, told=Listening(say=said.append))
    assert report.passed
    assert report.suspects == ()
    assert list(checks.ran) == ["power-on", "light-off", "light-on"]
    # Power-on does not wait for the temperature, the others do.
    assert abs(checks.ran["power-on"] - 30.0) > 1.0
    assert abs(checks.ran["light-off"] - 30.0) < 0.2
    assert any("at temperature after" in text for text in said)
    devices = {f.part for f in report.findings if f.name.startswith("opens.")}
    assert {"heater_dac", "platform", "supply", "laser" if side == "alice" else "detectors"} <= devices
    assert set(report.level_seconds) == {"power-on", "light-off", "light-on"}


def test_it_is_dark_afterwards_and_nobody_ramps_beside_it() -> None:
    seen: list[Run] = []

    def prepare(run: Run) -> None:
        seen.append(run)
        run.sites["alice"].core.operator.ramp.begin("drawn", hold_s=0.0)

    report, _ = examine("alice", prepare=prepare)
    assert report.passed
    core = seen[0].sites["alice"].core
    assert outputs(seen[0], "alice").dark
    assert not core.operator.ramp.active
    assert "its own watchdog" in core.life.inhibited["tec"]


def test_a_latched_module_is_not_touched() -> None:
    seen: list[Run] = []

    def prepare(run: Run) -> None:
        seen.append(run)
        run.sites["alice"].core.operator.safekeeping.latch("over-current", "heater rail at 400 mA (drawn)")

    report, checks = examine("alice", prepare=prepare)
    assert report.suspects == ("safety latch",)
    assert "heater rail at 400 mA (drawn); `clear-latch` it first" in report.failed[0].why
    assert checks.ran == {}
    assert not seen[0].sites["alice"].core.module.identities
    assert outputs(seen[0], "alice").dark


def test_a_bus_without_an_answer_is_the_bus() -> None:
    report, checks = examine("alice", {"on": "alice.i2c1", "what": "nack"})
    assert report.suspects == ("bus i2c:1",)
    assert "heater_rail, submount" in report.failed[0].why
    assert "light-on" in checks.ran


def test_one_device_that_is_not_there_is_that_device() -> None:
    report, _ = examine("alice", prepare=lambda run: run.rigs["alice"].unplug("tmp117"))
    assert report.suspects == ("submount",)
    assert "expected TMP117" in report.failed[0].why


def test_an_open_interlock_names_its_contact_and_runs_nothing() -> None:
    report, checks = examine("alice", {"on": "alice.cover", "what": "open"})
    assert report.suspects == ("interlock",)
    assert "at the cover" in report.failed[0].why
    assert checks.ran == {}
    assert [f.level for f in report.findings if f.verdict is Verdict.SKIPPED] == list(Level.LIGHT_ON.upto)


def test_an_interlock_that_opens_meanwhile_ends_the_test() -> None:
    report, checks = examine("bob", {"on": "bob.interlock", "what": "open", "at": 4.0})
    assert report.suspects == ("interlock",)
    assert list(checks.ran) == ["power-on"]


def test_a_dead_platform() -> None:
    report, checks = examine("alice", prepare=lambda run: run.rigs["alice"].unplug("pca9535"))
    assert report.suspects == ("platform",)
    assert checks.ran == {}
    assert not unreachable(report)


def test_a_chip_that_does_not_warm_up() -> None:
    """Light-off goes on and may say what of the temperature control it is; light-on could not be judged."""
    report, checks = examine("alice", {"on": "alice.tec", "what": "reversed"})
    assert report.suspects == ("tec",)
    assert list(checks.ran) == ["power-on", "light-off"]
    assert any("not at its temperature" in f.skipped for f in report.findings if f.level is Level.LIGHT_ON)


def test_a_thermistor_explains_a_chip_that_does_not_warm_up() -> None:
    async def blame(bench: Bench) -> Sequence[Finding]:
        return [Finding("thermistor.ratio", 9.0, "", Limits(0.0, 1.0), "thermistor")]

    checks = (Check("thermistor", Level.LIGHT_OFF, blame),)
    report, _ = examine("alice", {"on": "alice.tec", "what": "reversed"}, checks=checks)
    assert report.suspects == ("thermistor",)


def test_a_locked_module_is_not_touched() -> None:
    from qmodd.lifecycle import Administrative

    def lock(run: Run) -> None:
        run.sites["alice"].core.life.set_administrative(Administrative.LOCKED, "on the bench of the field engineer")

    report, checks = examine("alice", prepare=lock)
    assert report.suspects == ("administrative lock",)
    assert "unlock" in report.failed[0].why
    assert checks.ran == {}
    assert not any(f.name.startswith("opens.") for f in report.findings)


def test_a_module_that_is_not_there_is_not_reachable() -> None:
    def pull(run: Run) -> None:
        for part in run.rigs["alice"]:
            run.rigs["alice"].unplug(part)

    report, _ = examine("alice", prepare=pull)
    assert unreachable(report)


def test_a_bug_in_a_check_is_raised() -> None:
    async def bug(bench: Bench) -> Sequence[Finding]:
        raise ZeroDivisionError("a bug")

    with pytest.raises(ExceptionGroup):
        examine("alice", checks=(Check("bug", Level.POWER_ON, bug),))


def test_the_same_module_again_reads_with_other_noise() -> None:
    reports: list[Report] = []

    async def rail(bench: Bench) -> Sequence[Finding]:
        volts = (await bench.context.adc.read_volts(1))["pa0"]
        return [Finding("dark", volts, "V", Limits(-1.0, 2.0), "photodiode pa0")]

    checks = (Check("rail", Level.POWER_ON, rail),)
    selftest_module("alice", level=Level.POWER_ON, checks=checks, repeat=3, told=Listening(on_report=reports.append))
    values = [next(f.value for f in r.findings if f.name == "dark") for r in reports]
    assert len(set(values)) == 3
