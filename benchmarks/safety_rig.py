"""A pair whose daemons can be killed at any instant and started anew, over a world and electronics that go on.

A kill severs the module's buses first, so that nothing that a cancelled task still does reaches the hardware, and puts
the state directory back to the bytes of that instant: what is left is what SIGKILL leaves.
"""

from __future__ import annotations

import asyncio
import json
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any
from unittest import mock

from drivers.bus.libraries import Libraries
from qmodd.app.core import Core, Injected
from qmodd.demo.compose import SERIALS
from qmodd.door_core import DoorCore
from qmodd.identity import Recipient, SignerPublic
from qmodd.keys.kernels import InlineKernels
from qmodd.lifecycle import Activity
from qmodd.provision import SITE
from qmodd.randomness import SeededRandomness
from qmodd.receive import Receiver
from qmodd.soak import CHANNEL_LATENCY_S, Run, Site
from qmodd.uplink.memory import MemoryUplink
from sim.individuals import factory_record
from sim.inproc import InprocLibraries

SITES = ("alice", "bob")


class Killed(BaseException):
    """The process is gone at this call."""


@dataclass
class Wires:
    """All buses of one module's process; severed, none of them does anything any more."""

    severed: bool = False

    def opener(self, opener: Callable[..., Any]) -> Callable[..., Any]:
        def opened(*arguments: Any) -> Any:
            if self.severed:
                raise OSError(9, "the process is dead")
            return Severable(opener(*arguments), self)

        return opened


class Severable:
    """An open bus object that does nothing once its process is dead."""

    def __init__(self, inner: Any, wires: Wires) -> None:
        self.__dict__.update(_inner=inner, _wires=wires)

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._inner, name)
        if not callable(found):
            return found

        def call(*arguments: Any, **named: Any) -> Any:
            if self._wires.severed and name != "close":
                raise OSError(9, "the process is dead")
            return found(*arguments, **named)

        return call

    def __setattr__(self, name: str, value: Any) -> None:
        setattr(self._inner, name, value)


@dataclass
class MortalRun(Run):
    """`entries`: every event of both modules, over all their lives, with the simulated time it was recorded at."""

    entries: list[tuple[float, str, dict[str, Any]]] = field(default_factory=list)
    # A module has found a reason to go dark, or dies.
    detected: asyncio.Event = field(default_factory=asyncio.Event)
    _wires: dict[str, Wires] = field(default_factory=dict)
    _tasks: dict[str, asyncio.Task[None]] = field(default_factory=dict)
    _lives: int = 0

    def _site(self, name: str) -> Site:
        port = self.world.alice if name == "alice" else self.world.bob
        (self.directory / name / "factory.json").write_text(json.dumps(factory_record(port.individual, self.seed)))
        found, wires = InprocLibraries(self.rigs[name]), Wires()
        self._wires[name] = wires
        libraries = Libraries(
            *(wires.opener(o) for o in (found.i2c, found.spi, found.serial, found.visa, found.tcp)), threaded=False
        )
        self._lives += 1
        randomness = SeededRandomness(self.seed * 1000 + self._lives)
        injected = Injected(
            libraries,
            self.clock,
            randomness,
            InlineKernels(randomness),
            door=DoorCore,
            serve_door=lambda door: door.serve_requests(),
            threads=False,
            durable=True,
            heartbeat_s=0.5,
        )
        keys = self.directory / SITE
        module = SignerPublic.load(keys / f"{SERIALS[name]}.pub")
        kms = Recipient.load(keys / f"kms-{name[0]}.key")
        receiver = Receiver(self.directory / f"kms-{name[0]}.db", kms, {SERIALS[name]: module.key}, self.clock)
        core = Core(self._config(name), injected)
        core.events.listeners.append(lambda e: self._hear(name, dict(e)))
        return Site(name, core, receiver)

    def _hear(self, name: str, entry: dict[str, Any]) -> None:
        self.entries.append((self.loop.time(), name, entry))
        if entry["event"] in ("latch.set", "state.operational"):
            self.detected.set()

    # life and death

    async def live(self) -> None:
        """Start everything; ends when cancelled."""
        self._tasks["tick"] = asyncio.ensure_future(self.tick())
        for name in SITES:
            self._start(name)
        self._join()
        try:
            await asyncio.Event().wait()
        finally:
            for task in self._tasks.values():
                task.cancel()
            await asyncio.wait(set(self._tasks.values()))

    def _start(self, name: str) -> None:
        self._tasks[name] = asyncio.ensure_future(self.sites[name].core.run())

    def _join(self) -> None:
        self.uplink = MemoryUplink(
            self.sites["alice"].core.door,
            self.sites["bob"].core.door,
            CHANNEL_LATENCY_S,
            receivers={(SERIALS[s.name], f"kms-{s.name[0]}"): s.receiver.process for s in self.sites.values()},
        )
        self._tasks["uplink"] = asyncio.ensure_future(self.uplink.run())

    async def stop(self, name: str) -> None:
        """SIGTERM: the daemon ends as it should."""
        self._tasks["uplink"].cancel()
        await self._end(name)
        self._closed(name)

    async def kill(self, name: str) -> None:
        """SIGKILL, now."""
        self.detected.set()
        self._wires[name].severed = True
        state, left = self.directory / name / "state", self.directory / name / "at-death"
        shutil.copytree(state, left, ignore=shutil.ignore_patterns("*.sock"))
        self._tasks["uplink"].cancel()
        await self._end(name)
        self._closed(name)
        shutil.rmtree(state)
        left.rename(state)

    async def _end(self, name: str) -> None:
        task = self._tasks[name]
        task.cancel()
        await asyncio.wait({task})
        with suppress(asyncio.CancelledError, Exception, Killed):
            task.result()

    def _closed(self, name: str) -> None:
        with suppress(Exception):
            self.sites[name].core.close()
        self.sites[name].receiver.close()

    def rebirth(self, name: str) -> None:
        """Another process on the same state directory and the same hardware."""
        self.sites[name] = self._site(name)
        self._start(name)
        self._join()

    # what is known

    def since(self, begin_s: float, *events: str, site: str = "") -> list[tuple[float, str, dict[str, Any]]]:
        return [e for e in self.entries if e[0] >= begin_s and e[2]["event"] in events and site in ("", e[1])]

    def keying(self) -> bool:
        return all(s.core.life.activity is Activity.KEYING for s in self.sites.values())


@contextmanager
def dying_in_a_write(calls: int, share: float) -> Iterator[None]:
    """From the given call on to the operating system, no call of a file's way to the disk does anything; a write that
    dies leaves this share of its bytes."""
    count = 0
    real = {name: getattr(os, name) for name in ("write", "fsync", "replace", "open")}

    def dies(name: str) -> Callable[..., Any]:
        def call(*arguments: Any) -> Any:
            nonlocal count
            count += 1
            if count > calls:
                if name == "write":
                    real["write"](arguments[0], bytes(arguments[1])[: int(share * len(arguments[1]))])
                raise Killed(name)
            return real[name](*arguments)

        return call

    with mock.patch.multiple(os, **{name: dies(name) for name in real}):
        yield
