"""Time of a level without its temperature checks, and theirs: what has to be short is judged apart from them."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any, cast

from hypothesis import given
from hypothesis import strategies as st

from qmodd.selftest.bench import Bench
from qmodd.selftest.model import TEC_LANE, Check, Finding, Level, tec_seconds
from qmodd.selftest.runner import run
from sim.loop import SimulatedLoop

LANES = ("", "b", TEC_LANE)


def bench_of(loop: SimulatedLoop) -> Bench:
    clock = SimpleNamespace(monotonic=loop.time, utc=lambda: datetime(2026, 1, 1, tzinfo=UTC))
    module = SimpleNamespace(config=SimpleNamespace(module=SimpleNamespace(serial="QM-B-0001")), devices={})
    made = SimpleNamespace(
        side="bob", clock=clock, module=module, findings=[], progress=lambda *_: None, serial="QB1234",
        context=SimpleNamespace(firmware_sha256="ab"),
    )  # fmt: skip
    return cast(Bench, made)


def check(number: int, lane: str, seconds: float) -> Check:
    async def work(_bench: Bench) -> Sequence[Finding]:
        await asyncio.sleep(seconds)
        return []

    return Check(f"c{number}", Level.LIGHT_OFF, work, lane=lane, budget_s=100.0)


@given(st.lists(st.tuples(st.sampled_from(LANES), st.floats(0.5, 9.0)), min_size=1, max_size=8))
def test_lanes_run_side_by_side_and_the_temperature_is_timed_apart(work: list[tuple[str, float]]) -> None:
    loop = SimulatedLoop()
    checks = [check(n, lane, s) for n, (lane, s) in enumerate(work)]

    async def main() -> Any:
        return await run(bench_of(loop), Level.LIGHT_OFF, checks, only=Level.LIGHT_OFF)

    with asyncio.Runner(loop_factory=lambda: loop) as runner:
        report = runner.run(main())
    of = {lane: sum(s for own, s in work if own == lane) for lane in LANES}
    assert abs(report.level_seconds["light-off"] - max(of[""], of["b"])) < 1e-6
    assert abs(report.level_seconds.get(tec_seconds(Level.LIGHT_OFF), 0.0) - of[TEC_LANE]) < 1e-6
    assert (tec_seconds(Level.LIGHT_OFF) in report.level_seconds) == (of[TEC_LANE] > 0.0)
    assert (report.serial, report.controller, report.firmware_sha256) == ("QB1234", "QM-B-0001", "ab")
