"""The VISA bus over a stand-in, and over the real pyvisa-py with a HiSLIP server in the test."""

from __future__ import annotations

import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pyvisa import errors as visa_errors
from pyvisa.constants import StatusCode

from drivers.bus.pool import BusPool
from drivers.bus.real import real_libraries
from drivers.bus.visa import definite_block, make_block
from drivers.errors import BusFault, Refused, Timeout
from tests.drivers.fakes import Clock, Visa, make_pool

HEADER = struct.Struct("!2sBBIQ")


@given(st.binary(max_size=3000))
def test_blocks_round_trip(data: bytes) -> None:
    assert definite_block(make_block(data), "x") == data
    assert definite_block(make_block(data) + b"\n", "x") == data


@given(st.binary(min_size=1, max_size=100), st.data())
def test_a_truncated_or_overlong_block_is_never_taken_for_one(data: bytes, draw: st.DataObject) -> None:
    block = make_block(data)
    cut = draw.draw(st.integers(0, len(block) - 1))
    with pytest.raises(BusFault):
        definite_block(block[:cut], "x")
    with pytest.raises(BusFault):
        definite_block(block + b"more", "x")


@pytest.mark.parametrize("text", [b"", b"12", b"#012", b"#2x1ab", b"#9"])
def test_broken_block_headers(text: bytes) -> None:
    with pytest.raises(BusFault, match="block"):
        definite_block(text, "x")


async def test_any_failure_opens_a_new_session(clock: Clock) -> None:
    sessions: list[Visa] = []

    def open_session(resource: str) -> Visa:
        sessions.append(Visa(lambda message: message))
        return sessions[-1]

    visa = make_pool(clock, visa=open_session).visa("visa:TCPIP::h::hislip0::INSTR", "x")
    assert await visa.run(lambda io: io.query(b"a"), deadline_s=0.5) == b"a"
    assert sessions[0].timeout == 500.0
    for error, kind in (
        (visa_errors.VisaIOError(StatusCode.error_timeout), Timeout),
        (visa_errors.VisaIOError(StatusCode.error_connection_lost), BusFault),
        (RuntimeError("Connection was dropped by server."), BusFault),
        (AssertionError(), BusFault),
        (TimeoutError(), Timeout),
        (BusFault("broken block"), BusFault),
    ):

        def failing(message: bytes, error: Exception = error) -> bytes:
            raise error

        sessions[-1].execute = failing
        with pytest.raises(kind):
            await visa.run(lambda io: io.query(b"a"))
        assert sessions[-1].closed
        assert await visa.run(lambda io: io.query(b"b")) == b"b"
    before = len(sessions)

    def refused(message: bytes) -> bytes:
        raise Refused("no")

    sessions[-1].execute = refused
    with pytest.raises(Refused):
        await visa.run(lambda io: io.query(b"a"))
    assert len(sessions) == before
    await visa.close()


class HislipServer:
    """Enough of HiSLIP 1.0 for pyvisa-py; `answer` maps a message to a reply or None. Replies go out in pieces."""

    def __init__(self, answer: Callable[[bytes], bytes | None], piece: int) -> None:
        self._answer = answer
        self._piece = piece
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self._threads = [threading.Thread(target=self._accept, daemon=True)]
        self._threads[0].start()
        self._sockets: list[socket.socket] = []

    def close(self) -> None:
        for sock in (self._listener, *self._sockets):
            try:
                sock.shutdown(socket.SHUT_RDWR)
            except OSError:
                continue
            finally:
                sock.close()
        for thread in self._threads:
            thread.join()

    def _accept(self) -> None:
        while True:
            try:
                sock, _ = self._listener.accept()
            except OSError:
                return
            self._sockets.append(sock)
            thread = threading.Thread(target=self._serve, args=(sock,), daemon=True)
            self._threads.append(thread)
            thread.start()

    def _serve(self, sock: socket.socket) -> None:
        with sock.makefile("rb") as stream:
            while True:
                try:
                    head = stream.read(HEADER.size)
                except OSError:
                    return
                if len(head) < HEADER.size:
                    return
                _, kind, _, parameter, length = HEADER.unpack(head)
                payload = stream.read(length)
                for message in self._replies(kind, parameter, payload):
                    sock.sendall(message)

    def _replies(self, kind: int, parameter: int, payload: bytes) -> Iterator[bytes]:
        def message(kind: int, parameter: int = 0, payload: bytes = b"") -> bytes:
            return HEADER.pack(b"HS", kind, 0, parameter, len(payload)) + payload

        if kind == 0:
            yield message(1, 0x0100 << 16 | 1)
        elif kind == 17:
            yield message(18)
        elif kind == 15:
            yield message(16, 0, struct.pack("!Q", 1 << 24))
        elif kind == 7 and (reply := self._answer(payload)) is not None:
            while len(reply) > self._piece:
                yield message(6, parameter, reply[: self._piece])
                reply = reply[self._piece :]
            yield message(7, parameter, reply)


@pytest.mark.parametrize(
    ("size", "piece"), [(2 << 20, 1 << 18), (2 << 20, 1 << 24), ((2 << 20) - 9, 1 << 20), (5, 1 << 20)]
)
async def test_a_large_block_is_one_message_through_the_real_library(size: int, piece: int) -> None:
    data = bytes(range(256)) * (size // 256 + 1)
    data = data[:size]  # holds newlines
    seen: list[bytes] = []

    def answer(message: bytes) -> bytes | None:
        seen.append(message)
        return None if message == b"quiet\n" else make_block(data) + (b"\n" if message == b"line\n" else b"")

    server = HislipServer(answer, piece)
    pool = BusPool(real_libraries(), time.monotonic)
    visa = pool.visa(f"visa:TCPIP::127.0.0.1::hislip0,{server.port}::INSTR", "x")
    for message in (b"block\n", b"line\n"):
        raw = await visa.run(lambda io, m=message: io.query(m), deadline_s=10.0)  # type: ignore[misc]
        assert definite_block(raw, "x") == data
    with pytest.raises(Timeout, match="no reply in time"):
        await visa.run(lambda io: io.query(b"quiet\n"), deadline_s=0.05)
    assert definite_block(await visa.run(lambda io: io.query(b"again\n"), deadline_s=10.0), "x") == data
    await pool.close()
    server.close()


async def test_a_refused_port_is_a_bus_fault() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    pool = BusPool(real_libraries(), time.monotonic)
    visa = pool.visa(f"visa:TCPIP::127.0.0.1::hislip0,{port}::INSTR", "x")
    with pytest.raises(BusFault, match=r"visa:TCPIP.*Connection refused"):
        await visa.run(lambda io: io.query(b"*IDN?\n"))
    await pool.close()
