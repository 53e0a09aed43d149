"""Monitors of a running module: read at one moment, told over MQTT, and what is silent is told as such."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from qmodd.app.monitor_desk import PERIOD_S
from qmodd.lifecycle import Activity
from qmodd.soak import Run
from tests.app.pair import Noc, simulate, until, until_keying


class Watched:
    """Bob keys; flags are cleared, and his cryostat goes silent."""

    def __init__(self, directory: Path) -> None:
        self.notes: dict[str, Any] = {}
        self.replies: list[dict[str, Any]] = []
        simulate(directory, self._script).close()

    async def _ask(self, run: Run, **arguments: Any) -> dict[str, Any]:
        self.replies.clear()
        self.noc.do("bob", "monitors", arguments)
        await until(run, lambda: bool(self.replies), 10.0, "an answer")
        return self.replies[-1]

    def _published(self, module: str, suffix: str, payload: bytes) -> None:
        if suffix.startswith("reply/"):
            self.replies.append(json.loads(payload))

    async def _script(self, run: Run) -> None:
        run.published = self._published
        self.noc, bob = Noc(run), run.sites["bob"].core
        await asyncio.sleep(1.0)
        self.notes["too early"] = await self._ask(run, freeze=False)
        await until_keying(run)
        await asyncio.sleep(2.0 * PERIOD_S)
        self.notes["telemetry"] = bob.telemetry.groups()["monitors"]
        await self._ask(run, clear=True)
        self.notes["calm"] = (await self._ask(run))["result"]
        self.notes["keying"] = bob.life.activity
        self.notes["nonsense"] = await self._ask(run, freeze="yes")
        self.notes["last"] = [(await self._ask(run, freeze=False))["result"] for _ in range(2)]
        run.rigs["bob"].unplug("cryostat")
        self.notes["silent"] = (await self._ask(run))["result"]


@pytest.fixture(scope="module")
def watched(tmp_path_factory: pytest.TempPathFactory) -> Watched:
    return Watched(tmp_path_factory.mktemp("watched"))


def row(told: dict[str, Any], name: str) -> dict[str, Any]:
    return next(r for r in told["monitors"] if r["name"] == name)


def test_before_the_first_moment_it_says_so(watched: Watched) -> None:
    assert watched.notes["too early"]["error"]["code"] == "wrong_state"


def test_a_healthy_module_in_service_has_no_flag(watched: Watched) -> None:
    calm = watched.notes["calm"]
    assert watched.notes["keying"] is Activity.KEYING
    assert calm["serving"]
    assert [r["name"] for r in calm["monitors"] if r["flags"] or r["latched"] or r["unread"]] == []
    assert calm["span_s"] < 0.5
    assert row(calm, "chip")["value"] == pytest.approx(30.0, abs=0.05)
    assert row(calm, "rate_dz")["value"] > 1e4


def test_telemetry_has_the_same_values(watched: Watched) -> None:
    numbers = watched.notes["telemetry"]
    assert numbers["chip_c"] == pytest.approx(30.0, abs=0.05)
    assert numbers["alarms_count"] == 0
    assert numbers["unread_count"] == 0


def test_the_last_moment_is_told_as_it_was(watched: Watched) -> None:
    first, second = watched.notes["last"]
    assert first["utc"] == second["utc"]
    assert [r["value"] for r in first["monitors"]] == [r["value"] for r in second["monitors"]]


def test_what_does_not_answer_is_told_with_its_reason(watched: Watched) -> None:
    silent = row(watched.notes["silent"], "cryostat")
    assert silent["value"] is None
    assert "cryostat" in silent["unread"]
    assert row(watched.notes["silent"], "fan")["value"] > 1000.0


def test_arguments_are_checked(watched: Watched) -> None:
    assert watched.notes["nonsense"]["error"]["code"] == "bad_arguments"
