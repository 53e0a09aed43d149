"""A module on the emulator, opened as for its self-test, in simulated time: `on_bench("alice", work)`."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Awaitable, Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from qmodd.calibrate.session import opened, warm
from qmodd.selftest.bench import Bench, Host
from qmodd.soak import STROBE, Run
from sim.loop import SimulatedLoop
from sim.scenario import FaultLine, Scenario

T = TypeVar("T")
SETTINGS: dict[str, Any] = {**STROBE, "gate_open_ps": 0, "gate_period_ps": 0, "watchdog_period_s": 0.1}
GIB = 1 << 30


def fault(on: str, what: str, at: float = 0.0, **more: Any) -> FaultLine:
    """A line of the fault script: fault("alice.i2c1", "nack", at=3.0, probability=0.03)."""
    return FaultLine.model_validate({"at": at, "on": on, "what": what, **more})


def host(run: Run, side: str) -> Host:
    """A controller with half of its disk free and a disciplined clock."""
    return Host(run.directory / side, lambda _path: (8 * GIB, 16 * GIB))


def on_bench(
    side: str,
    work: Callable[[Bench, Run], Awaitable[T]],
    *,
    seed: int = 1,
    faults: Iterable[FaultLine] = (),
    scenario: Mapping[str, Any] | None = None,
    settled: bool = False,
    before: Callable[[Run], None] = lambda _run: None,
) -> T:
    """What `work(bench, run)` returns. The rig is `run.rigs[side]`; its part `run.rigs[side].part("ina228")`.

    `scenario`: further fields of sim.scenario.Scenario. `settled`: with the chip at its temperature, else it is on its
    way. `before`: what to do to the rigs before the module is opened.
    """
    loop = SimulatedLoop()
    script = Scenario.model_validate({"seed": seed, **(scenario or {}), "fault": tuple(faults)})

    async def main(directory: Path) -> T:
        run = Run(loop, directory, script, seed, dict(SETTINGS))
        ticking = asyncio.ensure_future(run.tick())
        try:
            before(run)
            core = run.sites[side].core
            # As in a self-test: what an interlock would end is what the checks are to find.
            core.operator.safekeeping.watch = lambda _scheduler: None  # type: ignore[method-assign]
            async with opened(core, "self-test") as context:
                if settled:
                    await warm(core, lambda _text: None)
                module, clock = core.wiring.module, core.wiring.clock
                bench = Bench(module, context, clock, host(run, side), np.random.default_rng(seed))
                bench.aim = core.operator.tec.aim if core.operator.tec else None
                return await work(bench, run)
        finally:
            ticking.cancel()
            run.close()

    with (
        tempfile.TemporaryDirectory(prefix="qmodd-bench-") as directory,
        asyncio.Runner(loop_factory=lambda: loop) as runner,
    ):
        return runner.run(main(Path(directory)))
