from __future__ import annotations

import errno

import pytest

from drivers.bus.address import AddressError
from drivers.errors import BusFault, Refused, Timeout
from tests.drivers.fakes import Clock, Registers, Smbus, Spi, make_pool


async def test_i2c_reads_retry_writes_do_not_unless_told(clock: Clock) -> None:
    bus = Smbus({0x48: Registers({0: b"\x0c\x80"})})
    pool = make_pool(clock, i2c=lambda n: bus)
    device = pool.i2c("i2c:1:0x48", "t")
    bus.fail = [OSError(errno.EREMOTEIO, "nack")] * 2
    assert await device.read(0, 2) == b"\x0c\x80"
    assert pool.counters()["i2c:1"].retries == 2
    bus.fail = [OSError(errno.ENXIO, "nack")]
    with pytest.raises(BusFault, match=r"i2c:1: no acknowledge \(0x48\)"):
        await device.write(1, b"\x02\x20")
    bus.fail = [OSError(errno.ENXIO, "nack")]
    await device.write(1, b"\x02\x20", harmless=True)
    assert not bus.closed


async def test_i2c_reopens_after_an_io_error_and_names_a_timeout(clock: Clock) -> None:
    opened: list[Smbus] = []

    def open_bus(number: int) -> Smbus:
        opened.append(Smbus({0x20: Registers({0: b"\x01"})}))
        return opened[-1]

    pool = make_pool(clock, i2c=open_bus)
    device = pool.i2c("i2c:2:0x20", "io")
    assert await device.read(0, 1) == b"\x01"
    opened[0].fail = [OSError(errno.EIO, "Input/output error")]
    assert await device.read(0, 1) == b"\x01"  # retried on a new handle
    assert opened[0].closed
    assert len(opened) == 2
    assert pool.counters()["i2c:2"].resyncs == 1
    opened[1].fail = [OSError(errno.ETIMEDOUT, "Connection timed out")]
    with pytest.raises(Timeout, match="i2c:2: the bus timed out"):
        await device.read(0, 1, harmless=False)
    opened.clear()
    missing = make_pool(clock).i2c("i2c:3:0x20", "io")
    with pytest.raises(BusFault, match="no bus at"):
        await missing.read(0, 1)


class PmbusChip:
    """Answers the 12 V read of the reference with its packet error code."""

    def __init__(self) -> None:
        self.answer = bytes.fromhex("00d3f6")
        self.written: list[bytes] = []

    def write(self, data: bytes) -> None:
        self.written.append(data)

    def read(self, length: int) -> bytes:
        return self.answer[:length]


async def test_packet_error_code(clock: Clock) -> None:
    chip = PmbusChip()
    pool = make_pool(clock, i2c=lambda n: Smbus({0x58: chip}))
    device = pool.i2c("i2c:1:0x58", "psu", pec=True)
    assert await device.read(0x88, 2) == b"\x00\xd3"
    await device.write(0x88, b"\x00\xd3")
    assert chip.written[-1][:3] == b"\x88\x00\xd3"
    assert len(chip.written[-1]) == 4
    chip.answer = bytes.fromhex("01d3f6")
    with pytest.raises(BusFault, match="wrong packet error code in 01d3f6"):
        await device.read(0x88, 2)


async def test_pool_shares_adapters_but_no_address(clock: Clock) -> None:
    pool = make_pool(clock, i2c=lambda n: Smbus({}))
    a, b = pool.i2c("i2c:1:0x48", "a"), pool.i2c("i2c:1:0x40", "b")
    assert a.bus is b.bus
    with pytest.raises(AddressError, match="c: address i2c:1:0x48 is already taken by a"):
        pool.i2c("i2c:1:0x48", "c")
    with pytest.raises(AddressError, match="another kind of bus"):
        pool.spi("i2c:1:0x49", "d", mode=0)
    assert pool.hung() == []
    await pool.close()


async def test_spi_sets_mode_checks_inside_the_retry_and_reopens(clock: Clock) -> None:
    opened: list[Spi] = []
    answers = [b"\x00", b"\x01"]

    def open_spi(bus: int, select: int) -> Spi:
        assert (bus, select) == (1, 0)
        opened.append(Spi(lambda frame: answers.pop(0)))
        return opened[-1]

    pool = make_pool(clock, spi=open_spi)
    spi = pool.spi("spi:1.0", "adc", mode=1, max_hz=5)

    def check(got: list[bytes]) -> None:
        if got != [b"\x01"]:
            raise BusFault("wrong answer")

    assert await spi.transfer(b"\xaa", harmless=True, check=check) == [b"\x01"]
    assert (opened[0].mode, opened[0].max_speed_hz) == (1, 5)
    answers[:] = [b"\x00\x00"]
    with pytest.raises(BusFault, match="2 bytes came back for 1"):
        await spi.transfer(b"\xaa")

    def broken(frame: bytes) -> bytes:
        raise OSError(errno.EIO, "Input/output error")

    opened[0].transfer = broken
    answers[:] = [b"\x07"]
    with pytest.raises(BusFault, match=r"spi:1.0"):
        await spi.transfer(b"\xaa")
    assert opened[0].closed
    assert await spi.transfer(b"\xaa") == [b"\x07"]

    def slow(frame: bytes) -> bytes:
        raise TimeoutError

    opened[1].transfer = slow
    with pytest.raises(Timeout, match=r"spi:1.0"):
        await spi.transfer(b"\xaa")
    await pool.close()


async def test_a_handle_that_fails_to_close_is_forgotten(clock: Clock) -> None:
    def refuse() -> None:
        raise OSError(errno.EBADF, "Bad file descriptor")

    spi = Spi(lambda frame: frame)
    spi.close = refuse  # type: ignore[method-assign]
    pool = make_pool(clock, spi=lambda b, s: spi)
    bus = pool.spi("spi:0.0", "x", mode=0)
    await bus.transfer(b"1")
    await bus.close()
    assert pool.counters()["spi:0.0"].errors == 1


async def test_refusals_keep_the_handle(clock: Clock) -> None:
    spi = Spi(lambda frame: frame)
    bus = make_pool(clock, spi=lambda b, s: spi).spi("spi:0.0", "x", mode=0)

    def no(answers: list[bytes]) -> None:
        raise Refused("no")

    with pytest.raises(Refused):
        await bus.transfer(b"1", check=no)
    assert not spi.closed
