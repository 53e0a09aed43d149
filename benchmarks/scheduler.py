"""A 100 Hz control loop in real time: how late its periods begin, beside a busy worker and beside a bus that hangs.

Everything is real: asyncio with the daemon's own event loop, the scheduler, bus lanes with their threads, and worker
processes at idle priority on every core. Only the parts at the end of the buses are the emulator's.
"""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import sys
import threading
from collections.abc import Awaitable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.synchronize import Semaphore
from typing import Any

import numpy as np

from benchmarks.measure import Progress, Result, silent
from drivers.bus.libraries import Libraries
from drivers.bus.pool import BusPool
from drivers.errors import DriverError
from qmodd.clock import SystemClock
from qmodd.control.loop import Loop, LoopReport, Scheduler
from qmodd.control.pid import Pid, PidGains
from qmodd.daemon import SWITCH_S, precise_loop
from qmodd.keys import worker
from sim.clock import ManualClock
from sim.inproc import InprocLibraries
from sim.rig import build_rigs
from sim.scenario import Scenario
from sim.world import World

PERIOD_S = 0.010
SECONDS = 20.0
LIMIT_MS = 1.0
HANG_S = 0.5
ALONE = "loop alone"
THERMOMETER, IDENTITY = "i2c:1:0x48", 0x0F
EXPANDER, INPUT_PORT = "i2c:2:0x20", 0x00


@dataclass
class Hanging:
    """An smbus whose block reads do not return for a while once in a while."""

    bus: Any
    seconds: float
    hangs: int = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self.bus, name)

    def read_i2c_block_data(self, *arguments: Any, **keywords: Any) -> Any:
        self.hangs += 1
        threading.Event().wait(self.seconds)
        return self.bus.read_i2c_block_data(*arguments, **keywords)


def run(progress: Progress = silent, *, seconds: float = SECONDS) -> Iterator[Result]:
    """p99 lateness of the 100 Hz loop, ms: alone, beside a busy worker, and beside a hanging bus.

    The reference of the first is a bare timer of the same event loop; of the others the loop alone; in the same run.
    """
    cores = os.cpu_count() or 1
    progress(0.0, "100 Hz loop alone")
    alone = measure(seconds)["fast"]
    yield _result("loop_100hz_alone", alone, bare_timer(min(seconds, 5.0)), "bare timer")
    progress(0.34, f"100 Hz loop beside {cores} busy workers")
    with busy(cores):
        beside = measure(seconds)["fast"]
    yield _result("loop_100hz_beside_worker", beside, alone.late_p99_s, ALONE, workers_count=float(cores))
    progress(0.67, "100 Hz loop while another bus hangs")
    reports = measure(seconds, hang_s=HANG_S)
    hung = reports["hanging"]
    yield _result(
        "loop_100hz_other_bus_hangs",
        reports["fast"],
        alone.late_p99_s,
        ALONE,
        hung_steps_count=float(hung.runs),
        hung_late_max_ms=1e3 * hung.late_max_s,
    )


def bare_timer(seconds: float) -> float:
    """p99 lateness of asyncio.sleep at 100 Hz, s: what no scheduler can better."""

    async def run() -> float:
        clock, late = SystemClock(), []
        due = clock.monotonic()
        for _ in range(round(seconds / PERIOD_S)):
            due += PERIOD_S
            await asyncio.sleep(max(0.0, due - clock.monotonic()))
            late.append(clock.monotonic() - due)
        return float(np.percentile(late, 99))

    with asyncio.Runner(loop_factory=precise_loop) as runner:
        return runner.run(run())


def _result(name: str, report: LoopReport, reference_s: float, reference_name: str, **detail: float) -> Result:
    return Result(
        name,
        1e3 * report.late_p99_s,
        "ms p99 late",
        1e3 * reference_s,
        reference_name,
        less_is_better=True,
        limit=LIMIT_MS,
        detail={
            "late_rms_ms": 1e3 * report.late_rms_s,
            "late_max_ms": 1e3 * report.late_max_s,
            "period_mean_ms": 1e3 * report.period_mean_s,
            "overruns_count": float(report.overruns),
            "runs_count": float(report.runs),
            # What else the machine was doing: other programs of normal priority take the loop's core away.
            "load_average": os.getloadavg()[0],
            "bus_mean_ms": 1e3 * report.bus_sum_s / max(1, report.runs),
            **detail,
        },
    )


def measure(seconds: float, hang_s: float = 0.0) -> dict[str, LoopReport]:
    """Reports by loop after that many seconds on the daemon's own kind of event loop."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(SWITCH_S)
    try:
        with asyncio.Runner(loop_factory=precise_loop) as runner:
            return runner.run(_measured(seconds, hang_s))
    finally:
        sys.setswitchinterval(before)


async def _measured(seconds: float, hang_s: float) -> dict[str, LoopReport]:
    return await _measure(asyncio.sleep(seconds), hang_s)


async def reports_until(done: asyncio.Event) -> dict[str, LoopReport]:
    """Of loops that run until then, beside whatever else this event loop does."""
    return await _measure(done.wait(), 0.0)


async def _measure(until: Awaitable[object], hang_s: float) -> dict[str, LoopReport]:
    clock = SystemClock()
    pool = BusPool(_libraries(hang_s), clock.monotonic)
    scheduler = Scheduler(clock, asyncio.sleep, _no_safe)
    thermometer, expander = pool.i2c(THERMOMETER, "thermometer"), pool.i2c(EXPANDER, "expander")
    pid = Pid(PidGains(kp=1.0, ti_s=1.0, low=-1.0, high=1.0))

    async def fast(now_s: float) -> None:
        raw = await thermometer.read(IDENTITY, 2)
        pid.step(0.0, float(raw[0]), PERIOD_S)

    async def other(now_s: float) -> None:
        try:
            await expander.read(INPUT_PORT, 2)
        except DriverError:
            return  # the hang is what is wanted

    scheduler.add(Loop("fast", PERIOD_S, fast))
    if hang_s:
        scheduler.add(Loop("hanging", 10 * PERIOD_S, other))
    task = asyncio.create_task(scheduler.run())
    try:
        await until
        return {r.name: r for r in scheduler.reports()}
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await pool.close()


async def _no_safe(loop: str, why: str) -> None:
    raise RuntimeError(f"loop {loop} gave up: {why}")


def _libraries(hang_s: float) -> Libraries:
    clock = ManualClock()
    found = InprocLibraries(build_rigs(World(Scenario(), clock), clock)["alice"])

    def i2c(number: int) -> Any:
        bus = found.i2c(number)
        return Hanging(bus, hang_s) if hang_s and number == 2 else bus

    return Libraries(i2c, found.spi, found.serial, found.visa, found.tcp, threaded=True)


@contextmanager
def busy(processes: int) -> Iterator[None]:
    """That many worker processes, started as the daemon starts its own, each with a core's full load of arrays."""
    context = multiprocessing.get_context("spawn")
    ready = context.Semaphore(0)
    started = [context.Process(target=_load, args=(ready,), daemon=True) for _ in range(processes)]
    for process in started:
        process.start()
    try:
        for _ in started:
            ready.acquire()
        yield
    finally:
        for process in started:
            process.kill()
            process.join()


def _load(ready: Semaphore) -> None:
    worker.start()
    ready.release()
    data = np.random.default_rng(1).random(1 << 20)
    while True:
        np.fft.rfft(data)
