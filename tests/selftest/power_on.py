"""The power-on level on an emulated module: shared by its tests."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from qmodd.selftest.bench import Bench
from qmodd.selftest.model import Level, Report
from qmodd.selftest.power_on import CHECKS
from qmodd.selftest.runner import run as run_checks
from qmodd.soak import Run
from tests.selftest.bench import fault, on_bench

# After the devices are open and before the first check has done anything: what opening says of a part that is broken
# from the start is not a matter of the checks.
AFTER_OPEN_S = 0.1


def examined(
    side: str,
    *faults: tuple[str, str, dict[str, Any]],
    seed: int = 3,
    at: float = AFTER_OPEN_S,
    meddle: Callable[[Bench, Run], None] = lambda _bench, _run: None,
    settled: bool = False,
) -> Report:
    """Report of the level with (target, kind, more) faults; `meddle` is called right before the checks."""

    async def work(bench: Bench, run: Run) -> Report:
        meddle(bench, run)
        return await run_checks(bench, Level.POWER_ON, CHECKS, only=Level.POWER_ON)

    lines = [fault(f"{side}.{on}", what, at=at, **more) for on, what, more in faults]
    return on_bench(side, work, seed=seed, faults=lines, settled=settled)


def names(report: Report) -> set[str]:
    """Names of the findings that failed."""
    return {f.name for f in report.failed}
