"""Where a part sits: I2C buses and SPI chip selects, with what can go wrong between the controller and the part."""

from __future__ import annotations

import errno
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from sim.busfaults import NO_EFFECT, BusFaults, Effect
from sim.chips.checksums import smbus_pec
from sim.trouble import Trouble

I2C_M_RD = 0x0001
Message = tuple[int, bytes | int]
"""(flags, bytes to write) or (flags with I2C_M_RD, number of bytes to read), as in I2C_RDWR."""

QUICK, BYTE, BYTE_DATA, WORD_DATA, PROC_CALL = 0, 1, 2, 3, 4
I2C_BLOCK_BROKEN, I2C_BLOCK = 6, 8
UNION_BYTES = 34
BLOCK_MAX = 32
ADAPTER_TIMEOUT_S = 1.0
"""What Linux adapters allow a target to stretch the clock."""


class I2cPart(Protocol):
    """An I2C target. `write` takes the bytes after the address; both raise OSError(EREMOTEIO) for a data NACK."""

    def write(self, data: bytes) -> None: ...
    def read(self, count: int) -> bytes: ...
    def power_on_reset(self) -> None: ...


class SpiPart(Protocol):
    def transfer(self, tx: bytes, mode: int, hz: int) -> bytes: ...
    def power_on_reset(self) -> None: ...


class Part(Protocol):
    def power_on_reset(self) -> None: ...


@dataclass
class Slot:
    """A named place for a part, which may be empty."""

    name: str
    part: Part
    present: bool = True


class I2cBus:
    """One adapter. `before` brings the module's own timers up to now; it runs ahead of every transaction."""

    def __init__(
        self,
        name: str,
        parts: Mapping[int, tuple[Slot, I2cPart]],
        faults: BusFaults,
        before: Callable[[], None] = lambda: None,
    ) -> None:
        self.name = name
        self._parts = dict(parts)
        self._faults = faults
        self._before = before

    def transfer(self, address: int, messages: Sequence[Message]) -> list[bytes]:
        """Messages joined by repeated starts; returns what each read message brought.

        Raises OSError: ENXIO where nothing acknowledges, EREMOTEIO for a NACK on data, ETIMEDOUT for a stuck bus.
        """
        self._before()
        slot, part = self._parts.get(address, (None, None))
        targets = (self.name,) if slot is None else (self.name, slot.name)
        effect = NO_EFFECT if self._faults.quiet else self._faults.strike(*targets)
        if "stuck" in effect or "hang" in effect or effect.late_s >= ADAPTER_TIMEOUT_S:
            raise OSError(errno.ETIMEDOUT, f"{self.name}: bus timed out")
        if slot is None or part is None or not slot.present or "nack" in effect:
            raise OSError(errno.ENXIO, f"{self.name}: no acknowledge from 0x{address:02x}")
        return self._run(slot.name, part, messages, effect)

    def _run(self, name: str, part: I2cPart, messages: Sequence[Message], effect: Effect) -> list[bytes]:
        received, asked = [], b""
        for flags, body in messages:
            if isinstance(body, int):
                if not flags & I2C_M_RD:
                    raise OSError(errno.EINVAL, "a length without I2C_M_RD")
                data = self._faults.answer(effect, name, asked + bytes([body & 0xFF]), part.read(body))
                received.append(data if effect is NO_EFFECT else self._faults.garble(effect, data))
            else:
                asked += body
                part.write(body)
        return received

    def smbus(self, address: int, read: int, command: int, size: int, data: bytes = b"", pec: bool = False) -> bytes:
        """One SMBus transaction as the kernel emulates it on a plain adapter (i2c_smbus_xfer_emulated).

        `data` and the result have the layout of union i2c_smbus_data, 34 bytes: byte, word little-endian, or length and
        block. Raises OSError as `transfer`, EBADMSG for a wrong packet error code, EOPNOTSUPP, EINVAL.
        """
        sent, wanted = self._messages(read, command, size, data)
        if not pec or size in (QUICK, I2C_BLOCK_BROKEN, I2C_BLOCK):
            reply = b"".join(self.transfer(address, sent))
        elif wanted:
            reply = self._checked(address, sent)
        else:
            body = sent[-1][1]
            assert isinstance(body, bytes)
            code = smbus_pec(bytes([address << 1]) + body)
            self.transfer(address, [*sent[:-1], (0, body + bytes([code]))])
            reply = b""
        if not wanted:
            return data.ljust(UNION_BYTES, b"\0")
        if size in (I2C_BLOCK_BROKEN, I2C_BLOCK):
            reply = bytes([len(reply)]) + reply
        return reply.ljust(UNION_BYTES, b"\0")

    def _checked(self, address: int, sent: list[Message]) -> bytes:
        """A read with packet error code over everything on the wire, both address bytes included."""
        body = sent[-1][1]
        assert isinstance(body, int)
        reply = b"".join(self.transfer(address, [*sent[:-1], (I2C_M_RD, body + 1)]))
        wire = b"".join(bytes([address << 1]) + b for _, b in sent if isinstance(b, bytes))
        if smbus_pec(wire + bytes([address << 1 | 1]) + reply):
            raise OSError(errno.EBADMSG, f"{self.name}: wrong packet error code from 0x{address:02x}")
        return reply[:-1]

    @staticmethod
    def _messages(read: int, command: int, size: int, data: bytes) -> tuple[list[Message], bool]:
        """The messages of a transaction and whether it returns data."""
        head = bytes([command])
        if size == QUICK:
            return [(I2C_M_RD, 0) if read else (0, b"")], False
        if size == BYTE:
            return [(I2C_M_RD, 1) if read else (0, head)], bool(read)
        if size in (BYTE_DATA, WORD_DATA):
            count = size - 1
            return ([(0, head), (I2C_M_RD, count)], True) if read else ([(0, head + data[:count])], False)
        if size == PROC_CALL:
            return [(0, head + data[:2]), (I2C_M_RD, 2)], True
        if size in (I2C_BLOCK_BROKEN, I2C_BLOCK):
            count = data[0] if data else 0
            if not 1 <= count <= BLOCK_MAX:
                raise OSError(errno.EINVAL, "block of 1 to 32 bytes expected")
            return ([(0, head), (I2C_M_RD, count)], True) if read else ([(0, head + data[1 : 1 + count])], False)
        raise OSError(errno.EOPNOTSUPP, f"SMBus transaction {size} is not supported")

    def hanging(self) -> bool:
        """True while the script wants the bus silent; a transport may then leave its caller waiting."""
        return self._faults.active("hang", self.name)


class SpiSlot:
    """One chip select."""

    def __init__(
        self, name: str, slot: Slot, part: SpiPart, faults: BusFaults, before: Callable[[], None] = lambda: None
    ) -> None:
        self.name = name
        self._slot = slot
        self._part = part
        self._faults = faults
        self._before = before

    def transfer(self, tx: bytes, mode: int, hz: int) -> bytes:
        """One frame, chip select low throughout; as many bytes come back as go out. SPI has no acknowledge: an absent
        part reads as all ones (pull-up), a dead one as zeros."""
        self._before()
        effect = NO_EFFECT if self._faults.quiet else self._faults.strike(self.name, self._slot.name)
        if not self._slot.present or "stuck" in effect:
            return b"\xff" * len(tx)
        if "hang" in effect or "nack" in effect:
            return bytes(len(tx))
        rx = self._faults.answer(effect, self._slot.name, tx, self._part.transfer(tx, mode, hz))
        return rx if effect is NO_EFFECT else self._faults.garble(effect, rx)

    def hanging(self) -> bool:
        """As I2cBus.hanging."""
        return self._faults.active("hang", self.name, self._slot.name)


class PecTarget:
    """Adds the packet error code to a part that has it (PMBus and other SMBus parts).

    `lengths(command)` is the number of data bytes of a write of that command; one byte more is taken as the code, and a
    wrong one is refused with EREMOTEIO. A read longer than the command's data ends in the code.
    """

    def __init__(self, address: int, inner: I2cPart, lengths: Callable[[int], int]) -> None:
        self._address = address
        self._inner = inner
        self._lengths = lengths
        self._command = b""
        self.trouble: Trouble = getattr(inner, "trouble", Trouble())

    def power_on_reset(self) -> None:
        self._command = b""
        self._inner.power_on_reset()

    def write(self, data: bytes) -> None:
        self._command = data
        if data and len(data) == self._lengths(data[0]) + 2:
            if smbus_pec(bytes([self._address << 1]) + data):
                raise OSError(errno.EREMOTEIO, "wrong packet error code")
            data = data[:-1]
        self._inner.write(data)

    def read(self, count: int) -> bytes:
        size = self._lengths(self._command[0]) if self._command else count
        data = self._inner.read(min(count, size))
        wire = bytes([self._address << 1]) + self._command + bytes([self._address << 1 | 1]) + data
        return (data + bytes([smbus_pec(wire)])).ljust(count, b"\xff")[:count]
