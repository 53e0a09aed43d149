"""Pilot slots: bright, public, never key. Bob counts their clicks for the phase lock and takes them out of everything.

Every slot whose index is a multiple of `every` is one. They go before DETECT is made, so that nothing is ever said of
them, and Alice's side refuses them a second time.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from qmodd.keys.frames import FrameBatch, FrameCounters

LEAST_EVERY = 2


@dataclass(frozen=True)
class PilotCounts:
    """Middle clicks in pilot slots of one batch, `seconds` long: even multiples (plus) and odd ones (minus)."""

    n_plus_dx0: int
    n_plus_dx1: int
    n_minus_dx0: int
    n_minus_dx1: int
    seconds: float


def is_pilot(slots: npt.NDArray[np.int64], every: int) -> npt.NDArray[np.bool_]:
    """True where a slot is a pilot, shape as `slots`; `every` 0: there is none."""
    return slots % every == 0 if every else np.zeros(len(slots), np.bool_)


def without_pilot(batch: FrameBatch, every: int, period_s: float) -> tuple[FrameBatch, PilotCounts]:
    """The batch without its pilot slots, and what was seen in them. DX1's middle bin is bit 0, DX0's bit 1.

    Of the live slots the pilots' share is taken off: liveness does not know what a slot carries.
    """
    pilot = is_pilot(batch.slots, every)
    minus = (batch.slots // every) % 2 == 1
    x = pilot & (batch.basis == 1)
    dx0 = batch.bit == 1
    seconds = (batch.end_slot - batch.first_slot) * period_s
    seen = [int((x & m & d).sum()) for m in (~minus, minus) for d in (dx0, ~dx0)]
    keep = ~pilot
    z = pilot & (batch.basis == 0)
    c = batch.counters
    counters = replace(
        c,
        live_slots=round(c.live_slots * (1.0 - 1.0 / every)),
        z_early=max(0, c.z_early - int((z & (batch.bit == 0)).sum())),
        z_late=max(0, c.z_late - int((z & (batch.bit == 1)).sum())),
    )
    rest = replace(batch, slots=batch.slots[keep], basis=batch.basis[keep], bit=batch.bit[keep], counters=counters)
    return rest, PilotCounts(seen[0], seen[1], seen[2], seen[3], seconds)


def kept_out(batch: FrameBatch) -> FrameBatch:
    """Nothing of the batch is used: its pilot says that the phase is off, before anything was said about its slots."""
    none = slice(0, 0)
    c = batch.counters
    counters = FrameCounters(dropped_slots=batch.end_slot - batch.first_slot, clicks=c.clicks, in_gate=c.in_gate)
    return replace(batch, slots=batch.slots[none], basis=batch.basis[none], bit=batch.bit[none], counters=counters)
