"""What Alice's symbol source sends, slot by slot: runs, scheduled modes, symbols. Implements `SourcePort`."""

from __future__ import annotations

import bisect
import math
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field, replace

import numpy as np
import numpy.typing as npt

from sim.individuals import stream
from sim.physics.clicks import KIND_FIXED, KIND_KEY, KIND_SYNC
from sim.physics.optics import PILOT_MINUS, PILOT_PLUS, ROWS
from sim.physics.symbols import key_symbols, nibble_of, sync_symbols
from sim.physics.thermal import Stage

Floats = npt.NDArray[np.float64]
Slots = npt.NDArray[np.int64]

MODES = ("OFF", "CW", "NULL", "FIX", "SYNC", "KEY")
PULSED = ("FIX", "SYNC", "KEY", "NULL")
# Tables of a slice of clicks: driven pulses, pulses with the state modulator undriven, unmodulated light.
TABLE_PULSES, TABLE_NULL, TABLE_CONTINUOUS = 0, 1, 2
BIN_S = 800e-12
UNPATTERNED = np.zeros((2, 2))


@dataclass(frozen=True)
class Stretch:
    """One mode from slot `first` on, with the probabilities of X and of decoy in 1/65536, and a pilot in KEY mode in
    every slot that is a multiple of `pilot` (0: none). `pattern`: how much intensity k differs after j, relative, row
    by row; empty: not at all."""

    first: int
    mode: str = "OFF"
    state: int = 0
    intensity: int = 0
    t_x: int = 0
    t_decoy: int = 0
    pilot: int = 0
    pattern: tuple[float, ...] = ()

    @property
    def fixed_class(self) -> int:
        return 2 * self.state + self.intensity if self.mode == "FIX" else 0

    def row(self, first: int, count: int) -> tuple[int, int, int, int, int, int, int, int]:
        """A segment for the click kernels (columns of `sim.physics.clicks`)."""
        kind = {"KEY": KIND_KEY, "SYNC": KIND_SYNC}.get(self.mode, KIND_FIXED)
        table = {"NULL": TABLE_NULL, "OFF": TABLE_CONTINUOUS, "CW": TABLE_CONTINUOUS}.get(self.mode, TABLE_PULSES)
        return first, count, kind, table, self.fixed_class, self.t_x, self.t_decoy, self.pilot

    def weights(self) -> Floats:
        """Share of each row of `optics.table`, shape (11,); all 0 for unmodulated light."""
        w = np.zeros(ROWS)
        if self.mode == "NULL":
            w[8] = 1.0
        elif self.mode == "FIX":
            w[self.fixed_class] = 1.0
        elif self.mode == "SYNC":
            w[[0, 2]] = 0.5
        elif self.mode == "KEY":
            x, d = self.t_x / 65536.0, self.t_decoy / 65536.0
            w[:8] = np.outer([(1 - x) / 2, (1 - x) / 2, x / 2, x / 2], [1 - d, d]).ravel()
            if self.pattern:
                w[:8] *= np.tile(self._patterning(d), 4)
            if self.pilot:
                w *= 1.0 - 1.0 / self.pilot
                w[[PILOT_PLUS, PILOT_MINUS]] = 0.5 / self.pilot
        return w

    def _patterning(self, p_decoy: float) -> Floats:
        """Mean of each intensity in KEY mode over that of its class, shape (2,): a pilot before counts as a signal."""
        after_pilot = 1.0 / max(1, self.pilot - 1) if self.pilot else 0.0
        decoy = (1.0 - after_pilot) * p_decoy
        out: Floats = 1.0 + np.reshape(self.pattern, (2, 2)) @ np.array([1.0 - decoy, decoy])
        return out


@dataclass
class Run:
    """Slots counted from `origin_ps` (world time), until `end_ps`. run_id 0: the source is stopped, nothing is sent."""

    run_id: int
    origin_ps: int
    key: tuple[np.uint64, np.uint64]
    stretches: list[Stretch] = field(default_factory=lambda: [Stretch(0)])
    end_ps: int | None = None

    def index_at(self, slot: int) -> int:
        return max(0, bisect.bisect_right(self.stretches, slot, key=lambda s: s.first) - 1)

    def at(self, slot: int) -> Stretch:
        return self.stretches[self.index_at(slot)]

    def between(self, first: int, end: int) -> list[tuple[int, int, Stretch]]:
        """(first slot, end slot, stretch) of every piece of [first, end)."""
        out = []
        for i in range(self.index_at(first), len(self.stretches)):
            s = self.stretches[i]
            stop = self.stretches[i + 1].first if i + 1 < len(self.stretches) else end
            a, b = max(first, s.first if i else first), min(end, stop)
            if a >= end:
                break
            if a < b:
                out.append((a, b, s))
        return out

    def insert(self, stretch: Stretch) -> None:
        """Replaces a stretch that begins at the same slot; later ones stay."""
        at = bisect.bisect_left(self.stretches, stretch.first, key=lambda s: s.first)
        same = at < len(self.stretches) and self.stretches[at].first == stretch.first
        self.stretches[at : at + same] = [stretch]

    def forget_after(self, slot: int) -> None:
        self.stretches = [s for s in self.stretches if s.first <= slot] or [Stretch(slot)]


class Source:
    """Slots follow Alice's clock, which is the world's time."""

    def __init__(
        self,
        stage: Stage,
        now_s: Callable[[], float],
        period_ps: int,
        seed: int,
        pilot: tuple[int, float] = (0, 0.0),
        patterning: Floats = UNPATTERNED,
    ) -> None:
        """`pilot`: every so many slots (0: none), and its gain over a signal slot, dB. `patterning`: (2, 2), as in
        `clicks.photodetections`."""
        self.pilot = pilot
        self.patterning = patterning
        self._pattern = tuple(patterning.ravel().tolist()) if patterning.any() else ()
        self._stage = stage
        self._now = now_s
        self._seed = seed
        self.period_ps = period_ps
        self.period_s = period_ps * 1e-12
        self.bin_s = BIN_S
        self.rf = {"carver": 0.0, "state": 0.0, "decoy": 0.0}
        self.randomiser = False
        self._count = 0
        self._first = Stretch(0)
        self._probabilities = (0, 0)
        self.runs: deque[Run] = deque([self._idle(0)])

    def set_rf(self, which: str, volts: float) -> None:
        """Raises ValueError for an output that is not carver, state or decoy."""
        if which not in self.rf or not math.isfinite(volts):
            raise ValueError(f"RF output {which!r} = {volts!r} V: outputs are carver, state, decoy")
        self._stage.before_change()
        self.rf[which] = volts

    def set_randomiser(self, on: bool) -> None:
        self.randomiser = on

    def start_run(self) -> int:
        self._stage.before_change()
        self._count += 1
        self._next_run(self._count, [replace(self._first, first=0)])
        return self._count

    def stop_run(self) -> None:
        self._stage.before_change()
        self._first = Stretch(0)
        self._next_run(0, [Stretch(0)])

    def run_now(self) -> tuple[int, int]:
        self._stage.advance()
        run = self.runs[-1]
        return run.run_id, self.slot_now() if run.run_id else 0

    def slot_now(self) -> int:
        """Slot that is being sent now, without moving the world."""
        return (self.now_ps() - self.runs[-1].origin_ps) // self.period_ps

    def stretch_now(self) -> Stretch:
        return self.runs[-1].at(self.slot_now())

    def set_probabilities(self, t_x: int, t_decoy: int) -> None:
        """In 1/65536, for all slots from now on. Raises ValueError outside 0..65536."""
        if not (0 <= t_x <= 65536 and 0 <= t_decoy <= 65536):
            raise ValueError(f"probabilities {t_x}, {t_decoy} are not in 0 to 65536")
        self._stage.before_change()
        self._probabilities = (t_x, t_decoy)
        self._first = replace(self._first, t_x=t_x, t_decoy=t_decoy)
        run, now = self.runs[-1], self.slot_now()
        if run.run_id:
            run.insert(replace(run.at(now), first=now))
            run.stretches = [s if s.first < now else replace(s, t_x=t_x, t_decoy=t_decoy) for s in run.stretches]

    def schedule(self, slot: int, mode: str, state: int = 0, intensity: int = 0) -> None:
        """A mode at once (slot <= now) cancels what was planned. With no run going it is the mode of the next slot 0.

        Raises ValueError for an unknown mode, state or intensity.
        """
        if mode not in MODES or not 0 <= state <= 3 or intensity not in (0, 1):
            raise ValueError(f"mode {mode!r}, state {state}, intensity {intensity}: modes are {', '.join(MODES)}")
        self._stage.before_change()
        pilot = self.pilot[0] if mode == "KEY" else 0
        pattern = self._pattern if mode == "KEY" else ()
        stretch = Stretch(slot, mode, state, intensity, *self._probabilities, pilot=pilot, pattern=pattern)
        run, now = self.runs[-1], self.slot_now()
        if not run.run_id:
            self._first = stretch
            return
        if slot <= now:
            run.forget_after(now)
            stretch = replace(stretch, first=now)
        run.insert(stretch)

    def mode_at(self, slot: int) -> str:
        self._stage.advance()
        return self.runs[-1].at(slot).mode

    def symbols(self, slots: Slots) -> npt.NDArray[np.uint8]:
        """Nibbles of slots of the present run; 0 where no symbol was sent (OFF, CW, NULL)."""
        slots = np.ascontiguousarray(slots, np.int64)
        out = np.zeros(len(slots), np.uint8)
        run = self.runs[-1]
        where = self._indices(slots)
        for i in np.unique(where):
            stretch, here = run.stretches[i], where == i
            if stretch.mode == "KEY":
                out[here] = key_symbols(slots[here], *run.key, np.uint64(stretch.t_x), np.uint64(stretch.t_decoy))
            elif stretch.mode == "SYNC":
                out[here] = sync_symbols(slots[here])
            elif stretch.mode == "FIX":
                out[here] = nibble_of(stretch.state, stretch.intensity)
        return out

    def modes(self, slots: Slots) -> npt.NDArray[np.bool_]:
        """True where a slot of the present run was sent in KEY mode."""
        keyed = np.array([s.mode == "KEY" for s in self.runs[-1].stretches])
        out: npt.NDArray[np.bool_] = keyed[self._indices(np.asarray(slots, np.int64))]
        return out

    def now_ps(self) -> int:
        return round(self._now() * 1e12)

    def _indices(self, slots: Slots) -> npt.NDArray[np.intp]:
        firsts = np.array([s.first for s in self.runs[-1].stretches], np.int64)
        return np.maximum(np.searchsorted(firsts, slots, side="right") - 1, 0)

    def _idle(self, origin_ps: int) -> Run:
        return Run(0, origin_ps, (np.uint64(0), np.uint64(0)))

    def _next_run(self, run_id: int, stretches: list[Stretch]) -> None:
        now = self.now_ps()
        self.runs[-1].end_ps = now
        words = stream(self._seed, f"symbol key of run {self._count}").integers(1, 2**63, 2).astype(np.uint64)
        self.runs.append(Run(run_id, now, (words[0], words[1]), stretches))
        # Light of an earlier run may still be in the fibre; two runs back it has long arrived.
        while len(self.runs) > 8:
            self.runs.popleft()
