"""Each of the receiver's heaters is answered by its monitor; neighbours do little to the basis splitter."""

from __future__ import annotations

import pytest

from qmodd.selftest import interferometer_bob, light_on_bob, tones_bob
from qmodd.selftest.bench import Bench
from qmodd.selftest.model import Level, Report
from qmodd.selftest.runner import run
from qmodd.soak import Run
from tests.selftest.bench import on_bench

CHECKS = (*light_on_bob.CHECKS, *interferometer_bob.CHECKS, *tones_bob.CHECKS)


@pytest.mark.parametrize("seed", [1, 305])
def test_every_heater_is_heard(seed: int) -> None:
    """Of seed 305 one phase lies on the fringe's extremum, where only the other one's tone is seen."""

    async def work(bench: Bench, _run: Run) -> tuple[Report, int]:
        return await run(bench, Level.LIGHT_ON, CHECKS, only=Level.LIGHT_ON), len(bench.figures)

    report, figures = on_bench("bob", work, seed=seed, settled=True)
    assert [f.why for f in report.failed] == []
    assert {f"tone.{h}" for h in ("basis", "split", "phase", "combine")} <= {f.name for f in report.findings}
    assert figures >= 6


def test_without_set_points_tones_are_left_out_and_say_why() -> None:
    async def work(bench: Bench, _run: Run) -> list[str]:
        return [f.skipped for f in await tones_bob.tones(bench)]

    assert set(on_bench("bob", work)) == {"heaters gave no set points"}
