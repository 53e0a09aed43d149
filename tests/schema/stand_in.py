"""Core's network side without a module: real outbox, door, uplink and signed requests; handlers that only tell."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from qmodd.clock import SystemClock
from qmodd.command_check import checked
from qmodd.door import Door
from qmodd.identity import Authority, provision_identities
from qmodd.messages import Alive, Limit
from qmodd.outbox import Outbox
from qmodd.randomness import SeededRandomness
from qmodd.requests import Refusal, Requests, report_progress
from qmodd.schema.published import publish
from qmodd.uplink.app import UplinkSettings, run_uplink
from qmodd.uplink.mqtt_link import BrokerSettings
from tests.uplink_fakes import EPOCH, MODULE, Log, running

FIELD = {"why": "as asked", "since": "2026-01-01T00:00:00+00:00"}
LOW, HIGH = 60.0, 100_000.0


class Module:
    """What the handlers tell of."""

    def __init__(self) -> None:
        self.activity, self.store_limit = "ready", 10_000

    def state(self) -> dict[str, Any]:
        fields = {"administrative": "unlocked", "operational": "enabled", "activity": self.activity}
        return {**{name: {"value": value, **FIELD} for name, value in fields.items()}, "inhibited": []}

    async def start(self, _arguments: Mapping[str, Any]) -> dict[str, Any]:
        self.activity = "keying"
        return self.state()

    async def stop(self, _arguments: Mapping[str, Any]) -> dict[str, Any]:
        self.activity = "ready"
        return self.state()

    async def selftest(self, arguments: Mapping[str, Any]) -> dict[str, Any]:
        for part in (0.25, 0.5, 1.0):
            report_progress(part, f"{arguments['level']} self-test")
        done = {"level": arguments["level"], "passed": True, "verdict": "passed", "suspects": [], "seconds": 3.0}
        return {**self.state(), **done}

    async def set_store_limit(self, arguments: Mapping[str, Any]) -> dict[str, Any]:
        value = arguments["value"]
        if not LOW <= value <= HIGH:
            limit = Limit(output="keys.store_limit", value=value, low=LOW, high=HIGH, unit="keys")
            raise Refusal("out_of_range", f"keys.store_limit = {value:g}: {LOW:g} to {HIGH:g} is allowed", limit)
        self.store_limit = value
        return {"path": "keys.store_limit", "value": value, "changed": True}


class Site:
    """One stand-in at a broker. `clients` has an identity directory for an operator and a viewer."""

    def __init__(self, directory: Path, broker: str) -> None:
        self.directory, self.broker, self.module = directory, BrokerSettings(url=broker), Module()
        self.log, self.clock = Log(), SystemClock()
        self.clients = directory / "site"
        paths = provision_identities(
            self.clients,
            self.clock.utc(),
            modules=(),
            recipients=(),
            clients={"operator": "operator", "viewer": "viewer"},
        )
        self.outbox = Outbox(None)
        m = self.module
        handlers = {"start": m.start, "stop": m.stop, "selftest": m.selftest, "set/keys.store_limit": m.set_store_limit}
        trust = Authority.load(paths["authority.public"])
        requests = Requests(MODULE, EPOCH, self.clock, trust, checked(handlers), self.log)
        self.door = Door(
            directory / "door",
            self.outbox,
            self.clock,
            requests.handle,
            lambda _recipient, _payload: None,
            alive=Alive(state="online", epoch=EPOCH, version="0.1.0", since=self.clock.utc()),
            module=MODULE,
            report=self.log,
        )
        self.settings = UplinkSettings(
            serial=MODULE, door=self.door.path, broker=self.broker, relay_listen="127.0.0.1:0"
        )
        publish(self.outbox)

    async def sign(self, client: str, *words: str) -> bytes:
        """What `qmodctl sign` prints."""
        argv = [sys.executable, "-m", "qmodd.ctl", "sign", MODULE, *words]
        argv += ["--broker", self.broker.url, "--identity", str(self.clients / client)]
        return (await output(*argv)).strip()


async def output(*argv: str, stdin: bytes | None = None) -> bytes:
    """Standard output of a program that ends with status 0."""
    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec(*argv, stdin=pipe, stdout=pipe, stderr=pipe)
    out, errors = await process.communicate(stdin)
    assert process.returncode == 0, f"{argv[:4]}: {errors.decode()[-500:]}"
    return out


@asynccontextmanager
async def standing_in(directory: Path, broker: str) -> AsyncIterator[Site]:
    """A site that is online."""
    site = Site(directory, broker)
    try:
        async with running(site.door.run(), run_uplink(site.settings, SeededRandomness(1), Log())):
            await site.log.until("broker.connected")
            yield site
    finally:
        site.outbox.close()
