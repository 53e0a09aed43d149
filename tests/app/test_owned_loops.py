"""A loop that drives outputs owns them, and rests while one of them is leased."""

from __future__ import annotations

import asyncio
from pathlib import Path

from qmodd.control.loop import Scheduler
from qmodd.soak import Run
from tests.app.pair import build


def test_a_loop_rests_while_its_output_is_leased(tmp_path: Path) -> None:
    ran: list[float] = []

    async def script(run: Run) -> None:
        wiring = run.sites["alice"].core.wiring

        async def step(now_s: float) -> None:
            ran.append(now_s)

        async def gave_up(_loop: str, why: str) -> None:
            raise AssertionError(why)

        scheduler = Scheduler(wiring.clock, asyncio.sleep, gave_up)
        wiring.add_loop(scheduler, "carver null", 1.0, step, outputs=["bias.carver", "bias.state"])
        assert wiring.leases.owner("bias.state") == "loop carver null"
        running = asyncio.ensure_future(scheduler.run())
        await asyncio.sleep(2.5)
        assert len(ran) == 3
        wiring.leases.take("bias.state", "ada", 60.0, 30.0)
        await asyncio.sleep(3.0)
        assert len(ran) == 3
        wiring.leases.end_all("the test is over")
        await asyncio.sleep(2.0)
        assert len(ran) == 5
        running.cancel()

    build(tmp_path, script).close()
