"""Where the heavy work of the key engine is done: in place, or in a worker process so that control loops keep time."""

from __future__ import annotations

import asyncio
import multiprocessing
from abc import ABC, abstractmethod
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from typing import Any

import numpy as np
import numpy.typing as npt

from qmodd.keys import worker
from qmodd.keys.bench import Bench, Corrected
from qmodd.keys.frames import FrameBatch, FrameClock, Gates
from qmodd.keys.framesync import FoldResult, SyncRefused, SyncResult
from qmodd.keys.reconciliation import Help
from qmodd.keys.sifting import Detect
from qmodd.randomness import Randomness

Bits = npt.NDArray[np.uint8]
Int64s = npt.NDArray[np.int64]


class WorkerDied(Exception):
    """The worker process ended in the middle of a call; a new one is started for the next call. Costs one block."""


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
        self, t: Int64s, channel: Bits, to_ps: int, clock: FrameClock, lost_ps: Sequence[tuple[int, int]], drop: Int64s
    ) -> FrameBatch:
        batch: FrameBatch = await self._call("accept", t, channel, to_ps, clock, tuple(lost_ps), drop)
        return batch

    async def encode_detect(self, first_slot: int, end_slot: int, slots: Int64s, basis: Bits) -> bytes:
        data: bytes = await self._call("encode_detect", first_slot, end_slot, slots, basis)
        return data

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

    async def syndromes(self, bits: Bits, qber: float) -> bytes:
        data: bytes = await self._call("syndromes", bits, qber)
        return data

    async def disclose(self, bits: Bits, qber: float, wanted: Help) -> tuple[bytes, ...]:
        pieces: tuple[bytes, ...] = await self._call("disclose", bits, qber, wanted)
        return pieces

    async def correct(self, bits: Bits, qber: float, data: bytes) -> Help:
        """Bob: decode all frames; what is still wanted afterwards."""
        wanted: Help = await self._call("correct", bits, qber, data)
        return wanted

    async def assist(self, wanted: Help, pieces: tuple[bytes, ...]) -> Help:
        left: Help = await self._call("assist", wanted, pieces)
        return left

    async def corrected(self) -> Corrected:
        result: Corrected = await self._call("corrected")
        return result

    async def verification_tag(self, key: bytes, bits: Bits) -> bytes:
        tag: bytes = await self._call("verification_tag", key, bits)
        return tag

    async def amplify(self, bits: Bits, seed: bytes, m: int) -> bytearray:
        """m secret bits, packed; the caller wipes them."""
        data: bytearray = await self._call("amplify", bits, seed, m)
        return data


class InlineKernels(Kernels):
    """Called in place: computing takes no simulated time."""

    def __init__(self, randomness: Randomness) -> None:
        self._bench = Bench(randomness)

    async def _call(self, method: str, *arguments: Any) -> Any:
        return getattr(self._bench, method)(*arguments)


class WorkerKernels(Kernels):
    """One idle-priority process, started by `start` or the first call, and again after it died."""

    def __init__(self) -> None:
        self._pool: ProcessPoolExecutor | None = None
        self.deaths = 0

    async def start(self) -> None:
        """Start the process and wait until its kernels are compiled. Raises WorkerDied if it does not come up."""
        await self._call("warm_up")

    async def _call(self, method: str, *arguments: Any) -> Any:
        pool = self._pool or self._new()
        try:
            # Submitted here and not through the loop's default executor, so that the call is queued in this order.
            return await asyncio.wrap_future(pool.submit(worker.call, method, arguments))
        except BrokenProcessPool:
            if self._pool is pool:
                self._pool = None
                self.deaths += 1
                await asyncio.to_thread(pool.shutdown)
            raise WorkerDied(f"the distillation worker died in {method!r}") from None

    def _new(self) -> ProcessPoolExecutor:
        context = multiprocessing.get_context("spawn")
        self._pool = ProcessPoolExecutor(1, mp_context=context, initializer=worker.start)
        return self._pool

    async def close(self) -> None:
        pool, self._pool = self._pool, None
        if pool is not None:
            await asyncio.to_thread(pool.shutdown, cancel_futures=True)
