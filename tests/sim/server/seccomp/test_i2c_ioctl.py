from __future__ import annotations

import errno
import struct

import pytest

from sim.server.busproto import I2cMessage, Operation, Rdwr, Reply, Smbus
from sim.server.seccomp import i2c_ioctl
from sim.server.seccomp.i2c_ioctl import I2cFile
from tests.sim.server.seccomp.fakes import FakeMemory, FakeWorld, fails


def refused(
    code: int,
    command: int,
    arg: int,
    memory: FakeMemory,
    *,
    file: I2cFile | None = None,
    world: FakeWorld | None = None,
) -> None:
    with fails(code):
        (file or I2cFile()).ioctl(command, arg, memory, world or FakeWorld())


def smbus(memory: FakeMemory, read: int, command: int, size: int, data: bytes | None) -> int:
    pointer = 0 if data is None else memory.place(64, data.ljust(34, b"\xee"))
    return memory.place(0, struct.pack("<BBxxIQ", read, command, size, pointer))


def test_address_is_kept_and_checked() -> None:
    file = I2cFile()
    assert file.ioctl(i2c_ioctl.SLAVE, 0x48, FakeMemory(), FakeWorld()) == 0
    assert file.address == 0x48
    assert file.ioctl(i2c_ioctl.SLAVE_FORCE, 0x20, FakeMemory(), FakeWorld()) == 0
    assert file.address == 0x20
    refused(errno.EINVAL, i2c_ioctl.SLAVE, 0x80, FakeMemory(), file=file)


def test_functions_leave_out_block_transfers() -> None:
    memory = FakeMemory()
    I2cFile().ioctl(i2c_ioctl.FUNCS, memory.base, memory, FakeWorld())
    functions = int.from_bytes(memory.read(memory.base, 8), "little")
    assert functions & 0x1
    assert functions & 0x8  # PEC
    assert not functions & 0x03000000  # SMBus block data


def test_harmless_settings_and_unknown_ioctls() -> None:
    for command in (i2c_ioctl.RETRIES, i2c_ioctl.TIMEOUT, i2c_ioctl.TENBIT):
        assert I2cFile().ioctl(command, 0, FakeMemory(), FakeWorld()) == 0
    refused(errno.EINVAL, i2c_ioctl.TENBIT, 1, FakeMemory())
    refused(errno.ENOTTY, 0x0799, 0, FakeMemory())


@pytest.mark.parametrize(("size", "width"), [(1, 1), (2, 1), (3, 2), (4, 34), (8, 34)])
def test_a_read_writes_back_its_width_and_no_more(size: int, width: int) -> None:
    memory, world, file = FakeMemory(), FakeWorld(Reply(0, bytes(range(1, 35)))), I2cFile(0x48, pec=True)
    arg = smbus(memory, 1, 0x0F, size, b"\x02")
    assert file.ioctl(i2c_ioctl.SMBUS, arg, memory, world) == 0
    assert memory.block[64 : 64 + 35] == bytes(range(1, 35))[:width] + b"\xee" * (34 - width) + b"\0"
    (sent,) = world.seen
    assert isinstance(sent, Smbus)
    assert (sent.address, sent.read, sent.command, sent.size, sent.pec) == (0x48, True, 0x0F, size, True)


@pytest.mark.parametrize(("size", "data"), [(0, None), (1, None), (2, b"\x07"), (3, b"\x01\x02"), (8, b"\x02\x05\x06")])
def test_a_write_sends_and_changes_nothing(size: int, data: bytes | None) -> None:
    memory, world = FakeMemory(), FakeWorld(Reply(0, bytes(34)))
    arg = smbus(memory, 0, 0x10, size, data)
    before = bytes(memory.block)
    I2cFile(0x48).ioctl(i2c_ioctl.SMBUS, arg, memory, world)
    assert memory.block == before
    (sent,) = world.seen
    assert isinstance(sent, Smbus)
    assert sent.data.startswith(data or b"")


def test_smbus_arguments_are_checked() -> None:
    memory = FakeMemory()
    refused(errno.EINVAL, i2c_ioctl.SMBUS, smbus(memory, 1, 0, 9, b"\0"), memory)
    refused(errno.EINVAL, i2c_ioctl.SMBUS, smbus(memory, 2, 0, 2, b"\0"), memory)
    refused(errno.EINVAL, i2c_ioctl.SMBUS, smbus(memory, 1, 0, 2, None), memory)
    refused(errno.EFAULT, i2c_ioctl.SMBUS, 8, memory)


def test_pec_is_switched() -> None:
    file = I2cFile()
    file.ioctl(i2c_ioctl.PEC, 1, FakeMemory(), FakeWorld())
    assert file.pec
    file.ioctl(i2c_ioctl.PEC, 0, FakeMemory(), FakeWorld())
    assert not file.pec


def rdwr(memory: FakeMemory, *messages: tuple[int, int, int, int]) -> int:
    table = memory.place(64, b"".join(struct.pack("<HHHxxQ", *m) for m in messages))
    return memory.place(0, struct.pack("<QI", table, len(messages)))


def test_rdwr_scatters_what_was_read() -> None:
    memory, world = FakeMemory(), FakeWorld(Reply(3, b"abcde"))
    place = memory.place(512, b"\x0f")
    arg = rdwr(memory, (0x48, 0, 1, place), (0x48, 1, 2, place + 16), (0x49, 1, 3, place + 32))
    assert I2cFile().ioctl(i2c_ioctl.RDWR, arg, memory, world) == 3
    assert memory.read(place + 16, 2) + memory.read(place + 32, 3) == b"abcde"
    assert world.seen == [Rdwr((I2cMessage(0x48, 0, 1, b"\x0f"), I2cMessage(0x48, 1, 2), I2cMessage(0x49, 1, 3)))]


def test_rdwr_arguments_are_checked() -> None:
    memory = FakeMemory()
    refused(errno.EINVAL, i2c_ioctl.RDWR, rdwr(memory), memory)
    refused(errno.EINVAL, i2c_ioctl.RDWR, memory.place(0, struct.pack("<QI", memory.base, 43)), memory)
    refused(errno.EINVAL, i2c_ioctl.RDWR, rdwr(memory, (0x48, 1, 8193, memory.base)), memory)
    short = FakeWorld(Reply(1, b"a"))
    refused(errno.EIO, i2c_ioctl.RDWR, rdwr(memory, (0x48, 1, 2, memory.base)), memory, world=short)


def test_plain_read_and_write_use_the_address_set() -> None:
    seen: list[Operation] = []

    def send(operation: Operation) -> Reply:
        seen.append(operation)
        return Reply(1, b"xy")

    file = I2cFile(0x20)
    assert file.read(2, send) == b"xy"
    assert file.write(b"\x01\x02", send) == 2
    assert seen == [Rdwr((I2cMessage(0x20, 1, 2),)), Rdwr((I2cMessage(0x20, 0, 2, b"\x01\x02"),))]
