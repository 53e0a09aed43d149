"""Alice's symbol source: SCPI with binary blocks (reference pair B1).

Symbols stay in the device: each slot sent in KEY mode is answered once, then erased. The memory holds 2^34 slots.

Answer block, little-endian, 32-byte header and two slots a byte, low nibble first:
0 'QSY1' | 4 u16 32 | 6 u16 flags (1: some slots not valid) | 8 u64 first slot asked | 16 u32 slots | 20 u32 run |
24 u32 0 | 28 u32 CRC-32 of header bytes 0..27 and the nibbles. Nibble: bit 0 basis (1 X), 1 value, 2 decoy, 3 not
valid.
Request block: u64 first slot, u32 gaps to each next.

Where there is a pilot, every slot whose index is a multiple of its period is not valid in KEY mode.
"""

from __future__ import annotations

import bisect
import struct
import zlib

import numpy as np
import numpy.typing as npt

from sim.ports import SourcePort
from sim.scpi import Argument, Block, ScpiError, ScpiInstrument, block, boolean, integer, number, pair, word
from sim.trouble import Trouble

Slots = npt.NDArray[np.int64]

MEMORY_SLOTS = 1 << 34
LEAD_S = 0.2
MAX_RANGE = 1 << 20
MAX_DRIVE_V = 12.0
RANDOMISER_LEVELS = 16
INVALID = 8
BITS = {"basis": 1, "value": 2, "decoy": 4}
MODES = ("OFF", "CW", "NULL", "FIX", "SYNC", "KEY")
_HEAD = struct.Struct("<4sHHQIII")


class ReadOnce:
    """Which slots have been answered already. Requests come mostly in ascending order, so each is kept as it came."""

    def __init__(self) -> None:
        self._firsts: list[int] = []
        self._batches: list[Slots] = []
        self._last = -1

    def claim(self, slots: Slots) -> npt.NDArray[np.bool_]:
        """True where a slot (ascending) is asked for the first time, shape as `slots`; they count as answered now."""
        fresh = np.ones(len(slots), dtype=np.bool_)
        fresh[1:] = slots[1:] != slots[:-1]
        if len(slots) and slots[0] <= self._last:
            for batch in self._batches:
                if batch[-1] >= slots[0] and batch[0] <= slots[-1]:
                    at = np.minimum(np.searchsorted(batch, slots), len(batch) - 1)
                    fresh &= batch[at] != slots
        taken = slots[fresh]
        if len(taken):
            place = bisect.bisect(self._firsts, int(taken[0]))
            self._firsts.insert(place, int(taken[0]))
            self._batches.insert(place, taken)
            self._last = max(self._last, int(taken[-1]))
        return fresh

    def forget_before(self, slot: int) -> None:
        """Slots that can no longer be asked for need no book-keeping."""
        keep = [i for i, b in enumerate(self._batches) if b[-1] >= slot]
        self._firsts = [self._firsts[i] for i in keep]
        self._batches = [self._batches[i] for i in keep]


def answer_block(first: int, run: int, nibbles: npt.NDArray[np.uint8]) -> bytes:
    """The answer as an IEEE 488.2 block."""
    even = np.append(nibbles, np.uint8(0)) if len(nibbles) % 2 else nibbles
    packed = (even[0::2] | even[1::2] << 4).tobytes()
    flags = int(bool((nibbles & INVALID).any()))
    head = _HEAD.pack(b"QSY1", 32, flags, first, len(nibbles), run, 0)
    crc = zlib.crc32(packed, zlib.crc32(head))
    return block(head + struct.pack("<I", crc) + packed)


def requested_slots(argument: Argument) -> Slots:
    """Slots of a request block, ascending. Raises ScpiError(-161)."""
    if not isinstance(argument, Block) or len(argument.data) < 8 or len(argument.data) % 4:
        raise ScpiError(-161)
    (first,) = struct.unpack_from("<Q", argument.data)
    gaps = np.frombuffer(argument.data, "<u4", offset=8).astype(np.int64)
    if first >= 1 << 62:
        raise ScpiError(-222, "first slot")
    slots: Slots = first + np.concatenate([np.zeros(1, np.int64), np.cumsum(gaps)])
    return slots


class SymbolSource(ScpiInstrument):
    """`execute` runs a message. `reference_unlocked` and `rng_fault` are for faults; they show in STAT:QUES?."""

    def __init__(self, port: SourcePort, serial: str) -> None:
        super().__init__(f"QMODD,SYMBOL-SOURCE,{serial},1.0")
        self._port = port
        self.trouble = Trouble(self._redrive)
        self.reference_unlocked = False
        self.rng_fault = False
        add = self.commands.add
        add("SYMBol:PERiod?", self._period)
        add("SYMBol:BIN?", lambda: str(round(port.bin_s * 1e12)))
        add("SYMBol:PROBability:BASis", lambda p: self._set_probability(0, p), 1)
        add("SYMBol:PROBability:DECoy", lambda p: self._set_probability(1, p), 1)
        add("SYMBol:PROBability:BASis?", lambda: repr(self._probabilities[0] / 65536))
        add("SYMBol:PROBability:DECoy?", lambda: repr(self._probabilities[1] / 65536))
        for node, which in (("CARVer", "carver"), ("STATe", "state"), ("DECoy", "decoy")):
            add(f"OUTPut:{node}:AMPLitude", lambda v, w=which: self._set_drive(w, v), 1)
            add(f"OUTPut:{node}:AMPLitude?", lambda w=which: repr(self._drives[w]))
        add("OUTPut:RANDomiser", self._set_randomiser, 1)
        add("OUTPut:RANDomiser?", lambda: str(int(self._randomiser)))
        add("OUTPut:RANDomiser:RMS?", lambda: f"{self._randomiser_rms():.4f}")
        add("SYMBol:PILot?", lambda: f"{port.pilot[0]},{port.pilot[1]!r}" if port.pilot[0] else "0,0")
        add("SYMBol:RUN", self._run_symbols)
        add("SYMBol:STOP", self._stop)
        add("SYMBol:RUN?", lambda: pair(port.run_now()))
        add("SYMBol:MODE", self._set_mode, 1, 3)
        add("SYMBol:MODE?", self._mode)
        add("SYMBol:MODE:AT", self._set_mode_at, 2, 4)
        add("SYMBol:MEMory?", lambda: pair(self._window()))
        add("SYMBol:READ?", self._read_symbols, 1)
        add("SYMBol:FREE", self._free, 1)
        add("SYMBol:RANGe?", self._range, 2)
        add("STATus:QUEStionable?", lambda: str(self._questionable()))
        self._drives: dict[str, float] = {}
        self._clear_run()
        self.reset()

    def power_on_reset(self) -> None:
        self.reset()
        self._errors.clear()

    def reset(self) -> None:
        """Stopped, dark, RF off."""
        self._stop()
        self._probabilities = [16384, 32768]
        self._port.set_probabilities(*self._probabilities)
        self._drives = {"carver": 0.0, "state": 0.0, "decoy": 0.0}
        self._redrive()
        self._randomiser = False
        self._port.set_randomiser(False)

    def _clear_run(self) -> None:
        self._freed = 0
        self._read = ReadOnce()
        self._fixed: list[tuple[int, str]] = []
        self._waiting_mode = "OFF"

    # --- drives and probabilities --------------------------------------------------------------------------------

    def _set_probability(self, which: int, argument: Argument) -> None:
        p = number(argument)
        if not 0.0 <= p <= 1.0:
            raise ScpiError(-222, "probability")
        run, slot = self._port.run_now()
        if run and self._port.mode_at(slot) == "KEY":
            raise ScpiError(-221, "KEY is running")
        self._probabilities[which] = round(p * 65536)
        self._port.set_probabilities(*self._probabilities)

    def _set_drive(self, which: str, argument: Argument) -> None:
        volts = number(argument)
        if not 0.0 <= volts <= MAX_DRIVE_V:
            raise ScpiError(-222, "amplitude")
        self._drives[which] = volts
        self._redrive()

    def _redrive(self) -> None:
        for which, volts in self._drives.items():
            self._port.set_rf(which, volts * self.trouble.value("weak", which, default=0.0, sound=1.0))

    def _period(self) -> str:
        return str(round(self._port.period_s * 1e12 * self.trouble.value("period", default=1.01, sound=1.0)))

    def _set_randomiser(self, argument: Argument) -> None:
        self._randomiser = boolean(argument)
        self._port.set_randomiser(self._randomiser)

    def _randomiser_rms(self) -> float:
        """Rms of the phases that the randomiser sets, rad, as the device measures at its driver's output."""
        phases = np.arange(RANDOMISER_LEVELS) * (2.0 * np.pi / RANDOMISER_LEVELS)
        scale = self.trouble.value("randomiser", default=0.3, sound=1.0)
        return scale * float(np.std(phases)) if self._randomiser else 0.0

    def _questionable(self) -> int:
        over = any(v > 0.9 * MAX_DRIVE_V for v in self._drives.values())
        unlocked = self.reference_unlocked or self.trouble.has("unlocked")
        unhealthy = self.rng_fault or self.trouble.has("health")
        return int(unlocked) | int(unhealthy) << 1 | int(over) << 2

    # --- runs and modes ------------------------------------------------------------------------------------------

    def _run_symbols(self) -> None:
        waiting = self._waiting_mode
        self._clear_run()
        self._port.start_run()
        if waiting.startswith("FIX"):
            self._fixed.append((0, waiting))

    def _stop(self) -> None:
        self._port.stop_run()
        self._clear_run()

    def _parse_mode(self, arguments: tuple[Argument, ...]) -> tuple[str, int, int]:
        mode = word(arguments[0])
        if mode not in MODES:
            raise ScpiError(-224, mode[:12])
        if mode != "FIX":
            if len(arguments) > 1:
                raise ScpiError(-108)
            return mode, 0, 0
        if len(arguments) != 3:
            raise ScpiError(-109)
        state, intensity = integer(arguments[1]), integer(arguments[2])
        if not (0 <= state <= 3 and 0 <= intensity <= 1):
            raise ScpiError(-222, "state or intensity")
        return mode, state, intensity

    def _set_mode(self, *arguments: Argument) -> None:
        mode, state, intensity = self._parse_mode(arguments)
        run, slot = self._port.run_now()
        self._schedule(slot, mode, state, intensity)
        if not run:
            self._waiting_mode = f"FIX,{state},{intensity}" if mode == "FIX" else mode

    def _set_mode_at(self, at: Argument, *arguments: Argument) -> None:
        mode, state, intensity = self._parse_mode(arguments)
        slot, (run, now) = integer(at), self._port.run_now()
        if not run:
            raise ScpiError(-221, "not running")
        if (slot - now) * self._port.period_s < LEAD_S or slot >= 1 << 62:
            raise ScpiError(-222, "lead less than 0.2 s")
        self._schedule(slot, mode, state, intensity)

    def _schedule(self, slot: int, mode: str, state: int, intensity: int) -> None:
        self._port.schedule(slot, mode, state, intensity)
        if mode == "FIX":
            self._fixed.append((slot, f"FIX,{state},{intensity}"))

    def _mode(self) -> str:
        run, slot = self._port.run_now()
        if not run:
            return self._waiting_mode
        mode = self._port.mode_at(slot)
        if mode != "FIX":
            return mode
        begun = [text for first, text in self._fixed if first <= slot]
        return begun[-1] if begun else mode

    # --- symbols -------------------------------------------------------------------------------------------------

    def _window(self) -> tuple[int, int]:
        """First slot in memory and the end (first not sent yet); (0, 0) when stopped."""
        run, now = self._port.run_now()
        return (max(self._freed, now - MEMORY_SLOTS, 0), now) if run else (0, 0)

    def _read_symbols(self, argument: Argument) -> bytes:
        slots = requested_slots(argument)
        first, end = self._window()
        good = (slots >= first) & (slots < end)
        asked = slots[good]
        asked = asked[self._port.modes(asked)] if len(asked) else asked
        if self._port.pilot[0]:
            asked = asked[asked % self._port.pilot[0] != 0]
        valid = asked[self._read.claim(asked)]
        nibbles = np.full(len(slots), INVALID, dtype=np.uint8)
        if len(valid):
            nibbles[np.searchsorted(slots, valid)] = self._random(valid, self._port.symbols(valid))
        self._read.forget_before(first)
        return answer_block(int(slots[0]), self._port.run_now()[0], nibbles)

    def _random(self, slots: Slots, nibbles: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
        """Symbols of KEY mode as the device has them; where its generator is broken what it emits is not changed, for
        only its own tests look at single symbols of such a device."""
        nibbles = (nibbles & 7).astype(np.uint8)
        for which, bit in BITS.items():
            if self.trouble.has("stuck", which):
                high = self.trouble.value("stuck", which, default=0.0) > 0.0
                nibbles = nibbles | np.uint8(bit) if high else nibbles & np.uint8(7 ^ bit)
            elif self.trouble.has("biased", which):
                share = self.trouble.value("biased", which, default=0.3)
                more = (slots * 2654435761 + bit) % 1000 < 1000.0 * share
                nibbles = np.where(more, nibbles | np.uint8(bit), nibbles).astype(np.uint8)
        return nibbles

    def _free(self, argument: Argument) -> None:
        _, end = self._window()
        self._freed = max(self._freed, min(integer(argument), end))
        self._read.forget_before(self._freed)

    def _range(self, start: Argument, number_of: Argument) -> bytes:
        first, count = integer(start), integer(number_of)
        begin, end = self._window()
        if not (0 < count <= MAX_RANGE and 0 <= first < 1 << 62):
            raise ScpiError(-222, "range")
        slots = np.arange(first, first + count, dtype=np.int64)
        if self._port.modes(slots).any():
            raise ScpiError(-221, "KEY slots")
        held = (slots >= begin) & (slots < end)
        nibbles = np.where(held, self._port.symbols(slots), INVALID).astype(np.uint8)
        return answer_block(first, self._port.run_now()[0], nibbles)
