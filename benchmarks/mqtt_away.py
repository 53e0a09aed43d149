"""The control loops of a module whose broker hangs: how much longer their periods are than with a broker."""

from __future__ import annotations

import asyncio
import json
import signal
from typing import Any

from benchmarks.measure import Mismatch, Result
from benchmarks.mqtt_rig import ROOT, Module
from qmodd.broker import BrokerHandle
from qmodd.local_link import LocalLink, open_local

# A loop's percentiles are over its last 1024 periods: at 0.1 s they are all of the outage after this time.
AWAY_S = 110.0
FASTEST_S = 0.101
LIMIT_PERCENT = 10.0


async def broker_away(found: Module, broker: BrokerHandle, away_s: float = AWAY_S) -> Result:
    """p99 of the period of the module's fast loops while the broker is stopped, over that before, the worst loop, per
    cent. Read at core's local door, since the broker tells nothing. Leaves the broker running and its clients lost."""
    async with open_local(found.directory / "alice" / "state") as local:
        await local.subscribe(f"{ROOT}telemetry/loops")
        await asyncio.sleep(away_s)
        calm = await _newest(local)
        broker.process.send_signal(signal.SIGSTOP)
        try:
            await asyncio.sleep(away_s)
            away = await _newest(local)
        finally:
            broker.process.send_signal(signal.SIGCONT)
    return judged(calm, away, away_s)


async def _newest(local: LocalLink) -> dict[str, Any]:
    """The telemetry of now, whatever waits from before."""
    newest: dict[str, Any] = {}
    try:
        while True:
            async with asyncio.timeout(3.0 if not newest else 0.2):
                newest = json.loads((await local.next_message()).payload)
    except TimeoutError:
        if not newest:
            raise Mismatch("core tells nothing of its loops at its local door") from None
    return newest


def judged(calm: dict[str, Any], away: dict[str, Any], away_s: float) -> Result:
    """Raises Mismatch if no fast loop has run through both spans."""
    names = [n.removesuffix("_period_s") for n in calm if n.endswith("_period_s") and calm[n] <= FASTEST_S]
    names = [n for n in names if away.get(f"{n}_runs_count", 0) - calm[f"{n}_runs_count"] > 0.9 * away_s / FASTEST_S]
    if not names:
        raise Mismatch("no loop of 0.1 s or less has run while the broker was away")
    p99 = {n: [1e3 * (x[f"{n}_period_s"] + x[f"{n}_late_p99_s"]) for x in (calm, away)] for n in names}
    longer = {n: 100.0 * (after / before - 1.0) for n, (before, after) in p99.items()}
    worst = max(longer, key=lambda n: longer[n])
    return Result(
        "mqtt, broker away",
        max(0.0, longer[worst]),
        "% longer p99",
        None,
        "",
        less_is_better=True,
        limit=LIMIT_PERCENT,
        detail={
            "p99_calm_ms": p99[worst][0],
            "p99_away_ms": p99[worst][1],
            "away_s": away_s,
            "loops_count": float(len(names)),
        },
        note=f"period of {worst}",
    )
