"""What the SoftSpan DACs LTC2668 and LTC2672 share: 32-bit shift register, command set, A/B registers, toggling.

Data sheets LTC2668 and LTC2672: data are shifted in on SCK's rising edge and out on its falling edge (SPI modes 0 and
3), most significant bit first; a frame is 24 bits, or 32·n with the last 24 bits used; it takes effect as chip select
rises. Code and span are double-buffered: a new span comes into force with the channel's next update.
"""

from __future__ import annotations

from abc import ABC, abstractmethod

from sim.trouble import Trouble

ECHO_MASK = 0x10
OFF_CODES = 2000.0


def one_bit_late(data: bytes) -> bytes:
    """What a receiver that samples on the wrong clock edge sees: every bit one clock late, an idle zero first."""
    return (int.from_bytes(data, "big") >> 1).to_bytes(len(data), "big")


class SoftSpanDac(ABC):
    """Registers and commands. Subclasses turn code and span into an output."""

    def __init__(self, channels: int, spans: frozenset[int]) -> None:
        self.channels = channels
        self._spans_allowed = spans
        self.trouble = Trouble(self._redrive)
        self.power_on_reset()

    def power_on_reset(self) -> None:
        """Registers cleared, span 0, outputs at their reset value."""
        n = self.channels
        self.codes = [0] * n
        self.spans = [0] * n
        self.powered = [True] * n
        self.config = 0
        self.mux = 0
        self._inputs = [[0, 0] for _ in range(n)]
        self._next_spans = [0] * n
        self._toggle_select = 0
        self._toggle = 0
        self._shift = bytes(4)
        self.frame_valid = True
        for channel in range(n):
            self._drive(channel)

    @abstractmethod
    def _drive(self, channel: int) -> None:
        """Bring a channel's output to what the registers say."""

    def transfer(self, tx: bytes, mode: int, hz: int) -> bytes:
        """One frame; the other SPI modes see everything one bit late. `hz` up to 50 MHz."""
        if mode not in (0, 3):
            tx = one_bit_late(tx)
        head = self._status()
        stream = head + self._shift[len(head) :] + tx
        self._shift = stream[len(tx) : len(tx) + 4]
        self.frame_valid = len(tx) == 3 or len(tx) % 4 == 0
        if tx and self.frame_valid:
            self._command(tx[-3] >> 4, tx[-3] & 15, tx[-2] << 8 | tx[-1])
        rx = stream[: len(tx)]
        if self.trouble.has("echo"):
            mask = int(self.trouble.value("echo", default=ECHO_MASK))
            rx = bytes(byte ^ mask for byte in rx)
        return rx if mode in (0, 3) else one_bit_late(rx)

    def _code(self, channel: int) -> float:
        """The code that stands at a channel's converter: the register's, unless the channel is broken."""
        trouble = self.trouble
        if not trouble:
            return self.codes[channel]
        if trouble.has("stuck", channel):
            return trouble.value("stuck", channel, default=0.0)
        off = trouble.value("offset", channel, default=OFF_CODES) + trouble.noise(channel, default=OFF_CODES)
        code = self.codes[channel] * trouble.value("gain", channel, default=0.8, sound=1.0) + off
        return min(max(code, 0.0), 65535.0)

    def _status(self) -> bytes:
        """Bytes that replace the first of the shift register as chip select falls."""
        return b""

    def _command(self, command: int, channel: int, value: int) -> None:
        everyone = range(self.channels)
        if command in (0x0, 0x1, 0x2, 0x3, 0x4, 0x6) and channel >= self.channels:
            return
        if command == 0x0:
            self._write(channel, value)
        elif command == 0x1:
            self._update(channel)
        elif command == 0x2:
            self._write(channel, value)
            self._update(*everyone)
        elif command == 0x3:
            self._write(channel, value)
            self._update(channel)
        elif command == 0x4:
            self._power_down(channel)
        elif command == 0x5:
            self._power_down(*everyone)
        elif command == 0x6:
            self._set_span(value & 15, channel)
        else:
            self._global_command(command, value)

    def _global_command(self, command: int, value: int) -> None:
        everyone = range(self.channels)
        if command == 0x7:
            self.config = value
            self._redrive()
        elif command in (0x8, 0xA):
            for channel in everyone:
                self._write(channel, value)
        elif command == 0xB:
            self.mux = value & 31
        elif command == 0xC:
            self._toggle_select = value
        elif command == 0xD:
            self._toggle = value & 1
            self._update(*(c for c in everyone if self._toggle_select >> c & 1))
        elif command == 0xE:
            self._set_span(value & 15, *everyone)
        if command in (0x9, 0xA):
            self._update(*everyone)

    def _write(self, channel: int, value: int) -> None:
        self._inputs[channel][self._toggle_select >> channel & 1] = value

    def _update(self, *channels: int) -> None:
        for channel in channels:
            self.powered[channel] = True
            self.spans[channel] = self._next_spans[channel]
            self.codes[channel] = self._inputs[channel][self._toggle_select >> channel & self._toggle & 1]
            self._drive(channel)

    def _power_down(self, *channels: int) -> None:
        for channel in channels:
            self.powered[channel] = False
            self._drive(channel)

    def _set_span(self, span: int, *channels: int) -> None:
        if span not in self._spans_allowed:  # reserved codes are not decoded
            return
        for channel in channels:
            self._next_spans[channel] = span

    def _redrive(self) -> None:
        for channel in range(self.channels):
            self._drive(channel)
