"""A commissioning in simulated time: an emulated pair from power-on to its first keys, as it would tell a broker."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from qmodd.commission.findings import Pair
from qmodd.selftest.model import Level
from qmodd.selftest.report_json import as_dict
from qmodd.selftest_cli.emulated import selftest_module
from qmodd.soak import STROBE, Run
from sim.loop import SimulatedLoop
from sim.scenario import Scenario

# What upkeep would take its time for, at once: the link's loss is a gate.
SETTINGS: dict[str, Any] = {**STROBE, "upkeep_spread_s": 1.0}
MOST_S = 3600.0


def commission_emulated(
    scenario: Scenario, most_loss_db: float, told: Callable[[str], None] = lambda _text: None, most_s: float = MOST_S
) -> Pair:
    """Until every gate is known, at most `most_s` simulated seconds."""
    loop, pair = SimulatedLoop(), Pair(most_loss_db=most_loss_db)

    async def main(directory: Path) -> None:
        run = Run(loop, directory, scenario, scenario.seed, dict(SETTINGS))
        said: list[str] = []

        def published(module: str, suffix: str, payload: bytes) -> None:
            pair.take(module, suffix, payload, loop.time())

        def complete() -> bool:
            now = f"{sum(g.ok is not None for g in pair.gates())} of {len(pair.gates())} gates are known"
            if said[-1:] != [now]:
                said.append(now)
                told(f"{loop.time():5.0f} s: {now}")
            return pair.complete()

        run.published = published
        try:
            await run.for_seconds(most_s, until=complete)
        finally:
            run.close()

    with (
        tempfile.TemporaryDirectory(prefix="qmodd-commission-") as directory,
        asyncio.Runner(loop_factory=lambda: loop) as runner,
    ):
        runner.run(main(Path(directory)))
    return pair


def light_on_tests(pair: Pair, scenario: Scenario, told: Callable[[str], None] = lambda _text: None) -> None:
    """The self-test up to light-on of both individuals, each from power-on, into the report."""
    for side in ("alice", "bob"):
        told(f"self-test of {side} up to light-on")
        pair.self_tests[side] = as_dict(selftest_module(side, scenario, Level.LIGHT_ON))
