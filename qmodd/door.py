"""Core's side of the door on a Unix socket of mode 0600, or 0660 where it is shared; what passes is decided in
`qmodd.door_core`."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
from pathlib import Path

from qmodd.clock import Clock
from qmodd.door_core import AnswerSender, DoorCore, OnKeyAck, OnRequest, Report
from qmodd.door_frames import FROM_UPLINK, Bye, Deframer, ProtocolError, pack
from qmodd.messages import Alive
from qmodd.outbox import Outbox

__all__ = ["AnswerSender", "Door", "DoorCore"]


class Door(DoorCore):
    """The door on a Unix socket: `async with asyncio.TaskGroup(): create_task(door.run())`.

    `shared`: the socket's group may use it as well as this user.
    """

    def __init__(
        self,
        path: Path,
        outbox: Outbox,
        clock: Clock,
        on_request: OnRequest,
        on_key_ack: OnKeyAck,
        *,
        alive: Alive,
        module: str,
        report: Report = lambda _name, _why: None,
        shared: bool = False,
    ) -> None:
        self.shared = shared
        super().__init__(outbox, clock, alive, module, on_request, on_key_ack, report)
        self.path = path
        self._writers: dict[int, asyncio.StreamWriter] = {}

    async def run(self) -> None:
        """Serve until cancelled; then say goodbye, so that `alive` tells of a stop on purpose."""
        listening = listen(self.path, self.shared)
        inode = self.path.stat().st_ino
        async with asyncio.TaskGroup() as group:

            def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
                group.create_task(self._connection(reader, writer), name="door connection")

            server = await asyncio.start_unix_server(connected, sock=listening)
            try:
                await self.serve_requests()
            finally:
                server.close()
                self._farewell()
                self._remove(inode)

    def _remove(self, inode: int) -> None:
        """Its own socket only: a successor may have put its own there already."""
        with contextlib.suppress(FileNotFoundError):
            if self.path.stat().st_ino == inode:
                self.path.unlink()

    def _farewell(self) -> None:
        for writer in self._writers.values():
            if not writer.is_closing():
                writer.write(pack(Bye()))

    async def _connection(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for older in self._writers.values():
            older.close()
        link = self.attach()
        self._writers[link] = writer
        why = "uplink closed the connection"
        try:
            async with asyncio.TaskGroup() as group:
                sender = group.create_task(self._send(link, writer), name="door sender")
                await self._read(link, reader)
                sender.cancel()
        except* ProtocolError as e:
            why = f"dropped: {e.exceptions[0]}"
            self.report("uplink.refused", why)
        except* OSError as e:
            why = f"connection broken: {e.exceptions[0]}"
        finally:
            self.detach(link, why)
            del self._writers[link]
            writer.close()

    async def _read(self, link: int, reader: asyncio.StreamReader) -> None:
        deframer = Deframer(FROM_UPLINK)
        while data := await reader.read(65_536):
            for count, frame in enumerate(deframer.feed(data)):
                self.feed(link, frame)
                if count % 64 == 63:
                    await asyncio.sleep(0)  # a flood of small frames must not hold up the control loops

    async def _send(self, link: int, writer: asyncio.StreamWriter) -> None:
        while True:
            writer.write(pack(await self.next_frame(link)))
            await writer.drain()


def listen(path: Path, shared: bool = False) -> socket.socket:
    """Bound with mode 0600 from the start: there is no moment in which others may connect. `shared`: its group may from
    then on, which a directory of mode 2750 hands down to it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.unlink(missing_ok=True)
    listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    before = os.umask(0o177)
    try:
        listening.bind(str(path))
    finally:
        os.umask(before)
    listening.setblocking(False)
    if shared:
        os.chmod(path, 0o660)
    return listening
