"""The control loops of a module whose broker hangs: how much longer their periods are than with a broker."""

from __future__ import annotations

import asyncio
import contextlib
import json
import signal
from typing import Any

from benchmarks.hostile import late_between
from benchmarks.measure import Mismatch, Result
from benchmarks.mqtt_rig import ROOT, Module
from qmodd.broker import BrokerHandle
from qmodd.local_link import LocalLink, open_local

AWAY_S = 60.0
FASTEST_S = 0.31
LIMIT_PERCENT = 10.0


async def broker_away(found: Module, broker: BrokerHandle, away_s: float = AWAY_S) -> Result:
    """Period with its rms lateness of the module's fast loops while the broker is stopped, over that before, the worst
    loop, per cent; p99 over the last 1024 periods is told beside it.

    Read at core's local door, since the broker tells nothing. Leaves the broker running and its clients lost."""
    async with open_local(found.directory / "alice" / "state") as local:
        await local.subscribe(f"{ROOT}telemetry/loops")
        before = await _after(local, 3.0)
        calm = await _after(local, away_s)
        broker.process.send_signal(signal.SIGSTOP)
        try:
            away = await _after(local, away_s)
        finally:
            broker.process.send_signal(signal.SIGCONT)
    return judged(before, calm, away, away_s)


async def _after(local: LocalLink, seconds: float) -> dict[str, Any]:
    """The telemetry of then; what comes until then is taken, so that nothing of it is in the way."""
    newest: dict[str, Any] = {}
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            while True:
                newest = json.loads((await local.next_message()).payload)
    if not newest:
        raise Mismatch("core tells nothing of its loops at its local door")
    return newest


def judged(before: dict[str, Any], calm: dict[str, Any], away: dict[str, Any], away_s: float) -> Result:
    """Raises Mismatch if no fast loop has run through both spans."""
    names = [n.removesuffix("_period_s") for n in calm if n.endswith("_period_s") and calm[n] <= FASTEST_S]
    names = [n for n in names if away.get(f"{n}_runs_count", 0) - calm[f"{n}_runs_count"] > 0.8 * away_s / FASTEST_S]
    if not names:
        raise Mismatch(f"no loop of {FASTEST_S:g} s or less has run while the broker was away")
    late = {n: (late_between(before, calm, n), late_between(calm, away, n)) for n in names}
    longer = {n: 100.0 * (b - a) / (calm[f"{n}_period_s"] + a) for n, (a, b) in late.items()}
    worst = max(longer, key=lambda n: longer[n])
    return Result(
        "mqtt, broker away",
        max(0.0, longer[worst]),
        "% longer period",
        None,
        "",
        less_is_better=True,
        limit=LIMIT_PERCENT,
        detail={
            "late_rms_calm_ms": 1e3 * late[worst][0],
            "late_rms_away_ms": 1e3 * late[worst][1],
            "late_p99_calm_ms": 1e3 * calm[f"{worst}_late_p99_s"],
            "late_p99_away_ms": 1e3 * away[f"{worst}_late_p99_s"],
            "away_s": away_s,
            "loops_count": float(len(names)),
        },
        note=worst,
    )
