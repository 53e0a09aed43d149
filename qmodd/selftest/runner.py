"""Runs the checks of a level and of those before it: lanes side by side, each check within its time, none missed."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Sequence
from dataclasses import replace

from drivers.errors import DriverError
from qmodd.selftest.bench import Bench
from qmodd.selftest.blame import suspects
from qmodd.selftest.model import (
    TEC_LANE,
    Check,
    Finding,
    Level,
    Limits,
    Report,
    Verdict,
    skipped,
    tec_seconds,
)


async def run(
    bench: Bench,
    level: Level,
    checks: Sequence[Check],
    *,
    only: Level | None = None,
    findings: list[Finding] | None = None,
) -> Report:
    """Every check of `bench`'s side up to `level`, or of `only` one level. A check that fails is a finding, never an
    exception; what a bug raises is raised. `findings`: what is known before, extended while the checks run."""
    begun, taken = bench.clock.monotonic(), bench.clock.utc().isoformat(timespec="milliseconds")
    findings = bench.findings = [] if findings is None else findings
    spent: dict[str, float] = {}
    for step in (only,) if only else level.upto:
        mine = [c for c in checks if c.level is step and bench.side in c.sides]
        spent |= await _level(bench, step, mine, findings)
    return report_of(bench, only or level, taken, bench.clock.monotonic() - begun, findings, spent)


def report_of(
    bench: Bench, level: Level, taken: str, seconds: float, findings: Sequence[Finding], spent: dict[str, float]
) -> Report:
    """With what the bench knows of its module."""
    controller = bench.module.config.module.serial
    return Report(
        bench.side,
        bench.serial or controller,
        level,
        taken,
        seconds,
        tuple(findings),
        suspects(findings),
        dict(spent),
        controller=controller,
        firmware_sha256=bench.context.firmware_sha256,
    )


async def _level(bench: Bench, level: Level, checks: Sequence[Check], findings: list[Finding]) -> dict[str, float]:
    """Seconds as the report has them: of the slowest lane but that of the temperature, and of that one."""
    lanes: dict[str, list[Check]] = {"": []}
    for check in checks:
        lanes.setdefault(check.lane, []).append(check)
    total, done, begun = max(1, len(checks)), 0, bench.clock.monotonic()
    spent = {level.value: 0.0}

    async def lane(own: list[Check]) -> None:
        nonlocal done
        for check in own:
            bench.progress(check.name, done / total, f"{check.level} self-test")
            findings.extend(await _one(bench, check, findings))
            done += 1
        key = tec_seconds(level) if own and own[0].lane == TEC_LANE else level.value
        spent[key] = max(spent.get(key, 0.0), bench.clock.monotonic() - begun)

    async with asyncio.TaskGroup() as group:
        for name, own in lanes.items():
            group.create_task(lane(own), name=f"selftest lane {name or 'main'}")
    return spent


async def _one(bench: Bench, check: Check, so_far: Sequence[Finding]) -> list[Finding]:
    if blocked := sorted({f.part for f in so_far if f.verdict is Verdict.FAILED} & _wanted(check, so_far)):
        return [replace(skipped(check.name, check.name, f"{blocked[0]} has failed", tuple(blocked)), level=check.level)]
    try:
        async with asyncio.timeout(check.budget_s):
            found = await check.run(bench)
    except DriverError as e:
        found = [_broken(bench, check, str(e))]
    except TimeoutError:
        found = [_broken(bench, check, f"not done within {check.budget_s:g} s")]
    return [replace(f, level=check.level) for f in found]


def _wanted(check: Check, so_far: Sequence[Finding]) -> set[str]:
    by_name = {f.name: f.part for f in so_far}
    return {by_name.get(name, name) for name in check.after}


def _broken(bench: Bench, check: Check, why: str) -> Finding:
    """A device that did not answer, by the name that its error begins with, or by the address in it."""
    named = next((d.name for d in bench.module.devices.values() if why.startswith(d.name)), "")
    named = named or next((d.name for d in bench.module.config.device if d.address in why), "")
    part = named or (check.parts[0] if check.parts else check.name)
    role = next((r for r, d in bench.module.devices.items() if d.name == part), "")
    needs = (bench.bus(role),) if role else ()
    return Finding(f"{check.name}.answers", math.nan, "", Limits(1.0, 1.0), part, needs, hint=why)
