"""What a pty lacks of a UART: parity and 7-bit settings that read back, and modem lines.

A pty accepts TCSETS with parity or 7 bits but reads back 8N, which the C library reports as EINVAL. Here the pty is
set without them and the caller reads back what it asked for.
"""

from __future__ import annotations

import errno
import struct
from dataclasses import dataclass
from typing import Protocol

from sim.server.seccomp.mem import Memory

TCGETS, TCSETS = 0x5401, 0x5402
TCGETS2, TCSETS2 = 0x802C542A, 0x402C542B
_SETS = {TCSETS: TCSETS, 0x5403: TCSETS, 0x5404: TCSETS, TCSETS2: TCSETS2, 0x402C542C: TCSETS2, 0x402C542D: TCSETS2}
_GETS = {TCGETS: TCSETS, TCGETS2: TCSETS2}
_SIZE = {TCSETS: 36, TCSETS2: 44}
TIOCMGET, TIOCMBIS, TIOCMBIC, TIOCMSET = 0x5415, 0x5416, 0x5417, 0x5418
_CFLAG = 8  # offset of c_cflag in struct termios
_PARENB, _PARODD, _CMSPAR, _CSIZE, _CS8 = 0o400, 0o1000, 0o10000000000, 0o60, 0o60
_OUT = 0x0002 | 0x0004  # DTR, RTS
_IN = 0x0100 | 0x0020  # DSR, CTS: the instrument is there and ready

_FRAMING = _PARENB | _PARODD | _CMSPAR | _CSIZE


class Pty(Protocol):
    """The pty itself, by kind of struct: TCSETS (termios) or TCSETS2 (termios2)."""

    def get(self, kind: int, size: int) -> bytes: ...
    def set(self, kind: int, settings: bytes) -> None: ...


def framing(termios: bytes) -> int:
    """Parity and character size bits of c_cflag."""
    return int.from_bytes(termios[_CFLAG : _CFLAG + 4], "little") & _FRAMING


def with_framing(termios: bytes, bits: int) -> bytes:
    """The same settings with these parity and character size bits."""
    cflag = int.from_bytes(termios[_CFLAG : _CFLAG + 4], "little") & ~_FRAMING | bits
    return termios[:_CFLAG] + struct.pack("<I", cflag) + termios[_CFLAG + 4 :]


@dataclass
class TtyLine:
    """One line's framing as its user set it (None: never set), and the modem lines."""

    framing: int | None = None
    lines: int = _OUT | _IN

    def ioctl(self, command: int, arg: int, memory: Memory, pty: Pty) -> int | None:
        """Value that the ioctl returns; None: let the kernel answer. Raises OSError."""
        if command in _SETS:
            kind = _SETS[command]
            wanted = memory.read(arg, _SIZE[kind])
            pty.set(kind, with_framing(wanted, _CS8))
            self.framing = framing(wanted)
            return 0
        if command in _GETS:
            if self.framing is None:
                return None
            kind = _GETS[command]
            memory.write(arg, with_framing(pty.get(kind, _SIZE[kind]), self.framing))
            return 0
        if command == TIOCMGET:
            memory.write(arg, struct.pack("<I", self.lines))
            return 0
        if command in (TIOCMBIS, TIOCMBIC, TIOCMSET):
            self._set_lines(command, int.from_bytes(memory.read(arg, 4), "little"))
            return 0
        raise OSError(errno.ENOTTY, "not an ioctl that a UART knows")

    def _set_lines(self, command: int, bits: int) -> None:
        out = {TIOCMBIS: self.lines | bits, TIOCMBIC: self.lines & ~bits}.get(command, bits)
        self.lines = self.lines & ~_OUT | out & _OUT  # inputs belong to the instrument
