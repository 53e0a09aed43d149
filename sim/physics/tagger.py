"""The photon side of Bob's time tagger: slices of slots that wait to be drawn, and the clicks drawn from them.

Nothing is drawn before it is asked for: as the world moves on, slices are set aside with the table of their time, so
that drawing later gives what drawing at once would have given. Implements `TaggerPort`.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from sim.physics.clicks import (
    CELLS,
    CLASSES,
    LEAD,
    NEVER,
    PILOTS,
    SEGMENT_COLUMNS,
    cell_offsets,
    detect,
    photodetections,
)
from sim.physics.random64 import state_from
from sim.physics.source import Run, Source
from sim.physics.thermal import Stage

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Bytes = npt.NDArray[np.uint8]

SLICE_S = 0.020
CHUNK = 200_000  # expected candidates of one slice
CAPACITY = 260_000
WARM_SLOTS = 8  # drawn before a gate opens, so that detectors are dead when they should be
EDGE_PS = 1_500  # beyond this no click of a later slot is recorded earlier
PS = 1e12
SHORT_PS = 60_000_000  # so short that even the brightest light gives no more than CHUNK candidates
_NO_TABLE = np.zeros((3, CLASSES, CELLS))


class BobClock:
    """Bob's clock, exact to the picosecond: tag = tag_ref + (t - ref) (1 + y), restarted at will."""

    def __init__(self, y: float) -> None:
        self.y = y
        self._ref = 0
        self._tag = 0
        self._fraction = 0.0

    def at(self, world_ps: int) -> tuple[int, float]:
        """Whole and fractional ps of the tag at a world time."""
        d = world_ps - self._ref
        drift = self._fraction + d * self.y
        whole = math.floor(drift)
        return self._tag + d + whole, drift - whole

    def restart(self, world_ps: int) -> None:
        self._ref, self._tag, self._fraction = world_ps, 0, 0.0

    def set_offset(self, world_ps: int, y: float) -> None:
        """Another frequency from this world time on; the clock does not jump."""
        (self._tag, self._fraction), self._ref = self.at(world_ps), world_ps
        self.y = y


@dataclass(frozen=True, slots=True)
class Receiver:
    """parameters: shape (4, 3), see `sim.physics.clicks.detect`; jitter: (3, points + 1); delay_ps: (3,)."""

    parameters: Floats
    jitter: Floats
    delay_ps: Floats
    bin_ps: float


@dataclass(frozen=True, slots=True)
class Slice:
    """Slots [slot0, slot0 + slots) of one run, with all that is needed to draw their clicks at any later time."""

    key: tuple[np.uint64, np.uint64]
    slot0: int
    slots: int
    segments: Ints
    cumulative: Floats
    base: int
    fraction: float
    scale: float
    gate: tuple[int, int]
    swapped: bool = False


class Tagger:
    """tables: the optics of the present, shape (3, 10, 11), see `sim.physics.source`.

    delay_ps: the fibre's transit, whole and drifting part.
    """

    def __init__(
        self,
        stage: Stage,
        source: Source,
        clock: BobClock,
        receiver: Receiver,
        tables: Callable[[], Floats],
        delay_ps: Callable[[], tuple[int, float]],
        generator: np.random.Generator,
    ) -> None:
        self._stage = stage
        self._source = source
        self.clock = clock
        self._receiver = receiver
        self._tables = tables
        self._delay = delay_ps
        self._rng = state_from(generator)
        self._offsets = cell_offsets(receiver.bin_ps, receiver.delay_ps)
        self.running = False
        self.swapped = False  # the cables of DX0 and DX1 are exchanged
        self._gate = (0, 0)
        self._next = (0, 0)  # (identity of the run, its next slot)
        self._pending: deque[Slice] = deque()
        self._ready: list[tuple[Ints, Bytes]] = []
        self._upto = 0
        self._memory = np.empty((2, 3))
        self._photon_times, self._photon_detectors = np.empty(0), np.empty(0, np.uint8)
        self._click_times, self._click_channels = np.empty(0, np.int64), np.empty(0, np.uint8)

    @property
    def period_ps(self) -> int:
        return self._source.period_ps

    @property
    def gated(self) -> bool:
        return self._gate != (0, 0)

    def slice_s(self) -> float:
        """World time, s, that one slice should cover: 20 ms of open slots."""
        return SLICE_S / self._open_share()

    def start(self) -> None:
        self._stage.before_change()
        now = self._source.now_ps()
        self.clock.restart(now)
        self._pending.clear()
        self._ready.clear()
        self._upto = 0
        self._memory[0], self._memory[1] = -1e15, NEVER
        if not len(self._photon_times):
            self._photon_times, self._photon_detectors = np.empty(CAPACITY), np.empty(CAPACITY, np.uint8)
            self._click_times, self._click_channels = np.empty(CAPACITY, np.int64), np.empty(CAPACITY, np.uint8)
        run = self._run_at(now - self._delay()[0])
        self._next = (id(run), max(0, -(-(now - self._delay()[0] - run.origin_ps) // self.period_ps)))
        self.running = True

    def stop(self) -> None:
        self._stage.before_change()
        self.running = False

    def now_ps(self) -> int:
        self._stage.advance()
        return self.clock.at(self._source.now_ps())[0]

    def set_gate(self, open_ps: int, period_ps: int) -> None:
        """Look only during the first open_ps of every period_ps of the tag clock; (0, 0) or open = period: always.

        Raises ValueError when it is neither.
        """
        if (open_ps, period_ps) != (0, 0) and not 0 < open_ps <= period_ps:
            raise ValueError(f"gate open {open_ps} ps of {period_ps} ps: open must be in 1 to the period")
        self._stage.before_change()
        self._gate = (0, 0) if open_ps == period_ps else (open_ps, period_ps)

    def close(self) -> None:
        """Set aside, with the optics of now, all slots whose light has arrived."""
        if not self.running:
            return
        arrived = self._source.now_ps() - self._delay()[0]
        index = next((i for i, r in enumerate(self._source.runs) if id(r) == self._next[0]), None)
        runs = list(self._source.runs)[0 if index is None else index :]
        for run in runs:
            first = self._next[1] if id(run) == self._next[0] else 0
            end_ps = arrived if run.end_ps is None else min(arrived, run.end_ps)
            if end_ps < run.origin_ps:
                break
            end = max(first, (end_ps - run.origin_ps) // self.period_ps)
            self._next = (id(run), end)
            if end > first:
                self._set_aside(run, first, end)

    def pump(self, max_seconds: float) -> float:
        """Draw waiting slices, at most about max_seconds of them; the seconds drawn."""
        done = 0.0
        while self._pending and done < max_seconds:
            piece = self._pending.popleft()
            self._draw(piece)
            done += piece.slots * self.period_ps / PS
        return done

    def collect(self) -> tuple[Ints, Bytes, int]:
        """All clicks since the last time: sorted tags, ps; channels 0 DZ, 1 DX0, 2 DX1; the time they reach up to."""
        self._stage.advance()
        self.close()
        self.pump(math.inf)
        times = np.concatenate([t for t, _ in self._ready] or [np.empty(0, np.int64)])
        channels = np.concatenate([c for _, c in self._ready] or [np.empty(0, np.uint8)])
        if np.any(times[1:] < times[:-1]):
            order = np.argsort(times, kind="stable")
            times, channels = times[order], channels[order]
        cut = int(np.searchsorted(times, self._upto))
        self._ready = [(times[cut:].copy(), channels[cut:].copy())] if cut < len(times) else []
        return times[:cut], channels[:cut], self._upto

    def tag_of_slot(self, slot: int) -> float:
        """Tag, ps, of the early pulse of a slot of the present run at a detector without delay (truth)."""
        whole, drifting = self._delay()
        tag, fraction = self.clock.at(self._source.runs[-1].origin_ps + slot * self.period_ps + whole)
        return tag + fraction + drifting

    def _run_at(self, world_ps: int) -> Run:
        return next((r for r in reversed(self._source.runs) if r.origin_ps <= world_ps), self._source.runs[0])

    def _open_share(self) -> float:
        return self._gate[0] / self._gate[1] if self.gated else 1.0

    def _set_aside(self, run: Run, first: int, end: int) -> None:
        whole, drifting = self._delay()
        scale = 1.0 + self.clock.y
        step = self._most(run, first, end)
        for slot0 in range(first, end, step):
            stop = min(end, slot0 + step)
            base, fraction = self.clock.at(run.origin_ps + slot0 * self.period_ps + whole)
            segments = self._segments(run, slot0, stop, base, scale)
            cumulative = self._tables() if len(segments) else _NO_TABLE
            fraction += drifting * scale
            how = (base, fraction, scale, self._gate, self.swapped)
            self._pending.append(Slice(run.key, slot0, stop - slot0, segments, cumulative, *how))

    def _most(self, run: Run, first: int, end: int) -> int:
        """Slots of one slice, for no more than CHUNK expected candidates."""
        if (end - first) * self.period_ps * self._open_share() < SHORT_PS:
            return end - first
        used = sorted({s.row(a, 0)[3] for a, _, s in run.between(first, end)})
        tables = self._tables()[used, :, CELLS - 1]
        top = float(tables[:, :PILOTS].max())
        if every := max(s.pilot for _, _, s in run.between(first, end)):
            top += float(tables[:, PILOTS:].max()) / every
        top *= self._open_share()
        return max(1, int(CHUNK / top)) if top > 0.0 else end - first

    def _segments(self, run: Run, first: int, end: int, base: int, scale: float) -> Ints:
        rows = np.array([s.row(a, b - a) for a, b, s in run.between(first, end)], np.int64).reshape(-1, SEGMENT_COLUMNS)
        return self._opened(rows, first, end, base, scale) if self.gated else rows

    def _opened(self, rows: Ints, first: int, end: int, base: int, scale: float) -> Ints:
        """The parts of segments during which the gate is open, and a few slots before."""
        open_ps, period_ps = self._gate
        step = self.period_ps * scale
        stop_tag = base + math.ceil((end - first) * step)
        opens = np.arange(base // period_ps, stop_tag // period_ps + 1) * period_ps - base
        starts = first + np.floor(opens / step).astype(np.int64) - WARM_SLOTS
        stops = first + np.ceil((opens + open_ps) / step).astype(np.int64) + 1
        starts[1:] = np.maximum(starts[1:], stops[:-1])
        a = np.maximum(starts[:, None], rows[:, 0])
        b = np.minimum(stops[:, None], rows[:, 0] + rows[:, 1])
        window, row = np.nonzero(a < b)
        out = rows[row]
        out[:, 0], out[:, 1] = a[window, row], (b - a)[window, row]
        return out

    def _draw(self, piece: Slice) -> None:
        span = float(piece.slots * self.period_ps)
        self._upto = max(self._upto, piece.base + math.floor(span * piece.scale - LEAD * self.period_ps) - EDGE_PS)
        if not len(piece.segments):
            self._memory[self._memory < NEVER] -= span
            return
        n = photodetections(
            piece.slot0,
            piece.segments,
            *piece.key,
            piece.cumulative,
            self._offsets,
            float(self.period_ps),
            self._rng,
            self._photon_times,
            self._photon_detectors,
            self._source.patterning,
        )
        k = self._detect(piece, n, span) if n >= 0 else -1
        if k < 0:
            raise OverflowError(f"more than {CAPACITY} detections in {piece.slots} slots")
        if k:
            self._keep(piece, self._click_times[:k], self._click_channels[:k])

    def _detect(self, piece: Slice, n: int, span: float) -> int:
        found: int = detect(
            n,
            self._photon_times,
            self._photon_detectors,
            span,
            self._receiver.parameters,
            self._receiver.jitter,
            piece.base,
            piece.fraction,
            piece.scale,
            self._memory,
            self._rng,
            self._click_times,
            self._click_channels,
        )
        return found

    def _keep(self, piece: Slice, times: Ints, channels: Bytes) -> None:
        seen = times >= 0
        if piece.gate != (0, 0):
            seen &= times % piece.gate[1] < piece.gate[0]
        times, channels = times[seen], channels[seen]
        if piece.swapped:
            channels = np.array([0, 2, 1], np.uint8)[channels]
        self._ready.append((times, channels))
