"""ADS131M08: eight simultaneous 24-bit delta-sigma converters (data sheet SBAS950).

A frame is ten words (command or response, eight channels, CRC); the response to a command comes one frame later. Words
are 24 bits after reset, 16 or 32 by MODE. SPI mode 1.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt

from sim.chips.checksums import crc16_ansi, crc16_ccitt
from sim.chips.softspan import one_bit_late
from sim.clock import SimClock
from sim.trouble import Trouble

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]

CHANNELS = 8
ID, STATUS, MODE, CLOCK, GAIN1, GAIN2, CFG, THRESHOLD_MSB, THRESHOLD_LSB, CH0_CFG, REGMAP_CRC = (*range(10), 0x3E)
REGISTERS = 0x40
DEVICE_ID = 0x2800
MODE_RESET, CLOCK_RESET, CFG_RESET = 0x0510, 0xFF0E, 0x0600
MODE_REG_CRC, MODE_RX_CRC, MODE_CRC_ANSI, MODE_RESET_FLAG = 0x2000, 0x1000, 0x0800, 0x0400
STATUS_LOCK, STATUS_RESYNC, STATUS_CRC_ERROR = 0x8000, 0x4000, 0x1000
RESET_ACK, CHANNEL_STRIDE = 0xFF28, 5
OSR = (128, 256, 512, 1024, 2048, 4096, 8192, 16256)
WORD_BYTES = (2, 3, 4, 4)
SPI_MODE = 1
REFERENCE_V = 1.2
TEST_V = 0.16
NOISE_AT_1024_V = 1.5e-6
FULL_SCALE = 1 << 23
_MUX_INPUT, _MUX_SHORT, _MUX_POSITIVE, _MUX_NEGATIVE = range(4)


class Ads131m08:
    """`sample()` gives the voltages at the eight input pins now, V.

    A frame hands out the older of the two conversions that the FIFO holds, so the first after a pause is stale. While
    the clock stands still, as it does for a transaction in simulated time, a frame is taken to last one conversion.
    """

    def __init__(
        self,
        clock: SimClock,
        sample: Callable[[], Floats],
        random: np.random.Generator,
        *,
        clock_hz: float = 8.192e6,
    ) -> None:
        self._clock = clock
        self._sample = sample
        self._random = random
        self._clock_hz = clock_hz
        self.trouble = Trouble()
        self.power_on_reset()

    def power_on_reset(self) -> None:
        self._registers = [0] * REGISTERS
        self._registers[ID] = DEVICE_ID
        self._registers[MODE] = MODE_RESET
        self._registers[CLOCK] = CLOCK_RESET
        self._registers[CFG] = CFG_RESET
        for channel in range(CHANNELS):
            self._registers[CH0_CFG + CHANNEL_STRIDE * channel + 3] = 0x8000
        self._locked = self._standby = self._crc_error = False
        self._resync = False
        self._response: list[int] = []
        self._refresh()
        self._restart()

    # --- conversions ---------------------------------------------------------------------------------------------

    def _restart(self) -> None:
        """Conversions begin afresh; the FIFO holds nothing but zeros."""
        self._started = self._last_frame = self._clock.now()
        self._delivered = 0
        self._fifo: list[Ints] = []
        self._last = np.zeros(CHANNELS, dtype=np.int64)
        self._fresh = False

    def _refresh(self) -> None:
        """Constants of a conversion that follow from the registers."""
        r = self._registers
        gains = [r[GAIN1 + c // 4] >> 4 * (c % 4) & 7 for c in range(CHANNELS)]
        self._gain = np.exp2(gains)
        blocks = [CH0_CFG + CHANNEL_STRIDE * c for c in range(CHANNELS)]
        self._mux = np.array([r[b] & 3 for b in blocks])
        offset = [(r[b + 1] << 8 | r[b + 2] >> 8) for b in blocks]
        self._offset = np.array([o - (1 << 24) if o & FULL_SCALE else o for o in offset], dtype=np.int64)
        self._scale = np.array([r[b + 3] << 8 | r[b + 4] >> 8 for b in blocks]) / FULL_SCALE
        self._enabled = np.array([r[CLOCK] >> 8 + c & 1 for c in range(CHANNELS)], dtype=np.int64)
        osr = OSR[r[CLOCK] >> 2 & 7]
        self._rate_hz = self._clock_hz / (2 * osr)
        self._noise_v = NOISE_AT_1024_V * np.sqrt(1024.0 / osr)
        self._plain = not (self._mux.any() or self._offset.any() or (self._scale != 1.0).any())

    @property
    def rate_hz(self) -> float:
        """Conversions a second."""
        return self._rate_hz

    def _conversion(self) -> Ints:
        """One conversion of all channels, codes."""
        volts = self._sample()
        if not self._plain:
            test = TEST_V / self._gain
            volts = np.select(
                [self._mux == _MUX_SHORT, self._mux == _MUX_POSITIVE, self._mux == _MUX_NEGATIVE],
                [np.zeros(CHANNELS), test, -test],
                volts,
            )
        volts = volts + self._noise_v * self._random.standard_normal(CHANNELS)
        if self.trouble:
            volts = self._troubled(volts)
        codes = np.rint(volts * self._gain * (FULL_SCALE / REFERENCE_V))
        if not self._plain:
            codes = np.rint((codes - self._offset) * self._scale)
        for place in self.trouble.places("stuck"):
            codes[int(place)] = self.trouble.value("stuck", place, default=0.0)
        limited: Ints = np.clip(codes, -FULL_SCALE, FULL_SCALE - 1).astype(np.int64) * self._enabled
        return limited

    def _troubled(self, volts: Floats) -> Floats:
        """What the converter makes of its inputs when something is wrong with it. The test signal is made from the
        reference, so it hides a wrong one."""
        t = self.trouble
        wrong = volts.copy()
        for c in range(CHANNELS):
            wrong[c] *= t.value("gain", c, default=0.9, sound=1.0)
            wrong[c] += t.value("offset", c, default=0.02) + t.noise(c, default=0.02)
            if self._mux[c] in (_MUX_INPUT, _MUX_SHORT):
                wrong[c] /= t.value("reference", default=1.05, sound=1.0)
        return wrong

    def _next_sample(self) -> Ints:
        """What this frame hands out."""
        now = self._clock.now()
        if self._standby:
            self._fresh = False
            return self._last
        ended = int((now - self._started) * self._rate_hz + 1e-6)
        if now == self._last_frame:
            ended = max(ended, self._delivered + 1)
        self._last_frame = now
        new = ended - self._delivered
        self._delivered = max(ended, self._delivered)
        if new > 0:
            sample = self._conversion()
            # The stale slot was converted just after the frame before, hence that frame's values.
            self._fifo = (
                [self._fifo[0] if self._fifo else self._last, sample] if new > 1 else [*self._fifo, sample][-2:]
            )
        self._fresh = bool(self._fifo)
        if self._fifo:
            self._last = self._fifo.pop(0)
        return self._last

    # --- frames --------------------------------------------------------------------------------------------------

    def transfer(self, tx: bytes, mode: int, hz: int) -> bytes:
        """One frame. In another SPI mode every bit is taken and given one clock late."""
        if mode != SPI_MODE:
            return one_bit_late(self._frame(one_bit_late(tx)))
        return self._frame(tx)

    def _frame(self, tx: bytes) -> bytes:
        size = WORD_BYTES[self._registers[MODE] >> 8 & 3]
        out = self._answer(size)
        if tx and self.trouble.strikes("upset", default=0.3):
            tx = bytes([tx[0] ^ 0x04]) + tx[1:]
        words = [int.from_bytes(tx[i : i + 2], "big") for i in range(0, len(tx) - size + 1, size)]
        if words:
            self._execute(words, tx, size)
        return out[: len(tx)].ljust(len(tx), b"\0")

    def _answer(self, size: int) -> bytes:
        """Response, channels (or the registers asked for), checksum."""
        channels = self._next_sample()
        response, self._response = self._response, []
        if len(response) > 1:
            body = b"".join(word.to_bytes(2, "big") + bytes(size - 2) for word in response)
        else:
            head = response[0] if response else self._status()
            body = head.to_bytes(2, "big") + bytes(size - 2) + self._channel_words(channels, size)
        return body + self._crc(body).to_bytes(2, "big") + bytes(size - 2)

    def _channel_words(self, codes: Ints, size: int) -> bytes:
        if size == 3:
            return b"".join([c.to_bytes(3, "big", signed=True) for c in codes.tolist()])
        if size == 2:
            return b"".join([(c >> 8).to_bytes(2, "big", signed=True) for c in codes.tolist()])
        extended = self._registers[MODE] >> 8 & 3 == 3
        return b"".join([(c if extended else c << 8).to_bytes(4, "big", signed=True) for c in codes.tolist()])

    def _crc(self, data: bytes) -> int:
        return crc16_ansi(data) if self._registers[MODE] & MODE_CRC_ANSI else crc16_ccitt(data)

    def _status(self) -> int:
        status = self._registers[MODE] & 0x0F00  # CRC type, RESET flag and word length are copies of MODE
        status |= STATUS_LOCK if self._locked else 0
        status |= STATUS_RESYNC if self._resync else 0
        status |= STATUS_CRC_ERROR if self._crc_error else 0
        self._resync = False
        return status | (self._registers[CLOCK] >> 8 if self._fresh else 0)

    def _execute(self, words: Sequence[int], tx: bytes, size: int) -> None:
        """Take up a command; its response goes out with the next frame."""
        command = words[0]
        is_write = command & 0xE000 == 0x6000
        used = 1 + ((command & 0x7F) + 1 if is_write else 0)
        self._crc_error = False
        if self._registers[MODE] & MODE_RX_CRC:
            self._crc_error = len(words) <= used or self._crc(tx[: used * size]) != words[used]
        if self._crc_error and not is_write:
            self._response = [self._status()]
            return
        if is_write:
            self._write(command, words[1:used])
        elif command & 0xE000 == 0xA000:
            self._read(command)
        else:
            self._simple(command, len(words))

    def _simple(self, command: int, words: int) -> None:
        if command == 0x0011:
            if words >= CHANNELS + 2:
                self.power_on_reset()
                self._response = [RESET_ACK]
            else:  # a reset needs the whole frame
                self._response = [0x0011]
        elif command in (0x0022, 0x0033):
            if not self._locked:
                self._standby = command == 0x0022
                if not self._standby:
                    self._restart()
            self._response = [command]
        elif command in (0x0555, 0x0655):
            self._locked = command == 0x0555
            self._response = [command]

    def _read(self, command: int) -> None:
        address, count = command >> 7 & 0x3F, (command & 0x7F) + 1
        values = [self._register(a) if a < REGISTERS else 0 for a in range(address, address + count)]
        self._response = values if count == 1 else [0xE000 | command & 0x1FFF, *values]

    def _register(self, address: int) -> int:
        if address == STATUS:
            return self._status()
        if address == REGMAP_CRC and self._registers[MODE] & MODE_REG_CRC:
            return self._crc(b"".join(v.to_bytes(2, "big") for v in self._registers[MODE:0x31]))
        return self._registers[address]

    def _write(self, command: int, values: Sequence[int]) -> None:
        address = command >> 7 & 0x3F
        self._response = [0x4000 | address << 7 | max(len(values) - 1, 0)]
        if self._locked:
            return
        conversion_changed = False
        for register, value in zip(range(address, REGISTERS), values, strict=False):
            if register in (ID, STATUS, REGMAP_CRC):
                continue
            if register == MODE:
                value = value & ~MODE_RESET_FLAG | self._registers[MODE] & value & MODE_RESET_FLAG  # only clears
            conversion_changed |= register in (CLOCK, GAIN1, GAIN2) and value != self._registers[register]
            self._registers[register] = value
        self._refresh()
        if conversion_changed:
            self._resync = True
            self._restart()
