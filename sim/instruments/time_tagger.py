"""Bob's time tagger: SCPI with binary blocks (reference pair B2).

Block, little-endian: 48-byte header and 8-byte records.
0 'QTG1' | 4 u16 48 | 6 u16 flags (1 overflow inside, 2 reference unlocked, 4 gated, 8 more waiting) | 8 u64 sequence |
16 i64 from ps | 24 i64 to ps | 32 u32 records | 36 u32 lost since RUN | 40 u32 gate ppm | 44 u32 CRC-32 of header bytes
0..43 and the records. Record: time mod 2^54 ps | channel << 54 | kind << 60; kinds 0 click, 1 error, 2 overflow begin,
3 overflow end, 4 missed (its time field is the number lost on the channel), 5 marker.
"""

from __future__ import annotations

import struct
import zlib

import numpy as np
import numpy.typing as npt

from sim.ports import TaggerPort
from sim.scpi import Argument, ScpiError, ScpiInstrument, block, integer, number, pair
from sim.trouble import Trouble

Records = npt.NDArray[np.uint64]

CHANNELS = 3
FIFO_RECORDS = 4_000_000
HEADER_BYTES, RECORD_BYTES = 48, 8
KIND_OVERFLOW_BEGIN, KIND_OVERFLOW_END, KIND_MISSED = 2, 3, 4
FLAG_OVERFLOW, FLAG_UNLOCKED, FLAG_GATED, FLAG_MORE = 1, 2, 4, 8
TIME_MASK = (1 << 54) - 1
ALWAYS_PPM = 1_000_000
PULSE_V = 0.4
MAX_DELAY_PS = 1_000_000
_HEAD = struct.Struct("<4sHHQqqIII")


def records(times: npt.NDArray[np.int64], channels: npt.NDArray[np.uint8]) -> Records:
    """Click records."""
    packed: Records = times.astype(np.uint64) & np.uint64(TIME_MASK)
    packed |= channels.astype(np.uint64) << np.uint64(54)
    return packed


def marker(kind: int, time_or_count: int, channel: int = 0) -> Records:
    """One record of another kind."""
    return np.array([time_or_count & TIME_MASK | channel << 54 | kind << 60], dtype=np.uint64)


class Fifo:
    """The device's memory. When full it takes an 'overflow begin' and only counts clicks until the next read."""

    def __init__(self, capacity: int = FIFO_RECORDS) -> None:
        self._capacity = capacity
        self.clear()

    def limit(self, capacity: int) -> None:
        """For faults."""
        self._capacity = capacity

    def clear(self) -> None:
        self._parts: list[Records] = []
        self.waiting = 0
        self.lost = 0
        self._overflowing = False
        self._missed = np.zeros(16, dtype=np.int64)

    def put(self, times: npt.NDArray[np.int64], channels: npt.NDArray[np.uint8]) -> None:
        room = max(self._capacity - self.waiting, 0)
        fits = 0 if self._overflowing else min(room, len(times))
        if fits:
            self._append(records(times[:fits], channels[:fits]))
        if fits == len(times):
            return
        if not self._overflowing:
            self._append(marker(KIND_OVERFLOW_BEGIN, int(times[fits])))
            self._overflowing = True
        self._missed += np.bincount(channels[fits:], minlength=16)
        self.lost += len(times) - fits

    def take(self, limit: int, now_ps: int) -> tuple[Records, bool, int | None]:
        """Up to `limit` records, whether an overflow ended with this read, and the time field of the first one left."""
        ended = self._overflowing
        if ended:
            for channel in np.flatnonzero(self._missed):
                self._append(marker(KIND_MISSED, int(self._missed[channel]), int(channel)))
            self._append(marker(KIND_OVERFLOW_END, now_ps))
            self._overflowing = False
            self._missed[:] = 0
        everything = np.concatenate(self._parts) if self._parts else np.empty(0, dtype=np.uint64)
        out, rest = everything[:limit], everything[limit:]
        self._parts = [rest] if len(rest) else []
        self.waiting = len(rest)
        timed = rest[rest >> np.uint64(60) != KIND_MISSED]  # a 'missed' record has a count where others have a time
        return out, ended, int(timed[0]) & TIME_MASK if len(rest) else None

    def _append(self, part: Records) -> None:
        self._parts.append(part)
        self.waiting += len(part)


class TimeTagger(ScpiInstrument):
    """`execute` runs a message. `reference_unlocked` is for faults."""

    def __init__(self, port: TaggerPort, serial: str, *, fifo_records: int = FIFO_RECORDS) -> None:
        super().__init__(f"QMODD,TIME-TAGGER,{serial},1.0")
        self._port = port
        self._fifo = Fifo(fifo_records)
        self.trouble = Trouble(self._troubled)
        self.reference_unlocked = False
        add = self.commands.add
        add("INPut#:THReshold", self._set_threshold, 1)
        add("INPut#:THReshold?", lambda n: repr(self._thresholds[self._input(n)]))
        add("INPut#:DELay", self._set_delay, 1)
        add("INPut#:DELay?", lambda n: str(self._delays[self._input(n)]))
        add("TAGS:RUN", self._run_tags)
        add("TAGS:STOP", self._stop)
        add("TAGS:TIME?", lambda: str(self._now()))
        add("TAGS:DATA?", self._data, 0, 1)
        add("TAGS:AVAilable?", lambda: str(self._pulled().waiting))
        add("TAGS:DEPTh?", lambda: str(fifo_records))
        add("TAGS:LOST?", lambda: str(self._pulled().lost))
        add("TAGS:GATE", self._set_gate, 2)
        add("TAGS:GATE?", lambda: pair(self._gate))
        add("COUNt?", self._counts)
        add("COUNt:RATE?", self._rates)
        add("STATus:QUEStionable?", lambda: str(int(self._unlocked())))
        self.reset()

    def power_on_reset(self) -> None:
        self.reset()
        self._errors.clear()

    def reset(self) -> None:
        """Stopped, no gate, no delays."""
        self._running = False
        self._port.stop()
        self._thresholds = [0.1] * CHANNELS
        self._delays = np.zeros(CHANNELS, dtype=np.int64)
        self._gate = (0, 0)
        self._port.set_gate(0, 0)
        self._clear()

    def _clear(self) -> None:
        self._fifo.clear()
        self._sequence = 0
        self._from = self._to = self._noised = 0
        self._totals = np.zeros(CHANNELS, dtype=np.int64)
        self._rated = (0, self._totals.copy())
        self._held: tuple[npt.NDArray[np.int64], npt.NDArray[np.uint8]] = (np.empty(0, np.int64), np.empty(0, np.uint8))

    # --- settings ------------------------------------------------------------------------------------------------

    @staticmethod
    def _input(suffix: int) -> int:
        if not 1 <= suffix <= CHANNELS:
            raise ScpiError(-113, f"input {suffix}")
        return suffix - 1

    def _set_threshold(self, suffix: int, argument: Argument) -> None:
        volts = number(argument)
        if not -2.5 <= volts <= 2.5:
            raise ScpiError(-222, "threshold")
        self._pulled()
        self._thresholds[self._input(suffix)] = volts

    def _set_delay(self, suffix: int, argument: Argument) -> None:
        picoseconds = integer(argument)
        if abs(picoseconds) > MAX_DELAY_PS:
            raise ScpiError(-222, "delay")
        self._pulled()
        self._delays[self._input(suffix)] = picoseconds

    def _set_gate(self, open_for: Argument, period: Argument) -> None:
        open_ps, period_ps = integer(open_for), integer(period)
        if (open_ps, period_ps) != (0, 0) and not 0 < open_ps <= period_ps:
            raise ScpiError(-222, "gate")
        self._pulled()
        self._gate = (open_ps, period_ps)
        self._port.set_gate(open_ps, period_ps)

    # --- streaming -----------------------------------------------------------------------------------------------

    def _run_tags(self) -> None:
        self._clear()
        self._port.start()
        self._running = True

    def _stop(self) -> None:
        self._pulled()
        self._running = False
        self._port.stop()

    def _now(self) -> int:
        return self._port.now_ps() if self._running else self._to

    def _pulled(self) -> Fifo:
        """The memory with everything in it that has been clicked by now."""
        if not self._running:
            return self._fifo
        times, channels, upto = self._port.collect()
        if self.trouble.places("noisy"):
            times, channels = self._with_noise(times, channels, upto)
        heard = np.array(
            [0.0 < v < PULSE_V and not self.trouble.has("dead", c) for c, v in enumerate(self._thresholds)]
        )
        if not heard.all():
            seen = heard[channels]
            times, channels = times[seen], channels[seen]
        self._totals += np.bincount(channels, minlength=CHANNELS)[:CHANNELS]
        self._to = upto
        if self._delays.any() or len(self._held[0]):
            times, channels = self._delayed(times, channels, upto)
        self._fifo.put(times, channels)
        return self._fifo

    def _unlocked(self) -> bool:
        return self.reference_unlocked or self.trouble.has("unlocked")

    def _troubled(self) -> None:
        self._fifo.limit(int(self.trouble.value("overflow", default=64.0, sound=FIFO_RECORDS)))

    def _with_noise(
        self, times: npt.NDArray[np.int64], channels: npt.NDArray[np.uint8], upto: int
    ) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.uint8]]:
        """Clicks of inputs that click by themselves, evenly spread over the time since the last."""
        since, self._noised = min(self._noised, upto), upto
        for place in self.trouble.places("noisy"):
            count = int(self.trouble.value("noisy", place, default=20_000.0) * (upto - since) * 1e-12)
            extra = np.linspace(since, upto, count, endpoint=False).astype(np.int64)
            times = np.concatenate([times, extra])
            channels = np.concatenate([channels, np.full(count, int(place), dtype=np.uint8)])
        order = np.argsort(times, kind="stable")
        return times[order], channels[order]

    def _delayed(
        self, times: npt.NDArray[np.int64], channels: npt.NDArray[np.uint8], upto: int
    ) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.uint8]]:
        """Clicks with their inputs' delays, in order; what lies beyond the end waits for the next time."""
        self._to = max(self._from, upto + int(min(self._delays.min(), 0)))
        times = np.concatenate([self._held[0], times + self._delays[channels]])
        channels = np.concatenate([self._held[1], channels])
        order = np.argsort(times, kind="stable")
        times, channels = times[order], channels[order]
        cut = int(np.searchsorted(times, self._to))
        self._held = (times[cut:], channels[cut:])
        return times[:cut], channels[:cut]

    def _data(self, *arguments: Argument) -> bytes:
        limit = FIFO_RECORDS * 2
        if arguments:
            limit = (integer(arguments[0]) - HEADER_BYTES) // RECORD_BYTES
            if limit < 1:
                raise ScpiError(-222, "too few bytes for a record")
        fifo = self._pulled()
        out, ended, left = fifo.take(limit, self._to)
        to = self._to
        if left is not None:  # the block ends where the first record that is left begins
            to = self._from + (left - self._from & TIME_MASK)
        to = max(min(to, self._to), self._from)
        answer = self._block(out, to, overflow=ended, more=left is not None)
        self._sequence += 1
        self._from = to
        return answer

    def _block(self, out: Records, to: int, *, overflow: bool, more: bool) -> bytes:
        open_ps, period_ps = self._gate
        flags = (FLAG_OVERFLOW if overflow else 0) | (FLAG_MORE if more else 0)
        flags |= (FLAG_GATED if period_ps else 0) | (FLAG_UNLOCKED if self._unlocked() else 0)
        ppm = round(1e6 * open_ps / period_ps) if period_ps else ALWAYS_PPM
        lost = min(self._fifo.lost, 0xFFFFFFFF)
        head = _HEAD.pack(b"QTG1", HEADER_BYTES, flags, self._sequence, self._from, to, len(out), lost, ppm)
        body = out.tobytes()
        return block(head + struct.pack("<I", zlib.crc32(body, zlib.crc32(head))) + body)

    def _counts(self) -> str:
        self._pulled()
        return ",".join(map(str, self._totals.tolist()))

    def _rates(self) -> str:
        """Clicks a second since the last time this was asked (or since RUN)."""
        self._pulled()
        now, (then, before) = self._now(), self._rated
        self._rated = (now, self._totals.copy())
        seconds = (now - then) * 1e-12
        rates = (self._totals - before) / seconds if seconds > 0.0 else np.zeros(CHANNELS)
        return ",".join(f"{r:.3f}" for r in rates)
