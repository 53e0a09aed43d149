"""Leases on a running pair: keys stop, loops let go, raw data come, and everything goes back by itself."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from qmodd.identity import ClientFiles
from qmodd.lifecycle import Activity
from qmodd.provision import SITE
from qmodd.soak import Run
from tests.app.pair import Noc, events, simulate, until, until_keying


class Session:
    """One afternoon of a photonics engineer at both modules."""

    def __init__(self, directory: Path) -> None:
        self.notes: dict[str, Any] = {}
        self.replies: list[dict[str, Any]] = []
        self.run = simulate(directory, self._script)

    async def _ask(self, run: Run, site: str, command: str, **arguments: Any) -> dict[str, Any]:
        self.replies.clear()
        body = self.noc.body(site, command, arguments, client=self.noc.files.signer.name)
        self.noc.send(site, body.topic, self.noc.signed(body))

        def answered() -> bool:
            return any("ok" in r for r in self.replies)

        await until(run, answered, 60.0, f"answer to {command}")
        return self.replies[-1]

    def _published(self, _module: str, suffix: str, payload: bytes) -> None:
        if suffix.startswith("reply/"):
            self.replies.append(json.loads(payload))
        if suffix == "state":
            self.notes["owners"] = {o["output"]: o["owner"] for o in json.loads(payload)["owners"]}

    async def _script(self, run: Run) -> None:
        run.published = self._published
        self.noc = Noc(run)
        await asyncio.sleep(5.0)
        self.notes["before"] = await self._ask(run, "bob", "lease", output="heater.phase")
        self.noc.files = ClientFiles.load(run.directory / SITE / "maintainer")
        self.notes["too early"] = await self._ask(run, "bob", "lease", output="heater.phase")
        await until_keying(run)
        await self._sweep(run)
        await self._silence(run)
        await self._safe(run)

    async def _sweep(self, run: Run) -> None:
        n, bob = self.notes, run.sites["bob"].core
        n["at"] = bob.module.heaters.current("phase")
        short = {"from": 0.0, "to": 0.01, "points": 3}
        n["unleased"] = await self._ask(run, "bob", "sweep", output="heater.phase", **short)
        n["lease"] = await self._ask(run, "bob", "lease", output="heater.phase", seconds=300)
        n["owner"] = dict(self.notes["owners"])
        await until(run, lambda: bob.life.activity is Activity.READY, 2.0, "keys stopped")
        n["activity"] = (bob.life.activity, bob.life.why("activity"))
        n["out of range"] = await self._ask(
            run, "bob", "sweep", output="heater.phase", **{"from": 0.0, "to": 0.5, "points": 3}
        )
        n["sweep"] = await self._ask(
            run,
            "bob",
            "sweep",
            output="heater.phase",
            read=["rail.current_a", "photocurrent.pb0", "rate.DX0", "submount.celsius"],
            settle=0.2,
            **{"from": 0.0, "to": 0.02, "points": 5},
        )
        n["progress"] = [r["progress"] for r in self.replies if "progress" in r]
        n["after sweep"] = bob.module.heaters.current("phase")
        n["release"] = await self._ask(run, "bob", "release", output="heater.phase")
        n["keys again"] = await until_keying(run, 200.0)

    async def _silence(self, run: Run) -> None:
        """The holder's terminal dies: the module takes the attenuator back."""
        n, alice, since = self.notes, run.sites["alice"].core, run.loop.time()
        n["voa's loop"] = alice.wiring.leases.owner("bias.voa")
        n["voa"] = await self._ask(run, "alice", "lease", output="attenuator", seconds=300, heartbeat_s=5)
        await self._ask(run, "alice", "sweep", output="attenuator", stay=True, **{"from": 4.0, "to": 4.0, "points": 1})
        n["voa held"] = alice.module.biases.voltage("voa")
        await until(run, lambda: alice.wiring.leases.any() is None, 20.0, "lease over")
        n["voa back"] = (events(run, "alice", "lease.ended", since)[-1]["why"], alice.module.biases.voltage("voa"))
        await self._set_point(run)
        n["keys after silence"] = await until_keying(run, 200.0)

    async def _set_point(self, run: Run) -> None:
        """The temperature's loop reads on and leaves the set point alone."""
        n, bob = self.notes, run.sites["bob"].core
        target = bob.module.devices["tec"].output("target")  # type: ignore[attr-defined]
        before = target.value
        # Upkeep of what keys do not rest on may be at work: the engineer asks again.
        for _ in range(60):
            if (await self._ask(run, "bob", "lease", output="tec.target", seconds=300))["ok"]:
                break
            await asyncio.sleep(1.0)
        there = {"from": before + 0.2, "to": before + 0.2, "points": 1, "stay": True}
        await self._ask(run, "bob", "sweep", output="tec.target", **there)
        await asyncio.sleep(5.0)
        n["set point"] = target.value - before
        await self._ask(run, "bob", "release", output="tec.target")
        await asyncio.sleep(2.0)
        n["set point after"] = target.value - before

    async def _safe(self, run: Run) -> None:
        n, alice, since = self.notes, run.sites["alice"].core, run.loop.time()
        await self._ask(run, "alice", "lease", output="laser", seconds=300)
        await self._ask(run, "alice", "safe")
        await until(run, lambda: alice.wiring.leases.any() is None, 5.0, "leases over")
        n["safe"] = [e["why"] for e in events(run, "alice", "lease.ended", since)]


@pytest.fixture(scope="module")
def session(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Session]:
    session = Session(tmp_path_factory.mktemp("lab"))
    yield session
    session.run.close()


def error(reply: dict[str, Any]) -> tuple[str, str]:
    assert not reply["ok"]
    return reply["error"]["code"], reply["error"]["message"]


def test_only_a_maintainer_may(session: Session) -> None:
    assert error(session.notes["before"]) == ("not_allowed", "lease needs maintainer; operator is operator")


def test_not_while_the_module_is_coming_up(session: Session) -> None:
    code, message = error(session.notes["too early"])
    assert code == "wrong_state"
    assert message.startswith("lease: the module is ")


def test_keys_stop_with_the_reason_and_the_owner_is_told(session: Session) -> None:
    (lease,) = session.notes["lease"]["result"]["leases"]
    assert (lease["client"], lease["unit"], lease["low"], lease["high"]) == ("maintainer", "A", 0.0, 0.033)
    assert lease["keys_stop"]
    assert session.notes["owner"]["heater.phase"] == "lease: maintainer"
    assert session.notes["activity"] == (Activity.READY, "output heater.phase is leased by maintainer")


def test_a_sweep_needs_a_lease_and_the_drivers_limits(session: Session) -> None:
    code, message = error(session.notes["unleased"])
    assert (code, message) == ("not_leased", "heater.phase is not leased by maintainer: lease it first")
    code, message = error(session.notes["out of range"])
    assert (code, message) == ("out_of_range", "to = 0.5 A: heater.phase may be 0 to 0.033 A; nothing was changed")
    limit = session.notes["out of range"]["error"]["limit"]
    assert limit == {"output": "heater.phase", "value": 0.5, "low": 0.0, "high": 0.033, "unit": "A"}


def test_raw_data_are_those_of_the_hardware(session: Session) -> None:
    """What is written is drawn from the rail, and the output goes back to where the loop left it."""
    result = session.notes["sweep"]["result"]
    assert [c["unit"] for c in result["columns"]] == ["A", "A", "A", "1/s", "C"]
    rows = result["rows"]
    assert [r[0] for r in rows] == pytest.approx([0.0, 0.005, 0.01, 0.015, 0.02], abs=1e-6)
    assert rows[-1][1] - rows[0][1] == pytest.approx(0.02, rel=0.05)
    assert session.notes["progress"][-1] == 1.0
    assert session.notes["after sweep"] == pytest.approx(session.notes["at"], abs=2e-3)


def test_released_the_loop_takes_over_and_keys_come_again(session: Session) -> None:
    (released,) = session.notes["release"]["result"]["released"]
    assert released["output"] == "heater.phase"
    assert "maintainer" not in released["owner"]
    assert session.notes["keys again"] < 200.0


def test_a_silent_holder_loses_the_output(session: Session) -> None:
    assert session.notes["voa"]["result"]["leases"][0]["output"] == "bias.voa"
    assert session.notes["voa held"] == pytest.approx(4.0, abs=1e-3)
    why, volts = session.notes["voa back"]
    assert "maintainer has not renewed it for" in why
    assert volts != pytest.approx(4.0, abs=1e-3)
    assert session.notes["keys after silence"] < 200.0


def test_loops_own_what_they_drive_and_let_go(session: Session) -> None:
    assert session.notes["voa's loop"] == "loop mean photon number"
    assert session.notes["set point"] == pytest.approx(0.2, abs=1e-6)
    assert session.notes["set point after"] == pytest.approx(0.0, abs=0.02)


def test_safe_state_ends_every_lease(session: Session) -> None:
    assert set(session.notes["safe"]) == {"safe state by command; `start` leaves it"}
