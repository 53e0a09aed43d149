"""Signed requests and the administrative lock, from the network's end to the world."""

from __future__ import annotations

import asyncio
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from qmodd.crypto.suites import SigningKey
from qmodd.identity import Signer, sign_request
from qmodd.lifecycle import Activity, Administrative
from qmodd.soak import Run
from tests.app.pair import Noc, events, outputs, simulate, until, until_keying


class Answers:
    """Answers of the modules to the operator, by request id."""

    def __init__(self, run: Run) -> None:
        self.replies: list[tuple[str, dict[str, Any]]] = []
        run.published = self._published

    def _published(self, module: str, suffix: str, payload: bytes) -> None:
        if suffix == "reply/operator":
            self.replies.append((module, json.loads(payload)))

    @property
    def last(self) -> dict[str, Any]:
        return self.replies[-1][1]


class Session:
    """One operator's day: each command, and what it did to the world."""

    def __init__(self, directory: object) -> None:
        self.notes: dict[str, Any] = {}
        self.run = simulate(directory, self._script)  # type: ignore[arg-type]

    async def _ask(self, run: Run, site: str, command: str, arguments: dict[str, Any] | None = None) -> dict[str, Any]:
        before = len(self.answers.replies)
        self.noc.do(site, command, arguments)
        await until(run, lambda: len(self.answers.replies) > before, 5.0, f"answer to {command}")
        return self.answers.last

    async def _script(self, run: Run) -> None:
        self.noc, self.answers = Noc(run), Answers(run)
        await until_keying(run)
        await self._stop_and_start(run)
        await self._safe(run)
        await self._calibrate(run)
        await self._lock(run)
        await self._refusals(run)

    async def _stop_and_start(self, run: Run) -> None:
        n, life = self.notes, run.sites["alice"].core.life
        n["stop"] = await self._ask(run, "alice", "stop")
        await until(run, lambda: life.activity is Activity.READY, 3.0, "keys stopped")
        await asyncio.sleep(5.0)
        n["stopped"] = (life.activity, life.why("activity"), outputs(run, "alice"))
        n["peer of stopped"] = run.sites["bob"].core.life.why("activity")
        n["start"] = await self._ask(run, "alice", "start")
        n["started after"] = await until_keying(run, 60.0)

    async def _safe(self, run: Run) -> None:
        n, life = self.notes, run.sites["bob"].core.life
        n["safe"] = await self._ask(run, "bob", "safe")
        n["dark after"] = await until(run, lambda: outputs(run, "bob").dark, 2.0, "bob dark", 0.01)
        await asyncio.sleep(30.0)
        n["still safe"] = (life.activity, life.why("activity"), outputs(run, "bob").dark)
        n["start from safe"] = await self._ask(run, "bob", "start")
        n["back from safe"] = await until_keying(run, 120.0)

    async def _calibrate(self, run: Run) -> None:
        n, core = self.notes, run.sites["bob"].core
        before = core.records.active("arm_phase")
        n["wrong target"] = await self._ask(run, "bob", "calibrate", {"target": "flux"})
        n["wrong argument"] = await self._ask(run, "bob", "calibrate", {"what": "all"})
        n["calibrate"] = await self._ask(run, "bob", "calibrate", {"target": "arm_phase"})
        n["back from calibration"] = await until_keying(run, 200.0)
        await asyncio.sleep(1.0)
        n["back from calibration"] += await until_keying(run, 200.0)
        after = core.records.active("arm_phase")
        n["versions"] = (before and before.version, after and after.version)

    async def _lock(self, run: Run) -> None:
        n, life = self.notes, run.sites["alice"].core.life
        n["lock"] = await self._ask(run, "alice", "lock", {"why": "fibre work at km 12"})
        await until(run, lambda: outputs(run, "alice").dark, 2.0, "alice dark", 0.01)
        n["start locked"] = await self._ask(run, "alice", "start")
        n["calibrate locked"] = await self._ask(run, "alice", "calibrate")
        await asyncio.sleep(30.0)
        n["locked"] = (life.administrative, life.activity, life.why("activity"), outputs(run, "alice").dark)
        n["unlock"] = await self._ask(run, "alice", "unlock", {"why": "fibre work done"})
        n["back from lock"] = await until_keying(run, 120.0)

    async def _refusals(self, run: Run) -> None:
        """None of these may move anything; the pair goes on with its keys."""
        noc, since = self.noc, run.loop.time()
        stranger = Signer("operator", SigningKey.generate())
        good = noc.body("alice", "safe")
        noc.send("alice", good.topic, b"{}")
        noc.send("alice", good.topic, sign_request(stranger, noc.files.certificate, good).payload())
        noc.send("alice", good.topic, noc.signed(good), retained=True)
        noc.send("alice", good.topic, noc.signed(noc.body("alice", "safe", epoch="0" * 16)))
        noc.send("alice", good.topic.replace("safe", "stop"), noc.signed(noc.body("alice", "safe")))
        noc.send("bob", noc.body("bob", "safe").topic, noc.signed(good))
        tampered = json.loads(noc.signed(noc.body("alice", "stop")))
        tampered["body"] = tampered["body"].replace("command/stop", "command/safe")
        noc.send("alice", good.topic, json.dumps(tampered).encode())
        await asyncio.sleep(10.0)
        self.notes["refused"] = [
            str(e["code"]) for s in ("alice", "bob") for e in events(run, s, "request.refused", since)
        ]
        self.notes["accepted"] = [e for s in ("alice", "bob") for e in events(run, s, "request.accepted", since)]
        self.notes["moved"] = [e for s in ("alice", "bob") for e in events(run, s, "state.activity", since)]


@pytest.fixture(scope="module")
def session(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Session]:
    session = Session(tmp_path_factory.mktemp("session"))
    yield session
    session.run.close()


def test_stop_ends_keys_and_leaves_light_and_temperature(session: Session) -> None:
    assert session.notes["stop"]["ok"]
    activity, why, seen = session.notes["stopped"]
    assert (activity, why) == (Activity.READY, "keys stopped by command")
    assert seen.emitting
    assert seen.heater_rail_on
    assert "keys stopped by command" in session.notes["peer of stopped"]


def test_start_asks_for_keys_again(session: Session) -> None:
    assert session.notes["start"]["ok"]
    assert session.notes["started after"] < 30.0


def test_safe_is_dark_until_start(session: Session) -> None:
    assert session.notes["safe"]["ok"]
    assert session.notes["dark after"] <= 1.0
    activity, why, dark = session.notes["still safe"]
    assert activity is Activity.SAFE
    assert "by command" in why
    assert dark
    assert session.notes["start from safe"]["ok"]


def test_calibrate_redoes_the_one_that_was_asked_for(session: Session) -> None:
    assert session.notes["calibrate"]["ok"]
    before, after = session.notes["versions"]
    assert after == before + 1


def test_calibrate_refuses_what_it_does_not_know(session: Session) -> None:
    wrong = session.notes["wrong target"]
    assert (wrong["ok"], wrong["error"]["code"]) == (False, "bad_arguments")
    assert "arm_phase" in wrong["error"]["message"]  # says what there is
    assert session.notes["wrong argument"]["error"]["code"] == "bad_arguments"


def test_locked_module_is_dark_and_obeys_unlock_only(session: Session) -> None:
    assert session.notes["lock"]["ok"]
    assert session.notes["lock"]["result"]["administrative"]["value"] == "locked"
    for asked in ("start locked", "calibrate locked"):
        assert session.notes[asked]["error"]["code"] == "wrong_state"
        assert "fibre work at km 12" in session.notes[asked]["error"]["message"]
    administrative, activity, why, dark = session.notes["locked"]
    assert (administrative, activity, dark) == (Administrative.LOCKED, Activity.SAFE, True)
    assert "fibre work at km 12" in why
    assert session.notes["unlock"]["ok"]
    assert session.notes["back from lock"] < 120.0


def test_requests_without_standing_have_no_effect(session: Session) -> None:
    assert sorted(session.notes["refused"]) == sorted(
        ["malformed", "bad_signature", "retained", "wrong_epoch", "wrong_topic", "wrong_module", "bad_signature"]
    )
    assert session.notes["accepted"] == []
    assert session.notes["moved"] == []


def test_lock_outlives_the_daemon(tmp_path: Path) -> None:
    """A new core on the same state: dark from its first moment, whatever it was doing before; unlock lights it."""

    async def lock(run: Run) -> None:
        noc = Noc(run)
        await until(run, lambda: run.sites["alice"].core.operator.in_service, 60.0, "alice in service")
        noc.do("alice", "lock", {"why": "decommissioned"})
        await until(run, lambda: outputs(run, "alice").dark, 2.0, "alice dark")

    lit: list[bool] = []
    notes: dict[str, Any] = {}

    async def again(run: Run) -> None:
        life = run.sites["alice"].core.life
        notes["at start"] = life.administrative
        for _ in range(600):
            seen = outputs(run, "alice")
            lit.append(seen.emitting or seen.heater_rail_on)
            await asyncio.sleep(0.1)
        notes["why"] = life.why("activity")
        Noc(run).do("alice", "unlock")
        notes["back"] = await until_keying(run, 200.0)

    before, after = tmp_path / "before", tmp_path / "after"
    before.mkdir()
    after.mkdir()
    first = simulate(before, lock)
    first.close()
    state = first.sites["alice"].core.config.module.state_dir
    shutil.copytree(state, after / state.relative_to(before))  # the disk of the same controller
    simulate(after, again).close()
    assert notes["at start"] is Administrative.LOCKED
    assert not any(lit)
    assert "decommissioned" in notes["why"]
    assert notes["back"] > 0.0
