"""The BPF program that decides which system calls stop for the supervisor (seccomp(2), struct seccomp_data).

Everything that can be told from the numbers alone runs on without a stop. Paths cannot be read by BPF, so every open
stops; ioctls stop by command type: 0x07 (i2c-dev), 0x6b (spidev) and, of type 0x54 (tty), those few that a pty answers
otherwise than a UART. Plain reads and writes stop only on the descriptor numbers that emulated devices are given.
"""

from __future__ import annotations

import platform
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum

FIRST_FD = 900
FD_COUNT = 64
"""Descriptor numbers of emulated devices: above what programs reach, below the usual soft limit of 1024."""

ALLOW = 0x7FFF0000
NOTIFY = 0x7FC00000

I2C_TYPE, SPI_TYPE = 0x0700, 0x6B00
TTY_COMMANDS = (
    *(0x5401, 0x5402, 0x5403, 0x5404),  # TCGETS, TCSETS, TCSETSW, TCSETSF
    *(0x802C542A, 0x402C542B, 0x402C542C, 0x402C542D),  # the same four of struct termios2
    *(0x5415, 0x5416, 0x5417, 0x5418),  # TIOCMGET, TIOCMBIS, TIOCMBIC, TIOCMSET
)

_NR, _ARCH, _ARG0, _ARG1 = 0, 4, 16, 24  # offsets in struct seccomp_data; low halves on a little-endian machine
_LOAD, _EQUAL, _AT_LEAST, _AND, _RETURN = 0x20, 0x15, 0x35, 0x54, 0x06


class Call(Enum):
    """The system calls that may stop."""

    OPEN = "open"
    OPENAT = "openat"
    OPENAT2 = "openat2"
    IOCTL = "ioctl"
    READ = "read"
    WRITE = "write"


@dataclass(frozen=True)
class Architecture:
    """System call numbers of a machine; `audit` is AUDIT_ARCH_* of linux/audit.h."""

    audit: int
    seccomp: int
    calls: Mapping[int, Call]


X86_64 = Architecture(
    audit=0xC000003E,
    seccomp=317,
    calls={0: Call.READ, 1: Call.WRITE, 2: Call.OPEN, 16: Call.IOCTL, 257: Call.OPENAT, 437: Call.OPENAT2},
)
AARCH64 = Architecture(
    audit=0xC00000B7,
    seccomp=277,
    calls={29: Call.IOCTL, 56: Call.OPENAT, 63: Call.READ, 64: Call.WRITE, 437: Call.OPENAT2},
)
ARCHITECTURES: Mapping[str, Architecture] = {"x86_64": X86_64, "aarch64": AARCH64}


def this_architecture() -> Architecture | None:
    """That of this machine; None where there is no table for it."""
    return ARCHITECTURES.get(platform.machine())


@dataclass(frozen=True)
class Instruction:
    """One classic BPF instruction; jumps are relative, as in struct sock_filter."""

    code: int
    k: int
    jt: int = 0
    jf: int = 0

    def pack(self) -> bytes:
        return struct.pack("<HBBI", self.code, self.jt, self.jf, self.k)


class _Assembler:
    """Instructions with named jump targets; "" falls through to the next instruction."""

    def __init__(self) -> None:
        self._code: list[tuple[int, int, str, str]] = []
        self._labels: dict[str, int] = {}

    def label(self, name: str) -> None:
        self._labels[name] = len(self._code)

    def put(self, code: int, k: int, yes: str = "", no: str = "") -> None:
        self._code.append((code, k, yes, no))

    def finish(self) -> list[Instruction]:
        def jump(here: int, name: str) -> int:
            return self._labels[name] - here - 1 if name else 0

        return [Instruction(code, k, jump(i, yes), jump(i, no)) for i, (code, k, yes, no) in enumerate(self._code)]


def program(machine: Architecture) -> list[Instruction]:
    """The filter for one machine. Calls made under another architecture (32-bit programs) are all let through."""
    a = _Assembler()
    a.put(_LOAD, _ARCH)
    a.put(_EQUAL, machine.audit, "", "allow")
    a.put(_LOAD, _NR)
    for number, call in machine.calls.items():
        target = {Call.IOCTL: "ioctl", Call.READ: "transfer", Call.WRITE: "transfer"}.get(call, "notify")
        a.put(_EQUAL, number, target)
    a.label("allow")
    a.put(_RETURN, ALLOW)
    a.label("transfer")
    a.put(_LOAD, _ARG0)
    a.put(_AT_LEAST, FIRST_FD, "", "allow2")
    a.put(_AT_LEAST, FIRST_FD + FD_COUNT, "allow2", "notify")
    a.label("ioctl")
    a.put(_LOAD, _ARG1)
    for command in TTY_COMMANDS:
        a.put(_EQUAL, command, "notify")
    a.put(_AND, 0xFF00)  # i2c-dev's numbers and the low half of spidev's coded ones
    a.put(_EQUAL, I2C_TYPE, "notify")
    a.put(_EQUAL, SPI_TYPE, "notify", "allow2")
    a.label("notify")
    a.put(_RETURN, NOTIFY)
    a.label("allow2")
    a.put(_RETURN, ALLOW)
    return a.finish()


def assemble(instructions: list[Instruction]) -> bytes:
    """The program as an array of struct sock_filter."""
    return b"".join(i.pack() for i in instructions)
