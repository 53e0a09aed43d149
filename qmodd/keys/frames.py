"""Bob's clicks -> accepted detections, by the acceptance rule (reference pair A1).

A slot is live if no detector clicked in the H slots before it. A live slot is accepted if all its clicks lie in gates
of one basis: Z: DZ in bin 0 or 1; X: DX0 or DX1 in bin 1 (both: random bit). A click outside every gate, or in a
satellite bin, drops the slot. Clicks in gates of both bases (a cross click) give the slot a random basis and a random
bit, which is what a passive choice of basis owes to a proof that assumes an active one. Unequal dead times of the
detectors would otherwise make basis and bit depend on history.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from math import ceil, floor
from typing import Any

import numpy as np
import numpy.typing as npt

from calibration.framesync import FrameClock as FrameClock
from qmodd.keys.acceptance import (
    COUNTERS,
    CROSS,
    DOUBLE,
    EARLY,
    LATE,
    LIVE,
    OUT_OF_GATE,
    PLAIN,
    SATELLITE,
    TOSS_BOTH,
    VETO,
    accept_slots,
    place_clicks,
)

Int64s = npt.NDArray[np.int64]
Bits = npt.NDArray[np.uint8]
RandomBytes = Callable[[int], bytes]


@dataclass(frozen=True)
class Gates:
    """Software gates, +-`half_gate_ps` round each bin centre; a slot begins `lead_ps` before its early bin."""

    bin_ps: float = 800.0
    half_gate_ps: float = 200.0
    lead_ps: float = 800.0


@dataclass(frozen=True)
class FrameCounters:
    """What the rule met. Per-detector tuples are (DZ, DX0, DX1); satellites (DX0 bin 0, bin 2, DX1 bin 0, bin 2).

    `veto`, `out_of_gate`, `cross`, `double_x` count slots; `z_early`, `z_late` accepted single-basis Z slots by bin.
    """

    live_slots: int = 0
    dropped_slots: int = 0
    veto: int = 0
    out_of_gate: int = 0
    cross: int = 0
    double_x: int = 0
    z_early: int = 0
    z_late: int = 0
    satellites: tuple[int, int, int, int] = (0, 0, 0, 0)
    clicks: tuple[int, int, int] = (0, 0, 0)
    in_gate: tuple[int, int, int] = (0, 0, 0)

    def __add__(self, other: FrameCounters) -> FrameCounters:
        total: dict[str, Any] = {}
        for f in fields(self):
            x, y = getattr(self, f.name), getattr(other, f.name)
            total[f.name] = tuple(p + q for p, q in zip(x, y, strict=True)) if isinstance(x, tuple) else x + y
        return FrameCounters(**total)


@dataclass(frozen=True)
class Residuals:
    """Sum (ps) and number of the in-gate timing residuals per detector, each clipped to +-150 ps."""

    sum_ps: tuple[float, float, float] = (0.0, 0.0, 0.0)
    count: tuple[int, int, int] = (0, 0, 0)

    def __add__(self, other: Residuals) -> Residuals:
        a, b, c, d = self.sum_ps, other.sum_ps, self.count, other.count
        return Residuals((a[0] + b[0], a[1] + b[1], a[2] + b[2]), (c[0] + d[0], c[1] + d[1], c[2] + d[2]))


@dataclass(frozen=True)
class FrameBatch:
    """Accepted detections of the slots [first_slot, end_slot); equal-length arrays in slot order, basis 1 is X."""

    first_slot: int
    end_slot: int
    slots: Int64s
    basis: Bits
    bit: Bits
    counters: FrameCounters
    tracking: Residuals


def holdoff_slots(dead_ps: float, recovery_ps: float, bin_ps: float, period_ps: float) -> int:
    """H = ceil((dead time + 6 recovery times + 2 bins)/period) - 1: after it every detector is fully recovered.

    >>> holdoff_slots(15e3, 4e3, 800, 8000)
    5
    """
    return max(0, ceil((dead_ps + 6 * recovery_ps + 2 * bin_ps) / period_ps) - 1)


def gate_closed_ranges(
    open_ps: int, period_ps: int, clock: FrameClock, first_slot: int, end_slot: int, holdoff: int
) -> Int64s:
    """Slot ranges (k, 2) that a strobe hides: the tagger looks only where its clock modulo `period_ps` is < `open_ps`.

    Each range ends `holdoff` slots after the gate opens, since clicks before it were not seen. Guard of one slot at
    both edges, because a slot's clicks spread over detector delays of up to 3 ns.
    """
    if period_ps <= 0 or open_ps <= 0 or open_ps >= period_ps or end_slot <= first_slot:
        return np.empty((0, 2), np.int64)
    first_gate = clock.tag_of(first_slot) // period_ps - 1
    last_gate = clock.tag_of(end_slot) // period_ps + 1
    opens = np.arange(first_gate, last_gate + 1, dtype=np.int64) * period_ps
    opening = clock.slot + np.ceil((opens - clock.tag_ps - clock.frac_ps) / clock.period_ps).astype(np.int64)
    closing = clock.slot + np.floor((opens + open_ps - clock.tag_ps - clock.frac_ps) / clock.period_ps).astype(np.int64)
    ranges = np.stack([closing[:-1] - 1, opening[1:] + 1 + holdoff], axis=1)
    clipped: Int64s = np.clip(ranges, first_slot, end_slot)
    return clipped


def merge_ranges(ranges: Sequence[tuple[int, int]] | Int64s, first_slot: int) -> Int64s:
    """Sorted, disjoint, non-empty ranges (k, 2) at or after `first_slot`, covering the same slots."""
    r = np.asarray(ranges, dtype=np.int64).reshape(-1, 2)
    r = r[(r[:, 1] > r[:, 0]) & (r[:, 1] > first_slot)]
    if len(r) == 0:
        return r
    r = r[np.argsort(r[:, 0], kind="stable")]
    reach = np.maximum.accumulate(r[:, 1])
    new = np.concatenate([[True], r[1:, 0] > reach[:-1]])
    starts = np.flatnonzero(new)
    return np.stack([r[starts, 0], reach[np.concatenate([starts[1:] - 1, [len(r) - 1]])]], axis=1)


def _toss(basis: Bits, bit: Bits, toss: Bits, random_bytes: RandomBytes) -> None:
    """Random bits where the rule asks for them; exactly as many bits as needed are drawn."""
    both, some = np.flatnonzero(toss == TOSS_BOTH), np.flatnonzero(toss != PLAIN)
    need = len(both) + len(some)
    if need == 0:
        return
    drawn = np.unpackbits(np.frombuffer(random_bytes((need + 7) // 8), np.uint8), count=need)
    bit[some] = drawn[: len(some)]
    basis[both] = drawn[len(some) :]


class FrameBuilder:
    """Carries the acceptance rule over batches: hold-off, clicks of a slot that is not complete yet, next slot.

    `delays_ps` (DZ, DX0, DX1) are added detector path delays relative to the clock. The first `holdoff` slots count as
    dead, since the clicks before them are unknown.
    """

    def __init__(self, gates: Gates, holdoff: int, delays_ps: tuple[float, float, float], first_slot: int) -> None:
        self.gates = gates
        self.holdoff = holdoff
        self.delays_ps = delays_ps
        self.next_slot = first_slot
        self._mark = first_slot + holdoff
        self._pending: Int64s = np.empty((0, 2), np.int64)
        self._tail_t: Int64s = np.empty(0, np.int64)
        self._tail_channel: Bits = np.empty(0, np.uint8)

    def push(
        self,
        t: Int64s,
        channel: Bits,
        to_ps: int,
        clock: FrameClock,
        random_bytes: RandomBytes,
        *,
        lost_ps: Sequence[tuple[int, int]] = (),
        drop: Sequence[tuple[int, int]] | Int64s = (),
    ) -> FrameBatch:
        """All slots that are complete once every click before `to_ps` is known.

        `t` (int64 ps, sorted) and `channel` (0 DZ, 1 DX0, 2 DX1) as the tagger delivers them, `lost_ps` its intervals
        without usable data, `drop` slot ranges [a, b) that were flagged beforehand for reasons outside the block's own
        bits. `random_bytes(n)` is drawn from for cross and double clicks. Raises ValueError on an unknown channel or
        arrays of different lengths.
        """
        if len(t) != len(channel) or (len(channel) and int(channel.max()) > 2):
            raise ValueError("channels must be 0..2, one for each tag")
        t = np.concatenate([self._tail_t, np.asarray(t, np.int64)])
        channel = np.concatenate([self._tail_channel, np.asarray(channel, np.uint8)])
        first = self.next_slot
        here = clock.moved_to(first)
        end = max(first, first + self._slot_from(here, to_ps, max(self.delays_ps)))
        slots, residue, order = np.empty(len(t), np.int64), np.empty(len(t)), np.empty(len(t), np.int64)
        delays, lead = np.array(self.delays_ps), self.gates.lead_ps
        place_clicks(t, channel, here.tag_ps, here.frac_ps, delays, here.period_ps, lead, slots, residue, order)
        begin, ready = np.searchsorted(slots, (0, end - first))
        tail = np.sort(order[ready:])
        self._tail_t, self._tail_channel = t[tail], channel[tail]
        ranges = self._dropped(here, lost_ps, drop, end)
        self.next_slot = end
        return self._accept(
            slots[begin:ready], residue[begin:ready], channel[order[begin:ready]], first, end, ranges, random_bytes
        )

    def _slot_from(self, clock: FrameClock, tag_ps: int, delay_ps: float) -> int:
        """The slot, counted from the clock's reference, of a click at `tag_ps` behind a path delay."""
        return floor((tag_ps - clock.tag_ps - clock.frac_ps - delay_ps + self.gates.lead_ps) / clock.period_ps)

    def _dropped(
        self, clock: FrameClock, lost_ps: Sequence[tuple[int, int]], drop: Sequence[tuple[int, int]] | Int64s, end: int
    ) -> Int64s:
        """Ranges to leave out of [next_slot, end), counted from next_slot; what lies beyond `end` is remembered.

        Data lost up to some time hide clicks, so that the hold-off after them cannot be known either.
        """
        lost = [
            (
                clock.slot + self._slot_from(clock, a, max(self.delays_ps)),
                clock.slot + self._slot_from(clock, b, min(self.delays_ps)) + 1 + self.holdoff,
            )
            for a, b in lost_ps
        ]
        given = np.asarray(drop, np.int64).reshape(-1, 2)
        everything = np.concatenate([self._pending, np.asarray(lost, np.int64).reshape(-1, 2), given])
        ranges = merge_ranges(everything, self.next_slot)
        self._pending = ranges[ranges[:, 1] > end]
        ranges = np.clip(ranges, self.next_slot, end)
        return np.ascontiguousarray(ranges[ranges[:, 1] > ranges[:, 0]] - self.next_slot)

    def _accept(
        self,
        slots: Int64s,
        residue: npt.NDArray[np.float64],
        detector: Bits,
        first: int,
        end: int,
        ranges: Int64s,
        random_bytes: RandomBytes,
    ) -> FrameBatch:
        n = len(slots)
        slot, basis, bit, toss = (
            np.zeros(n, np.int64),
            np.zeros(n, np.uint8),
            np.zeros(n, np.uint8),
            np.zeros(n, np.uint8),
        )
        counters, clicks, in_gate, count = (np.zeros(k, np.int64) for k in (COUNTERS, 3, 3, 3))
        sums = np.zeros(3)
        g = self.gates
        k, mark = accept_slots(
            *(
                slots,
                residue,
                detector,
                end - first,
                self._mark - first,
                self.holdoff,
                ranges,
                g.bin_ps,
                g.half_gate_ps,
            ),
            *(slot, basis, bit, toss, counters, clicks, in_gate, sums, count),
        )
        self._mark = int(mark) + first
        slot, basis, bit, toss = slot[:k] + first, basis[:k], bit[:k], toss[:k]
        _toss(basis, bit, toss, random_bytes)
        dropped = int(np.diff(ranges, axis=1).sum())
        residuals = Residuals((float(sums[0]), float(sums[1]), float(sums[2])), _three(count))
        return FrameBatch(first, end, slot, basis, bit, _counters(counters, dropped, clicks, in_gate), residuals)


def _counters(counters: Int64s, dropped: int, clicks: Int64s, in_gate: Int64s) -> FrameCounters:
    c = [int(x) for x in counters]
    s = SATELLITE
    return FrameCounters(
        live_slots=c[LIVE],
        dropped_slots=dropped,
        veto=c[VETO],
        out_of_gate=c[OUT_OF_GATE],
        cross=c[CROSS],
        double_x=c[DOUBLE],
        z_early=c[EARLY],
        z_late=c[LATE],
        satellites=(c[s], c[s + 1], c[s + 2], c[s + 3]),
        clicks=_three(clicks),
        in_gate=_three(in_gate),
    )


def _three(a: Int64s) -> tuple[int, int, int]:
    return int(a[0]), int(a[1]), int(a[2])
