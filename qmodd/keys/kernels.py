"""Where the heavy work of the key engine is done: in place, or in a worker process so that control loops keep time."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from qmodd.keys.accounting import StageTally
from qmodd.keys.bench import Bench, Corrected, Seen
from qmodd.keys.counts import BatchReport
from qmodd.keys.frames import FrameClock, Gates
from qmodd.keys.framesync import FoldResult, SyncRefused, SyncResult
from qmodd.keys.material import Gathered, Held, Material
from qmodd.keys.reconciliation import Help, Plan
from qmodd.keys.sifting import Detect
from qmodd.keys.workerlink import WorkerDied as WorkerDied
from qmodd.keys.workerlink import WorkerLink
from qmodd.randomness import Randomness

Bits = npt.NDArray[np.uint8]
Int64s = npt.NDArray[np.int64]


class Kernels(ABC):
    """The calls of `bench.Bench`, awaited. Raise what the bench raises, and WorkerDied."""

    @abstractmethod
    async def _call(self, method: str, *arguments: Any) -> Any: ...

    async def start(self) -> None:
        """Make the first call a fast one."""
        return None

    async def close(self) -> None:
        """Stop whatever was started."""
        return None

    async def open_frames(
        self, gates: Gates, holdoff: int, delays_ps: tuple[float, float, float], first_slot: int
    ) -> None:
        await self._call("open_frames", gates, holdoff, delays_ps, first_slot)

    async def accept(
        self,
        t: Int64s,
        channel: Bits,
        to_ps: int,
        clock: FrameClock,
        lost_ps: Sequence[tuple[int, int]],
        drop: Int64s,
        pilot_every: int = 0,
    ) -> Seen:
        seen: Seen = await self._call("accept", t, channel, to_ps, clock, tuple(lost_ps), drop, pilot_every)
        return seen

    async def announce(self, first_slot: int, keep: bool) -> bytes:
        data: bytes = await self._call("announce", first_slot, keep)
        return data

    async def sift(self, first_slot: int, basis: bytes, n_z: int) -> tuple[BatchReport, Gathered]:
        """Raises ValueError on an answer that Alice cannot have given."""
        result: tuple[BatchReport, Gathered] = await self._call("sift", first_slot, basis, n_z)
        return result

    async def decode_detect(self, data: bytes) -> Detect:
        """Raises ValueError on what Bob cannot have sent."""
        detect: Detect = await self._call("decode_detect", data)
        return detect

    async def acquire(self, tags_dz: Int64s, period_ps: float, bin_ps: float) -> SyncResult | SyncRefused:
        found: SyncResult | SyncRefused = await self._call("acquire", tags_dz, period_ps, bin_ps)
        return found

    async def fold_delays(
        self, tags: Int64s, channels: Bits, clock: FrameClock, bin_ps: float
    ) -> FoldResult | SyncRefused:
        found: FoldResult | SyncRefused = await self._call("fold_delays", tags, channels, clock, bin_ps)
        return found

    async def hold(self, material: Material) -> Held:
        held: Held = await self._call("hold", material)
        return held

    @abstractmethod
    def release(self, held: Held) -> None:
        """Forget a block. May be repeated, also about one that a dead worker held."""

    async def tally(self, held: Held) -> StageTally:
        tally: StageTally = await self._call("tally", held)
        return tally

    async def syndromes(self, held: Held, plan: Plan) -> bytes:
        data: bytes = await self._call("syndromes", held, plan)
        return data

    async def disclose(self, held: Held, plan: Plan, wanted: Help) -> tuple[bytes, ...]:
        pieces: tuple[bytes, ...] = await self._call("disclose", held, plan, wanted)
        return pieces

    async def correct(self, held: Held, plan: Plan, data: bytes) -> Help:
        """Bob: decode all frames; what is still wanted afterwards."""
        wanted: Help = await self._call("correct", held, plan, data)
        return wanted

    async def assist(self, held: Held, wanted: Help, pieces: tuple[bytes, ...]) -> Help:
        left: Help = await self._call("assist", held, wanted, pieces)
        return left

    async def corrected(self, held: Held) -> Corrected:
        result: Corrected = await self._call("corrected", held)
        return result

    async def verification_tag(self, key: bytes, held: Held) -> bytes:
        tag: bytes = await self._call("verification_tag", key, held)
        return tag

    async def amplify(self, held: Held, seed: bytes, m: int) -> bytearray:
        """m secret bits, packed; the caller wipes them."""
        bits: Bits = await self._call("amplify", held, seed, m)
        secret = bytearray(bits.data)
        bits[:] = 0
        return secret


class InlineKernels(Kernels):
    """Called in place: computing takes no simulated time."""

    def __init__(self, randomness: Randomness) -> None:
        self._bench = Bench(randomness)

    async def _call(self, method: str, *arguments: Any) -> Any:
        return getattr(self._bench, method)(*arguments)

    def release(self, held: Held) -> None:
        self._bench.release(held)


class WorkerKernels(Kernels):
    """One idle-priority process, started by `start` or the first call, and again after it died."""

    def __init__(self) -> None:
        self._link: WorkerLink | None = None
        self.deaths = 0

    async def start(self) -> None:
        """Start the process and wait until its kernels are compiled. Raises WorkerDied if it does not come up."""
        await self._call("pid")

    async def _call(self, method: str, *arguments: Any) -> Any:
        link = self._link = self._link or WorkerLink()
        try:
            return await link.call(method, arguments)
        except WorkerDied:
            if self._link is link:
                self._link = None
                self.deaths += 1
                await link.close()
            raise

    def release(self, held: Held) -> None:
        if self._link is not None:
            self._link.post("release", (held,))

    async def close(self) -> None:
        link, self._link = self._link, None
        if link is not None:
            await link.close()
