"""The hardware watchdog's own test: it must trip, take the rail away and come back; nothing toggles its line before."""

from __future__ import annotations

import pytest

from qmodd.selftest.model import Level, Report, Verdict
from qmodd.selftest.trip import passed
from qmodd.selftest_cli.emulated import selftest_module
from qmodd.soak import Run
from sim.scenario import Scenario
from tests.selftest.bench import fault


def examined(side: str, *faults: tuple[str, str]) -> tuple[Report, Run]:
    runs: list[Run] = []
    script = Scenario(fault=tuple(fault(on, what) for on, what in faults))
    report = selftest_module(side, script, Level.POWER_ON, checks=(), prepare=runs.append)
    return report, runs[0]


@pytest.mark.parametrize("side", ["alice", "bob"])
def test_a_sound_watchdog_trips_drops_the_rail_and_comes_back(side: str) -> None:
    report, run = examined(side)
    found = {f.name: f for f in report.findings if f.name.startswith("watchdog.")}
    assert set(found) == {"watchdog.enables_low", "watchdog.trips", "watchdog.drops_rail", "watchdog.rearms"}
    assert all(f.verdict is Verdict.PASSED for f in found.values())
    assert 0.5 <= found["watchdog.trips"].value <= 0.6
    assert passed(tuple(found.values()))
    assert run.rigs[side].watchdog.trips == 1
    assert 0.5 < report.level_seconds["power-on"] < 1.5


@pytest.mark.parametrize("side", ["alice", "bob"])
def test_one_that_never_trips_is_named_within_the_level(side: str) -> None:
    report, run = examined(side, (f"{side}.watchdog", "never"))
    assert report.suspects == ("watchdog",)
    assert {f.name for f in report.failed} == {"watchdog.trips", "watchdog.drops_rail"}
    assert run.rigs[side].watchdog.trips == 0
    assert report.level_seconds["power-on"] < 2.0


def test_no_light_and_no_heat_meanwhile() -> None:
    seen: list[tuple[float, bool]] = []

    def prepare(run: Run) -> None:
        rig, world = run.rigs["alice"], run.world.alice
        real = rig.watchdog.poll

        def poll() -> None:
            real()
            seen.append((world.heater_rail()[1], world.laser()[0]))

        rig.watchdog.poll = poll  # type: ignore[method-assign]

    selftest_module("alice", Scenario(), Level.POWER_ON, checks=(), prepare=prepare)
    assert seen
    assert max(amperes for amperes, _ in seen) < 0.01
    assert not any(lit for _, lit in seen)


def test_findings_of_a_platform_that_does_not_answer_name_it() -> None:
    report, _ = examined("bob", ("bob.i2c2", "hang"))
    assert report.suspects[:1] in (("platform",), ("bus i2c:2",))


def test_none_is_not_a_pass() -> None:
    assert not passed(())
