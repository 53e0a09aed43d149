"""The real openers: each library is met as far as a machine without such a bus allows."""

from __future__ import annotations

import os
import pty
import socket
import time
import tty

import pytest

from drivers.bus.pool import BusPool
from drivers.bus.real import real_libraries
from drivers.bus.serial import SerialIo
from drivers.errors import BusFault


@pytest.fixture
def pool() -> BusPool:
    return BusPool(real_libraries(), time.monotonic)


async def test_absent_i2c_and_spi_buses_are_bus_faults(pool: BusPool) -> None:
    with pytest.raises(BusFault, match="i2c:250"):
        await pool.i2c("i2c:250:0x48", "x").read(0, 1)
    with pytest.raises(BusFault, match=r"spi:250\.0"):
        await pool.spi("spi:250.0", "y", mode=0).transfer(b"\0")
    await pool.close()


async def test_serial_over_a_pseudo_terminal(pool: BusPool) -> None:
    master, slave = pty.openpty()
    tty.setraw(slave)
    line = pool.serial(f"serial:{os.ttyname(slave)}", "tec", baudrate=57600)

    def work(io: SerialIo) -> bytes:
        io.flush_input()
        io.write(b"?\r")
        assert os.read(master, 10) == b"?\r"
        os.write(master, b"!ok\r")
        return io.until(b"\r")

    assert await line.exchange(work, deadline_s=5.0) == b"!ok\r"
    await pool.close()
    os.close(master)
    os.close(slave)


async def test_tcp(pool: BusPool) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        tcp = pool.tcp(f"tcp:127.0.0.1:{listener.getsockname()[1]}", "x")
        await tcp.run(lambda sock: sock.sendall(b"x"), deadline_s=5.0)
        far, _ = listener.accept()
        assert far.recv(10) == b"x"
        far.close()
    await pool.close()
