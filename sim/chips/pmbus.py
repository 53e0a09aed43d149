"""PMBus supply with one fan (PMBus part II, revision 1.3.1), as the platform board has it; sits behind `PecTarget`."""

from __future__ import annotations

import errno
import math
from collections.abc import Callable

from sim.clock import SimClock
from sim.trouble import Trouble

VOUT_EXPONENT = -12  # 12 V does not fit a word at -13
WORDS = {0x79, 0x88, 0x89, 0x8B, 0x8C, 0x8D, 0x90, 0x96, 0x97, 0x3B}
BYTES = {0x00, 0x01, 0x10, 0x19, 0x20, 0x3A, 0x78, 0x7A, 0x7B, 0x7C, 0x7D, 0x7E, 0x81, 0x98}
BLOCKS = {0x99, 0x9A, 0x9B, 0x9E}
FAN_SPIN_S = 1.5
TOP_RPM = 12_000.0
CML_BAD_COMMAND, CML_BAD_DATA = 0x80, 0x40


def linear11(value: float) -> int:
    """PMBus part II, 7.3: mantissa as long as possible."""
    exponent = -16
    while exponent < 15 and not -1024 <= round(value / 2.0**exponent) <= 1023:
        exponent += 1
    mantissa = max(-1024, min(1023, round(value / 2.0**exponent)))
    return (exponent & 0x1F) << 11 | (mantissa & 0x7FF)


def linear11_value(word: int) -> float:
    exponent = (word >> 11) - (32 if word >> 15 else 0)
    mantissa = (word & 0x7FF) - (2048 if word & 0x400 else 0)
    return mantissa * 2.0**exponent


class PmbusSupply:
    """`load_a()` is what the module draws from the 12 V output, A; `inlet_c()` the air at the inlet, C.

    `broken_fan`, `input_v` and `sag_v` are for scripts: a fan that does not turn, the mains side, a low output.
    """

    def __init__(
        self, clock: SimClock, load_a: Callable[[], float], inlet_c: Callable[[], float], serial: str = "0"
    ) -> None:
        self._clock = clock
        self._load_a = load_a
        self._inlet_c = inlet_c
        self._serial = serial
        self.trouble = Trouble()
        self.broken_fan = False
        self.input_v = 48.0
        self.sag_v = 0.0
        self._fan_from, self._fan_since = 0.0, clock.now()
        self.power_on_reset()

    def power_on_reset(self) -> None:
        self._command = 0
        self._page = 0
        self._cml = 0
        self._latched = 0
        self._fan_config = 0x90
        self._fan_wanted = linear11(6000.0)

    def length(self, command: int) -> int:
        """Data bytes of a command, for the packet error code."""
        if command in WORDS:
            return 2
        if command in BLOCKS:
            return 1 + len(self._block(command))
        return 1 if command in BYTES else 0

    def write(self, data: bytes) -> None:
        if not data:
            return
        self._command = data[0]
        body = data[1:]
        if self._command == 0x03:
            self._latched = self._cml = 0
            return
        if self.length(self._command) == 0:
            self._cml |= CML_BAD_COMMAND
            raise OSError(errno.EREMOTEIO, f"command 0x{self._command:02x} is not supported")
        if body:
            self._set(self._command, body)

    def _set(self, command: int, body: bytes) -> None:
        if command == 0x3B and len(body) == 2:
            self._fan_from, self._fan_since = self.fan_rpm(), self._clock.now()
            self._fan_wanted = int.from_bytes(body, "little")
        elif command == 0x3A and len(body) == 1:
            self._fan_config = body[0] & 0x70 | 0x80
        elif command == 0x00 and body == b"\x00":
            self._page = 0
        else:
            self._cml |= CML_BAD_DATA
            raise OSError(errno.EREMOTEIO, "bad data")

    def read(self, count: int) -> bytes:
        command = self._command
        if command in BLOCKS:
            text = self._block(command)
            data = bytes([len(text)]) + text
        elif command in WORDS:
            data = self._word(command).to_bytes(2, "little")
        else:
            data = bytes([self._byte(command)])
        return data.ljust(count, b"\xff")[:count]

    def fan_rpm(self) -> float:
        """Actual speed, rpm: follows the command with a lag."""
        pace = 0.0 if self.broken_fan else self.trouble.value("slow", default=0.4, sound=1.0)
        target = min(TOP_RPM, max(0.0, linear11_value(self._fan_wanted)))
        share = math.exp(-(self._clock.now() - self._fan_since) / FAN_SPIN_S)
        return pace * (target + (self._fan_from - target) * share)

    def _block(self, command: int) -> bytes:
        return {0x99: b"QPSU", 0x9A: b"QP-150-12", 0x9B: b"A3", 0x9E: self._serial.encode()}[command]

    def _output_v(self) -> float:
        off = self.trouble.value("rising", default=1.5) - self.trouble.value("sagging", default=1.5) - self.sag_v
        return 12.0 + off - 0.01 * self._load_a() if self._input_v() > 36.0 else 0.0

    def _input_v(self) -> float:
        return self.trouble.value("input", default=38.0, sound=self.input_v)

    def _inside_c(self) -> float:
        heating = 8.0 + 60_000.0 / max(self.fan_rpm(), 1500.0) * 0.2
        return self._inlet_c() + heating + self.trouble.value("hot", default=45.0)

    def _word(self, command: int) -> int:
        volts, amperes = self._output_v(), self._load_a()
        watts = volts * amperes
        if command == 0x79:
            return self._status()
        if command == 0x8B:
            return round(volts * 2.0**-VOUT_EXPONENT) & 0xFFFF
        if command == 0x3B:
            return self._fan_wanted
        drawn = watts / 0.9 + 2.0 if volts else 0.0
        value = {
            0x88: self._input_v(),
            0x89: drawn / self._input_v() if self._input_v() else 0.0,
            0x8C: amperes,
            0x8D: self._inside_c(),
            0x90: self.fan_rpm(),
            0x96: watts,
            0x97: drawn,
        }[command]
        return linear11(value)

    def _status(self) -> int:
        now = 0
        if not self._output_v():
            now |= 0x0848
        elif self._output_v() < 11.4:
            now |= 0x8800
        elif self._output_v() > 12.6:
            now |= 0x8020
        if self._input_v() < 40.0:
            now |= 0x2008
        if self._inside_c() > 85.0:
            now |= 0x0004
        if self.fan_rpm() < 800.0 and self._clock.now() - self._fan_since > 3.0 * FAN_SPIN_S:
            now |= 0x0400
        if self._cml:
            now |= 0x0002
        self._latched |= now & ~0x0840
        return self._latched | now

    def _byte(self, command: int) -> int:
        return {
            0x00: self._page,
            0x01: 0x80,
            0x10: 0x00,
            0x19: 0xB0,
            0x20: VOUT_EXPONENT & 0x1F,
            0x3A: self._fan_config,
            0x78: self._status() & 0xFF,
            0x7E: self._cml,
            0x81: 0x80 if self._status() & 0x0400 else 0x00,
            0x98: 0x33,
        }.get(command, 0)
