from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import serial
from hypothesis import given
from hypothesis import strategies as st

from sim.clock import ManualClock, RealClock, SimClock
from sim.server.pty import MAX_PENDING, PtyEndpoint, Wire
from tests.sim.server.twins import Echo


def test_a_reply_waits_for_the_request_and_takes_its_time() -> None:
    wire = Wire(9600)
    wire.received(1.0, 4)
    wire.send(1.0, b"abcd")
    assert wire.due == pytest.approx(1.0 + 80 / 9600)
    assert wire.take(1.008) == b""
    assert wire.take(1.009) == b"abcd"
    assert wire.due is None


@given(st.lists(st.tuples(st.floats(0, 1), st.binary(min_size=1, max_size=9)), max_size=9))
def test_a_line_keeps_order_and_speed(sends: list[tuple[float, bytes]]) -> None:
    wire, now = Wire(57600), 0.0
    for wait, data in sends:
        now += wait
        wire.send(now, data)
    total = sum(len(data) for _, data in sends)
    assert wire.take(now + 10 * total / 57600 + 1e-9) == b"".join(data for _, data in sends)


def test_without_a_speed_nothing_waits() -> None:
    wire = Wire(None)
    wire.received(0.0, 1000)
    wire.send(0.0, b"x")
    assert wire.take(0.0) == b"x"


@contextlib.contextmanager
def endpoint(twin: Echo, link: Path, clock: SimClock, **how: float) -> Iterator[PtyEndpoint]:
    made = PtyEndpoint(twin, link, clock, **how)  # type: ignore[arg-type]
    made.start()
    try:
        yield made
    finally:
        made.close()


async def ask(path: Path, data: bytes, timeout: float = 3.0) -> bytes:
    def work() -> bytes:
        with serial.Serial(str(path), 57600, timeout=timeout, exclusive=True) as line:
            line.write(data)
            got: bytes = line.read(len(data))
            return got

    return await asyncio.to_thread(work)


async def test_every_byte_passes_and_the_line_can_be_opened_again(tmp_path: Path) -> None:
    everything = bytes(range(256))
    with endpoint(Echo(), tmp_path / "tec", ManualClock()):
        assert await ask(tmp_path / "tec", everything) == everything
        assert await ask(tmp_path / "tec", everything) == everything


async def test_a_delayed_reply_comes_by_itself_in_scaled_time(tmp_path: Path) -> None:
    clock = RealClock(100.0)
    with endpoint(Echo(clock, delay_s=2.0), tmp_path / "tec", clock, speed=100.0, baud=9600):
        begun = clock.now()
        assert await ask(tmp_path / "tec", b"late") == b"late"
        assert clock.now() - begun >= 2.0


async def test_an_old_link_is_replaced(tmp_path: Path) -> None:
    link = tmp_path / "tec"
    link.symlink_to("/dev/pts/nowhere")
    (tmp_path / "tec.new").write_text("left by a crash")
    with endpoint(Echo(), link, ManualClock()):
        assert await ask(link, b"x") == b"x"


async def test_unplugging_hangs_up_and_plugging_in_brings_another_pty(tmp_path: Path) -> None:
    twin, link = Echo(), tmp_path / "tec"
    with endpoint(twin, link, ManualClock()) as line:
        user = os.open(link, os.O_RDWR | os.O_NOCTTY)
        twin.present = False
        line.poll()
        line.poll()
        assert os.read(user, 1) == b""
        os.close(user)
        assert not link.exists()
        twin.present = True
        line.poll()
        assert await ask(link, b"x") == b"x"


async def test_a_reader_that_does_not_read_loses_bytes_and_blocks_nothing(tmp_path: Path) -> None:
    twin, clock = Echo(), ManualClock()
    with endpoint(twin, tmp_path / "tec", clock) as line:
        user = os.open(tmp_path / "tec", os.O_RDWR | os.O_NOCTTY | os.O_NONBLOCK)
        twin.feed(bytes(2 * MAX_PENDING))
        line.poll()
        total = 0
        loop = asyncio.get_running_loop()
        while total < MAX_PENDING:
            readable = loop.create_future()
            loop.add_reader(user, lambda f=readable: f.done() or f.set_result(None))
            await asyncio.wait_for(readable, 5.0)
            total += len(os.read(user, 65536))
        loop.remove_reader(user)
        os.close(user)
    assert total == MAX_PENDING
