from __future__ import annotations

import errno

import pytest

from drivers.bus.serial import SerialIo
from drivers.errors import BusFault, Timeout
from tests.drivers.fakes import Clock, Serial, make_pool


def ask(io: SerialIo) -> bytes:
    io.write(b"?\n")
    return io.until(b"\n")


async def test_an_exchange_that_failed_is_flushed_before_the_next(clock: Clock) -> None:
    line = Serial(lambda request: b"")
    pool = make_pool(clock, serial=lambda path, baud: line)
    port = pool.serial("serial:/dev/x", "x", baudrate=9600)
    with pytest.raises(Timeout, match=r"serial:/dev/x: no complete reply within 0.2 s, got b''"):
        await port.exchange(ask, deadline_s=0.2)
    line.pending = b"late\n"
    line.answer = lambda request: b"right\n"
    assert await port.exchange(ask, deadline_s=0.2) == b"right\n"
    assert line.flushes == 1
    assert pool.counters()["serial:/dev/x"].resyncs == 1
    await port.close()
    assert line.closed


async def test_the_deadline_spans_all_reads(clock: Clock) -> None:
    def answer(request: bytes) -> bytes:
        clock.t += 0.3
        return b"abc"

    line = Serial(answer)
    port = make_pool(clock, serial=lambda path, baud: line).serial("serial:/dev/x", "x", baudrate=9600)

    def work(io: SerialIo) -> bytes:
        io.write(b"?")
        return io.exactly(1)

    with pytest.raises(Timeout, match=r"no complete reply within 0.2 s"):
        await port.exchange(work, deadline_s=0.2)

    def restarting(io: SerialIo) -> bytes:
        io.write(b"?")
        io.restart()
        return io.exactly(1)

    assert await port.exchange(restarting, deadline_s=0.2, steps=2) == b"a"


async def test_faults_of_the_line(clock: Clock) -> None:
    opened: list[Serial] = []

    def open_line(path: str, baud: int) -> Serial:
        opened.append(Serial(lambda request: b"x" * 5000))
        return opened[-1]

    port = make_pool(clock, serial=open_line).serial("serial:/dev/x", "x", baudrate=9600)
    with pytest.raises(BusFault, match="4096 bytes without a terminator"):
        await port.exchange(ask, deadline_s=1.0)
    opened[0].write = lambda b, /: 0  # type: ignore[method-assign]
    with pytest.raises(BusFault, match="0 of 2 bytes written"):
        await port.exchange(ask, deadline_s=1.0)

    def gone(b: bytes, /) -> int:
        raise OSError(errno.EIO, "device reports readiness to read but returned no data")

    opened[0].write = gone  # type: ignore[method-assign]
    with pytest.raises(BusFault, match="readiness"):
        await port.exchange(ask, deadline_s=1.0)
    assert opened[0].closed
    with pytest.raises(BusFault, match="4096"):
        await port.exchange(ask, deadline_s=1.0)
    assert len(opened) == 2

    def slow(b: bytes, /) -> int:
        raise TimeoutError

    opened[1].write = slow  # type: ignore[method-assign]
    with pytest.raises(Timeout, match="the line timed out"):
        await port.exchange(ask, deadline_s=1.0)
