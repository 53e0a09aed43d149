"""One pair on the emulator in simulated time, as the benchmarks have it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from benchmarks.rig import AliceLight, Pair, Side, scenario
from benchmarks.rig import pair as any_pair
from sim.loop import SimulatedLoop

__all__ = ["AliceLight", "Pair", "Side", "pair"]


@asynccontextmanager
async def pair(loop: SimulatedLoop, seed: int, loss_db: float = 10.0) -> AsyncIterator[Pair]:
    """Both modules open, rails on, at temperature."""
    async with any_pair(loop, scenario(seed, loss_db)) as p:
        yield p
