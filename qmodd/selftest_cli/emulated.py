"""An emulated module tested from power-on in simulated time: for `qmodd selftest --emulated`, benchmarks and tests.

The same checks, drivers and chips as on a module; only the transports are in memory.
"""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from qmodd.calibrate.emulated import EmulatedPair, Told, calibrate_both
from qmodd.selftest.bench import Bench, Production
from qmodd.selftest.catalogue import CHECKS
from qmodd.selftest.model import Check, Level, Report
from qmodd.selftest_cli.session import examine_module
from qmodd.soak import STROBE, Run
from sim.loop import SimulatedLoop
from sim.scenario import Scenario

# No strobe: checks count every click, as calibrations do; the watchdog line as on a module.
SETTINGS: dict[str, Any] = {**STROBE, "gate_open_ps": 0, "gate_period_ps": 0, "watchdog_period_s": 0.1}


@dataclass
class Listening:
    """Who wants to know what: `say` of steps, `progress` of checks, `on_bench` of the bench and `on_report`
    of the report of each test that is over."""

    say: Callable[[str], None] = lambda _text: None
    progress: Callable[[str, float, str], None] = lambda _name, _fraction, _message: None
    on_bench: Callable[[Bench], None] = lambda _bench: None
    on_report: Callable[[Report], None] = lambda _report: None


def selftest_module(
    side: str,
    scenario: Scenario | None = None,
    level: Level = Level.LIGHT_ON,
    *,
    seed: int | None = None,
    checks: Sequence[Check] | None = None,
    only: Level | None = None,
    directory: Path | None = None,
    calibrated: bool = False,
    repeat: int = 1,
    prepare: Callable[[Run], None] = lambda _run: None,
    told: Listening | None = None,
    production: Production | None = None,
) -> Report:
    """Test `side` of an emulated pair up to `level`, or `only` one. `seed` replaces the scenario's.

    `prepare` may spoil the run before a device is opened. `calibrated`: the pair is calibrated before, so that there
    are records to hold the module against. `repeat`: so often, one after the other; the last report is returned. Raises
    what a bug raises.
    """
    chosen = scenario or Scenario()
    if seed is not None:
        chosen = chosen.model_copy(update={"seed": seed})
    loop = SimulatedLoop()
    with ExitStack() as stack:
        where = directory or Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="qmodd-selftest-")))

        async def main() -> Report:
            run = Run(loop, where, chosen, chosen.seed, dict(SETTINGS))
            try:
                if calibrated:
                    await calibrate_both(EmulatedPair(run), Told(), None, ())
                prepare(run)
                for _ in range(repeat):
                    report = await examine_side(run, side, level, checks, only, told, production)
                return report
            finally:
                run.close()

        with asyncio.Runner(loop_factory=lambda: loop) as runner:
            return runner.run(main())


async def examine_side(
    run: Run,
    side: str,
    level: Level,
    checks: Sequence[Check] | None = None,
    only: Level | None = None,
    told: Listening | None = None,
    production: Production | None = None,
) -> Report:
    """One side of a pair whose cores do not run; its electronics' own clockwork runs beside the test."""
    heard = told or Listening()
    ticking = asyncio.ensure_future(run.tick())
    try:
        report = await examine_module(
            run.sites[side].core,
            level,
            CHECKS if checks is None else checks,
            only=only,
            say=heard.say,
            progress=heard.progress,
            on_bench=heard.on_bench,
            production=production,
        )
    finally:
        ticking.cancel()
    heard.on_report(report)
    return report
