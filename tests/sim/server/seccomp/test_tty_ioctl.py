from __future__ import annotations

import errno
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sim.server.seccomp.tty_ioctl import TCGETS, TCGETS2, TCSETS, TCSETS2, TtyLine, framing, with_framing
from tests.sim.server.seccomp.fakes import FakeMemory, FakePty, fails

PARENB, PARODD, CS7, CS8 = 0o400, 0o1000, 0o40, 0o60


def termios(cflag: int, size: int = 36) -> bytes:
    return struct.pack("<4I", 1, 2, cflag, 4).ljust(size, b"\x07")


def call(line: TtyLine, command: int, memory: FakeMemory, pty: FakePty | None = None) -> int | None:
    return line.ioctl(command, memory.base, memory, pty or FakePty())


@pytest.mark.parametrize("command", [0x5402, 0x5403, 0x5404])
def test_parity_and_seven_bits_read_back_while_the_pty_has_neither(command: int) -> None:
    line, memory, pty = TtyLine(), FakeMemory(), FakePty()
    wanted = termios(PARENB | PARODD | CS7 | 0o15)
    memory.place(0, wanted)
    assert call(line, command, memory, pty) == 0
    assert pty.settings[TCSETS] == termios(CS8 | 0o15)
    memory.place(0, bytes(36))
    assert call(line, TCGETS, memory, pty) == 0
    assert memory.read(memory.base, 36) == wanted


def test_framing_is_seen_through_the_other_kind_of_struct() -> None:
    line, memory, pty = TtyLine(), FakeMemory(), FakePty()
    memory.place(0, termios(PARENB | CS7))
    call(line, TCSETS, memory, pty)
    pty.settings[TCSETS2] = termios(CS8, 44)
    call(line, TCGETS2, memory, pty)
    assert memory.read(memory.base, 44) == termios(PARENB | CS7, 44)


def test_before_anything_is_set_the_kernel_answers() -> None:
    assert call(TtyLine(), TCGETS, FakeMemory()) is None


def test_modem_lines() -> None:
    line, memory = TtyLine(), FakeMemory()

    def change(command: int, bits: int) -> int:
        memory.place(0, struct.pack("<I", bits))
        call(line, command, memory)
        call(line, 0x5415, memory)
        return int.from_bytes(memory.read(memory.base, 4), "little")

    assert change(0x5417, 0x004) == 0x122  # RTS off
    assert change(0x5416, 0x004) == 0x126  # RTS on
    assert change(0x5418, 0x002) == 0x122  # DTR only; CTS and DSR stay the instrument's
    assert change(0x5418, 0x000) == 0x120


def test_other_ioctls_are_refused() -> None:
    with fails(errno.ENOTTY):
        call(TtyLine(), 0x5499, FakeMemory())


@given(st.binary(min_size=44, max_size=44), st.binary(min_size=44, max_size=44))
def test_framing_moves_from_one_setting_to_another(one: bytes, other: bytes) -> None:
    mixed = with_framing(one, framing(other))
    assert framing(mixed) == framing(other)
    assert with_framing(mixed, framing(one)) == one
