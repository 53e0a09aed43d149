"""An ITLA laser (OIF-ITLA-MSA-01.3): four-byte packets, pending operations, AEA strings, latched status.

Request: BIP-4 | resend bit | R/W, register, data. Reply: BIP-4 | communication error | 1 | two status bits, register,
data. The light itself is the world's (`sim.ports.AlicePort`), where a hardware line may hold it dark.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from sim.chips.registers import signed, twos
from sim.clock import SimClock
from sim.instruments import itla_registers as reg
from sim.instruments.itla_registers import ItlaError
from sim.instruments.stream import Replies
from sim.trouble import Trouble

OK, EXECUTION_ERROR, AEA, PENDING = range(4)
PACKET = 4
PACKET_GAP_S = 0.05
ENABLE_S, POWER_S, FINE_S, RESET_S = 2.0, 0.5, 0.3, 0.5
PENDING_BIT = 0x01


class LaserPort(Protocol):
    """The laser's part of `sim.ports.AlicePort`."""

    def set_laser(self, on: bool, frequency_hz: float, power_dbm: float) -> None: ...
    def laser(self) -> tuple[bool, float, float]: ...


class ItlaRefusal(Exception):
    """A command that ends in an execution error."""

    def __init__(self, code: ItlaError) -> None:
        super().__init__(code.name)
        self.code = code


@dataclass
class _Operation:
    """What is pending: done at `until`."""

    until: float
    finish: Callable[[], None]


def bip4(packet: bytes) -> int:
    """Checksum nibble of a packet whose own nibble is left out."""
    x = (packet[0] & 0x0F) ^ packet[1] ^ packet[2] ^ packet[3]
    return x >> 4 ^ x & 0x0F


def with_bip4(low_nibble: int, register: int, data: int) -> bytes:
    """A whole packet."""
    packet = bytes([low_nibble & 0x0F, register, data >> 8 & 0xFF, data & 0xFF])
    return bytes([bip4(packet) << 4 | packet[0]]) + packet[1:]


class Itla:
    """Feed it the host's bytes, take its replies."""

    def __init__(self, clock: SimClock, port: LaserPort, *, serial: str = "0000001") -> None:
        self._clock = clock
        self._port = port
        self._strings = {**reg.STRINGS, reg.SERIAL: serial}
        self._replies = Replies(clock)
        self.trouble = Trouble(self._light)
        self._handlers: dict[int, Callable[[int], None]] = {
            reg.RESENA: self._write_enable,
            reg.POWER: self._write_power,
            reg.FTF: self._write_fine,
            reg.FCF1: self._write_frequency(reg.FCF1, *reg.FCF1_RANGE),
            reg.FCF2: self._write_frequency(reg.FCF2, 0, 9999),
            reg.FCF3: self._write_frequency(reg.FCF3, 0, 99),
            reg.CHANNEL: self._write_frequency(reg.CHANNEL, 1, 200),
            reg.GRID: self._write_frequency(reg.GRID, 1, 10000),
            reg.STATUS_F: lambda value: self._clear_latches(reg.STATUS_F, value),
            reg.STATUS_W: lambda value: self._clear_latches(reg.STATUS_W, value),
            reg.IOCAP: lambda value: self._store(reg.IOCAP, value & 0x00F0 | reg.DEFAULTS[reg.IOCAP] & 0xFF0F),
        }
        self.power_on_reset()

    def power_on_reset(self) -> None:
        self._reset(reg.STATUS_MRL)

    def _reset(self, reason: int) -> None:
        """Registers to their defaults, light off; `reason` is the latch that tells of it."""
        self._registers = dict(reg.DEFAULTS)
        self._latched = {reg.STATUS_F: reason, reg.STATUS_W: reason}
        self._error = ItlaError.OK
        self._pending: _Operation | None = None
        self._ready_at = self._clock.now() + RESET_S
        self._sena = self._emit = False
        self._aea = b""
        self._buffer = bytearray()
        self._last_byte = 0.0
        self._last_reply = b""
        self._replies.clear()
        self._light()

    # --- light and time ------------------------------------------------------------------------------------------

    def frequency_hz(self) -> float:
        """Frequency that the registers ask for, Hz."""
        r = self._registers
        base = r[reg.FCF1] * 1e12 + r[reg.FCF2] * 1e8 + r[reg.FCF3] * 1e6
        grid = (r[reg.CHANNEL] - 1) * r[reg.GRID] * 1e8
        return base + grid + signed(r[reg.FTF], 16) * 1e6

    def _light(self) -> None:
        dbm = signed(self._registers[reg.POWER], 16) / 100.0 - self.trouble.value("weak", default=3.0)
        self._port.set_laser(self._emit, self.frequency_hz() + self.trouble.value("detuned", default=20e9), dbm)

    def poll(self) -> None:
        """Finish a pending operation whose time has come."""
        if self._sena and not self._emit and self.trouble.has("unlit"):
            return
        if self._pending is not None and self._clock.now() >= self._pending.until:
            operation, self._pending = self._pending, None
            operation.finish()

    def _begin(self, seconds: float, finish: Callable[[], None]) -> None:
        self._pending = _Operation(self._clock.now() + seconds, finish)

    def _lit(self) -> None:
        self._emit = True
        self._light()

    # --- packets -------------------------------------------------------------------------------------------------

    @property
    def due(self) -> float | None:
        return self._replies.due

    def take(self, until: float | None = None) -> bytes:
        return self._replies.take(until)

    def feed(self, data: bytes) -> None:
        """Bytes from the host. A packet left unfinished for 50 ms is forgotten."""
        now = self._clock.now()
        if now - self._last_byte > PACKET_GAP_S:
            self._buffer.clear()
        self._last_byte = now
        self._buffer += data
        while len(self._buffer) >= PACKET:
            packet = bytes(self._buffer[:PACKET])
            del self._buffer[:PACKET]
            self._packet(packet)

    def _packet(self, packet: bytes) -> None:
        self.poll()
        if bip4(packet) != packet[0] >> 4:
            self._latch(reg.STATUS_CEL)
            self._replies.put(with_bip4(0x08 | 0x04, packet[1], int.from_bytes(packet[2:], "big")))
            return
        if packet[0] & 0x08 and self._last_reply:  # "last response": the host did not get it
            self._replies.put(self._last_reply)
            return
        register, data = packet[1], int.from_bytes(packet[2:], "big")
        try:
            status, answer = self._write(register, data) if packet[0] & 1 else self._read(register)
        except ItlaRefusal as refusal:
            self._error = refusal.code
            self._latch(reg.STATUS_XEL)
            status, answer = EXECUTION_ERROR, data
        self._last_reply = with_bip4(0x04 | status, register, answer)
        self._replies.put(self._last_reply)

    def _latch(self, bits: int) -> None:
        for register in self._latched:
            self._latched[register] |= bits

    # --- reading -------------------------------------------------------------------------------------------------

    def _read(self, register: int) -> tuple[int, int]:
        if register == reg.NOP:
            return OK, self._nop()
        if register == reg.AEA_EAR:
            return OK, self._next_of_string()
        if register in self._strings:
            self._aea = self._strings[register].encode("ascii")
            return AEA, len(self._aea)
        if register in (reg.CURRENTS, reg.TEMPERATURES):
            values = (3200, 850) if register == reg.CURRENTS else (2500, 4100)
            self._aea = b"".join((v if self._emit else v // 100).to_bytes(2, "big") for v in values)
            return AEA, len(self._aea)
        measured = self._measured(register)
        if measured is None:
            raise ItlaRefusal(ItlaError.RNI)
        return OK, measured & 0xFFFF

    def _nop(self) -> int:
        pending = PENDING_BIT << 8 if self._pending else 0
        ready = 0x10 if self._clock.now() >= self._ready_at or not self._restarted else 0
        return pending | ready | self._error

    @property
    def _restarted(self) -> bool:
        """After loss of supply there is no host to see the time that it takes; after a commanded reset there is."""
        return bool(self._latched[reg.STATUS_W] & reg.STATUS_CRL)

    def _next_of_string(self) -> int:
        if not self._aea:
            raise ItlaRefusal(ItlaError.ERE)
        piece, self._aea = self._aea[:2].ljust(2, b"\0"), self._aea[2:]
        return int.from_bytes(piece, "big")

    def _measured(self, register: int) -> int | None:
        if register in (reg.STATUS_F, reg.STATUS_W):
            return self._status(register)
        if register in (reg.LF1, reg.LF2, reg.LF3):
            mhz = round(self._port.laser()[1] / 1e6)
            thz, rest = divmod(mhz, 1_000_000)
            return {reg.LF1: thz, reg.LF2: rest // 100, reg.LF3: rest % 100}[register]
        if register == reg.OOP:
            on, _, dbm = self._port.laser()
            return twos(round(dbm * 100.0) if on else reg.DARK_CENTI_DBM, 16)
        if register == reg.RESENA:
            return 0x08 if self._sena else 0
        return self._registers.get(register)

    def _status(self, register: int) -> int:
        latched = self._latched[register]
        now = 0
        tuning = self._pending is not None and self._sena
        if tuning and register == reg.STATUS_W:
            now |= reg.STATUS_FREQ | reg.STATUS_PWR
            self._latched[register] |= now >> 8
        if self._emit and not self._port.laser()[0]:
            now |= reg.STATUS_DIS
        now |= int(self.trouble.value("fatal" if register == reg.STATUS_F else "alarm", default=0x0200))
        value = now | latched
        if value & 0x0F00:
            value |= reg.STATUS_ALM if register == reg.STATUS_W else reg.STATUS_FATAL
        if value & ~reg.STATUS_DIS & self._registers[reg.SRQT]:
            value |= reg.STATUS_SRQ
        return value

    def _clear_latches(self, register: int, value: int) -> None:
        self._latched[register] &= ~(value & 0xFF)

    # --- writing -------------------------------------------------------------------------------------------------

    def _write(self, register: int, value: int) -> tuple[int, int]:
        if register == reg.NOP:
            return OK, self._nop()
        handler = self._handlers.get(register)
        if handler is None:
            if register in reg.PLAIN:
                self._store(register, value)
                return OK, value
            known = register in self._strings or self._measured(register) is not None
            raise ItlaRefusal(ItlaError.RNW if known else ItlaError.RNI)
        if self._pending is not None and register in reg.TUNING and not self._is_switch_off(register, value):
            raise ItlaRefusal(ItlaError.CIP)
        before = self._pending
        handler(value)
        started = self._pending is not None and self._pending is not before
        return (PENDING if started else OK), value

    @staticmethod
    def _is_switch_off(register: int, value: int) -> bool:
        """Going dark is never kept waiting."""
        return register == reg.RESENA and (not value & 0x08 or bool(value & 0x03))

    def _store(self, register: int, value: int) -> None:
        self._registers[register] = value

    def _write_enable(self, value: int) -> None:
        if value & 0x03:
            self._reset(reg.STATUS_CRL | (reg.STATUS_MRL if value & 0x01 else 0))
        elif not value & 0x08:
            self._pending = None
            self._sena = self._emit = False
            self._light()
        elif not self._sena:
            low, high = reg.FREQUENCY_RANGE_HZ
            if not low <= self.frequency_hz() <= high:
                raise ItlaRefusal(ItlaError.RVE)
            self._sena = True
            self._begin(ENABLE_S, self._lit)

    def _write_power(self, value: int) -> None:
        if not reg.POWER_RANGE[0] <= signed(value, 16) <= reg.POWER_RANGE[1]:
            raise ItlaRefusal(ItlaError.RVE)
        self._store(reg.POWER, value)
        self._settle(POWER_S)

    def _write_fine(self, value: int) -> None:
        if abs(signed(value, 16)) > self._registers[reg.FTFR]:
            raise ItlaRefusal(ItlaError.RVE)
        self._store(reg.FTF, value)
        self._settle(FINE_S)

    def _settle(self, seconds: float) -> None:
        if self._emit:
            self._begin(seconds, self._light)
        else:
            self._light()

    def _write_frequency(self, register: int, low: int, high: int) -> Callable[[int], None]:
        def write(value: int) -> None:
            if self._sena:
                raise ItlaRefusal(ItlaError.CIE)
            if not low <= value <= high:
                raise ItlaRefusal(ItlaError.RVE)
            self._store(register, value)
            self._light()

        return write
