"""One module as real processes, as in the demo: emulator, core without worker, uplink; and what processes cost."""

from __future__ import annotations

import asyncio
import json
import os
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from benchmarks.measure import Mismatch
from qmodd.broker import free_port
from qmodd.clock import SystemClock
from qmodd.demo.compose import SERIALS, Places, configuration, provision_site
from qmodd.demo.services import Service, Services, StartFailed
from qmodd.messages import Alive
from qmodd.randomness import SystemRandomness
from qmodd.uplink.mqtt_link import BrokerSettings, Link, LinkDown, open_link

MODULE = SERIALS["alice"]
ROOT = f"qmodd/v1/{MODULE}/"
READY_WITHIN_S = 180.0
T = TypeVar("T")
_TICK_S = 1.0 / os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True)
class Usage:
    """Of one process: processor time since its start (s), resident memory and its proportional share (MB)."""

    cpu_s: float
    rss_mb: float
    pss_mb: float


def usage(pid: int) -> Usage:
    ticks = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[11:13]
    kib = {
        line.split(":")[0]: int(line.split()[1])
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()[1:]
    }
    return Usage(sum(map(int, ticks)) * _TICK_S, kib["Rss"] * 1024 / 1e6, kib["Pss"] * 1024 / 1e6)


@dataclass
class Said:
    """What the module says, newest by topic below its root, and how often."""

    newest: dict[str, Any] = field(default_factory=dict)
    seen: dict[str, int] = field(default_factory=dict)
    changed: asyncio.Event = field(default_factory=asyncio.Event)

    async def listen(self, link: Link) -> None:
        """Until the broker is gone; whoever waits for news then waits in vain."""
        while True:
            try:
                message = await link.next_message()
            except LinkDown:
                return
            suffix = message.topic.removeprefix(ROOT)
            self.newest[suffix] = json.loads(message.payload or b"null")
            self.seen[suffix] = self.seen.get(suffix, 0) + 1
            self.changed.set()

    async def until(self, true: Callable[[], bool], what: str, within_s: float = READY_WITHIN_S) -> None:
        """Raises Mismatch."""
        try:
            async with asyncio.timeout(within_s):
                while not true():
                    self.changed.clear()
                    await self.changed.wait()
        except TimeoutError:
            raise Mismatch(f"not within {within_s:g} s: {what}; it is {self.activity()}") from None

    async def again(self, suffix: str) -> Any:
        """The next message on a topic."""
        before = self.seen.get(suffix, 0)
        await self.until(lambda: self.seen.get(suffix, 0) > before, f"news on {suffix}", 30.0)
        return self.newest[suffix]

    def activity(self) -> str:
        found = self.newest.get("state", {}).get("activity", {})
        return f"{found.get('value', 'unknown')}: {found.get('why', '')}"

    @property
    def epoch(self) -> str:
        return Alive.model_validate(self.newest["alive"], strict=False).epoch


@dataclass
class Module:
    """A running module. `site` has the clients' identities, `said` what it publishes."""

    directory: Path
    site: Path
    said: Said
    services: Services

    @property
    def core(self) -> int:
        """Of core itself, which the emulator's supervisor has started."""
        process = self.services.members["core"].process
        assert process is not None
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
        return int(children[0])

    @property
    def uplink(self) -> int:
        process = self.services.members["uplink"].process
        assert process is not None
        return process.pid

    def events(self) -> list[dict[str, Any]]:
        """All of core's events so far."""
        text = (self.directory / "alice" / "state" / "events.jsonl").read_text()
        return [json.loads(line) for line in text.splitlines() if line.endswith("}")]


@asynccontextmanager
async def module(
    directory: Path,
    watcher: BrokerSettings,
    uplink: BrokerSettings,
    settings: Mapping[str, str],
) -> AsyncIterator[Module]:
    """Alice, alone, at a broker that runs. The pair's secrets are made in `directory` unless they are there.

    `watcher` is how this process reaches the broker, `uplink` how the module does.
    """
    if not (directory / "site").exists():
        provision_site(directory, SystemClock().utc(), SystemRandomness())
    services, said = Services(lambda _line: None), Said()
    async with asyncio.TaskGroup() as group, open_link(watcher, f"bench-{os.getpid()}") as link:
        tasks: list[asyncio.Task[None]] = []

        def keep(name: str, *argv: str) -> None:
            service = Service(name, [sys.executable, "-m", "qmodd", *argv], directory / "logs" / f"{name}.log")
            tasks.append(group.create_task(services.keep(services.add(service)), name=name))

        try:
            await link.subscribe(*(ROOT + t for t in ("alive", "state", "telemetry/+")))
            tasks.append(group.create_task(said.listen(link), name="listen"))
            keep("sim", "sim", "--run-dir", str(directory / "sim"))
            config = await _configured(directory, uplink, settings)
            core = [sys.executable, "-m", "qmodd", "core", "--config", str(config)]
            keep("core", "sim", "exec", "--module", "alice", "--run-dir", str(directory / "sim"), "--", *core)
            keep("uplink", "uplink", "--config", str(config))
            await said.until(lambda: said.newest.get("alive", {}).get("state") == "online", "alive")
            yield Module(directory, directory / "site", said, services)
        finally:
            for task in tasks:
                task.cancel()
            await services.stop()


async def _configured(directory: Path, uplink: BrokerSettings, settings: Mapping[str, str]) -> Path:
    endpoints = directory / "sim" / "endpoints.json"
    begun = time.monotonic()
    while not endpoints.exists():
        if time.monotonic() - begun > 60.0:
            raise Mismatch("the emulator served nothing within 60 s")
        await asyncio.sleep(0.05)
    places = Places(directory, uplink.url, f"127.0.0.1:{free_port()}")
    text = configuration("alice", json.loads(endpoints.read_text()), places, {"worker": "false", **settings})
    files = {n: getattr(uplink, n) for n in ("ca", "certificate", "key")}
    more = "".join(f"{name} = {json.dumps(str(path))}\n" for name, path in files.items() if path is not None)
    config = directory / "alice" / "alice.toml"
    config.write_text(text.replace("[uplink]\n", f"[uplink]\n{more}"))
    return config


async def faults_in_words(work: Awaitable[T]) -> T:
    """What a group of tasks failed with, as one Mismatch."""
    try:
        return await work
    except BaseExceptionGroup as group:
        known, rest = group.split((Mismatch, StartFailed, LinkDown))
        if known is None or rest is not None:
            raise
        raise Mismatch("; ".join(_words(known))) from None


def _words(group: BaseExceptionGroup[BaseException]) -> list[str]:
    return [w for e in group.exceptions for w in (_words(e) if isinstance(e, BaseExceptionGroup) else [str(e)])]


def percentile(values: list[float], share: float) -> float:
    """The smallest value that at least that share of them do not exceed."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, max(0, -(-int(share * 1000) * len(ordered) // 1000) - 1))]
