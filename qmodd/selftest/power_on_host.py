"""The controller itself: room on its disk, and a clock that keys' lifetimes can be judged by."""

from __future__ import annotations

from qmodd.selftest.bench import Bench
from qmodd.selftest.model import Check, Finding, Level, Limits

FREE_SHARE = Limits(low=0.02, warn_low=0.10)
FREE_BYTES = Limits(low=64e6, warn_low=512e6)
PAUSE_S = 0.2
# UTC against the monotonic clock over the pause: a step in between is no clock to sign records by.
STEP_S = Limits(warn_low=-0.05, warn_high=0.05)
# A warning, not a failure: no key rests on UTC. An alarm says it as well, and lifetimes are not judged meanwhile.
SYNCHRONISED = Limits(0.0, 1.0, 1.0, 1.0)


async def host(bench: Bench) -> list[Finding]:
    """Disk of the state directory, discipline of UTC, and no step while one looks."""
    free, size = bench.host.disk(bench.host.state_dir)
    fine, why = bench.host.clock_synchronised()
    begun, utc = bench.clock.monotonic(), bench.clock.utc()
    await bench.sleep(PAUSE_S)
    step = (bench.clock.utc() - utc).total_seconds() - (bench.clock.monotonic() - begun)
    hint = f"{bench.host.state_dir} is filling up: keys and records cannot be stored"
    return [
        Finding("disk_free_share", free / size if size else 0.0, "", FREE_SHARE, "disk", hint=hint),
        Finding("disk_free", float(free), "bytes", FREE_BYTES, "disk", hint=hint),
        Finding("clock_synchronised", float(fine), "", SYNCHRONISED, "clock", hint=why or "no source of time"),
        Finding("clock_step", step, "s", STEP_S, "clock", hint="UTC jumps against the monotonic clock"),
    ]


CHECKS: tuple[Check, ...] = (Check("host", Level.POWER_ON, host, parts=("disk", "clock")),)
