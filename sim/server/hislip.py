"""HiSLIP 1.0 server (IVI-6.1) in synchronised mode over one message-based instrument.

Each client has a synchronous channel for data and an asynchronous one for locks, status and device clear. Data are
cut by message headers, so binary blocks need no escaping.
"""

from __future__ import annotations

import asyncio
import struct
from dataclasses import dataclass, field
from enum import IntEnum

from sim.server.hislip_locks import Locks
from sim.server.listening import Listening
from sim.server.scpi import ScpiTwin, terminated

HEADER = struct.Struct("!2sBBIQ")
"""Prologue, message type, control code, message parameter, payload length."""
VERSION = 0x0100
CHUNK = 1 << 20
"""Payload of the data messages sent, bytes: what clients are tuned to read at once."""
MAX_MESSAGE = 1 << 26
"""Largest payload taken in one message, and largest program message, bytes."""
VENDOR = 0x514D  # "QM"


class Type(IntEnum):
    """Message types (IVI-6.1, table 4)."""

    INITIALIZE = 0
    INITIALIZE_RESPONSE = 1
    FATAL_ERROR = 2
    ERROR = 3
    ASYNC_LOCK = 4
    ASYNC_LOCK_RESPONSE = 5
    DATA = 6
    DATA_END = 7
    DEVICE_CLEAR_COMPLETE = 8
    DEVICE_CLEAR_ACKNOWLEDGE = 9
    ASYNC_REMOTE_LOCAL_CONTROL = 10
    ASYNC_REMOTE_LOCAL_RESPONSE = 11
    TRIGGER = 12
    ASYNC_MAX_MSG_SIZE = 15
    ASYNC_MAX_MSG_SIZE_RESPONSE = 16
    ASYNC_INITIALIZE = 17
    ASYNC_INITIALIZE_RESPONSE = 18
    ASYNC_DEVICE_CLEAR = 19
    ASYNC_STATUS_QUERY = 21
    ASYNC_STATUS_RESPONSE = 22
    ASYNC_DEVICE_CLEAR_ACKNOWLEDGE = 23
    ASYNC_LOCK_INFO = 24
    ASYNC_LOCK_INFO_RESPONSE = 25


POORLY_FORMED_HEADER, NOT_BOTH_CHANNELS, INVALID_INITIALIZATION = 1, 2, 3
UNRECOGNIZED_TYPE, TOO_LARGE = 1, 4


class FatalError(Exception):
    """The connection is of no more use; `code` and text go to the client before it is closed."""

    def __init__(self, code: int, text: str) -> None:
        super().__init__(text)
        self.code = code


@dataclass(frozen=True)
class Message:
    type: int
    control: int
    parameter: int
    payload: bytes


@dataclass
class Session:
    """One client. `largest`: bytes that it takes in one message, header included."""

    id: int
    sync: asyncio.StreamWriter
    other: asyncio.StreamWriter | None = None
    largest: int = CHUNK
    program: bytearray = field(default_factory=bytearray)


def pack(kind: Type, control: int = 0, parameter: int = 0, payload: bytes = b"") -> bytes:
    return HEADER.pack(b"HS", kind, control, parameter, len(payload)) + payload


async def receive(reader: asyncio.StreamReader) -> Message:
    """Raises FatalError for a broken or oversized message, IncompleteReadError when the client hangs up."""
    prologue, kind, control, parameter, length = HEADER.unpack(await reader.readexactly(HEADER.size))
    if prologue != b"HS":
        raise FatalError(POORLY_FORMED_HEADER, "no HiSLIP header")
    if length > MAX_MESSAGE:
        raise FatalError(0, f"message of {length} bytes; at most {MAX_MESSAGE} are taken")
    return Message(kind, control, parameter, await reader.readexactly(length) if length else b"")


class HislipServer:
    """Serves one instrument as hislip0 on one port; clients' messages are executed one after another."""

    def __init__(self, twin: ScpiTwin, *, speed: float = 1.0) -> None:
        """`speed`: world seconds a real second."""
        self._twin = twin
        self._speed = speed
        self._listening = Listening(self._serve, limit=4 * CHUNK)
        self._sessions: dict[int, Session] = {}
        self._last_id = 0
        self._locks = Locks()
        self._released = asyncio.Event()

    async def start(self, host: str = "127.0.0.1", port: int = 0) -> int:
        """Returns the port. Raises OSError."""
        return await self._listening.start(host, port)

    async def close(self) -> None:
        await self._listening.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if not self._twin.present:
            writer.transport.abort()
            return
        try:
            first = await receive(reader)
            if first.type == Type.INITIALIZE:
                await self._serve_sync(first, reader, writer)
            elif first.type == Type.ASYNC_INITIALIZE:
                await self._serve_async(first, reader, writer)
            else:
                raise FatalError(INVALID_INITIALIZATION, "Initialize expected")
        except FatalError as e:
            writer.write(pack(Type.FATAL_ERROR, e.code, 0, str(e).encode()))
            await writer.drain()

    async def _serve_sync(self, first: Message, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if first.payload not in (b"", b"hislip0"):
            raise FatalError(INVALID_INITIALIZATION, "no such sub-address")
        self._last_id = self._last_id % 0xFFFF + 1
        session = self._sessions[self._last_id] = Session(self._last_id, writer)
        try:
            writer.write(pack(Type.INITIALIZE_RESPONSE, 0, VERSION << 16 | session.id))
            while True:
                message = await receive(reader)
                if session.other is None:
                    raise FatalError(NOT_BOTH_CHANNELS, "the asynchronous channel is missing")
                await self._on_sync(session, message)
        finally:
            self._end(session, session.other)

    async def _on_sync(self, session: Session, message: Message) -> None:
        match message.type:
            case Type.DATA | Type.DATA_END:
                if len(session.program) + len(message.payload) > MAX_MESSAGE:
                    session.program.clear()
                    session.sync.write(pack(Type.ERROR, TOO_LARGE, 0, b"program message too large"))
                    return
                session.program += message.payload
                if message.type == Type.DATA_END:
                    program = bytes(session.program)
                    session.program.clear()
                    await self._execute(session, program, message.parameter)
            case Type.TRIGGER:
                await self._execute(session, b"*TRG", message.parameter)
            case Type.DEVICE_CLEAR_COMPLETE:
                session.program.clear()
                session.sync.write(pack(Type.DEVICE_CLEAR_ACKNOWLEDGE))
            case Type.FATAL_ERROR | Type.ERROR:
                session.program.clear()
            case _:
                session.sync.write(pack(Type.ERROR, UNRECOGNIZED_TYPE, 0, b"unrecognized message type"))

    async def _execute(self, session: Session, program: bytes, message_id: int) -> None:
        while self._locks.shuts_out(session.id):
            self._released.clear()
            await self._released.wait()
        if not self._twin.present:
            raise ConnectionResetError("unplugged")
        response = self._twin.execute(program)
        if self._twin.late_s:
            await asyncio.sleep(self._twin.late_s / self._speed)
        if response is not None:
            await self._respond(session, terminated(response), message_id)

    async def _respond(self, session: Session, response: bytes, message_id: int) -> None:
        """Data messages that carry the id of the request's last message (IVI-6.1, 3.1.2)."""
        step = max(1, min(CHUNK, session.largest - HEADER.size))
        view, writer = memoryview(response), session.sync
        for at in range(0, len(response), step):
            piece = view[at : at + step]
            kind = Type.DATA_END if at + step >= len(response) else Type.DATA
            writer.write(HEADER.pack(b"HS", kind, 0, message_id, len(piece)))
            writer.write(piece)
            await writer.drain()

    async def _serve_async(self, first: Message, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        session = self._sessions.get(first.parameter)
        if session is None or session.other is not None:
            raise FatalError(INVALID_INITIALIZATION, "no such session")
        session.other = writer
        try:
            writer.write(pack(Type.ASYNC_INITIALIZE_RESPONSE, 0, VENDOR))
            while True:
                writer.write(await self._on_async(session, await receive(reader)))
                await writer.drain()
        finally:
            self._end(session, session.sync)

    async def _on_async(self, session: Session, message: Message) -> bytes:
        match message.type:
            case Type.ASYNC_MAX_MSG_SIZE if len(message.payload) == 8:
                session.largest = max(HEADER.size + 1, int.from_bytes(message.payload, "big"))
                return pack(Type.ASYNC_MAX_MSG_SIZE_RESPONSE, 0, 0, MAX_MESSAGE.to_bytes(8, "big"))
            case Type.ASYNC_LOCK:
                return pack(Type.ASYNC_LOCK_RESPONSE, await self._lock(session, message))
            case Type.ASYNC_LOCK_INFO:
                return pack(Type.ASYNC_LOCK_INFO_RESPONSE, self._locks.is_exclusive, self._locks.holders)
            case Type.ASYNC_REMOTE_LOCAL_CONTROL:
                return pack(Type.ASYNC_REMOTE_LOCAL_RESPONSE)
            case Type.ASYNC_DEVICE_CLEAR:
                session.program.clear()
                return pack(Type.ASYNC_DEVICE_CLEAR_ACKNOWLEDGE)
            case Type.ASYNC_STATUS_QUERY:
                return pack(Type.ASYNC_STATUS_RESPONSE)
            case _:
                return pack(Type.ERROR, UNRECOGNIZED_TYPE, 0, b"unrecognized message type")

    async def _lock(self, session: Session, message: Message) -> int:
        """Control code of the response; a request waits for up to its time-out (the message parameter, ms)."""
        if message.control == 0:
            code = self._locks.release(session.id)
            self._released.set()
            return code
        try:
            async with asyncio.timeout(message.parameter / 1e3):
                while not (code := self._locks.request(session.id, message.payload)):
                    self._released.clear()
                    await self._released.wait()
        except TimeoutError:
            return 0
        return code

    def _end(self, session: Session, remaining: asyncio.StreamWriter | None) -> None:
        """One channel ended: the session is over, and so is the remaining one."""
        self._sessions.pop(session.id, None)
        self._locks.forget(session.id)
        self._released.set()
        if remaining is not None:
            remaining.close()
