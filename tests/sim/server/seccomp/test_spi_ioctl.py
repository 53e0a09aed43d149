from __future__ import annotations

import errno
import struct

import pytest

from sim.server.busproto import Reply, Spi, SpiTransfer
from sim.server.seccomp.spi_ioctl import BITS, LSB_FIRST, MODE, MODE32, SPEED, SpiFile
from tests.sim.server.seccomp.fakes import FakeMemory, FakeWorld, fails


def coded(direction: int, size: int, number: int) -> int:
    return direction << 30 | size << 16 | 0x6B00 | number


def set_value(file: SpiFile, number: int, value: int, size: int) -> None:
    memory = FakeMemory()
    memory.place(0, value.to_bytes(size, "little"))
    assert file.ioctl(coded(1, size, number), memory.base, memory, FakeWorld()) == 0


def get_value(file: SpiFile, number: int, size: int) -> int:
    memory = FakeMemory()
    assert file.ioctl(coded(2, size, number), memory.base, memory, FakeWorld()) == 0
    return int.from_bytes(memory.read(memory.base, size), "little")


@pytest.mark.parametrize(
    ("number", "size", "value"), [(MODE, 1, 1), (MODE32, 4, 3), (BITS, 1, 8), (SPEED, 4, 20_000_000), (LSB_FIRST, 1, 0)]
)
def test_settings_read_back(number: int, size: int, value: int) -> None:
    file = SpiFile()
    set_value(file, number, value, size)
    assert get_value(file, number, size) == value


@pytest.mark.parametrize(
    ("number", "size", "value"), [(MODE, 1, 4), (MODE32, 4, 0x100), (BITS, 1, 16), (SPEED, 4, 0), (LSB_FIRST, 1, 1)]
)
def test_settings_that_the_adapter_has_not(number: int, size: int, value: int) -> None:
    with fails(errno.EINVAL):
        set_value(SpiFile(), number, value, size)


def test_zero_bits_means_eight() -> None:
    file = SpiFile()
    set_value(file, BITS, 0, 1)
    assert get_value(file, BITS, 1) == 8


def message(memory: FakeMemory, *transfers: tuple[int, int, int, int, int, int, int]) -> tuple[int, int]:
    table = b"".join(struct.pack("<QQIIHBB4x", *t) for t in transfers)
    return coded(1, len(table), 0), memory.place(0, table)


def test_a_message_gathers_and_scatters() -> None:
    memory, world, file = FakeMemory(), FakeWorld(Reply(5, b"ABCDE")), SpiFile(mode=1, hz=1000)
    out = memory.place(512, b"xyz")
    command, arg = message(
        memory, (out, out + 64, 3, 0, 7, 0, 1), (0, out + 80, 1, 9, 0, 8, 0), (out, 0, 1, 0, 0, 0, 0)
    )
    assert file.ioctl(command, arg, memory, world) == 5
    assert (memory.read(out + 64, 3), memory.read(out + 80, 1)) == (b"ABC", b"D")
    assert world.seen == [
        Spi(1, (SpiTransfer(3, 1000, 7, 8, True, b"xyz"), SpiTransfer(1, 9), SpiTransfer(1, 1000, tx=b"x")))
    ]


@pytest.mark.parametrize(
    ("transfer", "reply", "code"),
    [
        ((0x1000, 0, 4097, 0, 0, 0, 0), Reply(0), errno.EMSGSIZE),
        ((0x1000, 0, 1, 0, 0, 16, 0), Reply(0), errno.EINVAL),
        ((1, 0, 1, 0, 0, 0, 0), Reply(0), errno.EFAULT),
        ((0x1000, 0, 2, 0, 0, 0, 0), Reply(1, b"a"), errno.EIO),
        ((0x1000, 0, 2, 0, 0, 0, 0), OSError(errno.EIO, ""), errno.EIO),
    ],
)
def test_what_a_message_cannot_do(transfer: tuple[int, ...], reply: Reply | OSError, code: int) -> None:
    memory = FakeMemory()
    command, arg = message(memory, transfer)  # type: ignore[arg-type]
    with fails(code):
        SpiFile().ioctl(command, arg, memory, FakeWorld(reply))


@pytest.mark.parametrize("command", [0x0703, coded(2, 1, 6), coded(2, 2, MODE)], ids=hex)
def test_not_an_ioctl_of_spidev(command: int) -> None:
    with fails(errno.ENOTTY):
        SpiFile().ioctl(command, 0x1000, FakeMemory(), FakeWorld())


def test_an_empty_message_is_refused() -> None:
    with fails(errno.EINVAL):
        SpiFile().ioctl(coded(1, 0, 0), 0x1000, FakeMemory(), FakeWorld())


def test_half_duplex() -> None:
    world = FakeWorld(Reply(2, b"hi"), Reply(3, b"..."))
    assert SpiFile().read(2, world) == b"hi"
    assert SpiFile().write(b"abc", world) == 3
    assert world.seen == [Spi(0, (SpiTransfer(2, 500_000),)), Spi(0, (SpiTransfer(3, 500_000, tx=b"abc"),))]
    for call in (lambda: SpiFile().read(4097, world), lambda: SpiFile().write(bytes(4097), world)):
        with fails(errno.EMSGSIZE):
            call()
