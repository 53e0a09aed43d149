"""Self-tests of a running pair: at boot, on command, on schedule; what a failure does, and how keys come back."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from qmodd.app.selftesting import FILE, Owed
from qmodd.lifecycle import Activity
from qmodd.selftest.bench import Bench
from qmodd.selftest.model import Check, Finding, Level, Limits
from qmodd.soak import Run
from tests.app.pair import Noc, events, outputs, simulate, until, until_keying


class Bed:
    """Checks that a test spoils: light-off moves two outputs and forgets them, light-on fails when told to."""

    def __init__(self) -> None:
        self.broken = False
        self.ran: list[str] = []
        self.activity: list[str] = []
        self.spare: list[float] = []

    async def _on(self, bench: Bench) -> Sequence[Finding]:
        self.ran.append("power-on")
        return [Finding("rail", (await bench.context.rail.read()).bus_v, "V", Limits(3.6, 4.4), "heater_rail")]

    async def _off(self, bench: Bench) -> Sequence[Finding]:
        self.ran.append("light-off")
        await bench.context.heaters.set_current("split" if bench.side == "alice" else "basis", 0.005)
        await bench.context.biases.set_voltage("voa" if bench.side == "alice" else "shutter", 2.0)
        for _ in range(20):
            self.spare.append(bench.context.heaters.current("spare"))
            await asyncio.sleep(0.25)
        return [Finding("resistance", 90.0, "ohm", Limits(60.0, 130.0), "heater split", level=Level.LIGHT_OFF)]

    async def _light(self, bench: Bench) -> Sequence[Finding]:
        self.ran.append("light-on")
        found = [Finding("loss", 9.0 if self.broken else 3.0, "dB", Limits(high=4.5), "path input", hint="clean it")]
        return found

    @property
    def checks(self) -> tuple[Check, ...]:
        runs = (("rail", Level.POWER_ON, self._on), ("iv", Level.LIGHT_OFF, self._off))
        return tuple(Check(n, level, run) for n, level, run in (*runs, ("loss", Level.LIGHT_ON, self._light)))


class Story:
    """One pair, one afternoon; the tests read its notes."""

    def __init__(self, directory: Path) -> None:
        self.notes: dict[str, Any] = {}
        self.published: list[tuple[str, str, bytes]] = []
        self.beds = {"alice": Bed(), "bob": Bed()}
        simulate(directory, self._script, most_s=3000.0).close()

    async def _script(self, run: Run) -> None:
        run.published = lambda module, suffix, payload: self.published.append((module, suffix, payload))
        self.noc = Noc(run)
        for name, bed in self.beds.items():
            run.sites[name].core.operator.selftesting.checks = bed.checks
        await until_keying(run)
        self.notes["boot"] = [dict(e) for e in events(run, "alice", "selftest.done")]
        self.notes["boot report"] = self._reports("QM-A-0001")
        await self._refusals(run)
        await self._asked(run)
        await self._failure(run)

    def _reports(self, module: str) -> list[dict[str, Any]]:
        return [json.loads(p) for m, s, p in self.published if s == "selftest" and m == module]

    def _answers(self) -> list[dict[str, Any]]:
        return [json.loads(p) for _, s, p in self.published if s.startswith("reply/")]

    async def _ask(self, run: Run, site: str, **arguments: Any) -> dict[str, Any]:
        before = len(self._answers())
        self.noc.do(site, "selftest", arguments)
        await until(run, lambda: any("ok" in a for a in self._answers()[before:]), 100.0, "an answer")
        self.notes["progress"] = [a["progress"] for a in self._answers()[before:] if "progress" in a]
        return next(a for a in self._answers()[before:] if "ok" in a)

    async def _refusals(self, run: Run) -> None:
        self.notes["production"] = await self._ask(run, "alice", level="production")
        self.notes["nonsense"] = await self._ask(run, "alice", level="soft")
        leases = run.sites["alice"].core.wiring.leases
        leases.take("heater.spare", "lab", 30.0, 30.0)
        self.notes["leased"] = await self._ask(run, "alice", level="light-off")
        await leases.give_back("heater.spare", "lab")

    async def _asked(self, run: Run) -> None:
        """In service, waited for: keys stop and come back, outputs are where they were."""
        core, bed, since = run.sites["alice"].core, self.beds["alice"], run.loop.time()
        split = core.module.heaters.current("split")
        bed.spare.clear()
        answering = asyncio.ensure_future(self._ask(run, "alice", level="light-off", wait=True))
        await until(run, lambda: core.life.activity is Activity.SELFTEST, 5.0, "self-test begins")
        self.notes["activity"] = core.life.why("activity")
        self.notes["in service meanwhile"] = core.operator.in_service
        self.notes["answer"] = await answering
        self.notes["split"] = (split, core.module.heaters.current("split"))
        self.notes["reasons"] = [e["why"] for e in events(run, "alice", "state.activity", since)]
        self.notes["keys back"] = await until_keying(run, 60.0)
        self.notes["sessions lost"] = len(events(run, "alice", "session.failed", since))

    async def _failure(self, run: Run) -> None:
        """Bob's input is dirty: keys stop, he goes dark, says why, and stays so until it is clean."""
        core, bed, since = run.sites["bob"].core, self.beds["bob"], run.loop.time()
        owed = Owed(core.config.module.state_dir / FILE)
        bed.broken = True
        await self._ask(run, "bob", level="light-on")
        await until(run, lambda: core.life.activity is Activity.SAFE, 60.0, "dark")
        self.notes["dark why"] = core.life.why("activity")
        self.notes["dark"] = outputs(run, "bob").dark
        self.notes["owed"] = owed.read()
        bed.ran.clear()
        await until(run, lambda: bed.ran.count("light-on") >= 2, 400.0, "tried again and again at the owed level")
        self.notes["in service while broken"] = [
            e for e in events(run, "bob", "state.activity", since + 20.0) if e["value"] in ("ready", "keying")
        ]
        self.notes["alarm"] = [json.loads(p) for m, s, p in self.published if s == "alarm/selftest-failed" and p]
        self.notes["failed report"] = self._reports("QM-B-0001")[-1]
        bed.broken = False
        await until_keying(run, 600.0)
        self.notes["owed after"] = owed.read()
        await asyncio.sleep(15.0)
        self.notes["active"] = core.wiring.alarms.numbers()
        self.notes["alarm cleared"] = [p for m, s, p in self.published if s == "alarm/selftest-failed"][-1] == b""


@pytest.fixture(scope="module")
def story(tmp_path_factory: pytest.TempPathFactory) -> Story:
    return Story(tmp_path_factory.mktemp("story"))


def test_boot_runs_power_on_and_publishes(story: Story) -> None:
    (done,) = story.notes["boot"]
    assert (done["level"], done["passed"], done["by"], done["failed"]) == ("power-on", True, "automatic", 0)
    (report,) = story.notes["boot report"]
    assert report["passed"]
    # The watchdog's test comes before the first session's checks.
    names = [c["name"] for c in report["checks"]]
    assert names[-1] == "rail"
    assert all(name.startswith("watchdog.") for name in names[:-1])
    assert "watchdog.trips" in names
    assert report["verdict"] == f"passed: {len(names)} values within their limits"


@pytest.mark.parametrize(
    ("what", "code", "said"),
    [
        ("production", "wrong_state", "`force` runs it"),
        ("nonsense", "bad_arguments", "power-on, light-off, light-on, production is allowed"),
        ("leased", "wrong_state", "heater.spare is leased by lab"),
    ],
)
def test_refusals_say_why(story: Story, what: str, code: str, said: str) -> None:
    error = story.notes[what]["error"]
    assert error["code"] == code
    assert said in error["message"]


def test_on_command_keys_stop_with_a_reason_and_come_back(story: Story) -> None:
    notes = story.notes
    assert notes["activity"] == "light-off self-test by operator"
    assert notes["in service meanwhile"] is False
    result = notes["answer"]["result"]
    assert (result["level"], result["passed"], result["suspects"]) == ("light-off", True, [])
    assert notes["keys back"] < 30.0
    assert notes["sessions lost"] == 0
    assert "self-test passed; keys next" in notes["reasons"]


def test_outputs_that_a_check_forgot_are_back(story: Story) -> None:
    before, after = story.notes["split"]
    # Its loop may have gone on from there meanwhile.
    assert after == pytest.approx(before, rel=0.02)
    assert after != pytest.approx(0.005, rel=0.02)


def test_heartbeats_do_not_come_between(story: Story) -> None:
    assert len(set(story.beds["alice"].spare)) == 1


def test_a_failure_in_service_makes_the_module_dark(story: Story) -> None:
    notes = story.notes
    assert notes["dark"]
    assert "light-on self-test failed" in notes["dark why"]
    assert "path input: clean it" in notes["dark why"]
    assert notes["in service while broken"] == []
    assert notes["owed"] is Level.LIGHT_ON


def test_the_alarm_names_the_suspect(story: Story) -> None:
    alarm = story.notes["alarm"][0]
    assert alarm["severity"] == "critical"
    assert "path input" in alarm["why"]


def test_the_report_of_the_failure_is_retained(story: Story) -> None:
    report = story.notes["failed report"]
    assert not report["passed"]
    assert report["part"] == "path input"
    failed = [c for c in report["checks"] if not c["ok"]]
    assert [(c["name"], c["level"], c["high"]) for c in failed] == [("loss", "light-on", 4.5)]


def test_what_was_owed_is_paid_and_keys_come_back(story: Story) -> None:
    assert story.notes["owed after"] is None
    assert story.notes["alarm cleared"]


@pytest.mark.long
def test_on_schedule(tmp_path: Path) -> None:
    """Every 36 s here: by itself, light-off by default, and keys afterwards."""
    bed = Bed()
    seen: dict[str, Any] = {}

    async def script(run: Run) -> None:
        for site in run.sites.values():
            site.core.operator.selftesting.checks = bed.checks
        await until_keying(run)

        def scheduled() -> list[Any]:
            return [e for e in events(run, "bob", "selftest.done") if e["by"] == "schedule"]

        await until(run, lambda: bool(scheduled()), 300.0, "one by schedule")
        seen["levels"] = [e["level"] for e in scheduled()]
        seen["keys"] = await until_keying(run, 100.0)

    simulate(tmp_path, script, settings={"every_h": 0.01}).close()
    assert seen["levels"] == ["light-off"]
    assert "light-on" not in bed.ran


def test_what_is_owed_outlives_a_restart(tmp_path: Path) -> None:
    owed = Owed(tmp_path / FILE)
    assert owed.read() is None
    owed.failed(Level.LIGHT_ON, "x")
    owed.failed(Level.POWER_ON, "y")  # the lower level does not take the higher one's place
    assert Owed(tmp_path / FILE).read() is Level.LIGHT_ON
    owed.passed(Level.LIGHT_OFF)
    assert owed.read() is Level.LIGHT_ON
    owed.passed(Level.LIGHT_ON)
    assert owed.read() is None
    (tmp_path / FILE).write_text("torn")
    assert owed.read() is Level.LIGHT_ON
