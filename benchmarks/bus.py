"""A register read through a bus's lane: worker thread, deadline and counters, over an in-process double of smbus2."""

from __future__ import annotations

import asyncio
import time
from functools import partial

from benchmarks.measure import Result, best_of
from drivers.bus.libraries import Libraries
from drivers.bus.pool import BusPool
from sim.clock import ManualClock
from sim.inproc import InprocLibraries
from sim.rig import build_rigs
from sim.scenario import Scenario
from sim.world import World

READS = 2000
DEVICE, REGISTER = 0x48, 0x0F  # the TMP117's identity


def run(reads: int = READS, times: int = 3) -> list[Result]:
    """Microseconds a read; the reference is the library call alone, so the difference is what the lane costs."""
    clock = ManualClock()
    found = InprocLibraries(build_rigs(World(Scenario(), clock), clock)["alice"])
    bus = found.i2c(1)

    def direct() -> None:
        for _ in range(reads):
            bus.read_i2c_block_data(DEVICE, REGISTER, 2)

    alone = best_of(direct, times) / reads
    results = []
    for name, threaded in (("bus_read_in_place", False), ("bus_read_threaded", True)):
        libraries = Libraries(found.i2c, found.spi, found.serial, found.visa, found.tcp, threaded=threaded)
        taken = best_of(partial(_run_through_lane, libraries, reads), times) / reads
        results.append(Result(name, 1e6 * taken, "us/read", 1e6 * alone, "library call alone", less_is_better=True))
    return results


def _run_through_lane(libraries: Libraries, reads: int) -> None:
    asyncio.run(_through_lane(libraries, reads))


async def _through_lane(libraries: Libraries, reads: int) -> None:
    pool = BusPool(libraries, time.monotonic)
    device = pool.i2c(f"i2c:1:{DEVICE:#04x}", "thermometer")
    for _ in range(reads):
        await device.read(REGISTER, 2)
    await pool.close()
