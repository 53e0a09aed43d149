"""Serves a world: every module's buses, serial lines, VISA instruments and TCP ports, in one event loop.

A server that is started again on the same directory takes the same paths and ports, so that daemons find the world
again after it has crashed.
"""

from __future__ import annotations

import asyncio
import fcntl
import logging
import os
from collections.abc import Callable, Collection, Mapping
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any, Protocol

from sim.clock import SimClock
from sim.server import endpoints as where
from sim.server.bus_server import BusServer, BusTwins
from sim.server.hislip import HislipServer
from sim.server.pty import PtyEndpoint, SerialTwin
from sim.server.rawscpi import RawScpiServer
from sim.server.scpi import ScpiTwin
from sim.server.tcpjson import StreamTwin, TcpCommandServer, TcpStreamServer

STALL_S = 0.25
TICK_S = 0.01
log = logging.getLogger("sim.server")
"""Real seconds between looks at the world when nothing waits."""
SLICE_S = 0.01
"""World seconds of clicks drawn before requests get a turn."""


class WorldTwin(Protocol):
    """sim.world.World: brings itself to its clock and draws waiting clicks, in seconds of world time."""

    def pump(self, max_seconds: float, /) -> float: ...


class RigTwin(BusTwins, Protocol):
    """One module's electronics, by name (sim.rig.Rig). `tick` keeps its timers going without bus traffic."""

    def tick(self) -> None: ...

    @property
    def serial(self) -> Mapping[str, SerialTwin]: ...
    @property
    def scpi(self) -> Mapping[str, ScpiTwin]: ...
    @property
    def raw_scpi(self) -> Collection[str]:
        """Those of `scpi` that speak over a plain socket."""
        ...

    @property
    def tcp(self) -> Mapping[str, SerialTwin | StreamTwin]: ...


class AlreadyServed(RuntimeError):
    """Another world serves this directory."""


class WorldServer:
    """All endpoints of one world. An asynchronous context manager: endpoints are up while it is entered."""

    def __init__(
        self,
        world: WorldTwin,
        rigs: Mapping[str, RigTwin],
        run_dir: Path,
        clock: SimClock,
        *,
        speed: float = 1.0,
        factory: Mapping[str, Mapping[str, Any]] | None = None,
        ports: Mapping[tuple[str, str], int] | None = None,
    ) -> None:
        """`ports`: by (module, name), where not those of the last run; `factory`: each module's factory record."""
        self._world = world
        self._rigs = rigs
        self._run_dir = run_dir
        self._clock = clock
        self._speed = speed
        self._factory = factory or {}
        self._ports = dict(ports or {})
        self._polls: list[Callable[[float], None]] = []
        self._stack = AsyncExitStack()
        self.endpoints: dict[str, Any] = {}

    async def __aenter__(self) -> WorldServer:
        """Raises AlreadyServed, or OSError when a path or port cannot be had."""
        async with AsyncExitStack() as stack:
            self._run_dir.mkdir(parents=True, exist_ok=True)
            self._lock(stack)
            self._ports = where.previous_ports(self._run_dir) | self._ports
            for module, rig in self._rigs.items():
                self.endpoints[module] = (await self._open_module(stack, module, rig)).as_dict()
            self.endpoints["factory"] = self._write_factory()
            where.write_json(self._run_dir / where.FILE, self.endpoints)
            self._stack = stack.pop_all()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._stack.aclose()

    async def run(self) -> None:
        """Keep the world at its clock and pass on what instruments say by themselves, until cancelled."""
        before = self._clock.now()
        while True:
            paused = (self._clock.now() - before) / self._speed
            if paused > STALL_S:
                log.warning("the emulator stood still for %.2f s: too little processor time", paused)
            before = self._clock.now()
            drawn = self._world.pump(SLICE_S * self._speed)
            for rig in self._rigs.values():
                rig.tick()
            now = self._clock.now()
            for poll in self._polls:
                poll(now)
            await asyncio.sleep(0.0 if drawn > 0.0 else TICK_S)

    def _lock(self, stack: AsyncExitStack) -> None:
        """The kernel drops the lock with its holder, however that ends."""
        descriptor = os.open(self._run_dir / "world.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        stack.callback(os.close, descriptor)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise AlreadyServed(f"another world serves {self._run_dir}") from None

    async def _open_module(self, stack: AsyncExitStack, module: str, rig: RigTwin) -> where.ModuleEndpoints:
        bus = where.bus_path(self._run_dir, module)
        found = where.ModuleEndpoints(str(bus))
        server = BusServer(module, rig, bus)
        await server.start()
        stack.push_async_callback(server.close)
        for name, line in rig.serial.items():
            found.serial[name] = str(self._open_serial(stack, module, name, line))
        for name, instrument in rig.scpi.items():
            raw = name in rig.raw_scpi
            server_type, resource = (
                (RawScpiServer, where.raw_resource) if raw else (HislipServer, where.hislip_resource)
            )
            served: RawScpiServer | HislipServer = server_type(instrument, speed=self._speed)
            port = await served.start(where.HOST, self._ports.get((module, name), 0))
            stack.push_async_callback(served.close)
            found.visa[name] = resource(port)
        for name, twin in rig.tcp.items():
            port = await self._open_tcp(stack, twin, self._ports.get((module, name), 0))
            found.tcp[name] = f"{where.HOST}:{port}"
        return found

    def _open_serial(self, stack: AsyncExitStack, module: str, name: str, twin: SerialTwin) -> Path:
        link = where.serial_path(self._run_dir, module, name)
        line = PtyEndpoint(twin, link, self._clock, baud=where.BAUDS.get(name), speed=self._speed)
        line.start()
        stack.callback(line.close)
        self._polls.append(lambda _now: line.poll())
        return link

    async def _open_tcp(self, stack: AsyncExitStack, twin: SerialTwin | StreamTwin, port: int) -> int:
        if isinstance(twin, StreamTwin):
            stream = TcpStreamServer(twin)
            stack.push_async_callback(stream.close)
            self._polls.append(stream.poll)
            return await stream.start(where.HOST, port)
        command = TcpCommandServer(twin, self._clock, speed=self._speed)
        stack.push_async_callback(command.close)
        self._polls.append(lambda _now: command.poll())
        return await command.start(where.HOST, port)

    def _write_factory(self) -> dict[str, str]:
        paths = {}
        for module, record in self._factory.items():
            path = where.factory_path(self._run_dir, module)
            where.write_json(path, record)
            paths[module] = str(path)
        return paths


async def serve(
    world: WorldTwin,
    rigs: Mapping[str, RigTwin],
    run_dir: Path,
    clock: SimClock,
    *,
    speed: float = 1.0,
    factory: Mapping[str, Mapping[str, Any]] | None = None,
    ports: Mapping[tuple[str, str], int] | None = None,
    ready: Callable[[dict[str, Any]], None] = lambda _: None,
) -> None:
    """Serve until cancelled; `ready` gets the endpoints once all are up. Raises AlreadyServed, OSError."""
    async with WorldServer(world, rigs, run_dir, clock, speed=speed, factory=factory, ports=ports) as server:
        ready(server.endpoints)
        await server.run()
