"""A pair that is well raises nothing; a cut fibre raises one alarm; a restart in between changes nothing of it."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from qmodd import soak
from qmodd.demo.compose import SERIALS
from qmodd.soak import STROBE, Run
from sim.loop import SimulatedLoop
from sim.scenario import Scenario
from tests.app.pair import Noc, befall_world, events, simulate, until, until_keying

# Two starts and six minutes between: more than the usual limit on a busy computer.
pytestmark = [pytest.mark.long, pytest.mark.timeout(480)]
WELL_S = 300.0
CUT_S, RESTART_S = 25.0, 5.0
Seen = list[tuple[str, str, bytes]]


class Story:
    """Five minutes from the start in which all is well; a cut, acknowledged; the end of both daemons while it lasts;
    another start on the same directory, with the fibre mended."""

    def __init__(self, directory: Path) -> None:
        self.notes: dict[str, Any] = {}
        self.before: Seen = []
        self.after: Seen = []
        run = simulate(directory, self._first)
        self.first = {name: list(site.core.events.entries) for name, site in run.sites.items()}
        self.notes["file"] = json.loads((directory / "bob" / "state" / "alarms.json").read_text())
        end_s = run.ended_s
        run.close()
        self.second = self._again(directory, end_s + RESTART_S)

    async def _first(self, run: Run) -> None:
        run.published = lambda module, suffix, payload: self._take(self.before, module, suffix, payload)
        await asyncio.sleep(WELL_S)
        # What keys do not rest on may just be calibrated for the first time.
        await until_keying(run)
        self.notes["well"] = list(self.before)
        self.notes["telemetry"] = run.sites["bob"].core.telemetry.groups()["alarms"]
        begin = run.loop.time()
        befall_world(run, "cut", "fibre", CUT_S)
        noc, desk = Noc(run), run.sites["bob"].core.wiring.alarms
        self.notes["raised after"] = await until(run, lambda: bool(desk.active()), 20.0, "the alarm")
        noc.do("bob", "acknowledge", {"alarm": "no-light"})
        await until(run, lambda: bool(desk.active()[0].acknowledged), 2.0, "acknowledged")
        await asyncio.sleep(begin + CUT_S - 1.0 - run.loop.time())
        self.notes["suppressed"] = [e["alarm"] for e in events(run, "bob", "alarm.suppressed", begin)]

    def _take(self, seen: Seen, module: str, suffix: str, payload: bytes) -> None:
        if suffix.startswith("alarm/"):
            seen.append((module, suffix, payload))

    def _again(self, directory: Path, start_s: float) -> dict[str, list[dict[str, Any]]]:
        """Time goes on from where it was; the files are there already."""
        loop = SimulatedLoop(start=start_s)

        async def main() -> Run:
            run = Run(loop, directory, Scenario(), 1, dict(STROBE))
            run.published = lambda module, suffix, payload: self._take(self.after, module, suffix, payload)
            desk = run.sites["bob"].core.wiring.alarms
            begin = loop.time()

            def over() -> bool:
                if loop.time() - begin < 2.0:
                    self.notes["kept"] = [a.acknowledged for a in desk.active()]
                return bool(events(run, "bob", "alarm.cleared"))

            await run.for_seconds(400.0, until=over)
            self.notes["figures"] = desk.numbers()
            return run

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(soak, "provision_site", lambda *_: None)
            with asyncio.Runner(loop_factory=lambda: loop) as runner:
                run = runner.run(main())
        found = {name: list(site.core.events.entries) for name, site in run.sites.items()}
        run.close()
        return found


@pytest.fixture(scope="module")
def story(tmp_path_factory: pytest.TempPathFactory) -> Story:
    return Story(tmp_path_factory.mktemp("alarms"))


def named(entries: list[dict[str, Any]]) -> list[tuple[str, Any]]:
    """Alarms that were raised, cleared, acknowledged; not what stayed silent."""
    wanted = ("alarm.raised", "alarm.cleared", "alarm.acknowledged")
    return [(e["event"], e["alarm"]) for e in entries if e["event"] in wanted]


def test_a_healthy_pair_raises_nothing(story: Story) -> None:
    assert story.notes["well"] == []
    assert (story.notes["telemetry"]["raised_count"], story.notes["telemetry"]["active_count"]) == (0, 0)


def test_a_cut_fibre_is_one_alarm_of_the_pair(story: Story) -> None:
    assert story.notes["raised after"] < 15.0
    assert named(story.first["alice"]) == []
    assert named(story.first["bob"]) == [("alarm.raised", "no-light"), ("alarm.acknowledged", "no-light")]
    assert {(m, s) for m, s, _ in story.before} == {(SERIALS["bob"], "alarm/no-light")}
    assert "no-light" not in story.notes["suppressed"]


def test_what_was_published_is_the_model(story: Story) -> None:
    said = [json.loads(payload) for _, _, payload in story.before]
    assert [a["acknowledged"] for a in said] == ["", "operator"]
    assert said[-1]["runbook"] == "docs/runbook/no-light.md"
    assert list(story.notes["file"]["alarms"]["conditions"]) == ["no-light"]


def test_restart_keeps_it_and_its_acknowledgement_until_light_is_back(story: Story) -> None:
    assert story.notes["kept"] == ["operator"]
    assert named(story.second["alice"]) == []
    assert named(story.second["bob"]) == [("alarm.cleared", "no-light")]
    assert story.after[-1] == (SERIALS["bob"], "alarm/no-light", b"")
    assert all(json.loads(payload)["acknowledged"] == "operator" for _, _, payload in story.after[:-1])


def test_figures_go_on_over_the_restart(story: Story) -> None:
    figures = story.notes["figures"]
    assert (figures["raised_count"], figures["mttd_s"]) == (1, pytest.approx(10.0, abs=1.5))
    assert figures["mtta_s"] < 3.0
    assert figures["mttr_s"] > CUT_S
