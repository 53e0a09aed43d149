"""Bob's tags: read on time, synchronised to Alice's slots, turned into accepted detections."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from drivers.errors import DriverError, Refused
from drivers.roles import TagBlock, TagSource
from qmodd.clock import Clock
from qmodd.keys.bench import Seen
from qmodd.keys.blocks import Flags
from qmodd.keys.frames import FrameClock, Gates, gate_closed_ranges
from qmodd.keys.framesync import SyncRefused, SyncResult, resolve_superframe
from qmodd.keys.kernels import Kernels
from qmodd.keys.protocol import Plan
from qmodd.keys.settings import EngineSettings
from qmodd.keys.tracking import ClockTracker

Int64s = npt.NDArray[np.int64]
Bits = npt.NDArray[np.uint8]

_PS = 1e-12
# PLAN may have been under way for this long when it arrives.
_LATEST_S = 1.0
# Reads in a row without progress of the tag clock after which the tagger counts as stopped.
_STANDING = 5
# Windows tried are this share of the SYNC span, and half the rest apart, so that one lies wholly inside.
_WINDOW, _STEP = 0.8, 0.18
# A batch of so many tags takes some 10 ms in the worker, and nothing that the event loop does for it takes 1 ms.
MOST_TAGS = 1 << 18
MOST_WAITING = 1 << 24


@dataclass(frozen=True)
class Reading:
    """One block of tags and when, by the module's own clock, it was read."""

    block: TagBlock
    read_at: float
    # The rest of what was read with it has been taken: a long block comes in pieces.
    last: bool = True


class TagFeed:
    """Empties the tagger every `batch_s` whatever the distillation does; keeps `most` blocks, or `MOST_WAITING` tags,
    and drops what comes then, as an interval without data, counted. `ready` is called for every block."""

    def __init__(self, tags: TagSource, clock: Clock, batch_s: float, most: int, ready: Callable[[], None]) -> None:
        self._tags = tags
        self._clock = clock
        self._batch_s = batch_s
        self._most = most
        self._ready = ready
        self._waiting: deque[Reading] = deque()
        self._blocks = self._held_tags = 0
        self._lost: list[tuple[int, int]] = []
        self._fault: DriverError | None = None
        # Blocks dropped and not yet accounted for by whoever reads the feed.
        self.dropped = 0

    async def run(self) -> None:
        """Until cancelled, or until the tagger fails, which `pop` then raises."""
        try:
            while True:
                await asyncio.sleep(self._batch_s)
                more = True
                while more:
                    block = await self._tags.read()
                    more = block.more
                    self._take(block)
        except DriverError as e:
            self._fault = e
            self._ready()

    def pop(self) -> Reading | None:
        """The oldest block, or None if none waits. Raises the DriverError that ended the feed."""
        if self._fault is not None:
            raise self._fault
        if not self._waiting:
            return None
        reading = self._waiting.popleft()
        self._held_tags -= len(reading.block.t)
        self._blocks -= reading.last
        return reading

    def _take(self, block: TagBlock) -> None:
        if self._blocks >= self._most or (self._blocks and self._held_tags + len(block.t) > MOST_WAITING):
            self.dropped += 1
            self._ready()
            self._lost.append((block.from_ps, block.to_ps))
            return
        if self._lost:
            block = replace(block, from_ps=self._lost[0][0], lost_ps=(*self._lost, *block.lost_ps), gap=True)
            self._lost = []
        self._waiting.extend(pieces(block, self._clock.monotonic()))
        self._blocks += 1
        self._held_tags += len(block.t)
        self._ready()


def pieces(block: TagBlock, read_at: float, most: int = MOST_TAGS) -> list[Reading]:
    """A long block as several readings of about `most` tags, each with the time at which it might have been read, so
    that no step of the chain takes long. An interval without data goes with the first piece that can know of it."""
    cuts = [0]
    while len(block.t) - cuts[-1] > most:
        # Tags of one time stay together: a piece holds every click before its end.
        cut = int(np.searchsorted(block.t, block.t[cuts[-1] + most], side="left"))
        if cut <= cuts[-1]:
            break
        cuts.append(cut)
    out = []
    for a, b in zip(cuts, [*cuts[1:], len(block.t)], strict=True):
        begin = block.from_ps if a == 0 else int(block.t[a])
        end = block.to_ps if b == len(block.t) else int(block.t[b])
        part = replace(block, t=block.t[a:b], channel=block.channel[a:b], from_ps=begin, to_ps=end)
        if a:
            part = replace(part, lost_ps=(), gap=part.gap and not block.lost_ps)
        out.append(Reading(part, read_at - (block.to_ps - end) * _PS, b == len(block.t)))
    return out


class Receiver:
    """From tags to detections for one run. `next_slot` is the first slot of the next batch."""

    def __init__(self, settings: EngineSettings, kernels: Kernels, plan: Plan) -> None:
        self._settings = settings
        self._kernels = kernels
        self._plan = plan
        self._tracker = ClockTracker(FrameClock(0, 0, 0.0, plan.period_ps))
        self.next_slot = 0
        self.y = 0.0

    @property
    def residual_ps(self) -> float:
        return self._tracker.last_residual_ps

    async def synchronise(self, tags: TagSource, heard_at: int) -> None:
        """Find Alice's slots; PLAN was heard at tag time `heard_at` (ps). Raises Refused if they are not found."""
        plan = self._plan
        start = heard_at + round((plan.sync_slot - plan.slot_now) * plan.period_ps)
        span = round((plan.key_slot - plan.sync_slot) * plan.period_ps)
        t, channel, to_ps = await self._collect(tags, start + span, heard_at - round(_LATEST_S / _PS))
        clock, window = await self._acquire(t, channel, start, span, heard_at)
        folded = await self._kernels.fold_delays(t[window], channel[window], clock, plan.bin_ps)
        delays = self._settings.delays_ps if isinstance(folded, SyncRefused) else folded.delays_ps
        self.next_slot = max(plan.key_slot, clock.slot_at(to_ps) + 2)
        self._tracker = ClockTracker(clock.moved_to(self.next_slot))
        gates = Gates(plan.bin_ps, plan.half_gate_ps, lead_ps=plan.bin_ps)
        await self._kernels.open_frames(gates, plan.holdoff, delays, self.next_slot)

    async def _collect(self, tags: TagSource, until_ps: int, not_before: int) -> tuple[Int64s, Bits, int]:
        """All tags from `not_before` on until the SYNC span is over; what lies in gaps is unusable and left out."""
        blocks = [await tags.read()]
        standing = 0
        while blocks[-1].more or blocks[-1].to_ps < until_ps:
            standing = standing + 1 if len(blocks) > 1 and blocks[-1].to_ps <= blocks[-2].to_ps else 0
            if standing >= _STANDING:
                raise Refused(f"the tagger's clock stands at {blocks[-1].to_ps} ps")
            if not blocks[-1].more:
                remaining = (until_ps - blocks[-1].to_ps) * _PS
                await asyncio.sleep(min(self._settings.batch_s, remaining) + 1e-3)
            blocks.append(await tags.read())
        t = np.concatenate([b.t for b in blocks])
        channel = np.concatenate([b.channel for b in blocks])
        keep = t >= not_before
        return t[keep], channel[keep], blocks[-1].to_ps

    async def _acquire(
        self, t: Int64s, channel: Bits, start: int, span: int, heard_at: int
    ) -> tuple[FrameClock, slice]:
        """PLAN came late by an unknown time, so SYNC was that much earlier: try where it may have been."""
        plan, first_reason = self._plan, ""
        late = 0
        while late <= _LATEST_S / _PS:
            a = start - late + round((1 - _WINDOW) / 2 * span)
            b = a + round(_WINDOW * span)
            window = slice(int(np.searchsorted(t, a)), int(np.searchsorted(t, b)))
            dz = t[window][channel[window] == 0]
            found = await self._kernels.acquire(dz, plan.period_ps, plan.bin_ps)
            if isinstance(found, SyncResult):
                self.y = found.y
                middle = (a + b) // 2
                hint = plan.slot_now + round((middle - heard_at + late) / plan.period_ps)
                return resolve_superframe(found, hint, middle), window
            first_reason = first_reason or found.reason
            late += max(1, round(_STEP * span))
        raise Refused(f"no synchronisation: {first_reason}")

    async def accept(self, reading: Reading, flags: Flags) -> Seen:
        """Takes in the slots that are complete now; flagged, strobed and lost intervals are left out."""
        block, clock, plan = reading.block, self._tracker.clock, self._plan
        end = max(self.next_slot, clock.slot_at(block.to_ps) + 1)
        lost = block.lost_ps
        if block.reference_unlocked or (block.gap and not lost):
            lost = ((block.from_ps, block.to_ps),)
        hidden = gate_closed_ranges(*self._settings.gate, clock, self.next_slot, end, plan.holdoff)
        flagged = flags.ranges(clock.slot_at(block.to_ps), reading.read_at, 1.0 / (plan.period_ps * _PS))
        drop = np.concatenate([hidden, np.clip(flagged, self.next_slot, end)])
        batch = await self._kernels.accept(block.t, block.channel, block.to_ps, clock, lost, drop, plan.pilot_every)
        self._tracker.update(batch.tracking, batch.end_slot)
        self.next_slot = batch.end_slot
        flags.forget(reading.read_at - 60.0)
        return batch
