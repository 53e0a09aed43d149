"""Core's door for whoever stands in front of the rack: a second Unix socket, of mode 0600, beside the uplink's.

A client hears what the NOC hears: the retained topics at once, then every event, alarm and telemetry as it comes. It
may send requests; they are verified like any other, signature, role and epoch: being here gives no right. Keys and
their acknowledgements do not pass. Uplink and broker may be there or not.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from qmodd.budget import Budget
from qmodd.clock import Clock
from qmodd.door import listen
from qmodd.door_core import OnRequest
from qmodd.door_frames import (
    FROM_UPLINK,
    VERSION,
    Answer,
    Bye,
    Deframer,
    Frame,
    Hello,
    Inbound,
    ProtocolError,
    Publish,
    Telemetry,
    pack,
)
from qmodd.messages import Alive
from qmodd.outbox import Outbox

FILE = "local.sock"
MOST_CLIENTS = 4
# Waiting for one client that reads slowly; the oldest go first.
KEPT = 512
REQUESTS_AT_ONCE = 4


@dataclass
class _Client:
    """One connection; what it has asked for is answered to it alone."""

    frames: deque[Frame] = field(default_factory=lambda: deque(maxlen=KEPT))
    wake: asyncio.Event = field(default_factory=asyncio.Event)
    busy: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(REQUESTS_AT_ONCE))
    greeted: bool = False

    def put(self, frame: Frame) -> None:
        self.frames.append(frame)
        self.wake.set()


@dataclass
class LocalDoor:
    """`run` until cancelled, as a part of core's task tree."""

    path: Path
    outbox: Outbox
    clock: Clock
    on_request: OnRequest
    alive: Alive
    module: str
    report: Callable[[str, str], None] = lambda _name, _why: None
    _clients: list[_Client] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._budget = Budget(self.clock)
        self.outbox.taps.append(self._told)

    def telemetry(self, group: str, payload: bytes) -> None:
        """For the uplink's door, which makes the payload."""
        for client in self._clients:
            client.put(Telemetry(group=group, payload=payload))

    def _told(self, suffix: str, payload: bytes, retain: bool) -> None:
        for client in self._clients:
            client.put(_publish(suffix, payload, retain))

    async def run(self) -> None:
        """Raises OSError when the socket's path cannot be had."""
        listening = listen(self.path)
        inode = self.path.stat().st_ino
        async with asyncio.TaskGroup() as group:

            def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
                group.create_task(self._connection(reader, writer), name="local connection")

            server = await asyncio.start_unix_server(connected, sock=listening)
            try:
                await asyncio.Event().wait()
            finally:
                server.close()
                with contextlib.suppress(FileNotFoundError):
                    if self.path.stat().st_ino == inode:
                        self.path.unlink()

    async def _connection(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        client = _Client()
        if len(self._clients) >= MOST_CLIENTS:
            self.report("local.refused", f"{MOST_CLIENTS} are connected already")
            writer.close()
            return
        self._clients.append(client)
        client.put(Hello(module=self.module, alive=self.alive.payload()))
        try:
            async with asyncio.TaskGroup() as group:
                sender = group.create_task(self._send(client, writer), name="local sender")
                await self._read(client, reader, group)
                sender.cancel()
        except* ProtocolError as e:
            self.report("local.refused", f"dropped: {e.exceptions[0]}")
        except* OSError as e:
            self.report("local.lost", f"connection broken: {e.exceptions[0]}")
        finally:
            self._clients.remove(client)
            if not writer.is_closing():
                writer.write(pack(Bye()))
            writer.close()

    async def _read(self, client: _Client, reader: asyncio.StreamReader, group: asyncio.TaskGroup) -> None:
        deframer = Deframer(FROM_UPLINK)
        while data := await reader.read(65_536):
            for frame in deframer.feed(data):
                if not client.greeted:
                    self._greet(client, frame)
                elif not isinstance(frame, Inbound):
                    raise ProtocolError(f"{type(frame).__name__} is not for this door")
                elif self._budget.take():
                    await client.busy.acquire()
                    group.create_task(self._serve(client, frame), name="local request")

    def _greet(self, client: _Client, frame: Frame) -> None:
        if not isinstance(frame, Hello) or frame.version != VERSION:
            raise ProtocolError(f"the first frame is not a Hello of version {VERSION}")
        client.greeted = True
        self.report("local.connected", "")
        for suffix, payload in self.outbox.retained().items():
            client.put(_publish(suffix, payload, True))

    async def _serve(self, client: _Client, inbound: Inbound) -> None:
        def answer(name: str, payload: bytes) -> None:
            client.put(Answer(client=name, payload=payload, correlation=inbound.correlation))

        try:
            await self.on_request(inbound, answer)
        finally:
            client.busy.release()

    async def _send(self, client: _Client, writer: asyncio.StreamWriter) -> None:
        while True:
            while client.frames:
                writer.write(pack(client.frames.popleft()))
                await writer.drain()
            client.wake.clear()
            await client.wake.wait()


def _publish(suffix: str, payload: bytes, retain: bool) -> Publish:
    return Publish(id=0, suffix=suffix, payload=payload, qos=1, retain=retain, key=False)
