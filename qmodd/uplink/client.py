"""Uplink's side of the door: connects to core's socket, takes frames, hands frames in."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from qmodd.door_frames import FROM_CORE, Bye, Deframer, Frame, Hello, Inbound, ProtocolError, pack
from qmodd.messages import MAX_REQUEST_BYTES, Alive
from qmodd.uplink.mqtt_link import Arrived


class DoorClosed(Exception):
    """Core is not there (any more); the message says why."""


class DoorSession:
    """One connection to core. `hello` and `alive` are what core said of itself."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        self._deframer = Deframer(FROM_CORE)
        self.module = ""
        self.alive: Alive | None = None
        self.on_purpose = False

    async def send(self, frame: Frame) -> None:
        """Waits while core is slow. Raises DoorClosed."""
        if self._writer.is_closing():
            raise DoorClosed("core closed the door")
        try:
            self._writer.write(pack(frame))
            await self._writer.drain()
        except OSError as e:
            raise DoorClosed(f"the door broke: {e}") from None

    async def frames(self) -> AsyncGenerator[Frame, None]:
        """Frames after the greeting. Raises DoorClosed at the end, also when core does not keep to the schema."""
        try:
            while data := await self._reader.read(65_536):
                for frame in self._deframer.feed(data):
                    if isinstance(frame, Bye):
                        self.on_purpose = True
                    elif isinstance(frame, Hello):
                        self.module, self.alive = frame.module, Alive.model_validate_json(frame.alive)
                    yield frame
        except (OSError, ProtocolError, ValueError) as e:
            raise DoorClosed(f"the door broke: {e}") from None
        raise DoorClosed("core stopped" if self.on_purpose else "core is gone")


@asynccontextmanager
async def open_door(path: Path) -> AsyncIterator[DoorSession]:
    """Connect and greet. Raises DoorClosed."""
    try:
        reader, writer = await asyncio.open_unix_connection(str(path))
    except OSError as e:
        raise DoorClosed(f"{path}: {e.strerror or e}") from None
    session = DoorSession(reader, writer)
    try:
        await session.send(Hello())
        yield session
    finally:
        writer.close()


def inbound(message: Arrived) -> Inbound:
    """For core. Of what is too large one byte too many is enough for it to refuse, and to write that down."""
    fits = message.correlation is None or len(message.correlation) <= 1024
    return Inbound(
        topic=message.topic[:256],
        payload=message.payload[: MAX_REQUEST_BYTES + 1],
        retained=message.retained,
        duplicate=message.duplicate,
        response_topic=message.response_topic[:256] if message.response_topic is not None else None,
        correlation=message.correlation if fits else None,
    )
