"""Settings of a pair that makes keys, by signed requests: what changes in the running module, what a restart keeps."""

from __future__ import annotations

import asyncio
import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from qmodd.app.bob import BobOperator
from qmodd.app.setting_desk import SettingDesk
from qmodd.demo.compose import SERIALS
from qmodd.identity import ClientFiles
from qmodd.keys.alice_engine import AliceEngine
from qmodd.keys.conversation import Blocking
from qmodd.keys.reconciliation import Setting as Mode
from qmodd.keys.records import BlockRecord
from qmodd.provision import SITE
from qmodd.settings.tree import tree
from qmodd.soak import Run
from tests.app.pair import Noc, events, simulate, until, until_keying

pytestmark = pytest.mark.long

WATCHED_S = 50.0


class Client:
    """One client of the modules and its answers."""

    def __init__(self, run: Run, name: str) -> None:
        self.run, self.name, self.noc = run, name, Noc(run)
        self.noc.files = ClientFiles.load(run.directory / SITE / name)
        self.replies: list[dict[str, Any]] = []

    def take(self, suffix: str, payload: bytes) -> None:
        if suffix == f"reply/{self.name}":
            self.replies.append(json.loads(payload))

    async def ask(self, site: str, below: str, arguments: dict[str, Any]) -> dict[str, Any]:
        before = len(self.replies)
        topic = f"qmodd/v1/{SERIALS[site]}/{below}"
        body = self.noc.body(site, "", arguments, topic=topic, client=self.name)
        self.noc.send(site, topic, self.noc.signed(body))
        await until(self.run, lambda: len(self.replies) > before, 5.0, f"answer to {below}")
        return self.replies[-1]

    async def set(self, site: str, path: str, value: Any) -> dict[str, Any]:
        return await self.ask(site, f"set/{path}", {"value": value})


class Day:
    """What was seen while it went on."""

    def __init__(self, directory: Path) -> None:
        self.notes: dict[str, Any] = {}
        self.telemetry: list[float] = []
        self.run = simulate(directory, self._script, settings={})

    async def _script(self, run: Run) -> None:
        self.loop = run.loop
        self.operator, self.maintainer = Client(run, "operator"), Client(run, "maintainer")
        run.published = self._published
        await until_keying(run)
        self.notes["told at the start"] = self._retained(run, "bob")
        await self._roles()
        await self._telemetry()
        await self._keys(run)
        await self._phase(run)
        await self._safety(run)
        await self._session(run)

    def _published(self, module: str, suffix: str, payload: bytes) -> None:
        for client in (self.operator, self.maintainer):
            client.take(suffix, payload)

    @staticmethod
    def _retained(run: Run, site: str) -> dict[str, Any]:
        found = run.sites[site].core.outbox.retained("settings/")
        return {s.removeprefix("settings/"): json.loads(p) for s, p in found.items()}

    async def _roles(self) -> None:
        n = self.notes
        n["operator and safety"] = await self.operator.set("bob", "safety.submount_max_c", 55.0)
        n["unknown"] = await self.operator.set("bob", "keys.store_limits", 5)
        n["of the other side"] = await self.operator.set("alice", "control.phase_limit_deg", 5.0)
        n["file only"] = await self.maintainer.set("alice", "keys.eps_sec", 1e-8)

    async def _telemetry(self) -> None:
        door = self.run_of("bob").door
        door.taps.append(lambda group, *_: self.telemetry.append(self.loop.time()) if group == "keys" else None)
        self.notes["period"] = await self.operator.set("bob", "uplink.telemetry_period_s", 60.0)
        await asyncio.sleep(150.0)
        slow = [b - a for a, b in zip(self.telemetry, self.telemetry[1:], strict=False)][-1]
        self.notes["undone"] = await self.operator.ask("bob", "command/undo", {"setting": "uplink.telemetry_period_s"})
        begin = self.loop.time()
        await asyncio.sleep(WATCHED_S)
        self.notes["periods"] = (slow, sum(t >= begin for t in self.telemetry))

    def run_of(self, site: str) -> Any:
        return self.operator.run.sites[site].core

    async def _keys(self, run: Run) -> None:
        alice = run.sites["alice"].core
        await self.operator.set("alice", "keys.reconciliation", "throughput")
        assert isinstance(alice.engine, AliceEngine)
        self.notes["policy"] = alice.engine._distiller.policy.setting
        await self.maintainer.set("alice", "keys.lifetime_s", 7200.0)
        told, kept = alice.engine.desk.on_block, list[BlockRecord]()
        alice.engine.desk.on_block = lambda record: (kept.append(record), told(record))[1]
        await until(run, lambda: len(kept) >= 2, 400.0, "two more blocks", 0.5)
        alice.engine.desk.on_block = told
        self.notes["lifetime"] = kept[-1].not_after - kept[-1].created
        self.notes["limit"] = await self.operator.set("bob", "keys.store_limit", 100)

    async def _phase(self, run: Run) -> None:
        bob = run.sites["bob"].core
        assert isinstance(bob.operator, BobOperator)
        assert bob.operator.phase is not None
        loop = bob.operator.phase.loop
        stage = loop.report().stage
        answer = await self.maintainer.set("bob", "control.phase_limit_deg", 6.0)
        self.notes["phase"] = (answer, math.degrees(loop.lock.config.error_limit), loop.report().stage is stage)

    async def _safety(self, run: Run) -> None:
        bob = run.sites["bob"].core
        n = self.notes
        n["safer"] = await self.maintainer.set("bob", "safety.heater_budget_w", 0.39)
        n["limits"] = (bob.operator.safekeeping.monitor.limits.heater_budget_w, bob.wiring.budget.budget_w)
        n["looser"] = await self.maintainer.set("bob", "safety.heater_budget_w", 0.41)
        n["operator's undo"] = await self.operator.ask("bob", "command/undo", {"setting": "safety.heater_budget_w"})

    async def _session(self, run: Run) -> None:
        n, bob = self.notes, run.sites["bob"].core
        n["target"] = await self.maintainer.set("bob", "control.tec_target_c", 29.5)
        await asyncio.sleep(20.0)
        n["target in force before"] = (bob.config.control.tec_target_c, bob.operator.tec.reading.target_c)
        await self.operator.ask("bob", "command/safe", {})
        await asyncio.sleep(2.0)
        await self.operator.ask("bob", "command/start", {})
        await until(run, lambda: bob.operator.tec is not None and bob.operator.in_service, 400.0, "in service again")
        n["target in force after"] = (bob.config.control.tec_target_c, bob.operator.tec.reading.target_c)
        n["told"] = self._retained(run, "bob")["control.tec_target_c"]


@pytest.fixture(scope="module")
def day(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Day]:
    one = Day(tmp_path_factory.mktemp("settings"))
    yield one
    one.run.close()


def refused(reply: dict[str, Any]) -> str:
    assert reply["ok"] is False
    return str(reply["error"]["code"])


def test_who_may_set_what(day: Day) -> None:
    n = day.notes
    assert refused(n["operator and safety"]) == "not_allowed"
    assert "needs maintainer; operator is operator" in n["operator and safety"]["error"]["message"]
    assert refused(n["operator's undo"]) == "not_allowed"


def test_what_is_no_setting_here(day: Day) -> None:
    n = day.notes
    assert refused(n["unknown"]) == refused(n["of the other side"]) == "unknown_setting"
    assert "keys.store_limit" in n["unknown"]["error"]["message"]
    assert "receiver (bob)" in n["of the other side"]["error"]["message"]
    assert refused(n["file only"]) == "file_only"


def test_all_are_told_at_the_start(day: Day) -> None:
    told = day.notes["told at the start"]
    assert set(told) == set(tree("bob"))
    assert {one["origin"] for one in told.values()} == {"file"}


def test_telemetry_comes_as_often_as_is_set_now(day: Day) -> None:
    slow, count = day.notes["periods"]
    assert slow == pytest.approx(60.0, abs=1.0)
    answer = day.notes["undone"]["result"]
    assert answer["origin"] == "file"
    assert count == pytest.approx(WATCHED_S / answer["value"], abs=1.5)


def test_blocks_are_corrected_and_live_as_is_set(day: Day) -> None:
    assert day.notes["policy"] is Mode.THROUGHPUT
    assert day.notes["lifetime"] == pytest.approx(7200.0, abs=120.0)
    assert day.notes["limit"]["result"]["value"] == 100


def test_a_phase_limit_changes_under_a_lock_that_goes_on(day: Day) -> None:
    answer, limit_deg, same_stage = day.notes["phase"]
    assert answer["ok"]
    assert limit_deg == pytest.approx(6.0)
    assert same_stage


def test_a_safety_limit_acts_at_once_and_only_to_the_safe_side(day: Day) -> None:
    n = day.notes
    assert n["limits"] == (0.39, 0.39)
    assert refused(n["looser"]) == "out_of_range"
    assert n["looser"]["error"]["limit"] == {
        "output": "safety.heater_budget_w",
        "value": 0.41,
        "low": None,
        "high": 0.40,
        "unit": "W",
    }


def test_a_set_point_waits_until_the_module_comes_up_again(day: Day) -> None:
    n = day.notes
    assert (n["target"]["result"]["value"], n["target"]["result"]["pending"]) == (30.0, 29.5)
    assert n["target in force before"] == (30.0, pytest.approx(30.0, abs=0.01))
    assert n["target in force after"] == (29.5, pytest.approx(29.5, abs=0.01))
    assert (n["told"]["value"], n["told"]["pending"]) == (29.5, None)


def test_every_change_is_on_record_with_who_made_it(day: Day) -> None:
    changed = events(day.run, "bob", "setting.changed")
    assert [(e["setting"], e["by"], e["how"]) for e in changed][:2] == [
        ("uplink.telemetry_period_s", "operator", "set"),
        ("uplink.telemetry_period_s", "operator", "undo"),
    ]
    assert {e["setting"] for e in events(day.run, "bob", "setting.applied")} == {"control.tec_target_c"}


def test_a_new_start_is_built_with_what_was_set(day: Day) -> None:
    """The same state directory, another life of core."""
    core = day.run.sites["bob"].core
    desk = SettingDesk(core.settings.file, core.injected.clock, Blocking(False))
    assert desk.in_force.control.tec_target_c == 29.5
    assert desk.in_force.safety.heater_budget_w == 0.39
    assert desk.in_force.keys.store_limit == 100
    assert desk.in_force.uplink.telemetry_period_s == core.settings.file.uplink.telemetry_period_s
